//! Connectors whose servers come and go.

use super::{ConnectorSpec, Core, Site};
use std::{collections::BTreeMap, sync::atomic::Ordering};

impl Site {
    /// Sets all the servers of a connector. Those that are not there any more get no more
    /// connections, and go when they have none. True: some of them still have.
    pub fn set_servers(&mut self, core: &Core, name: &str, servers: Vec<ConnectorSpec>) -> bool {
        let key = |spec: &ConnectorSpec| (name.to_owned(), format!("{} {}", spec.host, spec.port));
        let servers: BTreeMap<_, _> = servers.into_iter().map(|s| (key(&s), s)).collect();
        let mut busy = false;
        for known in self.services.keys_of(name).cloned().collect::<Vec<_>>() {
            if servers.contains_key(&known) {
                continue;
            }
            let Some(connector) = self.services.connectors.get_mut(&known) else {
                continue;
            };
            // Workers may be about to use one that has just been let go: it is looked at again.
            if connector.leaving && connector.target.in_use.load(Ordering::Relaxed) == 0 {
                self.drop_connector(&known);
            } else {
                busy = true;
                if !std::mem::replace(&mut connector.leaving, true) {
                    connector.offer(&mut self.router, false);
                    self.view_dirty = true;
                }
            }
        }
        for (key, spec) in servers {
            match self.services.connectors.get_mut(&key) {
                Some(connector) if connector.spec == spec => {
                    if std::mem::take(&mut connector.leaving) {
                        let wanted = connector.is_wanted();
                        connector.offer(&mut self.router, wanted);
                        self.view_dirty = true;
                    }
                }
                _ => self.put_connector(core, key, spec),
            }
        }
        busy
    }
}
