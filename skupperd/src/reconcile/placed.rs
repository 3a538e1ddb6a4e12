//! Listeners that are placed in other network namespaces.

use super::places::NETNS;
use crate::{
    model::Name,
    steer::{
        netns::{Netns, Placed, Watch, bind},
        place::Place,
    },
    store::NamespaceDir,
};
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    time::{Duration, Instant},
};

/// Time between attempts at a namespace that is there: each may start a process.
const PAUSE: Duration = Duration::from_secs(5);

/// What a listener is to have, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    target: Netns,
    places: Vec<Place>,
}

/// A listener's sockets.
struct Held {
    wish: Wish,
    watch: Watch,
    placed: Placed,
}

/// The placed listeners of a namespace.
pub(super) struct Placements {
    namespace: NamespaceDir,
    held: BTreeMap<Name, Held>,
    failed: BTreeMap<Name, (Wish, Instant, String)>,
}

impl Placements {
    pub(super) fn new(namespace: &NamespaceDir) -> Self {
        Self {
            namespace: namespace.clone(),
            held: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    /// There are some, which may lose their namespaces.
    pub(super) fn any(&self) -> bool {
        !self.held.is_empty()
    }

    /// Forgets a listener. Its sockets are gone with its specification.
    pub(super) fn remove(&mut self, name: &Name) {
        self.held.remove(name);
        self.failed.remove(name);
    }

    pub(super) fn clear(&mut self) {
        self.held.clear();
        self.failed.clear();
    }

    /// Listeners whose namespaces are gone, which are forgotten.
    pub(super) fn lost(&mut self) -> Vec<Name> {
        let lost = self.held.extract_if(.., |_, held| !held.watch.holds());
        lost.map(|(name, _)| name).collect()
    }

    /// The sockets that a listener has, if it is to have the same; whatever else it had is forgotten.
    pub(super) fn kept(&mut self, name: &Name, target: &Netns, places: &[Place]) -> Option<Placed> {
        let wish = Wish {
            target: target.clone(),
            places: places.to_vec(),
        };
        let kept = self.held.get(name);
        let kept = kept.filter(|held| held.wish == wish && held.watch.holds());
        let placed = kept.map(|held| held.placed.clone());
        if placed.is_none() {
            self.held.remove(name);
        }
        placed
    }

    /// Makes sockets for a listener.
    pub(super) async fn make(
        &mut self,
        name: &Name,
        target: Netns,
        places: Vec<Place>,
        workers: usize,
    ) -> Result<Placed, String> {
        let of_setting = |e: String| format!("spec.settings[{NETNS}]: {e}");
        self.may().map_err(of_setting)?;
        let watch = target.watch().map_err(of_setting)?;
        let wish = Wish { target, places };
        if let Some((before, when, error)) = self.failed.get(name)
            && *before == wish
            && when.elapsed() < PAUSE
        {
            return Err(error.clone());
        }
        let wanted = wish.clone();
        let made = move || bind(&wanted.target, &wanted.places, workers);
        let made = tokio::task::spawn_blocking(made).await;
        match made.unwrap_or_else(|e| Err(e.to_string())) {
            Ok(placed) => {
                self.failed.remove(name);
                let held = Held {
                    wish,
                    watch,
                    placed: placed.clone(),
                };
                self.held.insert(name.clone(), held);
                Ok(placed)
            }
            Err(error) => {
                let error = of_setting(error);
                let failed = (wish, Instant::now(), error.clone());
                self.failed.insert(name.clone(), failed);
                Err(error)
            }
        }
    }

    /// Other namespaces are for those who run the host: a directory that others may write says
    /// nothing of what they want.
    fn may(&self) -> Result<(), String> {
        let dir = self.namespace.input();
        let above = dir.parent().unwrap_or(&dir);
        for dir in [above, &dir, &self.namespace.input_resources()] {
            let meta = match fs::metadata(dir) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                meta => meta.map_err(|e| format!("{}: {e}", dir.display()))?,
            };
            let (user, group) = crate::sys::user_and_group();
            let others = meta.mode() & 0o002 != 0
                || (meta.mode() & 0o020 != 0 && ![0, group].contains(&meta.gid()))
                || ![0, user].contains(&meta.uid());
            if others {
                return Err(format!(
                    "not for a namespace that others than root and the daemon may write to, as \
                     they may to {}",
                    dir.display()
                ));
            }
        }
        Ok(())
    }
}
