//! What was answered to a request that may be repeated?

use penstock_vocab::Timestamp;

use crate::command::Reply;

/// A request's id: 16 bytes of the client's making, unique for its uid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u128);

impl RequestId {
    /// The id of the `part`-th command that one call was cut into.
    #[must_use]
    pub fn part(self, part: u32) -> Self {
        Self(self.0.wrapping_add(u128::from(part)))
    }
}

/// An answer, remembered for [`Answer::KEPT_SECS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// When it was given.
    pub at: Timestamp,
    /// What was said.
    pub reply: Reply,
}

impl Answer {
    /// How long an answer is remembered, in seconds.
    pub const KEPT_SECS: u64 = 600;
}
