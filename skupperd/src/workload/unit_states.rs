//! States of units, as their service manager reports them. The reconcile loop reads them, a task that
//! talks to systemd on D-Bus writes them.

use super::SystemdUnit;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::sync::watch;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UnitStates {
    /// The service manager has not answered yet.
    #[default]
    Unknown,
    /// There is no service manager.
    Absent,
    /// States of the requested units, such as `active`.
    Known(BTreeMap<String, String>),
}

#[derive(Debug)]
pub struct UnitStateReader {
    /// The user whose manager answers; `None` is the system manager.
    user: Option<u32>,
    wanted: watch::Sender<BTreeSet<String>>,
    states: watch::Receiver<Arc<UnitStates>>,
}

#[derive(Debug)]
pub struct UnitStateWriter {
    /// Names of the requested units.
    pub wanted: watch::Receiver<BTreeSet<String>>,
    pub states: watch::Sender<Arc<UnitStates>>,
}

/// `user`: the user whose manager answers; `None` is the system manager.
pub fn unit_state_channel(user: Option<u32>) -> (UnitStateReader, UnitStateWriter) {
    let (wanted, asked) = watch::channel(BTreeSet::new());
    let (states, answers) = watch::channel(Arc::default());
    let reader = UnitStateReader {
        user,
        wanted,
        states: answers,
    };
    let writer = UnitStateWriter {
        wanted: asked,
        states,
    };
    (reader, writer)
}

impl UnitStateReader {
    /// Requests the states of these units, in place of earlier ones.
    pub fn request(&self, units: impl Iterator<Item = SystemdUnit>) {
        let ours = units.filter(|unit| unit.user == self.user);
        let names: BTreeSet<String> = ours.map(|unit| unit.name).collect();
        self.wanted.send_if_modified(|known| {
            let changed = *known != names;
            *known = names;
            changed
        });
    }

    /// Waits for new states.
    pub async fn changed(&mut self) {
        if self.states.changed().await.is_err() {
            // The writer has ended.
            std::future::pending::<()>().await;
        }
    }

    /// The state of a unit that is not ready, empty while unknown; `None` when it is ready or has no
    /// service manager.
    pub fn unready_state(&self, unit: &SystemdUnit) -> Option<String> {
        if unit.user != self.user {
            return None;
        }
        match &**self.states.borrow() {
            UnitStates::Absent => None,
            UnitStates::Unknown => Some(String::new()),
            UnitStates::Known(states) => match states.get(&unit.name) {
                Some(state) if ["active", "reloading", "refreshing"].contains(&&**state) => None,
                state => Some(state.cloned().unwrap_or_default()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_ready_when_they_are_active() {
        let (reader, writer) = unit_state_channel(None);
        let unit = |user, name: &str| SystemdUnit {
            user,
            name: name.to_owned(),
        };
        let (a, b) = (unit(None, "a.service"), unit(None, "b.service"));
        let other = unit(Some(7), "a.service");
        reader.request([a.clone(), other.clone()].into_iter());
        let asked = writer.wanted.borrow().clone();
        assert_eq!(asked, BTreeSet::from(["a.service".to_owned()]));
        assert_eq!(reader.unready_state(&a), Some(String::new()));
        assert_eq!(reader.unready_state(&other), None);
        let known = |state: &str| {
            let states = BTreeMap::from([("a.service".to_owned(), state.to_owned())]);
            writer
                .states
                .send(Arc::new(UnitStates::Known(states)))
                .unwrap();
        };
        known("activating");
        assert_eq!(reader.unready_state(&a), Some("activating".to_owned()));
        assert_eq!(reader.unready_state(&b), Some(String::new()));
        known("active");
        assert_eq!(reader.unready_state(&a), None);
        writer.states.send(Arc::new(UnitStates::Absent)).unwrap();
        assert_eq!(reader.unready_state(&b), None);
    }
}
