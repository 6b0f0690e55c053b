//! What a worker measures. Labels are names of jobs that it knows, and tenants up to a bound.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use uuid::Uuid;

use super::store::Fate;

/// Seconds.
const BUCKETS: [f64; 9] = [0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 3600.0];
/// Jobs that this worker does not know.
const UNKNOWN: &str = "_unknown";
/// Tenants with a figure of their own.
const MOST_TENANTS: usize = 2000;
/// How long a tenant's figure is shown after it was looked at.
const FRESH: Duration = Duration::from_secs(300);
/// All others.
const OTHER: &str = "_other";

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Well.
    Done,
    /// It is tried again.
    Retried,
    /// It was given up.
    Dead,
    /// The lease was lost: somebody else has it.
    Lost,
}

impl Outcome {
    pub(super) fn of(fate: &Fate) -> Self {
        match fate {
            Fate::Done(_) => Self::Done,
            Fate::Again(..) => Self::Retried,
            Fate::Dead(_) => Self::Dead,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Retried => "retried",
            Self::Dead => "dead",
            Self::Lost => "lost",
        }
    }
}

/// A worker's figures. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct JobMetrics(Arc<Mutex<Figures>>);

#[derive(Debug, Default)]
struct Figures {
    ended: BTreeMap<(&'static str, Outcome), u64>,
    waits: BTreeMap<&'static str, Times>,
    runs: BTreeMap<&'static str, Times>,
    /// Jobs that were left when a tenant was last looked at, and when that was.
    left: BTreeMap<Uuid, (u64, Instant)>,
    lost: u64,
    waiting: usize,
    processes: usize,
    busy: usize,
}

#[derive(Debug, Clone)]
struct Times(Histogram);

impl Default for Times {
    fn default() -> Self {
        Self(Histogram::new(BUCKETS))
    }
}

impl JobMetrics {
    /// Makes them part of what `/metrics` answers.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
    }

    pub(super) fn count(&self, kind: Option<&'static str>, outcome: Outcome, count: u64) {
        *self.lock().ended.entry((kind.unwrap_or(UNKNOWN), outcome)).or_default() += count;
    }

    pub(super) fn ended(&self, kind: Option<&'static str>, waited: Option<Duration>, ran: Duration) {
        let kind = kind.unwrap_or(UNKNOWN);
        let mut figures = self.lock();
        if let Some(waited) = waited {
            figures.waits.entry(kind).or_default().0.observe(waited.as_secs_f64());
        }
        figures.runs.entry(kind).or_default().0.observe(ran.as_secs_f64());
    }

    pub(super) fn looked(&self, tenant: Uuid, left: u64, lost: u64, given_up: u64) {
        let mut figures = self.lock();
        if left == 0 {
            figures.left.remove(&tenant);
        } else {
            figures.left.insert(tenant, (left, Instant::now()));
        }
        figures.lost += lost;
        if given_up > 0 {
            *figures.ended.entry((UNKNOWN, Outcome::Dead)).or_default() += given_up;
        }
    }

    pub(super) fn set_waiting(&self, tenants: usize) {
        self.lock().waiting = tenants;
    }

    pub(super) fn set_processes(&self, processes: usize, busy: usize) {
        let mut figures = self.lock();
        (figures.processes, figures.busy) = (processes, busy);
    }

    fn lock(&self) -> MutexGuard<'_, Figures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[allow(clippy::cast_possible_wrap, reason = "counts of what exists")]
impl Collector for JobMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut figures = self.lock();
        // Another worker may have looked since, and found nothing.
        figures.left.retain(|_, (_, seen)| seen.elapsed() < FRESH);
        let mut ended = encoder.encode_descriptor(
            "maintenance_os_jobs",
            "Attempts at jobs by how they ended",
            None,
            MetricType::Counter,
        )?;
        for ((job, outcome), count) in &figures.ended {
            ended
                .encode_family(&[("job", *job), ("outcome", outcome.name())])?
                .encode_counter::<NoLabelSet, _, u64>(count, None)?;
        }
        encoder
            .encode_descriptor("maintenance_os_jobs_lost_workers", "Leases that ran out", None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&figures.lost, None)?;
        for (name, help, times) in [
            ("maintenance_os_job_wait_seconds", "From queueing a job to its first attempt", &figures.waits),
            ("maintenance_os_job_run_seconds", "Time of one attempt", &figures.runs),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for (job, times) in times {
                times.0.encode(family.encode_family(&[("job", *job)])?)?;
            }
        }
        for (name, help, value) in [
            ("maintenance_os_queue_tenants_waiting", "Tenants that wait for their turn", figures.waiting),
            ("maintenance_os_worker_processes", "Jobs that this worker may do at once", figures.processes),
            ("maintenance_os_worker_busy", "Jobs that this worker is doing", figures.busy),
        ] {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&(value as i64))?;
        }
        let mut left = encoder.encode_descriptor(
            "maintenance_os_queue_jobs",
            "Jobs that were left when a tenant was last looked at from here",
            None,
            MetricType::Gauge,
        )?;
        let mut other = 0;
        for (place, (tenant, (count, _))) in figures.left.iter().enumerate() {
            if place < MOST_TENANTS {
                left.encode_family(&[("tenant_id", tenant.to_string())])?.encode_gauge(&(*count as i64))?;
            } else {
                other += count;
            }
        }
        if other > 0 {
            left.encode_family(&[("tenant_id", OTHER)])?.encode_gauge(&(other as i64))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_bounded_labels() {
        let metrics = JobMetrics::default();
        metrics.count(Some("import.apply"), Outcome::Done, 2);
        metrics.count(None, Outcome::Dead, 1);
        metrics.ended(Some("import.apply"), Some(Duration::from_secs(2)), Duration::from_millis(20));
        for tenant in 0..=MOST_TENANTS as u128 {
            metrics.looked(Uuid::from_u128(tenant), 3, 0, 0);
        }
        metrics.looked(Uuid::from_u128(7), 0, 1, 0);
        metrics.looked(Uuid::from_u128(1 << 100), 4, 0, 0);
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "maintenance_os_jobs_total{job=\"import.apply\",outcome=\"done\"} 2",
            "maintenance_os_jobs_total{job=\"_unknown\",outcome=\"dead\"} 1",
            "maintenance_os_job_wait_seconds_bucket{le=\"5.0\",job=\"import.apply\"} 1",
            "maintenance_os_jobs_lost_workers_total 1",
            "maintenance_os_queue_jobs{tenant_id=\"_other\"} 4",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(!text.contains(&Uuid::from_u128(7).to_string()), "an empty queue has no figure");
    }
}
