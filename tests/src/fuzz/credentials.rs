//! Certificates, keys and CAs that a user puts into files, and certificates that a peer shows.

use super::{heap, parts};
use base64::{Engine, engine::general_purpose::STANDARD};
use skupperd::{
    model::{Name, Secret},
    pki,
};

/// What rustls makes of credentials.
const BASE: usize = 1024 * 1024;
/// A certificate is kept as PEM, as DER and as what was read of it.
const EACH: usize = 256;

/// The key whose scalar is 1: nobody's secret, and that of the certificates among the seeds.
pub const KEY: &str = "-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABoAoGCCqGSM49
AwEHoUQDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li/hp/
m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==
-----END EC PRIVATE KEY-----
";

/// Credentials: the first octet tells how the rest is to be read. 0: certificate, key and CA as texts,
/// each behind its length in two octets. Anything else: the DER of a certificate, of which the key is
/// [`KEY`]. Tells whose certificate it is, and what speaks against it.
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
            // What a peer shows comes as DER.
            assert_eq!(pki::identify(rest), pki::identify_pem(&pem));
            Secret {
                certificate: pem.clone(),
                key: KEY.to_owned().into(),
                ca: pem,
                ..Secret::default()
            }
        };
        look(&secret)
    })
}

fn look(secret: &Secret) -> String {
    let name = Name::new("given").expect("a name");
    let identity = pki::identify_pem(&secret.certificate);
    if let Some(identity) = &identity
        && !identity.serial.is_empty()
    {
        let canonical = pki::canonical(&identity.serial);
        assert_eq!(canonical.as_ref(), Some(&identity.serial));
    }
    let _ = pki::renewal(&secret.certificate);
    let hosts = ["a.example", "192.0.2.1", "2001:db8::1"].map(str::to_owned);
    let server = pki::check(&name, secret, Some(&hosts));
    let ca = pki::check(&name, secret, None);
    // Who says why says it in a line, not in a book.
    for error in [&server, &ca].into_iter().filter_map(|r| r.as_ref().err()) {
        assert!(error.to_string().len() < 4096, "{error}");
    }
    drop(pki::server_config("given", secret));
    drop(pki::client_config("given", secret));
    drop(pki::grant_config("given", secret));
    drop(pki::token_config(&secret.ca));
    let told = |r: Result<(), pki::PkiError>| r.err().map_or("fit".to_owned(), |e| e.to_string());
    let subject = identity.map_or("nobody".to_owned(), |i| i.subject);
    format!("{subject}; server: {}; CA: {}", told(server), told(ca))
}
