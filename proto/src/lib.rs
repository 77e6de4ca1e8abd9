//! The wire contract of Penstock and the records of its store, version 1.
//!
//! The messages are generated from `penstock/v1/*.proto` and are used by the edges only: the
//! cores never see them. A message, a record and a tag are promises; they evolve by addition.

pub mod job_variables;
pub mod pmi;
pub mod relay;
pub mod step_io;
pub mod usage;

/// Version 1 of the contract.
pub mod v1 {
    tonic::include_proto!("penstock.v1");
}

/// Highest record format that this version writes and reads.
pub const RECORD_FORMAT: u32 = 1;

/// Metadata key in which a host's daemon states the uid of the process that called it.
pub const UID_HEADER: &str = "penstock-uid";

/// Metadata key in which a host's daemon states the gid of the process that called it.
pub const GID_HEADER: &str = "penstock-gid";

/// Largest message on any stream: a script and an environment of 4 MiB each, and a spec.
pub const MAX_MESSAGE_BYTES: usize = 10 << 20;

/// Largest script, and largest environment, of a job: 4 MiB, as Slurm's.
pub const MAX_BLOB_BYTES: usize = 4 << 20;

/// Most specs in one `SubmitJobs` call.
pub const MAX_SPECS_PER_CALL: usize = 1_000;
