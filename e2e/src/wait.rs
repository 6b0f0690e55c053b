//! Waits with a deadline. There are no sleeps in the tests but the pause between two looks here.

use std::time::Duration;

use tokio::time::Instant;

const PAUSE: Duration = Duration::from_millis(100);

/// What a look saw instead of what is waited for.
pub type Missed = String;

/// Looks until `look` gives a value.
///
/// # Panics
/// When the time is up, with what was seen last.
#[track_caller]
pub fn within<T>(seconds: u64, what: &str, look: impl AsyncFnMut() -> Result<T, Missed>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        match wait(seconds, look).await {
            Ok(value) => value,
            Err(missed) => panic!("{what}: not within {seconds} s. Seen last: {missed} ({caller})"),
        }
    }
}

/// As [`within`]; what was seen last when the time is up.
///
/// # Errors
/// The time is up.
pub async fn wait<T>(seconds: u64, mut look: impl AsyncFnMut() -> Result<T, Missed>) -> Result<T, Missed> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut seen = "nothing yet".to_owned();
    loop {
        match tokio::time::timeout_at(deadline.max(Instant::now() + PAUSE), look()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(missed)) => seen = missed,
            Err(_) => return Err(format!("{seen}; the last look did not end")),
        }
        if Instant::now() >= deadline {
            return Err(seen);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
