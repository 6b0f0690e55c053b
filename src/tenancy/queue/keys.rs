//! Names of what lies in Redis. A queue's keys all begin with its name, in a cluster in braces, so that they lie on one
//! node; those of the ring likewise.

use uuid::Uuid;

use crate::tenancy::redis::Redis;

/// What the shared ring's keys begin with, and with a tenant's uuid those of its own. No tenant's queue can have that name.
const FLEET: &str = "queues";

/// One queue's keys.
pub(super) struct QueueKeys(String);

impl QueueKeys {
    pub(super) fn new(redis: &Redis, queue: &str) -> Self {
        Self(redis.queue_key(queue).into_owned())
    }

    /// List of ids; the next one is at the left.
    pub(super) fn ready(&self) -> &str {
        &self.0
    }

    /// Hash of ids and documents: what is in here exists.
    pub(super) fn jobs(&self) -> String {
        self.of("jobs")
    }

    /// Ordered by when they are due (ms).
    pub(super) fn later(&self) -> String {
        self.of("later")
    }

    /// Hash of names under which jobs are unique, and their ids.
    pub(super) fn unique(&self) -> String {
        self.of("unique")
    }

    /// Ordered by when their leases end (ms).
    pub(super) fn running(&self) -> String {
        self.of("running")
    }

    /// Hash of ids and the tokens of their leases.
    pub(super) fn leases(&self) -> String {
        self.of("leases")
    }

    /// Hash of ids and how often they were begun.
    pub(super) fn attempts(&self) -> String {
        self.of("attempts")
    }

    /// Hash of ids and why they failed last.
    pub(super) fn errors(&self) -> String {
        self.of("errors")
    }

    /// Ordered by when they were given up (ms).
    pub(super) fn dead(&self) -> String {
        self.of("dead")
    }

    /// Hash of ids and how far they are.
    pub(super) fn progress(&self) -> String {
        self.of("progress")
    }

    /// Everything but results, which go by themselves.
    pub(super) fn all(&self) -> Vec<String> {
        let parts = ["jobs", "later", "unique", "running", "leases", "attempts", "errors", "dead", "progress"];
        std::iter::once(self.0.clone()).chain(parts.map(|part| self.of(part))).collect()
    }

    /// A job's result, for a while.
    pub(super) fn result(&self, id: &str) -> String {
        self.of(&format!("result:{id}"))
    }

    fn of(&self, part: &str) -> String {
        format!("{}:{part}", self.0)
    }
}

/// A ring's keys.
pub(super) struct RingKeys(String);

impl RingKeys {
    /// Those of the shared ring, or of the one that is this tenant's own.
    pub(super) fn new(redis: &Redis, own: Option<Uuid>) -> Self {
        let name = own.map_or_else(|| FLEET.to_owned(), |tenant| format!("{FLEET}-{tenant}"));
        Self(redis.queue_key(&name).into_owned())
    }

    /// Tenants that have work, ordered by start tag.
    pub(super) fn ring(&self) -> String {
        self.of("ring")
    }

    /// Tenants that will have work, ordered by when (ms).
    pub(super) fn due(&self) -> String {
        self.of("due")
    }

    /// Tenants that a worker is looking at, ordered by until when (ms).
    pub(super) fn held(&self) -> String {
        self.of("held")
    }

    /// Hash of tenants that got work while they were held, and when it is due (ms).
    pub(super) fn woken(&self) -> String {
        self.of("woken")
    }

    /// Hash of tenants and their finish tags, where those lie ahead of the clock.
    pub(super) fn finish(&self) -> String {
        self.of("finish")
    }

    /// The virtual time.
    pub(super) fn clock(&self) -> String {
        self.of("clock")
    }

    /// List that idle workers wait at.
    pub(super) fn bell(&self) -> String {
        self.of("bell")
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<String> {
        ["ring", "due", "held", "woken", "finish", "clock", "bell", "sweep"].map(|part| self.of(part)).into()
    }

    /// Held by the worker that looks for queues that nobody was woken for.
    pub(super) fn sweep(&self) -> String {
        self.of("sweep")
    }

    fn of(&self, part: &str) -> String {
        format!("{}:{part}", self.0)
    }
}
