//! When a routine is due: every so many days, weeks, months or years, counted from its first date.
//!
//! Pure. Every date is counted from the first one and not from the one before, so that a routine of the 31st is due on
//! the last day of shorter months and on the 31st again afterwards.

use jiff::Span;
use serde::{Deserialize, Serialize};

use super::day::Day;

/// What an interval is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Day,
    Week,
    Month,
    Year,
}

impl Unit {
    /// All of them, as the table has them and as people choose them.
    pub const ALL: [(&'static str, &'static str); 4] =
        [("day", "days"), ("week", "weeks"), ("month", "months"), ("year", "years")];

    /// The unit of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "day" => Self::Day,
            "week" => Self::Week,
            "month" => Self::Month,
            "year" => Self::Year,
            _ => return None,
        })
    }

    /// As the table has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }
}

/// A row of dates without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// The first date.
    pub first: Day,
    /// How many units lie between two dates; at least 1.
    pub every: i32,
    /// The unit.
    pub unit: Unit,
}

impl Schedule {
    /// The first date after `day`; `None` only at the end of the calendar.
    pub fn next_after(&self, day: Day) -> Option<Day> {
        // At most one too many: months differ in length, so the estimate for them is checked, not trusted.
        let mut number = self.estimate(day).saturating_sub(1).max(0);
        loop {
            let date = self.date(number)?;
            if date > day {
                return Some(date);
            }
            number += 1;
        }
    }

    /// The first date that is `day` or later.
    pub fn next_from(&self, day: Day) -> Option<Day> {
        self.next_after(day.plus(-1))
    }

    /// The dates after `day` and before `end`, at most `most`.
    pub fn between(&self, day: Day, end: Day, most: usize) -> Vec<Day> {
        std::iter::successors(self.next_after(day), |date| self.next_after(*date))
            .take_while(|date| *date < end)
            .take(most)
            .collect()
    }

    /// The date with that number, from 0.
    fn date(&self, number: i64) -> Option<Day> {
        let count = number.checked_mul(i64::from(self.every.max(1)))?;
        let span = match self.unit {
            Unit::Day => Span::new().try_days(count),
            Unit::Week => Span::new().try_weeks(count),
            Unit::Month => Span::new().try_months(count),
            Unit::Year => Span::new().try_years(count),
        };
        self.first.civil().checked_add(span.ok()?).ok().map(Day::from)
    }

    /// Number of the last date that may not be after `day`.
    fn estimate(&self, day: Day) -> i64 {
        let (first, day) = (self.first.civil(), day.civil());
        let years = i64::from(day.year()) - i64::from(first.year());
        let units = match self.unit {
            Unit::Day => i64::from(self.first.days_until(day.into())),
            Unit::Week => i64::from(self.first.days_until(day.into())) / 7,
            Unit::Month => years * 12 + i64::from(day.month()) - i64::from(first.month()),
            Unit::Year => years,
        };
        units / i64::from(self.every.max(1))
    }
}

/// `every 3 months`, `every week`
pub fn in_words(every: i32, unit: &str) -> String {
    if every == 1 { format!("every {unit}") } else { format!("every {every} {unit}s") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn day(text: &str) -> Day {
        Day::parse(text).unwrap()
    }

    fn dates(first: &str, every: i32, unit: Unit, count: usize) -> Vec<String> {
        let schedule = Schedule { first: day(first), every, unit };
        std::iter::successors(Some(day(first)), |date| schedule.next_after(*date))
            .take(count)
            .map(|date| date.to_string())
            .collect()
    }

    #[test]
    fn dates_follow_the_calendar() {
        assert_eq!(dates("2026-11-25", 3, Unit::Day, 3), ["2026-11-25", "2026-11-28", "2026-12-01"]);
        assert_eq!(dates("2026-12-21", 2, Unit::Week, 3), ["2026-12-21", "2027-01-04", "2027-01-18"]);
        assert_eq!(
            dates("2027-12-31", 1, Unit::Month, 5),
            ["2027-12-31", "2028-01-31", "2028-02-29", "2028-03-31", "2028-04-30"],
            "a month's end is no reason to be earlier ever after"
        );
        assert_eq!(dates("2027-01-31", 1, Unit::Month, 3), ["2027-01-31", "2027-02-28", "2027-03-31"]);
        assert_eq!(
            dates("2028-02-29", 1, Unit::Year, 5),
            ["2028-02-29", "2029-02-28", "2030-02-28", "2031-02-28", "2032-02-29"]
        );
    }

    #[test]
    fn the_next_date_is_found_from_any_day() {
        let schedule = Schedule { first: day("2026-01-31"), every: 1, unit: Unit::Month };
        let rows = [
            ("2025-06-01", "2026-01-31"),
            ("2026-01-30", "2026-01-31"),
            ("2026-01-31", "2026-02-28"),
            ("2026-02-27", "2026-02-28"),
            ("2026-02-28", "2026-03-31"),
            ("2026-03-30", "2026-03-31"),
            ("2031-12-31", "2032-01-31"),
        ];
        for (from, next) in rows {
            assert_eq!(schedule.next_after(day(from)), Some(day(next)), "{from}");
        }
        assert_eq!(schedule.next_from(day("2026-02-28")), Some(day("2026-02-28")));
        let between = schedule.between(day("2026-01-31"), day("2026-04-30"), 10);
        assert_eq!(between, [day("2026-02-28"), day("2026-03-31")]);
        assert_eq!(schedule.between(day("2026-01-31"), day("2099-01-01"), 3).len(), 3);
        assert_eq!(schedule.next_after(day("9999-12-31")), None);
    }

    #[test]
    fn intervals_are_read_out() {
        assert_eq!(in_words(1, "month"), "every month");
        assert_eq!(in_words(6, "week"), "every 6 weeks");
    }

    fn any_schedule() -> impl Strategy<Value = Schedule> {
        let unit = prop_oneof![Just(Unit::Day), Just(Unit::Week), Just(Unit::Month), Just(Unit::Year)];
        (0_i64..40_000, 1..=1000, unit).prop_map(|(days, every, unit)| Schedule {
            first: day("1970-01-01").plus(days),
            every,
            unit,
        })
    }

    proptest! {
        #[test]
        fn dates_ascend_and_no_period_is_left_out(schedule in any_schedule()) {
            let mut date = schedule.first;
            for number in 1..40 {
                prop_assert_eq!(schedule.next_after(date), schedule.date(number), "the {}th", number);
                // Nothing after it: the end of the calendar.
                let Some(next) = schedule.next_after(date) else { break };
                prop_assert!(next > date);
                date = next;
            }
        }

        #[test]
        fn the_next_date_is_the_first_one_after_the_day(schedule in any_schedule(), days in -1000_i64..80_000) {
            let from = day("1970-01-01").plus(days);
            let next = schedule.next_after(from).unwrap();
            let slow = (0..).map_while(|number| schedule.date(number)).find(|date| *date > from).unwrap();
            prop_assert_eq!(next, slow);
        }
    }
}
