//! What can go wrong with storage. The texts are for logs: they name objects, which no visitor needs to know.

use super::ObjectPath;

/// Why an object was not stored, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The app runs without storage.
    #[error("reaching storage: none is set, see MOS_STORAGE")]
    NotConfigured,
    /// Storage answered that there is no such object.
    #[error("{doing} object {path}: it is not there")]
    Missing {
        /// What was tried.
        doing: &'static str,
        /// Below the tenant's prefix.
        path: ObjectPath,
    },
    /// Storage is away, or refuses us: to whoever waits for a file both are the same.
    #[error("{doing} object {path}")]
    Away {
        /// What was tried.
        doing: &'static str,
        /// Below the tenant's prefix.
        path: ObjectPath,
        /// What the disk or the bucket said.
        #[source]
        source: Box<object_store::Error>,
    },
    /// No answer in time.
    #[error("{doing} object {path}: no answer in time")]
    NoAnswer {
        /// What was tried.
        doing: &'static str,
        /// Below the tenant's prefix.
        path: ObjectPath,
    },
}

impl StorageError {
    pub(super) fn from(doing: &'static str, path: &ObjectPath, source: object_store::Error) -> Self {
        let path = path.clone();
        match source {
            // A bucket that is not there has not lost its objects.
            object_store::Error::NotFound { source, .. } if !source.to_string().contains("NoSuchBucket") => {
                Self::Missing { doing, path }
            }
            source => Self::Away { doing, path, source: Box::new(source) },
        }
    }

    /// Whether trying again later may help, as opposed to an object that is not there.
    pub fn is_away(&self) -> bool {
        !matches!(self, Self::Missing { .. })
    }
}

/// Why an object was not stored; nothing of it is.
#[derive(Debug, thiserror::Error)]
pub enum PutError<E> {
    /// The content ended with an error: whoever sent it went away, or was too slow.
    #[error("reading what is to be stored")]
    Body(#[source] E),
    /// The content is longer than allowed.
    #[error("storing an object: it is longer than allowed")]
    TooLarge,
    /// Storage did not take it.
    #[error(transparent)]
    Storage(#[from] StorageError),
}
