//! What a Job says of itself, and its pods as they end.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

/// How a Job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It waits or works.
    Running,
    /// It has ended well.
    Succeeded,
    /// It has given up, for this reason.
    Failed(String),
}

/// How a Job stands, by its own conditions.
pub fn standing(job: &Job) -> Standing {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ended = conditions.filter(|condition| condition.status == "True");
    let ended = ended.find_map(|condition| match condition.type_.as_str() {
        "Complete" => Some(Standing::Succeeded),
        "Failed" => Some(Standing::Failed(condition.reason.clone().unwrap_or_default())),
        _ => None,
    });
    ended.unwrap_or(Standing::Running)
}

/// The termination messages of a pod's containers.
pub fn messages(pod: &Pod) -> impl Iterator<Item = &str> {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.message.as_deref())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_has_ended_when_a_condition_says_so_and_not_before() {
        let job = |kind: &str, status: &str| {
            let condition = json!({ "type": kind, "status": status, "reason": "DeadlineExceeded" });
            let job: Job = serde_json::from_value(json!({ "status": { "conditions": [condition] } })).unwrap();
            standing(&job)
        };
        assert_eq!(standing(&Job::default()), Standing::Running);
        assert_eq!(job("SuccessCriteriaMet", "True"), Standing::Running);
        assert_eq!(job("Failed", "False"), Standing::Running);
        assert_eq!(job("Complete", "True"), Standing::Succeeded);
        assert_eq!(job("Failed", "True"), Standing::Failed("DeadlineExceeded".into()));
    }
}
