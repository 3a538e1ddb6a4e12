//! Tokens of a namespace: each is redeemed once, and becomes a Link with its Secret.

use crate::{
    access::{RedeemError, redeem},
    manifest::{Located, document_of, to_yaml},
    model::{AccessToken, ConditionType, Draft, Kind, Name, State, TokenDetails},
    store::{NamespaceDir, PRIVATE, read_text, write_file},
    telemetry::chain,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::Notify, task::JoinSet};

/// First and longest pause between attempts.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// What came of a token for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// Of which token: another one of the same name is redeemed anew.
    mark: String,
    redeemed: bool,
    error: Option<String>,
}

type Answer = Result<Vec<Located>, RedeemError>;

struct Attempt {
    mark: String,
    /// Aborted when dropped.
    task: Option<JoinSet<()>>,
    answer: Arc<Mutex<Option<Answer>>>,
    pause: Duration,
    again: Instant,
    error: Option<String>,
}

/// The tokens of one namespace.
pub(super) struct Tokens {
    namespace: NamespaceDir,
    poke: Arc<Notify>,
    kept: Option<BTreeMap<Name, Kept>>,
    attempts: BTreeMap<Name, Attempt>,
    error: Option<String>,
}

impl Tokens {
    pub(super) fn new(namespace: NamespaceDir, poke: Arc<Notify>) -> Self {
        Self {
            namespace,
            poke,
            kept: None,
            attempts: BTreeMap::new(),
            error: None,
        }
    }

    /// Something is to be tried again.
    pub(super) fn has_failures(&self) -> bool {
        self.error.is_some() || self.attempts.values().any(|a| a.task.is_none())
    }

    /// Redeems those that are not redeemed yet. `holder`: of a Link or Secret
    /// of that name, the token it came from, empty when it came from none. `subject`: the site that
    /// asks; without a site nobody does.
    pub(super) fn sync(
        &mut self,
        wanted: &BTreeMap<Name, AccessToken>,
        holder: impl Fn(&Name) -> Option<String>,
        subject: Option<&Name>,
    ) {
        if wanted.is_empty() && self.kept.is_none() && !self.file().exists() {
            return;
        }
        let error = self.apply(wanted, holder, subject).err();
        if let Some(error) = error.as_ref().filter(|e| self.error.as_ref() != Some(e)) {
            tracing::error!(namespace = %self.namespace.name(), "tokens: {error}");
        }
        self.error = error;
    }

    fn file(&self) -> PathBuf {
        self.namespace.internal().join("tokens.json")
    }

    fn apply(
        &mut self,
        wanted: &BTreeMap<Name, AccessToken>,
        holder: impl Fn(&Name) -> Option<String>,
        subject: Option<&Name>,
    ) -> Result<(), String> {
        let mut kept = match self.kept.take() {
            Some(kept) => kept,
            None => self.read()?,
        };
        let before = kept.clone();
        kept.retain(|name, kept| wanted.get(name).is_some_and(|t| mark(t) == kept.mark));
        self.attempts
            .retain(|name, attempt| wanted.get(name).is_some_and(|t| mark(t) == attempt.mark));
        self.collect(&mut kept);
        for (name, token) in wanted
            .iter()
            .filter(|(name, _)| !kept.contains_key(*name))
            .collect::<Vec<_>>()
        {
            let mark = mark(token);
            let holder = holder(name).filter(|_| !self.attempts.contains_key(name));
            if let Some(of) = holder {
                // Killed between writing the link and taking note of it: it is redeemed.
                let redeemed = of == mark;
                let error = format!("a Link or Secret with the name {name:?} is there already");
                let error = (!redeemed).then_some(error);
                let what = Kept {
                    mark,
                    redeemed,
                    error,
                };
                kept.insert(name.clone(), what);
            } else if let Some(subject) = subject {
                self.attempt(name, token, mark, subject);
            }
        }
        let result = if kept == before {
            Ok(())
        } else {
            self.write(&kept)
        };
        self.kept = Some(kept);
        result
    }

    fn read(&self) -> Result<BTreeMap<Name, Kept>, String> {
        let path = self.file();
        match read_text(&path) {
            Ok(text) => {
                serde_json::from_str(&text).map_err(|e| format!("reading {}: {e}", path.display()))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(e) => Err(format!("reading {}: {e}", path.display())),
        }
    }

    fn write(&self, kept: &BTreeMap<Name, Kept>) -> Result<(), String> {
        let path = self.file();
        let text = serde_json::to_string_pretty(kept).map_err(|e| e.to_string())?;
        write_file(&path, text.as_bytes(), PRIVATE)
            .map_err(|e| format!("writing {}: {e}", path.display()))
    }

    /// Takes the answers that have come.
    fn collect(&mut self, kept: &mut BTreeMap<Name, Kept>) {
        let namespace = self.namespace.clone();
        let mut done = Vec::new();
        for (name, attempt) in &mut self.attempts {
            let mut place = attempt
                .answer
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let Some(answer) = place.take() else { continue };
            let mark = attempt.mark.clone();
            match answer {
                Ok(documents) => match store(&namespace, &documents, &mark) {
                    Ok(()) => {
                        tracing::info!(token = %name, "token has been redeemed");
                        kept.insert(
                            name.clone(),
                            Kept {
                                mark,
                                redeemed: true,
                                error: None,
                            },
                        );
                        done.push(name.clone());
                    }
                    Err(error) => {
                        // The answer comes once only: it waits until it can be written.
                        attempt.error = Some(error);
                        *place = Some(Ok(documents));
                    }
                },
                Err(error) => {
                    let text = chain(&error);
                    tracing::warn!(token = %name, error = text, "token was not redeemed");
                    if error.is_final() {
                        kept.insert(
                            name.clone(),
                            Kept {
                                mark,
                                redeemed: false,
                                error: Some(text),
                            },
                        );
                        done.push(name.clone());
                    } else {
                        attempt.error = Some(text);
                        attempt.task = None;
                        attempt.again = Instant::now() + attempt.pause;
                        attempt.pause = (attempt.pause * 2).min(PAUSE.1);
                    }
                }
            }
        }
        for name in done {
            self.attempts.remove(&name);
        }
    }

    fn attempt(&mut self, name: &Name, token: &AccessToken, mark: String, subject: &Name) {
        let attempt = self
            .attempts
            .entry(name.clone())
            .or_insert_with(|| Attempt {
                mark,
                task: None,
                answer: Arc::default(),
                pause: PAUSE.0,
                again: Instant::now(),
                error: None,
            });
        if attempt.task.is_some() || Instant::now() < attempt.again {
            return;
        }
        let (token, name, subject) = (token.clone(), name.clone(), subject.clone());
        let (namespace, poke) = (self.namespace.name().clone(), self.poke.clone());
        let place = attempt.answer.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let answer = redeem(&token, &name, &subject, &namespace).await;
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
            poke.notify_one();
        });
        attempt.task = Some(task);
    }

    pub(super) fn draft(&self, name: &Name, no_site: Option<String>) -> Draft {
        let kept = self.kept.as_ref().and_then(|kept| kept.get(name));
        let attempt = self.attempts.get(name);
        let redeemed = kept.is_some_and(|kept| kept.redeemed);
        let state = match (kept, &self.error) {
            (Some(_), _) if redeemed => State::True,
            (Some(kept), _) => State::Error(kept.error.clone().unwrap_or_default()),
            (None, Some(error)) => State::Error(error.clone()),
            (None, None) => {
                let error = attempt.and_then(|a| a.error.clone());
                State::Pending(error.map(|e| format!("{e}; tried again")).or(no_site))
            }
        };
        Draft::new(Kind::AccessToken, false)
            .with(ConditionType::Redeemed, state)
            .details(TokenDetails { redeemed })
    }
}

/// Annotation of what came from a token: which one.
pub(super) const FROM: &str = "skupper.io/redeemed-token";

/// Writes what a token became: the Secret before the Link that needs it.
pub(crate) fn store(
    namespace: &NamespaceDir,
    documents: &[Located],
    mark: &str,
) -> Result<(), String> {
    let mut editor = namespace.edit().map_err(|e| chain(&e))?;
    let (secrets, links): (Vec<&Located>, Vec<&Located>) = documents
        .iter()
        .partition(|l| l.resource.kind() == Kind::Secret);
    for located in secrets.into_iter().chain(links) {
        let mut resource = located.resource.clone();
        let from = (FROM.to_owned(), mark.to_owned());
        resource.meta.annotations.extend([from]);
        let text = to_yaml(&document_of(&resource)).map_err(|e| e.to_string())?;
        editor.write_resource(&text).map_err(|e| chain(&e))?;
    }
    Ok(())
}

/// Tells tokens apart without keeping their codes.
pub(crate) fn mark(token: &AccessToken) -> String {
    let text = zeroize::Zeroizing::new(format!("{}\n{}", token.url, token.code.reveal()));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}
