//! Settings that say who may use a listener or a connector.

use crate::{
    link::policy::{Sites, Users},
    model::{Settings, check_name},
    sys,
};
use std::sync::Arc;

/// Setting of a listener: users of this host whose programs it lets in, by name or number, apart by
/// commas.
pub(super) const USERS: &str = "allow-users";
/// Setting of a connector: sites whose clients it serves, by name, apart by commas.
pub(super) const SITES: &str = "allow-sites";

/// Whom a listener lets in; none for everybody.
pub(super) fn users(settings: &Settings) -> Result<Option<Users>, String> {
    let Some(text) = settings.get(USERS) else {
        return Ok(None);
    };
    let user = |word: &str| match word.parse() {
        Ok(number) => Ok(number),
        Err(_) => match sys::user_named(word) {
            Ok(Some(number)) => Ok(number),
            Ok(None) => Err(wrong(USERS, &format!("there is no user {word:?}"))),
            Err(e) => Err(wrong(USERS, &format!("looking up {word}: {e}"))),
        },
    };
    let users: Result<Vec<u32>, String> = words(USERS, text)?.into_iter().map(user).collect();
    Ok(Some(Users::new(users?)))
}

/// Whose clients a connector serves; none for everybody's.
pub(super) fn sites(settings: &Settings) -> Result<Option<Arc<Sites>>, String> {
    let Some(text) = settings.get(SITES) else {
        return Ok(None);
    };
    let site = |word: &str| match check_name(word) {
        Ok(()) => Ok(word.to_owned()),
        Err(e) => Err(wrong(SITES, &format!("{word:?}: {e}"))),
    };
    let sites: Result<Vec<String>, String> = words(SITES, text)?.into_iter().map(site).collect();
    Ok(Some(Arc::new(Sites::new(sites?))))
}

/// What is named. Nobody at all is more likely a mistake than meant.
fn words<'a>(key: &str, text: &'a str) -> Result<Vec<&'a str>, String> {
    let words = text.split(',').map(str::trim);
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    if words.is_empty() {
        return Err(wrong(key, "it names nobody"));
    }
    Ok(words)
}

fn wrong(key: &str, why: &str) -> String {
    format!("spec.settings[{key}]: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(key: &str, value: &str) -> Settings {
        [(key.to_owned(), value.to_owned())].into_iter().collect()
    }

    #[test]
    fn r18_what_names_nobody_is_an_error() {
        assert!(users(&Settings::new()).unwrap().is_none());
        let named = users(&with(USERS, "root, 1000,")).unwrap().unwrap();
        assert_eq!(named.allowed, [0, 1000]);
        for bad in ["", " , ", "no such user", "-1"] {
            let why = users(&with(USERS, bad)).unwrap_err();
            assert!(why.starts_with("spec.settings[allow-users]: "), "{why}");
        }
        let named = sites(&with(SITES, "west,east")).unwrap().unwrap();
        assert_eq!(named.allowed, ["east", "west"]);
        for bad in [",", "no such/site"] {
            let why = sites(&with(SITES, bad)).unwrap_err();
            assert!(why.starts_with("spec.settings[allow-sites]: "), "{why}");
        }
    }
}
