//! Lists: what `kubectl get -o yaml` prints of several resources.

use super::{
    encode::to_yaml,
    node::{YamlNode, YamlValue},
    split, tree,
};
use serde_json::Value;
use std::borrow::Cow;

/// The text with each list in place of which its items are documents of their own. A text without lists
/// is as it was.
pub fn expand_lists(text: &str) -> Cow<'_, str> {
    if !text.contains("List") {
        return Cow::Borrowed(text);
    }
    let (mut expanded, mut any) = (String::new(), false);
    for part in split::documents(text.as_bytes()) {
        let items = text.get(part.body).and_then(items);
        let Some(items) = items else {
            expanded.push_str(text.get(part.span).unwrap_or_default());
            continue;
        };
        any = true;
        for item in items {
            if !expanded.is_empty() && !expanded.ends_with('\n') {
                expanded.push('\n');
            }
            expanded.push_str("---\n");
            expanded.push_str(&item);
        }
    }
    match any {
        true => Cow::Owned(expanded),
        false => Cow::Borrowed(text),
    }
}

/// The items of a list; `None` of another document.
fn items(document: &str) -> Option<Vec<String>> {
    let root = tree::parse(document).ok()?;
    let kind = root.get("kind").and_then(YamlNode::as_text)?;
    let is_list = matches!(root.get("items")?.value, YamlValue::List(_));
    if !kind.ends_with("List") || !is_list {
        return None;
    }
    let mut root = root.to_json();
    let items = root.get_mut("items").map(Value::take)?;
    let items = items.as_array()?.iter().map(to_yaml);
    items.collect::<Result<_, _>>().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::parse;
    use std::path::Path;

    const SITE: &str = "apiVersion: skupper.io/v2alpha1\nkind: Site\nmetadata: {name: s}\n";

    fn names(text: &str) -> Vec<String> {
        let parsed = parse(Path::new("-"), text.as_bytes(), None);
        let key = |located: Result<crate::manifest::LocatedResource, _>| {
            located.map_or_else(
                |e: crate::manifest::ManifestError| e.to_string(),
                |l| l.key().to_string(),
            )
        };
        parsed.into_iter().map(key).collect()
    }

    #[test]
    fn items_of_a_list_are_documents() {
        let item = |name: &str| {
            format!(
                "- apiVersion: skupper.io/v2alpha1\n  kind: Listener\n  metadata:\n    name: {name}\n    \
                 creationTimestamp: null\n  spec: {{routingKey: k, host: h, port: 80}}\n  status: {{}}\n"
            )
        };
        for kind in [
            "apiVersion: v1\nkind: List",
            "apiVersion: skupper.io/v2alpha1\nkind: ListenerList",
        ] {
            let list = format!(
                "{kind}\nitems:\n{}{}metadata: {{resourceVersion: \"\"}}\n",
                item("a"),
                item("b")
            );
            let text = format!(
                "{SITE}---\n{list}---\n{}",
                SITE.replace("name: s", "name: t")
            );
            let expanded = expand_lists(&text);
            assert_eq!(
                names(&expanded),
                ["Site s", "Listener a", "Listener b", "Site t"]
            );
            assert_eq!(names(&expand_lists(&list)), ["Listener a", "Listener b"]);
        }
    }

    #[test]
    fn other_texts_are_as_they_were() {
        for text in [
            SITE,
            "kind: List\n",
            "kind: List\nitems: 3\n",
            "List: [",
            "# List\n",
        ] {
            assert!(matches!(expand_lists(text), Cow::Borrowed(same) if same == text));
        }
        assert_eq!(names(&expand_lists("kind: List\nitems: []\n")), [""; 0]);
    }
}
