//! What pages promise, done on two hosts: the tutorial as it is written, and manifests in the form that
//! upstream's documentation gives them for sites without Kubernetes.

use skupper_tests::{
    SOON,
    echo::{Server, hear},
    host::{self, Host},
    wait_until,
};
use std::net::SocketAddr;

/// Words apart by one blank: tables are as wide as what is in them.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_tutorial_works_as_it_is_written() {
    let Some([mut east, mut west]) = host::pair(["east", "west"]) else {
        return;
    };
    let (mut said, mut run) = (String::new(), 0);
    for (info, text) in host::blocks("docs/tutorial.md") {
        match info.as_str() {
            "sh east" => said = east.shell(&text),
            "sh west" => said = west.shell(&text),
            "text" => {
                for line in text.lines() {
                    assert!(
                        plain(&said).contains(&plain(line)),
                        "{line:?} is not in:\n{said}"
                    );
                }
            }
            _ => continue,
        }
        run += 1;
    }
    assert!(run > 20, "{run} blocks");
    for host in [&east, &west] {
        assert!(!host.site.input().exists(), "{} is left", host.name);
    }
}

/// Applies documents at a host, as they are.
fn apply(host: &mut Host, namespace: &str, yaml: &str) {
    std::fs::write(host.dir().join("resources.yaml"), yaml).expect("a file");
    let said = host.shell(&format!(
        "skupper -n {namespace} system apply -f resources.yaml"
    ));
    assert!(said.contains("Custom resources are applied."), "{said}");
}

/// Links the second to the first, as the guides do it: a Link and its Secret, brought over as a file.
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
    host.inside(move || Server::says(addr, text))
}

fn heard(host: &Host, addr: &str, text: &str) {
    let addr: SocketAddr = addr.parse().expect("an address");
    wait_until(&format!("{text} at {addr}"), SOON, || {
        host.inside(move || hear(addr))
            .is_ok_and(|heard| heard == text)
    });
}

/// One document each for a site and what is at it, with namespaces in the metadata.
#[test]
fn the_hello_world_of_upstreams_form_applies_unchanged_and_works() {
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

/// A frontend in public, a database and a payment processor in private, with all that tools leave in
/// manifests: labels, annotations, what a cluster writes, a status, empty documents, JSON.
#[test]
fn the_three_tiers_of_upstreams_form_apply_unchanged_and_work() {
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
