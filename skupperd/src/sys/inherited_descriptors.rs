//! Descriptors that the service manager passed to this process: sockets that it opened, and what an
//! earlier process of this service left in its descriptor store.
//!
//! Names say what a descriptor is for. Callers must check what it really is.

use super::owned;
use libsystemd::{activation::receive_descriptors_with_names, errors::SdError};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    os::fd::{IntoRawFd, OwnedFd},
    sync::Arc,
};

/// The descriptors that this process was started with; clones share them.
#[derive(Clone, Debug, Default)]
pub struct InheritedDescriptors(Arc<Mutex<Vec<(String, OwnedFd)>>>);

impl InheritedDescriptors {
    /// Takes the descriptors of `$LISTEN_FDS` and removes the variable. To be called once, before
    /// there are other threads.
    pub fn receive() -> Result<Self, SdError> {
        let passed = receive_descriptors_with_names(true)?;
        let passed = passed.into_iter();
        let passed = passed.map(|(fd, name)| (name, owned(fd.into_raw_fd())));
        Ok(Self(Arc::new(Mutex::new(passed.collect()))))
    }

    /// In place of a service manager.
    #[cfg(test)]
    pub(crate) fn of<const N: usize>(passed: [(&str, OwnedFd); N]) -> Self {
        let passed = passed.map(|(name, fd)| (name.to_owned(), fd));
        Self(Arc::new(Mutex::new(passed.into())))
    }

    /// Number of descriptors by name.
    pub(super) fn counts(&self) -> HashMap<String, usize> {
        let left = self.0.lock();
        let mut counts = HashMap::new();
        for (name, _) in left.iter() {
            *counts.entry(name.clone()).or_default() += 1;
        }
        counts
    }

    /// Takes the descriptors with a wanted name, in the order in which they were passed.
    pub fn take(&self, wanted: impl Fn(&str) -> bool) -> Vec<(String, OwnedFd)> {
        let mut left = self.0.lock();
        left.extract_if(.., |(name, _)| wanted(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn descriptors_are_taken_once_by_name() {
        let file = || OwnedFd::from(File::open("/dev/null").unwrap());
        let passed = ["a1", "b", "a2"].map(|name| (name.to_owned(), file()));
        let passed = InheritedDescriptors(Arc::new(Mutex::new(passed.into())));
        let names = |prefix: &str| {
            let taken = passed.take(|name| name.starts_with(prefix));
            taken.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names("a"), ["a1", "a2"]);
        assert!(names("a").is_empty());
        assert_eq!(names(""), ["b"]);
    }
}
