//! Holds many connections through a listener to a server of its own: what tests have run where they
//! can not be themselves.
//!
//! `hold SERVER LISTENER COUNT`: an echo server at the first address; COUNT connections to the second,
//! each of which has to bring back what it was given. Prints `N held, M refused` and waits for a line
//! on standard input, after which what is held has to work once more. What comes back otherwise than
//! it was sent ends it with an error.

use std::{
    env,
    error::Error,
    io::{self, BufRead, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    thread,
    time::Duration,
};

/// Time that bytes have to come back. It is only ever waited for in whole when something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);
/// Connections that are opened, or used, side by side: one after the other is a wait for each. Few
/// enough not to be what a limit of memory is about.
const AT_ONCE: usize = 32;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().collect();
    let [_, server, listener, count] = &args[..] else {
        return Err("hold SERVER LISTENER COUNT".into());
    };
    let (server, listener): (SocketAddr, SocketAddr) = (server.parse()?, listener.parse()?);
    let count: usize = count.parse()?;
    descriptors()?;
    let socket = TcpListener::bind(server)?;
    thread::spawn(move || echo(&socket));
    let mut held = Vec::new();
    let numbers: Vec<_> = (0..count).collect();
    for numbers in numbers.chunks(AT_ONCE) {
        let opened = numbers.iter().filter_map(|number| {
            // A connection that nobody takes is refused too.
            let connection = open(listener).ok()?;
            Some((*number, connection))
        });
        for (number, connection, back) in round_trips(opened.collect()) {
            match back {
                Ok(()) => held.push((number, connection)),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(error.into());
                }
                Err(_) => {}
            }
        }
    }
    say(&format!(
        "{} held, {} refused",
        held.len(),
        count - held.len()
    ))?;
    io::stdin().lock().read_line(&mut String::new())?;
    let good = held.len();
    while !held.is_empty() {
        let some = held.split_off(held.len().saturating_sub(AT_ONCE));
        for (_, _, back) in round_trips(some) {
            back?;
        }
    }
    say(&format!("{good} still good"))?;
    Ok(())
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// As many descriptors as may be had.
fn descriptors() -> nix::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
}

fn open(addr: SocketAddr) -> io::Result<TcpStream> {
    let connection = TcpStream::connect_timeout(&addr, PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_nodelay(true)?;
    Ok(connection)
}

type Numbered = (usize, TcpStream);

/// Sends on each what no other connection does, and wants it back.
fn round_trips(connections: Vec<Numbered>) -> Vec<(usize, TcpStream, io::Result<()>)> {
    let send = |(number, mut connection): Numbered| {
        let sent = connection.write_all(text(number).as_bytes());
        (number, connection, sent)
    };
    let sent: Vec<_> = connections.into_iter().map(send).collect();
    let receive = |(number, mut connection, sent): (usize, TcpStream, io::Result<()>)| {
        let back = sent.and_then(|()| receive(&mut connection, number));
        let back = back.map_err(|e| io::Error::new(e.kind(), format!("connection {number}: {e}")));
        (number, connection, back)
    };
    sent.into_iter().map(receive).collect()
}

fn text(number: usize) -> String {
    format!("{number:>16}").repeat(64)
}

fn receive(connection: &mut TcpStream, number: usize) -> io::Result<()> {
    let sent = text(number);
    let mut back = vec![0; sent.len()];
    connection.read_exact(&mut back)?;
    if back == sent.as_bytes() {
        return Ok(());
    }
    let text = "something else has come back";
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}

/// One thread for all: what is measured has a limit of threads beside it.
fn echo(socket: &TcpListener) {
    use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll");
    let ready = |fd: i32| EpollEvent::new(EpollFlags::EPOLLIN, u64::try_from(fd).expect("an id"));
    epoll.add(socket, ready(socket.as_raw_fd())).expect("added");
    let mut clients = std::collections::HashMap::new();
    let mut events = [EpollEvent::empty(); 256];
    let mut buffer = [0; 4096];
    loop {
        let found = epoll.wait(&mut events, EpollTimeout::NONE).expect("events");
        for event in &events[..found] {
            let fd = i32::try_from(event.data()).expect("an id");
            if fd == socket.as_raw_fd() {
                let (client, _) = socket.accept().expect("a client");
                client.set_nodelay(true).expect("an option");
                epoll
                    .add(&client, ready(client.as_raw_fd()))
                    .expect("added");
                clients.insert(client.as_raw_fd(), client);
                continue;
            }
            let Some(client) = clients.get_mut(&fd) else {
                continue;
            };
            let read = client.read(&mut buffer).unwrap_or(0);
            if read == 0 || client.write_all(&buffer[..read]).is_err() {
                clients.remove(&fd);
            }
        }
    }
}
