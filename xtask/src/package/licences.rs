//! Licences of the crates that are linked into the programs, with their texts.

use crate::sh;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::Path,
};

/// Prefixes of the names of licence files, in lower case.
const FILES: [&str; 5] = ["license", "licence", "copying", "copyright", "notice"];

/// A list of crates with their licences, then the texts.
pub(super) fn text() -> Result<String> {
    // Only dependencies of this platform.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = sh::cargo(&["metadata", "--format-version=1", "--locked", "--offline"])
        .args(["--filter-platform", &platform])
        .output()
        .context("starting cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let mut list = String::from(
        "The programs of this package are linked with the Rust standard library (MIT OR Apache-2.0,\n\
         https://www.rust-lang.org) and with these crates. The texts of their licences follow.\n\n",
    );
    // Many crates share a text.
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in linked(&metadata, "skupperd")? {
        let of = |key| package[key].as_str().unwrap_or_default();
        let name = format!("{} {}", of("name"), of("version"));
        let terms = of("license");
        // Crates of the workspace have no source.
        if package["source"].is_null() {
            continue;
        }
        if terms.is_empty() {
            bail!("{name} does not say its licence");
        }
        writeln!(list, "{name}: {terms}; {}", of("repository"))?;
        let manifest = Path::new(of("manifest_path"));
        let dir = manifest
            .parent()
            .context("a manifest without a directory")?;
        for text in terms_of(dir)? {
            texts.entry(text).or_default().insert(name.clone());
        }
    }
    for (text, crates) in texts {
        let crates: Vec<_> = crates.into_iter().collect();
        let line = "-".repeat(80);
        write!(
            list,
            "\n{line}\n{}:\n\n{}\n",
            crates.join(", "),
            text.trim_end()
        )?;
    }
    Ok(list)
}

/// A package and its linked dependencies, sorted by name and version.
fn linked<'a>(metadata: &'a Value, name: &str) -> Result<Vec<&'a Value>> {
    let packages = list(&metadata["packages"]);
    let nodes: BTreeMap<_, _> = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| (node["id"].as_str(), node))
        .collect();
    let root = packages.iter().find(|package| package["name"] == name);
    let mut to_see = vec![root.with_context(|| format!("no package {name}"))?["id"].as_str()];
    let mut seen = BTreeSet::new();
    while let Some(id) = to_see.pop() {
        if !seen.insert(id) {
            continue;
        }
        let node = nodes.get(&id).context("a package that is not resolved")?;
        // The kind is null for normal dependencies.
        let normal = |dep: &&Value| {
            list(&dep["dep_kinds"])
                .iter()
                .any(|kind| kind["kind"].is_null())
        };
        to_see.extend(
            list(&node["deps"])
                .iter()
                .filter(normal)
                .map(|dep| dep["pkg"].as_str()),
        );
    }
    let mut found: Vec<_> = packages
        .iter()
        .filter(|p| seen.contains(&p["id"].as_str()))
        .collect();
    found.sort_by_key(|p| (p["name"].as_str(), p["version"].as_str()));
    Ok(found)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The texts in a crate's own directory.
fn terms_of(dir: &Path) -> Result<Vec<String>> {
    let at = || dir.display().to_string();
    let mut texts = Vec::new();
    for entry in fs::read_dir(dir).with_context(at)? {
        let entry = entry.with_context(at)?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if FILES.iter().any(|begin| name.starts_with(begin)) && entry.path().is_file() {
            let bytes = fs::read(entry.path()).with_context(at)?;
            texts.push(String::from_utf8_lossy(&bytes).replace("\r\n", "\n"));
        }
    }
    texts.sort();
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn build_and_dev_dependencies_are_not_listed() -> Result<()> {
        let package =
            |name: &str| json!({ "name": name, "version": "1.0.0", "id": format!("{name}#1") });
        let dep = |name: &str, kind: Value| json!({ "pkg": format!("{name}#1"), "dep_kinds": [{ "kind": kind }] });
        let node =
            |name: &str, deps: Vec<Value>| json!({ "id": format!("{name}#1"), "deps": deps });
        let packages = ["zlib", "app", "cc", "insta", "far"].map(package);
        let metadata = json!({
            "packages": packages,
            "resolve": { "nodes": [
                node("app", vec![
                    dep("zlib", Value::Null),
                    dep("cc", json!("build")),
                    dep("insta", json!("dev")),
                ]),
                node("zlib", vec![dep("far", Value::Null)]),
                node("far", vec![dep("app", Value::Null)]),
                node("cc", vec![]),
                node("insta", vec![]),
            ] },
        });
        let names: Vec<_> = linked(&metadata, "app")?
            .iter()
            .map(|p| &p["name"])
            .collect();
        assert_eq!(names, ["app", "far", "zlib"]);
        assert!(linked(&metadata, "other").is_err());
        Ok(())
    }
}
