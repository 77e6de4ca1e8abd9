//! What keeps a step going from its first connection to its last word?
//!
//! One loop on one thread: connections, the controller's word, signals, input and time go into the
//! [`Session`], and what it says is done.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use penstock_proto::relay::RELAY_BYTES_PER_SEC;
use penstock_proto::step_io::encode_frame;
use penstock_proto::v1;
use penstock_proto::v1::step_frame::{Frame, TaskSignal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::listener::{Door, Event};
use super::relay;
use super::session::{Act, Session, To};
use super::signals::Signals;
use super::sinks::{Sinks, Trouble};
use super::terminal;
use crate::allocation::Holder;
use crate::connect::{Client, Patience, request_id};
use crate::output::note;
use crate::pmi::{Fence, Met};

/// How long output that nobody takes is waited for once all is over and a signal came.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Everything that a running step is connected to.
pub(crate) struct Drive<'a> {
    pub(crate) program: &'static str,
    pub(crate) client: &'a Client,
    pub(crate) session: Session,
    pub(crate) shepherds: mpsc::Receiver<Event>,
    /// Where connections come in that the controller carries.
    pub(crate) door: Door,
    pub(crate) is_relayed: bool,
    pub(crate) news: mpsc::Receiver<v1::StepEvent>,
    pub(crate) signals: &'a mut Signals,
    /// Absent: nothing is read.
    pub(crate) input: Option<mpsc::Receiver<Bytes>>,
    pub(crate) sinks: Sinks,
    pub(crate) fence: Fence,
    /// Calls whose answers nobody waits for.
    pub(crate) errands: JoinSet<()>,
    /// The terminal is raw: lines need a carriage return.
    pub(crate) raw: bool,
    /// The job that the step is in, where it is this process's own.
    pub(crate) holder: Option<&'a mut Holder>,
    /// The job and the number of the step.
    pub(crate) step: (u32, u32),
}

/// What came first.
enum Came {
    Shepherd(Event),
    News(Box<v1::StepEvent>),
    Job(v1::allocation_event::Kind),
    Signal(i32),
    Input(Bytes),
    Wrote(Result<(), Trouble>),
    Time,
}

impl Drive<'_> {
    /// Goes on until the step is over; returns its exit status.
    pub(crate) async fn run(mut self) -> i32 {
        let begun = Instant::now();
        let now_ms = || u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut links = BTreeMap::new();
        while !self.session.is_over() {
            let came = self.next(begun).await;
            self.take(came, now_ms(), &mut links);
            self.session.on_tick(now_ms());
            self.carry_out(&links);
        }
        // What tasks said stands before what is said of them.
        let mut written = self.write_rest().await;
        let status = self.session.finish();
        self.carry_out(&links);
        written &= self.write_rest().await;
        if written || status != 0 { status } else { 1 }
    }

    async fn next(&mut self, begun: Instant) -> Came {
        let tick = self.session.next_tick_ms().map(Duration::from_millis);
        let until = tick.map(|at| tokio::time::Instant::from_std(begun + at));
        let wants_input = self.input.is_some() && self.session.wants_input();
        tokio::select! {
            signal = self.signals.next() => Came::Signal(signal),
            Some(event) = self.shepherds.recv(), if !self.sinks.is_full() => Came::Shepherd(event),
            result = self.sinks.write_some(), if self.sinks.is_waiting() => Came::Wrote(result),
            Some(event) = self.news.recv() => Came::News(Box::new(event)),
            event = of_the_job(self.holder.as_deref_mut()) => Came::Job(event.kind()),
            piece = next_piece(self.input.as_mut()), if wants_input => Came::Input(piece),
            () = wait_until(until) => Came::Time,
        }
    }

    fn take(&mut self, came: Came, now_ms: u64, links: &mut BTreeMap<usize, mpsc::Sender<Bytes>>) {
        if matches!(&came, Came::News(event) if event.relay_wanted) {
            return self.begin_relay();
        }
        let session = &mut self.session;
        match came {
            Came::Shepherd(Event::Connected(node, link)) => {
                links.insert(node, link);
                session.on_connected(node);
            }
            Came::Shepherd(Event::Closed(node, link)) => {
                if links.get(&node).is_some_and(|newest| newest.same_channel(&link)) {
                    links.remove(&node);
                    session.on_closed(node);
                }
            }
            Came::Shepherd(Event::Frame(node, frame)) => match *frame {
                Frame::Pmi(message) => match self.fence.take(node, message) {
                    Met::NotYet => {}
                    Met::All(answer) => send(links, To::All, Frame::Pmi(answer)),
                    Met::Some(nodes, answer) => nodes
                        .into_iter()
                        .for_each(|node| send(links, To::Node(node), Frame::Pmi(answer.clone()))),
                    Met::Abort(text) => session.on_mpi_abort(&text, now_ms),
                },
                frame => session.on_frame(node, frame, now_ms),
            },
            Came::News(event) => session.on_step_event(&event, now_ms),
            Came::Job(kind) => session.on_job_event(kind, now_ms),
            Came::Signal(libc::SIGWINCH) => {
                if let Some((rows, columns)) = terminal::window() {
                    session.on_window(rows, columns);
                }
            }
            Came::Signal(signal) => session.on_signal(signal, now_ms),
            Came::Input(piece) => session.on_input(&piece),
            Came::Wrote(Err(Trouble::ReaderGone)) => session.on_reader_gone(),
            Came::Wrote(Err(Trouble::Failed(text))) => session.on_write_error(&text, now_ms),
            Came::Wrote(Ok(())) | Came::Time => {}
        }
    }

    fn carry_out(&mut self, links: &BTreeMap<usize, mpsc::Sender<Bytes>>) {
        for act in self.session.take_acts() {
            match act {
                Act::Write { stderr, data } => self.sinks.push(stderr, data),
                Act::Say(text) => self.tell(&format!("{}: {text}", self.program)),
                Act::Error(text) => self.tell(&format!("{}: error: {text}", self.program)),
                Act::Line(text) => self.tell(&text),
                Act::Signal(to, signal) => {
                    send(links, to, Frame::Signal(TaskSignal { signal, task: None }));
                }
                Act::Input(node, input) => send(links, To::Node(node), Frame::Input(input)),
                Act::Window(size) => send(links, To::All, Frame::Window(size)),
                Act::EndStep => self.end_step(),
            }
        }
    }

    fn tell(&self, line: &str) {
        if self.raw { note(&format!("{line}\r")) } else { note(line) }
    }

    /// Nodes cannot reach this host.
    fn begin_relay(&mut self) {
        if std::mem::replace(&mut self.is_relayed, true) {
            return;
        }
        self.tell(&format!(
            "{}: nodes cannot reach this host: the controller relays what tasks read and write, at \
             most {} KiB a second",
            self.program,
            RELAY_BYTES_PER_SEC >> 10
        ));
        let (rpc, door) = (self.client.steps(), self.door.clone());
        self.errands.spawn(relay::serve(rpc, self.step, door));
    }

    /// Asks the controller; nobody waits for the answer, since the shepherds' word counts.
    fn end_step(&mut self) {
        let (job, step) = self.step;
        let request = v1::SignalStepsRequest {
            request_id: request_id(),
            selectors: vec![format!("{job}.{step}")],
            signal: 0,
        };
        let mut rpc = self.client.steps();
        let asked = async move { rpc.signal_steps(request).await.is_ok() };
        self.errands.spawn(async move {
            tokio::time::timeout(Patience::CHANGE.deadline, asked).await.ok();
        });
    }

    /// Everything was said; what waits is written, unless the user has no patience. False: some of
    /// it could not be.
    async fn write_rest(&mut self) -> bool {
        let mut hurry: Option<tokio::time::Instant> = None;
        let mut well = true;
        while self.sinks.is_waiting() {
            tokio::select! {
                _ = self.signals.next() => {
                    hurry.get_or_insert_with(|| tokio::time::Instant::now() + LAST_WORDS);
                }
                // A stream that fails takes nothing more and holds nothing up.
                wrote = self.sinks.write_some() => {
                    if let Err(Trouble::Failed(text)) = wrote {
                        self.tell(&format!("{}: error: {text}", self.program));
                        well = false;
                    }
                }
                () = wait_until(hurry) => return false,
            }
        }
        well
    }
}

fn send(links: &BTreeMap<usize, mpsc::Sender<Bytes>>, to: To, frame: Frame) {
    let bytes = Bytes::from(encode_frame(frame));
    match to {
        // A queue that is full belongs to a node that takes nothing; the controller ends it.
        To::Node(node) => {
            if let Some(link) = links.get(&node) {
                link.try_send(bytes).ok();
            }
        }
        To::All => links.values().for_each(|link| {
            link.try_send(bytes.clone()).ok();
        }),
    }
}

/// The next piece of input; a reader that ended has said its last.
async fn next_piece(input: Option<&mut mpsc::Receiver<Bytes>>) -> Bytes {
    match input {
        Some(input) => input.recv().await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}

async fn of_the_job(holder: Option<&mut Holder>) -> v1::AllocationEvent {
    match holder {
        Some(holder) => holder.next().await,
        None => std::future::pending().await,
    }
}

async fn wait_until(until: Option<tokio::time::Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}
