//! Installation, upgrade, removal and purge of the packages, and the hardened unit, with a real
//! systemd.

use skupper_tests::{
    SOON,
    machine::{Machine, install, packages},
    skip::skip,
    wait_until,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// The oldest supported Debian release; tests of packages and units also use the newest.
pub(crate) const SUITE: &str = "bookworm";

const NEWEST: &str = "trixie";

/// Creates a site and waits until the daemon has it.
fn ready(machine: &Machine) {
    machine.ok("skupper site create here --enable-link-access");
    wait_ready(machine);
}

fn wait_ready(machine: &Machine) {
    wait_until("the site to be ready", SOON, || {
        // It fails until the daemon runs.
        let status = machine.run("skupper site status here -o json").stdout;
        String::from_utf8_lossy(&status).contains("\"status\": \"Ready\"")
    });
}

fn active(machine: &Machine) -> bool {
    machine.run("systemctl is-active skupperd").status.success()
}

/// Files, users and units of the packages.
fn traces(machine: &Machine) -> String {
    machine.ok(
        "find / -xdev \\( -path /proc -o -path /sys -o -path /root -o -path /var/log \\) -prune -o \
         -iname '*skupper*' ! -path '/var/cache/apt/*' ! -name skupper-machine -print | sort; \
         grep -H skupper /etc/passwd /etc/group /etc/shadow || true",
    )
}

#[test]
fn install_upgrade_and_purge_on_debian_12() {
    lifecycle(SUITE);
}

#[test]
fn install_upgrade_and_purge_on_debian_13() {
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

    // For the maintainer scripts a reinstallation is an upgrade; changed configuration files stay.
    let first = machine.ok("systemctl show -P MainPID skupperd");
    machine.ok("dpkg -i /root/*.deb");
    assert!(active(&machine));
    assert_ne!(first, machine.ok("systemctl show -P MainPID skupperd"));
    assert!(machine.ok("cat /etc/default/skupperd").contains(setting));
    wait_ready(&machine);

    machine.ok("dpkg --remove skupper skupperd");
    assert!(!active(&machine));
    assert!(!machine.run("test -e /usr/bin/skupperd").status.success());
    // Removal keeps the site and its keys,
    machine.ok("test -e /etc/skupper/namespaces/default/input/resources/Site-here.yaml");
    machine.ok("test -e /var/lib/skupper/namespaces/default/runtime/issuers");
    // so a new installation serves the site again.
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
fn the_service_is_hardened_and_not_root_on_debian_12() {
    hardened(SUITE);
}

#[test]
fn the_service_is_hardened_and_not_root_on_debian_13() {
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
    // The threshold is in tenths: 2.0 of 10.
    machine.ok("systemd-analyze security --threshold=20 skupperd.service");
    ready(&machine);
    let status = machine.ok("cat /proc/$(systemctl show -P MainPID skupperd)/status");
    let user = machine.ok("id -u skupper");
    let of = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.map(str::trim).unwrap_or_default().to_owned()
    };
    assert_eq!(of("Uid:"), [user.trim(); 4].join("\t"));
    // The process has exactly CAP_NET_BIND_SERVICE, CAP_NET_ADMIN and CAP_BPF.
    for set in ["CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(of(set), "0000008000001400", "{set}");
    }
    assert_eq!(
        (of("NoNewPrivs:"), of("Seccomp:")),
        ("1".into(), "2".into())
    );

    // The unit permits everything that sites need, including a privileged port.
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
    // Steering works with these capabilities and this system call filter.
    let log = machine.ok("journalctl --unit=skupperd --output=cat");
    assert!(log.contains("steering is on"), "{log}");
}

#[test]
fn a_site_made_before_the_daemon_is_installed_starts_with_it() {
    let Some([daemon, command]) = packages("deb") else {
        return;
    };
    let Some(machine) = Machine::boot("bookworm") else {
        return;
    };
    let install = |file: &Path| {
        let name = file.file_name().expect("a name").to_string_lossy();
        machine.copy(file, &format!("/root/{name}"));
        machine.ok(&format!(
            "DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends /root/{name}"
        ));
    };
    install(&command);
    machine.ok("skupper site create here --enable-link-access --timeout 1s || true");
    machine.ok("test -f /etc/skupper/namespaces/default/input/resources/Site-here.yaml");
    install(&daemon);
    wait_ready(&machine);
    let owners = machine.ok("find /etc/skupper /var/lib/skupper -not -user skupper");
    assert_eq!(owners, "", "everything is the service's");
}

#[test]
fn a_killed_daemon_is_restarted() {
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
    // systemd does not restart a service with an invalid option.
    machine.ok("echo SKUPPERD_OPTIONS=--no-such >> /etc/default/skupperd");
    assert!(!machine.run("systemctl restart skupperd").status.success());
    // A service that systemd is about to restart would be in state `activating`.
    let state = machine.ok("systemctl show -P ActiveState skupperd");
    assert_eq!(state.trim(), "failed");
    let log = machine.ok("journalctl --unit=skupperd --output=cat");
    assert!(log.contains("--no-such"), "{log}");
}

#[test]
fn sites_are_back_after_a_reboot() {
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
    // These commands change nothing.
    assert!(active(&machine));
    wait_ready(&machine);
    wait_until("joe's site to be ready", SOON, || {
        let status = machine.run(&format!("{joe} 'skupper site status joes -o json'"));
        let status = String::from_utf8_lossy(&status.stdout);
        let running = machine.run(&format!(
            "{joe} '{runtime} systemctl --user is-active skupperd'"
        ));
        status.contains("\"status\": \"Ready\"") && running.status.success()
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
    // The package depends on what Enterprise Linux 9 provides. A stub provides the same here, so
    // that the package installs without `--nodeps`.
    let dir = tempfile::tempdir().expect("a directory");
    machine.copy(&enterprise_linux(dir.path()), "/root/base.rpm");
    machine.ok("rpm --install /root/base.rpm");
    machine.ok("rpm --install /root/skupper*.rpm");
    // The rpm leaves starting the service to the distribution's presets.
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

/// Builds a stub package that provides the libraries and units of Enterprise Linux 9.
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
