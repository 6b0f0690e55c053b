//! What the unit tests of this library and of the app share.

use uuid::Uuid;

use crate::api::routing::{DatabaseAccess, Queue, RoutingEntry, RoutingPlan, RoutingSlice, Subscription};
use crate::api::slices::SCHEMA;
use crate::api::tenant::TenantState;

/// An active tenant at `hosts`, whose database is on a port where nothing listens.
pub(crate) fn entry(uuid: Uuid, hosts: &[&str]) -> RoutingEntry {
    RoutingEntry {
        uuid,
        namespace: "customers".into(),
        name: "acme".into(),
        slug: "acme".into(),
        display_name: "Acme GmbH".into(),
        state: TenantState::Active,
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        primary_host: hosts.first().map(|host| (*host).to_owned()).unwrap_or_default(),
        plan: RoutingPlan { name: "pro".into(), ..RoutingPlan::default() },
        subscription: Subscription::default(),
        database: DatabaseAccess {
            host: "127.0.0.1".into(),
            port: 1,
            name: format!("tenant_{uuid}"),
            username: format!("tenant_{uuid}_a"),
            password: "secret".into(),
            sslmode: "disable".into(),
            ..DatabaseAccess::default()
        },
        queue: Queue { name: format!("tenant-{uuid}"), weight: 1, max_processes: 10, ..Queue::default() },
        storage_prefix: format!("tenants/{uuid}/"),
        sleeps: false,
        incarnation: None,
        schema_version: None,
    }
}

/// A slice as the operator writes it.
pub(crate) fn slice(epoch: u64, generation: u64, tenants: &[RoutingEntry]) -> Vec<u8> {
    let slice =
        RoutingSlice { schema: SCHEMA, generation, epoch, tenants: tenants.to_vec(), ..RoutingSlice::default() };
    serde_json::to_vec(&slice).expect("a slice is plain data")
}
