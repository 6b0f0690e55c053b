//! Storing an object in parts, as a whole or not at all.

use std::pin::pin;

use axum::body::Bytes;
use futures::{Stream, StreamExt};
use object_store::path::Path;
use object_store::{MultipartUpload, PutMultipartOptions, PutOptions, PutPayload};
use sha2::{Digest, Sha256};

use super::Stored;
use super::backend::{Backend, answer};
use super::error::{PutError, StorageError};
use super::name::ObjectPath;

/// Size of a part; S3 wants at least 5 MiB of all but the last. One of them is in memory per upload.
const PART: usize = 8 << 20;

/// Reads `body` to its end and stores it.
pub(super) async fn put<E>(
    backend: &Backend,
    location: &Path,
    path: &ObjectPath,
    body: impl Stream<Item = Result<Bytes, E>> + Send,
    limit: u64,
) -> Result<Stored, PutError<E>> {
    let mut body = pin!(body);
    let mut upload = Upload { backend, location, path, started: None };
    let outcome = async {
        let mut pending: Vec<Bytes> = Vec::new();
        let (mut pending_bytes, mut bytes) = (0, 0_u64);
        let mut digest = Sha256::new();
        while let Some(chunk) = body.next().await {
            let mut chunk = chunk.map_err(PutError::Body)?;
            bytes += chunk.len() as u64;
            if bytes > limit {
                return Err(PutError::TooLarge);
            }
            digest.update(&chunk);
            while pending_bytes + chunk.len() >= PART {
                pending.push(chunk.split_to(PART - pending_bytes));
                upload.part(std::mem::take(&mut pending)).await?;
                pending_bytes = 0;
            }
            pending_bytes += chunk.len();
            pending.push(chunk);
        }
        upload.finish(pending).await?;
        Ok(Stored { bytes, sha256: digest.finalize().into() })
    }
    .await;
    if outcome.is_err() {
        upload.abort().await;
    }
    outcome
}

/// An upload under way: one request for what fits into one part, else a multipart upload.
struct Upload<'a> {
    backend: &'a Backend,
    location: &'a Path,
    path: &'a ObjectPath,
    /// The multipart upload, once there was need for one.
    started: Option<Box<dyn MultipartUpload>>,
}

impl Upload<'_> {
    async fn part(&mut self, chunks: Vec<Bytes>) -> Result<(), StorageError> {
        let upload = match &mut self.started {
            Some(upload) => upload,
            none => {
                let start = self.backend.store().put_multipart_opts(self.location, PutMultipartOptions::default());
                none.insert(answer("beginning to store", self.path, start).await?)
            }
        };
        answer("storing a part of", self.path, upload.put_part(chunks.into_iter().collect())).await
    }

    async fn finish(&mut self, rest: Vec<Bytes>) -> Result<(), StorageError> {
        if self.started.is_none() {
            let payload: PutPayload = rest.into_iter().collect();
            let put = self.backend.store().put_opts(self.location, payload, PutOptions::default());
            return answer("storing", self.path, put).await.map(|_| ());
        }
        if !rest.is_empty() {
            self.part(rest).await?;
        }
        let Some(upload) = &mut self.started else { return Ok(()) };
        answer("completing", self.path, upload.complete()).await?;
        self.started = None;
        Ok(())
    }

    /// Whether it worked is of no consequence here: the caller's record of the upload stays until the object has been
    /// discarded.
    async fn abort(&mut self) {
        if let Some(upload) = &mut self.started
            && let Err(error) = answer("aborting", self.path, upload.abort()).await
        {
            tracing::warn!(target: "tenant", %error, "an upload could not be aborted");
        }
    }
}
