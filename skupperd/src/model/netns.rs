//! Names of network namespaces.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
    str::FromStr,
};

/// A network namespace, by what it is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Netns {
    /// A file, as in `/run/netns`; absolute, without `.` and `..`.
    Path(PathBuf),
    /// That of the main process of a `.service` unit of the system's service manager.
    Unit(String),
    /// That of a process.
    Pid(u32),
}

impl FromStr for Netns {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid =
            || format!("{text:?} is neither a path, nor unit:NAME.service, nor pid:NUMBER");
        if let Some(name) = text.strip_prefix("unit:") {
            let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
            let valid = name.ends_with(".service") && name.len() < 256 && name.chars().all(allowed);
            return valid
                .then(|| Self::Unit(name.to_owned()))
                .ok_or_else(invalid);
        }
        if let Some(pid) = text.strip_prefix("pid:") {
            let pid = pid.parse().ok().filter(|pid| (1..1 << 22).contains(pid));
            return pid.map(Self::Pid).ok_or_else(invalid);
        }
        let path = Path::new(text);
        let plain = path
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::RootDir));
        (path.is_absolute() && plain)
            .then(|| Self::Path(path.to_owned()))
            .ok_or_else(invalid)
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Unit(name) => write!(f, "unit:{name}"),
            Self::Pid(pid) => write!(f, "pid:{pid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_namespaces_are_read_and_written() {
        for good in ["/run/netns/blue", "unit:web@1.service", "pid:17"] {
            assert_eq!(good.parse::<Netns>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "run/netns/blue",
            "/run/../etc",
            "unit:",
            "unit:web",
            "unit:-x y.service",
            "unit:a/b.service",
            "pid:0",
            "pid:-1",
            "pid:99999999",
            "pid:x",
        ] {
            assert!(bad.parse::<Netns>().is_err(), "{bad}");
        }
    }
}
