//! A web server and a client without dependencies.

use anyhow::{Context, Result, bail};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// The answer at `/`.
pub(super) const GREETING: &str = "Hello from east!\n";

/// Timeout of an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers `GET /` and `GET /bulk/BYTES`. Stops when dropped.
pub(super) struct WebServer {
    pub(super) addr: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl WebServer {
    pub(super) fn start() -> Result<Self> {
        let socket = TcpListener::bind("127.0.0.1:0").context("the web server")?;
        let addr = socket.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        thread::spawn(move || {
            for client in socket.incoming().flatten() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                // Errors of clients that disconnect are ignored.
                thread::spawn(move || drop(serve(client)));
            }
        });
        Ok(Self { addr, stop })
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the thread, so that it sees the flag.
        drop(TcpStream::connect(self.addr));
    }
}

/// Answers the requests of a connection, one after another.
fn serve(client: TcpStream) -> Result<()> {
    client.set_nodelay(true)?;
    let mut reader = BufReader::new(client.try_clone()?);
    let mut writer = client;
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut close = false;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            close |= header.trim().eq_ignore_ascii_case("connection: close");
            if header.trim().is_empty() {
                break;
            }
        }
        let path = request.split_whitespace().nth(1).unwrap_or("/");
        match path
            .strip_prefix("/bulk/")
            .and_then(|n| n.parse::<u64>().ok())
        {
            Some(bytes) => bulk(&mut writer, bytes)?,
            None if path == "/" => answer(&mut writer, "200 OK", GREETING)?,
            None => answer(&mut writer, "404 Not Found", "nothing here\n")?,
        }
        if close {
            return Ok(writer.shutdown(Shutdown::Both)?);
        }
    }
}

fn answer(writer: &mut TcpStream, status: &str, body: &str) -> Result<()> {
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    Ok(writer.write_all(text.as_bytes())?)
}

fn bulk(writer: &mut TcpStream, bytes: u64) -> Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
    writer.write_all(head.as_bytes())?;
    let chunk = vec![0; 256 << 10];
    let mut left = bytes;
    while left > 0 {
        let size = left.min(chunk.len() as u64) as usize;
        let Some(part) = chunk.get(..size) else { break };
        writer.write_all(part)?;
        left -= size as u64;
    }
    Ok(())
}

pub(super) fn get(addr: SocketAddr, path: &str) -> Result<String> {
    let (mut reader, length) = request(addr, path)?;
    let mut body = vec![0; usize::try_from(length)?];
    reader
        .read_exact(&mut body)
        .with_context(|| format!("reading {path}"))?;
    Ok(String::from_utf8(body)?)
}

/// Discards the body and returns its length.
pub(super) fn download(addr: SocketAddr, bytes: u64) -> Result<u64> {
    let (mut reader, length) = request(addr, &format!("/bulk/{bytes}"))?;
    let mut buffer = vec![0; 256 << 10];
    let mut got = 0;
    while got < length {
        match reader.read(&mut buffer).context("reading the download")? {
            0 => break,
            n => got += n as u64,
        }
    }
    Ok(got)
}

/// Sends a request and reads the head of the answer: the rest, and its length.
fn request(addr: SocketAddr, path: &str) -> Result<(BufReader<TcpStream>, u64)> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut reader = BufReader::new(stream);
    let mut status = String::new();
    reader.read_line(&mut status)?;
    if status.split_whitespace().nth(1) != Some("200") {
        bail!("the answer to GET {path} is {:?}", status.trim_end());
    }
    let mut length = None;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse()?);
        }
    }
    Ok((reader, length.context("the answer has no length")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_understands_the_server() -> Result<()> {
        let server = WebServer::start()?;
        assert_eq!(get(server.addr, "/")?, GREETING);
        assert_eq!(download(server.addr, 1_000_001)?, 1_000_001);
        assert!(get(server.addr, "/else").is_err_and(|e| e.to_string().contains("404")));
        Ok(())
    }

    #[test]
    fn a_connection_takes_several_requests() -> Result<()> {
        let server = WebServer::start()?;
        let mut stream = TcpStream::connect(server.addr)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nConnection: close\r\n\r\n")?;
        let mut all = String::new();
        stream.read_to_string(&mut all)?;
        assert_eq!(all.matches(GREETING).count(), 2);
        Ok(())
    }
}
