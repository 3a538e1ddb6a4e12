use super::*;
use crate::model::{Kind, Name, Site};
use proptest::prelude::*;

fn key(kind: Kind, name: &str) -> Key {
    Key::new(kind, Name::new(name).unwrap())
}

fn site(name: &str, edge: bool) -> (Name, Site) {
    let site = Site {
        edge,
        ..Site::default()
    };
    (Name::new(name).unwrap(), site)
}

const KINDS: [Kind; 6] = [
    Kind::Listener,
    Kind::MultiKeyListener,
    Kind::Connector,
    Kind::AttachedConnectorBinding,
    Kind::Link,
    Kind::RouterAccess,
];

fn of_every_kind<T>(name: &str, item: T) -> BTreeMap<Key, T>
where
    T: Copy,
{
    KINDS.map(|kind| (key(kind, name), item)).into()
}

#[test]
fn resources_are_set_by_rank_and_removed_in_the_opposite_order() {
    let kinds = |actions: Vec<Action>| -> Vec<Kind> {
        let kind = |action| match action {
            Action::Set(key) | Action::Remove(key) => key.kind,
            other => panic!("{other:?} is not about a resource"),
        };
        actions.into_iter().map(kind).collect()
    };
    let all = of_every_kind("a", 1);
    assert_eq!(
        kinds(diff(&all, &BTreeMap::new())),
        [
            Kind::RouterAccess,
            Kind::Link,
            Kind::Connector,
            Kind::AttachedConnectorBinding,
            Kind::Listener,
            Kind::MultiKeyListener,
        ]
    );
    assert_eq!(
        kinds(diff(&BTreeMap::new(), &all)),
        [
            Kind::Listener,
            Kind::MultiKeyListener,
            Kind::Connector,
            Kind::AttachedConnectorBinding,
            Kind::Link,
            Kind::RouterAccess,
        ]
    );
}

#[test]
fn an_address_moves_between_listeners_in_one_plan() {
    let (old, new) = (key(Kind::Listener, "old"), key(Kind::Listener, "new"));
    let actions = diff(&[(new.clone(), 1)].into(), &[(old.clone(), 1)].into());
    assert_eq!(actions, [Action::Remove(old), Action::Set(new)]);
}

#[test]
fn a_site_starts_anew_only_with_another_name_or_role() {
    let state = |site| DesiredState {
        site,
        ..DesiredState::default()
    };
    let steps = |desired, applied: Option<(Name, Site)>| {
        plan(&state(desired), &AppliedState::of(state(applied)))
    };
    let west = || Some(site("west", false));
    assert_eq!(steps(None, None), []);
    assert_eq!(steps(west(), None), [Action::StartSite]);
    assert_eq!(steps(west(), west()), []);
    assert_eq!(steps(None, west()), [Action::StopSite]);
    let restart = [Action::StopSite, Action::StartSite];
    assert_eq!(steps(Some(site("east", false)), west()), restart);
    assert_eq!(steps(Some(site("west", true)), west()), restart);
    let mut changed = site("west", false);
    changed.1.ha = true;
    assert_eq!(steps(Some(changed), west()), [Action::UpdateSite]);
}

fn resources() -> impl Strategy<Value = BTreeMap<Key, u8>> {
    let entry = (0..KINDS.len(), "[abc]", 0_u8..3);
    let entries = proptest::collection::vec(entry, 0..12);
    entries.prop_map(|entries| {
        let keyed = |(kind, name, item): (usize, String, u8)| (key(KINDS[kind], &name), item);
        entries.into_iter().map(keyed).collect()
    })
}

proptest! {
    /// Removals come first, nothing is touched twice or for nothing, and the result is the target.
    #[test]
    fn a_plan_leads_to_the_desired_state(desired in resources(), applied in resources()) {
        let mut state = applied.clone();
        let mut setting = false;
        for action in diff(&desired, &applied) {
            match action {
                Action::Remove(key) => {
                    prop_assert!(!setting, "{key} is removed after others were set");
                    prop_assert!(state.remove(&key).is_some());
                }
                Action::Set(key) => {
                    setting = true;
                    let item = desired[&key];
                    prop_assert_ne!(state.insert(key, item), Some(item));
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }
        prop_assert_eq!(state, desired);
    }
}
