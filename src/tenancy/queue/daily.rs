//! Jobs that every tenant has once a day.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use uuid::Uuid;

use super::QueueError;
use super::job::TenantJob;
use crate::api::routing::RoutingEntry;
use crate::api::tenant::TenantState;
use crate::error::chain;
use crate::tenancy::redis::Purpose;
use crate::tenancy::{Tenancy, TenantContext};

/// How often a worker looks whose day has begun.
const LOOK: Duration = Duration::from_secs(60);
/// A new day's work is spread over so many minutes.
const SPREAD: u128 = 60;
/// A worker that begins to queue one and does not say that it did is lost.
const CLAIM: Duration = Duration::from_secs(300);
/// For longer than a day it is remembered that it was queued.
const REMEMBERED: Duration = Duration::from_hours(36);

/// A job of a day.
pub trait DailyJob: TenantJob {
    /// The one of this day, in UTC. Its key has to name the day.
    fn of(day: Date) -> Self;
}

/// Queues a [`DailyJob`] for each tenant. Every worker has one; what is queued is queued once.
pub struct Daily<J> {
    tenancy: Tenancy,
    /// The day that each tenant was last queued for, as far as this process knows: a look costs nothing but memory.
    queued: HashMap<Uuid, Date>,
    job: PhantomData<fn() -> J>,
}

impl<J: DailyJob> Daily<J> {
    /// Has queued nothing yet.
    pub fn new(tenancy: &Tenancy) -> Self {
        Self { tenancy: tenancy.clone(), queued: HashMap::new(), job: PhantomData }
    }

    /// Looks every minute, for ever, as soon as it is known who is routed.
    pub async fn run(mut self) {
        while !self.tenancy.routing().is_settled() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        loop {
            self.look(self.tenancy.clock().now()).await;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Queues what has become due; returns for how many tenants.
    pub async fn look(&mut self, now: Timestamp) -> usize {
        let routing = self.tenancy.routing();
        self.queued.retain(|uuid, _| routing.tenant(*uuid).is_some());
        let mut count = 0;
        for entry in routing.tenants() {
            let Some(day) = due(&entry, now).filter(|day| self.queued.get(&entry.uuid) != Some(day)) else { continue };
            let uuid = entry.uuid;
            match self.queue(entry, day).await {
                Ok(Some(new)) => {
                    count += usize::from(new);
                    self.queued.insert(uuid, day);
                }
                // Another worker is at it: the next look sees what became of that.
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(target: "tenant", tenant_id = %uuid, error = chain(&error), "a daily job is put off");
                }
            }
        }
        count
    }

    /// Whether it was queued now, or another time; None: somebody else has just begun to. A worker that begins and is lost
    /// leaves it to the others after [`CLAIM`].
    async fn queue(&self, entry: Arc<RoutingEntry>, day: Date) -> Result<Option<bool>, QueueError> {
        let redis = self.tenancy.redis().ok_or(QueueError::NoRedis { job: J::NAME })?;
        let failed = |source| QueueError::Redis { job: J::NAME, source };
        let key = redis.key(Purpose::Default, entry.uuid, &format!("daily:{}:{day}", J::NAME));
        let mut claim = ::redis::cmd("SET");
        claim.arg(&key).arg("claimed").arg("NX").arg("GET").arg("EX").arg(CLAIM.as_secs());
        let before: Option<String> = redis.query(Purpose::Default, &claim).await.map_err(failed)?;
        match before.as_deref() {
            None => {}
            Some("queued") => return Ok(Some(false)),
            Some(_) => return Ok(None),
        }
        TenantContext::of_job(entry, &self.tenancy, tracing::Span::none()).queue().push(&J::of(day)).await?;
        let mut note = ::redis::cmd("SET");
        note.arg(&key).arg("queued").arg("EX").arg(REMEMBERED.as_secs());
        redis.query::<()>(Purpose::Default, &note).await.map_err(failed)?;
        Ok(Some(true))
    }
}

/// The day that a tenant's job is due for. Those that sleep when nobody asks are left alone.
fn due(entry: &RoutingEntry, now: Timestamp) -> Option<Date> {
    if entry.state != TenantState::Active || entry.sleeps {
        return None;
    }
    let now = now.to_zoned(TimeZone::UTC);
    let minute = u128::from(now.hour().unsigned_abs()) * 60 + u128::from(now.minute().unsigned_abs());
    (minute >= entry.uuid.as_u128() % SPREAD).then(|| now.date())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenancy::testing::entry;

    #[test]
    fn a_new_days_work_is_spread_over_an_hour_and_sleepers_are_left_alone() {
        let at = |time: &str| format!("2026-11-26T{time}:00Z").parse::<Timestamp>().expect("a time");
        let day = Some(jiff::civil::date(2026, 11, 26));
        let tenant = entry(Uuid::from_u128(17), &[]);
        assert_eq!(due(&tenant, at("00:16")), None);
        assert_eq!(due(&tenant, at("00:17")), day);
        assert_eq!(due(&tenant, at("23:59")), day);
        assert_eq!(due(&RoutingEntry { sleeps: true, ..tenant.clone() }, at("12:00")), None);
        assert_eq!(due(&RoutingEntry { state: TenantState::Suspended, ..tenant }, at("12:00")), None);
    }
}
