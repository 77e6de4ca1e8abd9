//! How is a batch written into a redo frame?
//!
//! Payload: kind (1 batch, 2 seal); a batch goes on with the marks (how long the blob and history
//! files were when it was answered), a count, and the changes: operation, key, value.

use bytes::{Buf, Bytes};

use super::error::Fault;
use super::key::{Change, Key};

const KIND_BATCH: u8 = 1;
const KIND_SEAL: u8 = 2;
const OP_PUT: u8 = 1;
const OP_DELETE: u8 = 2;

/// Where the append-only files ended when a batch was answered: what lies before was durable,
/// blobs behind it were never answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) pack: u64,
    pub(crate) pack_len: u64,
    pub(crate) history: u64,
    pub(crate) history_len: u64,
}

impl Marks {
    /// Appends the marks to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.pack, self.pack_len, self.history, self.history_len] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn decode(bytes: &mut Bytes) -> Option<Marks> {
        let mut next = || bytes.try_get_u64_le().ok();
        Some(Marks { pack: next()?, pack_len: next()?, history: next()?, history_len: next()? })
    }
}

/// One decoded redo payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Batch {
        marks: Marks,
        changes: Vec<Change>,
    },
    /// The segment is complete; another one must follow.
    Seal,
}

/// Appends a batch's payload to `out`.
pub(crate) fn encode_batch(out: &mut Vec<u8>, marks: &Marks, changes: &[Change]) {
    out.push(KIND_BATCH);
    marks.encode(out);
    let count = u32::try_from(changes.len()).expect("batch limits are checked before");
    out.extend_from_slice(&count.to_le_bytes());
    for change in changes {
        match change {
            Change::Put(key, value) => {
                out.push(OP_PUT);
                push_record(out, key, value);
            }
            Change::Delete(key) => {
                out.push(OP_DELETE);
                push_key(out, key);
            }
        }
    }
}

/// Appends a seal's payload to `out`.
pub(crate) fn encode_seal(out: &mut Vec<u8>) {
    out.push(KIND_SEAL);
}

/// Reads a payload back without copying values. `None` if it is no such thing.
pub(crate) fn decode_entry(mut bytes: Bytes) -> Option<Entry> {
    match bytes.try_get_u8().ok()? {
        KIND_SEAL => bytes.is_empty().then_some(Entry::Seal),
        KIND_BATCH => {
            let marks = Marks::decode(&mut bytes)?;
            let changes = decode_changes(&mut bytes)?;
            bytes.is_empty().then_some(Entry::Batch { marks, changes })
        }
        _ => None,
    }
}

fn decode_changes(bytes: &mut Bytes) -> Option<Vec<Change>> {
    let count = usize::try_from(bytes.try_get_u32_le().ok()?).ok()?;
    // Each change takes at least four bytes, so a lying count allocates no more than it brought.
    let mut changes = Vec::with_capacity(count.min(bytes.len() / 4));
    for _ in 0..count {
        changes.push(match bytes.try_get_u8().ok()? {
            OP_PUT => {
                let (key, value) = take_record(bytes)?;
                Change::Put(key, value)
            }
            OP_DELETE => Change::Delete(take_key(bytes)?),
            _ => return None,
        });
    }
    Some(changes)
}

/// Appends key and value to `out`.
pub(crate) fn push_record(out: &mut Vec<u8>, key: &Key, value: &[u8]) {
    push_key(out, key);
    let len = u32::try_from(value.len()).expect("value limits are checked before");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(value);
}

fn push_key(out: &mut Vec<u8>, key: &Key) {
    let len = u16::try_from(key.as_bytes().len()).expect("a key has at most 512 bytes");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(key.as_bytes());
}

/// Takes a key and its value off the front of `bytes`.
pub(crate) fn take_record(bytes: &mut Bytes) -> Option<(Key, Bytes)> {
    let key = take_key(bytes)?;
    let len = usize::try_from(bytes.try_get_u32_le().ok()?).ok()?;
    (len <= bytes.len()).then(|| (key, bytes.split_to(len)))
}

fn take_key(bytes: &mut Bytes) -> Option<Key> {
    let len = usize::from(bytes.try_get_u16_le().ok()?);
    (len <= bytes.len()).then(|| bytes.split_to(len)).and_then(Key::from_bytes)
}

/// The error for a checked frame whose payload makes no sense: a bug or a foreign writer.
pub(crate) fn senseless(path: &std::path::Path, seq: u64) -> Fault {
    Fault::Damaged(format!("{}: frame {seq} is whole but makes no sense", path.display()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change() -> impl Strategy<Value = Change> {
        let key = prop::collection::vec(any::<u8>(), 1..20);
        let key = key.prop_map(|bytes| Key::from_bytes(bytes.into()).unwrap());
        let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..50));
        (key, value).prop_map(|(key, value)| match value {
            Some(value) => Change::Put(key, value.into()),
            None => Change::Delete(key),
        })
    }

    proptest! {
        #[test]
        fn batch_survives_its_bytes(
            changes in prop::collection::vec(change(), 0..10),
            numbers in any::<[u32; 4]>(),
        ) {
            let [pack, pack_len, history, history_len] = numbers.map(u64::from);
            let marks = Marks { pack, pack_len, history, history_len };
            let mut out = Vec::new();
            encode_batch(&mut out, &marks, &changes);
            prop_assert_eq!(decode_entry(out.into()), Some(Entry::Batch { marks, changes }));
        }

        #[test]
        fn any_bytes_are_decoded_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_entry(bytes.clone().into());
            bytes.splice(0..0, [KIND_BATCH]);
            let _ = decode_entry(bytes.into());
        }
    }
}
