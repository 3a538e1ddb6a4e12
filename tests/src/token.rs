//! Linking by token, as an operator does it.

use crate::{free_addr, free_port, site::Site};
use std::{
    path::{Path, PathBuf},
    process::Output,
};

/// A site that links may come in to, with a grant server on loopback.
pub fn issuer() -> Site {
    let mut a = unstarted();
    a.start();
    a.wait_status("RouterAccess", "access", "Ready");
    a
}

/// The same before it is started.
pub fn unstarted() -> Site {
    let a = Site::new("a");
    let port = free_port();
    let spec = format!(
        "{{settings: {{grant-server-port: \"{port}\", grant-server-bind-host: 127.0.0.1, grant-server-host: 127.0.0.1}}}}"
    );
    a.resource("Site", "a", &spec);
    a.access(free_addr());
    a
}

/// A site that runs.
pub fn running(name: &str) -> Site {
    let mut site = Site::new(name);
    site.start();
    site.wait_status("Site", name, "Ready");
    site
}

/// Issues a token there; its file.
pub fn issue(a: &Site, args: &[&str]) -> PathBuf {
    let file = a.root().join("token.yaml");
    let mut all = vec!["token", "issue", file.to_str().expect("a path")];
    all.extend(args);
    let said = a.ok(&all);
    assert!(
        said.contains("is ready") && said.contains("created"),
        "{said}"
    );
    file
}

/// Redeems a token from a file.
pub fn redeem(site: &Site, file: &Path) -> Output {
    site.skupper(&[
        "token",
        "redeem",
        file.to_str().expect("a path"),
        "--timeout",
        "20s",
    ])
}
