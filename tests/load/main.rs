//! How fast is it? A load generator that prints figures against the budgets of the design.
//!
//! It starts a cluster of its own by `penstock quickstart`, measures, and stops it. Run a release
//! build: `cargo run --release --bin penstock-load -- --penstock target/release/penstock all`.

#![expect(clippy::print_stdout, reason = "printing figures is what this program is for")]

mod cluster;
mod figures;
mod history;
mod jobs;
mod memory;
mod submit;
mod usage;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::cluster::TestCluster;

/// Measures a Penstock of its own.
#[derive(Debug, Parser)]
#[command(name = "penstock-load")]
struct Arguments {
    /// The binary to measure.
    #[arg(long, default_value = "target/release/penstock")]
    penstock: PathBuf,
    /// State goes below here; by default into a temporary folder.
    #[arg(long)]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Everything, in turn.
    All,
    /// Durable submissions, single and batched, with 1, 8 and 64 clients.
    Submit {
        /// Seconds for each measurement.
        #[arg(long, default_value_t = 5)]
        secs: u64,
    },
    /// `sbatch` as a process, alone and 16 at once.
    Sbatch,
    /// Submit to start and to end of single jobs on an idle cluster.
    Latency {
        /// Jobs.
        #[arg(long, default_value_t = 200)]
        jobs: u32,
    },
    /// No-op jobs, as single jobs and as an array.
    Noop {
        /// Jobs.
        #[arg(long, default_value_t = 5000)]
        jobs: u32,
    },
    /// What samples of GPUs and of what jobs use cost the controller.
    Usage {
        /// Nodes, each with eight GPUs.
        #[arg(long, default_value_t = 10_000)]
        nodes: u32,
    },
    /// `sacct` of one user's day in a long history.
    History {
        /// Jobs.
        #[arg(long, default_value_t = 1_000_000)]
        jobs: u32,
    },
    /// `squeue`, memory and restart with many pending jobs.
    Queue {
        /// Jobs.
        #[arg(long, default_value_t = 100_000)]
        jobs: u32,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let temporary = tempfile::tempdir()?;
    let dir = arguments.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let start = |name: &str| TestCluster::start(&arguments.penstock, &dir.join(name));
    let submit_all = |secs: u64| -> Result<()> {
        let cluster = start("submit")?;
        runtime.block_on(submit::measure(&cluster, secs))
    };
    match arguments.what {
        What::Submit { secs } => submit_all(secs)?,
        What::Sbatch => jobs::sbatch_processes(&start("sbatch")?)?,
        What::Latency { jobs } => runtime.block_on(jobs::latency(&start("latency")?, jobs))?,
        What::Noop { jobs } => runtime.block_on(jobs::noop(&start("noop")?, jobs))?,
        What::Usage { nodes } => usage::measure(nodes)?,
        What::History { jobs } => runtime.block_on(history::measure(start("history")?, jobs))?,
        What::Queue { jobs } => runtime.block_on(memory::queue(start("queue")?, jobs))?,
        What::All => {
            submit_all(5)?;
            jobs::sbatch_processes(&start("sbatch")?)?;
            runtime.block_on(jobs::latency(&start("latency")?, 200))?;
            runtime.block_on(jobs::noop(&start("noop")?, 5000))?;
            runtime.block_on(memory::queue(start("queue")?, 100_000))?;
            usage::measure(10_000)?;
            runtime.block_on(history::measure(start("history")?, 1_000_000))?;
        }
    }
    Ok(())
}
