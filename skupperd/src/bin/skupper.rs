//! The `skupper` command: parses its command line and runs it.

use clap::Parser;
use skupperd::cli::{self, CommandLine};
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::complete();
    match CommandLine::try_parse() {
        Ok(command) => cli::run(command),
        Err(error) => {
            let code = if error.use_stderr() {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
            cli::print_error(&error);
            code
        }
    }
}
