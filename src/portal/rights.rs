//! What an administrator may do. Checked in one place: a handler that takes an [`Allowed`] runs for nobody else.

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde_json::{Map, Value};

use super::problem::Problem;
use super::state::Portal;
use super::visitor::{Admin, Visitor};

/// A right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Look at everything but administrators.
    View,
    /// Make, change, suspend and delete tenants.
    ManageTenants,
    /// Change plans.
    ManagePlans,
    /// Bring data back from backups.
    Restore,
    /// Change subscriptions.
    Billing,
    /// Invite administrators, change their rights, reset and remove them.
    ManageAdmins,
}

impl Right {
    /// All, in the order in which they are shown.
    pub const ALL: [Self; 6] =
        [Self::View, Self::ManageTenants, Self::ManagePlans, Self::Restore, Self::Billing, Self::ManageAdmins];

    /// Its name in `system_admins.permissions`.
    pub const fn key(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::ManageTenants => "manageTenants",
            Self::ManagePlans => "managePlans",
            Self::Restore => "restore",
            Self::Billing => "billing",
            Self::ManageAdmins => "manageAdmins",
        }
    }

    /// Its name for people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::View => "View",
            Self::ManageTenants => "Manage tenants",
            Self::ManagePlans => "Manage plans",
            Self::Restore => "Restore",
            Self::Billing => "Billing",
            Self::ManageAdmins => "Manage administrators",
        }
    }

    /// What it lets somebody do.
    pub const fn means(self) -> &'static str {
        match self {
            Self::View => "Look at tenants, plans, servers and the audit log. Comes with every other right.",
            Self::ManageTenants => "Create, change, suspend, resume and delete tenants.",
            Self::ManagePlans => "Change what is sold.",
            Self::Restore => "Bring data back from backups. No page uses it yet.",
            Self::Billing => "Change subscriptions. No page uses it yet.",
            Self::ManageAdmins => "Invite administrators, change their rights, reset and remove them.",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The rights of somebody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights(u8);

impl Rights {
    /// As `system_admins.permissions` has them: what is `true` there, and nothing else.
    pub fn of(permissions: &Value) -> Self {
        let held = |right: &Right| permissions.get(right.key()) == Some(&Value::Bool(true));
        Right::ALL.into_iter().filter(held).collect()
    }

    /// All of them.
    pub fn all() -> Self {
        Right::ALL.into_iter().collect()
    }

    /// Whether it is among them. Whoever may do something may look.
    pub const fn has(self, right: Right) -> bool {
        self.0 & right.bit() != 0 || (matches!(right, Right::View) && self.0 != 0)
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// As `system_admins.permissions` has them.
    pub fn permissions(self) -> Value {
        let held = Right::ALL.into_iter().filter(|right| self.has(*right));
        Value::Object(held.map(|right| (right.key().to_owned(), Value::Bool(true))).collect::<Map<_, _>>())
    }

    /// Their names for people.
    pub fn titles(self) -> String {
        let titles: Vec<_> = Right::ALL.into_iter().filter(|right| self.has(*right)).map(Right::title).collect();
        if titles.is_empty() { "None".into() } else { titles.join(", ") }
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<T: IntoIterator<Item = Right>>(rights: T) -> Self {
        Self(rights.into_iter().fold(0, |all, right| all | right.bit()))
    }
}

/// What a handler needs.
pub trait Needs: Send + Sync {
    /// The right; none: being signed in is enough.
    const RIGHT: Option<Right>;
    /// Who it is has to have been shown within the last five minutes.
    const FRESH: bool = false;
}

macro_rules! needs {
    ($($(#[doc = $doc:literal])* $name:ident: $right:expr, $fresh:literal;)*) => {
        $($(#[doc = $doc])* #[derive(Debug)] pub struct $name;
        impl Needs for $name { const RIGHT: Option<Right> = $right; const FRESH: bool = $fresh; })*
    };
}

needs! {
    /// To be signed in.
    SignedIn: None, false;
    /// To be signed in, shown anew.
    Myself: None, true;
    /// [`Right::View`].
    View: Some(Right::View), false;
    /// [`Right::ManageTenants`].
    ManageTenants: Some(Right::ManageTenants), false;
    /// [`Right::ManageTenants`], for what cannot be undone.
    DestroyTenants: Some(Right::ManageTenants), true;
    /// [`Right::ManagePlans`].
    ManagePlans: Some(Right::ManagePlans), false;
    /// [`Right::ManageAdmins`], to look.
    SeeAdmins: Some(Right::ManageAdmins), false;
    /// [`Right::ManageAdmins`].
    ManageAdmins: Some(Right::ManageAdmins), true;
}

/// Somebody who may do it.
#[derive(Debug)]
pub struct Allowed<N>(pub Admin, pub Shown<N>);

/// That it was checked. Made in this file alone.
#[derive(Debug)]
pub struct Shown<N>(PhantomData<N>);

impl<N: Needs> FromRequestParts<Portal> for Allowed<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Portal) -> Result<Self, Problem> {
        let is_read = parts.method == http::Method::GET || parts.method == http::Method::HEAD;
        let here =
            if is_read { parts.uri.path_and_query().map_or("/", |path| path.as_str()) } else { parts.uri.path() };
        let admin = match parts.extensions.get::<Visitor>() {
            Some(Visitor::Full(admin)) => admin.clone(),
            Some(Visitor::Half(_)) => return Err(Problem::Unfinished),
            Some(Visitor::Unknown) => return Err(Problem::CentralAway),
            Some(Visitor::Nobody) | None => return Err(Problem::SignIn(here.to_owned())),
        };
        // Nothing is done for somebody whose rights cannot be looked up, and nothing that cannot be noted.
        if admin.remembered && !is_read {
            return Err(Problem::CentralAway);
        }
        if let Some(right) = N::RIGHT
            && !admin.rights.has(right)
        {
            return Err(Problem::Forbidden(right));
        }
        if N::FRESH && !admin.is_fresh {
            return Err(Problem::ProveAgain(here.to_owned()));
        }
        Ok(Self(admin, Shown(PhantomData)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_true_is_a_right_and_nothing_is_none() {
        let rights = |value: Value| Rights::of(&value);
        assert!(rights(json!({})).is_empty());
        assert_eq!(rights(json!({})).titles(), "None");
        for none in [
            json!(null),
            json!([]),
            json!({"view": false}),
            json!({"view": "true"}),
            json!({"view": 1}),
            json!({"VIEW": true}),
            json!({"all": true}),
        ] {
            assert!(rights(none.clone()).is_empty(), "{none}");
        }
        let some = rights(json!({"manageTenants": true, "billing": false}));
        assert!(some.has(Right::ManageTenants) && some.has(Right::View));
        assert!(!some.has(Right::Billing) && !some.has(Right::ManageAdmins));
        assert_eq!(Rights::of(&Rights::all().permissions()), Rights::all());
        assert_eq!(some.permissions(), json!({"view": true, "manageTenants": true}));
    }
}
