//! How does a connection go through the controller, where there is no way from node to srun?
//!
//! As pieces in [`RelayFrame`]s. Each says how many bytes came before it, so that a lost piece is
//! noticed and ends the connection; and how many of the other side were taken, so that no more than a
//! window is under way. What the two sides say to each other is what they say over a connection of
//! their own, proofs and all; the controller looks at none of it.

use bytes::Bytes;

use crate::v1::RelayFrame;

/// Bytes of a step that may be under way in one direction.
pub const RELAY_WINDOW_BYTES: usize = 64 << 10;
/// Bytes of a step that the controller carries in a second, in each direction.
pub const RELAY_BYTES_PER_SEC: usize = 256 << 10;
/// Largest piece.
pub const RELAY_PIECE_BYTES: usize = 8 << 10;
/// Smallest share of the window that one of many nodes has.
const MIN_WINDOW_BYTES: usize = 1 << 10;

/// A step of `nodes` nodes shares its window among them: what each of them may have under way.
#[must_use]
pub fn window_of(nodes: usize) -> usize {
    (RELAY_WINDOW_BYTES / nodes.max(1)).max(MIN_WINDOW_BYTES)
}

/// One end of a relayed connection: what is under way.
#[derive(Debug, Clone)]
pub struct Flow {
    channel: u64,
    window: u64,
    sent: u64,
    acknowledged: u64,
    received: u64,
    taken: u64,
    told: u64,
}

/// A piece was lost, or more came than was asked for: the connection is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

impl Flow {
    /// Of the connection with this number, on a step of so many nodes.
    #[must_use]
    pub fn new(channel: u64, nodes: usize) -> Self {
        let window = window_of(nodes) as u64;
        Self { channel, window, sent: 0, acknowledged: 0, received: 0, taken: 0, told: 0 }
    }

    /// The number of the connection.
    #[must_use]
    pub const fn channel(&self) -> u64 {
        self.channel
    }

    /// Whether the other side has taken all that was sent.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.acknowledged == self.sent
    }

    /// How many bytes the next piece may have.
    #[must_use]
    pub fn room(&self) -> usize {
        let under_way = self.sent.saturating_sub(self.acknowledged);
        let room = usize::try_from(self.window.saturating_sub(under_way)).unwrap_or(0);
        room.min(RELAY_PIECE_BYTES)
    }

    /// The message with a piece of at most [`Self::room`] bytes; the caller says whom it is about.
    #[must_use]
    pub fn piece(&mut self, data: Bytes) -> RelayFrame {
        let offset = self.sent;
        self.sent = self.sent.saturating_add(data.len() as u64);
        self.told = self.taken;
        RelayFrame { data, channel: self.channel, offset, taken: self.taken, ..<_>::default() }
    }

    /// Takes a message of the other side in: the bytes that it brought.
    ///
    /// # Errors
    /// Where something was lost, or the other side does not keep to the window.
    pub fn receive(&mut self, frame: &RelayFrame) -> Result<Bytes, Broken> {
        if frame.taken > self.sent {
            return Err(Broken);
        }
        // An answer that was overtaken says nothing new.
        self.acknowledged = self.acknowledged.max(frame.taken);
        if frame.data.is_empty() {
            return Ok(Bytes::new());
        }
        let received = self.received.saturating_add(frame.data.len() as u64);
        if frame.offset != self.received || received.saturating_sub(self.told) > self.window {
            return Err(Broken);
        }
        self.received = received;
        Ok(frame.data.clone())
    }

    /// Bytes that came were handed on. A message without data that says so, once it is worth one.
    #[must_use]
    pub fn took(&mut self, bytes: usize) -> Option<RelayFrame> {
        self.taken = self.taken.saturating_add(bytes as u64).min(self.received);
        let untold = self.taken.saturating_sub(self.told);
        let worth = untold >= self.window / 4 || (untold > 0 && self.taken == self.received);
        worth.then(|| self.piece(Bytes::new()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_more_than_the_window_is_under_way() {
        let (mut near, mut far) = (Flow::new(1, 1), Flow::new(1, 1));
        let mut frames = Vec::new();
        while near.room() > 0 {
            frames.push(near.piece(vec![0; near.room()].into()));
        }
        let total: usize = frames.iter().map(|frame| frame.data.len()).sum();
        assert_eq!(total, RELAY_WINDOW_BYTES);
        for frame in &frames {
            far.receive(frame).unwrap();
        }
        let more = RelayFrame { offset: total as u64, data: vec![0].into(), ..<_>::default() };
        assert_eq!(far.receive(&more), Err(Broken), "beyond the window");
        let answer = far.took(total).expect("worth a message");
        near.receive(&answer).unwrap();
        assert_eq!(near.room(), RELAY_PIECE_BYTES);
    }

    #[test]
    fn many_nodes_share_the_window() {
        assert_eq!([1, 2, 64, 10_000].map(window_of), [65_536, 32_768, 1_024, 1_024]);
    }

    #[test]
    fn a_lost_or_repeated_piece_is_noticed() {
        let (mut near, mut far) = (Flow::new(1, 1), Flow::new(1, 1));
        let first = near.piece("one".into());
        let second = near.piece("two".into());
        assert_eq!(far.clone().receive(&second), Err(Broken));
        far.receive(&first).unwrap();
        assert_eq!(far.clone().receive(&first), Err(Broken));
        assert_eq!(far.receive(&second).unwrap(), "two");
        let boast = RelayFrame { taken: 7, ..RelayFrame::default() };
        assert_eq!(near.receive(&boast), Err(Broken), "more than was sent");
    }

    proptest! {
        #[test]
        fn everything_arrives_in_order(pieces in prop::collection::vec(1_usize..20_000, 1..40)) {
            let (mut near, mut far) = (Flow::new(1, 3), Flow::new(1, 3));
            let total: usize = pieces.iter().sum();
            let (mut sent, mut came) = (0, 0);
            for piece in pieces {
                let mut left = piece;
                while left > 0 {
                    let size = near.room().min(left);
                    prop_assert!(size > 0);
                    let frame = near.piece(vec![0; size].into());
                    sent += size;
                    left -= size;
                    let got = far.receive(&frame).unwrap().len();
                    came += got;
                    if let Some(answer) = far.took(got) {
                        near.receive(&answer).unwrap();
                    }
                }
            }
            prop_assert_eq!((sent, came), (total, total));
        }
    }
}
