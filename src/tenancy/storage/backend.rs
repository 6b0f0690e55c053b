//! The two places that files are kept in, behind one face, with a time-out on every call.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Bytes;
use futures::{Stream, StreamExt, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use tokio::time::timeout;

use super::error::StorageError;
use super::name::ObjectPath;
use super::settings::{S3Settings, StorageSettings, StorageSettingsError};

/// Longest wait for one answer, retries included. Storing one part of 8 MiB must fit, and a page must not wait longer.
const ANSWER: Duration = Duration::from_secs(20);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// Longest pause within an answer.
const PAUSE: Duration = Duration::from_secs(10);

/// Where the files are.
pub(super) enum Backend {
    /// A directory.
    Local {
        store: LocalFileSystem,
        /// Looked at before every call: a disk that is not mounted must not look like one that has lost its files.
        root: PathBuf,
    },
    /// A bucket.
    S3(AmazonS3),
}

impl Backend {
    pub(super) fn new(settings: &StorageSettings) -> Result<Self, StorageSettingsError> {
        match settings {
            StorageSettings::Local { directory } => local(directory.clone()),
            StorageSettings::S3(settings) => Ok(Self::S3(client(settings)?)),
        }
    }

    pub(super) fn store(&self) -> &dyn ObjectStore {
        match self {
            Self::Local { store, .. } => store,
            Self::S3(store) => store,
        }
    }

    /// Whether the disk is there. A bucket shows that when it is asked for the object itself.
    pub(super) async fn ready(&self, path: &ObjectPath) -> Result<(), StorageError> {
        let Self::Local { root, .. } = self else { return Ok(()) };
        let looked = timeout(ANSWER, tokio::fs::metadata(root)).await;
        let looked =
            looked.map_err(|_| StorageError::NoAnswer { doing: "finding the disk for", path: path.clone() })?;
        looked.map(|_| ()).map_err(|source| StorageError::Away {
            doing: "finding the disk for",
            path: path.clone(),
            source: Box::new(object_store::Error::Generic { store: "disk", source: source.into() }),
        })
    }

    /// Removes an object, and on disk what an upload that died with the process has left. (In S3 its parts are not
    /// visible; the bucket's lifecycle rule for incomplete multipart uploads removes them.)
    pub(super) async fn discard(&self, location: &Path, path: &ObjectPath) -> Result<(), StorageError> {
        if let Self::Local { store, .. } = self
            && let Ok(mut staged) = store.path_to_filesystem(location).map(PathBuf::into_os_string)
        {
            // Each object is written once, so its temporary file is always the first.
            staged.push("#1");
            let _ = timeout(ANSWER, tokio::fs::remove_file(staged)).await;
        }
        let one = stream::iter([Ok(location.clone())]).boxed();
        let removed = async {
            let mut removed = self.store().delete_stream(one);
            while let Some(result) = removed.next().await {
                result?;
            }
            Ok(())
        };
        match answer("removing", path, removed).await {
            Err(StorageError::Missing { .. }) => Ok(()),
            other => other,
        }
    }
}

fn local(directory: PathBuf) -> Result<Backend, StorageSettingsError> {
    let named = directory.display().to_string();
    let failed = |source| StorageSettingsError::Directory { directory: named.clone(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed)?;
    let store = LocalFileSystem::new_with_prefix(&directory).map_err(|source| StorageSettingsError::Directory {
        directory: named,
        source: std::io::Error::other(source),
    })?;
    // Whoever hears that a file is stored may switch the machine off.
    Ok(Backend::Local { store: store.with_fsync(true), root: directory })
}

/// The client of a bucket. Nothing is asked of it yet.
///
/// # Errors
/// The settings contradict themselves.
pub(crate) fn client(settings: &S3Settings) -> Result<AmazonS3, StorageSettingsError> {
    settings.check()?;
    // The client wants to know who does its TLS even where the address is plain HTTP. The program has said so when it
    // started; a test or an app of somebody else's may not have, and then the first one counts.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = ClientOptions::new()
        .with_connect_timeout(CONNECT)
        .with_read_timeout(PAUSE)
        // A large file on a slow line may take as long as it moves.
        .with_timeout_disabled()
        .with_allow_http(settings.allow_http);
    let backoff = BackoffConfig { max_backoff: Duration::from_secs(1), ..BackoffConfig::default() };
    let mut builder = AmazonS3Builder::new()
        .with_access_key_id(&settings.access_key_id)
        .with_secret_access_key(&settings.secret_access_key)
        .with_region(&settings.region)
        .with_bucket_name(&settings.bucket)
        .with_client_options(client)
        // One object at a time is removed here, and not every server knows the bulk request.
        .with_disable_bulk_delete(true)
        .with_retry(RetryConfig { backoff, max_retries: 2, retry_timeout: Duration::from_secs(10) });
    if let Some(url) = &settings.url {
        let own_host = url.contains(&format!("://{}.", settings.bucket));
        builder = builder.with_endpoint(url.trim_end_matches('/')).with_virtual_hosted_style_request(own_host);
    }
    let store = builder.build();
    store.map_err(|source| StorageSettingsError::Client { bucket: settings.bucket.clone(), source })
}

/// One call's answer, in time.
pub(super) async fn answer<T>(
    doing: &'static str,
    path: &ObjectPath,
    call: impl Future<Output = object_store::Result<T>>,
) -> Result<T, StorageError> {
    match timeout(ANSWER, call).await {
        Ok(answer) => answer.map_err(|source| StorageError::from(doing, path, source)),
        Err(_) => Err(StorageError::NoAnswer { doing, path: path.clone() }),
    }
}

/// A stream whose parts come in time, or that ends with an error.
pub(super) fn in_time(
    parts: impl Stream<Item = object_store::Result<Bytes>> + Send + Unpin,
    path: ObjectPath,
) -> impl Stream<Item = Result<Bytes, StorageError>> + Send {
    stream::unfold(Some((parts, path)), |state| async move {
        let (mut parts, path) = state?;
        match timeout(ANSWER, parts.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(part))) => Some((Ok(part), Some((parts, path)))),
            Ok(Some(Err(source))) => Some((Err(StorageError::from("reading", &path, source)), None)),
            Err(_) => Some((Err(StorageError::NoAnswer { doing: "reading", path }), None)),
        }
    })
}
