//! Making what is due, also for tenants that nobody looks at.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::job_error;
use crate::app::plant;
use crate::app::product::Product;
use crate::tenancy::TenantContext;
use crate::tenancy::queue::daily::DailyJob;
use crate::tenancy::queue::{JobError, Task, TenantJob};

/// Makes a tenant's executions that are due soon; done twice, each is made once. What is due depends on the day alone, and
/// pages that show work ask too, so once a day is enough.
#[derive(Debug, Serialize, Deserialize)]
pub struct PlanRoutines {
    /// In UTC.
    pub day: Date,
}

impl TenantJob for PlanRoutines {
    const NAME: &'static str = "routines.plan";
    type State = Product;

    fn unique_key(&self) -> Option<String> {
        Some(self.day.to_string())
    }

    async fn run(&self, tenant: &TenantContext, _: &Task<Product>) -> Result<Value, JobError> {
        let planned = plant::plan_due(tenant).await.map_err(|problem| job_error(&problem))?;
        Ok(serde_json::json!({ "planned": planned }))
    }
}

impl DailyJob for PlanRoutines {
    fn of(day: Date) -> Self {
        Self { day }
    }
}
