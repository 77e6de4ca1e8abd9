//! How does a shepherd hear its agent and its job, and they it?
//!
//! Two packet sockets: [`Link`] to the agent, over which orders come and news go, and one to the
//! job's process until the script runs, over which [`Report`]s come. One packet is one message.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use prost::Message as _;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use super::{Ends, LaunchError};
use crate::launch::record::{CONTROL, FromShepherd, MAX_PACKET, News, Order, ToShepherd, cut};

/// Connections that may wait to be taken; there is one agent.
const BACKLOG: i32 = 4;

/// Longest name of an attempt's folder: the system's longest path.
const MAX_FOLDER: usize = 4096;

/// Most notices that are kept for an agent that comes later.
const MAX_NOTICES: usize = 4;

/// The agent's end.
#[derive(Debug)]
pub(super) struct Link {
    agent: Option<OwnedFd>,
    listener: Option<OwnedFd>,
    /// What an agent is told first.
    known: Vec<News>,
}

impl Link {
    pub(super) fn new(agent: OwnedFd) -> Self {
        Self { agent: Some(agent), listener: None, known: Vec::new() }
    }

    /// The descriptors to wait for.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [&self.agent, &self.listener].into_iter().flatten().map(AsFd::as_fd)
    }

    /// Takes what has come: orders of the agent, its end, or a new agent. Never blocks.
    pub(super) fn receive(&mut self) -> Vec<Order> {
        let mut orders = Vec::new();
        while let Some(agent) = &self.agent {
            let mut buffer = [0; MAX_PACKET];
            match rustix::net::recv(agent, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => self.wait_for_another(),
                Ok((length, _)) => {
                    // An order of a newer agent that is not understood is none.
                    let packet = ToShepherd::decode(&buffer[..length]).unwrap_or_default();
                    orders.extend(packet.order);
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => break,
                Err(_) => self.wait_for_another(),
            }
        }
        self.accept();
        orders
    }

    /// Tells the agent, if there is one; what a later agent must know is kept for it.
    /// True if it was taken.
    pub(super) fn tell(&mut self, news: News) -> bool {
        let sent = self.agent.as_ref().is_some_and(|agent| send(agent, &news));
        let notices = self.known.iter().filter(|old| matches!(old, News::Notice(_))).count();
        match news {
            News::Started(_) => self.known.push(news),
            News::Notice(_) if notices < MAX_NOTICES => self.known.push(news),
            News::Notice(_) | News::Ended(_) | News::Usage(_) | News::Relay(_) => {}
        }
        sent
    }

    /// Closes everything: this process is no shepherd any more.
    pub(super) fn close(&mut self) {
        self.agent = None;
        self.listener = None;
    }

    fn wait_for_another(&mut self) {
        self.agent = None;
        if self.listener.is_none() {
            // If no socket can be made, the next agent finds the record of the end all the same.
            self.listener = listen().ok();
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        if let Ok(agent) = rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
            self.known.iter().for_each(|news| {
                send(&agent, news);
            });
            self.agent = Some(agent);
        }
    }
}

fn listen() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let _absent = fs::remove_file(CONTROL);
    rustix::net::bind(&socket, &SocketAddrUnix::new(CONTROL)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn send(agent: &OwnedFd, news: &News) -> bool {
    let packet = FromShepherd { news: Some(news.clone()) }.encode_to_vec();
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    packet.len() <= MAX_PACKET && rustix::net::send(agent, &packet, flags).is_ok()
}

/// What the job's process says before the script runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// The output is open; the job's stderr comes with it.
    Output,
    /// Something cannot be done here; it goes on without.
    Notice(String),
    /// The script does not run.
    Failed(LaunchError),
}

/// Two connected ends for reports.
pub(super) fn pair() -> io::Result<Ends> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None)?)
}

/// Sends a report, with a file for [`Report::Output`]. A shepherd that is gone hears nothing.
pub(super) fn tell(to: &OwnedFd, report: &Report, file: Option<&fs::File>) {
    let (kind, text) = match report {
        Report::Output => (b'O', ""),
        Report::Notice(text) => (b'W', text.as_str()),
        Report::Failed(error) if error.node_fault => (b'N', error.text.as_str()),
        Report::Failed(error) => (b'J', error.text.as_str()),
    };
    let mut packet = vec![kind];
    packet.extend_from_slice(cut(text).as_bytes());
    let _gone = send_with(to, &packet, file.map(AsFd::as_fd));
}

/// The next report, with the file that came with it, or `None` at the end: the script runs, or
/// the process is gone.
///
/// # Errors
/// `WouldBlock` if there is nothing yet.
pub(super) fn hear(from: &OwnedFd) -> io::Result<Option<(Report, Option<OwnedFd>)>> {
    let Some((packet, file)) = receive_with(from, RecvFlags::DONTWAIT)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&packet[1..]).into_owned();
    let report = match packet[0] {
        b'O' => Report::Output,
        b'W' => Report::Notice(text),
        b'J' => Report::Failed(LaunchError::job(text)),
        _ => Report::Failed(LaunchError::node(text)),
    };
    Ok(Some((report, file)))
}

/// Asks the process that forks shepherds for one: its folder, and its end of a socket.
///
/// # Errors
/// When that process is gone, or the folder's name longer than [`MAX_FOLDER`].
pub(in crate::launch) fn order(to: &OwnedFd, folder: &[u8], end: BorrowedFd<'_>) -> io::Result<()> {
    if folder.len() > MAX_FOLDER {
        return Err(io::Error::from(io::ErrorKind::InvalidFilename));
    }
    send_with(to, folder, Some(end))
}

/// Waits for the next folder; `None` when the agent is gone.
pub(super) fn next_order(from: &OwnedFd) -> io::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
    receive_with(from, RecvFlags::empty())
}

/// Sends one packet, with a descriptor. Waits while the other side has too many to read.
fn send_with(to: &OwnedFd, packet: &[u8], end: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if let Some(fd) = &end {
        ancillary.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(fd)));
    }
    let parts = [IoSlice::new(packet)];
    rustix::net::sendmsg(to, &parts, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one packet that is not empty, and its descriptor; `None` at the end.
fn receive_with(
    from: &OwnedFd,
    flags: RecvFlags,
) -> io::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
    let mut buffer = vec![0_u8; MAX_FOLDER];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let length = rustix::net::recvmsg(from, &mut parts, &mut ancillary, flags)?.bytes;
    let end = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut ends) => ends.next(),
        _ => None,
    });
    buffer.truncate(length);
    Ok((length > 0).then_some((buffer, end)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;
    use crate::launch::record::MAX_TEXT;

    #[test]
    fn reports_and_their_file_arrive() {
        let (mine, theirs) = pair().unwrap();
        assert_eq!(hear(&mine).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let mut file = tempfile::tempfile().unwrap();
        tell(&theirs, &Report::Notice("no".repeat(MAX_TEXT)), None);
        tell(&theirs, &Report::Output, Some(&file));
        tell(&theirs, &Report::Failed(LaunchError::job("no such folder")), None);
        drop(theirs);
        let (notice, none) = hear(&mine).unwrap().unwrap();
        assert!(none.is_none());
        assert_eq!(notice, Report::Notice("no".repeat(MAX_TEXT / 2)));
        let (report, passed) = hear(&mine).unwrap().unwrap();
        assert_eq!(report, Report::Output);
        fs::File::from(passed.unwrap()).write_all(b"same file").unwrap();
        let mut text = String::new();
        io::Seek::rewind(&mut file).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "same file");
        let failed = Report::Failed(LaunchError::job("no such folder"));
        assert_eq!(hear(&mine).unwrap().unwrap().0, failed);
        assert!(hear(&mine).unwrap().is_none());
    }

    #[test]
    fn orders_come_one_by_one_and_nonsense_is_none() {
        let (mine, theirs) = pair().unwrap();
        let mut link = Link::new(mine);
        let order = Order::Suspend(penstock_proto::v1::Suspend {
            job_id: 1,
            attempt: 0,
            suspend: true,
            step: None,
        });
        let packet = ToShepherd { order: Some(order.clone()) }.encode_to_vec();
        rustix::net::send(&theirs, &packet, SendFlags::empty()).unwrap();
        rustix::net::send(&theirs, b"\xff\xff\xff", SendFlags::empty()).unwrap();
        assert_eq!(link.receive(), [order]);
        assert!(link.tell(News::Started(5)));
        assert!(link.receive().is_empty());
    }
}
