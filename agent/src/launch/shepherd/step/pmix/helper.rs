//! What does the process do in which libpmix serves a node's tasks?
//!
//! It belongs to the user, within the step's group, so that nothing of what tasks send is read with
//! other rights than theirs. It speaks with the shepherd in frames over one socket, whose end is its
//! own end. libpmix's threads and the socket's reader put what happens into one queue; one thread
//! takes it from there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use penstock_proto::pmi::{
    ABORT, FencePart, FenceUnion, Letter, PMIX_FENCE, PMIX_FENCE_ANSWER, PMIX_LETTER, abort_body,
    encode,
};
use penstock_proto::step_io::{read_frame, write_frame};
use penstock_proto::v1::step_frame::{Frame, PmiMessage};
use sha2::{Digest as _, Sha256};

use super::plan::Plan;
use super::{DIR, FAILED, READY};
use crate::sys::pmix::{Answer, Call, ERROR, EVERY_RANK, Library, NOT_FOUND, Server, WELL};

/// What a letter is about.
const ASKS: u8 = 0;
const ANSWERS: u8 = 1;

/// What comes to the one thread that serves.
enum Event {
    Call(Call),
    Message(PmiMessage),
    /// The shepherd wants no more.
    Over,
}

/// The state between calls.
struct Helper {
    plan: Plan,
    server: Server,
    socket: File,
    /// Who waits at each fence.
    fences: BTreeMap<Bytes, VecDeque<Answer>>,
    /// Who waits for what a task elsewhere has put.
    asked: BTreeMap<u32, Answer>,
    /// Which node wants what a task of this one has put, and by which number it asked.
    wanted: BTreeMap<usize, (u32, u32)>,
    next: u32,
}

/// Serves until the shepherd closes the socket. Call it as the user, in a process that has one thread.
pub(super) fn run(plan: Plan, socket: OwnedFd) {
    let mut socket = File::from(socket);
    let dir = match make_dir(&plan.step) {
        Ok(dir) => dir,
        Err(error) => {
            return fail(&mut socket, &format!("no folder can be made in /tmp: {error}"));
        }
    };
    match begin(plan, &dir.display().to_string(), &mut socket) {
        Ok((mut helper, events)) => helper.serve(&events),
        Err(text) => fail(&mut socket, &text),
    }
    // The shepherd removes it as well, where this process was killed.
    let _gone = std::fs::remove_dir_all(dir);
}

fn make_dir(step: &str) -> io::Result<PathBuf> {
    Ok(nix::unistd::mkdtemp(format!("/tmp/penstock-pmix-{step}-XXXXXX").as_str())?)
}

fn fail(socket: &mut File, text: &str) {
    let body = Bytes::copy_from_slice(text.as_bytes());
    // A shepherd that is gone needs no reason.
    let _gone = write_frame(socket, Frame::Pmi(PmiMessage { kind: FAILED, body }));
}

fn begin(plan: Plan, dir: &str, socket: &mut File) -> Result<(Helper, Receiver<Event>), String> {
    let library = Library::load()
        .map_err(|error| format!("libpmix cannot be loaded, and --mpi=pmix needs it: {error}"))?;
    check_version(&plan.kind, &library.version())?;
    let (events, receiver) = channel();
    let calls = events.clone();
    let take = Box::new(move |call| calls.send(Event::Call(call)).is_ok());
    let server = library.serve(&plan.of_server(dir), take)?;
    server.register_nspace(&plan.nspace, plan.own().len(), &plan.of_step(dir))?;
    for &rank in plan.own() {
        server.register_client(&plan.nspace, rank, plan.owner)?;
    }
    let first = plan.own().first().copied().unwrap_or(0);
    let variables = server.variables(&plan.nspace, first)?;
    let pairs = variables.iter().filter_map(|variable| variable.split_once('='));
    let body = encode(pairs.chain([(DIR, dir)]));
    let reader = socket.try_clone().map_err(|error| error.to_string())?;
    std::thread::Builder::new()
        .name("shepherd".to_owned())
        .spawn(move || listen(reader, &events))
        .map_err(|error| format!("no thread can be made: {error}"))?;
    let ready = Frame::Pmi(PmiMessage { kind: READY, body });
    write_frame(socket, ready).map_err(|error| error.to_string())?;
    let socket = socket.try_clone().map_err(|error| error.to_string())?;
    let helper = Helper {
        plan,
        server,
        socket,
        fences: BTreeMap::new(),
        asked: BTreeMap::new(),
        wanted: BTreeMap::new(),
        next: 0,
    };
    Ok((helper, receiver))
}

/// `pmix` takes any version, `pmix_v4` the fourth.
fn check_version(kind: &str, version: &str) -> Result<(), String> {
    let major = version.split('.').next().unwrap_or_default();
    match kind.strip_prefix("pmix_v") {
        Some(wanted) if wanted != major => {
            Err(format!("--mpi={kind} is not there: libpmix is of version {version}"))
        }
        _ => Ok(()),
    }
}

fn listen(mut socket: File, events: &Sender<Event>) {
    loop {
        let event = match read_frame(&mut socket) {
            Ok(Some(Frame::Pmi(message))) => Event::Message(message),
            Ok(Some(_)) => continue,
            Ok(None) | Err(_) => Event::Over,
        };
        let over = matches!(event, Event::Over);
        if events.send(event).is_err() || over {
            return;
        }
    }
}

impl Helper {
    fn serve(&mut self, events: &Receiver<Event>) {
        while let Ok(event) = events.recv() {
            let told = match event {
                Event::Call(call) => self.on_call(call),
                Event::Message(message) => self.on_message(message),
                Event::Over => return,
            };
            if told.is_err() {
                return;
            }
        }
    }

    /// To srun.
    fn send(&mut self, kind: u32, body: Bytes) -> io::Result<()> {
        write_frame(&mut self.socket, Frame::Pmi(PmiMessage { kind, body }))
    }

    fn on_call(&mut self, call: Call) -> io::Result<()> {
        match call {
            Call::Fence { procs, data, answer } => self.meet(&procs, data, answer),
            Call::Modex { nspace, rank, answer } => self.fetch(&nspace, rank, answer),
            Call::Found { ticket, status, data } => match self.wanted.remove(&ticket) {
                Some((node, id)) => self.answer(node, id, status, &data),
                None => Ok(()),
            },
            Call::Abort { rank, status, message } => {
                let code = u8::try_from(status & 0xff).unwrap_or(1);
                self.send(ABORT, abort_body(rank, code, &message))
            }
        }
    }

    fn meet(&mut self, procs: &[(String, u32)], data: Vec<u8>, answer: Answer) -> io::Result<()> {
        let Some(nodes) = self.nodes_of(procs) else {
            answer.give(NOT_FOUND, Vec::new());
            return Ok(());
        };
        if nodes.iter().all(|&node| node == self.plan.index) {
            answer.give(WELL, data);
            return Ok(());
        }
        let key = key_of(procs);
        let nodes = nodes.iter().filter_map(|&node| u32::try_from(node).ok()).collect();
        self.fences.entry(key.clone()).or_default().push_back(answer);
        let part = FencePart { key, nodes, data: data.into() };
        self.send(PMIX_FENCE, part.encode())
    }

    /// The nodes of processes; `None` if one is not of this step.
    fn nodes_of(&self, procs: &[(String, u32)]) -> Option<BTreeSet<usize>> {
        let mut nodes = BTreeSet::new();
        for (nspace, rank) in procs {
            if *nspace != self.plan.nspace {
                return None;
            }
            if *rank == EVERY_RANK {
                return Some((0..self.plan.nodes.len()).collect());
            }
            nodes.insert(self.plan.node_of(*rank)?);
        }
        Some(nodes)
    }

    fn fetch(&mut self, nspace: &str, rank: u32, answer: Answer) -> io::Result<()> {
        let node = self.plan.node_of(rank).filter(|_| nspace == self.plan.nspace);
        let Some(node) = node.and_then(|node| u32::try_from(node).ok()) else {
            answer.give(NOT_FOUND, Vec::new());
            return Ok(());
        };
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        self.asked.insert(id, answer);
        let mut body = BytesMut::new();
        body.put_u8(ASKS);
        body.put_u32(id);
        body.put_u32(rank);
        self.send(PMIX_LETTER, Letter { node, body: body.freeze() }.encode())
    }

    fn answer(&mut self, node: u32, id: u32, status: i32, data: &[u8]) -> io::Result<()> {
        let mut body = BytesMut::new();
        body.put_u8(ANSWERS);
        body.put_u32(id);
        body.put_i32(status);
        body.extend_from_slice(data);
        self.send(PMIX_LETTER, Letter { node, body: body.freeze() }.encode())
    }

    fn on_message(&mut self, message: PmiMessage) -> io::Result<()> {
        match message.kind {
            PMIX_FENCE_ANSWER => {
                let FenceUnion { key, data } = FenceUnion::decode(message.body)?;
                let waiting = self.fences.get_mut(&key);
                if let Some(answer) = waiting.and_then(VecDeque::pop_front) {
                    answer.give(WELL, data.to_vec());
                }
                if self.fences.get(&key).is_some_and(VecDeque::is_empty) {
                    self.fences.remove(&key);
                }
                Ok(())
            }
            PMIX_LETTER => {
                let Letter { node, body } = Letter::decode(message.body)?;
                self.on_letter(node, body)
            }
            _ => Ok(()),
        }
    }

    /// A letter that is not understood is of another version; who asked waits in vain, as for one that
    /// got lost.
    fn on_letter(&mut self, node: u32, mut body: Bytes) -> io::Result<()> {
        let (Ok(what), Ok(id)) = (body.try_get_u8(), body.try_get_u32()) else { return Ok(()) };
        match what {
            ASKS => {
                let Ok(rank) = body.try_get_u32() else { return Ok(()) };
                let ticket = self.ticket();
                self.wanted.insert(ticket, (node, id));
                if let Err(status) = self.server.ask(&self.plan.nspace, rank, ticket) {
                    self.wanted.remove(&ticket);
                    self.answer(node, id, status, &[])?;
                }
            }
            ANSWERS => {
                let status = body.try_get_i32().unwrap_or(ERROR);
                if let Some(answer) = self.asked.remove(&id) {
                    answer.give(status, body.to_vec());
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn ticket(&mut self) -> usize {
        self.next = self.next.wrapping_add(1);
        usize::try_from(self.next).unwrap_or(0)
    }
}

/// The same for the same processes in any order.
fn key_of(procs: &[(String, u32)]) -> Bytes {
    let mut sorted: Vec<_> = procs.iter().collect();
    sorted.sort();
    sorted.dedup();
    let mut hash = Sha256::new();
    for (nspace, rank) in sorted {
        hash.update((nspace.len() as u64).to_be_bytes());
        hash.update(nspace);
        hash.update(rank.to_be_bytes());
    }
    Bytes::copy_from_slice(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_is_named_must_be_there() {
        assert!(check_version("pmix", "4.2.2").is_ok());
        assert!(check_version("pmix_v4", "4.2.2").is_ok());
        let error = check_version("pmix_v3", "4.2.2").unwrap_err();
        assert_eq!(error, "--mpi=pmix_v3 is not there: libpmix is of version 4.2.2");
    }

    #[test]
    fn the_order_of_processes_does_not_matter() {
        let of = |ranks: &[u32]| {
            key_of(&ranks.iter().map(|&rank| ("7.0".to_owned(), rank)).collect::<Vec<_>>())
        };
        assert_eq!(of(&[1, 2, 3]), of(&[3, 1, 2, 1]));
        assert_ne!(of(&[1, 2]), of(&[1, 3]));
    }
}
