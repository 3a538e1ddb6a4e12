//! Showing a document: once or at each change, as a screen or as JSON or YAML.

use super::{
    CommandResult, Failure,
    output::{self, OutputArgs},
};
use clap::Args;
use serde_json::Value;
use std::{
    io::{IsTerminal, Write},
    thread,
    time::Duration,
};

/// Time between two reads of what is watched.
pub(super) const REFRESH: Duration = Duration::from_secs(1);
/// Moves to the upper left corner of a terminal and clears it (ECMA-48).
const CLEAR: &str = "\x1b[H\x1b[J";

/// Options of verbs that show something.
#[derive(Debug, Args)]
pub(super) struct ViewArgs {
    #[command(flatten)]
    format: OutputArgs,
    /// Show it again at each change, until interrupted
    #[arg(short, long)]
    watch: bool,
}

impl ViewArgs {
    /// Shows what `load` returns, for people as `screen` lays it out.
    pub(super) fn show(
        &self,
        load: impl Fn() -> Result<Value, Failure>,
        screen: impl Fn(&Value) -> String,
    ) -> CommandResult {
        let encoding = self.format.encoding()?;
        let mut last = None;
        loop {
            let value = load()?;
            if last.as_ref() != Some(&value) {
                match encoding {
                    Some(encoding) => output::document(&value, encoding)?,
                    None => {
                        clear(self.watch)?;
                        output::screen(&screen(&value))?;
                    }
                }
            }
            if !self.watch {
                return Ok(());
            }
            last = Some(value);
            thread::sleep(REFRESH);
        }
    }
}

/// Clears the terminal before the next screen, if standard output is one.
pub(super) fn clear(live: bool) -> CommandResult {
    if live && std::io::stdout().is_terminal() {
        std::io::stdout().write_all(CLEAR.as_bytes())?;
    }
    Ok(())
}
