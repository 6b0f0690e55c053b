//! A table of rules against one kind: for each an object that is accepted and one that is refused, differing in one value.
//!
//! The table is complete: every rule that the definition holds must have its line.

use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::support::{definition, refusal, until};

/// One rule.
pub struct Line {
    /// Where the value stands, as `spec.domains[].host`.
    pub at: &'static str,
    /// Its keyword in the schema; `rule` for CEL.
    pub kind: &'static str,
    /// A value that is accepted; null leaves the field out.
    pub accepted: Value,
    /// A value that is refused.
    pub refused: Value,
    /// Words of the refusal.
    pub says: &'static str,
    /// Merged into both objects, for rules that look at two fields.
    pub beside: Value,
}

pub fn line(at: &'static str, kind: &'static str, accepted: Value, refused: Value, says: &'static str) -> Line {
    Line { at, kind, accepted, refused, says, beside: json!({}) }
}

impl Line {
    pub fn beside(mut self, beside: Value) -> Self {
        self.beside = beside;
        self
    }
}

/// The two lines of a whole number's range.
pub fn range(at: &'static str, least: i64, most: i64) -> [Line; 2] {
    [
        line(at, "minimum", json!(least), json!(least - 1), "should be greater than or equal to"),
        line(at, "maximum", json!(most), json!(most + 1), "should be less than or equal to"),
    ]
}

/// What each line needs of the kind.
pub struct Kind {
    pub plural: &'static str,
    pub smallest: Value,
}

impl Kind {
    pub fn api(&self, client: &Client, namespace: Option<&str>) -> Api<DynamicObject> {
        let definition = definition(self.plural);
        let resource = ApiResource {
            group: definition.spec.group.clone(),
            version: "v1alpha1".into(),
            api_version: format!("{}/v1alpha1", definition.spec.group),
            kind: definition.spec.names.kind.clone(),
            plural: definition.spec.names.plural.clone(),
        };
        match namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        }
    }

    /// The smallest object with one value set.
    fn with(&self, line: &Line, value: &Value) -> Value {
        let mut object = self.smallest.clone();
        merge(&mut object, &line.beside);
        set(&mut object, line.at, value);
        object
    }

    /// Creates, without keeping it, the accepted and the refused object of every line.
    pub async fn creations(&self, client: &Client, namespace: Option<&str>, lines: &[Line]) {
        let api = self.api(client, namespace);
        let create = async |object: Value| {
            let object = serde_json::from_value(object).unwrap();
            api.create(&PostParams { dry_run: true, field_manager: None }, &object).await.map(drop)
        };
        for line in lines {
            expect(
                line,
                async || create(self.with(line, &line.accepted)).await,
                async || create(self.with(line, &line.refused)).await,
            )
            .await;
        }
    }

    /// Changes objects that have the `accepted` value: to the same again, and to the `refused` one.
    pub async fn changes(&self, client: &Client, namespace: Option<&str>, lines: &[Line]) {
        let api = self.api(client, namespace);
        for (number, line) in lines.iter().enumerate() {
            let mut object = self.with(line, &line.accepted);
            // An object of the whole cluster may be there from an earlier run.
            let name = format!("changed-{number}-{}", std::process::id());
            object["metadata"]["name"] = json!(name);
            api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
            let patch = async |value: &Value| {
                let mut after = self.smallest.clone();
                set(&mut after, line.at, value);
                let patch = json!([{"op": "replace", "path": "/spec", "value": after["spec"]}]);
                let patch: Patch<()> = Patch::Json(serde_json::from_value(patch).unwrap());
                let dry = PatchParams { dry_run: true, ..PatchParams::default() };
                api.patch(&name, &dry, &patch).await.map(drop)
            };
            expect(line, async || patch(&line.accepted).await, async || patch(&line.refused).await).await;
        }
    }
}

async fn expect(
    line: &Line,
    mut accepted: impl AsyncFnMut() -> Result<(), kube::Error>,
    mut refused: impl AsyncFnMut() -> Result<(), kube::Error>,
) {
    let rule = format!("{} {}", line.at, line.kind);
    // A definition that was just changed is served a moment later.
    until(&format!("{rule}: {} is accepted", line.accepted), async || accepted().await.map_err(refusal)).await;
    until(&format!("{rule}: {} is refused with the words {:?}", line.refused, line.says), async || {
        let message = refused().await.map_or_else(refusal, |()| "it was accepted".to_owned());
        if message.contains(line.says) { Ok(()) } else { Err(message) }
    })
    .await;
}

/// Sets what stands at the path, and makes what leads there; null takes it out.
fn set(object: &mut Value, path: &str, value: &Value) {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    if rest.is_none() && value.is_null() {
        object.as_object_mut().map(|object| object.remove(first));
        return;
    }
    let is_list = first.ends_with("[]");
    let mut place = &mut object[first.trim_end_matches("[]")];
    if is_list {
        *place = json!([{}]);
        place = &mut place[0];
    } else if place.is_null() {
        *place = json!({});
    }
    match rest {
        Some(rest) => set(place, rest, value),
        None => *place = value.clone(),
    }
}

fn merge(object: &mut Value, patch: &Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(object.entry(key).or_insert(Value::Null), value);
            }
        }
        (object, patch) => *object = patch.clone(),
    }
}

/// Fails when the definition holds a rule on `spec` or the name that no line is about.
pub fn assert_complete(plural: &str, lines: &[&[Line]]) {
    let schema = serde_json::to_value(&definition(plural).spec.versions[0].schema).unwrap();
    let mut rules = Vec::new();
    collect(&schema["openAPIV3Schema"], "", &mut rules);
    assert!(rules.len() > 5, "the definition was not understood: {rules:?}");
    let lines: Vec<&Line> = lines.iter().copied().flatten().collect();
    for (at, kind, message) in rules {
        let covered = lines.iter().any(|line| match message {
            Some(message) => line.kind == "rule" && message.contains(line.says),
            None => line.at == at && line.kind == kind,
        });
        assert!(covered, "no line tests the rule {kind} of {at} {}", message.unwrap_or_default());
    }
}

fn collect<'a>(schema: &'a Value, at: &str, rules: &mut Vec<(String, &'static str, Option<&'a str>)>) {
    const KEYWORDS: [&str; 7] = ["pattern", "minLength", "maxLength", "minimum", "maximum", "enum", "maxItems"];
    for kind in KEYWORDS.into_iter().filter(|kind| !schema[kind].is_null()) {
        rules.push((at.to_owned(), kind, None));
    }
    if matches!(schema["x-kubernetes-list-type"].as_str(), Some("map" | "set")) {
        rules.push((at.to_owned(), "unique", None));
    }
    if schema["format"] == "date-time" {
        rules.push((at.to_owned(), "format", None));
    }
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        rules.push((at.to_owned(), "rule", rule["message"].as_str()));
    }
    let dot = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        rules.push((dot(name), "required", None));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        // The status is written by the operator alone.
        if !(at.is_empty() && name == "status") {
            collect(property, &dot(name), rules);
        }
    }
    if schema["items"].is_object() {
        collect(&schema["items"], &format!("{at}[]"), rules);
    }
}
