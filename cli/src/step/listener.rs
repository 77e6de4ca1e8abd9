//! Who dials this process, and is it a shepherd of the step?
//!
//! Whoever connects has a few seconds to prove that it knows the step's secret; until then it gets
//! nothing but the proof that this side knows it. What a shepherd sends goes into one bounded queue,
//! so that a terminal that stands still holds the tasks up in the end, and nothing grows.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use penstock_proto::step_io::{
    FrameBuffer, Prover, STEP_IO_VERSION, STEP_SECRET_BYTES, encode_frame, is_proof, proof,
};
use penstock_proto::v1::step_frame::{Challenge, Frame, Hello};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How long a connection may take to prove who it is.
const PROOF_TIME: Duration = Duration::from_secs(10);

/// Connections that have not proved anything yet; more are closed at once.
const MAX_STRANGERS: usize = 1_024;

/// Frames that wait to be handled, over all connections.
const QUEUE: usize = 64;

/// Frames that wait to be sent to one shepherd; input is bounded by its credit, so that this many
/// only gather behind a node that takes nothing.
const OUTGOING: usize = 1_024;

/// Addresses that are told to the controller at most.
const MAX_ADDRESSES: usize = 8;

/// Tries to find a free port in a range.
const PORT_TRIES: u16 = 64;

/// A port on which shepherds are expected.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    /// Its number.
    pub(crate) port: u16,
    /// Where this host can be reached, best first.
    pub(crate) addresses: Vec<String>,
    /// What a shepherd of the step knows.
    pub(crate) secret: Bytes,
}

/// What a connection brings; the number is the node's place in the step.
#[derive(Debug)]
pub(crate) enum Event {
    /// What is sent there goes to the shepherd.
    Connected(usize, mpsc::Sender<Bytes>),
    Frame(usize, Box<Frame>),
    /// The connection that this belongs to has ended; the node may have another by now.
    Closed(usize, mpsc::Sender<Bytes>),
}

/// Which shepherds are let in, and what they are told.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) job_id: u32,
    pub(crate) step: u32,
    pub(crate) nodes: Vec<String>,
    /// The frame that says what to run.
    pub(crate) setup: Bytes,
}

impl Listener {
    /// Listens on a free port, of that range if there is one.
    ///
    /// # Errors
    /// When no port is free, or the process has no descriptors left.
    pub(crate) async fn open(range: Option<(u16, u16)>) -> io::Result<Self> {
        let socket = match range {
            None => bind(0).await?,
            Some(range) => bind_within(range).await?,
        };
        Ok(Self {
            port: socket.local_addr()?.port(),
            socket,
            addresses: own_addresses(),
            secret: Bytes::copy_from_slice(&rand::random::<[u8; STEP_SECRET_BYTES]>()),
        })
    }

    /// Lets shepherds in until the receiver is dropped.
    pub(crate) fn serve(self, expected: Expected) -> (Connections, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(QUEUE);
        let door = Door { secret: self.secret.clone(), expected, events };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(self, door.clone()));
        (Connections { door, _tasks: tasks }, receiver)
    }
}

/// Who lets shepherds in, as long as this lives.
#[derive(Debug)]
pub(crate) struct Connections {
    door: Door,
    _tasks: JoinSet<()>,
}

impl Connections {
    /// The way in for connections that come another way.
    pub(crate) fn door(&self) -> Door {
        self.door.clone()
    }
}

/// The way in: whoever comes has to prove who it is.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    secret: Bytes,
    expected: Expected,
    events: mpsc::Sender<Event>,
}

impl Door {
    /// Nodes that are expected.
    pub(crate) fn nodes(&self) -> usize {
        self.expected.nodes.len()
    }

    /// Serves one connection from its first word to its end.
    pub(crate) async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        serve_one(stream, self).await;
    }
}

/// All addresses of this host, by either protocol.
async fn bind(port: u16) -> io::Result<TcpListener> {
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    match TcpListener::bind(both).await {
        Ok(socket) => Ok(socket),
        // A kernel without IPv6.
        Err(_) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await,
    }
}

async fn bind_within((low, high): (u16, u16)) -> io::Result<TcpListener> {
    let mut last = None;
    for _ in 0..PORT_TRIES.min(high.saturating_sub(low).saturating_add(1).saturating_mul(4)) {
        match bind(rand::random_range(low..=high)).await {
            Ok(socket) => return Ok(socket),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::from(io::ErrorKind::AddrInUse)))
}

/// Addresses of the interfaces that are up; loopback ones last, which only this host's own nodes
/// reach.
fn own_addresses() -> Vec<String> {
    let mut found: Vec<(u8, IpAddr)> = Vec::new();
    for interface in getifaddrs().into_iter().flatten() {
        if !interface.flags.contains(InterfaceFlags::IFF_UP) {
            continue;
        }
        let Some(address) = interface.address else { continue };
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let v6 = address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
        let Some(ip) = v4.or(v6) else { continue };
        let rank = match ip {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => continue,
            IpAddr::V4(v4) if v4.is_link_local() => continue,
            ip if ip.is_loopback() => 2 + u8::from(ip.is_ipv6()),
            ip => u8::from(ip.is_ipv6()),
        };
        found.push((rank, ip));
    }
    found.sort_by_key(|(rank, _)| *rank);
    let loopback = found.iter().find(|(rank, _)| *rank >= 2).copied();
    found.truncate(MAX_ADDRESSES - 1);
    found.extend(loopback.filter(|last| !found.contains(last)));
    found.into_iter().map(|(_, ip)| ip.to_string()).collect()
}

async fn accept(listener: Listener, door: Door) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.socket.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = door.events.closed() => return,
        };
        match accepted {
            Ok((stream, _)) if connections.len() < MAX_STRANGERS + door.nodes() => {
                stream.set_nodelay(true).ok();
                connections.spawn(serve_one(stream, door.clone()));
            }
            Ok(_) => {}
            // Out of descriptors: those who left may have freed some.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// One connection from its first word to its end.
async fn serve_one(mut stream: impl AsyncRead + AsyncWrite + Unpin, door: Door) {
    let Door { secret, expected, events } = door;
    let mut buffer = FrameBuffer::default();
    let proved =
        tokio::time::timeout(PROOF_TIME, let_in(&mut stream, &mut buffer, &secret, &expected))
            .await;
    let Ok(Ok(node)) = proved else { return };
    let (reader, writer) = tokio::io::split(stream);
    let (link, outgoing) = mpsc::channel(OUTGOING);
    if events.send(Event::Connected(node, link.clone())).await.is_err() {
        return;
    }
    tokio::select! {
        () = read_frames(reader, buffer, node, &events) => {}
        () = write_frames(writer, outgoing) => {}
    }
    events.send(Event::Closed(node, link)).await.ok();
}

/// Checks the proof, and says what to run; gives the node's place.
async fn let_in(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    buffer: &mut FrameBuffer,
    secret: &[u8],
    expected: &Expected,
) -> io::Result<usize> {
    let Frame::Hello(hello) = next_frame(stream, buffer).await? else { return Err(stranger()) };
    let node = place(&hello, expected).ok_or_else(stranger)?;
    let nonce = Bytes::copy_from_slice(&rand::random::<[u8; STEP_SECRET_BYTES]>());
    let own = proof(secret, Prover::Srun, &hello, &nonce);
    let challenge = Challenge { nonce: nonce.clone(), proof: own };
    stream.write_all(&encode_frame(Frame::Challenge(challenge))).await?;
    let Frame::Proof(answer) = next_frame(stream, buffer).await? else { return Err(stranger()) };
    if !is_proof(secret, Prover::Shepherd, &hello, &nonce, &answer.proof) {
        return Err(stranger());
    }
    stream.write_all(&expected.setup).await?;
    Ok(node)
}

/// The node's place in the step, if it is one of its shepherds.
fn place(hello: &Hello, expected: &Expected) -> Option<usize> {
    let ours = hello.job_id == expected.job_id
        && hello.step == expected.step
        && hello.version == STEP_IO_VERSION;
    expected.nodes.iter().position(|node| ours && *node == hello.node)
}

fn stranger() -> io::Error {
    io::Error::from(io::ErrorKind::PermissionDenied)
}

async fn next_frame(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut FrameBuffer,
) -> io::Result<Frame> {
    let mut bytes = [0; 4096];
    loop {
        if let Some(frame) = buffer.next_frame()? {
            return Ok(frame);
        }
        match stream.read(&mut bytes).await? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            read => buffer.push(&bytes[..read]),
        }
    }
}

async fn read_frames(
    mut reader: impl AsyncRead + Unpin,
    mut buffer: FrameBuffer,
    node: usize,
    events: &mpsc::Sender<Event>,
) {
    let mut bytes = vec![0; 64 << 10];
    loop {
        loop {
            match buffer.next_frame() {
                Ok(Some(frame)) => {
                    if events.send(Event::Frame(node, Box::new(frame))).await.is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
        match reader.read(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(read) => buffer.push(&bytes[..read]),
        }
    }
}

/// Ends when the other side takes nothing more; otherwise lasts as long as the connection is read.
async fn write_frames(mut writer: impl AsyncWrite + Unpin, mut frames: mpsc::Receiver<Bytes>) {
    while let Some(frame) = frames.recv().await {
        if writer.write_all(&frame).await.is_err() {
            // What it sent before is still to be read.
            break;
        }
    }
    std::future::pending::<()>().await;
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
