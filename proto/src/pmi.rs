//! What do the nodes of a step tell each other at a fence of PMI, and how is it written down?
//!
//! Tasks of MPI programs put keys and values; at a fence, all tasks of the step learn what all have
//! put. Each node's shepherd sends srun what its tasks put since the last fence
//! ([`FENCE`], written by [`encode`]); srun waits for all nodes, puts the bodies one behind the other
//! in any order, and sends that to each of them as its answer, with the same kind or [`FENCE_ANSWER`].
//! Fences follow one another: a node sends the next only after it has the answer to the last. Where
//! two nodes put the same key, which of the values counts is not defined, as in PMI.
//!
//! [`ABORT`] says that a task wants the whole step to end; its body is [`abort_body`]. srun then ends
//! the step.

mod pmix;

use std::io;

use bytes::{Buf as _, Bytes};

pub use pmix::{FencePart, FenceUnion, Letter, PMIX_FENCE, PMIX_FENCE_ANSWER, PMIX_LETTER};

/// Kind of the message by which a node says what its tasks put.
pub const FENCE: u32 = 1;

/// Kind of srun's answer, with what the tasks of all nodes put.
pub const FENCE_ANSWER: u32 = 2;

/// Kind of the message by which a task ends the step.
pub const ABORT: u32 = 3;

/// Most bytes of one node's part of a fence.
pub const MAX_PART_BYTES: usize = 4 << 20;

/// Keys and values one behind the other, each with its length in four bytes before it, big-endian.
#[must_use]
pub fn encode<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Bytes {
    let mut bytes = Vec::new();
    for (key, value) in pairs {
        for text in [key, value] {
            bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes.into()
}

/// Inverse of [`encode`]; of several that were put together, all.
///
/// # Errors
/// If it is broken off, or no text.
pub fn decode(mut bytes: Bytes) -> io::Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    while !bytes.is_empty() {
        pairs.push((text(&mut bytes)?, text(&mut bytes)?));
    }
    Ok(pairs)
}

fn text(bytes: &mut Bytes) -> io::Result<String> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "keys and values are broken off");
    let length = bytes.try_get_u32().map_err(|_| broken())?;
    let length = usize::try_from(length).map_err(|_| broken())?;
    if length > bytes.len() {
        return Err(broken());
    }
    String::from_utf8(bytes.split_to(length).to_vec())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Body of [`ABORT`]: which task, the exit code that it wants, and what it says.
#[must_use]
pub fn abort_body(rank: u32, code: u8, message: &str) -> Bytes {
    encode([
        ("rank", rank.to_string().as_str()),
        ("code", code.to_string().as_str()),
        ("message", message),
    ])
}

/// Inverse of [`abort_body`]; what is missing or broken is 0, or nothing.
#[must_use]
pub fn abort_parts(body: Bytes) -> (u32, u8, String) {
    let pairs = decode(body).unwrap_or_default();
    let find = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    let rank = find("rank").and_then(|value| value.parse().ok()).unwrap_or(0);
    let code = find("code").and_then(|value| value.parse().ok()).unwrap_or(0);
    (rank, code, find("message").cloned().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abort_says_who_and_why() {
        assert_eq!(abort_parts(abort_body(3, 7, "no")), (3, 7, "no".to_owned()));
        assert_eq!(abort_parts(Bytes::from_static(&[1])), (0, 0, String::new()));
    }

    #[test]
    fn parts_can_be_put_together() {
        let (first, second) = (encode([("a", "1"), ("b", "")]), encode([("ä;", "x=y\n")]));
        let both: Bytes = [first, Bytes::new(), second].concat().into();
        let expect = [("a", "1"), ("b", ""), ("ä;", "x=y\n")];
        let expect = expect.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(decode(both).unwrap(), expect);
        assert!(decode(Bytes::new()).unwrap().is_empty());
    }

    #[test]
    fn what_is_broken_off_is_refused() {
        let whole = encode([("key", "value")]);
        for end in 1..whole.len() {
            assert!(decode(whole.slice(..end)).is_err(), "{end}");
        }
        assert!(decode(Bytes::from_static(&[0, 0, 0, 1, 0xff, 0, 0, 0, 0])).is_err());
        assert!(decode(Bytes::from_static(&[0xff; 8])).is_err());
    }
}
