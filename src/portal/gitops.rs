//! Whose object it is. What Git says is changed in Git: a change made here would be undone at the next sync, or undo what
//! somebody commits. Pure.

use std::collections::BTreeMap;

use kube::ResourceExt;
use serde_json::{Value, json};

/// Whoever writes an object from Git.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The tool.
    pub tool: &'static str,
    /// Where it says so.
    pub by: String,
}

/// Field managers by the beginning of their names.
const MANAGERS: [(&str, &str); 8] = [
    ("argocd", "Argo CD"),
    ("kustomize-controller", "Flux"),
    ("helm-controller", "Flux"),
    ("flux", "Flux"),
    ("helm", "Helm"),
    ("fleet", "Fleet"),
    ("gitlab-agent", "GitLab"),
    ("configsync", "Config Sync"),
];

/// Labels and annotations by their keys.
const MARKS: [(&str, &str); 8] = [
    ("argocd.argoproj.io/instance", "Argo CD"),
    ("argocd.argoproj.io/tracking-id", "Argo CD"),
    ("kustomize.toolkit.fluxcd.io/name", "Flux"),
    ("helm.toolkit.fluxcd.io/name", "Flux"),
    ("meta.helm.sh/release-name", "Helm"),
    ("objectset.rio.cattle.io/id", "Fleet"),
    ("configmanagement.gke.io/managed", "Config Sync"),
    ("config.k8s.io/owning-inventory", "kpt"),
];

/// Who writes the object from Git; none: nobody does.
pub fn owner<K: ResourceExt>(object: &K) -> Option<Owner> {
    for field in object.managed_fields() {
        // A status is not what Git says.
        if field.subresource.as_deref().is_some_and(|subresource| !subresource.is_empty()) {
            continue;
        }
        let owns_spec = field.fields_v1.as_ref().is_some_and(|fields| fields.0.get("f:spec").is_some());
        let manager = field.manager.as_deref().unwrap_or_default();
        let tool = MANAGERS.iter().find(|(prefix, _)| manager.to_lowercase().starts_with(prefix));
        if let (true, Some((_, tool))) = (owns_spec, tool) {
            return Some(Owner { tool, by: format!("field manager {manager}") });
        }
    }
    let marked = |texts: &BTreeMap<String, String>, what: &str| {
        let mark = MARKS.iter().find(|(key, _)| texts.contains_key(*key));
        mark.map(|(key, tool)| Owner { tool, by: format!("{what} {key}") })
    };
    let helm = object.labels().get("app.kubernetes.io/managed-by").is_some_and(|value| value == "Helm");
    marked(object.annotations(), "annotation")
        .or_else(|| marked(object.labels(), "label"))
        .or_else(|| helm.then(|| Owner { tool: "Helm", by: "label app.kubernetes.io/managed-by".into() }))
}

/// What has to be committed instead of `patch`, as YAML.
pub fn commit(kind: &str, namespace: Option<&str>, name: &str, patch: &Value) -> String {
    let mut metadata = json!({ "name": name });
    if let Some(namespace) = namespace {
        metadata["namespace"] = namespace.into();
    }
    let head = json!({ "apiVersion": format!("{}/{}", crate::api::GROUP, crate::api::VERSION), "kind": kind, "metadata": metadata });
    yaml(&head) + &yaml(patch)
}

/// As YAML; an object that cannot be written is shown as JSON.
pub fn yaml<T: serde::Serialize>(value: &T) -> String {
    serde_saphyr::to_string(value).unwrap_or_else(|_| serde_json::to_string_pretty(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Tenant;

    fn tenant(metadata: Value) -> Tenant {
        let mut metadata = metadata;
        metadata["name"] = "acme".into();
        serde_json::from_value(json!({
            "apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "Tenant", "metadata": metadata,
            "spec": {"displayName": "Acme", "planRef": {"name": "pro"}}
        }))
        .unwrap()
    }

    fn managed(manager: &str, subresource: &str, fields: &Value) -> Tenant {
        tenant(json!({"managedFields": [{"manager": manager, "operation": "Apply", "subresource": subresource,
            "apiVersion": "tenancy.maintenance-os.com/v1alpha1", "fieldsType": "FieldsV1", "fieldsV1": fields}]}))
    }

    #[test]
    fn who_writes_an_object_from_git_is_known_by_its_fields_labels_and_annotations() {
        let spec = json!({"f:spec": {"f:state": {}}});
        for (object, expected) in [
            (managed("argocd-controller", "", &spec), Some("Argo CD")),
            (managed("kustomize-controller", "", &spec), Some("Flux")),
            (managed("helm", "", &spec), Some("Helm")),
            (managed("kubectl-client-side-apply", "", &spec), None),
            (managed("maintenance-os-portal", "", &spec), None),
            (managed("argocd-controller", "", &json!({"f:metadata": {}})), None),
            (managed("argocd-controller", "status", &spec), None),
            (tenant(json!({"labels": {"kustomize.toolkit.fluxcd.io/name": "customers"}})), Some("Flux")),
            (tenant(json!({"annotations": {"argocd.argoproj.io/tracking-id": "x:y"}})), Some("Argo CD")),
            (tenant(json!({"labels": {"app.kubernetes.io/managed-by": "Helm"}})), Some("Helm")),
            (tenant(json!({"labels": {"app.kubernetes.io/managed-by": "somebody"}})), None),
            (tenant(json!({})), None),
        ] {
            assert_eq!(owner(&object).map(|owner| owner.tool), expected, "{:?}", object.metadata);
        }
    }

    #[test]
    fn what_has_to_be_committed_is_a_document_that_kubernetes_knows() {
        let text = commit("Tenant", Some("customers"), "acme", &json!({"spec": {"state": "Suspended"}}));
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read["metadata"]["namespace"], "customers");
        assert_eq!(read["kind"], "Tenant");
        assert_eq!(read["spec"]["state"], "Suspended");
    }
}
