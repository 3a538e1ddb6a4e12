//! The programs of another commit, built in a worktree of their own.

use super::dir;
use crate::sh;
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
};

const PROGRAMS: [&str; 2] = ["skupperd", "skupper"];

/// Builds the programs of a commit. Returns its short id and their directory. A commit is built
/// once for each profile.
pub(super) fn build(revision: &str, profile: &str) -> Result<(String, PathBuf)> {
    let id = resolve(revision)?;
    let label = id.chars().take(9).collect();
    let programs = std::path::absolute(dir().join("programs").join(profile).join(&id))?;
    if !programs.is_dir() {
        let worktree = Worktree::add(&id)?;
        // Dependencies are shared by all commits, but not with the workspace: programs of the same
        // name would replace each other.
        let target = std::path::absolute(dir().join("target"))?;
        let words = ["build", "--bins", "--locked", "--package=skupperd"];
        let mut cargo = sh::cargo(&words);
        cargo
            .args(["--profile", profile])
            .current_dir(&worktree.0)
            .env("CARGO_TARGET_DIR", &target);
        sh::run(&mut cargo).with_context(|| format!("building {revision}"))?;
        keep(&target.join(sh::profile_dir(profile)), &programs)?;
    }
    Ok((label, programs))
}

/// Copies programs to a directory that exists only once it has all.
fn keep(built: &Path, programs: &Path) -> Result<()> {
    let partial = programs.with_extension("partial");
    fs::create_dir_all(&partial).with_context(|| partial.display().to_string())?;
    for name in PROGRAMS {
        let from = built.join(name);
        fs::copy(&from, partial.join(name)).with_context(|| from.display().to_string())?;
    }
    fs::rename(&partial, programs).with_context(|| programs.display().to_string())
}

/// The full id of a commit.
fn resolve(revision: &str) -> Result<String> {
    let root = sh::root().to_string_lossy();
    let commit = format!("{revision}^{{commit}}");
    let words = [
        "-C",
        &root,
        "rev-parse",
        "--verify",
        "--end-of-options",
        &commit,
    ];
    let id = sh::output("git", &words);
    let id = id.with_context(|| format!("{revision} is no commit of this clone"))?;
    Ok(id.trim().to_owned())
}

/// A worktree of a commit. It is removed on drop.
struct Worktree(PathBuf);

impl Worktree {
    fn add(id: &str) -> Result<Self> {
        let path = std::path::absolute(dir().join("source").join(id))?;
        let worktree = Self(path);
        // An interrupted build leaves it behind.
        worktree.remove();
        let path = worktree.0.to_string_lossy();
        // By force: git may know one of this path whose directory is gone.
        let add = ["worktree", "add", "--quiet", "--force", "--detach"];
        sh::run(git().args(add).args([&*path, id]))?;
        ensure!(worktree.0.is_dir(), "git made no worktree in {path}");
        Ok(worktree)
    }

    fn remove(&self) {
        // Each step may find nothing to do. Other worktrees of the clone are left alone.
        let path = self.0.to_string_lossy();
        drop(
            git()
                .args(["worktree", "remove", "--force", &path])
                .output(),
        );
        drop(fs::remove_dir_all(&self.0));
    }
}

impl Drop for Worktree {
    fn drop(&mut self) {
        self.remove();
    }
}

fn git() -> std::process::Command {
    let mut git = sh::program("git");
    git.arg("-C").arg(sh::root());
    git
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_a_commit_and_never_an_option() -> Result<()> {
        let id = resolve("HEAD")?;
        assert_eq!(id.len(), 40);
        assert_eq!(resolve(&id[..12])?, id);
        for wrong in ["no-such-branch", "--all", ""] {
            let error = resolve(wrong).expect_err("no commit").to_string();
            assert_eq!(error, format!("{wrong} is no commit of this clone"));
        }
        Ok(())
    }
}
