//! The command: parse, run, exit code.

use clap::Parser;
use skupperd::cli::{self, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::complete();
    match Command::try_parse() {
        Ok(command) => cli::run(command),
        Err(error) => {
            let code = if error.use_stderr() {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
            // Where the message can not be printed there is nobody to read it.
            let _ = error.print();
            code
        }
    }
}
