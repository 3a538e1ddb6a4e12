//! `cargo xtask demo`: two linked sites on this machine, and a web server that one site reaches
//! through the other. Needs no root; cleans up after itself.

mod sites;
mod web;

use crate::{
    programs,
    setup::{self, Group},
    sh,
};
use anyhow::{Context, Result, anyhow, bail};
use sites::Sites;
use std::{
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};
use web::WebServer;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Keep the sites running until Ctrl-C, and print commands to try
    #[arg(long)]
    keep: bool,
}

/// Timeout until the network has formed, generous for busy machines.
const PATIENCE: Duration = Duration::from_secs(30);

/// Concurrent requests.
const PARALLEL: usize = 50;

/// Bytes of the bulk transfer.
const BULK: u64 = 1 << 30;

/// Prints a result of a step.
macro_rules! detail {
    ($($text:tt)+) => { sh::say(&format!("    {}", format_args!($($text)+))) };
}

enum Event {
    Finished(Result<()>),
    Interrupted,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(&[Group::Build])?;
    // Not as released: that build alone takes ten minutes. The tests use what this builds.
    say("building skupperd and skupper without optimization");
    let programs = thread::spawn(build_programs);
    sh::run(&mut sh::cargo(&[
        "build",
        "--workspace",
        "--bins",
        "--locked",
    ]))?;
    // It has ended before: the build script waits for it.
    drop(programs.join());

    // From here on, errors must clean up.
    let (events, event) = mpsc::channel();
    let interrupts = events.clone();
    // During the clean-up nothing receives events, so a second Ctrl-C has no effect.
    ctrlc::set_handler(move || drop(interrupts.send(Event::Interrupted)))
        .context("waiting for Ctrl-C")?;

    let sites = Arc::new(Sites::new()?);
    let shown = sites.clone();
    let show = thread::spawn(move || show(&shown));
    thread::spawn(move || {
        let result = show
            .join()
            .unwrap_or_else(|_| Err(anyhow!("the demo panicked")));
        // After an interrupt nothing receives events.
        drop(events.send(Event::Finished(result)));
    });

    let result = match event.recv().context("waiting for the demo")? {
        Event::Interrupted => Err(anyhow!("interrupted")),
        Event::Finished(Ok(())) if args.keep => {
            how_to_try(&sites);
            // After the result only a signal can arrive.
            event.recv().map(drop).context("waiting for Ctrl-C")
        }
        Event::Finished(result) => {
            if result.is_err() {
                sites.show_logs();
            }
            result
        }
    };
    say("stopping both daemons and removing their directory");
    let cleaned = sites.clean_up();
    result.and(cleaned)?;
    say("done: everything worked");
    Ok(())
}

/// Builds the BPF programs beside the dependencies: the build script, which comes last, finds them built.
fn build_programs() {
    let endian = if cfg!(target_endian = "big") {
        "big"
    } else {
        "little"
    };
    let host = (endian, std::env::consts::ARCH);
    // The build script reports the error.
    drop(programs::build(
        sh::root(),
        &sh::target().join("ebpf"),
        host,
    ));
}

fn show(sites: &Sites) -> Result<()> {
    let web = WebServer::start()?;
    say(&format!(
        "a web server, the workload of east, listens on {}",
        web.addr
    ));

    say("east: a site that accepts links, and a connector to the web server");
    sites.resource("east", "Site", "east", "{}")?;
    let access = format!(
        "{{bindHost: 127.0.0.1, roles: [{{name: inter-router, port: {}}}]}}",
        sites.link.port()
    );
    sites.resource("east", "RouterAccess", "east", &access)?;
    sites.resource("east", "Connector", "web", &service(web.addr))?;

    say("west: a site with a listener, and no web server");
    sites.resource("west", "Site", "west", "{}")?;
    sites.resource("west", "Listener", "web", &service(sites.listener))?;

    say("starting both daemons");
    sites.start("east")?;
    sites.start("west")?;

    say("the link: `skupper link generate` in east, applied in west");
    let link = sites.skupper("east", &["link", "generate", "--host", "127.0.0.1"])?;
    let applied = Instant::now();
    sites.apply("west", &link)?;

    let url = format!("http://{}/", sites.listener);
    let answer = until_answered(sites, applied)?;
    say(&format!(
        "GET {url} answers {:.1} s after the link was applied:",
        applied.elapsed().as_secs_f64()
    ));
    detail!("{}", answer.trim_end());
    if answer != web::GREETING {
        bail!("that is not the web server's answer");
    }

    say(&format!("{PARALLEL} requests at the same time"));
    let begin = Instant::now();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..PARALLEL)
            .map(|_| scope.spawn(|| web::get(sites.listener, "/")))
            .collect();
        clients.into_iter().try_for_each(|client| {
            let answer = client.join().map_err(|_| anyhow!("a client panicked"))??;
            if answer == web::GREETING {
                Ok(())
            } else {
                Err(anyhow!("a wrong answer: {answer}"))
            }
        })
    })?;
    detail!("all answered in {} ms", begin.elapsed().as_millis());

    say(&format!(
        "one download of {} MiB through the link",
        BULK >> 20
    ));
    let begin = Instant::now();
    let bytes = web::download(sites.listener, BULK)?;
    if bytes != BULK {
        bail!("{bytes} of {BULK} bytes arrived");
    }
    let gigabits = bytes as f64 * 8.0 / 1e9 / begin.elapsed().as_secs_f64();
    detail!(
        "{gigabits:.1} Gb/s, without optimization: `cargo xtask bench` measures the release build"
    );

    for site in ["east", "west"] {
        say(&format!("what {site} says"));
        for noun in ["site", "link", "listener", "connector"] {
            let status = sites.skupper(site, &[noun, "status"])?;
            detail!("$ skupper {noun} status");
            status.lines().for_each(|line| detail!("{line}"));
        }
    }
    // The web server must not stop before `keep` ends.
    sites.hold(web);
    Ok(())
}

fn service(addr: std::net::SocketAddr) -> String {
    format!(
        "{{routingKey: web, host: {}, port: {}}}",
        addr.ip(),
        addr.port()
    )
}

/// Returns the first answer. Until the network has formed, the listener refuses connections.
fn until_answered(sites: &Sites, since: Instant) -> Result<String> {
    loop {
        sites.check_running()?;
        match web::get(sites.listener, "/") {
            Ok(answer) => return Ok(answer),
            Err(e) if since.elapsed() > PATIENCE => {
                return Err(e.context(format!("no answer from {} in {PATIENCE:?}", sites.listener)));
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn how_to_try(sites: &Sites) {
    say("it goes on running. In another terminal:");
    detail!("curl http://{}/", sites.listener);
    detail!("curl -o /dev/null http://{}/bulk/{BULK}", sites.listener);
    for site in ["east", "west"] {
        detail!("{} link status", sites.command(site));
        detail!("less {}", sites.log(site).display());
    }
    detail!(
        "rm {}",
        sites.input("east").join("Connector-web.yaml").display()
    );
    say("Ctrl-C stops it and cleans up");
}

fn say(what: &str) {
    sh::say(&format!("==> {what}"));
}
