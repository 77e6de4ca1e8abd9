//! Which of srun's addresses answers?
//!
//! srun names all that its host has, best first; the last may be one that means another machine
//! here (`127.0.0.1`). So they are tried in turn, each while those before it have not answered; the
//! first that answers is taken. Nothing here blocks, but for looking up a name that is no address.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use penstock_vocab::Millis;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use rustix::time::Timespec;

/// How long an address has for itself before the next is tried as well.
const HEAD_START: Millis = Millis(100);
/// Pause between two rounds through all addresses.
const PAUSE: Millis = Millis(250);
/// Most addresses that are tried.
const MAX_ADDRESSES: usize = 8;

/// What dialling came to.
#[derive(Debug)]
pub(super) enum Dialled {
    /// Nothing yet.
    Pending,
    /// This one answers.
    Connected(SocketAddr, OwnedFd),
    /// Each address refuses, or none is left: nobody listens.
    Refused(String),
}

/// Attempts to reach one of several addresses.
#[derive(Debug)]
pub(super) struct Dialler {
    addresses: Vec<SocketAddr>,
    waiting: VecDeque<SocketAddr>,
    attempts: Vec<(SocketAddr, OwnedFd)>,
    next: Millis,
    /// Addresses that refused in this round.
    refused: usize,
    last: String,
}

impl Dialler {
    pub(super) fn new(addresses: &[String], port: u32, now: Millis) -> Self {
        let addresses = resolve(addresses, port);
        let waiting = addresses.iter().copied().collect();
        let (attempts, last) = (Vec::new(), String::new());
        Self { addresses, waiting, attempts, next: now, refused: 0, last }
    }

    /// What the last failed attempt came to, for people.
    pub(super) fn last(&self) -> &str {
        &self.last
    }

    /// Tries `address` no more: somebody else is there.
    pub(super) fn leave_out(&mut self, address: SocketAddr) {
        self.addresses.retain(|known| *known != address);
        self.waiting.retain(|known| *known != address);
    }

    /// No address is left that could be tried.
    pub(super) fn is_exhausted(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Sockets that become writable when an attempt ends.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.attempts.iter().map(|(_, socket)| socket.as_fd())
    }

    /// Goes on as far as that is possible without waiting.
    pub(super) fn work(&mut self, now: Millis) -> Dialled {
        loop {
            if let Some(connected) = self.look() {
                return connected;
            }
            if self.attempts.is_empty() && self.waiting.is_empty() {
                if self.refused >= self.addresses.len() {
                    return Dialled::Refused(self.last.clone());
                }
                self.refused = 0;
                self.waiting = self.addresses.iter().copied().collect();
                self.next = now.saturating_add(PAUSE);
            }
            // One that failed makes place for the next at once; but a round begins after a pause.
            let begins_round = self.waiting.len() == self.addresses.len();
            let due = now >= self.next || (self.attempts.is_empty() && !begins_round);
            let Some(address) = self.waiting.front().copied().filter(|_| due) else {
                return Dialled::Pending;
            };
            self.waiting.pop_front();
            self.next = now.saturating_add(HEAD_START);
            match begin(address) {
                Ok(socket) => self.attempts.push((address, socket)),
                Err(error) => self.last = format!("{address}: {error}"),
            }
        }
    }

    /// The first attempt that came to something good.
    fn look(&mut self) -> Option<Dialled> {
        let mut at = 0;
        while let Some((address, socket)) = self.attempts.get(at) {
            match outcome(socket) {
                None => at += 1,
                Some(Ok(())) => {
                    let (address, socket) = self.attempts.swap_remove(at);
                    self.attempts.clear();
                    return Some(Dialled::Connected(address, socket));
                }
                Some(Err(error)) => {
                    self.last = format!("{address}: {}", io::Error::from(error));
                    self.refused += usize::from(error == Errno::CONNREFUSED);
                    self.attempts.remove(at);
                }
            }
        }
        None
    }
}

fn resolve(addresses: &[String], port: u32) -> Vec<SocketAddr> {
    let Ok(port) = u16::try_from(port) else { return Vec::new() };
    let mut found = Vec::new();
    for text in addresses.iter().take(MAX_ADDRESSES) {
        match text.parse::<IpAddr>() {
            Ok(ip) => found.push(SocketAddr::new(ip, port)),
            // A name that cannot be looked up is no way to srun; another address may be.
            Err(_) => found.extend((text.as_str(), port).to_socket_addrs().into_iter().flatten()),
        }
    }
    let mut known = std::collections::BTreeSet::new();
    found.retain(|address| known.insert(*address));
    found.truncate(MAX_ADDRESSES);
    found
}

fn begin(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    match rustix::net::connect(&socket, &address) {
        // Also refused, where a connection to this machine is tried at once: seen as an outcome.
        Ok(()) | Err(Errno::INPROGRESS | Errno::CONNREFUSED) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// How an attempt ended; `None`: it has not.
fn outcome(socket: &OwnedFd) -> Option<Result<(), Errno>> {
    match sockopt::socket_error(socket) {
        Ok(Err(error)) | Err(error) => return Some(Err(error)),
        Ok(Ok(())) => {}
    }
    if rustix::net::getpeername(socket).is_ok() {
        return Some(Ok(()));
    }
    let mut fd = [PollFd::new(socket, PollFlags::OUT)];
    let ended = matches!(poll(&mut fd, Some(&Timespec::default())), Ok(1));
    // Ended, without a peer, and its error was told by `connect`.
    ended.then_some(Err(Errno::CONNREFUSED))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn dial(addresses: &[&str], port: u16) -> Dialled {
        let addresses: Vec<String> = addresses.iter().map(|&text| text.to_owned()).collect();
        let mut dialler = Dialler::new(&addresses, port.into(), Millis(0));
        // On this machine's own addresses every attempt ends at once.
        for now in 0..3 {
            match dialler.work(Millis(now)) {
                Dialled::Pending => {}
                done => return done,
            }
        }
        Dialled::Pending
    }

    #[test]
    fn the_first_that_answers_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for addresses in [&["127.0.0.1"][..], &["127.0.0.2", "127.0.0.3", "127.0.0.1"]] {
            let Dialled::Connected(address, _) = dial(addresses, port) else {
                panic!("not connected")
            };
            assert_eq!(address, listener.local_addr().unwrap());
        }
    }

    #[test]
    fn nobody_listens_where_all_refuse() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let refused = dial(&["127.0.0.1", "127.0.0.2"], port);
        assert!(matches!(refused, Dialled::Refused(text) if text.contains("127.0.0.2")));
        assert!(matches!(dial(&[], port), Dialled::Refused(_)));
        assert!(matches!(dial(&["no such name"], port), Dialled::Refused(_)));
    }

    #[test]
    fn an_address_that_cannot_be_reached_is_tried_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        // One that no route leads to, or that answers nothing, is not one that refuses.
        let addresses = ["240.0.0.1", "127.0.0.1"].map(str::to_owned);
        let mut dialler = Dialler::new(&addresses, port.into(), Millis(0));
        for now in [0, 1, 200, 300, 600, 2_000] {
            assert!(matches!(dialler.work(Millis(now)), Dialled::Pending), "{now}");
        }
    }
}
