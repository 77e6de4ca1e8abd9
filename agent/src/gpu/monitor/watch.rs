//! What is wrong with a GPU for long, though it answers?
//!
//! Hardware that slows itself down, links that are gone, memory errors, and processes on a GPU that
//! nobody was given. Each is told once, when it begins; a passing one is no news.

use std::collections::{BTreeMap, VecDeque};

use penstock_proto::v1;

use crate::gpu::wire::Look;
use crate::sys::wall_clock;

/// Kinds of conditions, in the place of an XID: as `penstock_core` knows them.
pub(super) const THROTTLED: u32 = 10_001;
pub(super) const LINK_DOWN: u32 = 10_002;
pub(super) const UNCORRECTED: u32 = 10_003;

/// Reasons for slowing down that are the hardware's own: slowdown, heat, power brake. A power limit
/// in software is nothing unusual.
const HARDWARE: [(u64, &str); 3] = [(0x8, "slowdown"), (0x40, "heat"), (0x80, "power brake")];
/// Samples that are looked back on: ten minutes of ten seconds each.
const WINDOW: usize = 60;
/// It is told when so many of a hundred of them were slowed down, and over below the other number.
const MUCH: usize = 60;
const LITTLE: usize = 20;
/// A process of nobody is told when it was seen so often in a row: one that ends leaves traces.
const STRANGE: u32 = 3;

/// What was seen of one GPU.
#[derive(Debug, Default)]
struct Seen {
    throttled: VecDeque<u64>,
    slow: bool,
    uncorrected: Option<u64>,
    links: Option<u32>,
    strangers: u32,
}

/// What was seen of all.
#[derive(Debug, Default)]
pub(super) struct Watch(BTreeMap<u32, Seen>);

impl Watch {
    /// Takes a look at a GPU; what is news.
    pub(super) fn look(&mut self, look: &Look) -> Vec<v1::GpuEvent> {
        let seen = self.0.entry(look.gpu).or_default();
        let mut events = Vec::new();
        if let Some(bits) = look.throttle {
            seen.throttled.push_back(bits);
            if seen.throttled.len() > WINDOW {
                seen.throttled.pop_front();
            }
            events.extend(seen.slowdown().map(|text| event(look.gpu, THROTTLED, text)));
        }
        if let Some(errors) = look.uncorrected {
            let more = errors.saturating_sub(seen.uncorrected.unwrap_or(errors));
            seen.uncorrected = Some(errors);
            if more > 0 {
                let text = format!("{more} more uncorrected errors of its memory");
                events.push(event(look.gpu, UNCORRECTED, text));
            }
        }
        events
    }

    /// Compares the links of a GPU with what it had before.
    pub(super) fn links(&mut self, gpu: &v1::Gpu) -> Option<v1::GpuEvent> {
        // One that does not answer has no links to tell of.
        if !gpu.fault.is_empty() {
            return None;
        }
        let seen = self.0.entry(gpu.index).or_default();
        let now: u32 = gpu.links.iter().map(|link| link.nvlinks).sum();
        let before = seen.links.replace(now)?;
        (now < before).then(|| {
            event(gpu.index, LINK_DOWN, format!("NVLinks to its peers: {now}, before {before}"))
        })
    }

    /// Whether a GPU that nobody holds has had a process of somebody for long; its number.
    pub(super) fn stranger(&mut self, look: &Look, held: bool) -> Option<u32> {
        let seen = self.0.entry(look.gpu).or_default();
        let pid = look.pids.first().copied().filter(|_| !held);
        seen.strangers = if pid.is_some() { seen.strangers.saturating_add(1) } else { 0 };
        pid.filter(|_| seen.strangers >= STRANGE)
    }
}

impl Seen {
    /// The sentence when slowing down begins to be lasting.
    fn slowdown(&mut self) -> Option<String> {
        let slow =
            self.throttled.iter().filter(|bits| HARDWARE.iter().any(|(bit, _)| *bits & bit > 0));
        let slow = slow.count();
        let all = self.throttled.len();
        if self.slow {
            self.slow = slow * 100 >= all * LITTLE;
            return None;
        }
        if all < WINDOW || slow * 100 <= all * MUCH {
            return None;
        }
        self.slow = true;
        let bits = self.throttled.iter().fold(0, |sum, bits| sum | bits);
        let why = HARDWARE.iter().filter(|(bit, _)| bits & bit > 0).map(|(_, word)| *word);
        let why: Vec<&str> = why.collect();
        Some(format!("slowed down in {slow} of the last {all} samples ({})", why.join(", ")))
    }
}

fn event(gpu: u32, xid: u32, text: String) -> v1::GpuEvent {
    v1::GpuEvent { gpu, gi: None, xid, text, time_ms: wall_clock().as_millis() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(throttle: u64, uncorrected: u64, pids: &[u32]) -> Look {
        Look {
            gpu: 1,
            throttle: Some(throttle),
            uncorrected: Some(uncorrected),
            pids: pids.to_vec(),
        }
    }

    #[test]
    fn what_is_wrong_for_long_is_told_once() {
        let mut watch = Watch::default();
        let told = |watch: &mut Watch, bits: u64, times: usize| -> Vec<String> {
            let looks = (0..times).flat_map(|_| watch.look(&look(bits, 0, &[])));
            looks.map(|event| event.text).collect()
        };
        // A power limit in software, and a short heat, are nothing.
        assert_eq!(told(&mut watch, 0x4, 60), [""; 0]);
        assert_eq!(told(&mut watch, 0x40, 36), [""; 0]);
        let expect = "slowed down in 37 of the last 60 samples (heat)";
        assert_eq!(told(&mut watch, 0x44, 50), [expect]);
        assert_eq!(told(&mut watch, 0, 60), [""; 0]);
        assert_eq!(told(&mut watch, 0x88, 60).len(), 1, "after it was well for long");
    }

    #[test]
    fn errors_count_from_when_they_were_first_seen() {
        let mut watch = Watch::default();
        let mut told =
            |errors| watch.look(&look(0, errors, &[])).pop().map(|event| (event.xid, event.text));
        assert_eq!(told(7), None);
        assert_eq!(told(7), None);
        let text = "2 more uncorrected errors of its memory".to_owned();
        assert_eq!(told(9), Some((UNCORRECTED, text)));
        // They begin anew with the driver.
        assert_eq!(told(0), None);
    }

    #[test]
    fn links_that_are_gone_are_told_and_a_gpu_that_does_not_answer_has_none() {
        let mut watch = Watch::default();
        let gpu = |nvlinks, fault: &str| v1::Gpu {
            index: 1,
            links: vec![v1::GpuLink { peer: 0, nvlinks, ancestor: 40 }],
            fault: fault.to_owned(),
            ..v1::Gpu::default()
        };
        assert_eq!(watch.links(&gpu(18, "")), None);
        assert_eq!(watch.links(&gpu(0, "lost")), None);
        assert_eq!(watch.links(&gpu(18, "")), None);
        let text = watch.links(&gpu(16, "")).map(|event| event.text);
        assert_eq!(text.as_deref(), Some("NVLinks to its peers: 16, before 18"));
        assert_eq!(watch.links(&gpu(16, "")), None);
    }

    #[test]
    fn a_process_of_nobody_counts_when_it_stays() {
        let mut watch = Watch::default();
        let mut seen = |pids: &[u32], held| watch.stranger(&look(0, 0, pids), held);
        assert_eq!([seen(&[7], true), seen(&[7], true), seen(&[7], true)], [None; 3]);
        assert_eq!(
            [seen(&[7], false), seen(&[7], false), seen(&[7], false)],
            [None, None, Some(7)]
        );
        assert_eq!([seen(&[], false), seen(&[7], false)], [None; 2]);
    }
}
