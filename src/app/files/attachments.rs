//! Attachments: files at an asset or at an execution.

use jiff::SignedDuration;
use sqlx::postgres::PgConnection;

use super::kind::FileKind;
use super::ledger;
use super::name::ShownName;
use super::preview::{self, Preview};
use super::upload::{FileForm, not_stored};
use super::{Files, download};
use crate::app::accounts::{CurrentUser, Role};
use crate::app::plant;
use crate::app::problem::Problem;
use crate::app::product::Product;
use crate::tenancy::TenantContext;
use crate::tenancy::storage::{Area, Extension, ObjectPath, Stored};

/// What a file is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// `assets.id`
    Asset(i64),
    /// `routine_executions.id`
    Execution(i64),
}

impl Subject {
    /// The page of the asset or execution.
    pub fn page(self) -> String {
        match self {
            Self::Asset(id) => format!("/assets/{id}"),
            Self::Execution(id) => format!("/executions/{id}"),
        }
    }

    /// The page of its attachments, which is also where the form goes.
    pub fn attachments_page(self) -> String {
        format!("{}/attachments", self.page())
    }

    fn ids(self) -> (Option<i64>, Option<i64>) {
        match self {
            Self::Asset(id) => (Some(id), None),
            Self::Execution(id) => (None, Some(id)),
        }
    }

    /// As the table `activities` has it.
    fn activity(self) -> (&'static str, i64) {
        match self {
            Self::Asset(id) => ("asset", id),
            Self::Execution(id) => ("routine_execution", id),
        }
    }

    /// Its name, for a heading.
    ///
    /// # Errors
    /// There is no such asset or execution.
    pub async fn name(self, tenant: &TenantContext) -> Result<String, Problem> {
        let (asset, execution) = self.ids();
        let name = async |db: &mut PgConnection| {
            let name = sqlx::query_scalar!(
                r#"SELECT name AS "name!" FROM assets WHERE id = $1
                   UNION ALL SELECT r.name FROM routine_executions e JOIN routines r ON r.id = e.routine_id WHERE e.id = $2"#,
                asset,
                execution
            );
            Ok::<_, Problem>(name.fetch_optional(db).await?)
        };
        tenant.database().run(name).await?.ok_or(Problem::NotFound)
    }
}

/// One attachment in a list.
pub struct Attachment {
    /// `attachments.id`
    pub id: i64,
    /// Shown name.
    pub name: String,
    /// As people read it: `2.4 MB`.
    pub size: String,
    /// The day it was added, `2026-03-31`, in UTC.
    pub day: String,
    /// Who added it.
    pub by: Option<String>,
    /// Address of the preview, valid for a few minutes.
    pub preview: Option<String>,
    /// Whether who looks may remove it.
    pub removable: bool,
}

/// The block that pages of assets and executions include: make it with [`Attachments::of`], hold it in the page's field
/// `attachments` beside `shell`, and write `{% include "attachments_block.html" %}`.
pub struct Attachments {
    /// Where the form goes.
    pub page: String,
    /// Newest first.
    pub items: Vec<Attachment>,
    /// Whether who looks may add one.
    pub may_add: bool,
    /// Largest file, in MiB.
    pub max_mib: u64,
    /// What was wrong with the last try.
    pub error: Option<String>,
}

impl Attachments {
    /// The attachments of `subject`, as `user` sees them.
    ///
    /// # Errors
    /// The database is away.
    pub async fn of(
        product: &Product,
        tenant: &TenantContext,
        user: &CurrentUser,
        subject: Subject,
    ) -> Result<Self, Problem> {
        let (asset, execution) = subject.ids();
        let query = async |db: &mut PgConnection| {
            let rows = sqlx::query!(
                r#"SELECT a.id, a.name, f.bytes, a.preview_path, a.uploaded_by, u.name AS "by?",
                          to_char(a.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS "day!"
                   FROM attachments a JOIN stored_files f ON f.path = a.path LEFT JOIN users u ON u.id = a.uploaded_by
                   WHERE a.asset_id = $1 OR a.execution_id = $2 ORDER BY a.id DESC LIMIT 500"#,
                asset,
                execution
            );
            Ok::<_, Problem>(rows.fetch_all(db).await?)
        };
        let rows = tenant.database().run(query).await?;
        let items = rows.into_iter().map(|row| Attachment {
            id: row.id,
            name: row.name,
            size: size(row.bytes),
            day: row.day,
            by: row.by,
            // Without keys there are no links; the list is still worth having.
            preview: row.preview_path.and_then(|path| download::link(product, tenant, &path.parse().ok()?).ok()),
            removable: may_remove(user, row.uploaded_by),
        });
        Ok(Self {
            page: subject.attachments_page(),
            items: items.collect(),
            may_add: user.role >= Role::Technician,
            max_mib: product.files().max_mib(),
            error: None,
        })
    }
}

fn may_remove(user: &CurrentUser, uploaded_by: Option<i64>) -> bool {
    user.role >= Role::Manager || user.role >= Role::Technician && uploaded_by == Some(user.id)
}

/// As people read it.
pub fn size(bytes: i64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
    let (kb, mb) = (bytes as f64 / 1e3, bytes as f64 / 1e6);
    match bytes {
        ..=999 => format!("{bytes} bytes"),
        1_000..=999_999 => format!("{kb:.0} kB"),
        _ => format!("{mb:.1} MB"),
    }
}

/// Takes the form's file and attaches it.
///
/// # Errors
/// The file is refused, the plan has no room, or storage or database are away. Nothing is stored then.
pub async fn add(
    files: &Files,
    tenant: &TenantContext,
    user: &CurrentUser,
    subject: Subject,
    mut form: FileForm,
) -> Result<(), Problem> {
    let (settings, at_most) = (&files.settings, form.at_most);
    let mut head = Vec::new();
    let (name, content) = form.file(settings, &mut head).await?;
    let path = ObjectPath::new(Area::Attachments, name.extension());
    ledger::reserve(tenant, &path, at_most).await?;
    let stored = tenant.storage().put(&path, content, at_most).await;
    let mut preview_path = None;
    let added = async {
        let stored = stored.map_err(|error| not_stored(error, settings.max_upload))?;
        if stored.bytes == 0 {
            return Err(Problem::Invalid("The file is empty. Choose another one.".into()));
        }
        let kind = FileKind::of(&head);
        let preview = match preview::of(files, tenant, &path, kind).await? {
            Some(preview) => store_preview(tenant, preview, &mut preview_path).await?,
            None => None,
        };
        let new = New { name, kind, path: &path, stored, preview };
        plant::change(tenant, async |db: &mut PgConnection| insert(db, user, subject, &new).await).await
    }
    .await;
    if let Err(problem) = &added {
        for path in [Some(path), preview_path].into_iter().flatten() {
            ledger::give_up(tenant, &path, problem).await;
        }
    }
    added
}

/// `None` where the plan has no room for it: the file itself matters more. `reserved` says what to give back.
async fn store_preview(
    tenant: &TenantContext,
    preview: Preview,
    reserved: &mut Option<ObjectPath>,
) -> Result<Option<(ObjectPath, Stored)>, Problem> {
    let path = ObjectPath::new(Area::Attachments, Extension::new(preview.kind.as_str()).ok());
    let bytes = preview.bytes.len() as u64;
    match ledger::reserve(tenant, &path, bytes).await {
        Err(Problem::LimitReached { .. }) => return Ok(None),
        other => other?,
    }
    *reserved = Some(path.clone());
    let content = futures::stream::iter([Ok::<_, Problem>(preview.bytes.into())]);
    let stored = tenant.storage().put(&path, content, bytes).await.map_err(|error| not_stored(error, bytes))?;
    Ok(Some((path, stored)))
}

struct New<'a> {
    name: ShownName,
    kind: FileKind,
    path: &'a ObjectPath,
    stored: Stored,
    preview: Option<(ObjectPath, Stored)>,
}

async fn insert(db: &mut PgConnection, user: &CurrentUser, subject: Subject, new: &New<'_>) -> Result<(), Problem> {
    ledger::settle(db, new.path, &new.stored).await?;
    if let Some((path, stored)) = &new.preview {
        ledger::settle(db, path, stored).await?;
    }
    let (asset, execution) = subject.ids();
    sqlx::query!(
        "INSERT INTO attachments (asset_id, execution_id, path, preview_path, name, kind, uploaded_by) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        asset,
        execution,
        new.path.to_string(),
        new.preview.as_ref().map(|(path, _)| path.to_string()),
        new.name.as_str(),
        new.kind.as_str(),
        user.id
    )
    .execute(&mut *db)
    .await?;
    note(db, user, "attachment.added", subject, new.name.as_str()).await
}

/// Removes an attachment; returns what it was at. Its objects go when the sweep runs, its row at once.
///
/// # Errors
/// There is no such attachment, or this user may not remove it.
pub async fn remove(tenant: &TenantContext, user: &CurrentUser, id: i64) -> Result<Subject, Problem> {
    let removed = async |db: &mut PgConnection| {
        let query = sqlx::query!(
            "SELECT asset_id, execution_id, name, uploaded_by FROM attachments WHERE id = $1 FOR UPDATE",
            id
        );
        let found = query.fetch_optional(&mut *db).await?.ok_or(Problem::NotFound)?;
        if !may_remove(user, found.uploaded_by) {
            return Err(Problem::Forbidden(Role::Manager));
        }
        let subject = match (found.asset_id, found.execution_id) {
            (Some(id), _) => Subject::Asset(id),
            (None, id) => Subject::Execution(id.unwrap_or_default()),
        };
        sqlx::query!("DELETE FROM attachments WHERE id = $1", id).execute(&mut *db).await?;
        note(db, user, "attachment.removed", subject, &found.name).await?;
        Ok::<_, Problem>(subject)
    };
    plant::change(tenant, removed).await
}

async fn note(
    db: &mut PgConnection,
    user: &CurrentUser,
    kind: &str,
    subject: Subject,
    summary: &str,
) -> Result<(), Problem> {
    let (subject_type, subject_id) = subject.activity();
    sqlx::query!(
        "INSERT INTO activities (user_id, kind, subject_type, subject_id, summary) VALUES ($1, $2, $3, $4, $5)",
        user.id,
        kind,
        subject_type,
        subject_id,
        summary
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Where an attachment's content lies.
///
/// # Errors
/// There is no such attachment.
pub async fn path_of(tenant: &TenantContext, id: i64) -> Result<ObjectPath, Problem> {
    let path = async |db: &mut PgConnection| {
        let path = sqlx::query_scalar!("SELECT path FROM attachments WHERE id = $1", id);
        Ok::<_, Problem>(path.fetch_optional(db).await?)
    };
    let path = tenant.database().run(path).await?.ok_or(Problem::NotFound)?;
    path.parse().map_err(|_| Problem::Internal(format!("attachment {id} has the path {path}")))
}

/// How long an image in a page may be kept by the browser: as long as its link is valid.
pub fn cache_control(link: SignedDuration) -> String {
    format!("private, max-age={}, immutable", link.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_as_people_read_them() {
        let rows = [(0, "0 bytes"), (999, "999 bytes"), (1_000, "1 kB"), (999_499, "999 kB"), (2_449_999, "2.4 MB")];
        for (bytes, expected) in rows {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn managers_remove_every_attachment_and_technicians_their_own() {
        let user = |id, role| CurrentUser { id, name: String::new(), email: String::new(), role };
        let rows = [
            (Role::Viewer, Some(1), false),
            (Role::Technician, Some(1), true),
            (Role::Technician, Some(2), false),
            (Role::Technician, None, false),
            (Role::Manager, Some(2), true),
            (Role::Admin, None, true),
        ];
        for (role, by, expected) in rows {
            assert_eq!(may_remove(&user(1, role), by), expected, "{role:?} {by:?}");
        }
    }
}
