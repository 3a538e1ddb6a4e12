//! Dumps for support, `debug check`, and bundles that install a site on another host.

use skupper_tests::{
    SOON,
    echo::{Server, works},
    free_addr, program,
    site::{Site, linked},
    token, wait_until,
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Unpacks an archive into a directory.
fn unpack(archive: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let done = Command::new("tar")
        .arg("-xzf")
        .arg(archive)
        .arg("-C")
        .arg(dir.path())
        .status();
    assert!(done.expect("tar runs").success(), "{}", archive.display());
    dir
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}

/// Lines of all keys and codes below a directory, without those so short that they occur by chance.
fn secrets(dir: &Path) -> Vec<String> {
    let mut secrets = Vec::new();
    for path in files(dir) {
        let text = String::from_utf8_lossy(&fs::read(&path).expect("a file")).into_owned();
        if path.extension().is_some_and(|e| e == "key") || text.contains("PRIVATE KEY") {
            let inside = text.lines().filter(|l| !l.starts_with("-----"));
            secrets.extend(inside.map(|l| l.trim().to_owned()));
        }
        for line in text.lines() {
            let field = line.trim().split_once(": ");
            if let Some(("code" | "tls.key" | "password", value)) = field {
                secrets.push(value.trim_matches('"').to_owned());
            }
        }
    }
    secrets.retain(|s| s.len() >= 20);
    secrets
}

fn archive_in(dir: &Path, output: &str) -> PathBuf {
    let (_, name) = output.trim().rsplit_once(": ").expect("the archive's name");
    dir.join(name)
}

#[test]
fn a_dump_has_everything_but_secrets() {
    let a = token::grant_site();
    token::issue_token(&a, &[]);
    let name = "proxy-login";
    let password = "hunter2-hunter2-hunter2-hunter2";
    a.file(
        "proxy.yaml",
        &format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\n\
             stringData:\n  host: proxy\n  port: \"3128\"\n  username: me\n  password: {password}\n"
        ),
    );
    a.listener("web", "web", free_addr());
    a.wait_status("Listener", "web", "Pending");
    let secrets = secrets(a.root());
    assert!(secrets.len() > 10, "{secrets:?}");
    assert!(secrets.iter().any(|s| s == password));
    let prefix = a.root().join("report");
    let said = a.ok(&["debug", "dump", prefix.to_str().expect("a path")]);
    let archive = archive_in(Path::new("/"), &said);
    let mode = fs::metadata(&archive)
        .expect("an archive")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let dump = unpack(&archive);
    let has = |path: &str| fs::read_to_string(dump.path().join(path)).unwrap_or_default();
    let listener = has("site-namespace/resources/runtime/Listener-web.yaml");
    assert!(
        listener.contains("routingKey: web") && listener.contains("status: Pending"),
        "{listener}"
    );
    let kept = has(&format!(
        "site-namespace/resources/runtime/Secret-{name}.yaml"
    ));
    assert!(kept.contains(name) && !kept.contains("username"), "{kept}");
    assert!(
        has("site-namespace/metrics.txt").contains("skupper_"),
        "no metrics"
    );
    assert!(
        has("site-namespace/health.txt").contains("200 OK"),
        "no health"
    );
    assert!(has("site-namespace/connections.json").contains("results"));
    assert!(has("site-namespace/issuers.yaml").contains("skupper-site-ca"));
    assert!(has("site-namespace/status.yaml").contains("namespaces:"));
    assert!(has("versions/skupper.yaml").contains(env!("CARGO_PKG_VERSION")));
    for path in files(dump.path()) {
        let text = fs::read_to_string(&path).expect("text");
        for secret in &secrets {
            assert!(!text.contains(secret), "{}: {secret}", path.display());
        }
    }
}

#[test]
fn a_dump_of_a_missing_namespace_is_refused() {
    let a = Site::new("a");
    let output = a.skupper(&["-n", "other", "debug", "dump"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("namespace \"other\" does not exist"),
        "{error}"
    );
}

#[test]
fn a_check_reports_faults_and_fails() {
    let (mut a, b) = linked();
    let server = Server::echo(free_addr());
    a.connector("good", "good", server.addr);
    a.wait_status("Connector", "good", "Pending");
    let said = a.ok(&["debug", "check"]);
    assert!(said.contains("skupperd"), "{said}");
    assert!(said.contains("server of Connector good"), "{said}");
    let nobody = free_addr();
    a.connector("bad", "bad", nobody);
    a.wait_status("Connector", "bad", "Pending");
    let output = a.skupper(&["debug", "check", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let failed: Vec<_> = all
        .as_array()
        .expect("a list")
        .iter()
        .filter(|f| f["result"] == "failed")
        .collect();
    assert_eq!(failed.len(), 1, "{all}");
    assert_eq!(failed[0]["check"], "server of Connector bad");
    let reason = failed[0]["message"].as_str().expect("text");
    assert!(
        reason.contains("refused") && reason.contains(&nobody.to_string()),
        "{reason}"
    );
    a.stop();
    let output = a.skupper(&["debug", "check"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("not running"));
    drop(b);
}

/// Runs the install script of a bundle for the sites below a directory.
fn install(script: &Path, root: &Path, args: &[&str]) -> Output {
    let programs = program("skupper");
    let programs = programs
        .parent()
        .expect("a directory")
        .display()
        .to_string();
    let path = std::env::var("PATH").expect("a path");
    Command::new("sh")
        .arg(script)
        .args(args)
        .env("SKUPPER_ROOT", root)
        .env("PATH", format!("{programs}:{path}"))
        .output()
        .expect("sh runs")
}

fn succeeded(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_bundle_installs_a_site_elsewhere_with_its_link() {
    // A site that accepts links, and the manifests of a site that will link to it.
    let a = token::grant_site();
    let server = Server::echo(free_addr());
    a.connector("echo", "echo", server.addr);
    let plan = Site::new("west");
    let addr = free_addr();
    plan.listener("echo", "echo", addr);
    let issued = token::issue_token(&a, &[]);
    plan.file("token.yaml", &fs::read_to_string(&issued).expect("a token"));
    for (form, ending) in [("tarball", "tar.gz"), ("shell-script", "sh")] {
        // A token can be redeemed only once.
        if form == "shell-script" {
            plan.file(
                "token.yaml",
                &fs::read_to_string(token::issue_token(&a, &[])).expect("a token"),
            );
        }
        let said = plan.ok(&["system", "generate-bundle", "west", "--type", form]);
        let bundle = plan.root().join(format!("bundles/west.{ending}"));
        let expected = format!("Installation bundle available at: {}", bundle.display());
        assert!(said.contains(&expected), "{said}");
        let mode = fs::metadata(&bundle)
            .expect("a bundle")
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "there are keys in it");
        // Another host, with only the daemon.
        let mut west = token::stopped_grant_site();
        west.start();
        let unpacked;
        let script = if form == "tarball" {
            unpacked = unpack(&bundle);
            unpacked.path().join("install.sh")
        } else {
            bundle
        };
        let said = succeeded(&install(&script, west.root(), &["-n", "other"]));
        assert!(
            said.contains("Site \"west\" has been created on namespace \"other\""),
            "{said}"
        );
        wait_until("the service", SOON, || works(addr));
        let up = || {
            west.ok(&["-n", "other", "link", "status"])
                .contains("Ready")
        };
        wait_until("the link's status", SOON, up);
        succeeded(&install(&script, west.root(), &["-n", "other", "-x"]));
        wait_until("the end of the service", SOON, || !works(addr));
        west.stop();
    }
    let refused = plan.skupper(&["system", "generate-bundle", "x", "--input", "/nowhere"]);
    assert_eq!(refused.status.code(), Some(2));
    let error = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(error.trim(), "The input path does not exist");
}
