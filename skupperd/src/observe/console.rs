//! The console: one page that draws what the API says. It is one file without outside resources, and
//! its policy lets a browser run and ask for nothing else.
//!
//! Names come from other sites: the script makes text of them, never markup, and the policy has the
//! browser refuse markup from scripts. A page of another origin that has its name resolve to this
//! host is told from this one by the `Host` that its browser sends.

use aws_lc_rs::{constant_time, digest, rand};
use base64::{Engine, engine::general_purpose};
use hyper::{
    HeaderMap, Request,
    header::{AUTHORIZATION, CONTENT_SECURITY_POLICY, HOST},
    http,
};
use std::{net::IpAddr, sync::LazyLock};

/// The page, put together from its parts.
struct Page {
    html: String,
    policy: String,
}

static PAGE: LazyLock<Page> = LazyLock::new(|| {
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
    Page { html, policy }
});

/// The page as HTML.
pub fn page() -> &'static str {
    &PAGE.html
}

/// Headers that every answer to a browser has.
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

/// The request is for this host by a name that is always its own.
pub fn is_for_this_host<B>(request: &Request<B>) -> bool {
    let named = request.headers().get_all(HOST).iter().collect::<Vec<_>>();
    let [host] = named[..] else {
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

/// Length of a token in bytes.
const TOKEN: usize = 24;

/// What a reader has to show. The page has it from the fragment of its address, which browsers send
/// to nobody.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A new one; none where the system has no random numbers.
    pub fn new() -> Option<Self> {
        let mut bytes = [0; TOKEN];
        rand::fill(&mut bytes).ok()?;
        Some(Self(general_purpose::URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The address of the page with it.
    pub fn url(&self, addr: std::net::SocketAddr) -> String {
        format!("http://{addr}/#{}\n", self.0)
    }

    /// A request shows it.
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
    fn o9_only_names_that_are_always_this_host_are_its_own() {
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
    fn o9_a_token_is_shown_whole_or_not_at_all() {
        let token = Token::new().unwrap();
        let shows = |value: &str| {
            let value = value.parse().unwrap();
            token.is_shown(&HeaderMap::from_iter([(AUTHORIZATION, value)]))
        };
        assert!(shows(&format!("Bearer {}", token.0)));
        assert!(!shows(&format!("Bearer {}", &token.0[1..])));
        assert!(!shows("Bearer "));
        assert!(!shows(&token.0));
        assert!(!token.is_shown(&HeaderMap::new()));
        assert_ne!(token.0, Token::new().unwrap().0);
    }

    #[test]
    fn o9_the_page_needs_nothing_from_outside_and_makes_no_markup_of_names() {
        let page = page();
        assert!(!page.contains("{{"), "a part is missing");
        // The name of a format; nothing is fetched by it.
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
