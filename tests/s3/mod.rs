//! The bucket of the local S3 server, for tests.

use maintenance_os::tenancy::storage::S3Settings;

/// A variable that `make test-code` sets.
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: run `e2e/cluster/s3-local.sh start`, then source ~/.cache/maintenance-os/s3-local/env"
        )
    })
}

/// Where it is, and who may use it.
pub fn bucket() -> S3Settings {
    S3Settings {
        access_key_id: variable("MOS_TEST_S3_KEY"),
        secret_access_key: variable("MOS_TEST_S3_SECRET"),
        region: variable("MOS_TEST_S3_REGION"),
        bucket: variable("MOS_TEST_S3_BUCKET"),
        url: Some(variable("MOS_TEST_S3_URL")),
        custom_endpoint: true,
        allow_http: true,
    }
}
