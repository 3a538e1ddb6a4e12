//! The tree of commands: each answers, each flag gets where it belongs, shells complete it, and people
//! at a terminal see it in another form than programs.

use serde_json::{Value, json};
use skupper_tests::{
    SOON, contract, free_addr, free_port, program,
    site::{Site, service},
    wait_until,
};
use skupperd::model::Kind;
use std::{
    fs,
    io::Read,
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;

/// A directory without a daemon.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(program("skupper"));
        command.env_remove("SKUPPER_PLATFORM").stdin(Stdio::null());
        command.arg("--root").arg(self.0.path());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command().args(args).output().expect("skupper runs")
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "skupper {args:?}: {errors}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn json(&self, args: &[&str]) -> Value {
        let text = self.ok(&[args, &["-o", "json"]].concat());
        serde_json::from_str(&text).expect("JSON")
    }

    fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let errors = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
        errors
    }

    fn input(&self) -> Vec<String> {
        let dir = self.0.path().join("namespaces/default/input/resources");
        let entries = fs::read_dir(dir).into_iter().flatten();
        let name = |e: std::io::Result<fs::DirEntry>| e.expect("an entry").file_name();
        let mut names: Vec<_> = entries
            .map(|e| name(e).into_string().expect("text"))
            .collect();
        names.sort();
        names
    }
}

#[test]
fn c1_every_command_answers_help_and_says_what_it_is_for() {
    let files = Files::new();
    let tree = contract::tree();
    let all = contract::commands(&tree);
    assert!(all.len() > 60, "{}", all.len());
    for (path, command) in all {
        assert!(command.get_about().is_some(), "{path} says nothing");
        for arg in contract::arguments(command, false) {
            assert!(
                arg.get_help().is_some(),
                "{path} {} says nothing",
                arg.get_id()
            );
        }
        let words: Vec<&str> = path.split(' ').chain(["--help"]).collect();
        let help = files.ok(&words);
        assert!(help.contains("Usage: skupper"), "{path}: {help}");
    }
}

#[test]
fn c1_global_flags_stand_anywhere_and_both_spellings_of_nouns_are_known() {
    let files = Files::new();
    files.ok(&["-n", "east", "site", "create", "east"]);
    let dir = files.0.path().join("namespaces/east/input/resources");
    assert!(dir.join("Site-east.yaml").exists());
    assert!(files.ok(&["site", "status", "-n", "east"]).contains("east"));
    files.ok(&["site", "status", "--namespace=east", "--platform", "linux"]);
    for noun in [
        "routeraccess",
        "accessgrant",
        "multi-key-listener",
        "attachedconnector",
        "attachedconnectorbinding",
    ] {
        files.ok(&[noun, "status"]);
    }
}

#[test]
fn c21_version_and_manifest_say_what_is_installed() {
    let files = Files::new();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(files.ok(&["version"]), format!("{version}\n"));
    for words in [["version"], ["manifest"]] {
        let all = files.json(&words);
        assert_eq!(all[0], json!({"component": "skupper", "version": version}));
        let yaml = files.ok(&[&words[..], &["-o", "yaml"]].concat());
        assert!(yaml.contains("component: skupper\n"), "{yaml}");
    }
    let table = files.ok(&["manifest"]);
    assert!(table.starts_with("COMPONENT  VERSION\n"), "{table}");
    assert!(table.contains("skupperd   not running"), "{table}");
}

/// What a shell is told.
fn completed(files: &Files, words: &[&str]) -> Vec<String> {
    let output = Command::new(program("skupper"))
        .env("COMPLETE", "fish")
        .env("SKUPPER_ROOT", files.0.path())
        .args(["--", "skupper"])
        .args(words)
        .output()
        .expect("skupper runs");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let word = |line: &str| line.split('\t').next().unwrap_or_default().to_owned();
    text.lines().map(word).collect()
}

#[test]
fn c30_shells_complete_commands_flags_and_names_of_resources() {
    let files = Files::new();
    for (name, port) in [("web", "8080"), ("webmail", "8081"), ("db", "5432")] {
        files.ok(&["listener", "create", name, port]);
    }
    files.ok(&["-n", "east", "connector", "create", "db", "5432"]);
    let has = |words: &[&str], wanted: &[&str]| {
        let found = completed(&files, words);
        for word in wanted {
            assert!(
                found.iter().any(|w| w == word),
                "{words:?}: {word} in {found:?}"
            );
        }
        found
    };
    has(&["lis"], &["listener"]);
    has(
        &["listener", ""],
        &["create", "update", "delete", "status", "generate"],
    );
    has(&["listener", "create", "--ho"], &["--host"]);
    assert_eq!(
        completed(&files, &["listener", "delete", "we"]),
        ["web", "webmail"]
    );
    has(&["listener", "status", ""], &["web", "webmail", "db"]);
    assert_eq!(
        completed(&files, &["-n", "east", "connector", "update", "d"]),
        ["db"]
    );
    assert!(!has(&["connector", "update", ""], &[]).contains(&"db".to_owned()));
    assert_eq!(completed(&files, &["site", "status", "-n", "ea"]), ["east"]);
    // What a shell reads to ask so.
    for shell in ["bash", "zsh", "fish"] {
        let output = Command::new(program("skupper"))
            .env("COMPLETE", shell)
            .output();
        let text = String::from_utf8(output.expect("skupper runs").stdout).expect("text");
        assert!(
            text.contains("COMPLETE") && text.contains("skupper"),
            "{shell}: {text}"
        );
    }
}

/// Words that make one of each kind that has such a command, with the kind.
const NEW: &[(&str, &[&str])] = &[
    ("Site", &["site", "generate", "x"]),
    ("Listener", &["listener", "generate", "x", "80"]),
    (
        "MultiKeyListener",
        &[
            "multikeylistener",
            "generate",
            "y",
            "81",
            "--priority",
            "a,b",
        ],
    ),
    ("Connector", &["connector", "generate", "x", "80"]),
    ("RouterAccess", &["router-access", "generate", "x"]),
    ("AccessGrant", &["access-grant", "generate", "x"]),
    (
        "Certificate",
        &[
            "certificate",
            "generate",
            "x",
            "--server",
            "--host",
            "x.example",
        ],
    ),
    (
        "AttachedConnector",
        &[
            "attached-connector",
            "generate",
            "x",
            "80",
            "--site-namespace",
            "other",
            "--workload",
            "unit/nginx.service",
        ],
    ),
    (
        "AttachedConnectorBinding",
        &[
            "attached-connector-binding",
            "generate",
            "x",
            "--connector-namespace",
            "other",
        ],
    ),
];

#[test]
fn c14_what_is_generated_of_each_kind_can_be_applied_and_nothing_is_written() {
    let files = Files::new();
    let mut all = String::new();
    for (kind, words) in NEW {
        let yaml = files.ok(words);
        assert!(yaml.contains(&format!("kind: {kind}\n")), "{yaml}");
        let value = files.json(words);
        assert_eq!(value["kind"], *kind);
        all.push_str(&format!("---\n{yaml}"));
    }
    assert!(files.input().is_empty(), "{:?}", files.input());
    let file = files.0.path().join("all.yaml");
    fs::write(&file, all).expect("a file");
    files.ok(&["system", "apply", "-f", file.to_str().expect("a path")]);
    assert_eq!(files.input().len(), NEW.len());
    // Each is there for its own commands too.
    for (kind, words) in NEW {
        let (noun, name) = (words[0], words[2]);
        assert_eq!(files.json(&[noun, "status", name])["kind"], *kind);
        assert!(files.ok(&[noun, "status"]).contains(name));
        assert!(files.ok(&[noun, "status", name]).starts_with("Name: "));
        files.ok(&[noun, "delete", name]);
        files.fails(2, &[noun, "status", name]);
    }
    assert!(files.input().is_empty(), "{:?}", files.input());
}

/// A resource, flags, the field that they are for, and what is in it then.
const FLAGS: &str = r#"
site s | --enable-link-access | /spec/linkAccess | "default"
site s | --enable-link-access=false | /spec/linkAccess | "none"
site s | --host a.example | /spec/settings/link-access-hosts | "a.example"
site s | --edge | /spec/edge | true
listener l 80 | --host ::1 | /spec/host | "::1"
listener l 80 | --routing-key k | /spec/routingKey | "k"
listener l 80 | -r k | /spec/routingKey | "k"
listener l 80 | --tls-credentials t | /spec/tlsCredentials | "t"
listener l 80 | --type tcp | /spec/type | "tcp"
listener l 80 | --observer http2 | /spec/observer | "http2"
listener l 80 | --setting alpn=h2 | /spec/settings/alpn | "h2"
connector c 80 | --host h | /spec/host | "h"
connector c 80 | --host unix:/s | /spec/host | "unix:/s"
connector c 80 | --routing-key k | /spec/routingKey | "k"
connector c 80 | --tls-credentials t | /spec/tlsCredentials | "t"
connector c 80 | --type tcp | /spec/type | "tcp"
connector c 80 | --selector exe=/x | /spec/selector | "exe=/x"
connector c 80 | --workload uid/7 | /spec/selector | "uid=7"
connector c 80 | --use-client-cert | /spec/useClientCert | true
connector c 80 | --verify-hostname | /spec/verifyHostname | true
connector c 80 | --include-not-ready | /spec/includeNotReadyPods | true
connector c 80 | --setting a=b | /spec/settings/a | "b"
multikeylistener m 80 | --priority a,b | /spec/strategy/priority/routingKeys | ["a","b"]
multikeylistener m 80 | --priority a --host ::1 | /spec/host | "::1"
multikeylistener m 80 | --priority a --require-client-cert | /spec/requireClientCert | true
multikeylistener m 80 | --priority a --observer none | /spec/observer | "none"
multikeylistener m 80 | --priority a --tls-credentials t | /spec/tlsCredentials | "t"
multikeylistener m 80 | --priority a --setting a=b | /spec/settings/a | "b"
multikeylistener w 80 | --weighted a=3,b | /spec/strategy/weighted/routingKeys | {"a":3,"b":1}
router-access r | --role edge=7000,inter-router | /spec/roles | [{"name":"edge","port":7000},{"name":"inter-router"}]
router-access r | --bind-host 10.0.0.1 | /spec/bindHost | "10.0.0.1"
router-access r | --host a --host b | /spec/subjectAlternativeNames | ["a","b"]
router-access r | --issuer i | /spec/issuer | "i"
router-access r | --tls-credentials t | /spec/tlsCredentials | "t"
router-access r | --setting a=b | /spec/settings/a | "b"
access-grant g | --redemptions-allowed 3 | /spec/redemptionsAllowed | 3
access-grant g | --expiration-window 90m | /spec/expirationWindow | "5400s"
access-grant g | --issuer i | /spec/issuer | "i"
access-grant g | --setting a=b | /spec/settings/a | "b"
certificate t | --ca i --server | /spec/ca | "i"
certificate t | --subject n --server | /spec/subject | "n"
certificate t | --host a --server | /spec/hosts | ["a"]
certificate t | --client | /spec/client | true
certificate t | --server | /spec/server | true
certificate t | --signing | /spec/signing | true
attached-connector a 80 | --site-namespace o --selector exe=/x | /spec/siteNamespace | "o"
attached-connector a 0 | --site-namespace o --selector exe=/x | /spec/selector | "exe=/x"
attached-connector a 80 | --site-namespace o --workload unit/n.service | /spec/selector | "unit=n.service"
attached-connector a 80 | --site-namespace o --workload uid/7 --tls-credentials t | /spec/tlsCredentials | "t"
attached-connector a 80 | --site-namespace o --workload uid/7 --use-client-cert | /spec/useClientCert | true
attached-connector a 80 | --site-namespace o --workload uid/7 --include-not-ready | /spec/includeNotReadyPods | true
attached-connector a 80 | --site-namespace o --workload uid/7 --type tcp | /spec/type | "tcp"
attached-connector a 80 | --site-namespace o --workload uid/7 --setting a=b | /spec/settings/a | "b"
attached-connector-binding b | --connector-namespace o | /spec/connectorNamespace | "o"
attached-connector-binding b | --connector-namespace o -r k | /spec/routingKey | "k"
attached-connector-binding b | --connector-namespace o --setting a=b | /spec/settings/a | "b"
"#;

#[test]
fn every_flag_of_a_resource_gets_into_its_field_when_made_and_when_changed() {
    for line in FLAGS.trim().lines() {
        let cells: Vec<&str> = line.split(" | ").collect();
        let [resource, flags, field, expected] = cells[..] else {
            panic!("{line}: four cells make a line");
        };
        let expected: Value = serde_json::from_str(expected).expect("JSON");
        let resource: Vec<&str> = resource.split(' ').collect();
        let flags: Vec<&str> = flags.split(' ').collect();
        let (noun, rest) = (resource[0], &resource[1..]);
        let words = [&[noun, "generate"], rest, &flags].concat();
        let files = Files::new();
        let made = files.json(&words);
        assert_eq!(made.pointer(field), Some(&expected), "{words:?}: {made}");
        // One that is there, and says nothing of it but what it has to.
        let mut create = [&[noun, "create"], rest].concat();
        match noun {
            "multikeylistener" if flags.contains(&"--weighted") => {
                create.extend(["--weighted", "z=9"]);
            }
            "multikeylistener" => create.extend(["--priority", "z"]),
            "attached-connector" => {
                create.extend(["--site-namespace", "z", "--selector", "uid=1"]);
            }
            "attached-connector-binding" => create.extend(["--connector-namespace", "z"]),
            "certificate" => create.push("--server"),
            _ => {}
        }
        files.ok(&create);
        let update = [&[noun, "update", rest[0]], &flags[..]].concat();
        files.ok(&update);
        let changed = files.json(&[noun, "status", rest[0]]);
        assert_eq!(
            changed.pointer(field),
            Some(&expected),
            "{update:?}: {changed}"
        );
    }
    let files = Files::new();
    for noun in ["listener", "connector"] {
        files.ok(&[noun, "create", "p", "80"]);
        files.ok(&[noun, "update", "p", "--port", "81"]);
        assert_eq!(files.json(&[noun, "status", "p"])["spec"]["port"], 81);
    }
}

#[test]
fn what_makes_no_sense_in_a_flag_is_said() {
    let files = Files::new();
    for (words, part) in [
        (
            &["router-access", "create", "r", "--role", "normal"][..],
            "role is not valid",
        ),
        (
            &["router-access", "create", "r", "--role", "edge=0"],
            "0 is not a port",
        ),
        (
            &["router-access", "create", "r", "--host", "A b"],
            "host is not valid",
        ),
        (
            &["access-grant", "create", "g", "--expiration-window", "x"],
            "expected a duration",
        ),
        (
            &["certificate", "create", "t", "--ca", "A", "--server"],
            "issuer is not valid",
        ),
        (
            &["attached-connector", "create", "a", "80"],
            "--site-namespace is required",
        ),
        (
            &["attached-connector-binding", "create", "b"],
            "--connector-namespace is required",
        ),
        (
            &[
                "connector",
                "create",
                "c",
                "80",
                "--host",
                "h",
                "--selector",
                "uid=1",
            ],
            "exclude each other",
        ),
        (
            &[
                "connector",
                "create",
                "c",
                "80",
                "--selector",
                "uid=1",
                "--workload",
                "uid/1",
            ],
            "cannot be used with",
        ),
        (
            &["multikeylistener", "create", "m", "80"],
            "--priority or --weighted is required",
        ),
    ] {
        let said = files.fails(2, words);
        assert!(said.contains(part), "{words:?}: {said}");
    }
    assert!(files.input().is_empty());
}

#[test]
fn n3_n5_n6_n7_n8_what_is_kubernetes_own_is_kept_or_refused_with_a_clear_word() {
    let files = Files::new();
    // N3: stored, without effect.
    let file = files.0.path().join("access.yaml");
    let text = "apiVersion: skupper.io/v2alpha1\nkind: SecuredAccess\nmetadata: {name: s}\nspec:\n  \
                selector: {app: x}\n  ports: [{name: a, port: 1, targetPort: 2, protocol: TCP}]\n  \
                issuer: i\n  certificate: c\n  accessType: route\n  settings: {a: b}\n";
    fs::write(&file, text).expect("a file");
    files.ok(&["system", "apply", "-f", file.to_str().expect("a path")]);
    assert_eq!(files.input(), ["SecuredAccess-s.yaml"]);
    // N6 and N8: neither containers nor clusters.
    for platform in ["podman", "docker", "kubernetes"] {
        let said = files.fails(1, &["-p", platform, "system", "generate-bundle", "b"]);
        assert!(
            said.contains(&format!("platform {platform:?} not supported")),
            "{said}"
        );
    }
    // N5 and N7: nothing of a cluster is known.
    for words in [
        &["--context", "x", "site", "status"][..],
        &["-c", "x", "site", "status"],
        &["--kubeconfig", "x", "site", "status"],
    ] {
        let said = files.fails(2, words);
        assert!(said.contains("unexpected argument"), "{said}");
    }
}

#[test]
fn n4_credentials_that_are_not_to_be_made_and_are_not_there_are_an_error() {
    let mut a = Site::new("a");
    let addr = free_addr();
    let spec = |generate: bool| {
        format!(
            "{{roles: [{{name: inter-router, port: {}}}], bindHost: 127.0.0.1, \
             tlsCredentials: mine, generateTlsCredentials: {generate}}}",
            addr.port()
        )
    };
    a.resource("RouterAccess", "access", &spec(false));
    a.start();
    let said = a.wait_status("RouterAccess", "access", "Error");
    assert!(said.contains("generateTlsCredentials is false"), "{said}");
    a.resource("RouterAccess", "access", &spec(true));
    a.wait_status("RouterAccess", "access", "Ready");
}

#[test]
fn a_secured_access_is_kept_and_its_status_says_that_it_is_without_effect() {
    let mut a = Site::new("a");
    a.resource("SecuredAccess", "s", "{selector: {}, ports: []}");
    a.start();
    let said = a.wait_status("SecuredAccess", "s", "Ready");
    assert!(said.contains("has no effect on a host"), "{said}");
    let check = a.skupper(&["debug", "check"]);
    assert!(!String::from_utf8_lossy(&check.stdout).contains("SecuredAccess s  failed"));
}

#[test]
fn statuses_are_watched() {
    let files = Files::new();
    for words in [
        &["site", "status"][..],
        &["listener", "status"],
        &["connector", "status"],
        &["link", "status"],
        &["router-access", "status"],
        &["system", "status"],
        &["status"],
    ] {
        let mut child = files
            .command()
            .args(words)
            .arg("--watch")
            .stdout(Stdio::piped())
            .spawn()
            .expect("skupper runs");
        let mut out = child.stdout.take().expect("a pipe");
        let mut first = [0; 8];
        out.read_exact(&mut first).expect("something");
        // It goes on.
        assert!(child.try_wait().expect("a child").is_none(), "{words:?}");
        child.kill().expect("killed");
        child.wait().expect("ended");
    }
    let log = files.0.path().join("log");
    let mut child = files
        .command()
        .args(["listener", "status", "-w"])
        .stdout(fs::File::create(&log).expect("a file"))
        .spawn()
        .expect("skupper runs");
    let shown = |text: &str| fs::read_to_string(&log).expect("text").contains(text);
    wait_until("the first look", SOON, || shown("No listeners found"));
    files.ok(&["listener", "create", "web", "8080"]);
    wait_until("the next look", SOON, || shown("web   Pending"));
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert!(!shown("\x1b"), "no terminal, no control characters");
}

#[test]
fn colour_is_for_terminals_and_for_those_who_want_it() {
    let files = Files::new();
    files.ok(&["listener", "create", "web", "8080"]);
    let words = ["listener", "status"];
    assert!(!files.ok(&words).contains('\x1b'));
    // script(1) gives a terminal.
    let at_terminal = |name: &str, value: &str| {
        let line = format!(
            "{} --root {} listener status",
            program("skupper").display(),
            files.0.path().display()
        );
        let output = Command::new("script")
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .env("TERM", "xterm")
            .env(name, value)
            .stdin(Stdio::null())
            .output()
            .expect("script runs");
        String::from_utf8(output.stdout).expect("text")
    };
    let text = at_terminal("X", "");
    assert!(text.contains("\x1b[33mPending\x1b[0m"), "{text:?}");
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let text = at_terminal(name, value);
        assert!(
            text.contains("Pending") && !text.contains("\x1b["),
            "{text:?}"
        );
    }
}

/// Values that make no sense, for each setting of a kind, and what else has to be said for them to be
/// looked at.
fn nonsense(kind: Kind, key: &str) -> Option<String> {
    let value = match (kind, key) {
        // Of these the status has a note, or nobody wants them before there is a grant.
        (Kind::Site, "router-data-connection-count" | "routerDataConnections") => return None,
        (Kind::Site, "router-logging" | "routerLogging") => return None,
        (Kind::Site, key) if key.starts_with("grant-server") => return None,
        (_, "alpn") => format!("alpn: {}", "x".repeat(300)),
        (_, "health-check" | "proxy-protocol" | "acceleration") => format!("{key}: wrong"),
        (Kind::Connector, key) => format!("health-check: http, {key}: \"?\""),
        (_, key) => format!("{key}: \"?\""),
    };
    Some(value)
}

#[test]
fn every_setting_says_so_when_its_value_makes_no_sense() {
    let mut a = Site::new("a");
    a.access(free_addr());
    a.start();
    for kind in [
        Kind::Listener,
        Kind::MultiKeyListener,
        Kind::Connector,
        Kind::Site,
    ] {
        for key in skupperd::reconcile::settings(kind) {
            let Some(wrong) = nonsense(kind, key) else {
                continue;
            };
            let (port, settings) = (free_port(), format!("settings: {{{wrong}}}"));
            // These are looked at where there is TLS.
            let tls = ["alpn", "client-certificate", "tls-server-name"].contains(key);
            let tls = if tls { ", tlsCredentials: c" } else { "" };
            let host = format!("host: 127.0.0.1, port: {port}{tls}");
            let spec = match kind {
                Kind::Listener | Kind::Connector => {
                    format!("{{routingKey: k, {host}, {settings}}}")
                }
                Kind::MultiKeyListener => {
                    format!("{{strategy: {{priority: {{routingKeys: [k]}}}}, {host}, {settings}}}")
                }
                _ => format!("{{{settings}}}"),
            };
            a.resource(kind.as_str(), "a", &spec);
            wait_until(&format!("the word on {key} of {kind}"), SOON, || {
                // What is of its certificates is said where they are shown.
                let both = [(kind.as_str(), "a"), ("RouterAccess", "access")];
                let said = both.map(|(kind, name)| a.status(kind, name).unwrap_or_default());
                said.iter()
                    .any(|v| v["status"]["message"].to_string().contains(key))
            });
        }
        if kind != Kind::Site {
            a.remove(kind.as_str(), "a");
        }
    }
}

#[test]
fn the_whole_picture_can_be_had_as_a_document() {
    let (_a, b, _server, _addr) = service();
    let json = |words: &[&str]| -> Value {
        let text = b.ok(&[words, &["-o", "json"]].concat());
        serde_json::from_str(&text).expect("JSON")
    };
    let all = json(&["status"]);
    assert_eq!(all["site"]["metadata"]["name"], "b");
    assert_eq!(all["listeners"][0]["metadata"]["name"], "echo");
    let all = json(&["network", "status"]);
    assert_eq!(all.as_array().map(Vec::len), Some(2), "{all}");
    let all = json(&["top"]);
    assert_eq!(all[0]["routingKey"], "echo", "{all}");
    let all = json(&["debug", "steer"]);
    assert!(all.is_object(), "{all}");
    let table = b.ok(&["debug", "steer"]);
    assert!(table.starts_with("Steering: "), "{table}");
    let mut watching = Command::new(program("skupper"))
        .arg("--root")
        .arg(b.root())
        .args(["network", "status", "--watch"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("skupper runs");
    let mut first = [0; 4];
    let out = watching.stdout.as_mut().expect("a pipe");
    out.read_exact(&mut first).expect("a look");
    assert_eq!(&first, b"SITE");
    assert!(watching.try_wait().expect("a child").is_none());
    watching.kill().expect("killed");
    watching.wait().expect("ended");
}
