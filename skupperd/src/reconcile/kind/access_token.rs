//! AccessToken: redeemed once at the other site, it becomes a Link with its Secret.

use super::super::{error::ReconcileError, observed::StatusContext};
use crate::{
    access::{RedeemError, redeem, token_mark},
    manifest::{LocatedResource, document_of, to_yaml},
    model::{AccessToken, ConditionState, ConditionType, Kind, Name, StatusDraft, TokenDetails},
    store::{NamespaceDir, PRIVATE, read_text, write_file},
    telemetry::chain,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::Notify, task::JoinSet};

/// Shortest pause between attempts; it doubles from one to the next.
const MIN_PAUSE: Duration = Duration::from_secs(2);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Final result of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct TokenOutcome {
    /// Fingerprint of the token: a new token of the same name is redeemed again.
    mark: String,
    redeemed: bool,
    error: Option<String>,
}

type Outcomes = BTreeMap<Name, TokenOutcome>;
type RedeemResult = Result<Vec<LocatedResource>, RedeemError>;

struct Attempt {
    mark: String,
    /// Aborted when dropped; `None` between attempts.
    task: Option<JoinSet<()>>,
    result: Arc<Mutex<Option<RedeemResult>>>,
    pause: Duration,
    next_attempt: Instant,
    error: Option<String>,
}

/// The tokens of one namespace.
pub(in crate::reconcile) struct Tokens {
    namespace: NamespaceDir,
    /// Wakes the loop when an attempt has ended.
    redeemed: Arc<Notify>,
    /// Read on first need.
    outcomes: Option<Outcomes>,
    attempts: BTreeMap<Name, Attempt>,
    error: Option<ReconcileError>,
}

impl Tokens {
    pub(in crate::reconcile) fn new(namespace: NamespaceDir, redeemed: Arc<Notify>) -> Self {
        Self {
            namespace,
            redeemed,
            outcomes: None,
            attempts: BTreeMap::new(),
            error: None,
        }
    }

    pub(in crate::reconcile) fn has_failures(&self) -> bool {
        self.error.is_some() || self.attempts.values().any(|a| a.task.is_none())
    }

    /// Redeems the tokens that are not redeemed yet, for `site`; without a site none are.
    pub(in crate::reconcile) fn sync(
        &mut self,
        tokens: &BTreeMap<Name, AccessToken>,
        resources: &[LocatedResource],
        site: Option<&Name>,
    ) {
        if tokens.is_empty() && self.outcomes.is_none() && !self.file().exists() {
            return;
        }
        let error = self.apply(tokens, resources, site).err();
        if let Some(error) = error.as_ref().filter(|e| self.error.as_ref() != Some(e)) {
            let (namespace, error) = (self.namespace.name(), error.text());
            tracing::error!(%namespace, error, "cannot redeem access tokens");
        }
        self.error = error;
    }

    fn file(&self) -> PathBuf {
        self.namespace.internal().join("tokens.json")
    }

    fn apply(
        &mut self,
        tokens: &BTreeMap<Name, AccessToken>,
        resources: &[LocatedResource],
        site: Option<&Name>,
    ) -> Result<(), ReconcileError> {
        let mut outcomes = match self.outcomes.take() {
            Some(outcomes) => outcomes,
            None => self.read()?,
        };
        let before = outcomes.clone();
        let is_current =
            |name: &Name, mark: &str| tokens.get(name).is_some_and(|t| token_mark(t) == mark);
        outcomes.retain(|name, outcome| is_current(name, &outcome.mark));
        self.attempts
            .retain(|name, attempt| is_current(name, &attempt.mark));
        self.collect(&mut outcomes);
        for (name, token) in tokens {
            if outcomes.contains_key(name) {
                continue;
            }
            let mark = token_mark(token);
            let source = source_of(resources, name);
            if let Some(source) = source.filter(|_| !self.attempts.contains_key(name)) {
                outcomes.insert(name.clone(), taken_name(name, mark, &source));
            } else if let Some(site) = site {
                self.attempt(name, token, mark, site);
            }
        }
        let result = if outcomes == before {
            Ok(())
        } else {
            self.write(&outcomes)
        };
        self.outcomes = Some(outcomes);
        result
    }

    fn read(&self) -> Result<Outcomes, ReconcileError> {
        let path = self.file();
        match read_text(&path) {
            Ok(text) => serde_json::from_str(&text).map_err(ReconcileError::file("read", &path)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(e) => Err(ReconcileError::file("read", &path)(e)),
        }
    }

    fn write(&self, outcomes: &Outcomes) -> Result<(), ReconcileError> {
        let path = self.file();
        let text = serde_json::to_string_pretty(outcomes);
        let text = text.map_err(ReconcileError::file("encode", &path))?;
        write_file(&path, text.as_bytes(), PRIVATE).map_err(ReconcileError::file("write", &path))
    }

    /// Takes the answers that have come.
    fn collect(&mut self, outcomes: &mut Outcomes) {
        let mut done = Vec::new();
        for (name, attempt) in &mut self.attempts {
            if let Some(outcome) = attempt.collect(&self.namespace, name) {
                outcomes.insert(name.clone(), outcome);
                done.push(name.clone());
            }
        }
        for name in done {
            self.attempts.remove(&name);
        }
    }

    fn attempt(&mut self, name: &Name, token: &AccessToken, mark: String, site: &Name) {
        let attempt = self
            .attempts
            .entry(name.clone())
            .or_insert_with(|| Attempt {
                mark,
                task: None,
                result: Arc::default(),
                pause: MIN_PAUSE,
                next_attempt: Instant::now(),
                error: None,
            });
        if attempt.task.is_some() || Instant::now() < attempt.next_attempt {
            return;
        }
        let (token, name, site) = (token.clone(), name.clone(), site.clone());
        let (namespace, redeemed) = (self.namespace.name().clone(), self.redeemed.clone());
        let slot = attempt.result.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let result = redeem(&token, &name, &site, &namespace).await;
            *slot.lock() = Some(result);
            redeemed.notify_one();
        });
        attempt.task = Some(task);
    }

    pub(in crate::reconcile) fn status(&self, ctx: &StatusContext<'_>, name: &Name) -> StatusDraft {
        let outcome = self.outcomes.as_ref().and_then(|known| known.get(name));
        let redeemed = outcome.is_some_and(|outcome| outcome.redeemed);
        let state = match (outcome, &self.error) {
            (Some(_), _) if redeemed => ConditionState::True,
            (Some(outcome), _) => ConditionState::Error(outcome.error.clone().unwrap_or_default()),
            (None, Some(error)) => ConditionState::Error(error.text()),
            (None, None) => {
                let attempt = self.attempts.get(name);
                let error = attempt.and_then(|a| a.error.as_ref());
                let error = error.map(|e| format!("{e}; tried again"));
                ConditionState::Pending(error.or_else(|| ctx.no_site()))
            }
        };
        StatusDraft::new(Kind::AccessToken, false)
            .with(ConditionType::Redeemed, state)
            .details(TokenDetails { redeemed })
    }
}

impl Attempt {
    /// Takes the answer if it has come. Returns what came of the token for good.
    fn collect(&mut self, namespace: &NamespaceDir, name: &Name) -> Option<TokenOutcome> {
        let mut slot = self.result.lock();
        match slot.take()? {
            Ok(documents) => match store_redeemed(namespace, &documents) {
                Ok(()) => {
                    let namespace = namespace.name();
                    tracing::info!(%namespace, token = %name, "access token redeemed");
                    return Some(TokenOutcome {
                        mark: self.mark.clone(),
                        redeemed: true,
                        error: None,
                    });
                }
                Err(error) => {
                    // The answer comes once only: it waits until it can be written.
                    self.error = Some(error);
                    *slot = Some(Ok(documents));
                }
            },
            Err(error) => {
                let text = chain(&error);
                // Each attempt may fail alike: log it once.
                if self.error.as_ref() != Some(&text) {
                    let (namespace, error) = (namespace.name(), &text);
                    tracing::warn!(%namespace, token = %name, error, "access token not redeemed");
                }
                if error.is_final() {
                    return Some(TokenOutcome {
                        mark: self.mark.clone(),
                        redeemed: false,
                        error: Some(text),
                    });
                }
                self.error = Some(text);
                self.task = None;
                self.next_attempt = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(MAX_PAUSE);
            }
        }
        None
    }
}

/// The token that the Link or Secret with this name came from; empty when it came from none. `None`
/// when there is no such resource.
fn source_of(resources: &[LocatedResource], name: &Name) -> Option<String> {
    let has_name = |l: &&LocatedResource| {
        matches!(l.resource.kind(), Kind::Link | Kind::Secret) && l.resource.name() == name
    };
    let meta = &resources.iter().find(has_name)?.resource.meta;
    Some(meta.redeemed_token().unwrap_or_default().to_owned())
}

/// Outcome of a token whose name a Link or Secret has already.
fn taken_name(name: &Name, mark: String, source: &str) -> TokenOutcome {
    // If that came of this token, the daemon was killed before it could note that it is redeemed.
    let redeemed = source == mark;
    let error = format!("a Link or Secret with the name {name:?} already exists");
    TokenOutcome {
        mark,
        redeemed,
        error: (!redeemed).then_some(error),
    }
}

/// Writes what a token became: the Secret before the Link that needs it. Resources of the same names
/// that did not come with this token are left alone: the other site has chosen the names.
pub(crate) fn store_redeemed(
    namespace: &NamespaceDir,
    documents: &[LocatedResource],
) -> Result<(), String> {
    let mut editor = namespace.edit().map_err(|e| chain(&e))?;
    let present = editor.load().map_err(|e| chain(&e))?.resources;
    let is_other = |old: &&LocatedResource| {
        let mut new = documents.iter().filter(|new| new.key() == old.key());
        let mark = old.resource.meta.redeemed_token();
        new.any(|new| mark.is_none() || new.resource.meta.redeemed_token() != mark)
    };
    if let Some(other) = present.iter().find(is_other) {
        return Err(format!("{} already exists", other.key()));
    }
    let (secrets, links): (Vec<&LocatedResource>, Vec<&LocatedResource>) = documents
        .iter()
        .partition(|l| l.resource.kind() == Kind::Secret);
    for located in secrets.into_iter().chain(links) {
        let text = to_yaml(&document_of(&located.resource)).map_err(|e| e.to_string())?;
        editor.write_resource(&text).map_err(|e| chain(&e))?;
    }
    Ok(())
}
