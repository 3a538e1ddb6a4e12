//! Linking sites by token, as an operator does.

use crate::{free_addr, free_port, site::Site};
use std::{
    path::{Path, PathBuf},
    process::Output,
};

/// A running site that accepts links and serves grants on loopback.
pub fn grant_site() -> Site {
    let mut a = stopped_grant_site();
    a.start();
    a.wait_status("RouterAccess", "access", "Ready");
    a
}

/// A site as of [`grant_site`] that is not started yet.
pub fn stopped_grant_site() -> Site {
    let a = Site::new("a");
    let port = free_port();
    let spec = format!(
        "{{settings: {{grant-server-port: \"{port}\", grant-server-bind-host: 127.0.0.1, grant-server-host: 127.0.0.1}}}}"
    );
    a.resource("Site", "a", &spec);
    a.access(free_addr());
    a
}

pub fn running_site(name: &str) -> Site {
    let mut site = Site::new(name);
    site.start();
    site.wait_status("Site", name, "Ready");
    site
}

/// Issues a token at a site and returns its file.
pub fn issue_token(a: &Site, args: &[&str]) -> PathBuf {
    let file = a.root().join("token.yaml");
    let mut all = vec!["token", "issue", file.to_str().expect("a path"), "--force"];
    all.extend(args);
    let said = a.ok(&all);
    assert!(
        said.contains("is ready") && said.contains("created"),
        "{said}"
    );
    file
}

/// Redeems a token from a file at a site.
pub fn redeem_token(site: &Site, file: &Path) -> Output {
    site.skupper(&[
        "token",
        "redeem",
        file.to_str().expect("a path"),
        "--timeout",
        "20s",
    ])
}
