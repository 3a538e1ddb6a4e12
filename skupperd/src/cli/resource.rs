//! The verbs that most kinds of resources have: create, update, delete, status, generate.
//!
//! A kind implements [`CliKind`]; its arguments implement [`SpecArgs`] and write themselves into a spec.
//! All errors of the arguments are collected and reported together.

use super::{
    CommandResult, Failure, completion,
    examples::examples,
    invalid,
    output::{self, Encoding, OutputArgs},
    show,
    target::CommandTarget,
    view::ViewArgs,
    wait::{self, WaitArgs},
};
use crate::{
    model::{API_VERSION, Kind, check_name},
    operate::Existing,
};
use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::fmt;

/// A kind, as the command describes it.
pub(super) trait CliKind: fmt::Debug {
    const KIND: Kind;
    /// The noun on the command line and in messages.
    const NOUN: &'static str;
    /// In help, with its article.
    const SINGULAR: &'static str;
    const PLURAL: &'static str;
    /// What the help of update and of delete adds.
    const EFFECTS: (&'static str, &'static str) = ("", "");
    /// Printed where there are no resources of the kind.
    const EMPTY: &'static str;
    /// Columns of its status.
    const HEADER: &'static [&'static str];
    const EXAMPLES: VerbExamples;
    type CreateArgs: SpecArgs;
    type UpdateArgs: SpecArgs;

    /// Defaults of a new one.
    fn spec(name: &str) -> Value;
    /// Cells below [`Self::HEADER`].
    fn row(value: &Value) -> Vec<String>;
    /// Lines about one resource between its status and its message.
    fn fields(value: &Value) -> Vec<(&'static str, String)>;
    /// Lines after its message.
    fn notes(value: &Value) -> Vec<(&'static str, String)> {
        vec![("Note", show::notes(value))]
    }
}

/// Examples of each verb of a kind.
pub(super) struct VerbExamples {
    pub(super) create: &'static [&'static str],
    pub(super) update: &'static [&'static str],
    pub(super) delete: &'static [&'static str],
    pub(super) status: &'static [&'static str],
    pub(super) generate: &'static [&'static str],
}

/// Arguments that set fields of a spec.
pub(super) trait SpecArgs: Args + fmt::Debug {
    /// Sets the fields that the arguments name. Values that are not valid go to `errors`.
    fn apply(&self, spec: &mut Value, errors: &mut Vec<String>);

    /// The error where an argument that a new resource needs is missing.
    fn missing_argument(&self) -> Option<&'static str> {
        None
    }

    /// A change that removes the fields of the current resource that these arguments replace.
    fn removed_fields(&self, _: &Value) -> Value {
        json!({ "spec": {} })
    }
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs<W: CliKind> {
    #[arg(help = format!("Name of the {}", W::NOUN))]
    name: String,
    #[command(flatten)]
    fields: W::CreateArgs,
}

#[derive(Debug, Args)]
pub(super) struct UpdateArgs<W: CliKind> {
    #[arg(help = format!("Name of the {}", W::NOUN), add = completion::resource_names(W::KIND))]
    name: String,
    #[command(flatten)]
    fields: W::UpdateArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb<W: CliKind> {
    #[command(
        about = format!("Create {}", W::SINGULAR),
        after_help = examples(W::EXAMPLES.create),
        mut_arg("wait", |arg| arg.help(wait::help(W::KIND)))
    )]
    Create {
        #[command(flatten)]
        create: CreateArgs<W>,
        #[arg(long, help = format!("Replace the {} of this name, if there is one", W::NOUN))]
        force: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
    #[command(
        about = format!("Change {}; options that are not given keep their value{}", W::SINGULAR, W::EFFECTS.0),
        after_help = examples(W::EXAMPLES.update),
        mut_arg("wait", |arg| arg.help(wait::help(W::KIND)))
    )]
    Update {
        #[command(flatten)]
        update: UpdateArgs<W>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    #[command(
        about = format!("Delete {}{}", W::SINGULAR, W::EFFECTS.1),
        after_help = examples(W::EXAMPLES.delete),
        mut_arg("wait", |arg| arg.help(wait::delete_help(W::KIND)))
    )]
    Delete {
        #[arg(help = format!("Name of the {}", W::NOUN), add = completion::resource_names(W::KIND))]
        name: String,
        #[command(flatten)]
        wait: WaitArgs,
    },
    #[command(
        about = format!("Show {}", W::PLURAL),
        after_help = examples(W::EXAMPLES.status)
    )]
    Status {
        #[arg(
            help = format!("Name of the {} to show in detail [default: a table of all]", W::NOUN),
            add = completion::resource_names(W::KIND)
        )]
        name: Option<String>,
        #[command(flatten)]
        view: ViewArgs,
    },
    #[command(
        about = format!("Print {} {} resource as YAML or JSON without creating it", article(W::KIND), W::KIND),
        after_help = examples(W::EXAMPLES.generate)
    )]
    Generate {
        #[command(flatten)]
        create: CreateArgs<W>,
        #[command(flatten)]
        format: OutputArgs,
    },
}

fn article(kind: Kind) -> &'static str {
    match kind.as_str().starts_with('A') {
        true => "an",
        false => "a",
    }
}

pub(super) fn run<W: CliKind>(target: &CommandTarget, verb: Verb<W>) -> CommandResult {
    match verb {
        Verb::Create {
            create,
            force,
            wait,
        } => {
            let value = new_resource(&create)?;
            let (noun, name) = (W::NOUN, &create.name);
            write_new(target, W::KIND, noun, name, &value, force)?;
            wait.written(target, W::KIND, &create.name, &value, true)
        }
        Verb::Update { update: args, wait } => update(target, &args, &wait),
        Verb::Delete { name, wait } => {
            if target.delete(W::KIND, &name)?.is_empty() {
                return Err(show::not_found(target, W::NOUN, &name));
            }
            wait.deleted(target, W::KIND, &name)?;
            output::print(&format!("{} {name:?} is deleted", W::KIND))
        }
        Verb::Status { name, view } => show::print(
            target,
            name.as_deref(),
            &view,
            &show::StatusView {
                kind: W::KIND,
                empty: W::EMPTY,
                noun: W::NOUN,
                header: W::HEADER,
                row: W::row,
                details: details::<W>,
            },
        ),
        Verb::Generate { create, format } => {
            let value = new_resource(&create)?;
            output::document(&value, format.encoding()?.unwrap_or(Encoding::Yaml))
        }
    }
}

/// Writes a new resource, or with `force` replaces it, and prints its file.
pub(super) fn write_new(
    target: &CommandTarget,
    kind: Kind,
    noun: &str,
    name: &str,
    value: &Value,
    force: bool,
) -> CommandResult {
    let existing = match force {
        true => Existing::Replace,
        false => Existing::Refuse,
    };
    let path = match target.create(value, existing) {
        // Only now: what was just deleted has a status for a moment.
        Err(_) if !force && exists(target, kind, name)? => {
            return Err(Failure::Failed(anyhow!(
                "{noun} {name:?} exists already in namespace {}\n\
                 Change it with: skupper {noun} update {name}; to replace it, use --force",
                target.name()
            )));
        }
        result => result?,
    };
    output::print(&format!("File written to {}", path.display()))
}

/// Whether there is a valid resource of this name. An invalid one has a status only, and is replaced.
fn exists(target: &CommandTarget, kind: Kind, name: &str) -> Result<bool, Failure> {
    let all = target.documents(kind)?;
    let mut valid = all.iter().filter(|v| v.get("spec").is_some());
    Ok(valid.any(|v| v["metadata"]["name"] == name))
}

/// Names and values of the status of one resource.
fn details<W: CliKind>(value: &Value) -> Vec<(&'static str, String)> {
    let (name, status, message) = show::status(value);
    let mut lines = vec![("Name", name), ("Status", status)];
    lines.extend(W::fields(value));
    lines.push(("Message", message));
    lines.extend(W::notes(value));
    lines
}

/// The document of a new resource, or all errors of its arguments.
fn new_resource<W: CliKind>(create: &CreateArgs<W>) -> Result<Value, Failure> {
    if let Some(missing) = create.fields.missing_argument() {
        return Err(invalid(missing));
    }
    let mut errors = Vec::new();
    if let Err(e) = check_name(&create.name) {
        errors.push(format!("{} name is not valid: {e}", W::NOUN));
    }
    let mut value = json!({
        "apiVersion": API_VERSION,
        "kind": W::KIND.as_str(),
        "metadata": { "name": create.name },
        "spec": W::spec(&create.name),
    });
    create.fields.apply(&mut value["spec"], &mut errors);
    if !errors.is_empty() {
        return Err(Failure::Invalid(errors));
    }
    // Null removes a field in a change; in a new resource it has nothing to remove.
    for fields in ["/spec", "/spec/settings"] {
        let fields = value.pointer_mut(fields).and_then(Value::as_object_mut);
        if let Some(fields) = fields {
            fields.retain(|_, value| !value.is_null());
        }
    }
    Ok(value)
}

/// Changes the given fields only: fields that this command does not know are kept.
fn update<W: CliKind>(
    target: &CommandTarget,
    args: &UpdateArgs<W>,
    wait: &WaitArgs,
) -> CommandResult {
    let (kind, noun, name) = (W::KIND, W::NOUN, &args.name);
    let all = target.documents(kind)?;
    let found = all.iter().find(|v| v["metadata"]["name"] == *name);
    let missing = || {
        let namespace = target.name();
        invalid(format!(
            "{noun} {name} must exist in namespace {namespace} to be updated"
        ))
    };
    // A missing resource is reported before errors of its fields.
    let mut change = args.fields.removed_fields(found.ok_or_else(missing)?);
    let mut errors = Vec::new();
    args.fields.apply(&mut change["spec"], &mut errors);
    if !errors.is_empty() {
        return Err(Failure::Invalid(errors));
    }
    let path = target.update(kind, name, &change)?.ok_or_else(missing)?;
    output::print(&format!("File written to {path}"))?;
    wait.written(target, kind, name, &change, false)
}
