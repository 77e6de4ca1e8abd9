//! What does srun do for the PMI of its tasks?
//!
//! Tasks of one node exchange what they put among themselves; at a fence each node sends what its
//! tasks put, and gets the union of what all nodes sent.

use penstock_proto::v1::step_frame::PmiMessage;

/// Most bytes of one fence, over all nodes.
const MAX_FENCE_BYTES: usize = 8 << 20;

/// The fence that the nodes of a step meet at.
#[derive(Debug, Default)]
pub(crate) struct Fence {
    /// What each node sent for the fence that is forming.
    sent: Vec<Option<PmiMessage>>,
}

impl Fence {
    /// Of so many nodes.
    pub(crate) fn of(nodes: usize) -> Self {
        Self { sent: vec![None; nodes] }
    }

    /// Takes a node's part; returns what each node is to be sent, once all parts are there.
    pub(crate) fn take(&mut self, node: usize, message: PmiMessage) -> Vec<(usize, PmiMessage)> {
        let Some(place) = self.sent.get_mut(node) else { return Vec::new() };
        *place = Some(message);
        let bytes: usize = self.sent.iter().flatten().map(|part| part.body.len()).sum();
        if self.sent.iter().any(Option::is_none) || bytes > MAX_FENCE_BYTES {
            return Vec::new();
        }
        let parts: Vec<PmiMessage> = self.sent.iter_mut().filter_map(Option::take).collect();
        let kind = parts.first().map_or(0, |part| part.kind);
        let body: Vec<u8> = parts.iter().flat_map(|part| part.body.iter().copied()).collect();
        let union = PmiMessage { kind, body: body.into() };
        (0..self.sent.len()).map(|node| (node, union.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &str) -> PmiMessage {
        PmiMessage { kind: 1, body: text.as_bytes().to_vec().into() }
    }

    #[test]
    fn a_fence_opens_when_all_nodes_have_come() {
        let mut fence = Fence::of(2);
        for _ in 0..2 {
            assert!(fence.take(1, part("b")).is_empty());
            assert!(fence.take(7, part("x")).is_empty(), "no node of the step");
            assert_eq!(fence.take(0, part("a")), [(0, part("ab")), (1, part("ab"))]);
        }
    }
}
