//! The forms that add and change routines.

use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use serde::Deserialize;
use sqlx::postgres::PgConnection;

use super::Routine;
use super::form::RoutineForm;
use super::store::{self, Stored};
use crate::app::accounts::{CurrentUser, Role};
use crate::app::form::CheckedForm;
use crate::app::plant::activity::{self, Activity};
use crate::app::plant::asked::{Asked, Id};
use crate::app::plant::people;
use crate::app::plant::show::{Choice, Conflict, FormPage};
use crate::app::plant::typed::Errors;
use crate::app::plant::{assets, change, changed, private_page};
use crate::app::problem::Problem;
use crate::app::shell::Shell;
use crate::tenancy::TenantContext;
use crate::tenancy::repository::TenantRepository;

/// More assets than this are not put into a list to choose from.
const MAX_CHOICES: i64 = 500;

async fn form_page(
    tenant: &TenantContext,
    shell: Shell,
    id: Option<i64>,
    form: &RoutineForm,
    errors: &Errors,
    conflict: Option<&(Routine, String)>,
) -> Result<Response, Problem> {
    let wanted = assets::store::Wanted::default();
    let (people, assets) = tenant
        .database()
        .run(async |db: &mut PgConnection| {
            let assets =
                if id.is_none() { assets::store::list(db, &wanted, MAX_CHOICES + 1, 0).await? } else { vec![] };
            Ok::<_, Problem>((people::all(db).await?, assets))
        })
        .await?;
    let is_settled = assets.iter().any(|asset| asset.id.to_string() == form.asset_id);
    if id.is_none() && assets.len() > usize::try_from(MAX_CHOICES).unwrap_or_default() && !is_settled {
        return Ok(Redirect::to("/assets?done=choose").into_response());
    }
    let choices = id.is_none().then(|| {
        let choice = |asset: &assets::Listed| {
            let tag = asset.tag.as_ref().map(|tag| format!(" ({tag})")).unwrap_or_default();
            Choice {
                value: asset.id.to_string(),
                text: format!("{}{tag}", asset.name),
                chosen: asset.id.to_string() == form.asset_id,
            }
        };
        let first = Choice { value: String::new(), text: "Choose an asset".into(), chosen: form.asset_id.is_empty() };
        std::iter::once(first).chain(assets.iter().map(choice)).collect()
    });
    let conflict = conflict.map(|(now, who)| Conflict {
        who: who.clone(),
        when: now.updated_at.ago(),
        rows: form.differences(now, &people),
    });
    let status = match (&conflict, errors.is_empty()) {
        (Some(_), _) => StatusCode::CONFLICT,
        (None, true) => StatusCode::OK,
        (None, false) => StatusCode::BAD_REQUEST,
    };
    let mut crumbs = vec![("/routines".to_owned(), "Routines".to_owned())];
    let page = id.map_or_else(|| "/routines".to_owned(), |id| format!("/routines/{id}"));
    if id.is_some() {
        crumbs.push((page.clone(), form.name.clone()));
    }
    let page = FormPage {
        shell,
        title: if id.is_some() { "Edit routine".into() } else { "Add a routine".into() },
        crumbs,
        fields: form.fields(choices, &people, errors),
        submit: if id.is_some() { "Save" } else { "Add routine" },
        cancel: page.clone(),
        action: page,
        error: None,
        conflict,
    };
    Ok((status, private_page(&page)?).into_response())
}

/// Which asset a new routine is for.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct NewQuery {
    asset: Option<i64>,
}

/// `GET /routines/new`
pub async fn new(
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    Asked(query): Asked<NewQuery>,
) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    form_page(&tenant, shell, None, &RoutineForm::blank(query.asset), &Errors::default(), None).await
}

/// `POST /routines`
pub async fn add(
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    CheckedForm(form): CheckedForm<RoutineForm>,
) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    let routine = match form.check() {
        Ok(routine) => routine,
        Err(errors) => return form_page(&tenant, shell, None, &form, &errors, None).await,
    };
    let made = TenantRepository::<Routine>::of(&tenant).create::<Problem>((user.id, routine)).await?;
    changed(&tenant).await;
    match made {
        Stored::Done(id) => Ok(Redirect::to(&format!("/routines/{id}?done=added")).into_response()),
        refused => form_page(&tenant, shell, None, &form, &why(refused), None).await,
    }
}

/// What the form says.
pub fn why(refused: Stored) -> Errors {
    match refused {
        Stored::NoAsset => Errors::one("asset_id", "There is no such asset in use. Choose another."),
        Stored::OtherAsset => {
            Errors::one("asset_id", "A routine stays with its asset. Add a new one to the other asset.")
        }
        Stored::NoPerson => Errors::one("assigned_to", "There is no such person. Choose somebody else."),
        Stored::InProgress => {
            Errors::one("next_due_on", "The work is being done. Complete it before you move its date.")
        }
        Stored::DateTaken(last) => {
            Errors::one("next_due_on", format!("The date of {} is done already. Choose a later one.", last.shown()))
        }
        _ => Errors::one("name", "It was changed meanwhile. Open it again."),
    }
}

/// `GET /routines/{id}/edit`
pub async fn edit(tenant: TenantContext, user: CurrentUser, shell: Shell, Id(id): Id) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    let routine = TenantRepository::<Routine>::of(&tenant).find::<Problem>(id).await?;
    let form = RoutineForm::from(&routine);
    form_page(&tenant, shell, Some(id), &form, &Errors::default(), None).await
}

/// `POST /routines/{id}`
pub async fn update(
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    Id(id): Id,
    CheckedForm(mut form): CheckedForm<RoutineForm>,
) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    let routine = match form.check() {
        Ok(routine) => routine,
        Err(errors) => return form_page(&tenant, shell, Some(id), &form, &errors, None).await,
    };
    let version = form.version().ok_or_else(|| Problem::Invalid("The form names no version. Open it again.".into()))?;
    let (stored, now) = change(&tenant, async |db: &mut PgConnection| {
        let stored = store::update(db, user.id, id, &routine, version).await?;
        let now = if stored == Stored::Changed { latest(db, id).await? } else { None };
        Ok((stored, now))
    })
    .await?;
    match (stored, now) {
        (Stored::Done(_), _) => Ok(Redirect::to(&format!("/routines/{id}?done=saved")).into_response()),
        (Stored::Missing, _) => Err(Problem::NotFound),
        (_, Some(now)) => {
            // Whoever saves now has seen that version.
            form.updated_at = now.0.updated_at.to_string();
            form_page(&tenant, shell, Some(id), &form, &Errors::default(), Some(&now)).await
        }
        (refused, None) => form_page(&tenant, shell, Some(id), &form, &why(refused), None).await,
    }
}

/// The stored version and who made it.
async fn latest(db: &mut PgConnection, id: i64) -> Result<Option<(Routine, String)>, sqlx::Error> {
    let Some(routine) = store::find(db, id).await? else { return Ok(None) };
    let wanted =
        activity::Wanted { subject: "routine".into(), subject_id: Some(id), limit: 1, ..activity::Wanted::default() };
    let who = activity::list(db, &wanted).await?.first().map_or("Somebody", Activity::who).to_owned();
    Ok(Some((routine, who)))
}
