//! The bucket of backups: what is written is hashed on its way, what is read is hashed again.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use axum::body::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, PutMultipartOptions, PutOptions, WriteMultipart};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use uuid::Uuid;

use super::keys::{self, BackupId, Part};
use super::manifest::hex;
use crate::tenancy::storage::{self, S3Settings};

/// Size of a part. S3 takes 10,000 of them: dumps of up to 160 GB. At most three are in memory.
const PART: usize = 16 << 20;
/// Parts on their way while the next one is read.
const AT_A_TIME: usize = 2;
/// Longest wait for an answer: a part that was sent, an upload of thousands of parts that is put together.
const ANSWER: Duration = Duration::from_secs(300);
/// Longest manifest that is read; one of ten thousand tables is below 1 MiB.
const LONGEST_MANIFEST: u64 = 16 << 20;

/// A bucket.
#[derive(Clone)]
pub struct Bucket {
    store: AmazonS3,
    name: String,
}

/// What went over the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// In bytes.
    pub size: u64,
    /// SHA-256 in hex.
    pub sha256: String,
}

/// An object as the bucket lists it.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    /// The backup it belongs to.
    pub id: BackupId,
    /// Which part of it.
    pub part: Part,
    /// In bytes.
    pub size: u64,
    /// By the bucket's clock.
    pub modified: Timestamp,
}

impl Bucket {
    /// Prepares the client; the bucket is not asked yet.
    ///
    /// # Errors
    /// The settings contradict themselves.
    pub fn new(settings: &S3Settings) -> anyhow::Result<Self> {
        Ok(Self { store: storage::client(settings)?, name: settings.bucket.clone() })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Begins an object of any size. It is not there before [`Upload::finish`].
    ///
    /// # Errors
    /// The bucket refuses or does not answer.
    pub async fn begin(&self, key: &str) -> anyhow::Result<Upload> {
        let path = Path::from(key);
        let started = self.store.put_multipart_opts(&path, PutMultipartOptions::default());
        let upload = self.answer("beginning to write", key, started).await?;
        let write = WriteMultipart::new_with_chunk_size(upload, PART);
        Ok(Upload { bucket: self.clone(), key: key.to_owned(), write, digest: Sha256::new(), size: 0 })
    }

    /// Writes a small object.
    ///
    /// # Errors
    /// The bucket refuses or does not answer.
    pub async fn put(&self, key: &str, bytes: Vec<u8>) -> anyhow::Result<()> {
        let path = Path::from(key);
        let put = self.store.put_opts(&path, Bytes::from(bytes).into(), PutOptions::default());
        self.answer("writing", key, put).await.map(drop)
    }

    /// Reads a small object.
    ///
    /// # Errors
    /// It is not there, too long, or the bucket does not answer.
    pub async fn get(&self, key: &str) -> anyhow::Result<Bytes> {
        let found = self.answer("reading", key, self.store.get_opts(&Path::from(key), GetOptions::default())).await?;
        anyhow::ensure!(
            found.meta.size <= LONGEST_MANIFEST,
            "{key} in bucket {} has {} bytes",
            self.name,
            found.meta.size
        );
        self.answer("reading", key, found.bytes()).await
    }

    /// Reads an object of any size into `sink`, to its end.
    ///
    /// # Errors
    /// It is not there, the bucket does not answer, or `sink` takes no more.
    pub async fn read(&self, key: &str, sink: &mut (impl AsyncWrite + Unpin)) -> anyhow::Result<Hashed> {
        let found = self.answer("reading", key, self.store.get_opts(&Path::from(key), GetOptions::default())).await?;
        let mut parts = found.into_stream();
        let (mut digest, mut size) = (Sha256::new(), 0);
        while let Some(part) = self.answer("reading", key, parts.try_next()).await? {
            digest.update(&part);
            size += part.len() as u64;
            sink.write_all(&part).await.with_context(|| format!("passing on what was read of {key}"))?;
        }
        sink.flush().await.with_context(|| format!("passing on what was read of {key}"))?;
        Ok(Hashed { size, sha256: hex(&digest.finalize()) })
    }

    /// Every object of a tenant's backups, oldest first. Whatever else lies there is passed over.
    ///
    /// # Errors
    /// The bucket refuses or does not answer.
    pub async fn list(&self, tenant: Uuid) -> anyhow::Result<Vec<Listed>> {
        let folder = keys::folder(tenant);
        let listed = self.store.list(Some(&Path::from(folder.as_str()))).try_collect::<Vec<_>>();
        let objects = self.answer("listing", &folder, listed).await?;
        let mut listed: Vec<_> = objects
            .into_iter()
            .filter_map(|object| {
                let (id, part) = keys::parse(tenant, object.location.as_ref())?;
                let modified = Timestamp::from_second(object.last_modified.timestamp()).ok()?;
                Some(Listed { id, part, size: object.size, modified })
            })
            .collect();
        listed.sort_by_key(|object| object.id);
        Ok(listed)
    }

    /// Removes a backup: the manifest first, because what has none is no backup. Whatever is gone already is no error.
    ///
    /// # Errors
    /// The bucket refuses or does not answer.
    pub async fn remove(&self, tenant: Uuid, ids: &BTreeSet<BackupId>) -> anyhow::Result<()> {
        for id in ids {
            for part in [Part::Manifest, Part::Dump] {
                self.discard(&keys::key(tenant, *id, part)).await?;
            }
        }
        Ok(())
    }

    /// Removes an object; one that is gone already is no error.
    ///
    /// # Errors
    /// The bucket refuses or does not answer.
    pub async fn discard(&self, key: &str) -> anyhow::Result<()> {
        let removed = self.store.delete_stream(stream::iter([Ok(Path::from(key))]).boxed()).try_collect::<Vec<_>>();
        let removed = async {
            match removed.await {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        };
        self.answer("removing", key, removed).await
    }

    async fn answer<T>(
        &self,
        doing: &str,
        key: &str,
        call: impl Future<Output = object_store::Result<T>>,
    ) -> anyhow::Result<T> {
        let answer = timeout(ANSWER, call).await;
        let answer =
            answer.with_context(|| format!("{doing} {key} in bucket {}: no answer in {ANSWER:?}", self.name))?;
        answer.with_context(|| format!("{doing} {key} in bucket {}", self.name))
    }
}

/// An object that is being written, hashed on its way.
pub struct Upload {
    bucket: Bucket,
    key: String,
    write: WriteMultipart,
    digest: Sha256,
    size: u64,
}

impl Upload {
    /// Writes what `source` has, to its end.
    ///
    /// # Errors
    /// `source` cannot be read, or the bucket refuses or does not answer.
    pub async fn copy(&mut self, source: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<()> {
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read =
                source.read(&mut buffer).await.with_context(|| format!("reading what is written to {}", self.key))?;
            if read == 0 {
                return Ok(());
            }
            self.digest.update(&buffer[..read]);
            self.size += read as u64;
            let room = self.write.wait_for_capacity(AT_A_TIME);
            self.bucket.answer("writing", &self.key, room).await?;
            self.write.write(&buffer[..read]);
        }
    }

    /// From here on the object is there.
    ///
    /// # Errors
    /// The bucket refuses or does not answer; it may be there all the same.
    pub async fn finish(self) -> anyhow::Result<Hashed> {
        self.bucket.answer("completing", &self.key, self.write.finish()).await?;
        Ok(Hashed { size: self.size, sha256: hex(&self.digest.finalize()) })
    }

    /// Gives it up. Parts that remain are removed by the bucket's rule for incomplete uploads.
    pub async fn abort(self) {
        if let Err(error) = self.bucket.answer("giving up", &self.key, self.write.abort()).await {
            tracing::warn!(error = format!("{error:#}"), "parts of an unfinished backup remain in the bucket");
        }
    }
}
