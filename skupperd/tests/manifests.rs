//! Malformed resources of every kind: the error names file, line, field and reason.

use skupperd::manifest::{check_set, parse};
use std::path::Path;

const SKUPPER: &str = "apiVersion: skupper.io/v2alpha1\n";

/// Errors of a manifest, one a line.
fn errors(text: &str) -> String {
    let mut good = Vec::new();
    let mut lines = Vec::new();
    for document in parse(Path::new("f.yaml"), text, "default") {
        match document {
            Ok(located) => good.push(located),
            Err(error) => lines.push(error.to_string()),
        }
    }
    let (_, conflicts) = check_set(good);
    lines.extend(conflicts.iter().map(ToString::to_string));
    if lines.is_empty() {
        lines.push("no error".to_owned());
    }
    lines.join("\n")
}

fn resource(kind: &str, spec: &str) -> String {
    format!("{SKUPPER}kind: {kind}\nmetadata:\n  name: x\nspec:\n{spec}")
}

/// What is wrong, and the manifest.
fn cases() -> Vec<(&'static str, String)> {
    let listener = "  routingKey: k\n  host: 127.0.0.1\n  port: 8080\n";
    let with = |field: &str, value: &str| {
        let lines = listener.lines().map(|line| {
            if line.trim_start().starts_with(field) {
                format!("  {field}: {value}\n")
            } else {
                format!("{line}\n")
            }
        });
        resource("Listener", &lines.collect::<String>())
    };
    let connector = |more: &str| resource("Connector", &format!("{listener}{more}"));
    let secret =
        |data: &str| format!("apiVersion: v1\nkind: Secret\nmetadata:\n  name: x\ndata:\n{data}");
    let link = |endpoint: &str, more: &str| {
        resource(
            "Link",
            &format!("  endpoints:\n{endpoint}  tlsCredentials: s\n{more}"),
        )
    };
    let endpoint = "    - name: inter-router\n      host: h\n      port: \"55671\"\n";
    vec![
        ("not YAML", "a: [".into()),
        ("a tab", "a:\n\tb: 1\n".into()),
        ("not a mapping", "- 1\n- 2\n".into()),
        ("no kind", format!("{SKUPPER}metadata:\n  name: x\n")),
        ("unknown kind", resource("Listner", listener)),
        ("wrong apiVersion", resource("Site", "  {}\n").replace("v2alpha1", "v1")),
        ("no metadata", format!("{SKUPPER}kind: Site\nspec: {{}}\n")),
        ("no name", format!("{SKUPPER}kind: Site\nmetadata: {{}}\nspec: {{}}\n")),
        ("upper-case name", resource("Site", "  {}\n").replace("name: x", "name: X")),
        ("name with underscore", resource("Site", "  {}\n").replace("name: x", "name: a_b")),
        ("long name", resource("Site", "  {}\n").replace("name: x", &format!("name: {}", "a".repeat(254)))),
        ("other namespace", resource("Site", "  {}\n").replace("name: x", "name: x\n  namespace: y")),
        ("unknown top field", format!("{}extra: 1\n", resource("Site", "  {}\n"))),
        ("unknown metadata field", resource("Site", "  {}\n").replace("name: x", "name: x\n  nmae: y")),
        ("site: unknown field", resource("Site", "  linkAcess: default\n")),
        ("site: wrong type", resource("Site", "  edge: maybe\n")),
        ("site: edge with ha", resource("Site", "  edge: true\n  ha: true\n")),
        ("site: edge with access", resource("Site", "  edge: true\n  linkAccess: default\n")),
        ("site: settings not text", resource("Site", "  settings:\n    a: [1]\n")),
        ("listener: no spec", format!("{SKUPPER}kind: Listener\nmetadata:\n  name: x\n")),
        ("listener: port 0", with("port", "0")),
        ("listener: port 65536", with("port", "65536")),
        ("listener: negative port", with("port", "-1")),
        ("listener: port as text", with("port", "\"80\"")),
        ("listener: port with fraction", with("port", "80.5")),
        ("listener: no port", resource("Listener", "  routingKey: k\n  host: h\n")),
        ("listener: no host", resource("Listener", "  routingKey: k\n  port: 1\n")),
        ("listener: empty host", with("host", "\"\"")),
        ("listener: upper-case host", with("host", "Example.com")),
        ("listener: malformed address", with("host", "1.2.3.4.5")),
        ("listener: no routing key", resource("Listener", "  host: h\n  port: 1\n")),
        ("listener: malformed routing key", with("routingKey", "\"a b\"")),
        ("listener: udp", resource("Listener", &format!("{listener}  type: udp\n"))),
        ("listener: unknown observer", resource("Listener", &format!("{listener}  observer: smtp\n"))),
        ("listener: unknown field", resource("Listener", &format!("{listener}  prot: 1\n"))),
        ("connector: selector", connector("  selector: app=x\n")),
        ("connector: port 70000", connector("").replace("8080", "70000")),
        ("connector: flag as text", connector("  useClientCert: \"yes\"\n")),
        ("connector: no host", resource("Connector", "  routingKey: k\n  port: 1\n")),
        ("link: no endpoints", resource("Link", "  tlsCredentials: s\n")),
        ("link: empty endpoints", resource("Link", "  endpoints: []\n  tlsCredentials: s\n")),
        ("link: unknown role", link(&endpoint.replace("inter-router", "normal"), "")),
        ("link: port of endpoint", link(&endpoint.replace("55671", "0"), "")),
        ("link: second endpoint", link(&format!("{endpoint}    - name: edge\n      host: h\n"), "")),
        ("link: no credentials", resource("Link", &format!("  endpoints:\n{endpoint}"))),
        ("link: huge cost", link(endpoint, "  cost: 99999999999\n")),
        ("access: no roles", resource("RouterAccess", "  tlsCredentials: s\n")),
        ("access: empty roles", resource("RouterAccess", "  roles: []\n")),
        ("access: unknown role", resource("RouterAccess", "  roles:\n    - name: edge\n    - name: foo\n")),
        ("access: same role twice", resource("RouterAccess", "  roles:\n    - name: edge\n    - name: edge\n      port: 5\n")),
        ("access: port", resource("RouterAccess", "  roles:\n    - name: edge\n      port: 65536\n")),
        ("access: alternative name", resource("RouterAccess", "  roles:\n    - name: edge\n  subjectAlternativeNames:\n    - ok.example\n    - not_ok\n")),
        ("secret: not base64", secret("  tls.crt: \"%%\"\n")),
        ("secret: not PEM", secret("  tls.crt: aGVsbG8=\n")),
        ("secret: unknown field", format!("{}extra: 1\n", secret("  tls.crt: \"\"\n"))),
        ("second site", format!("{}---\n{}", resource("Site", "  {}\n"), resource("Site", "  {}\n").replace("name: x", "name: y"))),
        ("same name twice", format!("{}---\n{}", with("port", "1"), with("port", "2"))),
        ("same address twice", format!("{}---\n{}", with("port", "1"), with("port", "1").replace("name: x", "name: y"))),
        ("wildcard overlap", format!("{}---\n{}", with("port", "1"), with("host", "0.0.0.0").replace("8080", "1").replace("name: x", "name: y"))),
        ("JSON: wrong type", r#"{"apiVersion": "skupper.io/v2alpha1", "kind": "Listener", "metadata": {"name": "x"}, "spec": {"routingKey": "k", "host": "h", "port": "x"}}"#.into()),
        ("JSON: cut short", r#"{"apiVersion": "skupper.io/v2alpha1", "kind""#.into()),
    ]
}

#[test]
fn malformed_resources() {
    let cases = cases();
    assert!(cases.len() >= 40);
    let mut text = String::new();
    for (what, manifest) in cases {
        let found = errors(&manifest);
        assert_ne!(found, "no error", "{what}:\n{manifest}");
        text.push_str(&format!("{what}\n    {}\n", found.replace('\n', "\n    ")));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn lines_are_exact() {
    let manifest = format!(
        "# a comment\n\n{}---\n{}",
        resource("Site", "  {}\n"),
        resource(
            "Listener",
            "  routingKey: k\n  host: 127.0.0.1\n  port: 0\n"
        ),
    );
    let line = manifest
        .lines()
        .position(|l| l.trim() == "port: 0")
        .expect("the port")
        + 1;
    assert!(errors(&manifest).starts_with(&format!("f.yaml:{line}: Listener x: spec.port: ")));
}

#[test]
fn good_documents_beside_bad_ones_go_on() {
    let manifest = format!(
        "{}---\nkind: [\n---\n{}",
        resource("Site", "  {}\n"),
        resource(
            "Listener",
            "  routingKey: k\n  host: 127.0.0.1\n  port: 1\n"
        ),
    );
    let parsed = parse(Path::new("f.yaml"), &manifest, "default");
    let good: Vec<String> = parsed
        .iter()
        .filter_map(|d| Some(d.as_ref().ok()?.key().to_string()))
        .collect();
    assert_eq!(good, ["Site x", "Listener x"]);
    assert_eq!(parsed.len(), 3);
}

#[test]
fn what_kubernetes_writes_is_accepted() {
    let manifest = "apiVersion: skupper.io/v2alpha1\nkind: Link\nmetadata:\n  creationTimestamp: null\n  \
                    name: l\n  uid: 1-2\n  resourceVersion: \"5\"\n  labels: {a: b}\nspec:\n  endpoints:\n  \
                    - {name: inter-router, host: h, port: \"1\", group: g}\n  tlsCredentials: s\nstatus: {}\n";
    assert_eq!(errors(manifest), "no error");
    let json = r#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "type": "kubernetes.io/tls", "data": {"connect.json": "e30="}}"#;
    assert_eq!(errors(json), "no error");
}

#[test]
fn bombs_are_bounded() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for n in 1..20 {
        let items = vec![format!("*a{}", n - 1); 9].join(", ");
        bomb.push_str(&format!("a{n}: &a{n} [{items}]\n"));
    }
    let begin = std::time::Instant::now();
    assert_ne!(errors(&bomb), "no error");
    assert_ne!(errors(&"[".repeat(100_000)), "no error");
    assert!(begin.elapsed().as_secs() < 5, "{:?}", begin.elapsed());
}
