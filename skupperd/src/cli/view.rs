//! How something is shown: once or whenever it changes, for people or for programs.

use super::{
    Failure, Outcome,
    output::{self, Format},
};
use clap::Args;
use serde_json::Value;
use std::{
    io::{IsTerminal, Write},
    thread,
    time::Duration,
};

/// Time between two looks.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// Clears a terminal from its upper left corner on, as ECMA-48 has it.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Flags of verbs that show something.
#[derive(Debug, Args)]
pub(super) struct View {
    #[command(flatten)]
    format: Format,
    /// Show it again whenever it has changed, until interrupted
    #[arg(short, long)]
    watch: bool,
}

impl View {
    /// Shows a document.
    pub(super) fn show(
        &self,
        look: impl Fn() -> Result<Value, Failure>,
        screen: impl Fn(&Value) -> String,
    ) -> Outcome {
        let encoding = self.format.encoding()?;
        let mut last = None;
        loop {
            let value = look()?;
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
            thread::sleep(LOOK);
        }
    }
}

/// Clears the terminal for what is shown again and again, where it is one.
pub(super) fn clear(live: bool) -> Outcome {
    if live && std::io::stdout().is_terminal() {
        std::io::stdout().write_all(CLEAR.as_bytes())?;
    }
    Ok(())
}
