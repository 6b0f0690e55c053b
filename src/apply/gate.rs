//! The gate that every write passes, before and after it happens.
//!
//! Open in production. A test closes it at the n-th passage to stop the operator there, exactly before a write or after
//! it has happened and before anybody knows: the two moments at which a crash is told apart by nothing but the outside.

use std::sync::Arc;

use futures::future::BoxFuture;

/// On which side of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// It has not happened.
    Before,
    /// It has happened, or failed, and the answer is not known yet.
    After,
}

type Watch = dyn Fn(Side, &str) -> BoxFuture<'static, ()> + Send + Sync;

/// The gate; clones are the same gate.
#[derive(Clone, Default)]
pub struct Gate {
    watch: Option<Arc<Watch>>,
}

impl Gate {
    /// A gate that asks `watch` at every passage; a passage goes on when its future ends.
    pub fn watched(watch: impl Fn(Side, &str) -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        Self { watch: Some(Arc::new(watch)) }
    }

    /// Lets one write through.
    pub async fn pass<T>(&self, what: &str, write: impl Future<Output = T>) -> T {
        let Some(watch) = &self.watch else { return write.await };
        watch(Side::Before, what).await;
        let result = write.await;
        watch(Side::After, what).await;
        result
    }
}
