//! Runs the blocks of the guide that need packages and units on a machine with systemd.

use skupper_tests::{machine, pages::Page};

/// In reading order: the last page uninstalls the packages.
const PAGES: [&str; 3] = ["first-network", "network-namespaces", "operations"];

/// Makes the shell behave like an administrator's: `sudo` exists, and `apt` asks nothing.
const SHELL: &str = "cd /root; sudo() { \"$@\"; }; export DEBIAN_FRONTEND=noninteractive; set -eu;";

#[test]
fn units_and_packages_are_handled_as_the_guide_says() {
    let Some(machine) = machine::install("bookworm") else {
        return;
    };
    machine.ok("echo 'APT::Get::Assume-Yes \"true\";' > /etc/apt/apt.conf.d/90yes");
    let mut ran = 0;
    for name in PAGES {
        let page = Page::read(&format!("docs/guide/{name}.md"));
        let blocks = page.blocks.iter();
        for block in blocks.filter(|block| block.words == ["machine"]) {
            machine.ok(&format!("{SHELL}\n{}", block.text));
            ran += 1;
        }
    }
    assert!(ran > 5, "{ran} blocks");
    machine.ok("test ! -e /var/lib/skupper && ! command -v skupperd");
}
