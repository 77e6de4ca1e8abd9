//! How does a shepherd reach srun, and how do frames go over the connection?
//!
//! Whoever answers at one of srun's addresses must know the step's secret. Nothing here blocks. Frames
//! that are sent wait in a queue, whose length tells the caller when to read no more output.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use bytes::Bytes;
use penstock_proto::step_io::{
    FrameBuffer, Prover, STEP_IO_VERSION, STEP_SECRET_BYTES, encode_frame, is_proof, proof,
};
use penstock_proto::v1::step_frame::{Credit, Frame, Hello, Proof};
use penstock_vocab::Millis;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, sockopt};

use super::dialler::{Dialled, Dialler};

/// How long a step waits for srun to answer, and to prove who it is.
pub(super) const CALL_TIME: Millis = Millis(10_000);
/// How often is looked whether another address is to be tried.
const PATIENCE: Millis = Millis(50);
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Dialling,
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
    dialler: Dialler,
    state: State,
    socket: Option<OwnedFd>,
    peer: Option<SocketAddr>,
    since: Millis,
    input: FrameBuffer,
    output: VecDeque<Bytes>,
    queued: usize,
    /// Bytes of input that came, and of how many the other side was told that they were taken.
    received: u64,
    credited: u64,
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
        Ok(Self {
            dialler: Dialler::new(&callee.addresses, callee.port, now),
            callee,
            hello,
            state: State::Dialling,
            socket: None,
            peer: None,
            since: now,
            input: FrameBuffer::default(),
            output: VecDeque::new(),
            queued: 0,
            received: 0,
            credited: 0,
        })
    }

    /// Speaks over a socket on whose other side srun is, at `now`.
    ///
    /// # Errors
    /// As [`Line::call`].
    pub(super) fn over(
        callee: Callee,
        hello: Hello,
        socket: OwnedFd,
        now: Millis,
    ) -> io::Result<Self> {
        let mut line = Self::call(callee, hello, now)?;
        line.socket = Some(socket);
        line.state = State::Greeting;
        line.push(Frame::Hello(line.hello.clone()));
        Ok(line)
    }

    pub(super) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// The other side's address, once it has answered.
    pub(super) const fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Whom to call where this connection broke: the address that answered, if one did.
    pub(super) fn callee_again(&self) -> Callee {
        let answered = self.peer.map(|peer| vec![peer.ip().to_string()]);
        let addresses = answered.unwrap_or_else(|| self.callee.addresses.clone());
        Callee { addresses, ..self.callee.clone() }
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

    /// Counts the input of a frame that goes to the tasks now.
    pub(super) fn count_input(&mut self, frame: &Frame) {
        if let Frame::Input(input) = frame {
            self.received = self.received.saturating_add(input.data.len() as u64);
        }
    }

    /// Bytes of input for which no credit was given.
    pub(super) const fn uncredited(&self) -> u64 {
        self.received.saturating_sub(self.credited)
    }

    /// Says that `bytes` of input were taken.
    pub(super) fn give_credit(&mut self, bytes: u64) {
        self.credited = self.credited.saturating_add(bytes);
        self.send(Frame::Credit(Credit { bytes: u32::try_from(bytes).unwrap_or(u32::MAX) }));
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
            State::Dialling => self.dialler.fds().map(|fd| (fd, PollFlags::OUT)).collect(),
            State::Greeting | State::Open => {
                let out = if self.queued > 0 { PollFlags::OUT } else { PollFlags::empty() };
                let fd = self.socket.iter().map(|socket| socket.as_fd());
                fd.map(|fd| (fd, PollFlags::IN | out)).collect()
            }
            State::Closed => Vec::new(),
        }
    }

    /// How long to wait at most, in milliseconds, for what no descriptor announces.
    pub(super) fn patience(&self, now: Millis) -> Option<Millis> {
        match self.state {
            State::Dialling => Some(PATIENCE.min(self.dialler.patience(now))),
            State::Greeting => Some(PATIENCE),
            State::Open | State::Closed => None,
        }
    }

    /// Goes on as far as that is possible without waiting: frames that have come.
    ///
    /// # Errors
    /// When the connection is of no use; the caller closes it, or calls again.
    pub(super) fn work(&mut self, now: Millis) -> Result<Vec<Frame>, Broken> {
        if self.state == State::Dialling {
            self.dial(now)?;
        }
        let mut frames = Vec::new();
        if self.socket.is_some() {
            let over = self.receive(&mut frames);
            let greeted = match self.state {
                State::Greeting => self.greet(&mut frames),
                State::Dialling | State::Open | State::Closed => Ok(()),
            };
            if let Err(broken) = greeted.and(over).and_then(|()| self.flush()) {
                // What came before the end counts; the end is met again.
                if !frames.is_empty() {
                    return Ok(frames);
                }
                self.not_here();
                if self.state != State::Dialling || self.dialler.is_exhausted() {
                    return Err(broken);
                }
            }
        }
        if !self.is_open() && now.saturating_sub(self.since) >= CALL_TIME {
            return Err(Broken::Unreachable(self.timed_out()));
        }
        Ok(frames)
    }

    fn timed_out(&self) -> String {
        let Callee { addresses, port, .. } = &self.callee;
        let last = match self.state {
            State::Greeting if self.peer.is_none() => {
                ": it cannot be called, nor does it answer through the controller".to_owned()
            }
            State::Greeting => ": it takes the connection and says nothing".to_owned(),
            _ if self.dialler.last().is_empty() => String::new(),
            _ => format!(": {}", self.dialler.last()),
        };
        format!(
            "srun does not answer within {} s at {} port {port}{last}",
            CALL_TIME.as_secs(),
            addresses.join(", ")
        )
    }

    fn dial(&mut self, now: Millis) -> Result<(), Broken> {
        match self.dialler.work(now) {
            Dialled::Pending => {}
            Dialled::Refused(last) => {
                return Err(Broken::Gone(format!("srun does not listen any more: {last}")));
            }
            Dialled::Connected(address, socket) => {
                tune(&socket);
                self.peer = Some(address);
                self.socket = Some(socket);
                self.state = State::Greeting;
                self.push(Frame::Hello(self.hello.clone()));
            }
        }
        Ok(())
    }

    /// Whoever answered is not srun: another address may be.
    fn not_here(&mut self) {
        if let (State::Greeting, Some(address)) = (self.state, self.peer.take()) {
            self.dialler.leave_out(address);
            self.socket = None;
            self.input = FrameBuffer::default();
            self.output.clear();
            self.queued = 0;
            self.state = State::Dialling;
        }
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
