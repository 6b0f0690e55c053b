//! How times and sizes read. Pure.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `2026-11-27 16:03 UTC`.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// `2026-11-27 16:03:07`, in UTC.
pub fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A text of the API that is an instant, for people; another text as it is.
pub fn instant(text: &str) -> String {
    text.parse::<Timestamp>().map_or_else(|_| text.to_owned(), time)
}

/// `3 minutes`.
pub fn seconds(seconds: i64) -> String {
    let (count, unit) = match seconds {
        ..=90 => (seconds.max(1), "second"),
        91..=5400 => ((seconds + 59) / 60, "minute"),
        5401..=172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// `3 minutes ago`.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    let passed = now.duration_since(at).as_secs();
    if passed < 5 { "just now".into() } else { format!("{} ago", seconds(passed)) }
}

/// `1.5 MB`.
pub fn bytes(bytes: i64) -> String {
    let units = ["bytes", "kB", "MB", "GB", "TB"];
    let mut unit = 0;
    let mut size = bytes.max(0);
    let mut tenths = 0;
    while size >= 1000 && unit + 1 < units.len() {
        tenths = size % 1000 / 100;
        size /= 1000;
        unit += 1;
    }
    if unit == 0 || size >= 100 {
        format!("{size} {}", units[unit])
    } else {
        format!("{size}.{tenths} {}", units[unit])
    }
}

/// The beginning of a day as `2026-11-27`, in UTC; also a whole instant.
pub fn day(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let date = text.parse::<jiff::civil::Date>().ok().and_then(|date| date.to_zoned(TimeZone::UTC).ok());
    text.parse().ok().or_else(|| date.map(|zoned| zoned.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_read_well() {
        let now: Timestamp = "2026-11-27T16:03:07Z".parse().unwrap();
        assert_eq!(time(now), "2026-11-27 16:03 UTC");
        assert_eq!(ago(now, now), "just now");
        assert_eq!(ago("2026-11-27T16:02:06Z".parse().unwrap(), now), "61 seconds ago");
        assert_eq!(ago("2026-11-27T13:00:00Z".parse().unwrap(), now), "3 hours ago");
        assert_eq!(seconds(1), "1 second");
        assert_eq!(seconds(400_000), "4 days");
        assert_eq!(
            [bytes(0), bytes(999), bytes(1500), bytes(123_456_789)],
            ["0 bytes", "999 bytes", "1.5 kB", "123 MB"]
        );
        assert_eq!(day("2026-11-27"), "2026-11-27T00:00:00Z".parse().ok());
        assert_eq!(day("2026-11-27T16:03:07Z"), Some(now));
        assert_eq!(day("yesterday"), None);
        assert_eq!(instant("never"), "never");
    }
}
