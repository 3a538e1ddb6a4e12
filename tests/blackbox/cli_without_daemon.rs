//! The command without a daemon: manifests on disk, tables, formats, errors and exit codes.

use skupper_tests::{program, succeeded};
use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

struct Host(TempDir);

impl Host {
    fn new() -> Self {
        Self(TempDir::new().expect("a directory"))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(program("skupper"));
        command
            .arg("--root")
            .arg(self.0.path())
            .env_remove("SKUPPER_PLATFORM");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command()
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("runs")
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(
            succeeded(args, &output),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            output.stderr.is_empty(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    }

    /// Expects this exit code and no standard output. Returns standard error.
    fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let errors = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
        assert!(
            output.stdout.is_empty(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        errors
    }

    fn input(&self) -> std::path::PathBuf {
        self.0.path().join("namespaces/default/input/resources")
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).expect("a file");
        path.to_str().expect("a path").to_owned()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.input())
            .into_iter()
            .flatten()
            .map(|e| {
                e.expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("a name")
            })
            .collect();
        names.sort();
        names
    }
}

const HELLO: &str = "apiVersion: skupper.io/v2alpha1
kind: Site
metadata: {name: hello}
---
apiVersion: skupper.io/v2alpha1
kind: Listener
metadata: {name: backend}
spec: {routingKey: backend, host: 127.0.0.1, port: 8080}
---
apiVersion: skupper.io/v2alpha1
kind: Connector
metadata: {name: frontend}
spec: {routingKey: frontend, host: localhost, port: 8081}
";

#[test]
fn apply_and_delete_a_file() {
    let host = Host::new();
    let file = host.file("hello.yaml", HELLO);
    let text = host.ok(&["system", "apply", "-f", &file]);
    assert!(text.ends_with("Custom resources are applied.\n"), "{text}");
    assert_eq!(
        host.names(),
        [
            "Connector-frontend.yaml",
            "Listener-backend.yaml",
            "Site-hello.yaml"
        ]
    );
    host.ok(&["system", "delete", "-f", &file]);
    assert!(host.names().is_empty());
}

/// A limit that one look at all files for each resource exceeds several times, in any build.
#[test]
fn hundreds_of_resources_are_deleted_in_seconds() {
    let host = Host::new();
    let document = |n: usize| {
        format!(
            "---\napiVersion: skupper.io/v2alpha1\nkind: Listener\nmetadata: {{name: l{n}}}\n\
             spec: {{routingKey: k{n}, host: 127.0.0.1, port: {}}}\n",
            10000 + n
        )
    };
    let site = "apiVersion: skupper.io/v2alpha1\nkind: Site\nmetadata: {name: a}\n".to_owned();
    let text: String = std::iter::once(site)
        .chain((0..400).map(document))
        .collect();
    let file = host.file("many.yaml", &text);
    for args in [
        &["system", "delete", "-f", &file][..],
        &["site", "delete", "--all"],
    ] {
        let begin = Instant::now();
        host.ok(&["system", "apply", "-f", &file]);
        let applied = begin.elapsed();
        assert_eq!(host.names().len(), 401);
        let begin = Instant::now();
        host.ok(args);
        let deleted = begin.elapsed();
        assert!(host.names().is_empty());
        let limit = 3 * applied + Duration::from_secs(1);
        assert!(deleted < limit, "{deleted:?} after {applied:?}: {args:?}");
    }
}

#[test]
fn apply_from_standard_input() {
    let host = Host::new();
    let mut child = host
        .command()
        .args(["system", "apply", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("runs");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(HELLO.as_bytes())
        .expect("written");
    assert!(child.wait().expect("ended").success());
    assert_eq!(host.names().len(), 3);
}

#[test]
fn resource_file_names() {
    let host = Host::new();
    let text = host.fails(2, &["system", "apply", "-f", &host.file("x.txt", HELLO)]);
    assert!(text.contains("unsupported extension"), "{text}");
    let text = host.fails(2, &["system", "apply", "-f", "/no/such.yaml"]);
    assert!(text.contains("does not exist"), "{text}");
    let dir = host.0.path().join("d.yaml");
    fs::create_dir(&dir).expect("a directory");
    for dir in [&dir, &host.0.path().to_owned()] {
        let text = host.fails(2, &["system", "apply", "-f", dir.to_str().expect("a path")]);
        assert!(text.contains("is a directory"), "{text}");
    }
    // As PowerShell writes it.
    let wide = host.file("utf16.yaml", "");
    fs::write(&wide, b"\xff\xfek\0i\0n\0d\0").expect("a file");
    let text = host.fails(1, &["system", "apply", "-f", &wide]);
    assert!(text.contains("utf16.yaml: file is not UTF-8"), "{text}");
    host.ok(&["system", "apply", "-f", &host.file("ok.yml", HELLO)]);
}

#[test]
fn apply_is_all_or_nothing_and_reports_every_failure() {
    let host = Host::new();
    let bad = format!("{HELLO}---\nkind: Wat\n---\n{}", HELLO.replace("8080", "0"));
    let text = host.fails(1, &["system", "apply", "-f", &host.file("bad.yaml", &bad)]);
    assert!(
        text.contains("unknown kind \"Wat\"") && text.contains("0 is not a port"),
        "{text}"
    );
    assert!(text.contains("nothing was changed"), "{text}");
    assert!(host.names().is_empty());
    let conflict = HELLO.replace("name: backend", "name: other");
    host.ok(&["system", "apply", "-f", &host.file("good.yaml", HELLO)]);
    let text = host.fails(
        1,
        &["system", "apply", "-f", &host.file("c.yaml", &conflict)],
    );
    assert!(text.contains("already mapped"), "{text}");
}

#[test]
fn apply_skips_documents_of_other_apis_and_takes_the_items_of_lists() {
    let host = Host::new();
    let other = "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: backend}\nspec: {}\n";
    let file = host.file("hello.yaml", &format!("{HELLO}{other}"));
    for (verb, expected) in [
        ("apply", "Site hello added"),
        ("delete", "Site hello deleted"),
    ] {
        let output = host.run(&["system", verb, "-f", &file]);
        assert!(output.status.success(), "{output:?}");
        let errors = String::from_utf8(output.stderr).expect("text");
        let warning = format!("ignored {file}:16: kind: unknown kind \"Deployment\"\n");
        assert_eq!(errors, warning);
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(text.contains(expected), "{text}");
    }
    let list = "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: \"\"}\nitems:\n\
                - apiVersion: skupper.io/v2alpha1\n  kind: Connector\n  metadata: {name: a}\n  \
                spec: {routingKey: a, host: h, port: 1}\n\
                - apiVersion: skupper.io/v2alpha1\n  kind: Connector\n  metadata: {name: b}\n  \
                spec: {routingKey: b, host: h, port: 1}\n";
    let text = host.ok(&["system", "apply", "-f", &host.file("list.yaml", list)]);
    assert!(
        text.contains("Connector a added") && text.contains("Connector b added"),
        "{text}"
    );
    assert_eq!(host.names(), ["Connector-a.yaml", "Connector-b.yaml"]);
    // Nothing of ours is a mistake.
    for text in ["", "# nothing\n", other] {
        let text = host.fails(2, &["system", "apply", "-f", &host.file("none.yaml", text)]);
        assert!(
            text.contains("none.yaml: contains no Skupper resource"),
            "{text}"
        );
    }
    let wrong = HELLO.replace("kind: Connector", "kind: Conector");
    let text = host.fails(
        1,
        &["system", "apply", "-f", &host.file("wrong.yaml", &wrong)],
    );
    assert!(text.contains("unknown kind \"Conector\""), "{text}");
}

#[test]
fn apply_refuses_another_kind_of_strategy() {
    let host = Host::new();
    let listener = |strategy: &str| {
        let text = format!(
            "apiVersion: skupper.io/v2alpha1\nkind: MultiKeyListener\nmetadata: {{name: m}}\n\
             spec: {{host: h, port: 80, strategy: {strategy}}}\n"
        );
        host.file("m.yaml", &text)
    };
    let priority = listener("{priority: {routingKeys: [a, b]}}");
    host.ok(&["system", "apply", "-f", &priority]);
    let stored = host.input().join("MultiKeyListener-m.yaml");
    let before = fs::read_to_string(&stored).expect("the file");
    let weighted = listener("{weighted: {routingKeys: {a: 3}}}");
    for words in [
        &["system", "apply", "-f", &weighted][..],
        &[
            "multikeylistener",
            "create",
            "m",
            "80",
            "--weighted",
            "a=3",
            "--force",
        ],
    ] {
        let text = host.fails(1, words);
        assert!(
            text.contains("strategy cannot be changed from priority to weighted"),
            "{text}"
        );
        assert!(text.ends_with("nothing was changed\n"), "{text}");
    }
    assert_eq!(fs::read_to_string(&stored).expect("the file"), before);
    let other = listener("{priority: {routingKeys: [c]}}");
    host.ok(&["system", "apply", "-f", &other]);
}

#[test]
fn status_tables_have_skuppers_headers() {
    let host = Host::new();
    host.ok(&["system", "apply", "-f", &host.file("hello.yaml", HELLO)]);
    let header = |noun: &str| {
        let text = host.ok(&[noun, "status"]);
        let line = text.lines().next().expect("a header").to_owned();
        line.split("  ")
            .map(str::trim)
            .filter(|s| !s.is_empty())
            .collect::<Vec<_>>()
            .join("|")
    };
    assert_eq!(header("site"), "NAME|STATUS|MESSAGE|SITES-IN-NETWORK");
    assert_eq!(
        header("listener"),
        "NAME|STATUS|ROUTING-KEY|HOST|PORT|MATCHING-CONNECTOR|MESSAGE"
    );
    assert_eq!(
        header("connector"),
        "NAME|STATUS|ROUTING-KEY|SELECTOR|HOST|PORT|HAS MATCHING LISTENER|MESSAGE"
    );
}

#[test]
fn output_is_one_document() {
    let host = Host::new();
    let count = |text: &str| {
        serde_json::from_str::<Vec<serde_json::Value>>(text)
            .expect("JSON")
            .len()
    };
    assert_eq!(count(&host.ok(&["listener", "status", "-o", "json"])), 0);
    for n in 1..=2 {
        let port = (9000 + n).to_string();
        host.ok(&["listener", "create", &format!("l{n}"), &port]);
        assert_eq!(count(&host.ok(&["listener", "status", "-o", "json"])), n);
    }
    let yaml: serde_yaml::Value =
        serde_yaml::from_str(&host.ok(&["listener", "status", "-o", "yaml"])).expect("YAML");
    assert_eq!(yaml.as_sequence().map(Vec::len), Some(2));
    let one: serde_json::Value =
        serde_json::from_str(&host.ok(&["listener", "status", "l1", "-o", "json"])).expect("JSON");
    assert_eq!(one["spec"]["port"], 9001);
    let text = host.fails(2, &["listener", "status", "-o", "xml"]);
    assert!(text.contains("value xml not allowed"), "{text}");
}

#[test]
fn errors_and_exit_codes() {
    let host = Host::new();
    for (args, part) in [
        (
            vec!["-n", "Bad_Name", "site", "status"],
            "namespace is not valid",
        ),
        (vec!["site", "create", "Bad"], "site name is not valid"),
        (
            vec!["listener", "create", "ok", "0"],
            "listener port is not valid: 0 is not a port",
        ),
        (
            vec!["listener", "create", "ok", "70000"],
            "70000 is not a port",
        ),
        (vec!["listener", "create", "ok", "-1"], "-1 is not a port"),
        (
            vec!["listener", "create", "ok", "abc"],
            "\"abc\" is not a number",
        ),
        (
            vec!["listener", "create", "ok", "1", "--host", "a_b"],
            "host is not valid",
        ),
        (
            vec!["connector", "create", "ok", "1", "--type", "udp"],
            "value udp not allowed",
        ),
        (
            vec!["connector", "create", "ok", "1", "--routing-key", "A"],
            "routing key is not valid",
        ),
        (
            vec!["listener", "update", "no", "--port", "1"],
            "listener no must exist in namespace default",
        ),
        (
            vec!["listener", "delete", "no"],
            "listener no does not exist",
        ),
        (
            vec!["connector", "status", "no"],
            "connector no does not exist in namespace default",
        ),
        (
            vec!["site", "update", "no"],
            "site no must exist to be updated",
        ),
        (vec!["site", "delete", "no"], "site no does not exist"),
        (vec!["link", "delete", "no"], "There is no link resource"),
        (
            vec!["link", "generate"],
            "there is no active site in this namespace",
        ),
        (vec!["listener", "create"], "required"),
        (vec!["nonsense"], "unrecognized"),
        (vec!["link", "create", "x"], "Try: skupper token issue FILE"),
        (vec!["system", "setup"], "Try: skupper system start"),
        (
            vec!["system", "apply"],
            "a file to apply or use standard input: -f FILE",
        ),
        (
            vec!["system", "delete"],
            "a file to delete or use standard input: -f FILE",
        ),
        (
            vec!["site", "delete"],
            "There is no existing Skupper site resource",
        ),
        (
            vec!["token", "redeem", "x", "--timeout", "0"],
            "expected a duration",
        ),
    ] {
        let text = host.fails(2, &args);
        assert!(text.contains(part), "{args:?}: {text}");
    }
    // The command reports all errors at once.
    let text = host.fails(2, &["listener", "create", "Bad", "0", "--host", "a_b"]);
    assert_eq!(text.lines().count(), 3, "{text}");
    // The command and the daemon have the same rule for names: dots are valid.
    host.ok(&["listener", "create", "a.b", "1"]);
}

#[test]
fn site_delete_needs_no_name() {
    let host = Host::new();
    host.ok(&["site", "create", "a"]);
    host.ok(&["listener", "create", "l", "1"]);
    assert_eq!(host.ok(&["site", "delete"]), "Site \"a\" is deleted\n");
    assert_eq!(host.names(), ["Listener-l.yaml"]);
    host.ok(&["site", "create", "a"]);
    host.ok(&["site", "delete", "--all", "--timeout", "5"]);
    assert!(host.names().is_empty());
}

#[test]
fn empty_lists() {
    let host = Host::new();
    assert_eq!(
        host.ok(&["site", "status"]),
        "There is no existing Skupper site resource\n"
    );
    assert_eq!(host.ok(&["listener", "status"]), "No listeners found\n");
    assert_eq!(host.ok(&["connector", "status"]), "No connectors found\n");
    assert_eq!(
        host.ok(&["link", "status"]),
        "There are no link resources in the namespace\n"
    );
}

#[test]
fn multi_document_files_are_read_and_edited() {
    let host = Host::new();
    fs::create_dir_all(host.input()).expect("a directory");
    let file = host.input().join("everything.yaml");
    fs::write(&file, HELLO).expect("a file");
    assert!(host.ok(&["listener", "status"]).contains("backend"));
    host.ok(&["listener", "delete", "backend"]);
    let left = fs::read_to_string(&file).expect("the file");
    let expected: String =
        HELLO
            .split_inclusive("---\n")
            .enumerate()
            .fold(
                String::new(),
                |text, (n, part)| if n == 1 { text } else { text + part },
            );
    assert!(
        !left.contains("backend") && left.contains("name: hello"),
        "{left}"
    );
    assert!(
        left.contains("name: frontend") && expected.contains("frontend"),
        "{left}"
    );
}

#[test]
fn update_keeps_unknown_fields() {
    let host = Host::new();
    let text = HELLO.replace(
        "port: 8080}",
        "port: 8080, observer: http1, settings: {a: b}}",
    );
    host.ok(&["system", "apply", "-f", &host.file("hello.yaml", &text)]);
    host.ok(&["listener", "update", "backend", "--port", "8090"]);
    let one: serde_json::Value =
        serde_json::from_str(&host.ok(&["listener", "status", "backend", "-o", "json"]))
            .expect("JSON");
    assert_eq!(one["spec"]["port"], 8090);
    assert_eq!(
        (&one["spec"]["observer"], &one["spec"]["settings"]["a"]),
        (&"http1".into(), &"b".into())
    );
}

#[test]
fn parallel_creates_lose_nothing() {
    let host = Host::new();
    let children: Vec<_> = (0..20)
        .map(|n| {
            let mut command = host.command();
            command.args([
                "listener",
                "create",
                &format!("l{n}"),
                &(9000 + n).to_string(),
            ]);
            command.stdout(Stdio::null()).spawn().expect("runs")
        })
        .collect();
    for mut child in children {
        assert!(child.wait().expect("ended").success());
    }
    assert_eq!(host.names().len(), 20);
    let all: Vec<serde_json::Value> =
        serde_json::from_str(&host.ok(&["listener", "status", "-o", "json"])).expect("JSON");
    assert_eq!(all.len(), 20);
}

#[test]
fn of_parallel_creates_of_one_name_one_succeeds() {
    let host = Host::new();
    let children: Vec<_> = (0..20)
        .map(|n| {
            let mut command = host.command();
            command.args(["listener", "create", "l", &(9000 + n).to_string()]);
            let command = command.stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().expect("runs")
        })
        .collect();
    let mut codes = Vec::new();
    for mut child in children {
        codes.push(child.wait().expect("ended").code());
    }
    codes.sort_unstable();
    let mut expected = vec![Some(1); 20];
    expected[0] = Some(0);
    assert_eq!(codes, expected);
}

#[test]
fn a_killed_command_leaves_the_old_or_the_new_file() {
    let host = Host::new();
    let mut many = String::new();
    for n in 0..200 {
        many.push_str(&format!(
            "---\napiVersion: skupper.io/v2alpha1\nkind: Listener\nmetadata: {{name: l{n}}}\n\
             spec: {{routingKey: k, host: 127.0.0.1, port: {}}}\n",
            2000 + n
        ));
    }
    let file = host.file("many.yaml", &many);
    let mut child = host
        .command()
        .args(["system", "apply", "-f", &file])
        .stdout(Stdio::null())
        .spawn()
        .expect("runs");
    while host.names().len() < 20 {
        assert!(child.try_wait().expect("a child").is_none() || host.names().len() >= 20);
        std::thread::yield_now();
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    // Files that are being written have hidden names and are never loaded.
    for name in host.names().iter().filter(|n| !n.starts_with('.')) {
        let text = fs::read_to_string(host.input().join(name)).expect("a file");
        let parsed = skupperd::manifest::parse(Path::new(name), text.as_bytes(), None);
        assert!(parsed.len() == 1 && parsed[0].is_ok(), "{name}: {text}");
    }
    host.ok(&["system", "apply", "-f", &file]);
}

#[test]
fn platforms() {
    let host = Host::new();
    host.ok(&["site", "status"]);
    host.ok(&["-p", "linux", "site", "status"]);
    let text = host.fails(1, &["-p", "docker", "site", "status"]);
    assert!(text.contains("platform \"docker\" not supported"), "{text}");
}

#[test]
fn link_generate_needs_access_and_keeps_the_ca() {
    let host = Host::new();
    host.ok(&["site", "create", "a"]);
    let text = host.fails(2, &["link", "generate", "--host", "a.example"]);
    assert!(text.contains("not enabled for link access"), "{text}");
    host.ok(&["site", "update", "a", "--enable-link-access"]);
    let first = host.ok(&["link", "generate", "--host", "a.example", "--cost", "7"]);
    let second = host.ok(&["link", "generate", "--host", "a.example"]);
    let field = |text: &str, name: &str| {
        let line = text
            .lines()
            .find(|l| l.trim().starts_with(name))
            .expect("the field");
        line.trim().to_owned()
    };
    assert_eq!(field(&first, "ca.crt"), field(&second, "ca.crt"), "one CA");
    assert_ne!(
        field(&first, "tls.crt"),
        field(&second, "tls.crt"),
        "a certificate for each link"
    );
    assert!(
        first.contains("host: a.example") && first.contains("cost: 7"),
        "{first}"
    );
    // The output can be applied unchanged.
    let other = Host::new();
    other.ok(&["system", "apply", "-f", &other.file("link.yaml", &first)]);
    assert!(other.ok(&["link", "status"]).contains("link-a"));
}
