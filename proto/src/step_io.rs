//! How do srun and a shepherd know each other, and where does a frame end?
//!
//! A frame is its length in four bytes, big-endian, and a [`StepFrame`]. The shepherd says hello with a
//! nonce; srun answers with a nonce of its own and a proof that it knows the step's secret; the
//! shepherd proves the same. A proof is HMAC-SHA256 over who proves it, job, step, node and both
//! nonces, so that none can be used a second time, or by the other side, or for another node.

use std::io::{self, Read, Write};

use bytes::{Buf as _, Bytes, BytesMut};
use hmac::{Hmac, Mac as _};
use prost::Message as _;
use sha2::Sha256;

use crate::v1::StepFrame;
use crate::v1::step_frame::{Frame, Hello};

/// Version of the frames.
pub const STEP_IO_VERSION: u32 = 1;

/// Largest frame: a [`Setup`](crate::v1::step_frame::Setup) with an environment and arguments.
pub const MAX_STEP_FRAME_BYTES: usize = 10 << 20;

/// Largest piece of output or input in one frame.
pub const STEP_CHUNK_BYTES: usize = 64 << 10;

/// Input that a node takes unasked from one connection; more only as
/// [`Credit`](crate::v1::step_frame::Credit) says, which counts what the slowest of its tasks has read.
pub const STEP_INPUT_WINDOW_BYTES: u64 = 64 << 10;

/// Bytes of a step's secret, and of a nonce.
pub const STEP_SECRET_BYTES: usize = 32;

/// Who proves that it knows the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prover {
    /// Who made the step.
    Srun,
    /// Who runs a node's part of it.
    Shepherd,
}

fn mac(secret: &[u8], prover: Prover, hello: &Hello, answer: &[u8]) -> Hmac<Sha256> {
    let mut mac = <Hmac<Sha256> as hmac::Mac>::new_from_slice(secret)
        .expect("HMAC takes a key of any length");
    mac.update(match prover {
        Prover::Srun => b"srun",
        Prover::Shepherd => b"shep",
    });
    mac.update(&hello.job_id.to_be_bytes());
    mac.update(&hello.step.to_be_bytes());
    for part in [hello.node.as_bytes(), &hello.nonce, answer] {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac
}

/// The proof of one side; `answer` is the nonce in srun's challenge.
#[must_use]
pub fn proof(secret: &[u8], prover: Prover, hello: &Hello, answer: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&mac(secret, prover, hello, answer).finalize().into_bytes())
}

/// Whether a proof is right; takes the same time wherever it is wrong. An empty secret proves nothing.
#[must_use]
pub fn is_proof(secret: &[u8], prover: Prover, hello: &Hello, answer: &[u8], proof: &[u8]) -> bool {
    secret.len() == STEP_SECRET_BYTES
        && mac(secret, prover, hello, answer).verify_slice(proof).is_ok()
}

/// A frame as it goes over the connection.
#[must_use]
pub fn encode_frame(frame: Frame) -> Vec<u8> {
    let frame = StepFrame { frame: Some(frame) };
    let length = frame.encoded_len();
    let mut bytes = Vec::with_capacity(4 + length);
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    frame.encode_raw(&mut bytes);
    bytes
}

/// Writes one frame.
///
/// # Errors
/// As the connection says.
pub fn write_frame(to: &mut impl Write, frame: Frame) -> io::Result<()> {
    to.write_all(&encode_frame(frame))
}

/// Reads one frame; `None` at a clean end.
///
/// # Errors
/// If it is broken off, too large, or no frame.
pub fn read_frame(from: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut length = [0; 4];
    match from.read(&mut length)? {
        0 => return Ok(None),
        read => from.read_exact(&mut length[read..])?,
    }
    let length = checked(u32::from_be_bytes(length))?;
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    decode(Bytes::from(body)).map(Some)
}

/// Collects bytes as they come, and gives whole frames.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: BytesMut,
}

impl FrameBuffer {
    /// Takes what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame; `None`: more must be read first.
    ///
    /// # Errors
    /// If it is too large, or no frame: the connection is of no use then.
    pub fn next_frame(&mut self) -> io::Result<Option<Frame>> {
        let Some(length) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let length = checked(u32::from_be_bytes(*length))?;
        if self.bytes.len() < 4 + length {
            return Ok(None);
        }
        self.bytes.advance(4);
        decode(self.bytes.split_to(length).freeze()).map(Some)
    }

    /// Whether a part of a frame is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

fn checked(length: u32) -> io::Result<usize> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > MAX_STEP_FRAME_BYTES {
        let text = format!("a frame of {length} bytes, at most {MAX_STEP_FRAME_BYTES} are taken");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(length)
}

fn decode(body: Bytes) -> io::Result<Frame> {
    let frame = StepFrame::decode(body)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    frame.frame.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "an empty frame, or one of a newer version")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::step_frame::{Exited, Output};

    fn frames() -> Vec<Frame> {
        let output = Output { task: 3, stderr: true, data: vec![7; 1_000].into(), end: false };
        let exited = Exited { task: 3, wait_status: 256, out_of_memory: false };
        vec![Frame::Output(output), Frame::Exited(exited)]
    }

    #[test]
    fn frames_come_back_whole_however_they_are_cut() {
        let wire: Vec<u8> = frames().into_iter().flat_map(encode_frame).collect();
        for size in [1, 2, 3, 7, 100, wire.len()] {
            let (mut buffer, mut found) = (FrameBuffer::default(), Vec::new());
            for piece in wire.chunks(size) {
                buffer.push(piece);
                while let Some(frame) = buffer.next_frame().unwrap() {
                    found.push(frame);
                }
            }
            assert_eq!(found, frames());
            assert!(buffer.is_empty());
        }
        let mut rest = &wire[..];
        let read: Vec<_> = std::iter::from_fn(|| read_frame(&mut rest).unwrap()).collect();
        assert_eq!(read, frames());
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_it_is_read() {
        let mut buffer = FrameBuffer::default();
        buffer.push(&u32::MAX.to_be_bytes());
        assert!(buffer.next_frame().is_err());
        assert!(read_frame(&mut &u32::MAX.to_be_bytes()[..]).is_err());
        assert!(read_frame(&mut &[0, 0, 0, 5, 1][..]).is_err(), "broken off");
    }

    #[test]
    fn a_proof_is_good_for_one_side_one_node_and_one_connection() {
        let secret = [5; STEP_SECRET_BYTES];
        let hello = Hello {
            job_id: 7,
            step: 0,
            node: "n1".to_owned(),
            nonce: vec![1; 32].into(),
            version: STEP_IO_VERSION,
        };
        let good = proof(&secret, Prover::Srun, &hello, b"answer");
        assert!(is_proof(&secret, Prover::Srun, &hello, b"answer", &good));
        assert!(!is_proof(&secret, Prover::Shepherd, &hello, b"answer", &good));
        assert!(!is_proof(&secret, Prover::Srun, &hello, b"another", &good));
        assert!(!is_proof(&[6; 32], Prover::Srun, &hello, b"answer", &good));
        let others = [
            Hello { node: "n2".to_owned(), ..hello.clone() },
            Hello { job_id: 8, ..hello.clone() },
            Hello { step: 1, ..hello.clone() },
            Hello { nonce: vec![2; 32].into(), ..hello.clone() },
        ];
        for other in others {
            assert!(!is_proof(&secret, Prover::Srun, &other, b"answer", &good));
        }
        let empty = proof(&[], Prover::Srun, &hello, b"answer");
        assert!(!is_proof(&[], Prover::Srun, &hello, b"answer", &empty));
    }
}
