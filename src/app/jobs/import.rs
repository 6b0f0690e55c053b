//! Storing what a checked file says.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::postgres::PgConnection;

use super::job_error;
use crate::app::accounts::{self, Role};
use crate::app::files;
use crate::app::problem::Problem;
use crate::app::product::Product;
use crate::tenancy::TenantContext;
use crate::tenancy::queue::{JobError, Task, TenantJob};

/// Applies one import. Done twice, the second time finds it applied and does nothing.
#[derive(Debug, Serialize, Deserialize)]
pub struct ApplyImport {
    /// `imports.id`
    pub import: i64,
    /// Who pressed the button: `users.id`
    pub user: i64,
}

impl TenantJob for ApplyImport {
    const NAME: &'static str = "import.apply";
    type State = Product;

    fn unique_key(&self) -> Option<String> {
        Some(self.import.to_string())
    }

    async fn run(&self, tenant: &TenantContext, _: &Task<Product>) -> Result<Value, JobError> {
        let applied = async {
            // They may have lost the right since, or the account.
            let find = async |db: &mut PgConnection| Ok::<_, Problem>(accounts::active(db, self.user).await?);
            let user = tenant.database().run(find).await?.ok_or(Problem::Forbidden(Role::Manager))?;
            user.require(Role::Manager)?;
            files::apply_import(tenant, &user, self.import).await
        };
        match applied.await {
            Ok(Some(outcome)) => Ok(serde_json::json!({ "new": outcome.new, "changed": outcome.changed })),
            Ok(None) => Ok(Value::Null),
            Err(problem) => Err(job_error(&problem)),
        }
    }
}
