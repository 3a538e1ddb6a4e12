//! Threads of the daemon, each with a runtime of its own.

use anyhow::{Context, Result};
use tokio::runtime;

pub(super) fn runtime_builder() -> runtime::Builder {
    let mut builder = runtime::Builder::new_current_thread();
    builder.enable_all();
    builder
}

pub(super) fn spawn_thread(
    name: String,
    mut runtime: runtime::Builder,
    run: impl FnOnce(runtime::Runtime) + Send + 'static,
) -> Result<()> {
    let runtime = runtime
        .build()
        .with_context(|| format!("cannot start the runtime of thread {name}"))?;
    std::thread::Builder::new()
        .name(name.clone())
        .spawn(move || {
            let _guard = AbortOnPanic;
            run(runtime);
        })
        .with_context(|| format!("cannot start thread {name}"))?;
    Ok(())
}

/// Ends the process when its thread panics. Without the core or one of the workers the daemon would serve
/// some connections and not others; whoever started it starts a new one. Tasks of connections that panic
/// are caught by their runtime, and end alone.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a thread has panicked; ending the process");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::process::ExitStatusExt, process, time::Duration};

    /// Its number on Linux.
    const SIGABRT: i32 = 6;
    /// Set in the process that is to end.
    const PANICS: &str = "SKUPPER_TEST_THREAD_PANICS";

    /// The watchdog notices a missing thread under systemd only.
    #[test]
    fn a_thread_that_panics_takes_the_process_with_it() {
        if std::env::var_os(PANICS).is_some() {
            let runtime = runtime::Builder::new_current_thread();
            spawn_thread("test".to_owned(), runtime, |_| panic!("for a test")).expect("a thread");
            std::thread::park_timeout(Duration::from_secs(60));
            return;
        }
        let name = "daemon::threads::tests::a_thread_that_panics_takes_the_process_with_it";
        let program = std::env::current_exe().expect("this program");
        let mut again = process::Command::new(program);
        again.args(["--exact", name]).env(PANICS, "1");
        let output = again.output().expect("a process");
        assert_eq!(output.status.signal(), Some(SIGABRT), "{output:?}");
    }
}
