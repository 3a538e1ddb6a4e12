use super::{
    check,
    rules::{Crates, Exception, Modules, RULES, Rules},
};
use anyhow::Result;
use std::fs;

/// Checks a source tree of these files.
fn violations(rules: &Rules, files: &[(&str, &str)]) -> Result<Vec<String>> {
    let dir = tempfile::tempdir()?;
    for (file, text) in files {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap_or(dir.path()))?;
        fs::write(path, text)?;
    }
    check(dir.path(), rules)
}

const NO_EXCEPTIONS: Rules = Rules {
    exceptions: &[],
    circles: &[],
    ..RULES
};

/// Expects one violation in one file, with this text.
#[track_caller]
fn refused(file: &str, text: &str, said: &str) {
    let found = violations(&NO_EXCEPTIONS, &[(file, text)]).expect("scanned");
    assert_eq!(found.len(), 1, "{text}: {found:?}");
    assert!(found[0].contains(said), "{text}: {found:?}");
}

#[track_caller]
fn accepted(file: &str, text: &str) {
    let found = violations(&NO_EXCEPTIONS, &[(file, text)]).expect("scanned");
    assert!(found.is_empty(), "{text}: {found:?}");
}

#[test]
fn a_higher_layer_is_refused_however_it_is_named() {
    let said = "router.rs:1: router (layer 1) may not use link (layer 4)";
    refused("router.rs", "use crate::link::Link;", said);
    refused("router.rs", "use crate::{amqp, link};", said);
    refused(
        "router.rs",
        "use crate::{amqp::{self, Frame}, link::{Link, dial}};",
        said,
    );
    refused("router.rs", "fn f() { crate::link::dial() }", said);
    refused("router.rs", "fn f() { g!(a, crate::link::dial()) }", said);
    refused("router.rs", "use super::link;", said);
    refused(
        "router.rs",
        "mod inner { use super::super::link::Link; }",
        said,
    );
    refused("router.rs", "pub use crate::link::*;", said);
    refused(
        "router/paths.rs",
        "use super::super::link;",
        "paths.rs:1: router",
    );
    refused(
        "router.rs",
        "#[cfg(test)] mod tests { use crate::link::Link; }",
        said,
    );
}

#[test]
fn a_violation_has_its_line() {
    refused(
        "amqp.rs",
        "\n\n// a comment\nuse crate::router::Router;\n",
        "amqp.rs:4: amqp",
    );
}

#[test]
fn the_same_layer_is_refused_unless_listed() {
    refused(
        "store.rs",
        "use crate::pki::Ca;",
        "store (layer 2) may not use pki (layer 2)",
    );
    accepted("pki.rs", "use crate::store::Layout;");
}

#[test]
fn lower_layers_and_the_module_itself_are_accepted() {
    accepted(
        "link.rs",
        "use crate::{amqp::Frame, link::dial::Dialer, pki, sys};",
    );
    accepted(
        "link/core/site.rs",
        "use super::super::dial; use super::Core; use self::x::Y;",
    );
    accepted("bin/skupperd.rs", "use skupperd::{daemon, telemetry};");
}

#[test]
fn comments_and_strings_do_not_count() {
    accepted(
        "amqp.rs",
        "//! See crate::link::Link.\n/* unsafe */ const A: &str = \"crate::link::X\";",
    );
}

#[test]
fn a_module_without_a_layer_is_refused() {
    refused(
        "link.rs",
        "use crate::gossip::Gossip;",
        "gossip is not in the table",
    );
}

#[test]
fn heavy_crates_stay_where_they_belong() {
    refused(
        "amqp.rs",
        "use tokio::io::AsyncRead;",
        "amqp may not use tokio: it takes bytes",
    );
    refused(
        "reconcile/plan/tests.rs",
        "#[tokio::test] async fn f() {}",
        "reconcile may not use tokio",
    );
    accepted("reconcile/planner.rs", "use tokio::sync::Notify;");
    refused(
        "observe.rs",
        "fn f() { ::rustls::x() }",
        "observe may not use rustls",
    );
    refused(
        "daemon.rs",
        "use zbus::Connection;",
        "daemon may not use zbus",
    );
    refused(
        "link/dial.rs",
        "use nix::sys::socket;",
        "link may not use nix",
    );
    refused(
        "proxy.rs",
        "let n = nix::libc::EAGAIN;",
        "proxy may not use nix",
    );
    refused("daemon.rs", "use aya::Ebpf;", "daemon may not use aya");
    accepted(
        "link.rs",
        "use tokio::net::TcpStream; use rustls::ClientConfig;",
    );
    accepted("steer/bpf.rs", "use aya::Ebpf;");
    // Only the first name of a path can be a crate.
    accepted(
        "amqp.rs",
        "use std::tokio::X; fn f() { a.tokio.b(); tokio(); }",
    );
}

#[test]
fn the_clock_is_read_outside_only() {
    refused(
        "router.rs",
        "let now = Instant::now();",
        "never reads it: Instant::now",
    );
    refused(
        "amqp/connection.rs",
        "let t = std::time::SystemTime::now();",
        "SystemTime::now",
    );
    refused(
        "reconcile/plan.rs",
        "if since.elapsed() > LIMIT {}",
        "never reads it: .elapsed()",
    );
    accepted("link.rs", "let now = Instant::now();");
    accepted("amqp.rs", "fn f(now: Instant) { now + x }");
    // Only tests may create the first instant.
    accepted(
        "router.rs",
        "#[cfg(test)]\nmod tests { fn f() { Instant::now(); } }",
    );
    accepted("router/tests/lines.rs", "fn f() { Instant::now(); }");
    refused(
        "router.rs",
        "#[cfg(test)] mod tests; fn f() { Instant::now(); }",
        "never reads it",
    );
    refused(
        "router.rs",
        "#[cfg(test)] fn a() {} fn f() { Instant::now(); }",
        "never reads it",
    );
}

#[test]
fn unsafe_is_in_one_module() {
    refused(
        "link.rs",
        "fn f() { unsafe { g() } }",
        "unsafe code is in sys only",
    );
    refused(
        "link.rs",
        "#[cfg(test)] mod tests { unsafe fn g() {} }",
        "unsafe code",
    );
    accepted("sys.rs", "fn f() { unsafe { g() } }");
    accepted("link.rs", "#![forbid(unsafe_code)]");
}

#[test]
fn exceptions_are_for_one_file_and_one_thing() -> Result<()> {
    let rules = Rules {
        crates: &[Crates {
            names: &["nix"],
            modules: Modules::Only(&["sys"]),
            reason: "calls",
        }],
        exceptions: &[Exception {
            file: "proxy/tcp.rs",
            what: "nix",
            reason: "for the test",
        }],
        ..RULES
    };
    let text = "use nix::x;";
    assert_eq!(violations(&rules, &[("proxy/tcp.rs", text)])?, [""; 0]);
    let both = violations(&rules, &[("proxy/tcp.rs", text), ("proxy.rs", text)])?;
    assert_eq!(both, ["proxy.rs:1: proxy may not use nix: calls"]);
    let stale = violations(&rules, &[("proxy/tcp.rs", "")])?;
    assert_eq!(
        stale,
        ["proxy/tcp.rs: the exception for nix is not needed any more"]
    );
    Ok(())
}

#[test]
fn a_module_of_more_than_a_tenth_of_the_lines_is_reported() {
    let lines = |modules: &[(&str, usize)]| {
        let modules = modules.iter().map(|(name, n)| ((*name).to_owned(), *n));
        super::oversized(&modules.collect())
    };
    let (a, rest) = (("a", 11), ("b", 89));
    assert_eq!(
        lines(&[
            ("a", 10),
            ("b", 9),
            ("c", 9),
            ("d", 9),
            ("e", 9),
            ("f", 9),
            ("g", 9),
            ("h", 9),
            ("i", 9),
            ("j", 9),
            ("k", 9)
        ]),
        [""; 0]
    );
    let reported = lines(&[a, rest]);
    assert_eq!(
        reported,
        [
            "a: 11 of 100 lines, more than 1 in 10: split it",
            "b: 89 of 100 lines, more than 1 in 10: split it"
        ]
    );
}

/// The workspace itself: the check of `cargo xtask lint`.
#[test]
fn the_project_keeps_its_layers() -> Result<()> {
    assert_eq!(
        check(&crate::sh::root().join(super::SOURCES), &RULES)?,
        [""; 0]
    );
    Ok(())
}
