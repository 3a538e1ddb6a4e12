//! Whether units are ready, as their service manager says.

use super::Unit;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::sync::watch;

/// What the service manager says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum States {
    /// It has not been asked yet.
    #[default]
    Unknown,
    /// There is none to ask.
    Absent,
    /// States of the units that were asked for, such as `active`.
    Known(BTreeMap<String, String>),
}

/// The side that asks.
#[derive(Debug)]
pub struct Asking {
    /// The user whose manager is asked; none for the system's.
    user: Option<u32>,
    wanted: watch::Sender<BTreeSet<String>>,
    states: watch::Receiver<Arc<States>>,
}

/// The side that answers.
#[derive(Debug)]
pub struct Answering {
    /// Units that are asked for.
    pub wanted: watch::Receiver<BTreeSet<String>>,
    /// Where the answers go.
    pub states: watch::Sender<Arc<States>>,
}

/// The two sides, for the manager of a user or the system's.
pub fn states(user: Option<u32>) -> (Asking, Answering) {
    let (wanted, asked) = watch::channel(BTreeSet::new());
    let (states, answers) = watch::channel(Arc::default());
    let asking = Asking {
        user,
        wanted,
        states: answers,
    };
    let answering = Answering {
        wanted: asked,
        states,
    };
    (asking, answering)
}

impl Asking {
    /// Says which units are of interest from now on.
    pub fn ask(&self, units: impl Iterator<Item = Unit>) {
        let ours = units.filter(|unit| unit.user == self.user);
        let names: BTreeSet<String> = ours.map(|unit| unit.name).collect();
        self.wanted.send_if_modified(|known| {
            let changed = *known != names;
            *known = names;
            changed
        });
    }

    /// Waits for another answer.
    pub async fn changed(&mut self) {
        if self.states.changed().await.is_err() {
            // Nobody answers any more.
            std::future::pending::<()>().await;
        }
    }

    /// Why a unit is not ready; none when it is, or nobody can tell. The state is empty while it is
    /// not known yet.
    pub fn unready(&self, unit: &Unit) -> Option<String> {
        if unit.user != self.user {
            return None;
        }
        match &**self.states.borrow() {
            States::Absent => None,
            States::Unknown => Some(String::new()),
            States::Known(states) => match states.get(&unit.name) {
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
    fn v37_units_are_ready_when_they_are_active() {
        let (asking, answering) = states(None);
        let unit = |user, name: &str| Unit {
            user,
            name: name.to_owned(),
        };
        let (a, b) = (unit(None, "a.service"), unit(None, "b.service"));
        let other = unit(Some(7), "a.service");
        asking.ask([a.clone(), other.clone()].into_iter());
        let asked = answering.wanted.borrow().clone();
        assert_eq!(asked, BTreeSet::from(["a.service".to_owned()]));
        assert_eq!(asking.unready(&a), Some(String::new()));
        assert_eq!(asking.unready(&other), None);
        let known = |state: &str| {
            let states = BTreeMap::from([("a.service".to_owned(), state.to_owned())]);
            answering
                .states
                .send(Arc::new(States::Known(states)))
                .unwrap();
        };
        known("activating");
        assert_eq!(asking.unready(&a), Some("activating".to_owned()));
        assert_eq!(asking.unready(&b), Some(String::new()));
        known("active");
        assert_eq!(asking.unready(&a), None);
        answering.states.send(Arc::new(States::Absent)).unwrap();
        assert_eq!(asking.unready(&b), None);
    }
}
