//! The edge of the demo: Traefik, and the name server of the customers' domains.

use std::path::PathBuf;
use std::process::Stdio;

use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use maintenance_os::desired::edge;
use serde_json::json;
use tokio::process::Command;

use crate::wait::within;
use crate::world::{OPERATOR, World};

/// Node and port of Traefik's HTTPS.
const HTTPS: (&str, u16) = ("10.97.0.1", 30443);

fn demo() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("demo")
}

/// Folder of the demo's certificate authority.
fn authority() -> PathBuf {
    let cache = std::env::var("MOS_CACHE").unwrap_or_else(|_| format!("{}/.cache/maintenance-os", env!("HOME")));
    PathBuf::from(cache).join("cluster/demo/tls")
}

async fn run(command: &mut Command) -> String {
    let output =
        command.stdin(Stdio::null()).output().await.unwrap_or_else(|error| panic!("running {command:?}: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs `e2e/demo/dns.sh`.
pub async fn dns(arguments: &[&str]) {
    run(Command::new(demo().join("dns.sh")).args(arguments)).await;
}

/// Status and body of what the app itself answers at a host.
pub async fn app(world: &World, host: &str) -> (u16, String) {
    let response = world.http.get(format!("{}/api/tenant", world.entry)).header("host", host).send().await;
    let response = response.unwrap_or_else(|error| panic!("asking {host}: {error}"));
    (response.status().as_u16(), response.text().await.unwrap_or_default())
}

/// Waits until a host answers over TLS at the edge, with a certificate of its own from the demo's authority.
pub async fn serves(host: &str, words: &str) {
    serves_page(host, "/api/tenant", words).await;
}

/// As [`serves`], of another page than the tenant's own word.
pub async fn serves_page(host: &str, path: &str, words: &str) {
    let (node, port) = HTTPS;
    let authority = authority().join("ca.crt");
    within(60, &format!("https://{host} says {words}"), async || {
        let output = Command::new("curl")
            .args(["-sS", "-m", "5", "--resolve", &format!("{host}:{port}:{node}"), "--cacert"])
            .arg(&authority)
            .arg(format!("https://{host}:{port}{path}"))
            .output()
            .await
            .map_err(|error| error.to_string())?;
        let (body, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if body.contains(words) { Ok(()) } else { Err(format!("{body} {error}")) }
    })
    .await;
}

/// Brings a host's certificate, as cert-manager would.
pub async fn certificate(world: &World, host: &str) {
    let directory = authority();
    let work = directory.join(edge::name(host));
    let text = |path: &PathBuf| {
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
    };
    let (key, request, signed) = (work.with_extension("key"), work.with_extension("csr"), work.with_extension("crt"));
    run(Command::new("openssl")
        .args([
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=customer",
            "-addext",
            &format!("subjectAltName=DNS:{host}"),
        ])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&request))
    .await;
    run(Command::new("openssl")
        .args(["x509", "-req", "-days", "2", "-copy_extensions", "copy", "-CAcreateserial"])
        .arg("-in")
        .arg(&request)
        .arg("-CA")
        .arg(directory.join("ca.crt"))
        .arg("-CAkey")
        .arg(directory.join("ca.key"))
        .arg("-out")
        .arg(&signed))
    .await;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": { "name": edge::certificate(host) },
        "stringData": { "tls.crt": text(&signed), "tls.key": text(&key) },
    });
    let apply = PatchParams::apply("e2e").force();
    let applied = world.secrets(OPERATOR).patch(&edge::certificate(host), &apply, &Patch::Apply(secret)).await;
    applied.unwrap_or_else(|error| panic!("writing the certificate of {host}: {error}"));
}

/// Kinds of what there is of a host at the edge.
pub async fn objects(world: &World, host: &str) -> Vec<&'static str> {
    let gateway_api = |kind: &str, plural: &str| {
        let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", kind);
        ApiResource::from_gvk_with_plural(&kind, plural)
    };
    let name = edge::name(host);
    let ingresses: Api<Ingress> = Api::namespaced(world.client.clone(), OPERATOR);
    let routes: Api<DynamicObject> =
        Api::namespaced_with(world.client.clone(), OPERATOR, &gateway_api("HTTPRoute", "httproutes"));
    let gateways: Api<DynamicObject> =
        Api::namespaced_with(world.client.clone(), OPERATOR, &gateway_api("Gateway", "gateways"));
    let gateway = gateways.get("maintenance-os").await.expect("the Gateway is there");
    let listeners = gateway.data["spec"]["listeners"].as_array().cloned().unwrap_or_default();
    let found = [
        ("Ingress", ingresses.get_opt(&name).await.expect("reading an Ingress").is_some()),
        ("HTTPRoute", routes.get_opt(&name).await.expect("reading an HTTPRoute").is_some()),
        ("listener", listeners.iter().any(|listener| listener["name"] == name.as_str())),
    ];
    found.into_iter().filter(|(_, there)| *there).map(|(kind, _)| kind).collect()
}

/// What the demo's edge is made of.
pub const DEMO: &str = "gateway";

impl World {
    /// What the operator is told to make the edge of.
    pub async fn edge_mode(&self) -> Option<String> {
        let deployment = self.operator().get("maintenance-os-operator").await.expect("the operator is installed");
        let containers = deployment.spec.template.spec.map(|pod| pod.containers).unwrap_or_default();
        let variables = containers.into_iter().flat_map(|container| container.env.unwrap_or_default());
        variables.into_iter().find(|variable| variable.name == "MOS_EDGE_MODE")?.value
    }

    /// Has the operator make the edge of something else.
    pub async fn set_edge_mode(&self, mode: &str) {
        let container = json!({ "name": "operator", "env": [{ "name": "MOS_EDGE_MODE", "value": mode }] });
        let patch = json!({ "spec": { "template": { "spec": { "containers": [container] } } } });
        let (before, _) = self.leader().await;
        let patched =
            self.operator().patch("maintenance-os-operator", &PatchParams::default(), &Patch::Strategic(patch)).await;
        patched.unwrap_or_else(|error| panic!("setting the mode of the edge: {error}"));
        self.another_leads(90, &before).await;
    }
}
