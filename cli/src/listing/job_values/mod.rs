//! What is the value of a job's field?
//!
//! One function a field, shared by squeue, sacct and scontrol. On the row of a batch step a field of
//! the job as a whole is empty.

pub(crate) mod files;
pub(crate) mod identity;
pub(crate) mod size;
pub(crate) mod times;
pub(crate) mod unset;
pub(crate) mod used;
