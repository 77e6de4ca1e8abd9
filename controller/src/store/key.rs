//! What does a store hold? Keys, values, batches of changes, and blobs named by their content.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};

/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 512;
/// Longest value of one record, in bytes. A command may need 1 MiB in all.
pub const MAX_VALUE_BYTES: usize = 4 << 20;
/// Longest blob, in bytes: Slurm's own limit for a batch script is of the same order.
pub const MAX_BLOB_BYTES: usize = 4 << 20;

/// Name of one record: a table's tag, then big-endian ids, so that byte order is number order.
///
/// Never empty and never longer than [`MAX_KEY_BYTES`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// A key of table `table` whose ids are all 32-bit numbers.
    pub fn of(table: u8, ids: &[u32]) -> Key {
        let builder = ids.iter().fold(KeyBuilder::new(table), |builder, id| builder.u32(*id));
        builder.finish().expect("a key of a few numbers is short")
    }

    /// Takes `bytes` as a key; `None` if empty or longer than [`MAX_KEY_BYTES`].
    pub fn from_bytes(bytes: Bytes) -> Option<Key> {
        (!bytes.is_empty() && bytes.len() <= MAX_KEY_BYTES).then_some(Key(bytes))
    }

    /// The table's tag.
    pub fn table(&self) -> u8 {
        self.0[0]
    }

    /// The whole key, tag included.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What follows the table's tag.
    pub fn ids(&self) -> &[u8] {
        &self.0[1..]
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}/", self.table())?;
        write_hex(f, self.ids())
    }
}

/// Puts a [`Key`] together from parts.
#[derive(Debug)]
pub struct KeyBuilder(BytesMut);

impl KeyBuilder {
    /// Begins a key of table `table`.
    pub fn new(table: u8) -> KeyBuilder {
        let mut bytes = BytesMut::with_capacity(16);
        bytes.put_u8(table);
        KeyBuilder(bytes)
    }

    /// Appends a 32-bit number.
    #[must_use]
    pub fn u32(mut self, id: u32) -> KeyBuilder {
        self.0.put_u32(id);
        self
    }

    /// Appends a 64-bit number.
    #[must_use]
    pub fn u64(mut self, id: u64) -> KeyBuilder {
        self.0.put_u64(id);
        self
    }

    /// Appends raw bytes, for instance a name. Only sensible as the last part.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> KeyBuilder {
        self.0.put_slice(bytes);
        self
    }

    /// The key; `None` if it became longer than [`MAX_KEY_BYTES`].
    pub fn finish(self) -> Option<Key> {
        Key::from_bytes(self.0.freeze())
    }
}

/// One change of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The record now has this value.
    Put(Key, Bytes),
    /// The record is gone. Deleting what is not there is no error.
    Delete(Key),
}

impl Change {
    /// The record that changes.
    pub fn key(&self) -> &Key {
        match self {
            Change::Put(key, _) | Change::Delete(key) => key,
        }
    }

    /// Bytes of key and value.
    pub fn bytes(&self) -> usize {
        match self {
            Change::Put(key, value) => key.0.len() + value.len(),
            Change::Delete(key) => key.0.len(),
        }
    }
}

/// What becomes durable together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Applied in order; a later change of the same key wins.
    pub changes: Vec<Change>,
    /// Blobs that the changed records name. Those already stored cost nothing.
    pub blobs: Vec<(BlobHash, Bytes)>,
}

impl Batch {
    /// Adds a record's new value.
    pub fn put(&mut self, key: Key, value: Bytes) {
        self.changes.push(Change::Put(key, value));
    }

    /// Adds a record's removal.
    pub fn delete(&mut self, key: Key) {
        self.changes.push(Change::Delete(key));
    }

    /// Adds a blob and returns the name to keep in the record. Costs one SHA-256 of `bytes`.
    pub fn blob(&mut self, bytes: Bytes) -> BlobHash {
        let hash = BlobHash::of(&bytes);
        self.blobs.push((hash, bytes));
        hash
    }
}

/// SHA-256 of a blob's bytes, its only name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobHash(pub [u8; 32]);

impl BlobHash {
    /// Hashes `bytes`.
    pub fn of(bytes: &[u8]) -> BlobHash {
        BlobHash(Sha256::digest(bytes).into())
    }
}

impl fmt::Debug for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// Reign of one writer. Grows with every [`Store::acquire`](super::Store::acquire), restarts included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

/// Sequence number of a durable batch; 0 is the empty store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// Bounds of one atomic batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most changes.
    pub records: usize,
    /// Most bytes of keys and values together.
    pub bytes: usize,
    /// Most bytes of one blob.
    pub blob_bytes: usize,
}

/// Writes `bytes` as lowercase hex.
pub(super) fn write_hex(f: &mut dyn fmt::Write, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_order_of_keys_is_number_order() {
        assert!(Key::of(1, &[255]) < Key::of(1, &[256]));
        assert!(Key::of(1, &[u32::MAX]) < Key::of(2, &[0]));
        assert!(Key::of(1, &[7, 1]) < Key::of(1, &[7, 2]));
    }

    #[test]
    fn empty_and_overlong_keys_do_not_exist() {
        assert!(Key::from_bytes(Bytes::new()).is_none());
        assert!(KeyBuilder::new(1).bytes(&[0; MAX_KEY_BYTES]).finish().is_none());
        assert!(KeyBuilder::new(1).bytes(&[0; MAX_KEY_BYTES - 1]).finish().is_some());
    }

    #[test]
    fn blob_hash_is_sha256() {
        let hash = BlobHash::of(b"abc").to_string();
        assert!(hash.starts_with("ba7816bf8f01cfea"), "{hash}");
    }
}
