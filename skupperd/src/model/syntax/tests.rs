use super::*;

#[test]
fn names_are_checked_as_kubernetes_does() {
    for good in [
        "a",
        "a-b",
        "a.b",
        "0",
        "a--b",
        "a-0.b-1",
        &"n".repeat(MAX_NAME),
    ] {
        assert!(Name::new(good).is_ok(), "{good}");
    }
    for bad in [
        "", "A", "-a", "a-", "a..b", ".a", "a.", "a_b", "a b", "a/b", "ä", "a.-b", "a\n",
    ] {
        assert!(Name::new(bad).is_err(), "{bad}");
    }
    let long = Name::new("n".repeat(MAX_NAME + 1));
    assert_eq!(long, Err(SyntaxError::TooLong(MAX_NAME)));
}

#[test]
fn the_longest_name_fits_a_file_name() {
    let name = Name::new("n".repeat(MAX_NAME)).unwrap();
    for kind in crate::model::Kind::ALL {
        assert!(crate::model::Key::new(kind, name.clone()).file_name().len() <= 255);
    }
}

#[test]
fn a_routing_key_is_any_address_that_routers_do_not_reserve() {
    for good in [
        "a",
        "Orders_DB:5432",
        "my_db",
        "ES_INTA",
        "a/b",
        "mc",
        "\u{e4}",
        &"k".repeat(253),
    ] {
        assert!(RoutingKey::new(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        "a b",
        "a\n",
        "a\u{0}",
        "_topo/0",
        "$management",
        "/a",
        "amqp:a",
        "mc/a",
    ] {
        assert!(RoutingKey::new(bad).is_err(), "{bad:?}");
    }
    let long = RoutingKey::new("k".repeat(254));
    assert_eq!(long, Err(SyntaxError::TooLong(MAX_ROUTING_KEY)));
}

#[test]
fn a_namespace_is_one_dns_label() {
    assert!(Namespace::new("east-1").is_ok() && Namespace::new("n".repeat(63)).is_ok());
    for bad in [
        "Bad_Name",
        "a.b",
        "..",
        ".",
        "",
        "-a",
        "a/b",
        &"n".repeat(64),
    ] {
        assert!(Namespace::new(bad).is_err(), "{bad}");
    }
    assert_eq!(Namespace::default_namespace(), "default");
}

#[test]
fn a_host_is_an_address_or_a_dns_name() {
    let good = [
        "localhost",
        "a-b.c",
        "1a",
        "0.0.0.0",
        "::",
        "::1",
        "10.0.0.1",
        "fe80::1",
        "xn--bcher-kva.de",
        "web1.example.com",
    ];
    for good in good {
        assert!(Host::new(good).is_ok(), "{good}");
    }
    let bad = [
        "",
        "Host",
        "a_b",
        "a--b",
        "-a",
        "a-",
        "a..b",
        "a.",
        "10.0.0",
        "10.0.0.256",
        "1.2.3.4.5",
        "a:1",
        "[::1]",
        "fe80::1%eth0",
        "*",
        "*.a",
        "a b",
        "http://a",
        "xn--",
        "7",
        &"a".repeat(64),
    ];
    for bad in bad {
        assert!(Host::new(bad).is_err(), "{bad}");
    }
    assert_eq!(Host::new("::1").unwrap().ip(), Some("::1".parse().unwrap()));
    assert_eq!(Host::new("h").unwrap().ip(), None);
}

#[test]
fn a_port_is_between_1_and_65535() {
    assert_eq!(parse_port(1), Ok(1));
    assert_eq!(parse_port(65_535), Ok(65_535));
    for bad in [0, -1, 65_536, 70_000, i64::MAX, i64::MIN] {
        assert_eq!(parse_port(bad), Err(SyntaxError::Port(bad)));
    }
    assert_eq!(
        SyntaxError::Port(70_000).to_string(),
        "70000 is not a port (1..65535)"
    );
}

#[test]
fn texts_that_come_back_from_serde_are_checked() {
    let name: Name = serde_json::from_str("\"a\"").unwrap();
    assert_eq!(serde_json::to_string(&name).unwrap(), "\"a\"");
    assert!(serde_json::from_str::<Name>("\"A\"").is_err());
    assert!(SiteId::new("9f1a2b3c-0000").is_ok() && SiteId::new("a b").is_err());
}
