use super::*;
use crate::{
    model::{Name, Spec},
    store::{Layout, test_namespace::TestNamespace},
};
use std::fs;

impl TestNamespace {
    fn remove(&self, file: &str) {
        fs::remove_file(self.dir.input_resources().join(file)).unwrap();
    }
}

fn listener(name: &str, port: u16) -> String {
    format!(
        "apiVersion: skupper.io/v2alpha1\nkind: Listener\nmetadata: {{name: {name}}}\nspec: \
         {{routingKey: k, host: 127.0.0.1, port: {port}}}\n"
    )
}

fn ports(loaded: &NamespaceResources) -> Vec<(String, u16)> {
    let port = |l: &LocatedResource| match &l.resource.spec {
        Spec::Listener(listener) => listener.port,
        _ => 0,
    };
    loaded
        .resources
        .iter()
        .map(|l| (l.resource.name().to_string(), port(l)))
        .collect()
}

fn expect(ports: &[(&str, u16)]) -> Vec<(String, u16)> {
    ports
        .iter()
        .map(|(name, port)| ((*name).to_owned(), *port))
        .collect()
}

#[test]
fn files_of_any_name_are_read_in_order() {
    let space = TestNamespace::new();
    space.put(
        "b.yaml",
        &format!("{}---\n{}", listener("two", 2), listener("three", 3)),
    );
    space.put("a/z.yml", &listener("one", 1));
    space.put("c.json", &listener("four", 4));
    space.put("ignored.txt", &listener("no", 9));
    space.put("z.yaml", &listener("two", 8));
    let loaded = space.dir.load().unwrap();
    assert_eq!(
        ports(&loaded),
        expect(&[("one", 1), ("two", 2), ("three", 3), ("four", 4)])
    );
    let [error] = &loaded.errors[..] else {
        panic!("{loaded:?}")
    };
    let text = error.to_string();
    assert!(
        text.contains("z.yaml:3: Listener two: metadata.name:"),
        "{text}"
    );
    assert!(text.contains("b.yaml:1"), "{text}");
}

#[test]
fn an_empty_namespace_has_no_resources() {
    let root = tempfile::tempdir().unwrap();
    let dir = Layout::root(root.path()).namespace(&Namespace::default_namespace());
    let loaded = dir.load().unwrap();
    assert!(loaded.resources.is_empty() && loaded.errors.is_empty());
}

#[test]
fn unreadable_files_are_reported() {
    let space = TestNamespace::new();
    space.put("good.yaml", &listener("a", 1));
    std::os::unix::fs::symlink("nowhere", space.dir.input_resources().join("x.yaml")).unwrap();
    space.put("y.yaml", "\u{0}");
    let loaded = space.dir.load().unwrap();
    assert_eq!((loaded.resources.len(), loaded.errors.len()), (1, 2));
    let text = loaded.errors[0].to_string();
    assert!(
        text.ends_with("x.yaml:1: No such file or directory (os error 2)"),
        "{text}"
    );
}

#[test]
fn a_resource_that_becomes_invalid_stays_as_it_was() {
    let space = TestNamespace::new();
    let mut loader = Loader::new(space.dir.clone());
    space.put("a.yaml", &listener("a", 1));
    space.put(
        "b.yaml",
        &format!("{}---\n{}", listener("b", 2), listener("c", 3)),
    );
    assert_eq!(loader.load().unwrap().resources.len(), 3);
    // The document names its resource: that alone is held.
    space.put("a.yaml", &listener("a", 0));
    let loaded = loader.load().unwrap();
    assert_eq!(ports(&loaded), expect(&[("b", 2), ("c", 3), ("a", 1)]));
    let key = Key {
        kind: crate::model::Kind::Listener,
        name: Name::new("a").unwrap(),
    };
    assert!(
        loaded.stale[&key]
            .to_string()
            .contains("spec.port: 0 is not a port")
    );
    // Read again, it is still the last valid version.
    assert_eq!(loader.load().unwrap().stale.len(), 1);
    // The document names no resource: all that were in its file are held.
    space.put(
        "b.yaml",
        &format!("]{}---\n{}", listener("b", 20), listener("c", 30)),
    );
    let loaded = loader.load().unwrap();
    assert_eq!(ports(&loaded), expect(&[("c", 30), ("b", 2), ("a", 1)]));
    assert_eq!(loaded.stale.len(), 2);
    // A removed resource is gone, and a corrected one is read.
    space.remove("a.yaml");
    space.put("b.yaml", &listener("b", 21));
    let loaded = loader.load().unwrap();
    assert_eq!(ports(&loaded), expect(&[("b", 21)]));
    assert!(loaded.stale.is_empty() && loaded.errors.is_empty());
}

#[test]
fn a_document_of_another_api_keeps_nothing_that_was_removed() {
    let space = TestNamespace::new();
    let other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n";
    space.put(
        "a.yaml",
        &format!(
            "{}---\n{other}---\n{}",
            listener("one", 1),
            listener("two", 2)
        ),
    );
    let mut loader = Loader::new(space.dir.clone());
    assert_eq!(
        ports(&loader.load().unwrap()),
        expect(&[("one", 1), ("two", 2)])
    );
    space.put("a.yaml", &format!("{}---\n{other}", listener("one", 1)));
    let loaded = loader.load().unwrap();
    assert_eq!(ports(&loaded), expect(&[("one", 1)]));
    assert_eq!(loaded.errors.len(), 1, "{:?}", loaded.errors);
    // A kind of ours that is spelled wrong may be the resource that is missing.
    space.put(
        "a.yaml",
        &listener("one", 1).replace("kind: Listener", "kind: Listner"),
    );
    assert_eq!(ports(&loader.load().unwrap()), expect(&[("one", 1)]));
}

#[test]
fn a_resource_that_takes_an_address_meanwhile_keeps_it() {
    let space = TestNamespace::new();
    let mut loader = Loader::new(space.dir.clone());
    space.put("a.yaml", &listener("a", 80));
    loader.load().unwrap();
    space.put("a.yaml", &listener("a", 0));
    space.put("b.yaml", &listener("b", 80));
    let loaded = loader.load().unwrap();
    assert_eq!(ports(&loaded), expect(&[("b", 80)]));
    assert!(loaded.stale.is_empty());
}

#[test]
fn a_conflicting_address_leaves_both_listeners_as_they_were() {
    let space = TestNamespace::new();
    let mut loader = Loader::new(space.dir.clone());
    space.put("a.yaml", &listener("a", 80));
    space.put("b.yaml", &listener("b", 81));
    loader.load().unwrap();
    space.put("b.yaml", &listener("b", 80));
    let loaded = loader.load().unwrap();
    assert_eq!(ports(&loaded), expect(&[("a", 80), ("b", 81)]));
    assert_eq!(loaded.errors.len(), 1);
}

#[test]
fn a_second_site_is_refused_and_the_first_stays() {
    let site = |name: &str| {
        format!("apiVersion: skupper.io/v2alpha1\nkind: Site\nmetadata: {{name: {name}}}\n")
    };
    let space = TestNamespace::new();
    let mut loader = Loader::new(space.dir.clone());
    space.put("Site-m.yaml", &site("m"));
    loader.load().unwrap();
    space.put("Site-n.yaml", &site("n"));
    let loaded = loader.load().unwrap();
    assert_eq!(ports(&loaded), expect(&[("m", 0)]));
    let text = loaded.errors[0].to_string();
    assert!(
        text.contains("only one site is allowed in a namespace"),
        "{text}"
    );
}

#[test]
fn unchanged_files_are_not_read_again() {
    let space = TestNamespace::new();
    let path = space.put("a.yaml", &listener("a", 1));
    let mut loader = Loader::new(space.dir.clone());
    let read = |loader: &Loader| Arc::clone(&loader.files[&path].documents);
    loader.load().unwrap();
    let first = read(&loader);
    // A file this young may change without a change of its timestamps.
    loader.load().unwrap();
    assert!(!Arc::ptr_eq(&first, &read(&loader)));
    // As if it had been read long after it changed.
    loader.files.get_mut(&path).unwrap().signature.settled = true;
    let settled = read(&loader);
    loader.load().unwrap();
    assert!(Arc::ptr_eq(&settled, &read(&loader)));
    // The same size, but another file.
    let new = space.put("new", &listener("a", 2));
    fs::rename(&new, &path).unwrap();
    assert_eq!(ports(&loader.load().unwrap()), expect(&[("a", 2)]));
}

#[test]
fn a_file_that_is_being_written_has_lost_nothing_yet() {
    let space = TestNamespace::new();
    let mut loader = Loader::new(space.dir.clone());
    let both = format!("{}---\n{}", listener("a", 1), listener("b", 2));
    let path = space.put("x.yaml", &both);
    loader.load().unwrap();
    // As a shell does it that opens the file, or a slow writer between two documents.
    for part in ["", &listener("a", 1)] {
        fs::write(&path, part).unwrap();
        let loaded = loader.load().unwrap();
        assert_eq!(ports(&loaded), expect(&[("a", 1), ("b", 2)]), "{part:?}");
        assert!(loaded.errors.is_empty() && loader.awaits_writers());
    }
    // A change of what is there takes effect at once.
    fs::write(&path, listener("a", 10)).unwrap();
    let loaded = loader.load().unwrap();
    assert_eq!(ports(&loaded), expect(&[("a", 10), ("b", 2)]));
    // As if that had been a while ago.
    let known = loader.files.get_mut(&path).unwrap();
    known.since = known.since.checked_sub(WRITTEN).unwrap();
    assert_eq!(ports(&loader.load().unwrap()), expect(&[("a", 10)]));
    assert!(!loader.awaits_writers());
    // The writer goes on after all.
    fs::write(&path, both).unwrap();
    let loaded = loader.load().unwrap();
    assert_eq!(ports(&loaded), expect(&[("a", 1), ("b", 2)]));
    assert!(!loader.awaits_writers());
}

#[test]
fn a_file_in_the_place_of_another_is_complete() {
    let space = TestNamespace::new();
    let mut loader = Loader::new(space.dir.clone());
    let both = format!("{}---\n{}", listener("a", 1), listener("b", 2));
    space.put("x.yaml", &both);
    loader.load().unwrap();
    space.put("x.yaml", &listener("a", 1));
    assert_eq!(ports(&loader.load().unwrap()), expect(&[("a", 1)]));
    space.put("x.yaml", "");
    assert!(loader.load().unwrap().resources.is_empty());
    assert!(!loader.awaits_writers());
}
