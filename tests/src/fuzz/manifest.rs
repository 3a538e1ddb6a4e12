//! Manifests, from whoever wrote the file.

use super::heap;
use skupperd::{
    manifest::{Located, document_of, parse, to_yaml},
    model::{Kind, Spec},
};
use std::path::Path;

/// What an honest alias may make of a document, and what the parser keeps of it.
const BASE: usize = 4 * 1024 * 1024;
/// A document is kept as text and tree; the parser's own events and nodes come on top.
const EACH: usize = 1024;

/// A file of resources. What is good is written as YAML that says the same. Tells the kinds of those
/// that are good, and the number of those that are not.
pub fn manifest(data: &[u8]) -> String {
    heap::bounded(data.len(), BASE, EACH, || {
        let lines = data.iter().filter(|c| **c == b'\n').count() + 1;
        let (mut kinds, mut bad) = (Vec::new(), 0);
        for document in parse(Path::new("-"), data, None) {
            match document {
                Ok(located) => {
                    assert!((1..=lines).contains(&located.line), "{}", located.line);
                    assert!(data.get(located.body.clone()).is_some());
                    assert!(located.line_of("spec.settings.x[0].y") <= lines);
                    again(&located);
                    kinds.push(located.resource.kind().as_str());
                }
                Err(e) => {
                    assert!(e.line <= lines, "{e}");
                    assert!(e.to_string().len() < 8192, "{e}");
                    bad += 1;
                }
            }
        }
        format!("{} {bad} bad", kinds.join(" "))
    })
}

fn again(located: &Located) {
    let resource = &located.resource;
    let text = to_yaml(&document_of(resource)).expect("YAML");
    let namespace = Some(&resource.meta.namespace);
    let mut parsed = parse(Path::new("-"), text.as_bytes(), namespace);
    assert_eq!(parsed.len(), 1, "{text}");
    let parsed = match parsed.remove(0) {
        Ok(parsed) => parsed.resource,
        // Kinds that are not served have fields that this version does not look at.
        Err(e) => panic!("{e}\n{text}"),
    };
    let mut expected = resource.clone();
    // Counted by whoever keeps the resource, and told to nobody.
    expected.meta.generation = 0;
    assert_eq!(parsed, expected, "{text}");
    let unserved = matches!(resource.spec, Spec::Unserved(_));
    assert_eq!(unserved, !resource.kind().is_served());
    if resource.kind() == Kind::Secret {
        let shown = located.document.to_string();
        assert!(!shown.contains("tls.key\":\""), "{shown}");
    }
}
