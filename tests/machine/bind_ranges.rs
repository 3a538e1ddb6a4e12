//! Listeners in the network namespaces of units, and service names, on hosts with only the
//! packages.

use skupper_tests::{
    SOON,
    machine::{Machine, install},
    wait_until,
};

/// A client of port 5432 on the localhost of a unit.
fn works(machine: &Machine) -> bool {
    let line = "nsenter --net=/proc/$(systemctl show --property=MainPID --value shop)/ns/net \
                sh -c 'echo hello | timeout 5 socat -t 5 - TCP:127.0.0.1:5432'";
    let output = machine.run(line);
    output.status.success() && output.stdout == b"hello\n"
}

fn apply(machine: &Machine, name: &str, spec: &str) {
    let text = format!(
        "apiVersion: skupper.io/v2alpha1\nkind: Listener\nmetadata:\n  name: {name}\nspec: {spec}\n"
    );
    let file = machine.root().join("root/listener.yaml");
    std::fs::write(file, text).expect("a manifest");
    machine.ok("skupper system apply -f /root/listener.yaml");
}

fn status(machine: &Machine, text: &str) {
    wait_until(text, SOON, || {
        let output = machine.run("skupper listener status db -o json");
        String::from_utf8_lossy(&output.stdout).contains(text)
    });
}

fn units_reach_services(suite: &str) {
    let Some(machine) = install(suite) else {
        return;
    };
    let unit = "[Service]\nPrivateNetwork=yes\nExecStart=sleep infinity\n";
    let file = machine.root().join("etc/systemd/system/shop.service");
    std::fs::write(file, unit).expect("a unit");
    machine.ok("systemctl daemon-reload");
    machine.ok("skupper site create here");
    machine.ok(
        "systemd-run --quiet --unit=echo socat TCP-LISTEN:7001,bind=127.0.0.1,fork,reuseaddr EXEC:cat",
    );
    machine.ok("skupper connector create db 7001 --host 127.0.0.1");
    apply(
        &machine,
        "db",
        "{routingKey: db, host: 127.0.0.1, port: 5432, \
         settings: {network-namespace: 'unit:shop.service'}}",
    );
    status(&machine, "unit:shop.service is not running");
    // Restart the unit several times.
    for _ in 0..2 {
        machine.ok("systemctl start shop");
        wait_until("the service in the unit", SOON, || works(&machine));
        status(&machine, "\"Ready\"");
        machine.ok("systemctl restart shop");
        wait_until("the service in the next one", SOON, || works(&machine));
        machine.ok("systemctl stop shop");
        status(&machine, "unit:shop.service is not running");
    }
    assert!(
        !machine
            .run("socat -u OPEN:/dev/null TCP:127.0.0.1:5432")
            .status
            .success(),
        "it is nowhere else"
    );
    // The daemon needs no further capabilities, and no other user may call the helper.
    let set = machine.ok("systemctl show --property=CapabilityBoundingSet skupperd");
    assert!(!set.contains("cap_sys_admin"), "{set}");
    let socket = "socat -u OPEN:/dev/null UNIX-CONNECT:/run/skupperd-netns.sock,type=5";
    let asked = machine.run(&format!(
        "setpriv --reuid=65534 --regid=65534 --clear-groups {socket}"
    ));
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(
        !asked.status.success() && said.contains("Permission denied"),
        "{said}"
    );
    let failed = machine.ok("systemctl list-units --failed --plain --no-legend");
    assert!(!failed.contains("skupper"), "{failed}");
    machine.ok("systemd-analyze verify --man=no skupperd-netns.socket");
    machine.ok("systemd-analyze verify --man=no skupperd-netns@0.service");
    machine.ok("systemd-analyze security --threshold=40 skupperd-netns@0.service");
    // Every program resolves the names, and stopping the daemon removes them.
    std::fs::write(
        machine.root().join("root/site.yaml"),
        "apiVersion: skupper.io/v2alpha1\nkind: Site\nmetadata:\n  name: here\n\
         spec: {settings: {service-addresses: 198.18.7.0/24}}\n",
    )
    .expect("a manifest");
    machine.ok("skupper system apply -f /root/site.yaml");
    apply(&machine, "web", "{routingKey: db, host: web, port: 443}");
    let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    wait_until("a name", SOON, || {
        let read = machine.run(&format!("{nobody} cat /run/skupper/hosts/default"));
        String::from_utf8_lossy(&read.stdout).contains("web web.default.skupper.internal")
    });
    machine.ok("cat /run/skupper/hosts/default >> /etc/hosts");
    wait_until("the service by name", SOON, || {
        let line = format!("echo hello | {nobody} timeout 5 socat -t 5 - TCP:web:443");
        let output = machine.run(&line);
        output.status.success() && output.stdout == b"hello\n"
    });
    machine.ok("systemctl stop skupperd");
    machine.ok("test -d /run/skupper/hosts && test ! -e /run/skupper/hosts/default");
    machine.ok("test ! -e /run/skupperd-netns.sock");
}

#[test]
fn units_with_a_network_of_their_own_reach_services_on_debian_12() {
    units_reach_services("bookworm");
}

#[test]
fn units_with_a_network_of_their_own_reach_services_on_debian_13() {
    units_reach_services("trixie");
}
