use super::*;

fn emitter() -> VanflowEmitter {
    VanflowEmitter::new("abcde".into(), FlowLog::new(1))
}

#[test]
fn records_are_due_once_a_second_while_somebody_listens() {
    let (mut emitter, now) = (emitter(), Instant::now());
    let heard = VanflowReceivers {
        records: true,
        ..VanflowReceivers::default()
    };
    assert!(!emitter.set_receivers(VanflowReceivers::default(), now));
    assert!(emitter.set_receivers(heard, now));
    assert!(!emitter.set_receivers(heard, now + RESCAN / 2));
    assert!(emitter.set_receivers(heard, now + RESCAN));
    assert!(!emitter.set_receivers(VanflowReceivers::default(), now + RESCAN));
    // The next receiver gets everything at once.
    assert!(emitter.set_receivers(heard, now + RESCAN));
}

#[test]
fn an_identity_lasts_as_long_as_its_record() {
    let mut emitter = emitter();
    let (web, gone) = (
        emitter.identity("listener web"),
        emitter.identity("listener db"),
    );
    assert_ne!(web, gone);
    let record = emitter.lasting_record(Type::Listener, "listener web");
    emitter.set_lasting([("listener web".to_owned(), record)].into());
    assert_eq!(emitter.identity("listener web"), web);
    assert_ne!(emitter.identity("listener db"), gone);
}

#[test]
fn a_connector_is_known_by_the_server_or_by_the_host_that_it_names() {
    let mut emitter = emitter();
    let text = |parts: [&str; 2]| parts.map(str::to_owned);
    emitter.set_servers([
        ("web".to_owned(), text(["127.0.0.1", "8080"])),
        ("web".to_owned(), text(["127.0.0.1", "8081"])),
        ("db".to_owned(), text(["db.example", "5432"])),
    ]);
    let second = emitter.identity("connector web 127.0.0.1:8081");
    assert_eq!(emitter.connector("web", "127.0.0.1:8081"), second);
    let named = emitter.identity("connector db db.example");
    assert_eq!(emitter.connector("db", "192.0.2.7:5432"), named);
}
