//! How do srun and salloc get a job to work in?
//!
//! Both send a job without a script and hold it: it lasts as long as they do. What it asks for is
//! read by sbatch's own options; those that only they have are added here.

mod hold;
mod options;
mod spec;
pub(crate) mod table;

pub(crate) use hold::{Allocated, Holder, NoJob, Pending, get};
pub(crate) use options::{Extras, Order, mpi_list, read, words};
pub(crate) use spec::{job_spec, once};
pub(crate) use table::Command;
