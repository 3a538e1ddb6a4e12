//! Manifests for cargo-deb and cargo-generate-rpm: a crate for each package, generated from the
//! list and the staged tree.

use super::{
    Format,
    list::{self, Package},
    stage::StagedFiles,
};
use crate::sh;
use anyhow::{Context, Result};
use std::{fmt::Write, fs, path::Path};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Package revision.
const REVISION: &str = "1";

pub(super) fn debian_version() -> String {
    format!("{VERSION}-{REVISION}")
}

/// The file name of a package.
pub(super) fn file_name(package: &Package, format: Format) -> Result<String> {
    let name = package.name;
    Ok(match format {
        Format::Deb => {
            let arch = sh::output("dpkg", &["--print-architecture"]);
            let arch = arch.context("dpkg does not say the architecture")?;
            format!("{name}_{}_{}.deb", debian_version(), arch.trim())
        }
        Format::Rpm => {
            let arch = std::env::consts::ARCH;
            format!("{name}-{VERSION}-{REVISION}.{arch}.rpm")
        }
    })
}

/// Writes the crate for a package into `dir`.
pub(super) fn write(
    package: &Package,
    staged: &StagedFiles,
    format: Format,
    dir: &Path,
) -> Result<()> {
    let files: Vec<_> = staged
        .files
        .iter()
        .filter(|file| list::owner(file).name == package.name)
        .filter_map(|file| Some((file.as_str(), list::install_path(file, format)?)))
        .collect();
    let mut text = common(package, format)?;
    match format {
        Format::Deb => deb(&mut text, package, staged, &files)?,
        Format::Rpm => rpm(&mut text, package, staged, &files)?,
    }
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    for (name, text) in [("lib.rs", ""), ("Cargo.toml", &text)] {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn common(package: &Package, format: Format) -> Result<String> {
    let mut text = String::new();
    // The tools use this field differently: as one line, or as a paragraph.
    let description = match format {
        Format::Deb => package.summary,
        Format::Rpm => package.description,
    };
    writeln!(text, "[package]")?;
    writeln!(text, "name = {}", quoted(package.name))?;
    writeln!(text, "version = {}", quoted(VERSION))?;
    writeln!(text, "edition = \"2024\"")?;
    writeln!(text, "license = {}", quoted(env!("CARGO_PKG_LICENSE")))?;
    writeln!(text, "description = {}", quoted(description))?;
    writeln!(text, "homepage = {}", quoted(env!("CARGO_PKG_REPOSITORY")))?;
    // Its own workspace, because its directory is inside of another one.
    writeln!(text, "[lib]\npath = \"lib.rs\"\n[workspace]")?;
    Ok(text)
}

fn deb(
    text: &mut String,
    package: &Package,
    staged: &StagedFiles,
    files: &[(&str, String)],
) -> Result<()> {
    writeln!(text, "[package.metadata.deb]")?;
    writeln!(text, "maintainer = {}", quoted(list::MAINTAINER))?;
    writeln!(text, "revision = {}", quoted(REVISION))?;
    writeln!(text, "section = \"net\"")?;
    writeln!(text, "priority = \"optional\"")?;
    writeln!(
        text,
        "extended-description = {}",
        quoted(package.description)
    )?;
    let depends = [&["$auto"], package.deb_depends].concat();
    writeln!(text, "depends = {}", quoted(&depends.join(", ")))?;
    writeln!(
        text,
        "recommends = {}",
        quoted(&package.recommends.join(", "))
    )?;
    if package.service {
        let scripts = sh::root().join("packaging/deb");
        writeln!(text, "maintainer-scripts = {}", path(&scripts))?;
        writeln!(
            text,
            "systemd-units = [{{ unit-name = {} }}]",
            quoted(package.name)
        )?;
    }
    writeln!(text, "assets = [")?;
    for (file, to) in files {
        let (from, mode) = (path(&staged.dir.join(file)), quoted(list::mode(file)));
        writeln!(text, "  [{from}, {}, {mode}],", quoted(to))?;
    }
    writeln!(text, "]")?;
    Ok(())
}

fn rpm(
    text: &mut String,
    package: &Package,
    staged: &StagedFiles,
    files: &[(&str, String)],
) -> Result<()> {
    writeln!(text, "[package.metadata.generate-rpm]")?;
    writeln!(text, "summary = {}", quoted(package.summary))?;
    writeln!(text, "release = {}", quoted(REVISION))?;
    if package.service {
        for (key, file) in [
            ("post_install", "post"),
            ("pre_uninstall", "preun"),
            ("post_uninstall", "postun"),
        ] {
            let file = sh::root().join("packaging/rpm").join(file);
            let script = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            writeln!(text, "{key}_script = {}", quoted(&script))?;
        }
    } else {
        writeln!(text, "require-sh = false")?;
    }
    writeln!(text, "assets = [")?;
    for (file, to) in files {
        let (from, mode) = (path(&staged.dir.join(file)), quoted(list::mode(file)));
        let to = quoted(&format!("/{to}"));
        let mut more = String::new();
        if list::is_config(file) {
            more.push_str(", config = \"noreplace\"");
        }
        if file.starts_with("usr/share/doc/") || file.starts_with("usr/share/man/") {
            more.push_str(", doc = true");
        }
        writeln!(
            text,
            "  {{ source = {from}, dest = {to}, mode = {mode}{more} }},"
        )?;
    }
    writeln!(text, "]")?;
    for (key, names) in [
        ("requires", package.rpm_requires),
        ("recommends", package.recommends),
    ] {
        writeln!(text, "[package.metadata.generate-rpm.{key}]")?;
        for name in names {
            writeln!(text, "{name} = \"*\"")?;
        }
    }
    Ok(())
}

/// Debian's copyright file.
pub(super) fn copyright(package: &Package) -> String {
    let more = if package.name == "skupperd" {
        "dependencies.txt.gz beside this file"
    } else {
        "/usr/share/doc/skupperd/dependencies.txt.gz of the package skupperd"
    };
    format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
         Upstream-Name: skupperd\n\
         Source: {}\n\
         Comment: What is linked into the programs is listed with its terms in\n {more}.\n\n\
         Files: *\n\
         Copyright: {}\n\
         License: Apache-2.0\n \
         On Debian systems, the full text of the Apache License version 2.0 is in\n \
         /usr/share/common-licenses/Apache-2.0.\n",
        env!("CARGO_PKG_REPOSITORY"),
        list::COPYRIGHT,
    )
}

fn path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// A TOML string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_those_of_toml() {
        assert_eq!(quoted("a \"b\" \\ c\n\td"), r#""a \"b\" \\ c\n\td""#);
    }
}
