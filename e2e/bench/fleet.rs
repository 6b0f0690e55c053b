//! Tenants of the measurements that need no cluster.

use maintenance_os::api::plan::PlanLimits;
use maintenance_os::api::routing::{DatabaseAccess, Queue, RoutingEntry, RoutingPlan, RoutingSlice, Subscription};
use maintenance_os::api::slices::{SCHEMA, SLICE_COUNT, routing_slice, slice_of};
use maintenance_os::api::tenant::TenantState;
use uuid::Uuid;

/// The nth tenant.
pub fn entry(number: usize, access: &DatabaseAccess) -> RoutingEntry {
    let uuid = Uuid::new_v4();
    let host = format!("t{number}.maintenance-os.com");
    RoutingEntry {
        uuid,
        namespace: "customers".into(),
        name: format!("t{number}"),
        slug: format!("t{number}"),
        display_name: format!("Company {number}"),
        state: TenantState::Active,
        hosts: vec![host.clone()],
        primary_host: host,
        plan: RoutingPlan { name: "pro".into(), features: vec![], limits: PlanLimits::default() },
        subscription: Subscription::default(),
        database: DatabaseAccess { name: format!("tenant_{uuid}"), ..access.clone() },
        queue: Queue { name: format!("tenant-{uuid}"), weight: 1, max_processes: 10, ..Queue::default() },
        storage_prefix: format!("tenants/{uuid}/"),
        sleeps: false,
        incarnation: None,
        schema_version: None,
    }
}

/// A database that nobody has.
pub fn nowhere() -> DatabaseAccess {
    DatabaseAccess {
        host: "127.0.0.1".into(),
        port: 1,
        name: String::new(),
        username: "nobody".into(),
        password: "secret".into(),
        sslmode: "disable".into(),
        ..DatabaseAccess::default()
    }
}

/// The slices of a fleet, as the operator writes them.
pub fn slices(entries: &[RoutingEntry], generation: u64) -> Vec<(String, Vec<u8>)> {
    (0..SLICE_COUNT)
        .map(|number| {
            let tenants = entries.iter().filter(|entry| slice_of(entry.uuid) == number).cloned().collect();
            let slice = RoutingSlice { schema: SCHEMA, generation, epoch: 1, tenants, ..RoutingSlice::default() };
            (routing_slice(number), serde_json::to_vec(&slice).expect("a slice is plain data"))
        })
        .collect()
}
