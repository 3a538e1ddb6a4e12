//! Stages the tree as it will be installed.

use super::{
    Format, licences,
    list::{self, PACKAGES},
    manifest,
};
use crate::sh;
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Files that are installed unchanged.
const TREE: &str = "packaging/root";

/// Manual pages that are written by hand, without their lists of settings.
pub(super) const PAGES: &str = "packaging/man";

/// The staged files of one package format.
pub(super) struct StagedFiles {
    pub(super) dir: PathBuf,
    /// Paths from `dir`, sorted.
    pub(super) files: Vec<String>,
}

/// Stages everything in `dir`. `built`: directory of the programs.
pub(super) fn stage(built: &Path, dir: &Path, format: Format, epoch: u64) -> Result<StagedFiles> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    let tree = StagedTree(dir.join("root"));
    let sources = sh::root().join(TREE);
    for file in files(&sources)? {
        tree.copy(&sources.join(&file), &file)?;
    }
    for program in ["skupper", "skupperd"] {
        let path = format!("usr/bin/{program}");
        tree.copy(&built.join(program), &path)?;
        // Debug information is ten times as large as the program.
        let all = ["--strip-unneeded", "--remove-section=.comment"];
        sh::run(sh::program("strip").args(all).arg(tree.0.join(path)))?;
    }
    let made = dir.join("reference");
    reference(&made, epoch)?;
    // Compressed, as distributions require.
    let mut texts = Vec::new();
    for file in files(&made)? {
        let to = installed(&file).with_context(|| format!("{file}: not known what it is"))?;
        tree.copy(&made.join(&file), &to)?;
        if section(&file).is_some() {
            texts.push(to);
        }
    }
    texts.extend(documents(&tree, format, epoch)?);
    tree.gzip(&texts)?;
    let mut files = files(&tree.0)?;
    files.sort();
    Ok(StagedFiles { dir: tree.0, files })
}

/// Writes the documents that every package has. Returns the files to compress.
fn documents(tree: &StagedTree, format: Format, epoch: u64) -> Result<Vec<String>> {
    let mut texts = vec!["usr/share/doc/skupperd/dependencies.txt".to_owned()];
    tree.write(&texts[0], &licences::text()?)?;
    let licence = sh::root().join("LICENSE");
    for package in &PACKAGES {
        let doc = format!("usr/share/doc/{}", package.name);
        match format {
            Format::Deb => {
                tree.write(&format!("{doc}/copyright"), &manifest::copyright(package))?;
                let log = format!("{doc}/changelog.Debian");
                tree.write(&log, &changelog(epoch)?)?;
                texts.push(log);
            }
            Format::Rpm => tree.copy(
                &licence,
                &format!("usr/share/licenses/{}/LICENSE", package.name),
            )?,
        }
    }
    Ok(texts)
}

/// Debian's changelog, with the version only; git has the changes.
fn changelog(epoch: u64) -> Result<String> {
    let when = format!("@{epoch}");
    let date = sh::output("date", &["--utc", "--rfc-email", "--date", &when]);
    let date = date.context("date does not say the time")?;
    Ok(format!(
        "skupperd ({}) unstable; urgency=medium\n\n  * Built from the sources of this time.\n\n -- {}  {}\n",
        manifest::debian_version(),
        list::MAINTAINER,
        date.trim()
    ))
}

/// Generates manual pages and completions.
pub(super) fn reference(dir: &Path, epoch: u64) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    // The profile of the tests, because the output does not depend on it.
    sh::run(&mut sh::cargo(&[
        "build",
        "--workspace",
        "--example=reference",
        "--locked",
        "--quiet",
    ]))?;
    let program = sh::target().join("debug/examples/reference");
    let mut command = sh::program(program);
    command.current_dir(sh::root());
    sh::run(command.arg(dir).env("SOURCE_DATE_EPOCH", epoch.to_string()))
}

/// The section of a manual page, from its file name; `None` for other files.
pub(super) fn section(file: &str) -> Option<char> {
    let (_, end) = file.rsplit_once('.')?;
    let mut end = end.chars();
    let section = end.next().filter(char::is_ascii_digit)?;
    end.next().is_none().then_some(section)
}

/// Installed path of a page or a completion.
fn installed(file: &str) -> Option<String> {
    if let Some(section) = section(file) {
        return Some(format!("usr/share/man/man{section}/{file}"));
    }
    Some(match file {
        "_skupper" => "usr/share/zsh/vendor-completions/_skupper".to_owned(),
        "skupper.bash" => "usr/share/bash-completion/completions/skupper".to_owned(),
        "skupper.fish" => format!("usr/share/fish/vendor_completions.d/{file}"),
        _ => return None,
    })
}

/// All files below a directory, by their path from there.
pub(super) fn files(dir: &Path) -> Result<Vec<String>> {
    let at = || dir.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(at)? {
        let entry = entry.with_context(at)?;
        let Ok(name) = entry.file_name().into_string() else {
            bail!("{}: a name that is not UTF-8", entry.path().display());
        };
        if entry.file_type().with_context(at)?.is_dir() {
            found.extend(files(&entry.path())?.iter().map(|f| format!("{name}/{f}")));
        } else {
            found.push(name);
        }
    }
    Ok(found)
}

/// A tree under construction.
struct StagedTree(PathBuf);

impl StagedTree {
    fn write(&self, to: &str, text: &str) -> Result<()> {
        let to = self.room(to)?;
        fs::write(&to, text).with_context(|| to.display().to_string())
    }

    fn copy(&self, from: &Path, to: &str) -> Result<()> {
        let to = self.room(to)?;
        fs::copy(from, &to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
        Ok(())
    }

    /// Best compression, without a timestamp.
    fn gzip(&self, files: &[String]) -> Result<()> {
        let mut gzip = sh::program("gzip");
        gzip.args(["-9", "--no-name", "--"]).args(files);
        sh::run(gzip.current_dir(&self.0))
    }

    fn room(&self, to: &str) -> Result<PathBuf> {
        let to = self.0.join(to);
        let above = to.parent().unwrap_or(&self.0);
        fs::create_dir_all(above).with_context(|| above.display().to_string())?;
        Ok(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_completions_have_their_directories() {
        let of = |file| installed(file).unwrap_or_default();
        assert_eq!(of("skupper-site.1"), "usr/share/man/man1/skupper-site.1");
        assert_eq!(of("skupperd.8"), "usr/share/man/man8/skupperd.8");
        assert_eq!(of("_skupper"), "usr/share/zsh/vendor-completions/_skupper");
        assert_eq!(
            of("skupper.bash"),
            "usr/share/bash-completion/completions/skupper"
        );
        assert_eq!(of("notes.txt"), "");
        assert_eq!(section("skupper.1.gz"), None);
    }
}
