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
    let mut refused = 0;
    for number in 0..count {
        match open(listener, number) {
            Ok(connection) => held.push((number, connection)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error.into()),
            Err(_) => refused += 1,
        }
    }
    say(&format!("{} held, {refused} refused", held.len()))?;
    io::stdin().lock().read_line(&mut String::new())?;
    all(&mut held)?;
    say(&format!("{} still good", held.len()))?;
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

fn open(addr: SocketAddr, number: usize) -> io::Result<TcpStream> {
    let mut connection = TcpStream::connect_timeout(&addr, PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_nodelay(true)?;
    round_trip(&mut connection, number)?;
    Ok(connection)
}

/// Sends what no other connection does, and wants it back.
fn round_trip(connection: &mut TcpStream, number: usize) -> io::Result<()> {
    let sent = format!("{number:>16}").repeat(64);
    connection.write_all(sent.as_bytes())?;
    let mut back = vec![0; sent.len()];
    connection.read_exact(&mut back)?;
    if back != sent.as_bytes() {
        let text = format!("connection {number}: something else has come back");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(())
}

fn all(held: &mut [(usize, TcpStream)]) -> io::Result<()> {
    for (number, connection) in held {
        round_trip(connection, *number)
            .map_err(|e| io::Error::new(e.kind(), format!("connection {number}: {e}")))?;
    }
    Ok(())
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
