//! `skupper version` and `skupper manifest`

use super::{
    CommandResult,
    output::{self, OutputArgs},
    show,
    target::CommandTarget,
};
use crate::model::API_VERSION;
use serde_json::{Value, json};

/// `skupper version`
pub(super) fn print_version(format: &OutputArgs) -> CommandResult {
    let version = env!("CARGO_PKG_VERSION");
    match format.encoding()? {
        None => output::print(version),
        Some(encoding) => output::document(
            &json!([
                { "component": "skupper", "version": version },
                { "component": "skupperd", "version": version },
            ]),
            encoding,
        ),
    }
}

/// `skupper manifest`
pub(super) fn print_manifest(target: &CommandTarget, format: &OutputArgs) -> CommandResult {
    let encoding = format.encoding()?;
    let running = target.daemon()?.map(|daemon| daemon.version);
    let all = json!([
        { "component": "skupper", "version": env!("CARGO_PKG_VERSION") },
        { "component": "skupperd", "version": running },
        { "component": "resources", "version": API_VERSION },
    ]);
    if let Some(encoding) = encoding {
        return output::document(&all, encoding);
    }
    let row = |v: &Value| {
        let text = |path: &str| show::text(v, path);
        let version = Some(text("/version")).filter(|version| !version.is_empty());
        vec![
            text("/component"),
            version.unwrap_or_else(|| "not running".to_owned()),
        ]
    };
    let rows: Vec<Vec<String>> = all.as_array().into_iter().flatten().map(row).collect();
    output::table(&["COMPONENT", "VERSION"], &rows)
}
