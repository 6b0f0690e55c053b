//! Whether Redis answers, as `/metrics` shows it.

use std::fmt;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::{Inner, Purpose, Redis};

/// Counts what went wrong.
#[derive(Debug, Default)]
pub struct RedisMetrics {
    /// In the order of [`Purpose`].
    errors: [AtomicU64; 3],
}

impl RedisMetrics {
    pub(super) fn count_error(&self, purpose: Purpose) {
        self.errors[purpose as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// The collector. It does not keep Redis alive.
pub(super) struct Lines(pub(super) Weak<Inner>);

impl fmt::Debug for Lines {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Lines")
    }
}

impl Collector for Lines {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let Some(inner) = self.0.upgrade() else { return Ok(()) };
        let redis = Redis(inner);
        let mut up = encoder.encode_descriptor(
            "maintenance_os_redis_up",
            "Whether commands are being sent to Redis, by what they are for",
            None,
            MetricType::Gauge,
        )?;
        for purpose in Purpose::ALL {
            up.encode_family(&[("purpose", purpose.name())])?.encode_gauge(&i64::from(redis.is_up(purpose)))?;
        }
        let mut errors = encoder.encode_descriptor(
            "maintenance_os_redis_errors",
            "Commands that Redis did not carry out, those not sent because it is away included",
            None,
            MetricType::Counter,
        )?;
        for purpose in Purpose::ALL {
            let count = redis.0.metrics.errors[purpose as usize].load(Ordering::Relaxed);
            errors.encode_family(&[("purpose", purpose.name())])?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }
}
