//! The console: one page that draws what the API reports. It is one file without outside resources,
//! and its content security policy lets the browser load and run nothing else.
//!
//! Names come from other sites: the script inserts them as text, never as markup, and the policy
//! makes the browser refuse markup from scripts. Against DNS rebinding, requests are answered only
//! under names that always mean this host: the browser sends the name in `Host`.

use aws_lc_rs::{constant_time, digest, rand};
use base64::{Engine, engine::general_purpose};
use hyper::{
    HeaderMap, Request,
    header::{AUTHORIZATION, CONTENT_SECURITY_POLICY, HOST},
    http,
};
use std::{net::IpAddr, sync::LazyLock};

/// The page with style and script in place.
struct ConsolePage {
    html: String,
    policy: String,
}

static PAGE: LazyLock<ConsolePage> = LazyLock::new(|| {
    let (style, script) = (
        include_str!("console/style.css"),
        include_str!("console/script.js"),
    );
    let hash = |text: &str| {
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        general_purpose::STANDARD.encode(hash)
    };
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        hash(script),
        hash(style),
    );
    let html = include_str!("console/page.html")
        .replace("{{style}}", style)
        .replace("{{script}}", script);
    ConsolePage { html, policy }
});

pub fn page() -> &'static str {
    &PAGE.html
}

/// Headers of every response to a browser.
pub fn headers() -> [(http::HeaderName, &'static str); 6] {
    let name = http::HeaderName::from_static;
    [
        (CONTENT_SECURITY_POLICY, &PAGE.policy),
        (name("cache-control"), "no-store"),
        (name("cross-origin-resource-policy"), "same-origin"),
        (name("referrer-policy"), "no-referrer"),
        (name("x-content-type-options"), "nosniff"),
        (name("x-frame-options"), "DENY"),
    ]
}

/// Whether the request names this host by `localhost` or a loopback address.
pub fn is_for_this_host<B>(request: &Request<B>) -> bool {
    let hosts = request.headers().get_all(HOST).iter().collect::<Vec<_>>();
    let [host] = hosts[..] else {
        return false;
    };
    let host = host.to_str().unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    let ip = bare.unwrap_or(name).parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

/// In bytes.
const TOKEN_LENGTH: usize = 24;

/// The refusal of a request without the token.
pub const TOKEN_MISSING: &str =
    "the token is missing; open the URL that `skupper console` prints\n";
/// The refusal of a request under another name than this host's own.
pub const FOREIGN_NAME: &str =
    "the console is served under this host's own names only; use localhost\n";

/// The bearer token of a reader. It is in the fragment of the page's URL, which browsers do not send.
#[derive(Clone)]
pub struct ConsoleToken(String);

impl ConsoleToken {
    /// `None` when the system has no random numbers.
    pub fn new() -> Option<Self> {
        let mut bytes = [0; TOKEN_LENGTH];
        rand::fill(&mut bytes).ok()?;
        Some(Self(general_purpose::URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The URL of the page with the token, and a newline.
    pub fn url(&self, addr: std::net::SocketAddr) -> String {
        format!("http://{addr}/#{}\n", self.0)
    }

    /// Whether the headers of a request have the token.
    pub fn is_shown(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get(AUTHORIZATION).map(http::HeaderValue::as_bytes);
        let shown = shown.and_then(|value| value.strip_prefix(b"Bearer "));
        shown.is_some_and(|shown| {
            constant_time::verify_slices_are_equal(shown, self.0.as_bytes()).is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn for_host(host: &str) -> bool {
        is_for_this_host(&Request::builder().header(HOST, host).body(()).unwrap())
    }

    #[test]
    fn only_names_that_always_mean_this_host_are_accepted() {
        for own in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:9465",
            "[::1]",
        ] {
            assert!(for_host(own), "{own}");
        }
        for other in [
            "rebound.example:9465",
            "localhost.example",
            "127.0.0.1.example:80",
            "192.0.2.1:9465",
            "0.0.0.0",
            "localhost:x",
            "",
        ] {
            assert!(!for_host(other), "{other}");
        }
        assert!(!is_for_this_host(&Request::new(())));
        let two = Request::builder()
            .header(HOST, "localhost")
            .header(HOST, "other.example");
        assert!(!is_for_this_host(&two.body(()).unwrap()));
    }

    #[test]
    fn only_the_whole_token_is_accepted() {
        let token = ConsoleToken::new().unwrap();
        let shows = |value: &str| {
            let value = value.parse().unwrap();
            token.is_shown(&HeaderMap::from_iter([(AUTHORIZATION, value)]))
        };
        assert!(shows(&format!("Bearer {}", token.0)));
        assert!(!shows(&format!("Bearer {}", &token.0[1..])));
        assert!(!shows("Bearer "));
        assert!(!shows(&token.0));
        assert!(!token.is_shown(&HeaderMap::new()));
        assert_ne!(token.0, ConsoleToken::new().unwrap().0);
    }

    #[test]
    fn the_page_loads_nothing_from_outside_and_makes_no_markup_of_names() {
        let page = page();
        assert!(!page.contains("{{"), "a placeholder is left");
        // The XML namespace of SVG; nothing is fetched by it.
        let addresses = page.replace("http://www.w3.org/2000/svg", "");
        for outside in ["http:", "https:", "//cdn", "@import", "url("] {
            assert!(!addresses.contains(outside), "{outside}");
        }
        for markup in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!page.contains(markup), "{markup}");
        }
        let policy = headers()[0].1;
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
    }
}
