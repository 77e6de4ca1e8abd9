//! How does a shepherd reach srun, and how do frames go over the connection?
//!
//! All addresses that srun named are dialled at once; the first that answers and knows the step's
//! secret is taken. Nothing here blocks, but for looking up a name that is no address. Frames that are
//! sent wait in a queue, whose length tells the caller when to read no more output.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use bytes::Bytes;
use penstock_proto::step_io::{
    FrameBuffer, Prover, STEP_IO_VERSION, STEP_SECRET_BYTES, encode_frame, is_proof, proof,
};
use penstock_proto::v1::step_frame::{Frame, Hello, Proof};
use penstock_vocab::Millis;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, sockopt};

/// How long a step waits for srun to answer, and to prove who it is.
pub(super) const CALL_TIME: Millis = Millis(10_000);
/// Pause between two rounds of dialling.
const REDIAL: Millis = Millis(250);
/// Most addresses that are tried.
const MAX_ADDRESSES: usize = 8;
/// Bytes read from the connection before others get their turn.
const READ_BYTES: usize = 256 << 10;
/// Seconds of silence until the other side is asked whether it is there, between two such
/// questions, and how many of them may stay without an answer.
const KEEPALIVE: (u64, u64, u32) = (30, 10, 3);

/// Whom to call.
#[derive(Debug, Clone)]
pub(super) struct Callee {
    pub(super) addresses: Vec<String>,
    pub(super) port: u32,
    pub(super) secret: Bytes,
}

/// Why a connection is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Broken {
    /// Nobody listens there any more, or the other side closed the connection.
    Gone(String),
    /// It cannot be reached, for now.
    Unreachable(String),
    /// Somebody else is there.
    Stranger(String),
}

impl Broken {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Gone(text) | Self::Unreachable(text) | Self::Stranger(text) => text,
        }
    }
}

#[derive(Debug)]
enum State {
    /// Dials; `next` is when the next round begins, where all attempts of this one failed.
    Dialling {
        attempts: Vec<(SocketAddr, OwnedFd)>,
        next: Option<Millis>,
        last: String,
    },
    /// Hello is sent; a challenge is to come.
    Greeting,
    /// Both know each other.
    Open,
    Closed,
}

/// A connection to srun, or to another listener.
#[derive(Debug)]
pub(super) struct Line {
    callee: Callee,
    hello: Hello,
    state: State,
    socket: Option<OwnedFd>,
    peer: Option<SocketAddr>,
    since: Millis,
    input: FrameBuffer,
    output: VecDeque<Bytes>,
    queued: usize,
}

impl Line {
    /// Begins to call at `now`. `hello` names step and node; its nonce is made here.
    ///
    /// # Errors
    /// Where no nonce can be made, or the secret is none.
    pub(super) fn call(callee: Callee, hello: Hello, now: Millis) -> io::Result<Self> {
        if callee.secret.len() != STEP_SECRET_BYTES {
            return Err(io::Error::other("the step has no secret by which srun could be known"));
        }
        let hello = Hello { nonce: nonce()?, version: STEP_IO_VERSION, ..hello };
        let state = State::Dialling { attempts: Vec::new(), next: Some(now), last: String::new() };
        Ok(Self {
            callee,
            hello,
            state,
            socket: None,
            peer: None,
            since: now,
            input: FrameBuffer::default(),
            output: VecDeque::new(),
            queued: 0,
        })
    }

    pub(super) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// The other side's address, once it has answered.
    pub(super) const fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    pub(super) const fn callee(&self) -> &Callee {
        &self.callee
    }

    /// Bytes that wait to be sent.
    pub(super) const fn queued(&self) -> usize {
        self.queued
    }

    /// Puts a frame into the queue; before the connection is open, or after it broke, nothing.
    pub(super) fn send(&mut self, frame: Frame) {
        if self.is_open() {
            self.push(frame);
        }
    }

    fn push(&mut self, frame: Frame) {
        let bytes = encode_frame(frame);
        self.queued += bytes.len();
        self.output.push_back(bytes.into());
    }

    /// Ends the connection, and what waits with it.
    pub(super) fn close(&mut self) {
        self.state = State::Closed;
        self.socket = None;
        self.output.clear();
        self.queued = 0;
    }

    /// Says that nothing more will be sent.
    pub(super) fn end(&self) {
        if let Some(socket) = &self.socket {
            let _gone = rustix::net::shutdown(socket, rustix::net::Shutdown::Write);
        }
    }

    /// What to wait for.
    pub(super) fn fds(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        match &self.state {
            State::Dialling { attempts, .. } => {
                attempts.iter().map(|(_, socket)| (socket.as_fd(), PollFlags::OUT)).collect()
            }
            State::Greeting | State::Open => {
                let out = if self.queued > 0 { PollFlags::OUT } else { PollFlags::empty() };
                let fd = self.socket.iter().map(|socket| socket.as_fd());
                fd.map(|fd| (fd, PollFlags::IN | out)).collect()
            }
            State::Closed => Vec::new(),
        }
    }

    /// How long to wait at most, in milliseconds, for what no descriptor announces.
    pub(super) fn patience(&self) -> Option<Millis> {
        matches!(self.state, State::Dialling { .. } | State::Greeting).then_some(REDIAL)
    }

    /// Goes on as far as that is possible without waiting: frames that have come.
    ///
    /// # Errors
    /// When the connection is of no use; the caller closes it, or calls again.
    pub(super) fn work(&mut self, now: Millis) -> Result<Vec<Frame>, Broken> {
        if matches!(self.state, State::Dialling { .. }) {
            self.dial(now)?;
        }
        let mut frames = Vec::new();
        if self.socket.is_some() {
            let over = self.receive(&mut frames);
            if matches!(self.state, State::Greeting) {
                self.greet(&mut frames)?;
            }
            if let Err(broken) = over.and_then(|()| self.flush()) {
                // What came before the end counts; the end is met again.
                return if frames.is_empty() { Err(broken) } else { Ok(frames) };
            }
        }
        if !self.is_open() && now.saturating_sub(self.since) >= CALL_TIME {
            return Err(Broken::Unreachable(self.timed_out()));
        }
        Ok(frames)
    }

    fn timed_out(&self) -> String {
        let Callee { addresses, port, .. } = &self.callee;
        let last = match &self.state {
            State::Dialling { last, .. } if !last.is_empty() => format!(": {last}"),
            State::Greeting => ": it takes the connection and says nothing".to_owned(),
            _ => String::new(),
        };
        format!(
            "srun does not answer within {} s at {} port {port}{last}",
            CALL_TIME.as_secs(),
            addresses.join(", ")
        )
    }

    fn dial(&mut self, now: Millis) -> Result<(), Broken> {
        let State::Dialling { attempts, next, last } = &mut self.state else { return Ok(()) };
        if next.is_some_and(|at| at <= now) {
            *next = None;
            for address in addresses(&self.callee) {
                match begin(address) {
                    Ok(socket) => attempts.push((address, socket)),
                    Err(error) => *last = format!("{address}: {error}"),
                }
            }
        }
        let mut refused = None;
        let mut taken = None;
        attempts.retain_mut(|(address, socket)| {
            if taken.is_some() {
                return false;
            }
            match outcome(socket) {
                None => return true,
                Some(Ok(())) => taken = socket.try_clone().ok().map(|socket| (*address, socket)),
                Some(Err(error)) => {
                    if error == Errno::CONNREFUSED {
                        refused = Some(*address);
                    }
                    *last = format!("{address}: {}", io::Error::from(error));
                }
            }
            false
        });
        if let Some((address, socket)) = taken {
            tune(&socket);
            self.peer = Some(address);
            self.socket = Some(socket);
            self.state = State::Greeting;
            self.push(Frame::Hello(self.hello.clone()));
            return Ok(());
        }
        if attempts.is_empty() && next.is_none() {
            if let Some(address) = refused {
                return Err(Broken::Gone(format!("srun does not listen at {address} any more")));
            }
            *next = Some(now.saturating_add(REDIAL));
        }
        Ok(())
    }

    fn receive(&mut self, frames: &mut Vec<Frame>) -> Result<(), Broken> {
        let Some(socket) = &self.socket else { return Ok(()) };
        let mut buffer = [0; 16 << 10];
        let mut read = 0;
        let end = loop {
            if read >= READ_BYTES {
                break Ok(());
            }
            match rustix::net::recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => break Err(Broken::Gone("srun closed the connection".to_owned())),
                Ok((length, _)) => {
                    self.input.push(&buffer[..length]);
                    read += length;
                }
                Err(Errno::AGAIN) => break Ok(()),
                Err(Errno::INTR) => {}
                Err(error @ (Errno::TIMEDOUT | Errno::HOSTUNREACH | Errno::NETUNREACH)) => {
                    let text = format!("srun is silent: {}", io::Error::from(error));
                    break Err(Broken::Unreachable(text));
                }
                Err(error) => {
                    let text = format!("the connection to srun broke: {}", io::Error::from(error));
                    break Err(Broken::Gone(text));
                }
            }
        };
        loop {
            match self.input.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return end,
                Err(error) => {
                    let text = format!("what srun sends is not understood: {error}");
                    return Err(Broken::Stranger(text));
                }
            }
        }
    }

    fn greet(&mut self, frames: &mut Vec<Frame>) -> Result<(), Broken> {
        if frames.is_empty() {
            return Ok(());
        }
        let Frame::Challenge(challenge) = frames.remove(0) else {
            let text = "whoever listens where srun should does not speak its language".to_owned();
            return Err(Broken::Stranger(text));
        };
        let (secret, answer) = (&self.callee.secret, &challenge.nonce);
        if !is_proof(secret, Prover::Srun, &self.hello, answer, &challenge.proof) {
            let text = "whoever listens where srun should does not know the step's secret";
            return Err(Broken::Stranger(text.to_owned()));
        }
        let proof = proof(secret, Prover::Shepherd, &self.hello, answer);
        self.push(Frame::Proof(Proof { proof }));
        self.state = State::Open;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Broken> {
        let Some(socket) = &self.socket else { return Ok(()) };
        while let Some(front) = self.output.front_mut() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(socket, front, flags) {
                Ok(sent) => {
                    self.queued -= sent;
                    let _sent = front.split_to(sent);
                    if front.is_empty() {
                        self.output.pop_front();
                    }
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::TIMEDOUT) => {
                    return Err(Broken::Unreachable("srun is silent".to_owned()));
                }
                Err(error) => {
                    let text = format!("the connection to srun broke: {}", io::Error::from(error));
                    return Err(Broken::Gone(text));
                }
            }
        }
        Ok(())
    }
}

fn addresses(callee: &Callee) -> Vec<SocketAddr> {
    let Ok(port) = u16::try_from(callee.port) else { return Vec::new() };
    let mut found = Vec::new();
    for text in callee.addresses.iter().take(MAX_ADDRESSES) {
        match text.parse::<IpAddr>() {
            Ok(ip) => found.push(SocketAddr::new(ip, port)),
            // A name that cannot be looked up is no way to srun; another address may be.
            Err(_) => found.extend((text.as_str(), port).to_socket_addrs().into_iter().flatten()),
        }
    }
    found.dedup();
    found.truncate(MAX_ADDRESSES);
    found
}

fn begin(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        // Also "refused", where a connection to this machine is tried at once.
        Err(Errno::CONNREFUSED) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// How an attempt to connect ended; `None`: it has not.
fn outcome(socket: &OwnedFd) -> Option<Result<(), Errno>> {
    match sockopt::socket_error(socket) {
        Ok(Err(error)) | Err(error) => return Some(Err(error)),
        Ok(Ok(())) => {}
    }
    match rustix::net::getpeername(socket) {
        Ok(_) => Some(Ok(())),
        Err(_) => {
            let mut fd = [rustix::event::PollFd::new(socket, PollFlags::OUT)];
            let now = rustix::time::Timespec::default();
            let ended = matches!(rustix::event::poll(&mut fd, Some(&now)), Ok(1));
            // Ended without an error that is told twice, and without a peer.
            ended.then_some(Err(Errno::CONNREFUSED))
        }
    }
}

/// Small frames go out at once, and a host that vanished is noticed. Where the kernel does not take
/// one of them, the connection works all the same.
fn tune(socket: &OwnedFd) {
    let secs = std::time::Duration::from_secs;
    let (idle, between, count) = KEEPALIVE;
    let _slower = sockopt::set_tcp_nodelay(socket, true);
    let _later = sockopt::set_socket_keepalive(socket, true)
        .and_then(|()| sockopt::set_tcp_keepidle(socket, secs(idle)))
        .and_then(|()| sockopt::set_tcp_keepintvl(socket, secs(between)))
        .and_then(|()| sockopt::set_tcp_keepcnt(socket, count));
}

fn nonce() -> io::Result<Bytes> {
    use std::io::Read as _;
    let mut bytes = [0; STEP_SECRET_BYTES];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(Bytes::copy_from_slice(&bytes))
}
