//! A document to a tree, with a bound on what aliases can make of it.

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::{
    cell::{Cell, RefCell},
    fmt,
};

/// What a tree may hold beside twice the size of its document: for honest use of aliases.
const ALLOWANCE: usize = 64 * 1024;
/// Brackets open at once. The scanner's time grows with the square of them.
const MAX_BRACKETS: usize = 256;

/// The tree of a document. Keys are texts, none is there twice.
pub(super) fn tree(text: &str) -> Result<Value, serde_yaml::Error> {
    // No text makes a tree larger than twice itself, escapes included, except by aliases.
    let budget = Cell::new(text.len() * 2 + ALLOWANCE);
    Tree(&budget).deserialize(serde_yaml::Deserializer::from_str(text))
}

/// More brackets are open somewhere than any resource has.
pub(super) fn is_too_deep(text: &str) -> bool {
    let mut open = 0usize;
    text.bytes().any(|c| {
        match c {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        open > MAX_BRACKETS
    })
}

#[derive(Clone, Copy)]
struct Tree<'a>(&'a Cell<usize>);

impl Tree<'_> {
    fn spend<E: de::Error>(self, bytes: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(bytes + 1);
        self.0
            .set(left.ok_or_else(|| E::custom("aliases make the document too large"))?);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        self.spend(0)?;
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        self.spend(0)?;
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        self.spend(0)?;
        Ok(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        self.spend(0)?;
        Ok(value.into())
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Value, E> {
        self.visit_string(value.to_string())
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Value, E> {
        self.visit_string(value.to_string())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        self.spend(0)?;
        // Infinities have no form in JSON, and no field takes one.
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        self.spend(value.len())?;
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Value, E> {
        self.spend(value.len())?;
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.spend(0)?;
        let mut list = Vec::new();
        while let Some(item) = access.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.spend(0)?;
        let mut map = Map::new();
        while let Some(key) = access.next_key_seed(Key {
            budget: self,
            known: &map,
        })? {
            let value = access.next_value_seed(self)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }

    fn visit_enum<A: de::EnumAccess<'de>>(self, _access: A) -> Result<Value, A::Error> {
        Err(de::Error::custom("tags are not allowed"))
    }
}

/// A key that is not among those before it. The error is raised while the key is read, so that it
/// has the key's place.
struct Key<'a> {
    budget: Tree<'a>,
    known: &'a Map<String, Value>,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<String, E> {
        self.budget.spend(key.len())?;
        if self.known.contains_key(key) {
            return Err(E::custom(format_args!("duplicate field `{key}`")));
        }
        Ok(key.to_owned())
    }
}

/// Kind and name of a document that has something wrong in it, as far as they stand before that.
pub(super) fn identity(text: &str) -> (Option<String>, Option<String>) {
    let found = RefCell::new((None, None));
    let walk = Identity {
        path: "",
        found: &found,
    };
    // What is wrong has been told of.
    drop(walk.deserialize(serde_yaml::Deserializer::from_str(text)));
    found.into_inner()
}

type Found = RefCell<(Option<String>, Option<String>)>;

#[derive(Clone, Copy)]
struct Identity<'a> {
    path: &'static str,
    found: &'a Found,
}

impl<'de> DeserializeSeed<'de> for Identity<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Identity<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a resource")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        let text = Some(text.to_owned()).filter(|text| !text.is_empty());
        let mut found = self.found.borrow_mut();
        match self.path {
            "kind" => found.0 = text,
            _ => found.1 = text,
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        while let Some(key) = access.next_key::<String>()? {
            let path = match (self.path, key.as_str()) {
                ("", "kind") => "kind",
                ("", "metadata") => "metadata",
                ("metadata", "name") => "name",
                _ => {
                    access.next_value::<de::IgnoredAny>()?;
                    continue;
                }
            };
            access.next_value_seed(Identity {
                path,
                found: self.found,
            })?;
        }
        Ok(())
    }
}
