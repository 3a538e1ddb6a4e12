//! Verbs that every kind of resource has, whatever it is: create, update, delete, status, generate.

use super::{
    Failure, Outcome, invalid, names,
    output::{self, Encoding, Format},
    place::Place,
    show,
    view::View,
    wait::Wait,
};
use crate::model::{API_VERSION, Kind, check_name};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::fmt;

/// A kind as the command knows it.
pub(super) trait Words: fmt::Debug {
    const KIND: Kind;
    /// In messages.
    const NOUN: &'static str;
    /// In help: one of them.
    const ONE: &'static str;
    /// In help: all of them.
    const MANY: &'static str;
    /// What help adds to the change and to the end of one.
    const AND: (&'static str, &'static str) = ("", "");
    /// Said where there is none.
    const NONE: &'static str;
    /// Columns of its status.
    const HEADER: &'static [&'static str];
    /// What is said of a new one.
    type New: Fields;
    /// What is said of one that is there.
    type Change: Fields;

    /// What a new one says when nothing is said.
    fn spec(name: &str) -> Value;
    /// Its line in a status.
    fn row(value: &Value) -> Vec<String>;
    /// Its status alone.
    fn details(value: &Value) -> Vec<(&'static str, String)>;
}

/// Arguments that say what is to be in a resource.
pub(super) trait Fields: Args + fmt::Debug {
    /// Puts what is given into a spec; says what is wrong.
    fn apply(&self, spec: &mut Value, wrong: &mut Vec<String>);

    /// Where these are not enough for a new resource, what is missing.
    fn missing(&self) -> Option<&'static str> {
        None
    }

    /// What a change takes away, of the resource as it is.
    fn dropped(&self, _: &Value) -> Value {
        json!({ "spec": {} })
    }
}

#[derive(Debug, Args)]
pub(super) struct New<W: Words> {
    /// Name
    name: String,
    #[command(flatten)]
    fields: W::New,
}

#[derive(Debug, Args)]
pub(super) struct Change<W: Words> {
    /// Name
    #[arg(add = names::of(W::KIND))]
    name: String,
    #[command(flatten)]
    fields: W::Change,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb<W: Words> {
    #[command(about = format!("Create {}", W::ONE))]
    Create {
        #[command(flatten)]
        create: New<W>,
        #[command(flatten)]
        wait: Wait,
    },
    #[command(about = format!("Change {}{}", W::ONE, W::AND.0))]
    Update {
        #[command(flatten)]
        update: Change<W>,
        #[command(flatten)]
        wait: Wait,
    },
    #[command(about = format!("Delete {}{}", W::ONE, W::AND.1))]
    Delete {
        /// Name
        #[arg(add = names::of(W::KIND))]
        name: String,
        #[command(flatten)]
        wait: Wait,
    },
    #[command(about = format!("Show {}", W::MANY))]
    Status {
        /// Name [default: all]
        #[arg(add = names::of(W::KIND))]
        name: Option<String>,
        #[command(flatten)]
        view: View,
    },
    #[command(about = format!("Print a resource of the kind {} and change nothing", W::KIND))]
    Generate {
        #[command(flatten)]
        create: New<W>,
        #[command(flatten)]
        format: Format,
    },
}

pub(super) fn run<W: Words>(place: &Place, verb: Verb<W>) -> Outcome {
    match verb {
        Verb::Create { create, wait } => {
            let value = resource(&create)?;
            let path = place.create(&value)?;
            output::print(&format!("File written to {path}"))?;
            wait.written(place, W::KIND, &create.name, &value, true)
        }
        Verb::Update { update, wait } => change(place, &update, &wait),
        Verb::Delete { name, wait } => {
            if place.delete(W::KIND, &name)?.is_empty() {
                return Err(invalid(format!("{} {name} does not exist", W::NOUN)));
            }
            wait.deleted(place, W::KIND, &name)?;
            output::print(&format!("{} {name:?} is deleted", W::KIND))
        }
        Verb::Status { name, view } => show::show(
            place,
            name.as_deref(),
            &view,
            &show::Show {
                kind: W::KIND,
                none: W::NONE,
                missing: format!(
                    "{} {} does not exist in namespace {}",
                    W::NOUN,
                    name.as_deref().unwrap_or_default(),
                    place.name()
                ),
                header: W::HEADER,
                row: W::row,
                details: W::details,
            },
        ),
        Verb::Generate { create, format } => {
            let value = resource(&create)?;
            output::document(&value, format.encoding()?.unwrap_or(Encoding::Yaml))
        }
    }
}

/// A new resource; everything that is wrong with it is said.
fn resource<W: Words>(create: &New<W>) -> Result<Value, Failure> {
    if let Some(missing) = create.fields.missing() {
        return Err(invalid(missing));
    }
    let mut wrong = Vec::new();
    if let Err(e) = check_name(&create.name) {
        wrong.push(format!("{} name is not valid: {e}", W::NOUN));
    }
    let mut value = json!({
        "apiVersion": API_VERSION,
        "kind": W::KIND.as_str(),
        "metadata": { "name": create.name },
        "spec": W::spec(&create.name),
    });
    create.fields.apply(&mut value["spec"], &mut wrong);
    if !wrong.is_empty() {
        return Err(Failure::Invalid(wrong));
    }
    // What is not there needs no taking away.
    for fields in ["/spec", "/spec/settings"] {
        let fields = value.pointer_mut(fields).and_then(Value::as_object_mut);
        if let Some(fields) = fields {
            fields.retain(|_, value| !value.is_null());
        }
    }
    Ok(value)
}

/// Changes what is said; everything that this command knows nothing of stays as it is.
fn change<W: Words>(place: &Place, update: &Change<W>, wait: &Wait) -> Outcome {
    let (kind, noun, name) = (W::KIND, W::NOUN, &update.name);
    let all = place.documents(kind)?;
    let found = all.iter().find(|v| v["metadata"]["name"] == *name);
    let missing = || {
        let namespace = place.name();
        invalid(format!(
            "{noun} {name} must exist in namespace {namespace} to be updated"
        ))
    };
    // That there is no such thing is said before what is wrong with its fields.
    let mut change = update.fields.dropped(found.ok_or_else(missing)?);
    let mut wrong = Vec::new();
    update.fields.apply(&mut change["spec"], &mut wrong);
    if !wrong.is_empty() {
        return Err(Failure::Invalid(wrong));
    }
    let path = place.update(kind, name, &change)?.ok_or_else(missing)?;
    output::print(&format!("File written to {path}"))?;
    wait.written(place, kind, name, &change, false)
}
