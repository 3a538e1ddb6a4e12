//! Manual pages that are written by hand: that of the daemon lists every option, and those of kinds
//! leave their settings to the table.

use skupper_tests::{program, workspace};
use skupperd::{
    manifest::settings::{Setting, manual, settings_of},
    model::Kind,
};
use std::{collections::BTreeSet, fs, process::Command};

#[test]
fn skupperd_8_documents_every_option() {
    let help = Command::new(program("skupperd"))
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

fn page_of(kind: Kind) -> String {
    let name = format!("skupper-{}.5", kind.as_str().to_lowercase());
    let path = workspace().join("packaging/man").join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn pages_of_kinds_list_their_settings_from_the_table() {
    for kind in Kind::ALL {
        let has_settings = settings_of(kind).next().is_some();
        // Both sides of an attached connector have one page, which refers to that of a connector.
        let page = match kind {
            Kind::AttachedConnectorBinding => page_of(Kind::AttachedConnector),
            Kind::SecuredAccess => continue,
            kind => page_of(kind),
        };
        let mark = format!("{}{kind}\n", manual::MARK);
        let refers = page.contains(".It Li settings\nThe settings of a\n.Xr skupper-connector 5 .");
        assert_eq!(page.contains(&mark) || refers, has_settings, "{kind}");
        let by_hand = settings_of(kind)
            .flat_map(Setting::keys)
            .find(|key| page.contains(&format!(".It Li {key}\n")));
        assert_eq!(by_hand, None, "{kind}: an item is written by hand");
        manual::expand(&page).unwrap();
    }
    let keys = |kind| settings_of(kind).map(|s| s.key).collect::<Vec<_>>();
    for side in [Kind::AttachedConnector, Kind::AttachedConnectorBinding] {
        assert_eq!(keys(side), keys(Kind::Connector), "{side}");
    }
}
