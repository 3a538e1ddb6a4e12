//! The packages and the units in them, on Debian with a real systemd.

use skupper_tests::{
    SOON,
    machine::{Machine, install, installed, make_packages, packages},
    skip::skip,
    wait_until,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// The oldest that is served; of the newest, what packages and units make of it is tested too.
const SUITE: &str = "bookworm";
const NEWEST: &str = "trixie";

/// Creates a site and waits until the daemon has it.
fn ready(machine: &Machine) {
    machine.ok("skupper site create here --enable-link-access");
    wait_ready(machine);
}

fn wait_ready(machine: &Machine) {
    wait_until("the site to be ready", SOON, || {
        let status = machine.ok("skupper site status here -o json");
        status.contains("\"Ready\"")
    });
}

fn active(machine: &Machine) -> bool {
    machine.run("systemctl is-active skupperd").status.success()
}

/// What belongs to the packages, wherever that is.
fn traces(machine: &Machine) -> String {
    machine.ok(
        "find / -xdev \\( -path /proc -o -path /sys -o -path /root -o -path /var/log \\) -prune -o \
         -iname '*skupper*' ! -path '/var/cache/apt/*' ! -name skupper-machine -print | sort; \
         grep -H skupper /etc/passwd /etc/group /etc/shadow || true",
    )
}

#[test]
fn r17_installs_upgrades_and_leaves_nothing_when_purged() {
    lifecycle(SUITE);
}

#[test]
fn r17_on_the_newest_debian_too() {
    lifecycle(NEWEST);
}

fn lifecycle(suite: &str) {
    let Some(machine) = install(suite) else {
        return;
    };
    assert!(active(&machine), "installed, but not started");
    assert_eq!(
        machine.ok("systemctl is-enabled skupperd").trim(),
        "enabled"
    );
    ready(&machine);
    let setting = "SKUPPER_LOG=debug";
    machine.ok(&format!("echo {setting} >> /etc/default/skupperd"));
    machine.ok("systemctl restart skupperd");
    wait_ready(&machine);

    // The same version again is an upgrade to the scripts; what was changed stays.
    let first = machine.ok("systemctl show -P MainPID skupperd");
    machine.ok("dpkg -i /root/*.deb");
    assert!(active(&machine));
    assert_ne!(first, machine.ok("systemctl show -P MainPID skupperd"));
    assert!(machine.ok("cat /etc/default/skupperd").contains(setting));
    wait_ready(&machine);

    machine.ok("dpkg --remove skupper skupperd");
    assert!(!active(&machine));
    assert!(!machine.run("test -e /usr/bin/skupperd").status.success());
    // The site and its keys are kept,
    machine.ok("test -e /etc/skupper/namespaces/default/input/resources/Site-here.yaml");
    machine.ok("test -e /var/lib/skupper/namespaces/default/runtime/issuers");
    // and the site is back when the packages are.
    machine.ok("dpkg -i /root/*.deb");
    wait_ready(&machine);
    assert!(machine.ok("cat /etc/default/skupperd").contains(setting));

    machine.ok("dpkg --purge skupper skupperd");
    assert_eq!(traces(&machine), "");
    assert_eq!(
        machine.ok("ls -d /sys/fs/bpf/skupper 2> /dev/null || true"),
        ""
    );
    assert_eq!(machine.ok("systemctl --failed --no-legend"), "");
}

#[test]
fn r5_the_service_is_hardened_and_not_root() {
    hardened(SUITE);
}

#[test]
fn r5_on_the_newest_debian_too() {
    hardened(NEWEST);
}

fn hardened(suite: &str) {
    let Some(machine) = install(suite) else {
        return;
    };
    machine.ok("systemd-analyze verify --man=no skupperd.service");
    machine.ok(
        "XDG_RUNTIME_DIR=/run systemd-analyze verify --man=no --user \
         /usr/lib/systemd/user/skupperd.service",
    );
    // In tenths: 2.0 of 10.
    machine.ok("systemd-analyze security --threshold=20 skupperd.service");
    ready(&machine);
    let status = machine.ok("cat /proc/$(systemctl show -P MainPID skupperd)/status");
    let user = machine.ok("id -u skupper");
    let of = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.map(str::trim).unwrap_or_default().to_owned()
    };
    assert_eq!(of("Uid:"), [user.trim(); 4].join("\t"));
    // CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_BPF and nothing else.
    for set in ["CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(of(set), "0000008000001400", "{set}");
    }
    assert_eq!(
        (of("NoNewPrivs:"), of("Seccomp:")),
        ("1".into(), "2".into())
    );

    // Nothing that the daemon does for its sites is refused: all of it, on a privileged port.
    machine.ok("systemd-run --unit=echo socat TCP-LISTEN:7000,fork,reuseaddr EXEC:cat");
    machine.ok("skupper connector create echo 7000 --host 127.0.0.1");
    machine.ok("skupper listener create echo 80 --host 127.0.0.1");
    machine.ok("skupper token issue /root/token.yaml");
    wait_until("an echo", SOON, || {
        let heard = machine.run("echo hello | timeout 2 socat - TCP:127.0.0.1:80");
        heard.stdout == b"hello\n"
    });
    let log = machine.ok("journalctl --unit=skupperd --priority=warning --output=cat");
    assert_eq!(log, "", "the journal has warnings");
    // With these rights and this filter the kernel steers.
    let log = machine.ok("journalctl --unit=skupperd --output=cat");
    assert!(log.contains("steering is on"), "{log}");
}

#[test]
fn r3_a_killed_daemon_is_back() {
    let Some(machine) = install(SUITE) else {
        return;
    };
    ready(&machine);
    let first = machine.ok("systemctl show -P MainPID skupperd");
    machine.ok("systemctl kill --signal=KILL skupperd");
    wait_until("the daemon to be back", Duration::from_secs(2), || {
        let state = machine.ok("systemctl show -P MainPID -P ActiveState skupperd");
        !state.starts_with(&first) && state.contains("\nactive\n")
    });
    wait_ready(&machine);
    machine.ok("systemctl reload skupperd");
    assert!(active(&machine));
    // A wrong option is said, and not tried over and over.
    machine.ok("echo SKUPPERD_OPTIONS=--no-such >> /etc/default/skupperd");
    assert!(!machine.run("systemctl restart skupperd").status.success());
    // What is to be tried again would be activating.
    let state = machine.ok("systemctl show -P ActiveState skupperd");
    assert_eq!(state.trim(), "failed");
    let log = machine.ok("journalctl --unit=skupperd --output=cat");
    assert!(log.contains("--no-such"), "{log}");
}

#[test]
fn s14_sites_are_back_after_a_reboot() {
    let Some(machine) = install(SUITE) else {
        return;
    };
    ready(&machine);
    machine.ok("useradd --create-home joe");
    machine.ok("loginctl enable-linger joe");
    let joe = "su joe -s /bin/sh -c";
    let runtime = "XDG_RUNTIME_DIR=/run/user/$(id -u)";
    wait_until("joe's service manager", SOON, || {
        let line = format!("{joe} '{runtime} systemctl --user enable --now skupperd'");
        machine.run(&line).status.success()
    });
    machine.ok(&format!("{joe} 'skupper site create joes'"));
    machine.reboot();
    // No command but those that ask.
    assert!(active(&machine));
    wait_ready(&machine);
    wait_until("joe's site to be ready", SOON, || {
        let status = machine.ok(&format!("{joe} 'skupper site status joes -o json'"));
        let running = machine.run(&format!(
            "{joe} '{runtime} systemctl --user is-active skupperd'"
        ));
        status.contains("\"Ready\"") && running.status.success()
    });
}

#[test]
fn rpm_installs_and_keeps_state_when_erased() {
    if cfg!(not(target_arch = "x86_64")) {
        return skip("what rpm programs of this architecture are linked with is not known here");
    }
    let Some(files) = packages("rpm") else { return };
    let Some(machine) = Machine::boot(SUITE) else {
        return;
    };
    for file in &files {
        let name = file.file_name().expect("a name").to_string_lossy();
        machine.copy(file, &format!("/root/{name}"));
    }
    // What it asks for is what Enterprise Linux 9 has: with a package that says the same, it is
    // installed without force.
    let dir = tempfile::tempdir().expect("a directory");
    machine.copy(&enterprise_linux(dir.path()), "/root/base.rpm");
    machine.ok("rpm --install /root/base.rpm");
    machine.ok("rpm --install /root/skupper*.rpm");
    // Presets are the distribution's: Debian's has everything on, and rpm's does not start it.
    machine.ok("systemctl enable --now skupperd");
    ready(&machine);
    machine.ok("rpm --verify skupperd skupper");
    machine.ok("rpm --upgrade --force /root/skupper*.rpm");
    assert!(active(&machine));
    machine.ok("rpm --erase skupper skupperd");
    assert!(!active(&machine));
    assert_eq!(
        machine.ok("ls -d /sys/fs/bpf/skupper 2> /dev/null || true"),
        ""
    );
    assert!(!machine.run("test -e /usr/bin/skupperd").status.success());
    machine.ok("test -e /etc/skupper/namespaces/default/input/resources/Site-here.yaml");
    assert_eq!(machine.ok("systemctl --failed --no-legend"), "");
}

/// Makes a package that provides what a program may be linked with there, and what units need.
fn enterprise_linux(dir: &Path) -> PathBuf {
    let glibc = (4..=34).map(|n| format!("2.{n}"));
    let glibc = ["2.2.5", "2.3", "2.3.2", "2.3.3", "2.3.4"]
        .map(str::to_owned)
        .into_iter()
        .chain(glibc);
    let mut provides = vec![
        "systemd = 252".to_owned(),
        "rtld(GNU_HASH)".to_owned(),
        "/bin/sh".to_owned(),
        "ld-linux-x86-64.so.2()(64bit)".to_owned(),
        "ld-linux-x86-64.so.2(GLIBC_2.3)(64bit)".to_owned(),
        "libgcc_s.so.1()(64bit)".to_owned(),
        "libc.so.6()(64bit)".to_owned(),
        "libm.so.6()(64bit)".to_owned(),
    ];
    for version in ["3.0", "3.3", "3.3.1", "3.4", "4.2.0", "4.3.0"] {
        provides.push(format!("libgcc_s.so.1(GCC_{version})(64bit)"));
    }
    for version in glibc {
        provides.push(format!("libc.so.6(GLIBC_{version})(64bit)"));
        provides.push(format!("libm.so.6(GLIBC_{version})(64bit)"));
    }
    let provides: String = provides
        .iter()
        .map(|p| format!("Provides: {p}\n"))
        .collect();
    let spec = dir.join("base.spec");
    let text = format!(
        "Name: base\nVersion: 9\nRelease: 1\nSummary: what is there\nLicense: Apache-2.0\n\
         BuildArch: noarch\n{provides}%description\nWhat is there.\n%files\n"
    );
    fs::write(&spec, text).expect("a spec file");
    let built = Command::new("rpmbuild")
        .args(["-bb", "--quiet", "--define"])
        .arg(format!("_topdir {}", dir.display()))
        .arg(&spec)
        .output()
        .expect("rpmbuild runs");
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    dir.join("RPMS/noarch/base-9-1.noarch.rpm")
}

#[test]
fn two_builds_of_a_package_are_the_same() {
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
fn packages_are_as_their_distributions_want_them() {
    let Some(debs) = packages("deb") else { return };
    if installed("lintian") {
        // Words of two or three letters are found in every table of numbers that is long enough.
        let words = [
            "--fail-on=error,warning,info",
            "--display-level=>=info",
            "--suppress-tags=spelling-error-in-binary",
        ];
        says_nothing(Command::new("lintian").args(words).args(&debs));
    } else {
        skip("no lintian here: cargo xtask setup package brings it");
    }
    let Some(rpms) = packages("rpm") else { return };
    if installed("rpmlint") {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/rpm/rpmlint.toml");
        says_nothing(
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
fn what_comes_with_the_programs_is_there_and_says_what_they_do() {
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
    // Settings: each one of the daemon's, with its default, and none that is set.
    let settings = read("etc/default/skupperd");
    let help = Command::new(skupper_tests::program("skupperd"))
        .arg("--help")
        .output();
    let help = String::from_utf8(help.expect("skupperd").stdout).expect("text");
    // Lines are as long as a terminal is wide.
    let help: Vec<_> = help.split_whitespace().collect();
    let help = help.join(" ");
    let variables = help
        .match_indices("[env: ")
        .filter_map(|(at, begin)| help[at + begin.len()..].split('=').next());
    // Where things are is not a setting of the unit's; and the log's is no option.
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
    // Completions ask the command, which knows the words; that of bash is one for bash.
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
    // Whose work is in the programs, and under which terms.
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
    // A page for the command, each of its words, the daemon and every kind that is served.
    let pages = |section: &str| {
        let dir = dir.path().join(format!("usr/share/man/man{section}"));
        fs::read_dir(dir).expect("pages").count()
    };
    assert!(pages("1") > 30 && pages("5") >= 9 && pages("7") == 1 && pages("8") == 1);
}

#[track_caller]
fn says_nothing(command: &mut Command) {
    let output = command.output().expect("a checker that runs");
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {out}{err}");
}
