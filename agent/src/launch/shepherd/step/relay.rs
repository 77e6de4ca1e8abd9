//! How does a shepherd speak with srun where there is no way to it?
//!
//! Through its agent and the controller. The [`Line`] has one end of a pair of sockets instead of a
//! connection and does not know the difference; what is here carries bytes between the other end and
//! the agent, within a window ([`penstock_proto::relay`]).

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use bytes::Bytes;
use penstock_proto::relay::{Flow, RELAY_PIECE_BYTES};
use penstock_proto::v1::RelayFrame;
use penstock_vocab::Millis;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::line::{Broken, Callee, Line};
use super::run::{Stage, Step};
use super::start;
use crate::launch::record::News;
use crate::launch::shepherd::control::Link;

/// Bytes that the sockets hold: what a connection's buffers would.
const BUFFER_BYTES: usize = 64 << 10;
/// How soon an agent that took nothing is asked again.
pub(super) const RETRY: Millis = Millis(50);

/// A connection that goes through the agent.
pub(super) struct Relay {
    near: Option<OwnedFd>,
    flow: Flow,
    /// What came and the line has not taken.
    waiting: VecDeque<Bytes>,
    /// What the agent has not taken.
    unsent: VecDeque<RelayFrame>,
}

impl Relay {
    /// A new one, and the end for the line.
    fn new(nodes: usize) -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (near, far) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        for end in [&near, &far] {
            sockopt::set_socket_send_buffer_size(end, BUFFER_BYTES)?;
        }
        let mut channel = [0; 8];
        io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut channel)?;
        // Never 0, which a message of another kind has.
        let flow = Flow::new(u64::from_ne_bytes(channel) | 1, nodes);
        let (waiting, unsent) = (VecDeque::new(), VecDeque::new());
        Ok((Self { near: Some(near), flow, waiting, unsent }, far))
    }

    /// What to wait for.
    pub(super) fn fd(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let mut flags = PollFlags::empty();
        if self.flow.room() > 0 && self.unsent.is_empty() {
            flags |= PollFlags::IN;
        }
        if !self.waiting.is_empty() {
            flags |= PollFlags::OUT;
        }
        let near = self.near.as_ref().filter(|_| !flags.is_empty());
        near.map(|near| (near.as_fd(), flags))
    }

    /// Whether the agent is to be asked again before long.
    pub(super) fn is_pressed(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// What came from the other side.
    pub(super) fn receive(&mut self, frame: &RelayFrame) {
        if frame.channel != self.flow.channel() || self.near.is_none() {
            return;
        }
        match self.flow.receive(frame) {
            Ok(data) if !data.is_empty() => self.waiting.push_back(data),
            Ok(_) => {}
            // The line sees the end and calls anew.
            Err(_) => self.near = None,
        }
        if frame.end {
            self.write();
            self.near = None;
        }
    }

    /// Goes on as far as that is possible without waiting.
    pub(super) fn work(&mut self, mut tell: impl FnMut(RelayFrame) -> bool) {
        self.write();
        self.read();
        while let Some(frame) = self.unsent.front() {
            if !tell(frame.clone()) {
                return;
            }
            self.unsent.pop_front();
        }
    }

    fn write(&mut self) {
        let Some(near) = &self.near else { return };
        let mut written = 0;
        while let Some(front) = self.waiting.front_mut() {
            match rustix::net::send(near, front, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    written += sent;
                    let _sent = front.split_to(sent);
                    if front.is_empty() {
                        self.waiting.pop_front();
                    }
                }
                Err(Errno::INTR) => {}
                // The line's end is met when it is read.
                Err(_) => break,
            }
        }
        self.unsent.extend(self.flow.took(written).filter(|_| written > 0));
    }

    fn read(&mut self) {
        let Some(near) = &self.near else { return };
        let mut buffer = [0; RELAY_PIECE_BYTES];
        let mut over = false;
        while self.flow.room() > 0 && self.unsent.len() < 2 {
            let room = self.flow.room();
            match rustix::net::recv(near, &mut buffer[..room], RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    over = true;
                    break;
                }
                Ok((length, _)) => {
                    let piece = self.flow.piece(Bytes::copy_from_slice(&buffer[..length]));
                    self.unsent.push_back(piece);
                }
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        if over {
            let end = RelayFrame { end: true, ..self.flow.piece(Bytes::new()) };
            self.unsent.push_back(end);
            self.near = None;
        }
    }
}

impl Step {
    /// Whether srun, which cannot be reached, is to be spoken to through the controller.
    pub(super) fn wants_relay(&self, broken: &Broken) -> bool {
        let calls = matches!(self.stage, Stage::Calling) || self.was_relayed;
        let unreached = !matches!(broken, Broken::Stranger(_)) && !self.srun.is_open();
        calls && unreached && self.relay.is_none()
    }

    /// Begins to; false if that is not possible.
    pub(super) fn call_through_agent(&mut self, now: Millis) -> bool {
        let nodes = self.common.facts.launch.step_nodes.len();
        let Ok((relay, far)) = Relay::new(nodes) else { return false };
        let launch = &self.common.facts.launch;
        let callee = Callee {
            addresses: launch.addresses.clone(),
            port: launch.port,
            secret: launch.secret.clone(),
        };
        let Ok(line) = Line::over(callee, start::hello(&self.common.facts), far, now) else {
            return false;
        };
        self.srun = line;
        self.relay = Some(relay);
        self.was_relayed = true;
        true
    }

    /// Carries what waits.
    pub(super) fn work_relay(&mut self, link: &mut Link) {
        let facts = &self.common.facts;
        let (job_id, step, node) = (facts.job_id, facts.number, &facts.node);
        let attempt = facts.attempt();
        if let Some(relay) = &mut self.relay {
            relay.work(|frame| {
                let node = node.clone();
                link.tell(News::Relay(RelayFrame { job_id, step, attempt, node, ..frame }))
            });
        }
    }
}

/// When [`Step`] is to look again at what the agent did not take.
pub(super) fn patience(relay: Option<&Relay>) -> Option<Millis> {
    relay.filter(|relay| relay.is_pressed()).map(|_| RETRY)
}

/// Whether srun has all that was written for it.
pub(super) fn is_delivered(relay: Option<&Relay>) -> bool {
    let Some((relay, near)) = relay.and_then(|relay| Some((relay, relay.near.as_ref()?))) else {
        return true;
    };
    let read = rustix::io::ioctl_fionread(near).is_ok_and(|bytes| bytes == 0);
    read && relay.unsent.is_empty() && relay.flow.is_settled()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends what `from` has to `to`; the frames.
    fn carry(from: &mut Relay, to: &mut Flow) -> Vec<RelayFrame> {
        let mut frames = Vec::new();
        from.work(|frame| {
            frames.push(frame);
            true
        });
        for frame in &frames {
            let got = to.receive(frame).unwrap().len();
            drop(to.took(got));
        }
        frames
    }

    #[test]
    fn bytes_go_both_ways_and_an_end_is_told() {
        let (mut relay, far) = Relay::new(1).unwrap();
        let mut other = Flow::new(relay.flow.channel(), 1);
        rustix::io::write(&far, b"hello").unwrap();
        let frames = carry(&mut relay, &mut other);
        assert_eq!(frames[0].data, "hello");
        relay.receive(&other.piece("answer".into()));
        carry(&mut relay, &mut other);
        let mut buffer = [0; 16];
        assert_eq!(rustix::io::read(&far, &mut buffer[..]).unwrap(), 6);
        drop(far);
        assert!(carry(&mut relay, &mut other).last().unwrap().end);
    }

    #[test]
    fn an_agent_that_takes_nothing_gets_the_same_later() {
        let (mut relay, far) = Relay::new(1).unwrap();
        rustix::io::write(&far, b"hello").unwrap();
        relay.work(|_| false);
        assert!(relay.is_pressed() && !is_delivered(Some(&relay)));
        let mut frames = Vec::new();
        relay.work(|frame| {
            frames.push(frame.data);
            true
        });
        assert_eq!(frames, ["hello"]);
        assert!(!relay.is_pressed());
    }

    #[test]
    fn what_is_lost_ends_the_connection() {
        let (mut relay, far) = Relay::new(1).unwrap();
        let channel = relay.flow.channel();
        let other = RelayFrame { channel: channel ^ 2, end: true, ..RelayFrame::default() };
        relay.receive(&other);
        assert!(relay.near.is_some(), "of another connection");
        let data = Bytes::from_static(b"x");
        relay.receive(&RelayFrame { channel, offset: 9, data, ..RelayFrame::default() });
        assert_eq!(rustix::io::read(&far, &mut [0; 4][..]).unwrap(), 0);
    }
}
