//! Lines of the fields of a document, without their values.
//!
//! Rules between resources are checked long after a document was read, and by then a document may no
//! longer be in memory: a token's code and a Secret's data are not kept.

use super::node::{YamlNode, YamlValue};

/// A field's line, from 0 in the document, and those of the fields below it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FieldLines {
    line: usize,
    below: LinesBelow,
}

#[derive(Clone, Debug, PartialEq)]
enum LinesBelow {
    Nothing,
    Items(Vec<FieldLines>),
    Fields(Vec<(Box<str>, FieldLines)>),
}

impl FieldLines {
    pub(super) fn of(root: &YamlNode) -> Self {
        Self::at(root.line, root)
    }

    fn at(line: usize, node: &YamlNode) -> Self {
        let below = match &node.value {
            YamlValue::List(items) => LinesBelow::Items(items.iter().map(Self::of).collect()),
            YamlValue::Mapping(fields) => {
                let fields = fields.iter();
                let fields = fields
                    .map(|field| (field.key.as_str().into(), Self::at(field.line, &field.node)));
                LinesBelow::Fields(fields.collect())
            }
            _ => LinesBelow::Nothing,
        };
        Self { line, below }
    }

    /// Line, from 0, of a field such as `spec.roles[1].name`, or of its nearest parent when it is not
    /// there; `None` when its first part is not there.
    pub(super) fn line_of(&self, field: &str) -> Option<usize> {
        let (below, rest) = self.step(field)?;
        below.line_of(rest).or(Some(below.line))
    }

    /// The first step of a path, and the rest of the path.
    fn step<'a>(&self, path: &'a str) -> Option<(&Self, &'a str)> {
        match &self.below {
            LinesBelow::Nothing => None,
            LinesBelow::Items(items) => {
                let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
                let item = items.get(index.parse::<usize>().ok()?)?;
                Some((item, rest))
            }
            // As in `spec.settings[size]`.
            LinesBelow::Fields(fields) if path.starts_with('[') => {
                let (name, rest) = path.strip_prefix('[')?.split_once(']')?;
                let (_, lines) = fields.iter().find(|(key, _)| **key == *name)?;
                Some((lines, rest))
            }
            // Keys such as `tls.key` have dots in them: the longest that fits is meant.
            LinesBelow::Fields(fields) => {
                let path = path.strip_prefix('.').unwrap_or(path);
                let fitting = fields.iter().filter_map(|(key, lines)| {
                    let rest = path.strip_prefix(&**key)?;
                    let ends = rest.is_empty() || rest.starts_with(['.', '[']);
                    (ends && !path.is_empty()).then_some((lines, rest))
                });
                fitting.min_by_key(|(_, rest)| rest.len())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tree, *};

    const BLOCK: &str = "# comment\nkind: X\nmetadata:\n  name: a\n  labels:\n    app.io/x: y\nspec:\n  \
                         roles:\n  - name: edge\n    port: 1\n  -\n    name: foo\n  other: |\n    roles:\n  \
                         last: 1\ndata:\n  tls.key: k\n";

    fn line_of(text: &str, field: &str) -> Option<usize> {
        FieldLines::of(&tree::parse(text).expect("YAML")).line_of(field)
    }

    fn at(field: &str) -> Option<usize> {
        line_of(BLOCK, field)
    }

    #[test]
    fn block_style() {
        assert_eq!(at("kind"), Some(1));
        assert_eq!(at("metadata.name"), Some(3));
        assert_eq!(at("metadata.labels.app.io/x"), Some(5));
        assert_eq!(at("spec.roles"), Some(7));
        assert_eq!(at("spec.roles[0]"), Some(8));
        assert_eq!(at("spec.roles[0].port"), Some(9));
        assert_eq!(at("spec.roles[1].name"), Some(11));
        assert_eq!(at("spec.last"), Some(14));
        assert_eq!(at("data.tls.key"), Some(16));
        assert_eq!(at("metadata.labels[app.io/x]"), Some(5));
        assert_eq!(at("metadata.labels[other]"), Some(4));
    }

    #[test]
    fn a_missing_field_has_the_line_of_its_nearest_parent() {
        assert_eq!(at("spec.roles[1].port"), Some(11));
        assert_eq!(at("spec.roles[7].port"), Some(7));
        assert_eq!(at("spec.host"), Some(6));
        assert_eq!(at("status.x"), None);
        assert_eq!(at(""), None);
    }

    #[test]
    fn flow_style_and_json() {
        let text = "{\"metadata\": {\"name\": \"a\"},\n \"spec\": {\n  \"endpoints\": [{\"name\": \"edge\"},\n   \
                    {\"name\": \"x\",\n \"port\": 1}]}}";
        assert_eq!(line_of(text, "spec.endpoints[0].name"), Some(2));
        assert_eq!(line_of(text, "spec.endpoints[1].port"), Some(4));
    }
}
