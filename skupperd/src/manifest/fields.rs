//! From a tree to the raw types of [`super::raw`], with the field and line of what does not fit.

use super::{
    field_error::{FieldError, FieldPath},
    node::{YamlField, YamlNode, YamlValue},
};
use serde::{
    de::{
        self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
        Visitor,
        value::{StrDeserializer, StringDeserializer},
    },
    forward_to_deserialize_any,
};

/// Reads a type from a document.
pub(super) fn read<'de, T: de::Deserialize<'de>>(root: &'de YamlNode) -> Result<T, FieldError> {
    T::deserialize(NodeDeserializer {
        node: root,
        path: &FieldPath::Root,
        line: root.line,
    })
}

#[derive(Clone, Copy)]
struct NodeDeserializer<'de, 'p> {
    node: &'de YamlNode,
    path: &'p FieldPath<'p>,
    /// Line of the field: of its key, where it has one.
    line: usize,
}

impl<'de> Deserializer<'de> for NodeDeserializer<'de, '_> {
    type Error = FieldError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        let result = match &self.node.value {
            YamlValue::Null => visitor.visit_unit(),
            YamlValue::Bool(value) => visitor.visit_bool(*value),
            YamlValue::Unsigned(value) => visitor.visit_u64(*value),
            YamlValue::Signed(value) => visitor.visit_i64(*value),
            YamlValue::Float(value) => visitor.visit_f64(*value),
            YamlValue::Text(text) => visitor.visit_str(text),
            YamlValue::Huge(text) => Err(FieldError::huge(text, &visitor)),
            YamlValue::List(items) => visitor.visit_seq(ListItems {
                list: self,
                items: items.iter().enumerate(),
            }),
            YamlValue::Mapping(fields) => visitor.visit_map(MappingFields {
                mapping: self,
                fields: fields.iter(),
                current: None,
            }),
        };
        result.map_err(|error| error.with_position(self.path, self.line))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match self.node.value {
            YamlValue::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    /// Types would take a list too, its items for their fields.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        if matches!(self.node.value, YamlValue::List(_)) {
            let error = FieldError::mismatch(Unexpected::Seq, &visitor);
            return Err(error.with_position(self.path, self.line));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor
            .visit_newtype_struct(self)
            .map_err(|error| error.with_position(self.path, self.line))
    }

    /// The name of a variant as a string: no field has a variant with a value.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        let result = match self.node.as_text() {
            Some(text) => {
                let name: StringDeserializer<FieldError> = text.to_owned().into_deserializer();
                visitor.visit_enum(name)
            }
            None => return self.deserialize_any(visitor),
        };
        result.map_err(|error| error.with_position(self.path, self.line))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier
    }
}

struct ListItems<'de, 'p> {
    list: NodeDeserializer<'de, 'p>,
    items: std::iter::Enumerate<std::slice::Iter<'de, YamlNode>>,
}

impl<'de> SeqAccess<'de> for ListItems<'de, '_> {
    type Error = FieldError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, FieldError> {
        let Some((index, node)) = self.items.next() else {
            return Ok(None);
        };
        let path = FieldPath::Index(self.list.path, index);
        let item = NodeDeserializer {
            node,
            path: &path,
            line: node.line,
        };
        seed.deserialize(item).map(Some)
    }
}

struct MappingFields<'de, 'p> {
    mapping: NodeDeserializer<'de, 'p>,
    fields: std::slice::Iter<'de, YamlField>,
    current: Option<&'de YamlField>,
}

impl<'de> MapAccess<'de> for MappingFields<'de, '_> {
    type Error = FieldError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, FieldError> {
        self.current = self.fields.next();
        let Some(field) = self.current else {
            return Ok(None);
        };
        let key: StrDeserializer<'_, FieldError> = field.key.as_str().into_deserializer();
        let path = FieldPath::Key(self.mapping.path, &field.key);
        seed.deserialize(key)
            .map(Some)
            .map_err(|error| error.with_position(&path, field.line))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, FieldError> {
        let Some(field) = self.current.take() else {
            return Err(de::Error::custom("a value is read before its key"));
        };
        let path = FieldPath::Key(self.mapping.path, &field.key);
        let value = NodeDeserializer {
            node: &field.node,
            path: &path,
            line: field.line,
        };
        seed.deserialize(value)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tree, *};
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only what does not fit is looked at")]
    struct Service {
        name: Option<String>,
        port: Option<i64>,
        roles: Option<Vec<BTreeMap<String, bool>>>,
    }

    /// Field, line from 1, and reason.
    fn error(text: &str, quote: bool) -> (String, usize, String) {
        let root = tree::parse(text).expect("YAML");
        let error = read::<Service>(&root).expect_err("an error");
        (
            error.field.clone(),
            error.line() + 1,
            error.reason(1, quote),
        )
    }

    fn expected(field: &str, line: usize, reason: &str) -> (String, usize, String) {
        (field.to_owned(), line, reason.to_owned())
    }

    #[test]
    fn an_error_has_the_path_and_the_line_of_the_key() {
        for (text, field, line, reason) in [
            (
                "name: a\nport: x\n",
                "port",
                2,
                "expected an integer, found string \"x\"",
            ),
            (
                "name: a\nport:\n  - 1\n",
                "port",
                2,
                "expected an integer, found a list",
            ),
            (
                "port: 18446744073709551616\n",
                "port",
                1,
                "integer 18446744073709551616 is out of range",
            ),
            (
                "port: 18446744073709551615\n",
                "port",
                1,
                "integer 18446744073709551615 is out of range",
            ),
            (
                "port: 1.0\n",
                "port",
                1,
                "expected an integer, found floating point 1.0",
            ),
            (
                "roles:\n- {}\n- a.b: 1\n",
                "roles[1].a.b",
                3,
                "expected a boolean, found integer 1",
            ),
            (
                "roles: {}\n",
                "roles",
                1,
                "expected a list, found a mapping",
            ),
            (
                "name: a\n\nnmae: b\n",
                "nmae",
                3,
                "unknown field (known ones: name, port, roles)",
            ),
            ("- name: a\n", "", 1, "expected a mapping, found a list"),
        ] {
            assert_eq!(error(text, true), expected(field, line, reason), "{text:?}");
        }
    }

    #[test]
    fn values_that_may_be_secret_or_are_long_are_not_quoted() {
        let reason = "expected an integer, found string";
        assert_eq!(error("port: hush\n", false), expected("port", 1, reason));
        let long = format!("port: {}\n", "x".repeat(100));
        assert_eq!(error(&long, true), expected("port", 1, reason));
        let reason = "integer is out of range";
        assert_eq!(
            error("port: 99999999999999999999\n", false),
            expected("port", 1, reason)
        );
    }
}
