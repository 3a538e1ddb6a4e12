//! Sets the status of every resource.

use super::{
    attachments::BindingStatuses,
    kind::{self, router_access},
    namespace::NamespaceState,
    observed::StatusContext,
};
use crate::{
    model::{Kind, StatusDraft},
    store::StatusDir,
    sys,
};
use serde_json::json;
use std::collections::BTreeSet;

/// Note of a site while clients are refused for lack of descriptors.
const REFUSING: &str = "skupperd has too many open files: new connections are refused; raise LimitNOFILE of its \
    unit";

impl NamespaceState {
    /// Sets the statuses of all resources, and forgets those of resources that are gone. Files are written
    /// by the loop.
    pub(super) async fn report(&mut self, bindings: &BindingStatuses) {
        let observed = self.runtime.describe_site().await;
        let now = jiff::Timestamp::now();
        let mut keep = BTreeSet::new();
        let ctx = StatusContext {
            namespace: self.namespace.name(),
            resources: &self.resources,
            runtime: &self.runtime,
            attachments: &self.attachments,
            observed: &observed,
            bindings,
            failures: &self.failures,
            stale: &self.stale,
        };
        for located in &self.resources {
            let key = located.key();
            let mut notes = kind::notes(located);
            if key.kind == Kind::Site && sys::lacks_descriptors() {
                notes.push(REFUSING.to_owned());
            }
            let draft = kind::status(&ctx, &self.issued, located).notes(notes);
            let mut document = (*located.document).clone();
            if key.kind == Kind::Site && !self.runtime.site_id.is_empty() {
                document["metadata"]["uid"] = json!(self.runtime.site_id);
            }
            self.statuses.set(&key, document, draft, now);
            keep.insert(key);
        }
        for error in &self.errors {
            // The status of an invalid document, unless a valid one has its place.
            if let Some(key) = error.key().filter(|key| keep.insert(key.clone())) {
                let draft = StatusDraft::error(key.kind, error.to_string());
                let document = StatusDir::minimal_document(&key, self.namespace.name());
                self.statuses.set(&key, document, draft, now);
            }
        }
        // Open accesses without a document.
        for (key, spec, draft) in router_access::site_accesses(&ctx) {
            if keep.insert(key.clone()) {
                let mut document = StatusDir::minimal_document(&key, self.namespace.name());
                document["spec"] = spec;
                self.statuses.set(&key, document, draft, now);
            }
        }
        self.statuses.retain(&keep);
    }
}
