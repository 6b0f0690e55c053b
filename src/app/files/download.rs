//! Signed download links: whoever has one may fetch that one file of that one tenant, at the tenant's own host, for a
//! few minutes.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use jiff::Timestamp;
use serde::Deserialize;
use sqlx::postgres::PgConnection;

use super::attachments::cache_control;
use super::kind::FileKind;
use super::name::content_disposition;
use crate::app::problem::Problem;
use crate::app::product::Product;
use crate::tenancy::TenantContext;
use crate::tenancy::storage::ObjectPath;

/// What the signature is for; one for another purpose does not open a file.
const PURPOSE: &str = "download";

/// A link to one of the tenant's objects.
///
/// # Errors
/// The app runs without signing keys.
pub fn link(product: &Product, tenant: &TenantContext, path: &ObjectPath) -> Result<String, Problem> {
    let keys = product.tenancy().signing();
    let keys = keys.ok_or_else(|| Problem::Internal("making a download link: there are no signing keys".into()))?;
    let expires = Timestamp::now() + product.files().settings().link;
    // Everything in it is a letter, a digit, `-`, `_`, `.` or `/`.
    Ok(format!("/files/{path}?token={}", keys.sign(tenant.entry().uuid, PURPOSE, &path.to_string(), expires)))
}

/// The query of a link.
#[derive(Deserialize)]
pub struct Signature {
    #[serde(default)]
    token: String,
}

/// `GET /files/{area}/{name}?token=…`
pub async fn show(
    tenant: TenantContext,
    State(product): State<Product>,
    Path((area, name)): Path<(String, String)>,
    Query(signature): Query<Signature>,
) -> Result<Response, Problem> {
    let path: ObjectPath = format!("{area}/{name}").parse().map_err(|_| Problem::NotFound)?;
    let keys = product.tenancy().signing().ok_or(Problem::NotFound)?;
    let signed =
        keys.verify(tenant.entry().uuid, PURPOSE, &signature.token, Timestamp::now()).map_err(Problem::Link)?;
    if signed != path.to_string() {
        return Err(Problem::Link(crate::signing::Rejected::Forged));
    }
    let file = find(&tenant, &path).await?.ok_or(Problem::NotFound)?;
    let content = tenant.storage().get(&path).await?;
    let (disposition, cache) = if file.is_preview {
        ("inline", cache_control(product.files().settings().link))
    } else {
        ("attachment", "private, no-store".to_owned())
    };
    let text = |text: &str| {
        HeaderValue::from_str(text).map_err(|_| Problem::Internal(format!("object {path} has no fitting header")))
    };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(file.kind.content_type())),
        (CONTENT_DISPOSITION, text(&content_disposition(disposition, &file.name))?),
        (CONTENT_LENGTH, HeaderValue::from(content.bytes)),
        (CACHE_CONTROL, text(&cache)?),
        // Should a browser show it after all: as a document of its own that can do nothing.
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox")),
    ];
    Ok((headers, Body::from_stream(content.stream)).into_response())
}

struct File {
    name: String,
    kind: FileKind,
    /// Only these are shown inside a page: we made them ourselves.
    is_preview: bool,
}

async fn find(tenant: &TenantContext, path: &ObjectPath) -> Result<Option<File>, Problem> {
    let text = path.to_string();
    let query = async |db: &mut PgConnection| {
        let found = sqlx::query!("SELECT name, kind FROM attachments WHERE path = $1", text);
        if let Some(found) = found.fetch_optional(&mut *db).await? {
            return Ok(Some(File { name: found.name, kind: FileKind::parse(&found.kind), is_preview: false }));
        }
        let found = sqlx::query_scalar!("SELECT name FROM attachments WHERE preview_path = $1", text);
        let name = found.fetch_optional(&mut *db).await?;
        // The extension of a preview is ours, and says what we encoded.
        let kind = match text.rsplit_once('.') {
            Some((_, "png")) => FileKind::Png,
            _ => FileKind::Jpeg,
        };
        Ok::<_, Problem>(name.map(|name| File { name, kind, is_preview: true }))
    };
    tenant.database().run(query).await
}
