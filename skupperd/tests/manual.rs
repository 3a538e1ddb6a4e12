//! The manual page of the daemon, which is written by hand, names what there is.

use std::{collections::BTreeSet, process::Command};

#[test]
fn skupperd_8_names_every_option() {
    let help = Command::new(env!("CARGO_BIN_EXE_skupperd"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let page = include_str!("../../packaging/man/skupperd.8");
    let options: BTreeSet<&str> = help
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .filter_map(|word| word.strip_prefix("--"))
        .collect();
    assert!(options.contains("system"), "{help}");
    let missing: Vec<_> = options
        .iter()
        .filter(|option| !page.contains(&format!(".It Fl \\-{option}")))
        .collect();
    assert!(missing.is_empty(), "not in skupperd(8): {missing:?}");
}
