//! How does a step go on whose nodes cannot reach this host?
//!
//! The controller carries what they say. Each of its connections becomes one end of a pipe in this
//! process; at the other end is whoever serves connections ([`Door`]), so that a shepherd has to prove
//! who it is, as over a connection of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use penstock_proto::relay::{Flow, RELAY_PIECE_BYTES, RELAY_WINDOW_BYTES};
use penstock_proto::v1::RelayFrame;
use tokio::io::{
    AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, duplex, split,
};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use super::listener::Door;
use crate::connect::StepsRpc;

/// Messages that wait to be sent.
const OUTGOING: usize = 64;
/// Pause before a stream that broke is opened again.
const PAUSE: Duration = Duration::from_millis(500);

/// Serves relayed connections of a step, as job and number, until it is dropped.
pub(crate) async fn serve(rpc: StepsRpc, step: (u32, u32), door: Door) {
    let mut tasks = JoinSet::new();
    loop {
        carry(rpc.clone(), step, &door, &mut tasks).await;
        tokio::time::sleep(PAUSE).await;
    }
}

/// One relayed connection.
struct Connection {
    channel: u64,
    flow: Arc<Shared>,
    /// What came, for the pipe; within the window.
    data: mpsc::UnboundedSender<Bytes>,
}

/// What both directions of a connection look at.
struct Shared {
    flow: Mutex<Flow>,
    /// There may be room again.
    room: Notify,
}

impl Shared {
    fn with<T>(&self, look: impl FnOnce(&mut Flow) -> T) -> T {
        look(&mut self.flow.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Until the stream ends.
async fn carry(mut rpc: StepsRpc, step: (u32, u32), door: &Door, tasks: &mut JoinSet<()>) {
    let (sender, outgoing) = mpsc::channel(OUTGOING);
    let (job_id, number) = step;
    let about = RelayFrame { job_id, step: number, ..RelayFrame::default() };
    if sender.send(about.clone()).await.is_err() {
        return;
    }
    let Ok(reply) = rpc.relay_step(ReceiverStream::new(outgoing)).await else { return };
    let mut incoming = reply.into_inner();
    let mut connections: BTreeMap<String, Connection> = BTreeMap::new();
    while let Ok(Some(frame)) = incoming.message().await {
        while tasks.try_join_next().is_some() {}
        let known = connections.get(&frame.node);
        if known.is_none_or(|connection| connection.channel != frame.channel) {
            let about = RelayFrame { node: frame.node.clone(), ..about.clone() };
            let connection = Connection::open(&about, frame.channel, door, &sender, tasks);
            connections.insert(frame.node.clone(), connection);
        }
        let over = connections.get(&frame.node).is_none_or(|connection| !connection.take(&frame));
        if over || frame.end {
            connections.remove(&frame.node);
            let (node, channel) = (frame.node, frame.channel);
            let end = RelayFrame { node, channel, end: true, ..about.clone() };
            if !frame.end && sender.send(end).await.is_err() {
                return;
            }
        }
    }
}

impl Connection {
    fn open(
        about: &RelayFrame,
        channel: u64,
        door: &Door,
        sender: &mpsc::Sender<RelayFrame>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (near, far) = duplex(RELAY_WINDOW_BYTES);
        let (reader, writer) = split(near);
        let flow = Flow::new(channel, door.nodes());
        let flow = Arc::new(Shared { flow: Mutex::new(flow), room: Notify::new() });
        let (data, waiting) = mpsc::unbounded_channel();
        let to = Outgoing { about: about.clone(), sender: sender.clone(), shared: flow.clone() };
        tasks.spawn(door.clone().serve(far));
        // The end of either closes the pipe; what came before an end is handed on first.
        tasks.spawn(async move {
            tokio::select! {
                () = hand_on(writer, waiting, to.clone()) => {}
                () = fetch(reader, to.clone()) => {}
            }
        });
        Self { channel, flow, data }
    }

    /// Takes a message in; false if the connection is of no use.
    fn take(&self, frame: &RelayFrame) -> bool {
        let Ok(data) = self.flow.with(|flow| flow.receive(frame)) else { return false };
        self.flow.room.notify_one();
        data.is_empty() || self.data.send(data).is_ok()
    }
}

/// The way to the node.
#[derive(Clone)]
struct Outgoing {
    about: RelayFrame,
    sender: mpsc::Sender<RelayFrame>,
    shared: Arc<Shared>,
}

impl Outgoing {
    async fn send(&self, frame: RelayFrame) -> bool {
        let RelayFrame { job_id, step, ref node, .. } = self.about;
        let frame = RelayFrame { job_id, step, node: node.clone(), ..frame };
        self.sender.send(frame).await.is_ok()
    }
}

/// From the node to the pipe.
async fn hand_on(
    mut writer: WriteHalf<DuplexStream>,
    mut waiting: mpsc::UnboundedReceiver<Bytes>,
    to: Outgoing,
) {
    while let Some(data) = waiting.recv().await {
        if writer.write_all(&data).await.is_err() {
            return;
        }
        let answer = to.shared.with(|flow| flow.took(data.len()));
        if let Some(answer) = answer
            && !to.send(answer).await
        {
            return;
        }
    }
}

/// From the pipe to the node.
async fn fetch(mut reader: ReadHalf<DuplexStream>, to: Outgoing) {
    let mut buffer = vec![0; RELAY_PIECE_BYTES];
    loop {
        let room = to.shared.with(|flow| flow.room());
        if room == 0 {
            to.shared.room.notified().await;
            continue;
        }
        let read = reader.read(&mut buffer[..room]).await.unwrap_or(0);
        let data = Bytes::copy_from_slice(&buffer[..read]);
        let mut frame = to.shared.with(|flow| flow.piece(data));
        frame.end = read == 0;
        if !to.send(frame).await || read == 0 {
            return;
        }
    }
}
