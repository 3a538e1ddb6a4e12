//! Access grants, which a site serves over HTTPS, and access tokens, which it redeems for a link.
//!
//! The protocol is Skupper's: the client POSTs the code to the URL of the grant and receives a Secret
//! with new credentials and a Link for each link access of the site. [`GrantStore`] decides about a
//! redemption and has no sockets; [`GrantHandler`] adds HTTP and [`GrantServer`] TLS. [`redeem`] is
//! the client.
//!
//! Tasks run on the main thread: one for each token that the reconcile loop redeems, and one for each
//! connection to a grant server. The file of the grants is written on threads for blocking work, so a
//! slow disk delays redemptions and not the loop. A connection has 10 s; a response of another site at
//! most 256 KiB.
//!
//! It never creates a link: the loop stores the Link and the Secret of a token, and applies them.

mod attempts;
mod grant_server;
mod grant_sockets;
mod grant_store;
mod redeem;
mod undelivered;

pub use grant_server::{GrantHandler, GrantServer, GrantTls, serve};
pub use grant_sockets::{GrantSocketLease, GrantSockets};
pub use grant_store::{
    GrantStore, GrantStoreError, LinkOffer, Redemption, Refusal, SharedGrantStore,
};
pub use redeem::{RedeemError, redeem, redeem_over, token_mark};

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
        // Documents have no namespace: they go to that of the user who applies them.
        let meta = Meta::new(name.clone(), Namespace::default_namespace());
        text.push_str("---\n");
        text.push_str(&to_yaml(&document_of(&Resource { meta, spec }))?);
    }
    Ok(text)
}
