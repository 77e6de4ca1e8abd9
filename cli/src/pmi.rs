//! What does srun do for the PMI of its tasks?
//!
//! Tasks of one node exchange what they put among themselves; at a fence each node sends what its
//! tasks put, and gets the union of what all nodes sent (see [`penstock_proto::pmi`]). Nodes with PMIx
//! meet at several fences at once, not always all of them, and send each other letters.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use penstock_proto::pmi::{
    ABORT, FENCE, FENCE_ANSWER, FencePart, FenceUnion, Letter, MAX_PART_BYTES, PMIX_FENCE,
    PMIX_FENCE_ANSWER, PMIX_LETTER, decode,
};
use penstock_proto::step_io::MAX_STEP_FRAME_BYTES;
use penstock_proto::v1::step_frame::PmiMessage;

/// Fences of different tasks that may form at once; programs have as many as they make groups at a
/// time.
const MAX_FENCES: usize = 1_024;
/// Most bytes of an answer: with its key it must fit into a frame.
const MAX_ANSWER_BYTES: usize = MAX_STEP_FRAME_BYTES - (64 << 10);

/// The fence that the nodes of a step meet at.
#[derive(Debug, Default)]
pub(crate) struct Fence {
    /// What each node sent for the fence that is forming.
    sent: Vec<Option<PmiMessage>>,
    /// Parts of the fences of PMIx that are forming, by node.
    forming: BTreeMap<Bytes, BTreeMap<usize, Bytes>>,
}

/// What a node's message leads to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Met {
    /// Others are still to come.
    NotYet,
    /// All have come; each node is sent this.
    All(PmiMessage),
    /// These nodes are sent this.
    Some(Vec<usize>, PmiMessage),
    /// A task wants the step to end; why, for people.
    Abort(String),
}

impl Fence {
    /// Of so many nodes.
    pub(crate) fn of(nodes: usize) -> Self {
        Self { sent: vec![None; nodes], forming: BTreeMap::new() }
    }

    /// Takes a node's message.
    pub(crate) fn take(&mut self, node: usize, message: PmiMessage) -> Met {
        match message.kind {
            FENCE | PMIX_FENCE | PMIX_LETTER if message.body.len() > MAX_PART_BYTES => {
                let size = message.body.len();
                Met::Abort(format!("a part of {size} bytes, at most {MAX_PART_BYTES} are taken"))
            }
            FENCE => self.meet(node, message),
            PMIX_FENCE => self.meet_some(node, message.body),
            PMIX_LETTER => self.forward(node, message.body),
            ABORT => Met::Abort(abort_text(&message)),
            // Of a newer version; who waits for an answer will say so.
            _ => Met::NotYet,
        }
    }

    fn meet(&mut self, node: usize, message: PmiMessage) -> Met {
        let Some(place) = self.sent.get_mut(node) else { return Met::NotYet };
        *place = Some(message);
        if self.sent.iter().any(Option::is_none) {
            return Met::NotYet;
        }
        let parts = self.sent.iter_mut().filter_map(Option::take).map(|part| part.body);
        match joined(parts) {
            Ok(body) => Met::All(PmiMessage { kind: FENCE_ANSWER, body }),
            Err(text) => Met::Abort(text),
        }
    }

    /// A node's part of a fence that names those who take part.
    fn meet_some(&mut self, node: usize, body: Bytes) -> Met {
        let count = self.sent.len();
        let Ok(FencePart { key, nodes, data }) = FencePart::decode(body) else {
            return Met::Abort(format!("node {node} sent a broken part of a fence"));
        };
        let nodes: Vec<usize> = nodes.iter().filter_map(|&at| usize::try_from(at).ok()).collect();
        if !nodes.contains(&node) || nodes.iter().any(|&at| at >= count) {
            return Met::Abort(format!("node {node} sent a part of a fence that it is not in"));
        }
        if self.forming.len() >= MAX_FENCES && !self.forming.contains_key(&key) {
            return Met::Abort(format!("more than {MAX_FENCES} fences are waited at"));
        }
        let parts = self.forming.entry(key.clone()).or_default();
        parts.insert(node, data);
        if nodes.iter().any(|at| !parts.contains_key(at)) {
            return Met::NotYet;
        }
        let parts = self.forming.remove(&key).unwrap_or_default();
        let to: Vec<usize> = parts.keys().copied().collect();
        match joined(parts.into_values()) {
            Ok(data) => {
                let body = FenceUnion { key, data }.encode();
                Met::Some(to, PmiMessage { kind: PMIX_FENCE_ANSWER, body })
            }
            Err(text) => Met::Abort(text),
        }
    }

    /// From node to node; one for a node that is none is dropped, as if it had been lost there.
    fn forward(&self, from: usize, body: Bytes) -> Met {
        let Ok(Letter { node, body }) = Letter::decode(body) else { return Met::NotYet };
        let to = usize::try_from(node).ok().filter(|&to| to < self.sent.len());
        let (Some(to), Ok(node)) = (to, u32::try_from(from)) else { return Met::NotYet };
        let body = Letter { node, body }.encode();
        Met::Some(vec![to], PmiMessage { kind: PMIX_LETTER, body })
    }
}

/// All parts one behind the other, where they fit into an answer.
fn joined(parts: impl Iterator<Item = Bytes>) -> Result<Bytes, String> {
    let mut all = BytesMut::new();
    for part in parts {
        all.extend_from_slice(&part);
        if all.len() > MAX_ANSWER_BYTES {
            return Err(format!(
                "the tasks gave more than {MAX_ANSWER_BYTES} bytes at one fence; run fewer of them"
            ));
        }
    }
    Ok(all.freeze())
}

fn abort_text(message: &PmiMessage) -> String {
    let pairs = decode(message.body.clone()).unwrap_or_default();
    let find = |name: &str| {
        pairs.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str())
    };
    let text = find("message").trim();
    let colon = if text.is_empty() { "" } else { ": " };
    format!("task {} ends the step with exit code {}{colon}{text}", find("rank"), find("code"))
}

#[cfg(test)]
mod tests {
    use penstock_proto::pmi::abort_body;

    use super::*;

    fn part(text: &str) -> PmiMessage {
        PmiMessage { kind: FENCE, body: text.as_bytes().to_vec().into() }
    }

    #[test]
    fn a_fence_opens_when_all_nodes_have_come() {
        let mut fence = Fence::of(2);
        for _ in 0..2 {
            assert_eq!(fence.take(1, part("b")), Met::NotYet);
            assert_eq!(fence.take(7, part("x")), Met::NotYet, "no node of the step");
            let union = PmiMessage { kind: FENCE_ANSWER, body: "ab".into() };
            assert_eq!(fence.take(0, part("a")), Met::All(union));
        }
    }

    #[test]
    fn fences_of_some_nodes_form_beside_each_other() {
        let part = |key: &'static str, nodes: &[u32], data: &'static str| PmiMessage {
            kind: PMIX_FENCE,
            body: FencePart { key: key.into(), nodes: nodes.to_vec(), data: data.into() }.encode(),
        };
        let mut fence = Fence::of(3);
        for _ in 0..2 {
            assert_eq!(fence.take(2, part("x", &[0, 2], "c")), Met::NotYet);
            assert_eq!(fence.take(1, part("y", &[1, 2], "b")), Met::NotYet);
            let union = FenceUnion { key: "x".into(), data: "ac".into() }.encode();
            let answer = PmiMessage { kind: PMIX_FENCE_ANSWER, body: union };
            assert_eq!(fence.take(0, part("x", &[0, 2], "a")), Met::Some(vec![0, 2], answer));
            assert!(matches!(fence.take(2, part("y", &[1, 2], "c")), Met::Some(..)));
        }
        assert!(matches!(fence.take(0, part("z", &[1], "")), Met::Abort(_)), "not in it");
        assert!(matches!(fence.take(0, part("z", &[0, 3], "")), Met::Abort(_)), "no node");
        let broken = PmiMessage { kind: PMIX_FENCE, body: Bytes::from_static(&[1]) };
        assert!(matches!(fence.take(0, broken), Met::Abort(_)));
    }

    #[test]
    fn a_letter_comes_with_its_sender() {
        let letter = |node| PmiMessage {
            kind: PMIX_LETTER,
            body: Letter { node, body: "words".into() }.encode(),
        };
        assert_eq!(Fence::of(3).take(1, letter(2)), Met::Some(vec![2], letter(1)));
        assert_eq!(Fence::of(3).take(1, letter(3)), Met::NotYet);
    }

    #[test]
    fn what_does_not_fit_into_an_answer_ends_the_step() {
        let large = Bytes::from(vec![0; MAX_PART_BYTES]);
        assert!(joined(std::iter::repeat_n(large.clone(), 2)).is_ok());
        assert!(joined(std::iter::repeat_n(large, 3)).is_err());
    }

    #[test]
    fn a_task_may_end_the_step() {
        let message = PmiMessage { kind: ABORT, body: abort_body(3, 7, "no memory\n") };
        let expect = "task 3 ends the step with exit code 7: no memory";
        assert_eq!(Fence::of(2).take(0, message), Met::Abort(expect.to_owned()));
        let large = PmiMessage { kind: FENCE, body: vec![0; MAX_PART_BYTES + 1].into() };
        assert!(matches!(Fence::of(1).take(0, large), Met::Abort(_)));
    }
}
