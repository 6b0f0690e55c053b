//! Reads slices (see [`crate::api::slices`]) from the cluster or from a directory, and acknowledges them.
//!
//! | file | what |
//! |---|---|
//! | [`cluster`] | one watch per Secret |
//! | [`directory`] | one file per slice |
//! | [`health`] | whether every slice was seen, and how long a watch has been failing |
//! | [`acknowledgements`] | the long poll `GET /acks` |

mod acknowledgements;
mod cluster;
mod directory;
mod health;

use std::path::PathBuf;

use futures::{Stream, StreamExt};

pub use acknowledgements::Acknowledgements;
pub use health::Health;

/// Where slices are read from.
#[derive(Clone)]
pub enum Source {
    /// Secrets of a namespace.
    Cluster {
        /// Client whose identity may list and watch the slices by name.
        client: kube::Client,
        /// The operator's namespace.
        namespace: String,
    },
    /// Files `<directory>/<slice>.json`.
    Directory(PathBuf),
}

/// A slice was seen in a new state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The slice's name.
    pub slice: String,
    /// The document; `None`: the slice does not exist (any more).
    pub content: Option<Vec<u8>>,
}

/// A slice's document; `None`: it does not exist.
type Content = Option<Vec<u8>>;

/// Yields a [`Change`] per slice at start (each name once, also absent ones), then whenever one changes.
///
/// Never ends and reconnects by itself. A source that cannot be read yields nothing: unreadable is not absent. What was
/// seen and what fails is recorded in `health`.
pub fn changes(source: Source, names: Vec<String>, health: Health) -> impl Stream<Item = Change> + Send {
    match source {
        Source::Cluster { client, namespace } => cluster::changes(&client, &namespace, names, &health).boxed(),
        Source::Directory(path) => directory::changes(path, names, health).boxed(),
    }
}
