//! Runs the pages of the guide on two hosts. `skupper_tests::pages` describes the marks of blocks.

use skupper_tests::{
    SOON,
    host::{self, Host},
    pages::{Block, Page},
    wait_until,
};

/// Collapses blanks, because columns are as wide as their content.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The first expected line that is missing in the output.
fn missing<'a>(expected: &'a str, printed: &str) -> Option<&'a str> {
    let printed = plain(printed);
    expected
        .lines()
        .find(|line| !printed.contains(&plain(line)))
}

/// The state after the first pages of the guide: two linked sites, and a web server at the first
/// that only its own host reaches.
fn link(east: &mut Host, west: &mut Host) {
    east.shell(
        "mkdir -p hello\n\
         echo 'Hello from east' > hello/index.html\n\
         python3 -m http.server 8080 --bind 127.0.0.1 --directory hello > /dev/null 2>&1 &\n\
         skupper site create east --enable-link-access --host 10.99.0.1\n\
         skupper token issue token.yaml\n\
         scp token.yaml west:",
    );
    west.shell("skupper site create west\nskupper token redeem token.yaml\nrm token.yaml");
    east.shell("rm token.yaml");
}

fn run(name: &str) {
    let page = Page::read(&format!("docs/guide/{name}.md"));
    let Some([mut east, mut west]) = host::pair(["east", "west"]) else {
        return;
    };
    match page.run.as_deref() {
        Some("linked") => link(&mut east, &mut west),
        Some("empty") => {}
        other => panic!("{}: run: {other:?}", page.path),
    }
    let mut printed = String::new();
    let mut ran = 0;
    for (n, block) in page.blocks.iter().enumerate() {
        let at = format!("{}:{}", page.path, block.line);
        let words: Vec<&str> = block.words.iter().map(String::as_str).collect();
        let host = match words.first() {
            Some(&"east") => &mut east,
            Some(&"west") => &mut west,
            // `tests/machine/guide.rs` runs these.
            Some(&"machine") => continue,
            Some(other) => panic!("{at}: there is no host {other}"),
            None if block.language == "text" && ran > 0 => {
                let missing = missing(&block.text, &printed);
                assert_eq!(missing, None, "{at}: not in:\n{printed}");
                continue;
            }
            None => continue,
        };
        match (block.language.as_str(), &words[1..]) {
            ("yaml", [file]) => {
                std::fs::write(host.dir().join(file), &block.text).expect("a file");
            }
            ("sh", []) => printed = host.shell(&block.text),
            ("sh", ["fails"]) => {
                let (succeeded, text) = host.try_shell(&block.text);
                assert!(!succeeded, "{at}: it succeeds:\n{text}");
                printed = text;
            }
            ("sh", ["until"]) => printed = repeat(host, block, page.blocks.get(n + 1), &at),
            other => panic!("{at}: {other:?}"),
        }
        ran += 1;
    }
    assert!(ran > 0, "{}: no block was run", page.path);
}

/// Repeats a block until its output contains the next block.
fn repeat(host: &mut Host, block: &Block, next: Option<&Block>, at: &str) -> String {
    let next = next.filter(|next| next.language == "text");
    let expected = &next.unwrap_or_else(|| panic!("{at}: no text follows")).text;
    let mut printed = String::new();
    wait_until(&format!("{at}: {expected}"), SOON, || {
        let (succeeded, text) = host.try_shell(&block.text);
        printed = text;
        succeeded && missing(expected, &printed).is_none()
    });
    printed
}

/// A test for each page of the guide, by its file name.
macro_rules! pages {
    ($($test:ident: $page:literal,)*) => {
        $(
            #[test]
            fn $test() {
                run($page);
            }
        )*

        #[test]
        fn every_page_of_the_guide_has_a_test() {
            let tested = [$($page),*];
            for page in Page::all("docs/guide") {
                let name = page.path.trim_start_matches("docs/guide/");
                let name = name.trim_end_matches(".md");
                assert!(tested.contains(&name), "{} is not run", page.path);
            }
        }
    };
}

pages! {
    first_network: "first-network",
    acceleration: "acceleration",
    access_control: "access-control",
    certificates: "certificates",
    connectors: "connectors",
    dbus: "dbus",
    differences: "differences",
    edge_sites: "edge-sites",
    faq: "faq",
    listeners: "listeners",
    metrics_and_console: "metrics-and-console",
    migrate: "migrate",
    network_namespaces: "network-namespaces",
    operations: "operations",
    performance: "performance",
    security: "security",
    steering: "steering",
    tls: "tls",
    tokens_and_links: "tokens-and-links",
    troubleshooting: "troubleshooting",
}
