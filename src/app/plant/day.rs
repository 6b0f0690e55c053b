//! Days and moments, as the database has them and as people read them. A day is a day in UTC.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff_sqlx::ToSqlx;
use serde::{Deserialize, Serialize};

/// A day of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct Day(jiff_sqlx::Date);

impl Day {
    /// The day it is now.
    pub fn today() -> Self {
        Timestamp::now().to_zoned(TimeZone::UTC).date().into()
    }

    /// From `2026-11-25`, the form that browsers send.
    pub fn parse(text: &str) -> Option<Self> {
        // jiff reads more forms than that; a date with a time in it is not what was asked for.
        (text.len() == 10).then(|| text.parse::<Date>().ok()).flatten().map(Self::from)
    }

    /// For calculations.
    pub fn civil(self) -> Date {
        self.0.to_jiff()
    }

    /// So many days later; stops at the end of the calendar.
    pub fn plus(self, days: i64) -> Self {
        self.civil().saturating_add(jiff::Span::new().days(days.clamp(-3_000_000, 3_000_000))).into()
    }

    /// Days from `self` until `other`; negative when `other` is earlier.
    pub fn days_until(self, other: Self) -> i32 {
        self.civil().until(other.civil()).map(|span| span.get_days()).unwrap_or_default()
    }

    /// `25 Nov 2026`
    pub fn shown(self) -> String {
        self.civil().strftime("%-d %b %Y").to_string()
    }

    /// `Wednesday, 25 November 2026`
    pub fn long(self) -> String {
        self.civil().strftime("%A, %-d %B %Y").to_string()
    }

    /// How far away it is: `today`, `in 3 days`, `12 days ago`.
    pub fn away(self) -> String {
        self.away_from(Self::today())
    }

    fn away_from(self, today: Self) -> String {
        match today.days_until(self) {
            0 => "today".into(),
            1 => "tomorrow".into(),
            -1 => "yesterday".into(),
            days if days > 0 => format!("in {days} days"),
            days => format!("{} days ago", -days),
        }
    }
}

impl From<Date> for Day {
    fn from(date: Date) -> Self {
        Self(date.to_sqlx())
    }
}

/// `2026-11-25`, as programs and date fields want it.
impl fmt::Display for Day {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.civil().fmt(formatter)
    }
}

/// A moment, exact to the microsecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct Moment(jiff_sqlx::Timestamp);

impl Moment {
    /// From RFC 3339.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse::<Timestamp>().ok().map(Self::from)
    }

    /// `25 Nov 2026, 14:03`
    pub fn shown(self) -> String {
        self.0.to_jiff().strftime("%-d %b %Y, %H:%M").to_string()
    }

    /// How long ago, roughly: `just now`, `5 min ago`, `3 h ago`, then the date.
    pub fn ago(self) -> String {
        self.ago_at(Timestamp::now())
    }

    fn ago_at(self, now: Timestamp) -> String {
        match now.duration_since(self.0.to_jiff()).as_secs() {
            ..60 => "just now".into(),
            seconds @ ..3600 => format!("{} min ago", seconds / 60),
            seconds @ ..86_400 => format!("{} h ago", seconds / 3600),
            86_400..172_800 => "yesterday".into(),
            seconds @ ..604_800 => format!("{} days ago", seconds / 86_400),
            _ => self.0.to_jiff().strftime("%-d %b %Y").to_string(),
        }
    }
}

impl From<Timestamp> for Moment {
    fn from(timestamp: Timestamp) -> Self {
        Self(timestamp.to_sqlx())
    }
}

/// RFC 3339.
impl fmt::Display for Moment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.to_jiff().fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_told_as_people_tell_them() {
        let today = Day::parse("2026-11-25").unwrap();
        let rows = [
            ("2026-11-25", "today", "25 Nov 2026"),
            ("2026-11-26", "tomorrow", "26 Nov 2026"),
            ("2026-11-24", "yesterday", "24 Nov 2026"),
            ("2026-12-05", "in 10 days", "5 Dec 2026"),
            ("2025-11-25", "365 days ago", "25 Nov 2025"),
        ];
        for (day, away, shown) in rows {
            let day = Day::parse(day).unwrap();
            assert_eq!((day.away_from(today).as_str(), day.shown().as_str()), (away, shown));
        }
        assert_eq!(today.long(), "Wednesday, 25 November 2026");
        assert_eq!(today.to_string(), "2026-11-25");
        assert_eq!(today.plus(-25).to_string(), "2026-10-31");
        for text in ["", "2026-02-30", "25.11.2026", "2026-11-25T10:00", "20261125"] {
            assert!(Day::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn moments_are_told_by_how_long_ago_they_were() {
        let then = Moment::parse("2026-11-25T10:00:00.123456Z").unwrap();
        let at = |text: &str| then.ago_at(text.parse().unwrap());
        assert_eq!(at("2026-11-25T09:59:00Z"), "just now", "clocks differ a little");
        assert_eq!(at("2026-11-25T10:00:30Z"), "just now");
        assert_eq!(at("2026-11-25T10:07:30Z"), "7 min ago");
        assert_eq!(at("2026-11-25T13:07:30Z"), "3 h ago");
        assert_eq!(at("2026-11-26T13:07:30Z"), "yesterday");
        assert_eq!(at("2026-11-28T13:07:30Z"), "3 days ago");
        assert_eq!(at("2026-12-28T13:07:30Z"), "25 Nov 2026");
        assert_eq!(then.shown(), "25 Nov 2026, 10:00");
        assert_eq!(Moment::parse(&then.to_string()), Some(then), "nothing is lost on the way through a form");
    }
}
