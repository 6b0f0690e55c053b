//! Which Plan a tenant has: the one that its object names or, where that is not sold any more, the one that it has.
//!
//! A new tenant needs a Plan that is sold. One that is there keeps its Plan whatever becomes of it, and can change to any
//! that is sold; its other wishes are carried out all the same.

use crate::api::condition::Reason;
use crate::api::plan::PlanSpec;

use super::effect::PartPlan;
use super::facts::Facts;

/// The Plan that counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// Its name.
    pub name: String,
    /// What it says; None: there is no such Plan.
    pub spec: Option<PlanSpec>,
}

/// The Plan that counts for a Tenant that asks for `asked` and has `kept`.
pub fn effective(asked: &str, kept: Option<&str>, look: impl Fn(&str) -> Option<PlanSpec>) -> Effective {
    let spec = look(asked);
    if spec.as_ref().is_some_and(|spec| !spec.active)
        && let Some(kept) = kept.filter(|kept| *kept != asked)
        && let Some(before) = look(kept)
    {
        return Effective { name: kept.to_owned(), spec: Some(before) };
    }
    Effective { name: asked.to_owned(), spec }
}

/// What is said where the Plan that counts is not the one that is asked for.
pub fn refusal(facts: &Facts) -> Option<PartPlan> {
    let asked = &facts.tenant.spec.plan_ref.name;
    (*asked != facts.plan_name).then(|| {
        let message = format!(
            "Plan {asked} is not sold any more; the tenant keeps Plan {}, and everything else is done as asked: set spec.planRef.name to an active Plan (kubectl get plans)",
            facts.plan_name
        );
        PartPlan::blocked(Reason::PlanInactive, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_keeps_its_plan_rather_than_change_to_one_that_is_not_sold() {
        let look = |name: &str| match name {
            "sold" | "kept" => Some(PlanSpec { display_name: name.into(), active: true, ..PlanSpec::default() }),
            "old" | "older" => Some(PlanSpec { display_name: name.into(), active: false, ..PlanSpec::default() }),
            _ => None,
        };
        let name = |asked: &str, kept: Option<&str>| effective(asked, kept, look).name;
        assert_eq!(name("sold", Some("kept")), "sold");
        assert_eq!(name("old", Some("kept")), "kept");
        assert_eq!(name("old", Some("older")), "older", "whatever became of the one that it has");
        assert_eq!(name("old", Some("old")), "old");
        assert_eq!(name("old", None), "old", "a new one has none to keep");
        assert_eq!(name("old", Some("gone")), "old");
        assert_eq!(effective("gone", Some("kept"), look), Effective { name: "gone".into(), spec: None });
    }
}
