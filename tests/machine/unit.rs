//! The unit under systemd: its restrictions, the sockets and keys that systemd holds for it, and
//! connections during reload and stop.

use skupper_tests::{
    SOON,
    machine::{Machine, install},
    pki, program, wait_until,
};
use std::{collections::BTreeMap, fs, path::Path, time::Instant};

/// Debian releases with systemd 252 and 257.
const SUITES: [&str; 2] = ["bookworm", "trixie"];

fn drop_in(machine: &Machine, text: &str) {
    let dir = machine.root().join("etc/systemd/system/skupperd.service.d");
    fs::create_dir_all(&dir).expect("a directory");
    fs::write(dir.join("test.conf"), format!("[Service]\n{text}")).expect("a drop-in");
    machine.ok("systemctl daemon-reload");
}

fn ready(machine: &Machine) {
    machine.ok("skupper site create here --enable-link-access --timeout 60s");
}

fn testbed(machine: &Machine, name: &str) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testbed")
        .join(name);
    machine.copy(&from, &format!("/usr/local/bin/{name}"));
    machine.ok(&format!("chmod 755 /usr/local/bin/{name}"));
}

/// Results of the probe: whether the operation of each directive is allowed.
fn verdicts(text: &str) -> BTreeMap<&str, bool> {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let verdicts = lines.filter_map(|(name, verdict)| match verdict {
        "allowed" => Some((name, true)),
        "refused" => Some((name, false)),
        // Properties of the unit.
        _ => None,
    });
    verdicts.collect()
}

/// A probe in place of the daemon can do what the daemon needs and nothing else. Run as the same
/// user outside the unit, the probe can do what the unit prevents, except for operations that need
/// root.
#[test]
fn each_hardening_directive_of_the_unit_takes_effect() {
    for suite in SUITES {
        let Some(machine) = install(suite) else {
            return;
        };
        testbed(&machine, "probe");
        machine.ok(
            "systemctl stop skupperd; touch /tmp/of-others; mkdir -p /usr/lib/modules; \
             useradd --create-home joe; chmod 755 /home/joe",
        );
        // Run the probe with the shipped unit.
        machine.ok(
            "sed -e 's|^ExecStart=.*|ExecStart=/usr/local/bin/probe|' -e 's/^Type=.*/Type=oneshot/' \
             -e '/^ExecReload=/d' -e '/^Restart/d' -e '/^WatchdogSec=/d' -e '/^\\[Install\\]/,$d' \
             /usr/lib/systemd/system/skupperd.service > /run/systemd/system/probe.service; \
             systemctl daemon-reload; systemctl start probe.service",
        );
        let within = machine.ok("journalctl --unit=probe --output=cat");
        let within = verdicts(&within);
        let needed = [
            "StateDirectory",
            "ConfigurationDirectory",
            "RuntimeDirectory",
            "AF_UNIX",
            "AF_NETLINK",
            "CAP_NET_BIND_SERVICE",
        ];
        for name in needed {
            assert_eq!(within.get(name), Some(&true), "{suite}: {name}");
        }
        let refused = [
            "ProtectSystem",
            "ProtectHome",
            "PrivateTmp",
            "PrivateDevices",
            "ProtectControlGroups",
            "ProtectKernelTunables",
            "ProcSubset",
            "ProtectProc",
            "ProtectKernelModules",
            "RestrictAddressFamilies",
            "RestrictNamespaces",
            "RestrictSUIDSGID",
            "LockPersonality",
            "MemoryDenyWriteExecute",
            "SystemCallFilter",
            "CAP_NET_RAW",
            "UMask",
            "LimitCORE",
            "NoNewPrivileges",
        ];
        for name in refused {
            assert_eq!(within.get(name), Some(&false), "{suite}: {name}");
        }
        assert_eq!(within.len(), needed.len() + refused.len(), "{within:?}");
        machine.ok("install -d -o skupper /run/skupper");
        let without = machine.ok("runuser -u skupper -- /usr/local/bin/probe");
        let without = verdicts(&without);
        // A privileged port and a raw socket need a capability; the others depend on the host of
        // the container.
        let may_differ = [
            "CAP_NET_RAW",
            "PrivateDevices",
            "LimitCORE",
            "ProtectControlGroups",
            "ProtectKernelTunables",
        ];
        for name in refused.iter().filter(|name| !may_differ.contains(name)) {
            assert_eq!(
                without.get(name),
                Some(&true),
                "{suite}: {name} without the unit"
            );
        }
    }
}

#[test]
fn one_unit_reports_all_namespaces_and_warns_of_missing_lingering() {
    let Some(machine) = install("bookworm") else {
        return;
    };
    ready(&machine);
    machine.ok("skupper -n second site create other --timeout 60s");
    wait_until("both sites in the unit's line", SOON, || {
        let said = machine.ok("systemctl status skupperd");
        said.contains("Active: active (running)") && said.contains("Status: \"2 sites")
    });
    // root gets the system unit, which does not end with a session.
    let said = machine.run("USER=root skupper system install");
    assert!(!String::from_utf8_lossy(&said.stderr).contains("linger"));
    // An ordinary user's service manager ends with the session, unless lingering is enabled.
    machine.ok("useradd --create-home joe");
    let joe = |line: &str| {
        let line = format!(
            "export XDG_RUNTIME_DIR=/run/user/$(id -u joe); runuser -u joe -- env USER=joe HOME=/home/joe {line}"
        );
        let output = machine.run(&line);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{line}: {errors}");
        errors
    };
    machine.ok("systemctl start user@$(id -u joe)");
    let hint = "loginctl enable-linger joe";
    for words in ["install", "stop", "start"] {
        let said = joe(&format!("skupper system {words}"));
        assert_eq!(said.contains(hint), words != "stop", "{words}: {said}");
    }
    machine.ok(hint);
    assert_eq!(joe("skupper system start"), "");
}

/// A command that redeems a token with curl and prints the HTTP status.
fn redeem(name: &str) -> String {
    format!(
        "curl --silent --show-error --max-time 30 --cacert /root/ca --header 'name: {name}' \
         --data-binary @/root/code --output /root/{name} --write-out '%{{http_code}}' $(cat /root/url)"
    )
}

/// Issues a token for redemption with curl.
fn issue(machine: &Machine) {
    machine.ok("rm -f /root/token.yaml; \
         skupper token issue /root/token.yaml --redemptions-allowed 100");
    let token = fs::read_to_string(machine.root().join("root/token.yaml")).expect("a token");
    let token: serde_yaml::Value = serde_yaml::from_str(&token).expect("YAML");
    for part in ["url", "code", "ca"] {
        let text = token["spec"][part].as_str().expect("a text");
        fs::write(machine.root().join("root").join(part), text).expect("a file");
    }
}

#[test]
fn a_redemption_activates_the_service_and_a_restart_refuses_none() {
    for suite in SUITES {
        let Some(machine) = install(suite) else {
            return;
        };
        // An address that other hosts could reach.
        machine.ok("ip address add 198.18.0.1/32 dev lo");
        ready(&machine);
        let unit = "skupperd-grants@default.socket";
        // The socket unit is optional.
        assert!(
            !machine
                .run(&format!("systemctl is-enabled {unit}"))
                .status
                .success()
        );
        machine.ok(&format!("systemd-analyze verify --man=no {unit}"));
        machine.ok(&format!(
            "systemctl enable {unit}; systemctl stop skupperd; systemctl start {unit}"
        ));
        machine.ok("systemctl start skupperd");
        issue(&machine);
        machine.ok("systemctl stop skupperd");
        assert_eq!(machine.ok(&redeem("one")), "200");
        machine.ok("grep -q 'kind: Link' /root/one");
        // It answers a moment before it says that it is ready.
        wait_until("the service", SOON, || {
            let active = machine.run("systemctl is-active skupperd");
            active.status.success()
        });
        // Clients wait while the service restarts.
        machine.ok("systemctl restart --no-block skupperd");
        let mut number = 0;
        let begin = Instant::now();
        let pid = || machine.ok("systemctl show -P MainPID -P ActiveState skupperd");
        let before = pid();
        loop {
            number += 1;
            assert_eq!(machine.ok(&redeem(&format!("r{number}"))), "200");
            let now = pid();
            if now != before && now.contains("\nactive") && number > 5 {
                break;
            }
            assert!(begin.elapsed() < SOON, "it has not restarted: {now}");
        }
        // Without a grant clients do not wait, and the service is not started again and again.
        machine.ok("rm /etc/skupper/namespaces/default/input/resources/AccessGrant-*");
        wait_until("the end of the grant", SOON, || {
            let output = machine.run(&redeem("none"));
            !output.status.success() && machine.run("systemctl is-active skupperd").status.success()
        });
        let said = machine.run("timeout 10 socat -u TCP:127.0.0.1:9090 -");
        assert!(said.status.success() && said.stdout.is_empty(), "sent away");
        // After a reboot the port is open before the daemon runs.
        machine.reboot();
        machine.ok(&format!("systemctl is-active {unit} skupperd"));
        // The status reports that the site's settings name another port, which stays closed.
        machine.ok("skupper token issue /root/other.yaml");
        let grants =
            machine.ok("cat /var/lib/skupper/namespaces/default/runtime/resources/AccessGrant-*");
        assert!(grants.contains(":9090/"), "{grants}");
        // Removing the package closes the port.
        machine.ok("dpkg --purge skupper skupperd");
        let left = machine.ok("ss -Hltn 'sport = 9090'; ls /etc/systemd/system/*.wants");
        assert!(
            !left.contains("9090") && !left.contains("skupperd"),
            "{left}"
        );
    }
}

#[test]
fn keys_can_be_systemd_credentials() {
    for suite in SUITES {
        let Some(machine) = install(suite) else {
            return;
        };
        let (certificate, key) = pki::ca("an administrator's CA");
        let put = |path: &str, text: &str| {
            fs::write(machine.root().join(path), text).expect("a file");
        };
        let input = "etc/skupper/namespaces/default/input/issuers/skupper-site-ca";
        machine.ok(&format!(
            "install -d -o skupper -g skupper -m 700 /etc/skupper/namespaces /etc/skupper/namespaces/default \
             /etc/skupper/namespaces/default/input /etc/skupper/namespaces/default/input/issuers /{input}"
        ));
        put(&format!("{input}/tls.crt"), &certificate);
        machine.ok(&format!("chown skupper: /{input}/tls.crt"));
        put("root/key.pem", &key);
        machine.ok("chmod 600 /root/key.pem");
        let name = "skupper.issuers.default.skupper-site-ca.tls.key";
        // An incomplete credential: the error names the missing part and its possible names.
        drop_in(
            &machine,
            &format!("LoadCredential={name}.old:/root/key.pem\n"),
        );
        machine.ok("systemctl restart skupperd; \
             skupper site create here --enable-link-access --wait none");
        wait_until("the reason", SOON, || {
            let log = machine.ok("journalctl --unit=skupperd --output=cat");
            log.contains("skupper-site-ca/tls.key is missing") && log.contains(name)
        });
        // The fields can be searched for.
        let entries =
            "journalctl --unit=skupperd --output=cat --priority=err SKUPPER_NAMESPACE=default";
        let entries = machine.ok(entries);
        assert!(entries.contains("cannot apply resource"), "{entries}");
        for kind in ["plain", "encrypted"] {
            if kind == "plain" {
                drop_in(&machine, &format!("LoadCredential={name}:/root/key.pem\n"));
            } else {
                machine.ok(&format!(
                    "systemd-creds encrypt --with-key=host --name={name} /root/key.pem /root/key.cred; \
                     rm /root/key.pem"
                ));
                drop_in(
                    &machine,
                    &format!("LoadCredentialEncrypted={name}:/root/key.cred\n"),
                );
            }
            machine.ok("systemctl restart skupperd");
            wait_until("the site with the CA", SOON, || {
                let status = machine.run("skupper site status here -o json").stdout;
                String::from_utf8_lossy(&status).contains("\"status\": \"Ready\"")
            });
            let link = machine.ok("skupper link generate --host 127.0.0.1");
            let encoded = link
                .lines()
                .find_map(|line| line.trim().strip_prefix("ca.crt: "))
                .expect("a CA");
            use base64::{Engine, engine::general_purpose::STANDARD};
            let shown = STANDARD.decode(encoded.trim()).expect("base64");
            assert_eq!(
                String::from_utf8_lossy(&shown).trim(),
                certificate.trim(),
                "{suite}, {kind}"
            );
        }
        // No file of the service contains the key, and other users cannot read it.
        let line = key.lines().nth(1).expect("a line of the key");
        let found = machine.run(&format!("grep -rlF '{line}' /etc /var /run/skupper /root"));
        assert_eq!(String::from_utf8_lossy(&found.stdout), "", "{suite}");
        // Only the service can sign with it.
        machine.ok("systemctl stop skupperd");
        let output = machine.run("skupper link generate --host 127.0.0.1");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains("tls.key is missing"),
            "{said}"
        );
    }
}

/// Runs `hold` in a machine, with this many connections to 127.0.0.1:80.
fn hold(machine: &Machine, count: usize) {
    machine.copy(&program("hold"), "/usr/local/bin/hold");
    machine.ok(&format!(
        "chmod 755 /usr/local/bin/hold; rm -f /run/go; mkfifo /run/go; \
         systemd-run --quiet --unit=hold --property=LimitNOFILE=100000 \
         sh -c 'exec hold 127.0.0.1:7000 127.0.0.1:80 {count} < /run/go > /run/said 2>&1'; \
         systemd-run --quiet --unit=hold-open sh -c 'exec sleep 600 > /run/go'"
    ));
    wait_until("the connections", SOON, || {
        hold_output(machine).contains(" held, ")
    });
    assert_eq!(
        hold_output(machine).trim(),
        format!("{count} held, 0 refused")
    );
}

fn hold_output(machine: &Machine) -> String {
    machine.ok("cat /run/said 2> /dev/null || true")
}

#[test]
fn a_reload_keeps_five_hundred_connections_and_a_stop_drains_them() {
    let Some(machine) = install("bookworm") else {
        return;
    };
    ready(&machine);
    machine.ok(
        "skupper connector create echo 7000 --host 127.0.0.1 --wait none; \
         skupper listener create echo 80 --host 127.0.0.1 --wait configured",
    );
    hold(&machine, 500);
    for _ in 0..3 {
        machine.ok("systemctl reload skupperd");
    }
    machine.ok("systemctl stop --no-block skupperd");
    wait_until("the drain", SOON, || {
        machine.ok("systemctl show -P ActiveState skupperd").trim() == "deactivating"
    });
    // New connections are refused, and open ones go on.
    wait_until("the port to close", SOON, || {
        !machine
            .run("socat -u /dev/null TCP:127.0.0.1:80")
            .status
            .success()
    });
    machine.ok("echo > /run/go");
    wait_until("all to work once more", SOON, || {
        hold_output(&machine).ends_with("500 still good\n")
    });
    wait_until("the end", SOON, || {
        machine.ok("systemctl show -P ActiveState skupperd").trim() == "inactive"
    });
    let log = machine.ok("journalctl --unit=skupperd --output=cat");
    assert!(log.contains("all connections have ended"), "{log}");
    // The daemon closes connections that are open at the drain deadline.
    drop_in(&machine, "Environment=SKUPPERD_OPTIONS=--drain=2\n");
    machine.ok("systemctl stop hold-open; systemctl start skupperd");
    hold(&machine, 10);
    let begin = Instant::now();
    machine.ok("systemctl stop skupperd");
    let took = begin.elapsed().as_secs_f64();
    assert!((2.0..10.0).contains(&took), "{took}");
    let log = machine.ok("journalctl --unit=skupperd --output=cat");
    assert!(log.contains("drain deadline passed"), "{log}");
}
