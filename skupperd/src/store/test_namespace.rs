//! A namespace in a temporary directory, for the tests of this room.

use super::{Layout, NamespaceDir};
use crate::model::Namespace;
use std::{fs, path::PathBuf};

pub(super) struct TestNamespace {
    pub(super) root: tempfile::TempDir,
    pub(super) dir: NamespaceDir,
}

impl TestNamespace {
    pub(super) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = Layout::root(root.path()).namespace(&Namespace::default_namespace());
        fs::create_dir_all(dir.input_resources()).unwrap();
        Self { root, dir }
    }

    /// Puts a complete manifest in place below `input/resources`.
    pub(super) fn put(&self, file: &str, text: &str) -> PathBuf {
        let path = self.dir.input_resources().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let staged = self.root.path().join("staged");
        fs::write(&staged, text).unwrap();
        fs::rename(&staged, &path).unwrap();
        path
    }
}
