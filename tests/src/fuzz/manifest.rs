//! Manifests from untrusted files.

use super::heap;
use skupperd::{
    manifest::{LocatedResource, document_of, parse, to_yaml},
    model::{Kind, Spec},
};
use std::path::Path;

/// Bytes that a legitimate alias may expand to, with the parser's memory for it.
const BASE: usize = 6 * 1024 * 1024;
/// Per input byte: a document is kept as text and tree, besides the parser's own events and nodes.
const EACH: usize = 1024;

/// Reads a file of resources. Valid ones must encode to equivalent YAML. Returns the kinds of the
/// valid ones and the number of the invalid ones.
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
                    assert!(e.line as usize <= lines, "{e}");
                    assert!(e.to_string().len() < 8192, "{e}");
                    bad += 1;
                }
            }
        }
        format!("{} {bad} bad", kinds.join(" "))
    })
}

fn again(located: &LocatedResource) {
    let resource = &located.resource;
    let text = to_yaml(&document_of(resource)).expect("YAML");
    let namespace = Some(&resource.meta.namespace);
    let mut parsed = parse(Path::new("-"), text.as_bytes(), namespace);
    assert_eq!(parsed.len(), 1, "{text}");
    let parsed = match parsed.remove(0) {
        Ok(parsed) => parsed.resource,
        // This version ignores fields of kinds that it does not implement.
        Err(e) => panic!("{e}\n{text}"),
    };
    let mut expected = resource.clone();
    // The store counts generations and does not write them.
    expected.meta.generation = 0;
    assert_eq!(parsed, expected, "{text}");
    let unserved = matches!(resource.spec, Spec::Unserved(_));
    assert_eq!(unserved, !resource.kind().is_served());
    if resource.kind() == Kind::Secret {
        let shown = located.document.to_string();
        assert!(!shown.contains("tls.key\":\""), "{shown}");
    }
}
