//! Linking without files full of keys: grants that this site serves over HTTPS, and tokens that it
//! redeems for a link.
//!
//! The wire is upstream's: `POST` of the code to the URL of the grant; the answer is a Secret with
//! new credentials and a Link for each way in. What decides about a redemption is [`Desk`], without
//! a socket; [`Window`] is the HTTP around it and [`Server`] the TLS around that, [`redeem`] the other
//! side.

mod attempts;
mod desk;
mod doors;
mod redeem;
mod server;

pub use desk::{Desk, DeskError, Offer, Refusal};
pub use doors::{Door, Doors};
pub use redeem::{RedeemError, redeem, redeem_over};
pub use server::{Server, Window, serve};

use crate::{
    manifest::{document_of, to_yaml},
    model::{Link, Meta, Name, Namespace, Resource, Secret, Spec},
};

/// A Link with its credentials, as YAML documents for the site that is to dial it.
pub fn link_documents(
    name: &Name,
    link: Link,
    secret: Secret,
) -> Result<String, serde_yaml::Error> {
    let mut text = String::new();
    for spec in [Spec::Secret(secret), Spec::Link(link)] {
        // The namespace is that of whoever applies it.
        let meta = Meta::new(name.clone(), Namespace::default_namespace());
        text.push_str("---\n");
        text.push_str(&to_yaml(&document_of(&Resource { meta, spec }))?);
    }
    Ok(text)
}
