//! How do blobs lie in a pack file?
//!
//! `blobs/<n>.pack`: header, then for each blob its length, hash, checksum of the bytes, checksum
//! of these fields, and the bytes. Opening reads the fields only. How far a pack counts is not
//! decided here: the redo file knows how long it was when a batch was last answered.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use crc32fast::Hasher;

use super::error::Fault;
use super::files;
use super::frames::{self, FILE_HEADER, Kind, StoreId, le_u32};
use super::key::{BlobHash, MAX_BLOB_BYTES};

pub(crate) const ENDING: &str = "pack";
/// Bytes before a blob's own.
pub(crate) const BLOB_HEADER: usize = 44;

/// The folder of a store in `dir`.
pub(crate) fn folder(dir: &Path) -> PathBuf {
    dir.join("blobs")
}

/// The file of pack `number`.
pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    files::numbered_path(&folder(dir), number, ENDING)
}

/// Makes an empty pack, durable.
pub(crate) fn create(dir: &Path, id: &StoreId, number: u64) -> Result<File, Fault> {
    let header = frames::file_header(Kind::Pack, id, number);
    files::publish(&path(dir, number), |file| file.write_all_at(&header, 0))
}

/// Appends a blob's header and bytes to `out`.
pub(crate) fn push_blob(out: &mut Vec<u8>, seed: u32, hash: &BlobHash, bytes: &[u8]) {
    let start = out.len();
    let len = u32::try_from(bytes.len()).expect("blob limits are checked before");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&hash.0);
    out.extend_from_slice(&crc32fast::hash(bytes).to_le_bytes());
    let crc = header_crc(&out[start..], seed);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(bytes);
}

fn header_crc(header: &[u8], seed: u32) -> u32 {
    let mut hasher = Hasher::new_with_initial(seed);
    hasher.update(&header[..BLOB_HEADER - 4]);
    hasher.finalize()
}

/// A blob's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlobHeader {
    pub(crate) len: u32,
    pub(crate) hash: BlobHash,
    crc: u32,
}

/// Reads the fields of a blob if they are whole.
pub(crate) fn parse_header(bytes: &[u8], seed: u32) -> Option<BlobHeader> {
    let header = bytes.get(..BLOB_HEADER)?;
    let len = le_u32(header, 0);
    if len as usize > MAX_BLOB_BYTES || header_crc(header, seed) != le_u32(header, 40) {
        return None;
    }
    let hash = BlobHash(header[4..36].try_into().expect("32 bytes"));
    Some(BlobHeader { len, hash, crc: le_u32(header, 36) })
}

/// Reads one blob whose header begins at `offset`, and checks it.
pub(crate) fn read_blob(
    file: &File,
    path: &Path,
    seed: u32,
    offset: u64,
    expected: &BlobHash,
) -> Result<Bytes, Fault> {
    let damaged = || {
        let path = path.display();
        Fault::Damaged(format!("{path}: blob {expected} at byte {offset} is damaged"))
    };
    let mut header = [0; BLOB_HEADER];
    file.read_exact_at(&mut header, offset).map_err(Fault::io("read", path))?;
    let header = parse_header(&header, seed).filter(|header| header.hash == *expected);
    let header = header.ok_or_else(damaged)?;
    let mut body = vec![0; header.len as usize];
    file.read_exact_at(&mut body, offset + BLOB_HEADER as u64).map_err(Fault::io("read", path))?;
    if crc32fast::hash(&body) != header.crc {
        return Err(damaged());
    }
    Ok(body.into())
}

/// Hands (offset, header) of every blob before byte `end` to `each`. Bodies are not read.
///
/// # Errors
/// When the bytes before `end` are not whole blobs.
pub(crate) fn scan(
    dir: &Path,
    id: &StoreId,
    number: u64,
    end: Option<u64>,
    each: &mut dyn FnMut(u64, BlobHeader),
) -> Result<u64, Fault> {
    let path = path(dir, number);
    let file = File::open(&path).map_err(Fault::io("open", &path))?;
    let len = file.metadata().map_err(Fault::io("read", &path))?.len();
    let end = end.unwrap_or(len);
    if end > len {
        return Err(Fault::Damaged(format!(
            "{} has {len} bytes, but {end} were answered as durable",
            path.display()
        )));
    }
    let seed = frames::seed(Kind::Pack, id);
    let mut reader = BufReader::with_capacity(64 << 10, file);
    let mut header = [0; FILE_HEADER];
    let got = read_up_to(&mut reader, &mut header).map_err(Fault::io("read", &path))?;
    frames::expect_file_header(&header[..got], Kind::Pack, &path, id, number)?;
    let mut at = FILE_HEADER as u64;
    while at < end {
        let mut bytes = [0; BLOB_HEADER];
        let got = read_up_to(&mut reader, &mut bytes).map_err(Fault::io("read", &path))?;
        let header = parse_header(&bytes[..got], seed);
        let next = header.map(|header| at + BLOB_HEADER as u64 + u64::from(header.len));
        match (header, next) {
            (Some(header), Some(next)) if next <= end => {
                each(at, header);
                reader.seek_relative(i64::from(header.len)).map_err(Fault::io("read", &path))?;
                at = next;
            }
            _ => {
                let path = path.display();
                return Err(Fault::Damaged(format!("{path}: the blob at byte {at} is damaged")));
            }
        }
    }
    Ok(at)
}

fn read_up_to(reader: &mut impl Read, into: &mut [u8]) -> std::io::Result<usize> {
    let mut got = 0;
    while got < into.len() {
        match reader.read(&mut into[got..]) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// Length of the file of pack `number`.
pub(crate) fn file_len(dir: &Path, number: u64) -> Result<u64, Fault> {
    let path = path(dir, number);
    let mut file = File::open(&path).map_err(Fault::io("open", &path))?;
    file.seek(SeekFrom::End(0)).map_err(Fault::io("read", &path))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(parse_header(&bytes, 1).is_none());
        }

        #[test]
        fn header_survives_its_bytes(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let hash = BlobHash::of(&bytes);
            let mut out = Vec::new();
            push_blob(&mut out, 3, &hash, &bytes);
            let header = parse_header(&out, 3).unwrap();
            prop_assert_eq!(header.len as usize, bytes.len());
            prop_assert_eq!(header.hash, hash);
            prop_assert!(parse_header(&out, 4).is_none());
        }
    }
}
