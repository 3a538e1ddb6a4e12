//! Applies the manifests of Skupper's documentation for sites without Kubernetes on two hosts.

use skupper_tests::{
    SOON,
    echo::{Server, read_to_close},
    host::{self, Host},
    wait_until,
};
use std::net::SocketAddr;

/// Collapses blanks, because columns are as wide as their content.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Applies documents at a host unchanged.
fn apply(host: &mut Host, namespace: &str, yaml: &str) {
    std::fs::write(host.dir().join("resources.yaml"), yaml).expect("a file");
    let said = host.shell(&format!(
        "skupper -n {namespace} system apply -f resources.yaml"
    ));
    assert!(said.contains("Custom resources are applied."), "{said}");
}

/// Links the second host to the first as the guides do: a Link and its Secret, copied as a file.
fn link(a: &mut Host, b: &mut Host, [from, to]: [&str; 2]) {
    a.shell(&format!(
        "skupper -n {from} site status | grep -q Ready || true\n\
         skupper -n {from} link generate > link.yaml\nscp link.yaml {to}:"
    ));
    b.shell(&format!("skupper -n {to} system apply -f link.yaml"));
    wait_until("the link", SOON, || {
        b.shell(&format!("skupper -n {to} link status"))
            .contains("Ready")
    });
}

fn says(host: &Host, addr: &str, text: &'static str) -> Server {
    let addr: SocketAddr = addr.parse().expect("an address");
    host.in_netns(move || Server::says(addr, text))
}

fn heard(host: &Host, addr: &str, text: &str) {
    let addr: SocketAddr = addr.parse().expect("an address");
    wait_until(&format!("{text} at {addr}"), SOON, || {
        host.in_netns(move || read_to_close(addr))
            .is_ok_and(|heard| heard == text)
    });
}

/// One document for each resource, with namespaces in the metadata.
#[test]
fn skuppers_hello_world_applies_unchanged() {
    let Some([mut east, mut west]) = host::pair(["east", "west"]) else {
        return;
    };
    let backend = says(&east, "127.0.0.1:8080", "hello");
    apply(
        &mut east,
        "hello-world-east",
        "apiVersion: skupper.io/v2alpha1\nkind: Site\nmetadata:\n  name: east\n  \
         namespace: hello-world-east\nspec:\n  linkAccess: default\n---\n\
         # the backend runs on this host\napiVersion: skupper.io/v2alpha1\nkind: Connector\nmetadata:\n  \
         name: backend\n  namespace: hello-world-east\nspec:\n  routingKey: backend\n  host: localhost\n  \
         port: 8080\n",
    );
    apply(
        &mut west,
        "hello-world-west",
        "apiVersion: skupper.io/v2alpha1\nkind: Site\nmetadata:\n  name: west\n  \
         namespace: hello-world-west\n---\napiVersion: skupper.io/v2alpha1\nkind: Listener\nmetadata:\n  \
         name: backend\n  namespace: hello-world-west\nspec:\n  routingKey: backend\n  host: 0.0.0.0\n  \
         port: 8080\n",
    );
    link(
        &mut east,
        &mut west,
        ["hello-world-east", "hello-world-west"],
    );
    heard(&west, "127.0.0.1:8080", "hello");
    heard(&west, "10.99.0.2:8080", "hello");
    for (host, namespace, noun) in [
        (&mut east, "hello-world-east", "connector"),
        (&mut west, "hello-world-west", "listener"),
    ] {
        let said = host.shell(&format!("skupper -n {namespace} {noun} status backend"));
        assert!(said.contains("Status: Ready"), "{said}");
    }
    drop(backend);
}

/// A public frontend, a private database and a payment processor. The manifests contain what other
/// tools leave in them: labels, annotations, cluster fields, a status, empty documents, JSON.
#[test]
fn skuppers_three_tiers_apply_unchanged() {
    let Some([mut public, mut private]) = host::pair(["public", "private"]) else {
        return;
    };
    let database = says(&private, "127.0.0.1:5432", "rows");
    let payments = says(&private, "127.0.0.1:8080", "paid");
    apply(
        &mut public,
        "public",
        "---\n# public cloud\napiVersion: skupper.io/v2alpha1\nkind: Site\nmetadata:\n  name: public\n  labels:\n    \
         app.kubernetes.io/part-of: patient-portal\n  annotations:\n    example.org/team: \"a # b\"\n  \
         creationTimestamp: null\n  resourceVersion: \"17\"\nspec:\n  linkAccess: default\n  \
         settings: {routerLogging: info}\nstatus:\n  status: Ready\n  message: OK\n  conditions: []\n---\n---\n\
         apiVersion: skupper.io/v2alpha1\nkind: Listener\nmetadata:\n  name: database\nspec:\n  \
         routingKey: database\n  host: 127.0.0.1\n  port: 5432\n  type: tcp\nstatus: {}\n---\n\
         {\"apiVersion\": \"skupper.io/v2alpha1\", \"kind\": \"Listener\", \"metadata\": {\"name\": \"payment-processor\"},\n \
         \"spec\": {\"routingKey\": \"payment-processor\", \"host\": \"127.0.0.1\", \"port\": 8080, \"observer\": \"none\"}}\n",
    );
    apply(
        &mut private,
        "private",
        "apiVersion: skupper.io/v2alpha1\nkind: Site\nmetadata: {name: private}\nspec: {}\n---\n\
         apiVersion: skupper.io/v2alpha1\nkind: Connector\nmetadata:\n  name: database\nspec:\n  \
         routingKey: database\n  host: 127.0.0.1\n  port: 5432\n  type: tcp\n  useClientCert: false\n...\n---\n\
         apiVersion: skupper.io/v2alpha1\nkind: Connector\nmetadata:\n  name: payment-processor\n  \
         generation: 2\nspec:\n  routingKey: payment-processor\n  host: localhost\n  port: 8080\n  \
         includeNotReadyPods: false\n  exposePodsByName: false\n",
    );
    link(&mut public, &mut private, ["public", "private"]);
    heard(&public, "127.0.0.1:5432", "rows");
    heard(&public, "127.0.0.1:8080", "paid");
    let said = public.shell("skupper -n public network status");
    assert!(plain(&said).contains("private private linux"), "{said}");
    drop((database, payments));
}
