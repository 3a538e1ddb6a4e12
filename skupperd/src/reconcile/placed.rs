//! Listeners that are placed in other network namespaces.

use super::places::NETNS;
use crate::{
    model::Name,
    steer::{
        netns::{self, Netns, Placed, Watch},
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
    steered: bool,
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
    /// The kernel is to steer where it can.
    steered: bool,
}

impl Placements {
    pub(super) fn new(namespace: &NamespaceDir) -> Self {
        Self {
            namespace: namespace.clone(),
            held: BTreeMap::new(),
            failed: BTreeMap::new(),
            steered: false,
        }
    }

    /// Has listeners steered from now on, or not. Those that are there change with [`Self::lost`].
    pub(super) fn set_steered(&mut self, steered: bool) {
        self.steered = steered;
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

    /// Listeners whose namespaces are gone, or that are to be reached another way; they are forgotten.
    pub(super) fn lost(&mut self) -> Vec<Name> {
        let steered = self.steered;
        let lost = |held: &Held| held.wish.steered != steered || !held.watch.holds();
        let lost = self.held.extract_if(.., |_, held| lost(held));
        lost.map(|(name, _)| name).collect()
    }

    /// How a listener is reached, if nothing has to be made for it: it has what it is to have, or
    /// others are steered to where it is to be. Whatever else it had is forgotten.
    pub(super) fn kept(&mut self, name: &Name, target: &Netns, places: &[Place]) -> Option<Placed> {
        let wish = self.wish(target, places);
        let kept = self.held.get(name);
        let kept = kept.filter(|held| held.wish == wish && held.watch.holds());
        if let Some(held) = kept {
            return Some(held.placed.clone());
        }
        self.held.remove(name);
        self.may().ok()?;
        let beside = self.held.values().find(|held| {
            let steered = wish.steered && matches!(held.placed, Placed::Steered(_));
            steered && held.wish.target == wish.target && held.watch.holds()
        });
        let placed = beside?.placed.clone();
        let watch = target.watch().ok()?;
        let held = Held {
            wish,
            watch,
            placed: placed.clone(),
        };
        self.held.insert(name.clone(), held);
        Some(placed)
    }

    fn wish(&self, target: &Netns, places: &[Place]) -> Wish {
        Wish {
            target: target.clone(),
            places: places.to_vec(),
            steered: self.steered,
        }
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
        let wish = self.wish(&target, &places);
        if let Some((before, when, error)) = self.failed.get(name)
            && *before == wish
            && when.elapsed() < PAUSE
        {
            return Err(error.clone());
        }
        let wanted = wish.clone();
        let made = move || netns::place(&wanted.target, &wanted.places, workers, wanted.steered);
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
