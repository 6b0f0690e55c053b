//! Which backups may go.
//!
//! Only days, weeks and months that have a backup are counted, and the clock is never asked: a tenant whose backups have
//! failed for a year still has all of its last good ones, and a clock that is wrong removes nothing.

use std::collections::BTreeSet;

use jiff::Zoned;
use jiff::tz::TimeZone;

use super::keys::BackupId;

/// How many to keep. The newest is kept whatever this says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// The newest of each of so many days (UTC).
    pub daily: usize,
    /// The newest of each of so many weeks (ISO 8601, UTC).
    pub weekly: usize,
    /// The newest of each of so many months (UTC).
    pub monthly: usize,
}

/// Those of `good` that are not kept, oldest first. `good` must hold whole backups only: one that cannot be restored would
/// push out one that can.
pub fn surplus(good: &BTreeSet<BackupId>, keep: Keep) -> Vec<BackupId> {
    let day = |time: &Zoned| (time.year(), time.day_of_year());
    let week = |time: &Zoned| {
        let week = time.date().iso_week_date();
        (week.year(), i16::from(week.week()))
    };
    let month = |time: &Zoned| (time.year(), i16::from(time.month()));
    let mut kept: BTreeSet<BackupId> = good.last().copied().into_iter().collect();
    kept.extend(newest_of_each(good, keep.daily, day));
    kept.extend(newest_of_each(good, keep.weekly, week));
    kept.extend(newest_of_each(good, keep.monthly, month));
    good.difference(&kept).copied().collect()
}

fn newest_of_each(good: &BTreeSet<BackupId>, count: usize, period: impl Fn(&Zoned) -> (i16, i16)) -> Vec<BackupId> {
    let mut seen = BTreeSet::new();
    let newest_first = good.iter().rev().filter(|id| seen.insert(period(&id.began.to_zoned(TimeZone::UTC))));
    newest_first.take(count).copied().collect()
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn at(time: &str) -> BackupId {
        BackupId::new(time.parse().unwrap(), Uuid::nil())
    }

    fn kept(good: &BTreeSet<BackupId>, keep: Keep) -> Vec<String> {
        let gone = surplus(good, keep);
        good.iter().filter(|id| !gone.contains(id)).map(|id| id.began.to_string()).collect()
    }

    #[test]
    fn of_each_day_week_and_month_the_newest_stays() {
        let good: BTreeSet<_> = [
            "2026-09-30T02:00:00Z",
            "2026-10-01T02:00:00Z",
            "2026-10-31T02:00:00Z",
            "2026-11-15T02:00:00Z", // Sunday
            "2026-11-16T02:00:00Z", // Monday
            "2026-11-25T02:00:00Z",
            "2026-11-26T02:00:00Z",
            "2026-11-26T14:00:00Z",
        ]
        .map(at)
        .into();
        let keep = Keep { daily: 2, weekly: 3, monthly: 3 };
        assert_eq!(
            kept(&good, keep),
            [
                "2026-09-30T02:00:00Z",
                "2026-10-31T02:00:00Z",
                "2026-11-15T02:00:00Z",
                "2026-11-16T02:00:00Z",
                "2026-11-25T02:00:00Z",
                "2026-11-26T14:00:00Z"
            ]
        );
    }

    #[test]
    fn a_week_at_the_turn_of_the_year_is_one_week() {
        let good: BTreeSet<_> = ["2026-12-30T02:00:00Z", "2027-01-01T02:00:00Z"].map(at).into();
        assert_eq!(kept(&good, Keep { daily: 0, weekly: 5, monthly: 0 }), ["2027-01-01T02:00:00Z"]);
    }

    #[test]
    fn the_last_one_stays_also_where_nothing_is_to_be_kept() {
        let good: BTreeSet<_> = ["2020-01-01T02:00:00Z", "2020-01-02T02:00:00Z"].map(at).into();
        assert_eq!(kept(&good, Keep { daily: 0, weekly: 0, monthly: 0 }), ["2020-01-02T02:00:00Z"]);
        assert_eq!(surplus(&BTreeSet::new(), Keep { daily: 0, weekly: 0, monthly: 0 }), []);
    }

    proptest! {
        #[test]
        fn whatever_is_asked_for(
            hours in proptest::collection::btree_set(0_i64..20_000, 0..60),
            daily in 0_usize..10, weekly in 0_usize..6, monthly in 0_usize..14,
        ) {
            let keep = Keep { daily, weekly, monthly };
            let origin: Timestamp = "2024-02-27T00:00:00Z".parse().unwrap();
            let good: BTreeSet<_> =
                hours.iter().map(|hour| BackupId::new(origin + SignedDuration::from_hours(*hour), Uuid::nil())).collect();
            let gone: BTreeSet<_> = surplus(&good, keep).into_iter().collect();
            let stay: BTreeSet<_> = good.difference(&gone).copied().collect();
            // The newest stays; no more stay than were asked for; as many days stay as there are, up to what was asked for.
            prop_assert_eq!(stay.last(), good.last());
            prop_assert!(stay.len() <= (daily + weekly + monthly).max(1));
            let days = |ids: &BTreeSet<BackupId>| ids.iter().map(|id| id.began.to_zoned(TimeZone::UTC).date()).collect::<BTreeSet<_>>().len();
            prop_assert!(days(&stay) >= days(&good).min(daily));
            // What was kept once is kept when it is asked again, until there is a newer one.
            prop_assert_eq!(surplus(&stay, keep), vec![]);
        }
    }
}
