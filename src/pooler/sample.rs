//! Documents for the tests of this module.

use uuid::Uuid;

use crate::api::pooler::{PoolerEntry, PoolerSettings, PoolerSlice, PoolerUser};
use crate::api::server::{PoolMode, SslMode};
use crate::api::slices::{SCHEMA, SLICE_COUNT};

pub(super) fn settings() -> PoolerSettings {
    PoolerSettings {
        schema: SCHEMA,
        generation: 1,
        epoch: 1,
        host: "pg1.example.com".to_owned(),
        port: 5432,
        ssl_mode: SslMode::Require,
        ca: String::new(),
        pool_mode: PoolMode::Transaction,
        max_client_conn: 1000,
        default_pool_size: 25,
        reserve_pool_size: 5,
        reserve_pool_timeout: 3,
        server_lifetime: 3600,
        client_certificate: String::new(),
        client_key: String::new(),
    }
}

/// An entry of slice 0.
pub(super) fn entry(number: u32) -> PoolerEntry {
    let uuid = Uuid::from_u128((u128::from(number * SLICE_COUNT) << 96) | 0x4000_8000_0000_0000_0000);
    let database = format!("tenant_{uuid}");
    let user = |suffix| PoolerUser { name: format!("{database}_{suffix}"), verifier: verifier('A') };
    PoolerEntry {
        uuid,
        users: vec![user("a"), user("b")],
        database,
        pool_size: 5,
        reserve_pool: 2,
        max_db_connections: 7,
        read_only: false,
    }
}

pub(super) fn verifier(letter: char) -> String {
    let key = format!("{}=", letter.to_string().repeat(42) + "A");
    format!("SCRAM-SHA-256$4096:{}==${key}:{key}", "A".repeat(22))
}

pub(super) fn slice(epoch: u64, generation: u64, entries: Vec<PoolerEntry>) -> PoolerSlice {
    PoolerSlice { schema: SCHEMA, generation, epoch, entries }
}
