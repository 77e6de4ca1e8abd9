//! How do the tasks of an MPI program find each other?
//!
//! Through a server in the shepherd, to which each task has a socket (`PMI_FD`). It speaks PMI-2 and
//! PMI-1 (see `wire`). Tasks put keys and values; at a fence, what the tasks of this node put goes to
//! srun, which puts together what all nodes sent ([`penstock_proto::pmi`]). A step on one node needs no
//! srun for that. Spawning and names are refused.
//!
//! Nothing here waits or reads the clock; a task that talks nonsense loses its socket.

mod mapping;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use bytes::Bytes;
use penstock_proto::pmi::{MAX_PART_BYTES, decode, encode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::facts::Facts;
use wire::{Request, Version};

/// Longest key and value; those of MPICH are larger than PMI-2's own (64 and 1024).
const MAX_KEY: usize = 1_024;
const MAX_VALUE: usize = 64 << 10;
/// Most of what all tasks of a step may put together, bytes.
const MAX_STORE: usize = 256 << 20;
/// Answers that wait for a task which does not read them.
const MAX_ANSWERS: usize = 1 << 20;

/// What a request led to, beyond an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Happened {
    /// All tasks of this node are at a fence: to be sent to srun.
    Fence(Bytes),
    /// A task ends the step.
    Abort { rank: u32, code: u8, message: String },
}

/// One task.
#[derive(Debug)]
struct Client {
    rank: u32,
    socket: Option<OwnedFd>,
    version: Version,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Waits at a fence; with what tells threads apart, if it uses it.
    at_fence: Option<Option<String>>,
    /// Waits for a value of this node; key, and what tells threads apart.
    wants: Vec<(String, Option<String>)>,
}

/// The server of a node's part of a step.
#[derive(Debug)]
pub(super) struct Server {
    name: String,
    size: u32,
    /// There are other nodes.
    far: bool,
    clients: Vec<Client>,
    store: BTreeMap<String, String>,
    stored: usize,
    /// Put since the last fence.
    put: BTreeMap<String, String>,
    of_node: BTreeMap<String, String>,
    /// This node's part was sent, and the answer is not here.
    asked: bool,
}

impl Server {
    pub(super) fn new(facts: &Facts) -> Self {
        let counts = &facts.launch.step_tasks;
        let index = usize::try_from(facts.node_index).unwrap_or(usize::MAX);
        let mut store = BTreeMap::new();
        if let Some(mapping) = mapping::mapping(counts, &facts.tasks, index) {
            store.insert("PMI_process_mapping".to_owned(), mapping);
        }
        Self {
            name: facts.step_id(),
            size: facts.task_count(),
            far: facts.launch.step_nodes.len() > 1,
            clients: Vec::new(),
            store,
            stored: 0,
            put: BTreeMap::new(),
            of_node: BTreeMap::new(),
            asked: false,
        }
    }

    /// Makes the socket of the next task: its end of it.
    pub(super) fn add(&mut self, rank: u32) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        self.clients.push(Client {
            rank,
            socket: Some(ours),
            version: Version::One,
            input: Vec::new(),
            output: Vec::new(),
            at_fence: None,
            wants: Vec::new(),
        });
        Ok(theirs)
    }

    /// Variables by which a task finds its end, which has the number `fd`.
    pub(super) fn variables(&self, rank: u32, fd: i32) -> Vec<(String, String)> {
        let pair = |name: &str, value: String| (name.to_owned(), value);
        vec![
            pair("PMI_FD", fd.to_string()),
            pair("PMI_RANK", rank.to_string()),
            pair("PMI_SIZE", self.size.to_string()),
        ]
    }

    /// Sockets to wait for; true: also to write.
    pub(super) fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        self.clients
            .iter()
            .filter_map(|client| Some((client.socket.as_ref()?.as_fd(), !client.output.is_empty())))
    }

    /// Takes what the tasks said, and answers.
    pub(super) fn work(&mut self) -> Vec<Happened> {
        let mut happened = Vec::new();
        for at in 0..self.clients.len() {
            let open = self.clients[at].receive();
            while let Some(request) = self.clients[at].next() {
                happened.extend(self.serve(at, &request));
            }
            if !open || self.clients[at].output.len() > MAX_ANSWERS {
                self.clients[at].leave();
            }
        }
        happened.extend(self.look_at_fence());
        self.clients.iter_mut().for_each(Client::flush);
        happened
    }

    /// srun's answer to a fence: what the tasks of all nodes put.
    ///
    /// # Errors
    /// When it is broken, or too large: the program cannot go on.
    pub(super) fn answer_fence(&mut self, body: Bytes) -> io::Result<()> {
        if self.asked {
            self.asked = false;
            self.open_fence(decode(body)?)?;
            self.clients.iter_mut().for_each(Client::flush);
        }
        Ok(())
    }

    fn serve(&mut self, at: usize, request: &Request) -> Option<Happened> {
        let rank = self.clients[at].rank;
        match request.command() {
            "init" => self.init(at, request),
            "abort" => {
                let code = request.get("exitcode").and_then(|code| code.parse().ok()).unwrap_or(1);
                let message = request.get("msg").or_else(|| request.get("error_msg")).unwrap_or("");
                return Some(Happened::Abort { rank, code, message: message.to_owned() });
            }
            "kvs-fence" | "barrier_in" => {
                let thread = request.get("thrid").map(str::to_owned);
                self.clients[at].at_fence = Some(thread);
            }
            "kvs-put" | "put" => self.take_pair(at, request),
            "kvs-get" | "get" => self.give(at, request),
            "info-getnodeattr" => self.give_of_node(at, request),
            "info-putnodeattr" => self.put_of_node(at, request),
            _ => self.small_talk(at, request),
        }
        None
    }

    fn init(&mut self, at: usize, request: &Request) {
        let two = request.get("pmi_version").is_some_and(|version| version.trim() == "2");
        let (version, sub) = if two { ("2", "0") } else { ("1", "1") };
        let answer = [
            ("cmd", "response_to_init"),
            ("pmi_version", version),
            ("pmi_subversion", sub),
            ("rc", "0"),
        ];
        // The answer is a line in both.
        self.clients[at].output.extend(wire::answer(Version::One, &answer));
        if two {
            self.clients[at].version = Version::Two;
        }
    }

    fn take_pair(&mut self, at: usize, request: &Request) {
        let one = self.clients[at].version == Version::One;
        let command = if one { "put_result" } else { "kvs-put-response" };
        let pair = request.get("key").zip(request.get("value"));
        let fits = |(key, value): &(&str, &str)| {
            key.len() <= MAX_KEY
                && value.len() <= MAX_VALUE
                && self.stored + key.len() + value.len() <= MAX_STORE
                && self.put_bytes() + key.len() + value.len() + 8 <= MAX_PART_BYTES
        };
        match pair.filter(fits) {
            Some((key, value)) => {
                self.put.insert(key.to_owned(), value.to_owned());
                self.clients[at].answer(request, command, &[("rc", "0"), ("msg", "success")]);
            }
            None => {
                let why = [("rc", "1"), ("msg", "too_large"), ("errmsg", "too large or too many")];
                self.clients[at].answer(request, command, &why);
            }
        }
    }

    fn put_bytes(&self) -> usize {
        self.put.iter().map(|(key, value)| key.len() + value.len() + 8).sum()
    }

    /// Values that were put since the last fence are known on this node only.
    fn give(&mut self, at: usize, request: &Request) {
        let key = request.get("key").unwrap_or_default();
        let value = self.store.get(key).or_else(|| self.put.get(key)).cloned();
        let client = &mut self.clients[at];
        match (client.version, value) {
            (Version::One, Some(value)) => {
                let found = [("rc", "0"), ("msg", "success"), ("value", value.as_str())];
                client.answer(request, "get_result", &found);
            }
            (Version::One, None) => {
                let missing = format!("key_{key}_not_found");
                let none = [("rc", "-1"), ("msg", missing.as_str()), ("value", "unknown")];
                client.answer(request, "get_result", &none);
            }
            (Version::Two, Some(value)) => {
                let found = [("rc", "0"), ("found", "TRUE"), ("value", value.as_str())];
                client.answer(request, "kvs-get-response", &found);
            }
            (Version::Two, None) => {
                client.answer(request, "kvs-get-response", &[("rc", "0"), ("found", "FALSE")]);
            }
        }
    }

    fn give_of_node(&mut self, at: usize, request: &Request) {
        let key = request.get("key").unwrap_or_default();
        let waits = request.get("wait").is_some_and(|word| word.eq_ignore_ascii_case("true"));
        match self.of_node.get(key) {
            Some(value) => {
                let found = [("rc", "0"), ("found", "TRUE"), ("value", value.as_str())];
                self.clients[at].answer(request, "info-getnodeattr-response", &found);
            }
            None if waits => {
                let thread = request.get("thrid").map(str::to_owned);
                self.clients[at].wants.push((key.to_owned(), thread));
            }
            None => {
                let none = [("rc", "0"), ("found", "FALSE")];
                self.clients[at].answer(request, "info-getnodeattr-response", &none);
            }
        }
    }

    fn put_of_node(&mut self, at: usize, request: &Request) {
        let pair = request.get("key").zip(request.get("value"));
        let size = |(key, value): &(&str, &str)| key.len() + value.len();
        let fits = |pair: &(&str, &str)| self.stored + size(pair) <= MAX_STORE;
        let Some((key, value)) = pair.filter(fits) else {
            let why = [("rc", "1"), ("errmsg", "too large or too many")];
            return self.clients[at].answer(request, "info-putnodeattr-response", &why);
        };
        self.stored += size(&(key, value));
        self.of_node.insert(key.to_owned(), value.to_owned());
        self.clients[at].answer(request, "info-putnodeattr-response", &[("rc", "0")]);
        for client in &mut self.clients {
            let wants = std::mem::take(&mut client.wants);
            for (wanted, thread) in wants {
                if wanted == key {
                    let found = [("rc", "0"), ("found", "TRUE"), ("value", value)];
                    client.say("info-getnodeattr-response", thread.as_deref(), &found);
                } else {
                    client.wants.push((wanted, thread));
                }
            }
        }
    }

    /// What needs no state.
    fn small_talk(&mut self, at: usize, request: &Request) {
        let (name, size) = (self.name.clone(), self.size.to_string());
        let rank = self.clients[at].rank.to_string();
        let job_attribute = |key: &str| match key {
            "universeSize" => Some(size.clone()),
            "hasNameServ" => Some("FALSE".to_owned()),
            key => self.store.get(key).filter(|_| key == "PMI_process_mapping").cloned(),
        };
        let attribute = job_attribute(request.get("key").unwrap_or_default());
        let (command, pairs): (&str, Vec<(&str, &str)>) = match request.command() {
            "fullinit" => (
                "fullinit-response",
                vec![
                    ("rc", "0"),
                    ("pmi-version", "2"),
                    ("pmi-subversion", "0"),
                    ("rank", &rank),
                    ("size", &size),
                    ("appnum", "0"),
                    ("debugged", "FALSE"),
                    ("pmiverbose", "FALSE"),
                ],
            ),
            "job-getid" => ("job-getid-response", vec![("rc", "0"), ("jobid", &name)]),
            "info-getjobattr" => (
                "info-getjobattr-response",
                match &attribute {
                    Some(value) => vec![("rc", "0"), ("found", "TRUE"), ("value", value)],
                    None => vec![("rc", "0"), ("found", "FALSE")],
                },
            ),
            "finalize" if self.clients[at].version == Version::Two => {
                ("finalize-response", vec![("rc", "0")])
            }
            "finalize" => ("finalize_ack", vec![("rc", "0")]),
            "get_maxes" => (
                "maxes",
                vec![
                    ("rc", "0"),
                    ("kvsname_max", "256"),
                    ("keylen_max", "256"),
                    ("vallen_max", "1024"),
                ],
            ),
            "get_universe_size" => ("universe_size", vec![("rc", "0"), ("size", &size)]),
            "get_appnum" => ("appnum", vec![("rc", "0"), ("appnum", "0")]),
            "get_my_kvsname" => ("my_kvsname", vec![("rc", "0"), ("kvsname", &name)]),
            "getbyidx" => ("getbyidx_results", vec![("rc", "-1"), ("reason", "no_more_keyvals")]),
            other => return self.refuse(at, request, other),
        };
        self.clients[at].answer(request, command, &pairs);
    }

    /// Spawning, names, and whatever else there may be.
    fn refuse(&mut self, at: usize, request: &Request, command: &str) {
        let one = self.clients[at].version == Version::One;
        let answer = match command {
            "spawn" if one => "spawn_result".to_owned(),
            "publish_name" => "publish_result".to_owned(),
            "lookup_name" => "lookup_result".to_owned(),
            "unpublish_name" => "unpublish_result".to_owned(),
            other => format!("{other}-response"),
        };
        let why =
            [("rc", "1"), ("msg", "not_supported"), ("errmsg", "not supported by this server")];
        self.clients[at].answer(request, &answer, &why);
    }

    /// Whether all tasks that are there are at a fence; those that ended are not waited for.
    fn look_at_fence(&mut self) -> Option<Happened> {
        let mut there = self.clients.iter().filter(|client| client.socket.is_some()).peekable();
        let all = there.peek().is_some() && there.all(|client| client.at_fence.is_some());
        if !all || self.asked {
            return None;
        }
        if self.far {
            self.asked = true;
            let pairs = self.put.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            return Some(Happened::Fence(encode(pairs)));
        }
        let pairs = std::mem::take(&mut self.put).into_iter().collect();
        match self.open_fence(pairs) {
            Ok(()) => None,
            Err(error) => {
                let rank = self.clients.first().map_or(0, |client| client.rank);
                Some(Happened::Abort { rank, code: 1, message: error.to_string() })
            }
        }
    }

    fn open_fence(&mut self, pairs: Vec<(String, String)>) -> io::Result<()> {
        self.put.clear();
        for (key, value) in pairs {
            self.stored += key.len() + value.len();
            self.store.insert(key, value);
        }
        if self.stored > MAX_STORE {
            return Err(io::Error::other(format!("more than {MAX_STORE} bytes were put")));
        }
        for client in &mut self.clients {
            if let Some(thread) = client.at_fence.take() {
                let command = match client.version {
                    Version::One => "barrier_out",
                    Version::Two => "kvs-fence-response",
                };
                client.say(command, thread.as_deref(), &[("rc", "0")]);
            }
        }
        Ok(())
    }
}

impl Client {
    /// Reads what is there; false at the end.
    fn receive(&mut self) -> bool {
        let Some(socket) = &self.socket else { return true };
        let mut buffer = [0; 4096];
        loop {
            match rustix::net::recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return false,
                Ok((length, _)) => {
                    self.input.extend_from_slice(&buffer[..length]);
                    if self.input.len() > MAX_ANSWERS {
                        return true;
                    }
                }
                Err(Errno::AGAIN) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    fn next(&mut self) -> Option<Request> {
        match wire::take(&mut self.input, self.version) {
            Ok(request) => request,
            Err(wire::Nonsense) => {
                self.leave();
                None
            }
        }
    }

    fn leave(&mut self) {
        self.socket = None;
        (self.at_fence, self.output) = (None, Vec::new());
        self.input.clear();
        self.wants.clear();
    }

    fn answer(&mut self, request: &Request, command: &str, pairs: &[(&str, &str)]) {
        self.say(command, request.get("thrid"), pairs);
    }

    fn say(&mut self, command: &str, thread: Option<&str>, pairs: &[(&str, &str)]) {
        let mut all = vec![("cmd", command)];
        all.extend(thread.map(|thread| ("thrid", thread)));
        all.extend_from_slice(pairs);
        self.output.extend(wire::answer(self.version, &all));
    }

    fn flush(&mut self) {
        let Some(socket) = &self.socket else { return };
        while !self.output.is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(socket, &self.output, flags) {
                Ok(sent) => {
                    self.output.drain(..sent);
                }
                Err(Errno::INTR) => {}
                // Its end is met when it is read.
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests;
