//! Addresses that the host gets and loses while the daemon runs.

use serde_json::Value;
use skupper_tests::{
    SOON,
    netns::{self, run},
    site::Site,
    token::{issue_token, redeem_token, running_site},
    wait_until,
};
use std::fs;

fn wait_for_endpoint(site: &Site, host: &str) {
    wait_until(&format!("an endpoint at {host}"), SOON, || {
        let status = site.status("Site", site.name()).unwrap_or(Value::Null);
        status["status"]["endpoints"][0]["host"] == host
    });
}

#[test]
fn link_access_and_grants_follow_the_addresses_of_the_host() {
    if !netns::enter() {
        return;
    }
    let address = |verb: &str, address: &str| {
        run("ip", &["addr", verb, &format!("{address}/32"), "dev", "lo"]);
    };
    let mut a = Site::new("a");
    a.resource("Site", "a", "{linkAccess: default}");
    a.start();
    a.wait_status("Site", "a", "Ready");
    // As after a late lease of DHCP.
    address("add", "192.0.2.1");
    wait_for_endpoint(&a, "192.0.2.1");
    let pid = a.pid();
    let first = issue_token(&a, &["--name", "first"]);
    let text = fs::read_to_string(&first).expect("a token");
    assert!(text.contains("url: https://192.0.2.1:9090/"), "{text}");
    let b = running_site("b");
    let output = redeem_token(&b, &first);
    assert!(output.status.success(), "{output:?}");
    // Another address in place of it, while a grant is open.
    let open = issue_token(&a, &["--name", "open", "--redemptions-allowed", "5"]);
    drop(open);
    address("add", "192.0.2.2");
    address("del", "192.0.2.1");
    wait_for_endpoint(&a, "192.0.2.2");
    let second = issue_token(&a, &["--name", "second"]);
    let text = fs::read_to_string(&second).expect("a token");
    assert!(text.contains("url: https://192.0.2.2:9090/"), "{text}");
    let c = running_site("c");
    let output = redeem_token(&c, &second);
    assert!(output.status.success(), "{output:?}");
    // A link that is made now is valid for the certificate.
    let d = running_site("d");
    d.file("link.yaml", &a.ok(&["link", "generate", "--name", "to-a"]));
    d.wait_status("Link", "to-a", "Ready");
    assert_eq!(a.pid(), pid, "nothing was restarted");
}
