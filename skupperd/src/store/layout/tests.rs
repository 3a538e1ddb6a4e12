use super::*;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

#[test]
fn system_keeps_input_and_state_apart() {
    let dir = Layout::system().namespace(&Namespace::new("east").unwrap());
    let base = Path::new("/etc/skupper/namespaces/east/input");
    assert_eq!(dir.input_resources(), base.join("resources"));
    assert_eq!(dir.input_certs(&name("a")), base.join("certs/a"));
    assert_eq!(dir.input_issuer(&name("a")), base.join("issuers/a"));
    let base = Path::new("/var/lib/skupper/namespaces/east");
    assert_eq!(dir.runtime_resources(), base.join("runtime/resources"));
    assert_eq!(dir.runtime_certs(&name("a")), base.join("runtime/certs/a"));
    assert_eq!(
        dir.runtime_issuer(&name("a")),
        base.join("runtime/issuers/a")
    );
    assert_eq!(dir.runtime_links(), base.join("runtime/links"));
    assert_eq!(dir.runtime_router(), base.join("runtime/router"));
    assert_eq!(dir.internal(), base.join("internal"));
}

#[test]
fn credentials_of_the_service_have_the_namespace_in_their_names() {
    let layout = Layout::system();
    let space = Namespace::new("east").unwrap();
    let find = |layout: &Layout| {
        let dir = layout.namespace(&space);
        dir.service_credential(CredentialKind::Issuer, &name("my.ca"), "tls.key")
    };
    assert!(find(&layout).is_empty());
    let layout = layout.with_credentials(Some("/run/credentials/skupperd.service".into()));
    let base = "/run/credentials/skupperd.service/skupper.issuers.east.my.ca";
    let expected = [".tls.key", "_tls.key"].map(|part| PathBuf::from(format!("{base}{part}")));
    assert_eq!(find(&layout), expected);
}

#[test]
fn user_directories_are_those_of_skupper() {
    let dir = |data: Option<&str>, home: Option<&str>| {
        let layout = Layout::of_user(data.map(Into::into), home.map(Into::into)).ok()?;
        Some(
            layout
                .namespace(&Namespace::default_namespace())
                .input_resources(),
        )
    };
    let below =
        |base: &str| Some(Path::new(base).join("skupper/namespaces/default/input/resources"));
    assert_eq!(dir(Some("/data"), Some("/home/u")), below("/data"));
    assert_eq!(dir(None, Some("/home/u")), below("/home/u/.local/share"));
    assert_eq!(
        dir(Some("relative"), Some("/home/u")),
        below("/home/u/.local/share")
    );
    assert_eq!(
        dir(Some(""), Some("/home/u")),
        below("/home/u/.local/share")
    );
    assert_eq!(dir(None, None), None);
}

#[test]
fn namespaces_are_directories_with_valid_names() {
    let root = tempfile::tempdir().unwrap();
    let layout = Layout {
        input: root.path().join("in"),
        state: root.path().join("state"),
        runtime: root.path().join("run"),
        credentials: None,
    };
    assert!(layout.namespaces().unwrap().is_empty());
    for dir in [
        "in/namespaces/west",
        "in/namespaces/Bad_Name",
        "state/namespaces/gone",
    ] {
        fs::create_dir_all(root.path().join(dir)).unwrap();
    }
    fs::write(root.path().join("in/namespaces/file"), "").unwrap();
    let found = layout.namespaces().unwrap();
    let names: Vec<&str> = found.iter().map(|n| n.name().as_str()).collect();
    assert_eq!(names, ["gone", "west"]);
}
