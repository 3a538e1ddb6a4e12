//! Certificates, keys and CAs from files, and certificates from peers.

use super::{heap, parts};
use base64::{Engine, engine::general_purpose::STANDARD};
use skupperd::{
    model::{Name, Secret, SerialNumber},
    pki,
};

/// Memory of rustls for credentials.
const BASE: usize = 1024 * 1024;
/// Per input byte: a certificate is kept as PEM, as DER and parsed.
const EACH: usize = 256;

/// The key whose scalar is 1, which the certificates among the seeds use.
pub const KEY: &str = "-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABoAoGCCqGSM49
AwEHoUQDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li/hp/
m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==
-----END EC PRIVATE KEY-----
";

/// Credentials: the first byte selects the format. 0: certificate, key and CA as texts, each
/// preceded by its length in two bytes. Otherwise: a certificate in DER, with the key [`KEY`].
/// Returns the subject and what is invalid.
pub fn credentials(data: &[u8]) -> String {
    let Some((form, rest)) = data.split_first() else {
        return String::new();
    };
    heap::bounded(data.len(), BASE, EACH, || {
        let secret = if *form == 0 {
            let mut texts = parts(rest).map(|part| String::from_utf8_lossy(part).into_owned());
            let mut next = || texts.next().unwrap_or_default();
            Secret {
                certificate: next(),
                key: next().into(),
                ca: next(),
                ..Secret::default()
            }
        } else {
            let pem = format!(
                "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
                STANDARD.encode(rest)
            );
            // A peer presents its certificate as DER.
            assert_eq!(pki::identify(rest), pki::identify_pem(&pem));
            Secret {
                certificate: pem.clone(),
                key: KEY.to_owned().into(),
                ca: pem,
                ..Secret::default()
            }
        };
        check(&secret)
    })
}

fn check(secret: &Secret) -> String {
    let name = Name::new("given").expect("a name");
    let identity = pki::identify_pem(&secret.certificate);
    if let Some(identity) = &identity
        && !identity.serial.is_empty()
    {
        let canonical = SerialNumber::parse(&identity.serial).map(String::from);
        assert_eq!(canonical.as_ref(), Some(&identity.serial));
    }
    let _ = pki::renewal(&secret.certificate);
    let hosts = ["a.example", "192.0.2.1", "2001:db8::1"].map(str::to_owned);
    let server = pki::check(&name, secret, Some(&hosts));
    let ca = pki::check(&name, secret, None);
    // Error texts must be one line.
    for error in [&server, &ca].into_iter().filter_map(|r| r.as_ref().err()) {
        assert!(error.to_string().len() < 4096, "{error}");
    }
    drop(pki::server_config("given", secret));
    drop(pki::client_config("given", secret));
    drop(pki::grant_config("given", secret));
    drop(pki::token_config(&secret.ca));
    let verdict =
        |r: Result<(), pki::PkiError>| r.err().map_or("fit".to_owned(), |e| e.to_string());
    let subject = identity.map_or("nobody".to_owned(), |i| i.subject);
    format!(
        "{subject}; server: {}; CA: {}",
        verdict(server),
        verdict(ca)
    )
}
