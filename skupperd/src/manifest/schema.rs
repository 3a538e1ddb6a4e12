//! The fields of documents, derived from the types that are read: a deserializer records what each type
//! requests. So no list can differ from the types.

use super::{encode::PARTS, raw};
use crate::model::{Details, Kind};
use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor,
        value::{Error, StrDeserializer},
    },
    forward_to_deserialize_any,
};
use std::{cell::RefCell, rc::Rc};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Field {
    /// Its path, as in `spec.endpoints[].host`; what may have any name is `*`.
    pub path: String,
    /// What it takes, in words of YAML.
    pub takes: &'static str,
}

/// Fields of the documents of a kind that are read, in the order in which the types have them.
pub fn fields(kind: Kind) -> Vec<Field> {
    match kind {
        Kind::Site => of::<raw::Object<raw::Site>>(),
        Kind::Link => of::<raw::Object<raw::Link>>(),
        Kind::Listener => of::<raw::Object<raw::Listener>>(),
        Kind::MultiKeyListener => of::<raw::Object<raw::MultiKeyListener>>(),
        Kind::Connector => of::<raw::Object<raw::Connector>>(),
        Kind::RouterAccess => of::<raw::Object<raw::RouterAccess>>(),
        Kind::AccessGrant => of::<raw::Object<raw::AccessGrant>>(),
        Kind::AccessToken => of::<raw::Object<raw::AccessToken>>(),
        Kind::Certificate => of::<raw::Object<raw::Certificate>>(),
        Kind::SecuredAccess => of::<raw::Object<raw::SecuredAccess>>(),
        Kind::AttachedConnector => of::<raw::Object<raw::AttachedConnector>>(),
        Kind::AttachedConnectorBinding => of::<raw::Object<raw::AttachedConnectorBinding>>(),
        Kind::Secret => of::<raw::Secret>().into_iter().flat_map(parts).collect(),
    }
}

/// Of a Secret's data any part is read, and these mean something.
fn parts(field: Field) -> Vec<Field> {
    match field.path.strip_suffix(".*") {
        Some(data @ ("data" | "stringData")) => {
            let part = |part: &str| Field {
                path: format!("{data}.{part}"),
                ..field.clone()
            };
            PARTS.map(part).to_vec()
        }
        _ => vec![field],
    }
}

/// Fields of the status of a kind that are written, but for those that all kinds have.
pub fn status_fields(kind: Kind) -> Vec<Field> {
    let recorder = TypeRecorder::new("status");
    let found = Rc::clone(&recorder.found);
    // The result is ignored: the requests are recorded.
    let _ = Details::read_from(kind, recorder);
    found.take()
}

fn of<'de, T: Deserialize<'de>>() -> Vec<Field> {
    let recorder = TypeRecorder::new("");
    let found = Rc::clone(&recorder.found);
    let _ = T::deserialize(recorder);
    found.take()
}

/// Gives every type what it requests, and records its path.
#[derive(Clone)]
struct TypeRecorder {
    found: Rc<RefCell<Vec<Field>>>,
    path: String,
}

impl TypeRecorder {
    fn new(path: &str) -> Self {
        Self {
            found: Rc::default(),
            path: path.to_owned(),
        }
    }

    fn below(&self, path: String) -> Self {
        Self {
            found: Rc::clone(&self.found),
            path,
        }
    }

    fn note(&self, takes: &'static str) {
        self.found.borrow_mut().push(Field {
            path: self.path.clone(),
            takes,
        });
    }
}

impl<'de> Deserializer<'de> for TypeRecorder {
    type Error = Error;

    /// [`raw::Text`] requests anything, so that only strings become one.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.note("string");
        visitor.visit_str("")
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.note("boolean");
        visitor.visit_bool(false)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.note("integer");
        visitor.visit_i64(1)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.note("integer");
        visitor.visit_u64(1)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.note("anything");
        visitor.visit_unit()
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let path = format!("{}[]", self.path);
        visitor.visit_seq(Once(Some(self.below(path))))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(FieldNames::new(self, &["*"]))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_map(FieldNames::new(self, fields))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct enum identifier
    }
}

/// The one element of a list.
struct Once(Option<TypeRecorder>);

impl<'de> SeqAccess<'de> for Once {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        self.0
            .take()
            .map(|recorder| seed.deserialize(recorder))
            .transpose()
    }
}

/// Every field of a type, each once.
struct FieldNames {
    recorder: TypeRecorder,
    names: std::slice::Iter<'static, &'static str>,
    name: &'static str,
}

impl FieldNames {
    fn new(recorder: TypeRecorder, names: &'static [&'static str]) -> Self {
        Self {
            recorder,
            names: names.iter(),
            name: "",
        }
    }
}

impl<'de> MapAccess<'de> for FieldNames {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some(name) = self.names.next() else {
            return Ok(None);
        };
        self.name = name;
        let name: StrDeserializer<'_, Error> = name.into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let path = match self.recorder.path.as_str() {
            "" => self.name.to_owned(),
            path => format!("{path}.{}", self.name),
        };
        seed.deserialize(self.recorder.below(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_of_the_types() {
        let link = fields(Kind::Link);
        let has = |path: &str, takes: &str| link.iter().any(|f| f.path == path && f.takes == takes);
        assert!(has("metadata.name", "string"), "{link:?}");
        assert!(has("metadata.labels.*", "string"));
        assert!(has("spec.endpoints[].port", "string"));
        assert!(has("spec.cost", "integer"));
        assert!(has("spec.settings.*", "string"));
        assert!(has("status", "anything"));
        let secret = fields(Kind::Secret);
        assert!(
            secret.iter().any(|f| f.path == "data.tls.key"),
            "{secret:?}"
        );
        let site = status_fields(Kind::Site);
        let paths: Vec<&str> = site.iter().map(|f| f.path.as_str()).collect();
        assert!(
            paths.contains(&"status.network[].links[].remoteSiteId"),
            "{paths:?}"
        );
        assert!(paths.contains(&"status.sitesInNetwork"), "{paths:?}");
        for kind in Kind::ALL {
            assert!(fields(kind).len() > 5, "{kind}");
        }
    }
}
