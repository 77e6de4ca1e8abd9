//! Where is the state kept so that nothing that was answered is ever lost?
//!
//! The store knows keys and bytes and nothing of jobs. [`Store`] is what the daemon asks for;
//! [`EmbeddedStore`] keeps it on this host's disk, [`MemStore`] in memory for simulations, where
//! it fails and tears from a seed.
//!
//! **Invariants.** A commit is answered after its redo frame was fdatasynced, never before. A
//! commit is whole or absent after any crash. A store opens with everything that was answered or
//! refuses with the command that restores; it never starts empty or short. A failed fsync ends
//! the store. Nobody but [`EmbeddedStore`] and `penstock store` writes into its directory:
//!
//! ```text
//! guard             the store's id, format, last checkpoint, last reign
//! redo/             batches behind the last checkpoints: the durability point
//! checkpoint/       all records at one sequence, the newest two
//! blobs/            scripts and environments by content
//! history/          ended jobs, and the index of them
//! sled/             a copy of the records that follows behind; made anew when lost
//! ```

mod api;
mod blobs;
mod checkpoint;
mod codec;
mod embedded;
mod error;
mod files;
mod follower;
mod frames;
mod guard;
mod history;
mod history_file;
mod key;
mod maintenance;
mod mem;
mod pack;
mod rebuild;
mod redo;
mod shared;
mod sled_copy;
mod survey;

pub use api::{BlobSource, BlobSweep, Store};
pub use checkpoint::CheckpointError;
pub use embedded::{EmbeddedStore, Options};
pub use error::{BoxError, OpenError, StoreError};
pub use follower::{SledProbe, SledState};
pub use history::{History, HistoryQuery};
pub use history_file::HistoryEntry;
pub use key::{
    Batch, BatchLimits, BlobHash, Change, Key, KeyBuilder, MAX_BLOB_BYTES, MAX_KEY_BYTES,
    MAX_VALUE_BYTES, Revision, Term,
};
pub use maintenance::{Report, check, export};
pub use mem::{MemFaults, MemStore};
pub use rebuild::{Rebuilt, rebuild};
pub use shared::{CheckpointDone, CheckpointWriter};
pub use sled_copy::probe_sled;
