//! How are bytes laid out in a file so that a torn end can be told from damage?
//!
//! A file begins with a header (magic, format, store id, number, crc). Then come frames: length,
//! crc, sequence, payload, all numbers little-endian. The crc is seeded with the store's id and
//! the kind of file, so that bytes that a user put into a record never pass for a frame.
//! Sequences grow by one a frame. Each write is one frame followed by one fsync, so at most the
//! last frame can be torn: a bad frame with a good one behind it is damage, not a torn end.

use std::path::Path;

use bytes::Bytes;
use crc32fast::Hasher;

use super::error::Fault;

/// Newest format of every file; each has its own number so that one can move alone.
pub(crate) const FORMAT: u32 = 1;
/// Bytes of a file's header. Its layout is the same in every format to come.
pub(crate) const FILE_HEADER: usize = 40;
/// Bytes of a frame's header.
pub(crate) const FRAME_HEADER: usize = 16;
/// Longest payload that a reader believes: a whole batch at its limits fits.
pub(crate) const MAX_PAYLOAD: usize = 48 << 20;

/// 16 random bytes that name a store.
pub(crate) type StoreId = [u8; 16];

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Redo,
    Checkpoint,
    Pack,
    History,
    HistoryIndex,
}

impl Kind {
    fn magic(self) -> [u8; 8] {
        *match self {
            Kind::Redo => b"PSTKREDO",
            Kind::Checkpoint => b"PSTKCKPT",
            Kind::Pack => b"PSTKPACK",
            Kind::History => b"PSTKHIST",
            Kind::HistoryIndex => b"PSTKHIDX",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Redo => "redo segment",
            Kind::Checkpoint => "checkpoint",
            Kind::Pack => "blob pack",
            Kind::History => "history file",
            Kind::HistoryIndex => "history index",
        }
    }
}

/// Start value of the checksums in a file of `kind` of store `id`.
pub(crate) fn seed(kind: Kind, id: &StoreId) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&kind.magic());
    hasher.update(id);
    hasher.finalize()
}

/// The header of a new file.
pub(crate) fn file_header(kind: Kind, id: &StoreId, number: u64) -> [u8; FILE_HEADER] {
    let mut header = [0; FILE_HEADER];
    header[..8].copy_from_slice(&kind.magic());
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[12..28].copy_from_slice(id);
    header[28..36].copy_from_slice(&number.to_le_bytes());
    let crc = crc32fast::hash(&header[..36]);
    header[36..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Store id and number of a file, if its header is whole and of a known format.
pub(crate) fn parse_file_header(
    bytes: &[u8],
    kind: Kind,
    path: &Path,
) -> Result<(StoreId, u64), Fault> {
    let bad = |why: &str| Fault::Damaged(format!("{} {} {why}", kind.name(), path.display()));
    let header = bytes.get(..FILE_HEADER).ok_or_else(|| bad("is shorter than its header"))?;
    if header[..8] != kind.magic() {
        return Err(bad("does not begin with its magic word"));
    }
    if crc32fast::hash(&header[..36]) != le_u32(header, 36) {
        return Err(bad("has a damaged header"));
    }
    let found = le_u32(header, 8);
    if found > FORMAT {
        return Err(Fault::Newer { path: path.to_owned(), found, known: FORMAT });
    }
    let mut id = StoreId::default();
    id.copy_from_slice(&header[12..28]);
    Ok((id, le_u64(header, 28)))
}

/// As [`parse_file_header`], and also checks that the file is the one its name says.
pub(crate) fn expect_file_header(
    bytes: &[u8],
    kind: Kind,
    path: &Path,
    id: &StoreId,
    number: u64,
) -> Result<(), Fault> {
    let (found_id, found) = parse_file_header(bytes, kind, path)?;
    if found_id != *id {
        let text = format!("{} {} belongs to another store", kind.name(), path.display());
        return Err(Fault::Damaged(text));
    }
    if found != number {
        let text = format!("{} {} says it is number {found}", kind.name(), path.display());
        return Err(Fault::Damaged(text));
    }
    Ok(())
}

/// Appends a frame to `out`; `fill` appends the payload.
pub(crate) fn push_frame(out: &mut Vec<u8>, seed: u32, seq: u64, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER]);
    fill(out);
    let len = u32::try_from(out.len() - start - FRAME_HEADER).expect("a payload is at most 48 MiB");
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    out[start + 8..start + 16].copy_from_slice(&seq.to_le_bytes());
    let crc = frame_crc(&out[start..], seed);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// Sequence and payload length of the frame whose header begins `bytes`, if the length is
/// believable. The checksum is not looked at.
pub(crate) fn peek_frame(bytes: &[u8]) -> Option<(u64, usize)> {
    if bytes.len() < FRAME_HEADER {
        return None;
    }
    let len = usize::try_from(le_u32(bytes, 0)).ok()?;
    (len > 0 && len <= MAX_PAYLOAD).then(|| (le_u64(bytes, 8), len))
}

/// Sequence and payload length of the whole, checked frame that begins `bytes`.
pub(crate) fn parse_frame(bytes: &[u8], seed: u32) -> Option<(u64, usize)> {
    let (seq, len) = peek_frame(bytes)?;
    let frame = bytes.get(..FRAME_HEADER + len)?;
    (frame_crc(frame, seed) == le_u32(frame, 4)).then_some((seq, len))
}

fn frame_crc(frame: &[u8], seed: u32) -> u32 {
    let mut hasher = Hasher::new_with_initial(seed);
    hasher.update(&frame[..4]);
    hasher.update(&frame[8..]);
    hasher.finalize()
}

/// How the frames of a file end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Nothing but zeros, or nothing, follows the last frame.
    Clean,
    /// Something that is no frame follows, and no frame follows that.
    Torn,
    /// A good frame follows a bad one.
    Damaged { later: usize, later_seq: u64 },
}

/// What [`walk`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Walk {
    /// Offset behind the last good frame.
    pub(crate) end: usize,
    /// Sequence that the next frame would have.
    pub(crate) next_seq: u64,
    pub(crate) tail: Tail,
}

/// Hands each frame of `file` from offset `start` on to `each` as (sequence, offset, payload).
pub(crate) fn walk(
    file: &Bytes,
    start: usize,
    first_seq: u64,
    seed: u32,
    each: &mut dyn FnMut(u64, usize, Bytes) -> Result<(), Fault>,
) -> Result<Walk, Fault> {
    let mut at = start.min(file.len());
    let mut next_seq = first_seq;
    while let Some((seq, len)) = parse_frame(&file[at..], seed) {
        if seq != next_seq {
            return Ok(Walk {
                end: at,
                next_seq,
                tail: Tail::Damaged { later: at, later_seq: seq },
            });
        }
        let body = at + FRAME_HEADER;
        each(seq, at, file.slice(body..body + len))?;
        at = body + len;
        next_seq += 1;
    }
    Ok(Walk { end: at, next_seq, tail: judge_tail(&file[at..], at, next_seq, seed) })
}

fn judge_tail(rest: &[u8], at: usize, next_seq: u64, seed: u32) -> Tail {
    if rest.iter().all(|byte| *byte == 0) {
        return Tail::Clean;
    }
    match find_frame(rest, 1, next_seq, seed) {
        Some((later, later_seq)) => Tail::Damaged { later: at + later, later_seq },
        None => Tail::Torn,
    }
}

/// Offset and sequence of the first good frame in `bytes` at or behind `from` whose sequence is
/// `next_seq` or one that could follow it here. O(n).
pub(crate) fn find_frame(
    bytes: &[u8],
    from: usize,
    next_seq: u64,
    seed: u32,
) -> Option<(usize, u64)> {
    let last = next_seq.saturating_add(bytes.len() as u64 / FRAME_HEADER as u64);
    let offsets = from..bytes.len().saturating_sub(FRAME_HEADER);
    offsets.into_iter().find_map(|at| {
        let seq = le_u64(bytes, at + 8);
        let wanted = seq >= next_seq && seq <= last;
        (wanted && parse_frame(&bytes[at..], seed).is_some()).then_some((at, seq))
    })
}

/// Little-endian number at `at`; the caller has checked the length.
pub(crate) fn le_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

/// Little-endian number at `at`; the caller has checked the length.
pub(crate) fn le_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEED: u32 = 77;

    fn file_of(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut out = vec![0; FILE_HEADER];
        for (seq, payload) in (5..).zip(frames) {
            push_frame(&mut out, SEED, seq, |out| out.extend_from_slice(payload));
        }
        out
    }

    fn count(bytes: Vec<u8>) -> (u64, Tail) {
        let walk = walk(&Bytes::from(bytes), FILE_HEADER, 5, SEED, &mut |_, _, _| Ok(())).unwrap();
        (walk.next_seq - 5, walk.tail)
    }

    #[test]
    fn cut_end_is_torn_and_zeros_are_clean() {
        let mut file = file_of(&[vec![1; 50], vec![2; 60]]);
        assert_eq!(count(file.clone()), (2, Tail::Clean));
        file.extend_from_slice(&[0; 100]);
        assert_eq!(count(file.clone()), (2, Tail::Clean));
        file.truncate(FILE_HEADER + 66 + 30);
        assert_eq!(count(file), (1, Tail::Torn));
    }

    #[test]
    fn flipped_bit_before_a_good_frame_is_damage() {
        let mut file = file_of(&[vec![1; 50], vec![2; 60], vec![3; 5]]);
        file[FILE_HEADER + 66 + 20] ^= 1;
        let (good, tail) = count(file);
        assert_eq!(good, 1);
        assert!(matches!(tail, Tail::Damaged { later_seq: 7, .. }), "{tail:?}");
    }

    #[test]
    fn newer_format_is_told_from_damage() {
        let mut header = file_header(Kind::Redo, &[1; 16], 9);
        assert!(expect_file_header(&header, Kind::Redo, Path::new("x"), &[1; 16], 9).is_ok());
        assert!(expect_file_header(&header, Kind::Redo, Path::new("x"), &[2; 16], 9).is_err());
        assert!(expect_file_header(&header, Kind::Redo, Path::new("x"), &[1; 16], 8).is_err());
        header[8] = 2;
        let damaged = parse_file_header(&header, Kind::Redo, Path::new("x"));
        assert!(matches!(damaged, Err(Fault::Damaged(_))));
        let crc = crc32fast::hash(&header[..36]);
        header[36..].copy_from_slice(&crc.to_le_bytes());
        let newer = parse_file_header(&header, Kind::Redo, Path::new("x"));
        assert!(matches!(newer, Err(Fault::Newer { found: 2, .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let whole = Bytes::from(bytes);
            let walk = walk(&whole, 0, 5, SEED, &mut |_, _, _| Ok(())).unwrap();
            prop_assert!(walk.end <= whole.len());
            prop_assert!(parse_file_header(&whole, Kind::Pack, Path::new("x")).is_err());
        }

        #[test]
        fn any_cut_leaves_a_prefix_of_frames(
            frames in prop::collection::vec(prop::collection::vec(1u8.., 1..40), 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut file = file_of(&frames);
            let cut = FILE_HEADER + cut.index(file.len() - FILE_HEADER);
            file.truncate(cut);
            let (good, tail) = count(file);
            prop_assert!(good < frames.len() as u64);
            prop_assert!(tail == Tail::Clean || tail == Tail::Torn);
        }
    }
}
