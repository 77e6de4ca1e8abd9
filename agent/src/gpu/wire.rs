//! How do agent and probe speak?
//!
//! Protobuf messages over a stream socket, each behind its length (4 bytes, big-endian). Both ends
//! are of one version: the agent starts its own file as probe.

use std::io::{self, Read, Write};

use penstock_proto::v1;

/// Largest message: 32 GPUs with all that can be said of them need a tenth of it.
pub(super) const MAX_FRAME: usize = 1 << 20;

/// What the agent asks.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Ask {
    /// Comes back in the answer; never 0.
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(oneof = "Question", tags = "2, 3, 4")]
    pub(super) question: Option<Question>,
}

/// See [`Ask`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Question {
    /// What is there?
    #[prost(message, tag = "2")]
    Describe(Nothing),
    /// What does it do?
    #[prost(message, tag = "3")]
    Sample(Nothing),
    /// Cut a GPU anew.
    #[prost(message, tag = "4")]
    Cut(Cut),
}

/// No more words.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Nothing {}

/// Cut a GPU anew. Done twice it is done once: what is to go is named by place and UUID.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Cut {
    #[prost(uint32, tag = "1")]
    pub(super) gpu: u32,
    #[prost(string, tag = "2")]
    pub(super) uuid: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) destroy: Vec<OldSlice>,
    #[prost(message, repeated, tag = "4")]
    pub(super) create: Vec<v1::NewSlice>,
    #[prost(enumeration = "v1::MigMode", tag = "5")]
    pub(super) mode: i32,
}

/// A slice to be destroyed.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OldSlice {
    /// First memory slice.
    #[prost(uint32, tag = "1")]
    pub(super) start: u32,
    #[prost(string, tag = "2")]
    pub(super) uuid: String,
    /// The hardware's number of its profile, and its memory slices: for making it again.
    #[prost(uint32, tag = "3")]
    pub(super) profile: u32,
    #[prost(uint32, tag = "4")]
    pub(super) size: u32,
}

/// What the probe says.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Say {
    /// Of the question that is answered; 0: nobody asked.
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(oneof = "Answer", tags = "2, 3, 4, 5, 6")]
    pub(super) answer: Option<Answer>,
}

/// See [`Say`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Answer {
    #[prost(message, tag = "2")]
    Described(Described),
    #[prost(message, tag = "3")]
    Sampled(Sampled),
    #[prost(message, tag = "4")]
    Done(Done),
    /// There is no library to ask; the probe ends.
    #[prost(message, tag = "5")]
    Unusable(Unusable),
    #[prost(message, tag = "6")]
    Event(v1::GpuEvent),
}

/// All GPUs.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Described {
    #[prost(message, repeated, tag = "1")]
    pub(super) gpus: Vec<v1::Gpu>,
    /// The library is a fake.
    #[prost(bool, tag = "2")]
    pub(super) fake: bool,
    #[prost(string, tag = "3")]
    pub(super) driver: String,
    /// What this driver cannot tell, one line each.
    #[prost(string, repeated, tag = "4")]
    pub(super) notes: Vec<String>,
}

/// What all GPUs do.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Sampled {
    #[prost(message, repeated, tag = "1")]
    pub(super) samples: Vec<v1::GpuSample>,
    /// GPUs that gave nothing, and why.
    #[prost(message, repeated, tag = "2")]
    pub(super) troubles: Vec<Trouble>,
    /// GPUs that are being cut and were left alone.
    #[prost(uint32, repeated, tag = "3")]
    pub(super) busy: Vec<u32>,
    /// What else was seen of each.
    #[prost(message, repeated, tag = "4")]
    pub(super) looks: Vec<Look>,
}

/// What was seen of a GPU beside its sample.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Look {
    #[prost(uint32, tag = "1")]
    pub(super) gpu: u32,
    /// Bits of the reasons why its clocks are slower.
    #[prost(uint64, optional, tag = "2")]
    pub(super) throttle: Option<u64>,
    /// Errors of its memory that were not corrected, since the driver was loaded.
    #[prost(uint64, optional, tag = "3")]
    pub(super) uncorrected: Option<u64>,
    /// Processes on a GPU that is not cut.
    #[prost(uint32, repeated, tag = "4")]
    pub(super) pids: Vec<u32>,
}

/// A GPU that gave nothing.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Trouble {
    #[prost(uint32, tag = "1")]
    pub(super) gpu: u32,
    /// For people.
    #[prost(string, tag = "2")]
    pub(super) text: String,
}

/// How a cut went.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Done {
    /// The GPU as it is now; absent where it does not answer.
    #[prost(message, optional, boxed, tag = "1")]
    pub(super) gpu: Option<Box<v1::Gpu>>,
    /// Why it could not be cut so; empty: it was.
    #[prost(string, tag = "2")]
    pub(super) error: String,
}

/// Why there is no library to ask.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Unusable {
    /// One word: `driver_not_loaded`.
    #[prost(string, tag = "1")]
    pub(super) word: String,
    /// For people.
    #[prost(string, tag = "2")]
    pub(super) text: String,
}

/// Writes one message.
pub(super) fn write(mut to: impl Write, message: &impl prost::Message) -> io::Result<()> {
    let mut frame = vec![0; 4];
    message.encode(&mut frame).map_err(io::Error::other)?;
    let length = u32::try_from(frame.len() - 4).map_err(io::Error::other)?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    to.write_all(&frame)
}

/// Reads one message.
pub(super) fn read<M: prost::Message + Default>(mut from: impl Read) -> io::Result<M> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut frame = vec![0; frame_length(length)?];
    from.read_exact(&mut frame)?;
    M::decode(&*frame).map_err(io::Error::other)
}

/// The length that stands before a message.
pub(super) fn frame_length(bytes: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(bytes) as usize;
    if length <= MAX_FRAME {
        return Ok(length);
    }
    Err(io::Error::other(format!("a message of {length} bytes; at most {MAX_FRAME} are allowed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_were_written() {
        let says = [0, 7].map(|id| Say {
            id,
            answer: Some(Answer::Unusable(Unusable { word: "w".to_owned(), text: String::new() })),
        });
        let mut stream = Vec::new();
        says.iter().for_each(|say| write(&mut stream, say).unwrap());
        let mut from = &*stream;
        for say in &says {
            assert_eq!(read::<Say>(&mut from).unwrap(), *say);
        }
        assert!(read::<Say>(&mut from).is_err());
        let huge = [0xff; 8];
        assert!(read::<Say>(&huge[..]).unwrap_err().to_string().contains("at most"));
    }
}
