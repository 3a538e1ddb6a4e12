//! Input files that are no resources, or not valid: every overview lists them.

use skupper_tests::{SOON, bus::Bus, command::CliSite, site::Site, wait_until};
use std::{fs, os::unix::fs::symlink};

const HEAD: &str = "apiVersion: skupper.io/v2alpha1";

/// Starts a site with these input files, on files and over a bus.
fn cli_sites(files: &[(&str, String)]) -> [CliSite; 2] {
    [None, Some(Bus::session())].map(|bus| {
        let site = Site::new("a");
        for (name, text) in files {
            site.file(name, text);
        }
        // A file that nobody can read.
        symlink("/nowhere", site.input().join("gone.yaml")).expect("a link");
        let cli = CliSite::new(site, bus);
        wait_until("the daemon", SOON, || {
            let text = cli.ok(&["system", "status"]);
            let runs = if cli.bus.is_some() {
                "running since"
            } else {
                "running as"
            };
            text.contains(runs) && text.contains("default    a     Ready")
        });
        cli
    })
}

#[test]
fn overviews_list_input_files_with_errors() {
    let listener = |port: u16| {
        format!(
            "{HEAD}\nkind: Listener\nmetadata: {{name: twice}}\n\
             spec: {{routingKey: k, host: 127.0.0.1, port: {port}}}\n"
        )
    };
    let files = [
        ("words.yaml", "hello world\n".to_owned()),
        (
            "unnamed.yaml",
            format!("{HEAD}\nkind: Connector\nmetadata: {{}}\nspec: {{}}\n"),
        ),
        ("a-first.yaml", listener(1)),
        ("b-second.yaml", listener(2)),
    ];
    let expected = [
        ("words.yaml", "document is not a resource"),
        ("unnamed.yaml", "metadata.name"),
        ("b-second.yaml", "Listener twice is defined already at"),
        ("gone.yaml", "No such file or directory"),
    ];
    for cli in cli_sites(&files) {
        let check = |words: &[&str], text: &str| {
            for (file, reason) in expected {
                let mut lines = text.lines();
                let named = lines.any(|l| l.contains(file) && l.contains(reason));
                assert!(named, "{words:?}: {file}: {reason}: {text}");
            }
        };
        for words in [&["status"][..], &["system", "status"], &["debug", "check"]] {
            let output = cli.run(words, "");
            check(words, &String::from_utf8_lossy(&output.stdout));
            let code = i32::from(words[0] == "debug");
            assert_eq!(output.status.code(), Some(code), "{words:?}");
        }
        let all: serde_json::Value =
            serde_json::from_str(&cli.ok(&["status", "-o", "json"])).expect("JSON");
        assert_eq!(
            all["inputErrors"].as_array().map(Vec::len),
            Some(4),
            "{all}"
        );
        assert_eq!(all["inputErrors"][0]["kind"], "Listener", "{all}");
        if let Some(bus) = &cli.bus {
            let text = bus
                .call(&["InputErrors", "s", "default"])
                .expect("an answer");
            assert!(text.starts_with("a(sussss) 4 "), "{text}");
            for (file, _) in expected {
                assert!(text.contains(file), "{text}");
            }
        }
        // They go as the files go.
        for (file, _) in expected {
            fs::remove_file(cli.site.input().join(file)).expect("removed");
        }
        assert!(!cli.ok(&["status"]).contains("Errors in input files"));
    }
}

#[test]
fn a_site_that_is_not_valid_is_not_taken_for_none() {
    let site = Site::new("a");
    site.file(
        "Site-a.yaml",
        &format!("{HEAD}\nkind: Site\nmetadata: {{name: a}}\nspec: {{edge: 3}}\n"),
    );
    let cli = CliSite::new(site, None);
    cli.site.wait_status("Site", "a", "Error");
    let text = cli.ok(&["status"]);
    assert!(
        text.starts_with("Site a in namespace default: Error, "),
        "{text}"
    );
    assert!(text.contains("spec.edge"), "{text}");
    let text = cli.ok(&["system", "status"]);
    assert!(text.contains("default    a     Error"), "{text}");
    let output = cli.run(&["network", "status"], "");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.starts_with("site a is not valid: ") && text.contains("spec.edge"),
        "{text}"
    );
    let output = cli.run(&["debug", "check"], "");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("Site a") && !text.contains("there is none"),
        "{text}"
    );
}
