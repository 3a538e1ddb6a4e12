//! The command: its help, its global flags, completion, colour and the overview.

use crate::contract::code;
use serde_json::{Value, json};
use skupper_tests::{SOON, program, site::service, wait_until};
use skupperd::{manifest::settings::settings_of, model::Kind};
use std::{
    fs,
    io::Read,
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;

/// A directory without a daemon.
pub(crate) struct Files(pub(crate) TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(program("skupper"));
        command.env_remove("SKUPPER_PLATFORM").stdin(Stdio::null());
        command.arg("--root").arg(self.0.path());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command().args(args).output().expect("skupper runs")
    }

    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            skupper_tests::succeeded(args, &output),
            "skupper {args:?}: {errors}"
        );
        String::from_utf8(output.stdout).expect("text")
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let text = self.ok(&[args, &["-o", "json"]].concat());
        serde_json::from_str(&text).expect("JSON")
    }

    pub(crate) fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let errors = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
        errors
    }

    pub(crate) fn input(&self) -> Vec<String> {
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
fn every_command_has_help() {
    let files = Files::new();
    let tree = code::tree();
    let all = code::commands(&tree);
    assert!(all.len() > 60, "{}", all.len());
    for (path, command) in all {
        assert!(command.get_about().is_some(), "{path} says nothing");
        for arg in code::arguments(command, false) {
            assert!(
                arg.get_help().is_some(),
                "{path} {} says nothing",
                arg.get_id()
            );
        }
        let words: Vec<&str> = path.split(' ').collect();
        let by_verb = files.ok(&[&["help"], &words[..]].concat());
        assert!(by_verb.contains("Usage: skupper"), "{path}: {by_verb}");
        if path != "help" {
            let by_option = files.ok(&[&words[..], &["--help"]].concat());
            assert_eq!(by_option, by_verb, "{path}");
        }
    }
}

#[test]
fn global_flags_and_noun_spellings() {
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
fn version_and_manifest_report_what_is_installed() {
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

/// The completions that a shell gets.
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
fn shells_complete_commands_flags_and_resource_names() {
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
    // Keys of the kind, and the words that one takes.
    for (noun, kind) in [
        ("listener", Kind::Listener),
        ("multikeylistener", Kind::MultiKeyListener),
        ("connector", Kind::Connector),
        ("attached-connector", Kind::AttachedConnector),
        ("attached-connector-binding", Kind::AttachedConnectorBinding),
        ("router-access", Kind::RouterAccess),
    ] {
        let mut expected: Vec<_> = settings_of(kind).map(|s| format!("{}=", s.key)).collect();
        let mut found = completed(&files, &[noun, "update", "x", "--setting", ""]);
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{noun}");
    }
    let value = |text: &str| completed(&files, &["connector", "update", "db", "--setting", text]);
    assert_eq!(value("tls"), ["tls-server-name="]);
    assert_eq!(
        value("proxy-protocol=v"),
        ["proxy-protocol=v1", "proxy-protocol=v2"]
    );
    assert_eq!(
        value("health-check-interval="),
        ["health-check-interval=5s"]
    );
    assert!(value("alpn=").is_empty(), "no connector has it");
    // The script that a shell sources.
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

#[test]
fn status_watch_prints_changes() {
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
        // The command keeps running.
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
fn colour_is_for_terminals_and_on_request() {
    let files = Files::new();
    files.ok(&["listener", "create", "web", "8080"]);
    let words = ["listener", "status"];
    assert!(!files.ok(&words).contains('\x1b'));
    // script(1) provides a terminal.
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

#[test]
fn the_overview_prints_as_one_document() {
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
