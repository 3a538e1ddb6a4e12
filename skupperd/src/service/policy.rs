//! Policies of listeners: TLS, the choice of routing keys, admitted users.

use super::{allowed::AllowedUsers, keys::RoutingKeys, tls::ListenerTls};
use arc_swap::ArcSwap;
use std::{collections::HashMap, sync::Arc};

/// A listener that does more than carry bytes to one routing key.
#[derive(Debug, PartialEq, Eq)]
pub struct ListenerPolicy {
    pub keys: RoutingKeys,
    pub tls: Option<Arc<ListenerTls>>,
    /// Admitted users; `None` admits everyone.
    pub users: Option<AllowedUsers>,
}

/// Policies of listeners: set by the core, read by workers without a lock.
/// Most listeners have none.
#[derive(Clone, Debug, Default)]
pub struct ListenerPolicies(Arc<ArcSwap<HashMap<u64, Arc<ListenerPolicy>>>>);

impl ListenerPolicies {
    pub fn get(&self, listener: u64) -> Option<Arc<ListenerPolicy>> {
        let listener_policies = self.0.load();
        // The common case takes no look-up.
        if listener_policies.is_empty() {
            return None;
        }
        listener_policies.get(&listener).cloned()
    }

    /// Sets the policy of a listener, before it opens.
    pub(crate) fn set(&self, listener: u64, policy: Arc<ListenerPolicy>) {
        let mut listener_policies = HashMap::clone(&self.0.load());
        listener_policies.insert(listener, policy);
        self.0.store(Arc::new(listener_policies));
    }

    /// Removes the policy of a listener.
    pub(crate) fn remove(&self, listener: u64) {
        let known = self.0.load();
        if known.contains_key(&listener) {
            let mut listener_policies = HashMap::clone(&known);
            listener_policies.remove(&listener);
            self.0.store(Arc::new(listener_policies));
        }
    }
}
