//! What does srun do for the PMI of its tasks?
//!
//! Tasks of one node exchange what they put among themselves; at a fence each node sends what its
//! tasks put, and gets the union of what all nodes sent (see [`penstock_proto::pmi`]).

use penstock_proto::pmi::{ABORT, FENCE, FENCE_ANSWER, MAX_PART_BYTES, decode};
use penstock_proto::v1::step_frame::PmiMessage;

/// The fence that the nodes of a step meet at.
#[derive(Debug, Default)]
pub(crate) struct Fence {
    /// What each node sent for the fence that is forming.
    sent: Vec<Option<PmiMessage>>,
}

/// What a node's message leads to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Met {
    /// Others are still to come.
    NotYet,
    /// All have come; each node is sent this.
    All(PmiMessage),
    /// A task wants the step to end; why, for people.
    Abort(String),
}

impl Fence {
    /// Of so many nodes.
    pub(crate) fn of(nodes: usize) -> Self {
        Self { sent: vec![None; nodes] }
    }

    /// Takes a node's message.
    pub(crate) fn take(&mut self, node: usize, message: PmiMessage) -> Met {
        match message.kind {
            FENCE if message.body.len() > MAX_PART_BYTES => {
                let size = message.body.len();
                Met::Abort(format!("a part of {size} bytes, at most {MAX_PART_BYTES} are taken"))
            }
            FENCE => self.meet(node, message),
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
        let parts: Vec<PmiMessage> = self.sent.iter_mut().filter_map(Option::take).collect();
        let body: Vec<u8> = parts.iter().flat_map(|part| part.body.iter().copied()).collect();
        Met::All(PmiMessage { kind: FENCE_ANSWER, body: body.into() })
    }
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
    fn a_task_may_end_the_step() {
        let message = PmiMessage { kind: ABORT, body: abort_body(3, 7, "no memory\n") };
        let expect = "task 3 ends the step with exit code 7: no memory";
        assert_eq!(Fence::of(2).take(0, message), Met::Abort(expect.to_owned()));
        let large = PmiMessage { kind: FENCE, body: vec![0; MAX_PART_BYTES + 1].into() };
        assert!(matches!(Fence::of(1).take(0, large), Met::Abort(_)));
    }
}
