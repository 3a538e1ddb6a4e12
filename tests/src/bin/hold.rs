//! Holds many connections through a listener to its own echo server. Tests run it in virtual
//! machines.
//!
//! `hold SERVER LISTENER COUNT` runs an echo server at the first address, and opens COUNT
//! connections to the second, each of which must echo. Prints `N held, M refused` and waits for a
//! line on standard input; then all held connections must echo again. Fails if a connection returns
//! other bytes than it was sent.

use std::{
    env,
    error::Error,
    io::{self, BufRead, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    thread,
    time::Duration,
};

/// Timeout of an echo.
const PATIENCE: Duration = Duration::from_secs(60);
/// Connections that are opened or used concurrently: few enough not to affect the tested memory
/// limits.
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
            // A connection without an answer counts as refused.
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

/// Raises the limit of descriptors.
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

type NumberedConnection = (usize, TcpStream);

/// Sends a unique text on each connection and expects it back.
fn round_trips(connections: Vec<NumberedConnection>) -> Vec<(usize, TcpStream, io::Result<()>)> {
    let send = |(number, mut connection): NumberedConnection| {
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

/// One thread for all connections: the tests limit the number of threads.
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
