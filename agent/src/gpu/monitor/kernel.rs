//! Which faults does the kernel's log tell of?
//!
//! NVIDIA's driver writes a line for each XID. The log still speaks when NVML hangs, and where its event
//! set misses one; what both tell within a few seconds is told once.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::time::Duration;

use penstock_proto::v1;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

use crate::sys::wall_clock;

/// Where the kernel's log is read.
pub(super) const KERNEL_LOG: &str = "/dev/kmsg";
/// The same XID of a GPU within this time, from the other source, is the same event.
const SAME: Duration = Duration::from_secs(5);
/// Events that are remembered for that.
const MAX_RECENT: usize = 256;
/// Lines that may wait for the monitor.
const QUEUE: usize = 256;
/// Largest record of the kernel's log.
const MAX_RECORD: usize = 8_192;

/// An XID as the kernel's log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Domain, bus and device.
    pci: (u32, u32, u32),
    gi: Option<u32>,
    xid: u32,
    text: String,
}

/// Reads `NVRM: Xid (PCI:0000:3b:00 GPU-I:05): 94, pid=123, name=x, ...`; `None`: another line.
pub(super) fn parse(line: &str) -> Option<Line> {
    let (_, rest) = line.split_once("NVRM: Xid (")?;
    let (place, rest) = rest.split_once("): ")?;
    let mut words = place.split(' ');
    let pci = address(words.next()?.strip_prefix("PCI:")?)?;
    let gi = words.find_map(|word| word.strip_prefix("GPU-I:")).and_then(|gi| gi.parse().ok());
    let (xid, text) = rest.split_once(',').unwrap_or((rest, ""));
    Some(Line { pci, gi, xid: xid.trim().parse().ok()?, text: text.trim().to_owned() })
}

/// `0000:3b:00`, with a function behind it or not.
fn address(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split(':');
    let mut next = || {
        let part = parts.next()?;
        u32::from_str_radix(part.split('.').next()?, 16).ok()
    };
    Some((next()?, next()?, next()?))
}

impl Line {
    /// The event, if the GPU is one of these.
    pub(super) fn event(self, gpus: &[v1::Gpu]) -> Option<v1::GpuEvent> {
        let gpu = gpus.iter().find(|gpu| address(&gpu.pci) == Some(self.pci))?;
        Some(v1::GpuEvent {
            gpu: gpu.index,
            gi: self.gi,
            xid: self.xid,
            text: self.text,
            time_ms: wall_clock().as_millis(),
        })
    }
}

/// Who told of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Teller {
    Nvml,
    Kernel,
}

/// What was told lately.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<(Instant, Teller, u32, u32)>);

impl Recent {
    /// Whether an event is news; one that the other source told already is taken off, so that two
    /// events are two from each of them.
    pub(super) fn is_new(&mut self, teller: Teller, event: &v1::GpuEvent, now: Instant) -> bool {
        self.0.retain(|(at, ..)| now.duration_since(*at) < SAME);
        let other = |(_, told, gpu, xid): &(Instant, Teller, u32, u32)| {
            *told != teller && (*gpu, *xid) == (event.gpu, event.xid)
        };
        if event.xid == 0 {
            return true;
        }
        if let Some(at) = self.0.iter().position(other) {
            self.0.remove(at);
            return false;
        }
        if self.0.len() >= MAX_RECENT {
            self.0.pop_front();
        }
        self.0.push_back((now, teller, event.gpu, event.xid));
        true
    }
}

/// Reads the log at `path` from now on, in a thread of its own; nothing comes where it can't be read.
pub(super) fn follow(path: &Path) -> mpsc::Receiver<Line> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let path = path.to_owned();
    let thread = std::thread::Builder::new().name("kernel-log".into());
    let started = thread.spawn(move || {
        if let Err(error) = read(&path, &sender) {
            let path = path.display();
            warn!(%path, %error, "faults of GPUs that only the kernel's log tells are not seen");
        }
    });
    if let Err(error) = started {
        warn!(%error, "no thread can be made for the kernel's log");
    }
    receiver
}

fn read(path: &Path, sender: &mpsc::Sender<Line>) -> std::io::Result<()> {
    let mut file = OpenOptions::new().read(true).open(path)?;
    // What happened before is known, or was told by NVML's own state.
    if file.metadata()?.file_type().is_char_device() {
        file.seek(SeekFrom::End(0))?;
    }
    let mut buffer = vec![0; MAX_RECORD];
    let mut rest = String::new();
    loop {
        let length = match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            // Records were overwritten before they were read.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => continue,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        rest.push_str(&String::from_utf8_lossy(&buffer[..length]));
        while let Some(end) = rest.find('\n') {
            let line: String = rest.drain(..=end).collect();
            if let Some(line) = parse(&line)
                && sender.blocking_send(line).is_err()
            {
                return Ok(());
            }
        }
        if rest.len() > MAX_RECORD {
            rest.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(index: u32, pci: &str) -> v1::Gpu {
        v1::Gpu { index, pci: pci.to_owned(), ..v1::Gpu::default() }
    }

    #[test]
    fn lines_of_the_driver_are_read() {
        let gpus = [gpu(0, "0000:18:00.0"), gpu(3, "00000000:3B:00.0")];
        for (line, expect) in [
            (
                "4,980,12345,-;NVRM: Xid (PCI:0000:3b:00): 79, pid=4242, name=python, GPU has fallen",
                Some((3, None, 79, "pid=4242, name=python, GPU has fallen")),
            ),
            (
                "NVRM: Xid (PCI:0000:3b:00 GPU-I:05): 94, pid='<unknown>', name=<unknown>, Contained",
                Some((3, Some(5), 94, "pid='<unknown>', name=<unknown>, Contained")),
            ),
            ("NVRM: Xid (PCI:0000:18:00 GPU-I:01 GPU-CI:02): 13, x", Some((0, Some(1), 13, "x"))),
            ("NVRM: Xid (PCI:0000:18:00): 119", Some((0, None, 119, ""))),
            ("NVRM: Xid (PCI:0000:ff:00): 79, no such GPU", None),
            ("nvidia-nvswitch2: SXid (PCI:0000:c3:00.0): 12028, Non-fatal, Link 32", None),
            ("NVRM: Xid (PCI:0000:18:00): many, x", None),
            ("usb 1-1: new device", None),
        ] {
            let event = parse(line).and_then(|line| line.event(&gpus));
            let found = event.map(|event| (event.gpu, event.gi, event.xid, event.text));
            let expect = expect.map(|(gpu, gi, xid, text)| (gpu, gi, xid, text.to_owned()));
            assert_eq!(found, expect, "{line}");
        }
    }

    #[test]
    fn what_both_tell_is_told_once() {
        let mut recent = Recent::default();
        let now = Instant::now();
        let event = |gpu, xid| v1::GpuEvent { gpu, xid, ..v1::GpuEvent::default() };
        assert!(recent.is_new(Teller::Nvml, &event(3, 79), now));
        assert!(!recent.is_new(Teller::Kernel, &event(3, 79), now + Duration::from_secs(1)));
        // A second one of each is a second event.
        assert!(recent.is_new(Teller::Kernel, &event(3, 79), now + Duration::from_secs(2)));
        assert!(!recent.is_new(Teller::Nvml, &event(3, 79), now + Duration::from_secs(3)));
        assert!(recent.is_new(Teller::Nvml, &event(2, 79), now));
        assert!(recent.is_new(Teller::Nvml, &event(2, 79), now), "one source may tell of two");
        assert!(recent.is_new(Teller::Kernel, &event(2, 79), now + Duration::from_secs(9)));
    }
}
