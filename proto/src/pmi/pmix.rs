//! What do the PMIx servers of a step's nodes tell each other, and how is it written down?
//!
//! Each node that has ranks in a fence sends srun its part ([`PMIX_FENCE`], [`FencePart`]); when the
//! parts of all nodes that it names have come, srun sends each of them the data of all
//! ([`PMIX_FENCE_ANSWER`], [`FenceUnion`]). Fences of other ranks may form meanwhile: the key, which is
//! the same on all nodes, tells them apart. A [`PMIX_LETTER`] goes through srun from one node to
//! another ([`Letter`]); srun puts the sender in the place of the receiver and reads no more of it.

use std::io;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// Kind of the message with a node's part of a fence.
pub const PMIX_FENCE: u32 = 4;
/// Kind of srun's answer to it.
pub const PMIX_FENCE_ANSWER: u32 = 5;
/// Kind of a message to another node.
pub const PMIX_LETTER: u32 = 6;

/// One node's part of a fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FencePart {
    /// Which fence it is.
    pub key: Bytes,
    /// Places in the step of all nodes that take part.
    pub nodes: Vec<u32>,
    /// What the tasks of this node give.
    pub data: Bytes,
}

/// What the tasks of all nodes gave at a fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FenceUnion {
    /// Which fence it is.
    pub key: Bytes,
    /// The nodes' data one behind the other.
    pub data: Bytes,
}

/// A message from node to node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Place in the step of the other node: on the way to srun the receiver, from there the sender.
    pub node: u32,
    /// What it says.
    pub body: Bytes,
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a message of PMIx is broken off")
}

fn put_block(bytes: &mut BytesMut, block: &[u8]) {
    bytes.put_u32(u32::try_from(block.len()).unwrap_or(u32::MAX));
    bytes.extend_from_slice(block);
}

fn take_u32(bytes: &mut Bytes) -> io::Result<u32> {
    bytes.try_get_u32().map_err(|_| broken())
}

fn take_block(bytes: &mut Bytes) -> io::Result<Bytes> {
    let length = usize::try_from(take_u32(bytes)?).map_err(|_| broken())?;
    if length > bytes.len() { Err(broken()) } else { Ok(bytes.split_to(length)) }
}

impl FencePart {
    /// As it goes over the connection.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        put_block(&mut bytes, &self.key);
        bytes.put_u32(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.iter().for_each(|&node| bytes.put_u32(node));
        bytes.extend_from_slice(&self.data);
        bytes.freeze()
    }

    /// Inverse of [`FencePart::encode`].
    ///
    /// # Errors
    /// If it is broken off.
    pub fn decode(mut bytes: Bytes) -> io::Result<Self> {
        let key = take_block(&mut bytes)?;
        let count = usize::try_from(take_u32(&mut bytes)?).map_err(|_| broken())?;
        if count > bytes.len() / 4 {
            return Err(broken());
        }
        let nodes = (0..count).map(|_| take_u32(&mut bytes)).collect::<io::Result<_>>()?;
        Ok(Self { key, nodes, data: bytes })
    }
}

impl FenceUnion {
    /// As it goes over the connection.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        put_block(&mut bytes, &self.key);
        bytes.extend_from_slice(&self.data);
        bytes.freeze()
    }

    /// Inverse of [`FenceUnion::encode`].
    ///
    /// # Errors
    /// If it is broken off.
    pub fn decode(mut bytes: Bytes) -> io::Result<Self> {
        let key = take_block(&mut bytes)?;
        Ok(Self { key, data: bytes })
    }
}

impl Letter {
    /// As it goes over the connection.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u32(self.node);
        bytes.extend_from_slice(&self.body);
        bytes.freeze()
    }

    /// Inverse of [`Letter::encode`].
    ///
    /// # Errors
    /// If it is broken off.
    pub fn decode(mut bytes: Bytes) -> io::Result<Self> {
        let node = take_u32(&mut bytes)?;
        Ok(Self { node, body: bytes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_come_back_as_they_were(
            key in prop::collection::vec(any::<u8>(), 0..40),
            nodes in prop::collection::vec(any::<u32>(), 0..9),
            data in prop::collection::vec(any::<u8>(), 0..99),
            node in any::<u32>(),
        ) {
            let (key, data) = (Bytes::from(key), Bytes::from(data));
            let part = FencePart { key: key.clone(), nodes, data: data.clone() };
            prop_assert_eq!(FencePart::decode(part.encode()).unwrap(), part);
            let union = FenceUnion { key, data: data.clone() };
            prop_assert_eq!(FenceUnion::decode(union.encode()).unwrap(), union);
            let letter = Letter { node, body: data };
            prop_assert_eq!(Letter::decode(letter.encode()).unwrap(), letter);
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let bytes = Bytes::from(bytes);
            drop(FencePart::decode(bytes.clone()));
            drop(FenceUnion::decode(bytes.clone()));
            drop(Letter::decode(bytes));
        }
    }

    #[test]
    fn a_count_beyond_what_is_there_is_refused() {
        let bytes = Bytes::from_static(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1]);
        assert!(FencePart::decode(bytes).is_err());
        assert!(Letter::decode(Bytes::from_static(&[0, 0, 0])).is_err());
    }
}
