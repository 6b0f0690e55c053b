//! How a file arrives: a multipart form whose first field is the form's secret and whose second one is the file.
//!
//! Nothing of the file is read before the secret was right, and nothing of it is held: it goes on to storage as it
//! comes. Whoever is too slow or sends too much is told so.

use std::task::{Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{FromRequest, Request};
use futures::{Stream, StreamExt, stream};
use http::header::CONTENT_LENGTH;
use subtle::ConstantTimeEq;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use super::name::ShownName;
use super::{FORM_OVERHEAD, FileSettings, Files};
use crate::app::problem::Problem;
use crate::app::shell::CsrfToken;
use crate::tenancy::TenantContext;
use crate::tenancy::storage::PutError;

/// Longest secret that is read.
const MAX_TOKEN: usize = 256;

/// A form that is proved to come from one of our own pages, with its file still to be read.
pub struct FileForm {
    multipart: Multipart,
    clock: Clock,
    /// Most bytes that the file can have, from what the request says of its length.
    pub at_most: u64,
    /// Given back when the file has been taken, or the visitor goes away.
    _turn: OwnedSemaphorePermit,
}

/// When an upload is too slow.
#[derive(Clone, Copy)]
struct Clock {
    pause: Duration,
    end: Instant,
}

impl Clock {
    async fn wait<T>(self, next: impl Future<Output = T>) -> Result<T, Problem> {
        timeout_at(self.end.min(Instant::now() + self.pause), next).await.map_err(|_| Problem::TooSlow)
    }
}

impl FileForm {
    /// Reads the secret and nothing more.
    ///
    /// # Errors
    /// The form is of another site, of another kind, too large by its own account, or does not come; too many others send
    /// files.
    pub async fn open(request: Request, files: &Files) -> Result<Self, Problem> {
        let settings = files.settings();
        let token = request.extensions().get::<CsrfToken>().cloned();
        let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > settings.max_upload + FORM_OVERHEAD) {
            return Err(Problem::FileTooLarge(settings.max_upload));
        }
        let turn = files.turn().await?;
        let at_most = length.map_or(settings.max_upload, |length| length.min(settings.max_upload));
        let clock = Clock { pause: settings.pause, end: Instant::now() + settings.upload };
        let multipart = Multipart::from_request(request.map(one_at_a_time), &()).await;
        let multipart = multipart.map_err(|rejection| Problem::Invalid(format!("The form: {rejection}.")))?;
        let mut form = Self { multipart, clock, at_most, _turn: turn };
        let given = form.token(settings).await?;
        // No secret is not the empty one.
        let token = token.filter(|token| !token.0.is_empty());
        let is_ours = token.is_some_and(|token| token.0.as_bytes().ct_eq(&given).into());
        if is_ours { Ok(form) } else { Err(Problem::StaleForm) }
    }

    async fn token(&mut self, settings: &FileSettings) -> Result<Vec<u8>, Problem> {
        let (clock, max) = (self.clock, settings.max_upload);
        let first = clock.wait(self.multipart.next_field()).await?.map_err(|error| unreadable(&error, max))?;
        let Some(mut field) = first.filter(|field| field.name() == Some("csrf")) else { return Ok(Vec::new()) };
        let mut token = Vec::new();
        while let Some(part) = clock.wait(field.chunk()).await?.map_err(|error| unreadable(&error, max))? {
            token.extend_from_slice(&part);
            if token.len() > MAX_TOKEN {
                return Ok(Vec::new());
            }
        }
        Ok(token)
    }

    /// The file's name, and its content as it comes. The first bytes are also put into `head`.
    ///
    /// # Errors
    /// There is no file, or its name cannot be shown.
    pub async fn file<'f>(
        &'f mut self,
        settings: &FileSettings,
        head: &'f mut Vec<u8>,
    ) -> Result<(ShownName, impl Stream<Item = Result<Bytes, Problem>> + Send + use<'f>), Problem> {
        let (clock, max) = (self.clock, settings.max_upload);
        let next = clock.wait(self.multipart.next_field()).await?.map_err(|error| unreadable(&error, max))?;
        let missing = || Problem::Invalid("Choose a file.".into());
        let field = next.filter(|field| field.name() == Some("file")).ok_or_else(missing)?;
        let name = field.file_name().filter(|name| !name.is_empty()).ok_or_else(missing)?;
        let name = ShownName::new(name).map_err(Problem::Invalid)?;
        Ok((name, parts(field, clock, max, head)))
    }
}

/// A body that is taken piece by piece. What parses forms reads on for as long as something is there already, and would
/// hold a file that comes quickly as a whole.
fn one_at_a_time(body: Body) -> Body {
    let mut body = body.into_data_stream();
    let mut taken = false;
    Body::from_stream(stream::poll_fn(move |context| {
        if std::mem::take(&mut taken) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = ready!(body.poll_next_unpin(context));
        taken = true;
        Poll::Ready(next)
    }))
}

fn parts<'f>(
    field: Field<'f>,
    clock: Clock,
    max: u64,
    head: &'f mut Vec<u8>,
) -> impl Stream<Item = Result<Bytes, Problem>> + Send + use<'f> {
    stream::unfold(Some((field, head)), move |state| async move {
        let (mut field, head) = state?;
        match clock.wait(field.chunk()).await {
            Ok(Ok(Some(part))) => {
                let wanted = super::kind::HEAD.saturating_sub(head.len()).min(part.len());
                head.extend_from_slice(&part[..wanted]);
                Some((Ok(part), Some((field, head))))
            }
            Ok(Ok(None)) => None,
            Ok(Err(error)) => Some((Err(unreadable(&error, max)), None)),
            Err(problem) => Some((Err(problem), None)),
        }
    })
}

fn unreadable(error: &MultipartError, max: u64) -> Problem {
    match error.status() {
        http::StatusCode::PAYLOAD_TOO_LARGE => Problem::FileTooLarge(max),
        // The connection broke: nobody reads this answer.
        http::StatusCode::INTERNAL_SERVER_ERROR => Problem::Invalid("The upload was cut off. Send it again.".into()),
        // A control character in a file's name is one of the causes, and the only one that a person can do something about.
        _ => Problem::Invalid(format!(
            "The form cannot be read: {}. If the file's name contains a control character, rename the file.",
            error.body_text()
        )),
    }
}

/// Why a file was not stored, as a problem.
pub fn not_stored(error: PutError<Problem>, max: u64) -> Problem {
    match error {
        PutError::Body(problem) => problem,
        PutError::TooLarge => Problem::FileTooLarge(max),
        PutError::Storage(error) => Problem::Files(error),
    }
}

/// Runs work to its end even when the visitor goes away, who then shows as a body that breaks off. A request that is
/// dropped in the middle of a write would leave behind what nobody cleans up.
///
/// # Errors
/// What the work returns.
pub async fn to_the_end<T: Send + 'static>(
    tenant: &TenantContext,
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    let task = tokio::spawn(work.instrument(tenant.span().clone()));
    task.await.map_err(|error| Problem::Internal(format!("an upload's task: {error}")))?
}
