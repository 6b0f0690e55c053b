//! What time it is, for everything that a date decides. Tests set it.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

/// A clock. Clones show the same time.
#[derive(Clone)]
pub struct Clock(
    /// Absent: the system's clock. Shared by everybody that the app gave this clock to.
    Option<Arc<dyn Fn() -> Timestamp + Send + Sync>>,
);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that shows what `now` says.
    pub fn of(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(now)))
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.0.as_ref().map_or_else(Timestamp::now, |now| now())
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_some() { "Clock::of(…)" } else { "Clock::system()" })
    }
}
