//! The contents of the packages: reproducible bytes, lintian and rpmlint, manual pages and
//! completions.

use skupper_tests::{
    machine::{installed, make_packages, packages},
    skip::skip,
};
use std::{fs, path::Path, process::Command};

#[test]
fn package_builds_are_reproducible() {
    for format in ["deb", "rpm"] {
        let Some(files) = packages(format) else {
            return;
        };
        let again = tempfile::tempdir().expect("a directory");
        make_packages(format, again.path());
        for file in files {
            let other = again.path().join(file.file_name().expect("a name"));
            let same = fs::read(&file).expect("a package") == fs::read(&other).expect("a package");
            assert!(same, "{} differs from {}", other.display(), file.display());
        }
    }
}

#[test]
fn packages_pass_lintian_and_rpmlint() {
    let Some(debs) = packages("deb") else { return };
    if installed("lintian") {
        // Shorter words occur by chance.
        let words = [
            "--fail-on=error,warning,info",
            "--display-level=>=info",
            "--suppress-tags=spelling-error-in-binary",
        ];
        assert_clean(Command::new("lintian").args(words).args(&debs));
    } else {
        skip("no lintian here: cargo xtask setup package brings it");
    }
    let Some(rpms) = packages("rpm") else { return };
    if installed("rpmlint") {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/rpm/rpmlint.toml");
        assert_clean(
            Command::new("rpmlint")
                .arg("--strict")
                .arg("--config")
                .arg(config)
                .args(&rpms),
        );
    } else {
        skip("no rpmlint here: cargo xtask setup package brings it");
    }
}

#[test]
fn pages_and_completions_are_installed_and_complete() {
    let Some([daemon, command]) = packages("deb") else {
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    for deb in [&daemon, &command] {
        let done = Command::new("dpkg-deb")
            .arg("-x")
            .arg(deb)
            .arg(dir.path())
            .status();
        assert!(done.expect("dpkg-deb").success());
    }
    let read = |path: &str| {
        let path = dir.path().join(path);
        let output = Command::new("gzip")
            .args(["-dcf"])
            .arg(&path)
            .output()
            .expect("gzip");
        assert!(output.status.success(), "{}", path.display());
        String::from_utf8(output.stdout).expect("text")
    };
    // The settings file has each option of the daemon with its default, commented out.
    let settings = read("etc/default/skupperd");
    let help = Command::new(skupper_tests::program("skupperd"))
        .arg("--help")
        .output();
    let help = String::from_utf8(help.expect("skupperd").stdout).expect("text");
    // Join lines that are wrapped for a terminal.
    let help: Vec<_> = help.split_whitespace().collect();
    let help = help.join(" ");
    let variables = help
        .match_indices("[env: ")
        .filter_map(|(at, begin)| help[at + begin.len()..].split('=').next());
    // The unit sets the paths itself, and the log level is no command line option.
    let variables = variables
        .filter(|name| *name != "SKUPPER_ROOT")
        .chain(["SKUPPER_LOG"]);
    let mut count = 0;
    for name in variables {
        count += 1;
        assert!(
            settings.contains(&format!("\n#{name}=")),
            "{name}: {settings}"
        );
    }
    assert!(count >= 3, "{help}");
    for option in ["--workers", "--drain", "--bus"] {
        assert!(
            help.contains(option) && settings.contains(option),
            "{option}"
        );
    }
    for line in settings.lines() {
        assert!(line.is_empty() || line.starts_with('#'), "{line}");
    }
    // Lists of settings are filled in.
    let page = read("usr/share/man/man5/skupper-connector.5.gz");
    assert!(page.contains(".It Li health-check\n"), "{page}");
    // Completion scripts ask the command.
    for path in [
        "usr/share/bash-completion/completions/skupper",
        "usr/share/zsh/vendor-completions/_skupper",
        "usr/share/fish/vendor_completions.d/skupper.fish",
    ] {
        let text = read(path);
        assert!(
            text.contains("COMPLETE") && text.contains("skupper"),
            "{path}: {text}"
        );
        assert!(
            !text.contains("target/"),
            "{path} has the place where it was built"
        );
    }
    let bash = dir
        .path()
        .join("usr/share/bash-completion/completions/skupper");
    let script = format!(
        "source {} && COMP_WORDS=(skupper site '') COMP_CWORD=2 && _clap_complete_skupper skupper '' site && echo \"${{COMPREPLY[@]}}\"",
        bash.display()
    );
    let programs = dir.path().join("usr/bin");
    let output = Command::new("bash")
        .args(["--norc", "-c", &script])
        .env("PATH", format!("{}:/usr/bin:/bin", programs.display()))
        .output()
        .expect("bash");
    let offered = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        offered.contains("create") && offered.contains("status"),
        "{offered}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // Licences of the libraries that are linked into the programs.
    let licences = read("usr/share/doc/skupperd/dependencies.txt.gz");
    for name in ["aws-lc-rs", "aya", "rustls", "tokio", "zbus"] {
        let line = licences
            .lines()
            .find(|line| line.split_whitespace().next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("{name} is not in the list"));
        assert!(
            ["MIT", "Apache-2.0", "ISC"]
                .iter()
                .any(|terms| line.contains(terms)),
            "{line}"
        );
    }
    // Manual pages exist for the command, each verb, the daemon and every kind.
    let pages = |section: &str| {
        let dir = dir.path().join(format!("usr/share/man/man{section}"));
        fs::read_dir(dir).expect("pages").count()
    };
    assert!(pages("1") > 30 && pages("5") >= 9 && pages("7") == 1 && pages("8") == 1);
}

#[track_caller]
fn assert_clean(command: &mut Command) {
    let output = command.output().expect("a checker that runs");
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {out}{err}");
}
