//! What does the daemon ask of a store, whatever keeps the bytes?

use std::sync::Arc;

use bytes::Bytes;

use super::error::StoreError;
use super::key::{Batch, BatchLimits, BlobHash, Change, Key, MAX_VALUE_BYTES, Revision, Term};

/// Durable records by key, with one writer. The core never sees this.
///
/// The order of calls is `load`, `acquire`, then `commit` as often as needed.
pub trait Store: Send {
    /// Bounds of one atomic batch; the caller cuts a group commit at command boundaries.
    fn limits(&self) -> BatchLimits;

    /// Becomes the only writer; every earlier [`Term`] is refused from now on. `holder` names
    /// this process to people.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when a copy behind the store turned out to be newer than it.
    fn acquire(&mut self, holder: &str) -> Result<Term, StoreError>;

    /// All of `batch` or nothing. On `Ok` it survives a power cut.
    ///
    /// # Errors
    /// Only [`StoreError::Unavailable`], [`StoreError::TooLarge`] and [`StoreError::Deposed`]
    /// promise that nothing was applied.
    fn commit(&mut self, term: Term, batch: &Batch) -> Result<Revision, StoreError>;

    /// Streams every live record in key order at one revision. Values may share a large buffer:
    /// copy what is kept.
    ///
    /// # Errors
    /// Those of `each`, and [`StoreError::Corrupt`].
    fn load(
        &mut self,
        each: &mut dyn FnMut(Key, Bytes) -> Result<(), StoreError>,
    ) -> Result<Revision, StoreError>;

    /// A handle to read blobs on any thread.
    fn blobs(&self) -> Arc<dyn BlobSource>;

    /// Frees blobs for which `live` is false. `live` must know every record committed so far.
    /// Moves at most one pack's worth a call, so that the writer is not held up for long.
    ///
    /// # Errors
    /// As for [`Store::commit`].
    fn retain_blobs(
        &mut self,
        term: Term,
        live: &dyn Fn(&BlobHash) -> bool,
    ) -> Result<BlobSweep, StoreError>;
}

/// Reads blobs, on any thread.
pub trait BlobSource: Send + Sync {
    /// The blob's bytes; `None` if no committed batch brought it, or it was swept.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the bytes do not match their checksum.
    fn blob(&self, hash: &BlobHash) -> Result<Option<Bytes>, StoreError>;
}

/// What [`Store::retain_blobs`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlobSweep {
    /// Bytes of disk given back.
    pub freed_bytes: u64,
    /// Live blobs that were moved to let go of a mostly dead file.
    pub moved: usize,
    /// Whether another call now would free more.
    pub more: bool,
}

/// Refuses a batch outside `limits`.
pub(crate) fn check_limits(batch: &Batch, limits: BatchLimits) -> Result<(), StoreError> {
    let within = |got: usize, limit: usize, unit| {
        let (limit, got) = (limit as u64, got as u64);
        if got > limit { Err(StoreError::TooLarge { limit, got, unit }) } else { Ok(()) }
    };
    within(batch.changes.len(), limits.records, "records")?;
    within(batch.changes.iter().map(Change::bytes).sum(), limits.bytes, "bytes")?;
    for change in &batch.changes {
        within(change.bytes(), MAX_VALUE_BYTES, "bytes of one record")?;
    }
    for (_, bytes) in &batch.blobs {
        within(bytes.len(), limits.blob_bytes, "bytes of one blob")?;
    }
    Ok(())
}
