//! The status page (`--serve-status`): a page that refreshes itself at `/`, the status as JSON at `/status.json`, and figures for
//! Prometheus at `/metrics`.
//!
//! Requests are parsed by the crate `httparse`; the rest is the standard library: the need is three fixed answers to `GET`, and the
//! small servers there are keep connections open and read requests without the limits below. A connection has one request, little
//! time, and a thread of its own, and there are few connections. Requests never wait for the run, nor the run for them.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::observer::Observer;
use super::{metrics, page};
use crate::console::reason;

/// The largest request, and the most of its headers.
const LARGEST: usize = 8 << 10;
const HEADERS: usize = 64;
/// The most connections at a time. Others are closed at once.
const CONNECTIONS: usize = 16;
/// A connection has this much time, from its first byte to its last.
const LIMIT: Duration = Duration::from_secs(5);
/// The thread looks this often whether the run has ended.
const LOOK: Duration = Duration::from_millis(500);

/// A status page that is served.
pub(super) struct Server {
    address: SocketAddr,
    has_ended: Arc<AtomicBool>,
}

impl Server {
    /// Listens at an address.
    ///
    /// # Errors
    /// A sentence, if that is not possible.
    pub(super) fn start(address: SocketAddr, observer: &Arc<Observer>) -> Result<Server, String> {
        let cannot = |error: io::Error| format!("--serve-status {address}: {}", reason(&error));
        let listener = TcpListener::bind(address).map_err(cannot)?;
        listener.set_nonblocking(true).map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let has_ended = Arc::new(AtomicBool::new(false));
        let accepting = Accepting {
            observer: Arc::downgrade(observer),
            is_local: address.ip().is_loopback(),
            connections: Arc::default(),
            has_ended: has_ended.clone(),
        };
        let accept = move || accepting.run(&listener);
        thread::Builder::new().name("rankpool status page".into()).spawn(accept).map_err(cannot)?;
        Ok(Server { address, has_ended })
    }

    /// Returns the address at which it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    /// The thread ends a moment later; nothing waits for it.
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }
}

/// What the thread has that accepts connections.
struct Accepting {
    observer: Weak<Observer>,
    /// Whether it listens for this host alone.
    is_local: bool,
    connections: Arc<AtomicUsize>,
    has_ended: Arc<AtomicBool>,
}

impl Accepting {
    fn run(&self, listener: &TcpListener) {
        let look = Timespec { tv_sec: 0, tv_nsec: LOOK.subsec_nanos().into() };
        while !self.has_ended.load(Ordering::Relaxed) {
            let mut ready = [PollFd::new(listener, PollFlags::IN)];
            let _ = poll(&mut ready, Some(&look));
            match listener.accept() {
                Ok((stream, _)) => self.serve(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // There may be no more file descriptors; the run needs them more.
                Err(_) => thread::sleep(LOOK),
            }
        }
    }

    /// Serves a connection on a thread of its own, if there are not too many.
    fn serve(&self, stream: TcpStream) {
        let Some(observer) = self.observer.upgrade() else { return };
        if self.connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let (connections, is_local) = (self.connections.clone(), self.is_local);
        let serve = move || {
            // What goes wrong with a connection is the matter of the other end.
            let _ = serve(stream, &observer, is_local);
            connections.fetch_sub(1, Ordering::Relaxed);
        };
        if thread::Builder::new().name("rankpool status page".into()).spawn(serve).is_err() {
            self.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// An answer: its status line, its type, its body.
type Answer = (&'static str, &'static str, Vec<u8>);

const TEXT: &str = "text/plain; charset=utf-8";

fn refusal(status: &'static str, message: &str) -> Answer {
    (status, TEXT, format!("{message}\n").into_bytes())
}

/// Reads a request and answers it.
fn serve(mut stream: TcpStream, observer: &Observer, is_local: bool) -> io::Result<()> {
    let deadline = Instant::now() + LIMIT;
    stream.set_nonblocking(false)?;
    let request = read_request(&mut stream, deadline)?;
    let has_body = !request.starts_with(b"HEAD ");
    let (status, kind, body) = answer(&request, observer, is_local);
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\nContent-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n\r\n"
    );
    let mut bytes = head.into_bytes();
    if has_body {
        bytes.extend_from_slice(&body);
    }
    write_all(&mut stream, &bytes, deadline)?;
    stream.shutdown(std::net::Shutdown::Write)
}

/// Returns the time to a deadline.
fn left(deadline: Instant) -> io::Result<Option<Duration>> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
}

/// Reads until the head of a request is there, or it is too large.
fn read_request(stream: &mut TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        stream.set_read_timeout(left(deadline)?)?;
        let count = stream.read(&mut buffer)?;
        request.extend_from_slice(&buffer[..count]);
        let is_whole = request.windows(4).any(|end| end == b"\r\n\r\n") || request.windows(2).any(|end| end == b"\n\n");
        if count == 0 || is_whole || request.len() > LARGEST {
            return Ok(request);
        }
    }
}

fn write_all(stream: &mut TcpStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(left(deadline)?)?;
        match stream.write(bytes)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => bytes = &bytes[count..],
        }
    }
    Ok(())
}

/// Returns the answer to a request.
fn answer(request: &[u8], observer: &Observer, is_local: bool) -> Answer {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(request) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if request.len() > LARGEST => {
            return refusal("431 Request Header Fields Too Large", "the request is too large");
        }
        _ => return refusal("400 Bad Request", "this is not a request of HTTP"),
    }
    if !matches!(parsed.method, Some("GET" | "HEAD")) {
        return refusal("405 Method Not Allowed", "there is only GET");
    }
    let host = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case("host"));
    if is_local && host.is_some_and(|host| !is_this_host(host.value)) {
        // A foreign page in the user's browser could otherwise read this one, under a name that leads here.
        return refusal("403 Forbidden", "this page is served to this host alone: ask for localhost");
    }
    let path = parsed.path.unwrap_or_default();
    match path.split('?').next().unwrap_or_default() {
        "/" => ("200 OK", "text/html; charset=utf-8", page::of(&observer.status()).into_bytes()),
        "/status.json" => ("200 OK", "application/json", observer.status().json()),
        "/metrics" => {
            ("200 OK", "text/plain; version=0.0.4; charset=utf-8", metrics::of(&observer.status()).into_bytes())
        }
        _ => refusal("404 Not Found", "there are /, /status.json and /metrics"),
    }
}

/// Whether the value of a `Host` header names this host itself.
fn is_this_host(value: &[u8]) -> bool {
    let value = String::from_utf8_lossy(value);
    let name = value.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.map_or(&*value, |(name, _)| name).trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::super::observer::tests::observer;
    use super::*;

    fn status_of(request: &[u8], is_local: bool) -> String {
        answer(request, &observer(), is_local).0.into()
    }

    #[test]
    fn requests_have_an_answer_whatever_they_are() {
        for (request, status) in [
            (&b"GET / HTTP/1.1\r\nHost: localhost:1\r\n\r\n"[..], "200"),
            (b"GET /status.json?x HTTP/1.0\r\n\r\n", "200"),
            (b"HEAD /metrics HTTP/1.1\r\nhost: [::1]:80\r\n\r\n", "200"),
            (b"GET /../etc/passwd HTTP/1.1\r\n\r\n", "404"),
            (b"POST / HTTP/1.1\r\n\r\n", "405"),
            (b"", "400"),
            (b"\x16\x03\x01", "400"),
            (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", "403"),
            (b"GET / HTTP/1.1\r\nHost: 127.0.0.1.evil.example:80\r\n\r\n", "403"),
        ] {
            let found = status_of(request, true);
            assert!(found.starts_with(status), "{:?}: {found}", String::from_utf8_lossy(request));
        }
        let named = b"GET / HTTP/1.1\r\nHost: login1.cluster:80\r\n\r\n";
        assert!(status_of(named, false).starts_with("200"), "an address that was given in full has other names");
        let many = [b"GET / HTTP/1.1\r\n".as_slice(), &b"x: y\r\n".repeat(5_000)].concat();
        assert!(status_of(&many, true).starts_with('4'));
    }

    #[test]
    fn a_page_is_served_and_connections_that_say_nothing_do_not_keep_others_out() {
        let observer = Arc::new(observer());
        let server = Server::start("127.0.0.1:0".parse().unwrap(), &observer).unwrap();
        let connect = || TcpStream::connect(server.address()).unwrap();
        let silent: Vec<_> = (0..CONNECTIONS - 1).map(|_| connect()).collect();
        let mut asking = connect();
        asking.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        let mut found = String::new();
        asking.read_to_string(&mut found).unwrap();
        assert!(
            found.starts_with("HTTP/1.1 200 OK\r\n") && found.contains("rankpool_jobs_settled_total 5\n"),
            "{found}"
        );
        drop(silent);
        let taken = Server::start(server.address(), &observer).err().expect("the port is taken");
        assert!(taken.contains(&server.address().to_string()), "{taken}");
    }
}
