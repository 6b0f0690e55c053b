//! When a subscription counts: part of the contract of the routing document, so that the operator's conditions and every
//! app say the same.

use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};

use super::routing::Subscription;

/// Why there is no valid subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapse {
    /// The trial ended, and nobody subscribed.
    TrialEnded,
    /// The subscription was cancelled, and the time that was paid for is over.
    Cancelled,
    /// The time for which it was made is over.
    Ended,
    /// It was not paid.
    Unpaid,
    /// It is paused.
    Paused,
}

/// What a tenant gets of its subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The subscription or the trial runs.
    Valid,
    /// It has lapsed, and the tenant is served as before until then: the plan's grace period.
    Grace(Lapse, Timestamp),
    /// It has lapsed: signing in and what mends it, no more.
    Lapsed(Lapse),
}

/// What a tenant gets of its subscription at that time.
pub fn standing(subscription: &Subscription, now: Timestamp) -> Standing {
    match (lapse(subscription, now), instant(subscription.grace_until.as_ref())) {
        (None, _) => Standing::Valid,
        (Some(lapse), Some(until)) if now < until => Standing::Grace(lapse, until),
        (Some(lapse), _) => Standing::Lapsed(lapse),
    }
}

/// What is wrong with a subscription at that time, if anything. The names of the status are Stripe's, or `none`.
///
/// Where it is not certain, customers are served: a time that does not parse, a status that nobody knows yet. Whoever is
/// served for an hour too long costs less than whoever is locked out by mistake.
pub fn lapse(subscription: &Subscription, now: Timestamp) -> Option<Lapse> {
    let is_over = |end: &Option<String>| instant(end.as_ref()).map(|end| now >= end);
    let trial_is_over = is_over(&subscription.trial_ends_at);
    match subscription.status.as_str() {
        // No subscription: it is a trial, or a fleet without billing. A checkout that was never completed takes no trial away.
        "" | "none" | "trialing" | "incomplete" | "incomplete_expired" if trial_is_over == Some(true) => {
            Some(Lapse::TrialEnded)
        }
        // Paid for until the end of the period, and a trial that was longer still counts.
        "canceled" if trial_is_over != Some(false) && is_over(&subscription.current_period_end) != Some(false) => {
            Some(Lapse::Cancelled)
        }
        "unpaid" if trial_is_over != Some(false) => Some(Lapse::Unpaid),
        "paused" if trial_is_over != Some(false) => Some(Lapse::Paused),
        "active" | "past_due" if trial_is_over != Some(false) && is_over(&subscription.ends_at) == Some(true) => {
            Some(Lapse::Ended)
        }
        // `active`, and `past_due`: payment failed and is tried again, which is the time of grace that Stripe gives.
        _ => None,
    }
}

/// The instant at which a subscription lapses, or has lapsed, by the clock. None: it does not, or did by its status alone.
pub fn lapse_by_clock(subscription: &Subscription) -> Option<Timestamp> {
    let lapses = |end: &Timestamp| {
        let before = end.checked_sub(SignedDuration::from_nanos(1));
        lapse(subscription, *end).is_some() && before.is_ok_and(|before| lapse(subscription, before).is_none())
    };
    let ends = [&subscription.trial_ends_at, &subscription.current_period_end, &subscription.ends_at];
    ends.into_iter().filter_map(|end| instant(end.as_ref())).find(lapses)
}

/// When the standing of a subscription changes next by the clock alone.
pub fn changes_at(subscription: &Subscription, now: Timestamp) -> Option<Timestamp> {
    let over = instant(subscription.grace_until.as_ref());
    let over = over.filter(|over| matches!(standing(subscription, *over), Standing::Lapsed(_)));
    [lapse_by_clock(subscription), over].into_iter().flatten().filter(|at| *at > now).min()
}

fn instant(text: Option<&String>) -> Option<Timestamp> {
    Timestamp::from_str(text?).ok()
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
            ..Subscription::default()
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_subscription_is_valid_until_exactly_the_instant_that_it_names() {
        type Row = (&'static str, Option<&'static str>, Option<&'static str>, &'static str, Option<Lapse>);
        let rows: [Row; 24] = [
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
            ("incomplete_expired", None, None, BEFORE, None),
            ("unpaid", None, Some(END), BEFORE, None),
            ("unpaid", None, Some(END), END, Some(Lapse::Unpaid)),
            ("incomplete_expired", None, Some(END), BEFORE, None),
            ("incomplete_expired", None, Some(END), END, Some(Lapse::TrialEnded)),
            ("something new", None, Some(END), AFTER, None),
            ("none", None, Some("soon"), AFTER, None),
        ];
        for (status, period, trial, now, expected) in rows {
            let found = lapse(&subscription(status, period, trial), now.parse().unwrap());
            assert_eq!(found, expected, "{status} until {period:?}, trial until {trial:?}, at {now}");
        }
    }

    #[test]
    fn a_subscription_that_is_to_end_ends_at_its_instant_whatever_its_status_says() {
        for status in ["active", "past_due"] {
            let ends = Subscription { ends_at: Some(END.into()), ..subscription(status, Some(AFTER), None) };
            assert_eq!(lapse(&ends, at(BEFORE)), None);
            assert_eq!(lapse(&ends, at(END)), Some(Lapse::Ended));
            let trial = Subscription { trial_ends_at: Some(AFTER.into()), ..ends };
            assert_eq!(lapse(&trial, at(END)), None, "a trial that was longer still counts");
            assert_eq!(lapse(&trial, at(AFTER)), Some(Lapse::Ended));
            assert_eq!(changes_at(&trial, at(BEFORE)), Some(at(AFTER)));
        }
    }

    #[test]
    fn the_instant_at_which_a_subscription_lapses_is_known_before() {
        let now = at("2026-12-01T00:00:00Z");
        let end = Some(at(END));
        let rows = [
            (subscription("none", None, Some(END)), end),
            (subscription("canceled", Some(END), None), end),
            (subscription("active", Some(END), Some(END)), None),
            (subscription("none", None, None), None),
            (subscription("none", None, Some("2026-11-30T00:00:00Z")), None),
            (subscription("canceled", Some("2026-12-02T00:00:00Z"), Some(END)), end),
            (subscription("unpaid", Some(END), Some(END)), end),
            (subscription("unpaid", Some(END), None), None),
        ];
        for (subscription, expected) in rows {
            assert_eq!(changes_at(&subscription, now), expected, "{subscription:?}");
        }
    }

    #[test]
    fn the_instant_at_which_it_lapsed_by_the_clock_is_known_afterwards_too() {
        assert_eq!(lapse_by_clock(&subscription("none", None, Some(END))), Some(at(END)));
        assert_eq!(lapse_by_clock(&subscription("canceled", Some(BEFORE), Some(END))), Some(at(END)));
        assert_eq!(lapse_by_clock(&subscription("unpaid", Some(BEFORE), Some(END))), Some(at(END)), "the trial ran on");
        assert_eq!(lapse_by_clock(&subscription("unpaid", Some(BEFORE), None)), None, "it did by its status");
        assert_eq!(lapse_by_clock(&subscription("canceled", None, None)), None);
    }

    #[test]
    fn a_tenant_is_served_as_before_until_its_grace_has_passed() {
        let graced = Subscription { grace_until: Some(AFTER.into()), ..subscription("none", None, Some(END)) };
        assert_eq!(standing(&graced, at(BEFORE)), Standing::Valid);
        assert_eq!(standing(&graced, at(END)), Standing::Grace(Lapse::TrialEnded, at(AFTER)));
        assert_eq!(standing(&graced, at(AFTER)), Standing::Lapsed(Lapse::TrialEnded));
        assert_eq!(changes_at(&graced, at(BEFORE)), Some(at(END)));
        assert_eq!(changes_at(&graced, at(END)), Some(at(AFTER)));
        assert_eq!(changes_at(&graced, at(AFTER)), None);
        let unpaid = Subscription { grace_until: Some(END.into()), ..subscription("unpaid", None, None) };
        assert_eq!(standing(&unpaid, at(BEFORE)), Standing::Grace(Lapse::Unpaid, at(END)));
        assert_eq!(changes_at(&unpaid, at(BEFORE)), Some(at(END)));
        let odd = Subscription { grace_until: Some("soon".into()), ..subscription("unpaid", None, None) };
        assert_eq!(standing(&odd, at(BEFORE)), Standing::Lapsed(Lapse::Unpaid), "what is no time is no grace");
        let valid = Subscription { grace_until: Some(AFTER.into()), ..subscription("active", None, None) };
        assert_eq!((standing(&valid, at(BEFORE)), changes_at(&valid, at(BEFORE))), (Standing::Valid, None));
    }

    #[test]
    fn readers_and_writers_of_another_version_understand_each_other() {
        let old = r#"{"status":"canceled","currentPeriodEnd":"2026-12-31T23:59:59Z"}"#;
        let read: Subscription = serde_json::from_str(old).unwrap();
        assert_eq!(standing(&read, at(END)), Standing::Lapsed(Lapse::Cancelled));
        assert_eq!(serde_json::to_string(&read).unwrap(), old, "what is not used is not written");
    }
}
