//! When a subscription counts: part of the contract of the routing document, so that the operator's conditions and every
//! app say the same.

use std::str::FromStr;

use jiff::Timestamp;

use super::routing::Subscription;

/// Why there is no valid subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapse {
    /// The trial ended, and nobody subscribed.
    TrialEnded,
    /// The subscription was cancelled, and the time that was paid for is over.
    Cancelled,
    /// It was not paid.
    Unpaid,
    /// It is paused.
    Paused,
}

/// What is wrong with a subscription at that time, if anything. The names of the status are Stripe's, or `none`.
///
/// Where it is not certain, customers are served: a time that does not parse, a status that nobody knows yet. Whoever is
/// served for an hour too long costs less than whoever is locked out by mistake.
pub fn lapse(subscription: &Subscription, now: Timestamp) -> Option<Lapse> {
    let is_over =
        |end: &Option<String>| end.as_deref().and_then(|end| Timestamp::from_str(end).ok()).map(|end| now >= end);
    let trial_is_over = is_over(&subscription.trial_ends_at);
    match subscription.status.as_str() {
        // No subscription: it is a trial, or a fleet without billing.
        "" | "none" | "trialing" | "incomplete" if trial_is_over == Some(true) => Some(Lapse::TrialEnded),
        // Paid for until the end of the period, and a trial that was longer still counts.
        "canceled" if trial_is_over != Some(false) && is_over(&subscription.current_period_end) != Some(false) => {
            Some(Lapse::Cancelled)
        }
        "unpaid" | "incomplete_expired" => Some(Lapse::Unpaid),
        "paused" => Some(Lapse::Paused),
        // `active`, and `past_due`: payment failed and is tried again, which is the time of grace.
        _ => None,
    }
}

/// When a subscription will lapse by the clock alone, if it has not by now.
pub fn lapses_at(subscription: &Subscription, now: Timestamp) -> Option<Timestamp> {
    let ends = [&subscription.trial_ends_at, &subscription.current_period_end];
    let ends = ends.into_iter().flatten().filter_map(|end| Timestamp::from_str(end).ok());
    ends.filter(|end| *end > now && lapse(subscription, *end).is_some()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "2026-12-31T23:59:58Z";
    const END: &str = "2026-12-31T23:59:59Z";
    const AFTER: &str = "2027-01-01T00:00:00Z";

    fn subscription(status: &str, period: Option<&str>, trial: Option<&str>) -> Subscription {
        Subscription {
            status: status.into(),
            current_period_end: period.map(Into::into),
            trial_ends_at: trial.map(Into::into),
        }
    }

    #[test]
    fn a_subscription_is_valid_until_exactly_the_instant_that_it_names() {
        type Row = (&'static str, Option<&'static str>, Option<&'static str>, &'static str, Option<Lapse>);
        let rows: [Row; 19] = [
            ("none", None, None, AFTER, None),
            ("", None, None, AFTER, None),
            ("none", None, Some(END), BEFORE, None),
            ("none", None, Some(END), END, Some(Lapse::TrialEnded)),
            ("none", None, Some(END), AFTER, Some(Lapse::TrialEnded)),
            ("none", None, Some("2027-01-01T00:59:59+01:00"), BEFORE, None),
            ("none", None, Some("2027-01-01T00:59:59+01:00"), END, Some(Lapse::TrialEnded)),
            ("trialing", None, Some(END), AFTER, Some(Lapse::TrialEnded)),
            ("incomplete", None, Some(END), BEFORE, None),
            ("active", Some(END), Some(END), AFTER, None),
            ("past_due", Some(END), None, AFTER, None),
            ("canceled", Some(END), None, BEFORE, None),
            ("canceled", Some(END), None, END, Some(Lapse::Cancelled)),
            ("canceled", None, None, BEFORE, Some(Lapse::Cancelled)),
            ("canceled", Some(BEFORE), Some(AFTER), END, None),
            ("unpaid", Some(AFTER), None, BEFORE, Some(Lapse::Unpaid)),
            ("paused", None, None, BEFORE, Some(Lapse::Paused)),
            ("something new", None, Some(END), AFTER, None),
            ("none", None, Some("soon"), AFTER, None),
        ];
        for (status, period, trial, now, expected) in rows {
            let found = lapse(&subscription(status, period, trial), now.parse().unwrap());
            assert_eq!(found, expected, "{status} until {period:?}, trial until {trial:?}, at {now}");
        }
    }

    #[test]
    fn the_instant_at_which_a_subscription_lapses_is_known_before() {
        let now = "2026-12-01T00:00:00Z".parse().unwrap();
        let end = Some(END.parse().unwrap());
        let rows = [
            (subscription("none", None, Some(END)), end),
            (subscription("canceled", Some(END), None), end),
            (subscription("active", Some(END), Some(END)), None),
            (subscription("none", None, None), None),
            (subscription("none", None, Some("2026-11-30T00:00:00Z")), None),
            (subscription("canceled", Some("2026-12-02T00:00:00Z"), Some(END)), end),
        ];
        for (subscription, expected) in rows {
            assert_eq!(lapses_at(&subscription, now), expected, "{subscription:?}");
        }
    }
}
