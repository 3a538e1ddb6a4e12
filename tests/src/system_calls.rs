//! Counts system calls of running processes, with ptrace. Their number does not depend on the speed
//! of the machine, nor on the optimization of the build.

use nix::{
    errno::Errno,
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use std::{
    collections::HashMap,
    fs,
    sync::mpsc::{self, Sender},
    thread,
};

/// Ends the tracing; the processes do not receive it.
const END: Signal = Signal::SIGWINCH;

/// The calls that all threads of these processes begin while `f` runs, and what `f` returns. `None`
/// if tracing is not permitted. `f` is not run then.
pub fn count<T>(processes: &[u32], f: impl FnOnce() -> T) -> Option<(u64, T)> {
    let pids: Vec<Pid> = processes.iter().copied().map(pid).collect();
    let first = *pids.first().expect("a process");
    thread::scope(|scope| {
        let (ready, started) = mpsc::channel();
        // A tracee belongs to a thread, and is released when that thread ends.
        let tracer = scope.spawn(move || trace(&pids, &ready));
        started.recv().ok()?;
        let result = f();
        kill(first, END).expect("a signal");
        Some((tracer.join().expect("the tracer"), result))
    })
}

fn pid(process: u32) -> Pid {
    Pid::from_raw(i32::try_from(process).expect("a pid"))
}

/// Traces until a process receives [`END`]. Drops `ready` without a message if it may not.
fn trace(pids: &[Pid], ready: &Sender<()>) -> u64 {
    for pid in pids {
        for thread in threads(*pid) {
            match ptrace::seize(thread, Options::PTRACE_O_TRACESYSGOOD) {
                Err(Errno::EPERM) => return 0,
                other => other.expect("seized"),
            }
            // It stops at once and is resumed below.
            ptrace::interrupt(thread).expect("stopped");
        }
    }
    ready.send(()).expect("the caller waits");
    // Threads that are inside a call: it has been counted, or began before.
    let mut inside: HashMap<Pid, bool> = HashMap::new();
    let mut calls = 0;
    loop {
        // Not the children of other threads, which wait for them.
        let events = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        let (thread, signal) = match waitpid(None, Some(events)) {
            Err(Errno::EINTR) => continue,
            Ok(WaitStatus::PtraceSyscall(thread)) => {
                let inside = inside.entry(thread).or_default();
                *inside = !*inside;
                calls += u64::from(*inside);
                (thread, None)
            }
            Ok(WaitStatus::Stopped(_, END)) => return calls,
            Ok(WaitStatus::Stopped(thread, signal)) => (thread, Some(signal)),
            Ok(WaitStatus::PtraceEvent(thread, ..)) => (thread, None),
            other => panic!("a traced process has ended: {other:?}"),
        };
        ptrace::syscall(thread, signal).expect("resumed");
    }
}

fn threads(pid: Pid) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    tasks
        .map(|task| {
            let name = task.expect("a thread").file_name();
            let id = name.to_str().and_then(|name| name.parse().ok());
            Pid::from_raw(id.expect("the id of a thread"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{BufRead, BufReader, Write},
        process::{Command, Stdio},
    };

    #[test]
    fn the_calls_of_a_process_are_counted() {
        // Reads with one call for each line, and writes with another one.
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cat starts");
        let mut input = child.stdin.take().expect("its input");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        let mut round_trip = || {
            input.write_all(b"line\n").expect("a line");
            output.read_line(&mut line).expect("a line");
        };
        // It has started.
        round_trip();
        let counted = count(&[child.id()], || (0..50).for_each(|_| round_trip()));
        drop(input);
        child.wait().expect("cat ends");
        if let Some((calls, ())) = counted {
            assert!((99..=102).contains(&calls), "{calls}");
        }
    }
}
