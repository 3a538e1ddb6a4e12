use super::*;

#[test]
fn missing_namespaces_are_errors() {
    for (target, why) in [
        ("/run/netns/none-of-this-name", "does not exist"),
        ("/etc/passwd", "not a network namespace"),
        ("unit:none-of-this-name.service", "is not running"),
        ("pid:4194303", "is not running"),
    ] {
        let error = target.parse::<Netns>().unwrap().watch().unwrap_err();
        assert!(error.contains(why) && error.starts_with(target), "{error}");
    }
}

#[test]
fn the_end_of_a_process_is_detected() {
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let watch = Netns::Pid(child.id()).watch().unwrap();
    assert!(watch.holds());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!watch.holds());
}
