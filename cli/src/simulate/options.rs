//! What can be asked of `penstock simulate`?

use std::path::PathBuf;

use clap::Args;

use super::job::Overrun;
use super::machine::Target;
use super::policy::Policy;
use super::read::Format;

/// The long help: what a replay is, precisely.
const RULES: &str = "\
Rules of a replay:
  Records whose run time or size is 0 or less, or whose size exceeds the cluster, are dropped and
  counted, and so are lines that are not understood. The size is the requested processors, else the
  allocated ones; a missing request is the run time. A job that ran past its request gets its run
  time as request (--overrun extend) or is cut (clip). All events of one instant are applied, ends
  before submissions, then one pass of the scheduler is made; ties go by submit time, then line.

  units:N is N identical units without nodes. A cluster file gives nodes (each [[node]] needs cpus),
  partitions and scheduling; a CSV of nodes (name,cpu,memory,gpu,model) gives nodes alone.

  Where a list of nodes has a column mig (dynamic: cut as the queue asks; or a layout for each GPU, such
  as 3g@4+2g@2+1g@0+1g@1), a pod with gpu_milli below 1000 gets the smallest slice with as much compute,
  or the one that its column profile names, other pods slices that are a whole GPU each. Sizes and
  figures are then counted in compute slices. Each slice that goes or comes takes a second.

What is not replayed:
  Of a job there are processors or GPUs, times, user and partition. Memory, nodes, features and
  dependencies of a trace are not looked at; only a list of pods has memory and models.
  --history takes the jobs that ended, with the CPUs that they were given, their limit and their last
  run: neither GPUs and memory, nor earlier runs of jobs that were requeued.
  Accounts, QOS and reservations of a live cluster are not there, and nobody is preempted: what a
  file says under [preemption] is left out, and the report says so.

Policies are settings of the scheduler that a live cluster runs:
  fcfs          order of submission, nobody passes
  easy          the same, whoever does not delay the first in line goes ahead
  conservative  the same, whoever delays nobody ahead
  default       what a cluster file that says nothing gets
  FILE          the scheduling sections of a cluster file

Figures:
  utilisation is unit-seconds that jobs ran over units times makespan; a percentile is the value of
  a real job (nearest rank); bounded slowdown is max(1, (wait + run) / max(run, 10 s)); Jain's index
  of users is (sum x)^2 / (n sum x^2) of their mean bounded slowdowns, 1 where all fare alike; idle
  GPUs of no use are those on nodes where a job of this trace, picked at random among those that ask
  for GPUs, does not fit.

Example:
  penstock simulate sdsc_sp2.swf.gz --cluster units:128 --compare easy --plot sp2.svg";

/// The command line.
#[derive(Debug, Args)]
#[command(after_long_help = RULES)]
pub(crate) struct Simulate {
    /// Trace, plain or gzip'd
    #[arg(required_unless_present = "history", conflicts_with = "history")]
    pub(super) trace: Option<PathBuf>,
    /// Replay this cluster's own accounting instead
    #[arg(long)]
    pub(super) history: bool,
    /// Cluster file, CSV of nodes, or units:N
    #[arg(long, value_name = "FILE|units:N")]
    pub(super) cluster: Target,
    /// fcfs, easy, conservative, default, or a file [default: the cluster file's own]
    #[arg(long)]
    pub(super) policy: Option<Policy>,
    /// A second policy to set beside the first
    #[arg(long, value_name = "POLICY")]
    pub(super) compare: Option<Policy>,
    /// Only so many jobs, the first by submit time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) jobs: Option<u64>,
    /// How the trace is written; told from its content if not given
    #[arg(long, value_enum, conflicts_with = "history")]
    pub(super) format: Option<Format>,
    /// What becomes of runs that went on past their request
    #[arg(long, value_enum, default_value = "extend")]
    pub(super) overrun: Overrun,
    /// Figures as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Write job,submit,start,end,units of the first policy
    #[arg(long, value_name = "FILE.csv")]
    pub(super) dump: Option<PathBuf>,
    /// Draw utilisation and queue over time
    #[arg(long, value_name = "FILE.svg")]
    pub(super) plot: Option<PathBuf>,
}
