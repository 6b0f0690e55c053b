//! A tenant's files: on the local disk or in a bucket of S3, below `tenants/{uuid}/`, private.
//!
//! ```text
//! TenantStorage ─ ObjectPath ─▶ tenants/{uuid}/attachments/{uuid}.pdf ─▶ local disk │ S3
//! ```
//!
//! Three rules. *Nobody chooses a path*: an object's name is made here ([`ObjectName`]), the name that people see lives
//! in the database. *Nothing is held as a whole*: what is stored and what is read goes through in parts. *An object is
//! there as a whole or not at all*: on disk it is written under another name and renamed, in S3 a large one is a
//! multipart upload that is completed or aborted.
//!
//! Storage that is away is an error that says so ([`StorageError::is_away`]); nothing has to be restarted when it comes
//! back, because every call finds its own way.

mod backend;
mod error;
mod name;
mod put;
mod settings;

use std::sync::Arc;

use axum::body::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use uuid::Uuid;

pub use self::error::{PutError, StorageError};
pub use self::name::{Area, BadName, Extension, ObjectName, ObjectPath};
pub use self::settings::{S3Settings, StorageSettings, StorageSettingsError};

pub(crate) use self::backend::client;

use self::backend::{Backend, answer};

/// Everybody's storage. Clones share it.
#[derive(Clone)]
pub struct Storage(Arc<Backend>);

impl Storage {
    /// Prepares the directory or the client; S3 is not asked yet, so that the app starts while it is away.
    ///
    /// # Errors
    /// The settings contradict themselves, or the directory cannot be made.
    pub fn new(settings: &StorageSettings) -> Result<Self, StorageSettingsError> {
        Ok(Self(Arc::new(Backend::new(settings)?)))
    }
}

/// One tenant's part of the storage, and the way to nobody else's: the prefix is put in front here, and an
/// [`ObjectPath`] cannot leave it. Comes from [`super::TenantContext::storage`]. Cheap to clone.
#[derive(Clone)]
pub struct TenantStorage {
    /// Whose it is; every location starts with it.
    tenant: Uuid,
    /// Shared with all tenants; absent where the app runs without storage.
    storage: Option<Storage>,
}

/// What was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the content, computed on the way.
    pub sha256: [u8; 32],
}

/// An object that is being read.
pub struct Content {
    /// Size in bytes.
    pub bytes: u64,
    /// The content in parts. A part that does not come in time is an error in the stream.
    pub stream: BoxStream<'static, Result<Bytes, StorageError>>,
}

impl TenantStorage {
    pub(super) fn new(tenant: Uuid, storage: Option<Storage>) -> Self {
        Self { tenant, storage }
    }

    /// Stores an object of at most `limit` bytes. Holds one part of it at a time (8 MiB).
    ///
    /// Run it to its end: what a cancelled call leaves behind is found by [`Self::discard`] alone. A visitor who goes
    /// away should therefore show as an error of `body`, which is how a task of its own sees it.
    ///
    /// # Errors
    /// `body` ends with an error or is longer than `limit`, or storage is away. Nothing is stored then.
    pub async fn put<E>(
        &self,
        path: &ObjectPath,
        body: impl Stream<Item = Result<Bytes, E>> + Send,
        limit: u64,
    ) -> Result<Stored, PutError<E>> {
        let backend = self.backend()?;
        backend.ready(path).await?;
        put::put(backend, &self.location(path), path, body, limit).await
    }

    /// Reads an object.
    ///
    /// # Errors
    /// It is not there, or storage is away.
    pub async fn get(&self, path: &ObjectPath) -> Result<Content, StorageError> {
        let backend = self.backend()?;
        backend.ready(path).await?;
        let location = self.location(path);
        let found =
            answer("reading", path, backend.store().get_opts(&location, object_store::GetOptions::new())).await?;
        let bytes = found.meta.size;
        let stream = backend::in_time(found.into_stream(), path.clone()).boxed();
        Ok(Content { bytes, stream })
    }

    /// An object's size in bytes.
    ///
    /// # Errors
    /// It is not there, or storage is away.
    pub async fn size(&self, path: &ObjectPath) -> Result<u64, StorageError> {
        let backend = self.backend()?;
        backend.ready(path).await?;
        let head = object_store::GetOptions::new().with_head(true);
        let found = answer("measuring", path, backend.store().get_opts(&self.location(path), head)).await?;
        Ok(found.meta.size)
    }

    /// Removes an object, and what an upload of it that died has left. One that is not there is removed already.
    ///
    /// # Errors
    /// Storage is away.
    pub async fn discard(&self, path: &ObjectPath) -> Result<(), StorageError> {
        let backend = self.backend()?;
        backend.ready(path).await?;
        backend.discard(&self.location(path), path).await
    }

    fn backend(&self) -> Result<&Backend, StorageError> {
        self.storage.as_ref().map(|storage| &*storage.0).ok_or(StorageError::NotConfigured)
    }

    /// The only place where a tenant's prefix and an object's path meet.
    fn location(&self, path: &ObjectPath) -> object_store::path::Path {
        // Uuid, area and name hold nothing that `Path` would encode: see their types.
        object_store::path::Path::from(format!("tenants/{}/{path}", self.tenant))
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn storage(directory: &tempfile::TempDir) -> Storage {
        Storage::new(&StorageSettings::Local { directory: directory.path().join("files") }).unwrap()
    }

    fn files(directory: &std::path::Path) -> Vec<String> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(files(&path));
            } else {
                found.push(path.to_str().unwrap().to_owned());
            }
        }
        found
    }

    fn body(parts: &[&'static [u8]]) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send + use<> {
        let parts: Vec<_> = parts.iter().map(|part| Ok(Bytes::from_static(part))).collect();
        stream::iter(parts)
    }

    async fn read(storage: &TenantStorage, path: &ObjectPath) -> Vec<u8> {
        let content = storage.get(path).await.unwrap();
        content.stream.map(Result::unwrap).collect::<Vec<_>>().await.concat()
    }

    #[tokio::test]
    async fn what_is_stored_is_read_back_by_its_tenant_alone() {
        let directory = tempfile::tempdir().unwrap();
        let storage = storage(&directory);
        let (acme, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let acme = TenantStorage::new(acme, Some(storage.clone()));
        let other = TenantStorage::new(other, Some(storage));
        let path = ObjectPath::new(Area::Attachments, Some(Extension::new("txt").unwrap()));
        let stored = acme.put(&path, body(&[b"hello ", b"world"]), 11).await.unwrap();
        assert_eq!(stored.bytes, 11);
        assert_eq!(stored.sha256[..4], [0xb9, 0x4d, 0x27, 0xb9]);
        assert_eq!(read(&acme, &path).await, b"hello world");
        assert_eq!(acme.size(&path).await.unwrap(), 11);
        assert!(matches!(other.get(&path).await, Err(StorageError::Missing { .. })));
        let expected = format!("files/tenants/{}/attachments/", Uuid::from_u128(1));
        assert!(files(directory.path())[0].contains(&expected));
        acme.discard(&path).await.unwrap();
        acme.discard(&path).await.unwrap();
        assert!(files(directory.path()).is_empty());
    }

    #[tokio::test]
    async fn what_is_too_long_or_cut_off_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let storage = TenantStorage::new(Uuid::from_u128(1), Some(storage(&directory)));
        let path = ObjectPath::new(Area::Imports, None);
        let large = || stream::iter((0..40).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![7; 1 << 20]))));
        let refused = storage.put(&path, large(), 20 << 20).await.unwrap_err();
        assert!(matches!(refused, PutError::TooLarge), "{refused}");
        let cut = large().take(20).chain(stream::iter([Err(std::io::Error::other("gone"))]));
        let refused = storage.put(&path, cut, 40 << 20).await.unwrap_err();
        assert!(matches!(refused, PutError::Body(_)), "{refused}");
        // Aborting removes the file before it returns.
        assert_eq!(files(directory.path()), Vec::<String>::new());
        assert_eq!(storage.put(&path, large(), 40 << 20).await.unwrap().bytes, 40 << 20);
    }

    #[tokio::test]
    async fn a_directory_that_vanished_is_storage_that_is_away_and_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let storage = TenantStorage::new(Uuid::from_u128(1), Some(storage(&directory)));
        let path = ObjectPath::new(Area::Exports, None);
        storage.put(&path, body(&[b"x"]), 1).await.unwrap();
        let (here, there) = (directory.path().join("files"), directory.path().join("elsewhere"));
        std::fs::rename(&here, &there).unwrap();
        assert!(storage.get(&path).await.err().unwrap().is_away());
        let refused = storage.put(&path, body(&[b"x"]), 1).await.unwrap_err();
        assert!(matches!(&refused, PutError::Storage(error) if error.is_away()), "{refused}");
        assert!(!here.exists(), "nothing is written where the disk should be mounted");
        std::fs::rename(&there, &here).unwrap();
        assert_eq!(read(&storage, &path).await, b"x");
    }

    #[tokio::test]
    async fn what_an_upload_that_died_left_on_disk_is_discarded() {
        let directory = tempfile::tempdir().unwrap();
        let storage = TenantStorage::new(Uuid::from_u128(1), Some(storage(&directory)));
        let path = ObjectPath::new(Area::Temp, None);
        storage.put(&path, body(&[b"x"]), 1).await.unwrap();
        let left = format!("{}#1", files(directory.path())[0]);
        std::fs::write(&left, "half").unwrap();
        storage.discard(&path).await.unwrap();
        assert!(files(directory.path()).is_empty());
    }

    #[tokio::test]
    async fn without_storage_every_call_says_so() {
        let storage = TenantStorage::new(Uuid::from_u128(1), None);
        let path = ObjectPath::new(Area::Temp, None);
        assert!(matches!(storage.size(&path).await, Err(StorageError::NotConfigured)));
    }
}
