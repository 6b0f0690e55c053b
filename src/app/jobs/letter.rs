//! Sending a mail.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::app::mail::{Letter, MailError};
use crate::app::product::Product;
use crate::error::chain;
use crate::tenancy::TenantContext;
use crate::tenancy::queue::{JobError, Task, TenantJob};

/// Sends one mail. Done twice, it arrives twice, which is better than not at all. A link in it is as good as its recipient's
/// word, so Redis has to be guarded as the sessions in it are.
#[derive(Debug, Serialize, Deserialize)]
pub struct SendLetter(pub Letter);

impl TenantJob for SendLetter {
    const NAME: &'static str = "mail.send";
    type State = Product;

    async fn run(&self, _: &TenantContext, task: &Task<Product>) -> Result<Value, JobError> {
        match task.state().mailer().send(&self.0).await {
            Ok(()) => Ok(Value::Null),
            Err(error @ (MailError::NotConfigured | MailError::Recipient(_) | MailError::Write(_))) => {
                Err(JobError::Hopeless(chain(&error)))
            }
            Err(error) => Err(JobError::Again(chain(&error))),
        }
    }
}
