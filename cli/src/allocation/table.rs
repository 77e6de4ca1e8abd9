//! Which options and variables do srun and salloc know?
//!
//! sbatch's, but for those that make no sense without a script, and their own. Where both have one of
//! the same name, theirs counts.

use crate::options::{Opt, Takes};
use crate::sbatch::table::{Key as J, TABLE as SBATCH};

use self::Key as K;
use self::Takes::{Maybe, Nothing, Value};

/// Whose options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Srun,
    Salloc,
}

/// What an option sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// One of sbatch's.
    Job(J),
    // Of both.
    Distribution,
    Hint,
    Immediate,
    NoKill,
    Overcommit,
    // srun's.
    CpuBind,
    DisableStatus,
    Error,
    Exact,
    Exclusive,
    Input,
    Jobid,
    KillOnBadExit,
    Label,
    Mpi,
    MultiProg,
    Output,
    Overlap,
    Pty,
    QuitOnInterrupt,
    Relative,
    TaskEpilog,
    TaskProlog,
    Threads,
    Unbuffered,
    Wait,
    Whole,
    // salloc's.
    Bell,
    KillCommand,
    NoBell,
    NoShell,
    /// Refused by its name.
    Unbuilt(&'static str),
}

const fn unbuilt(long: &'static str, takes: Takes) -> Opt<Key> {
    Opt::long(long, takes, K::Unbuilt(long))
}

const BOTH: &[Opt<Key>] = &[
    Opt::both('m', "distribution", Value, K::Distribution),
    Opt::long("hint", Value, K::Hint),
    Opt::both('I', "immediate", Maybe, K::Immediate),
    Opt::both('k', "no-kill", Maybe, K::NoKill),
    Opt::both('O', "overcommit", Nothing, K::Overcommit),
    unbuilt("reboot", Nothing),
    unbuilt("gres-flags", Value),
];

const SRUN: &[Opt<Key>] = &[
    Opt::long("cpu-bind", Value, K::CpuBind),
    Opt::long("cpu_bind", Value, K::CpuBind),
    Opt::both('X', "disable-status", Nothing, K::DisableStatus),
    Opt::both('e', "error", Value, K::Error),
    Opt::long("exact", Nothing, K::Exact),
    Opt::long("exclusive", Maybe, K::Exclusive),
    Opt::both('i', "input", Value, K::Input),
    Opt::long("jobid", Value, K::Jobid),
    Opt::both('K', "kill-on-bad-exit", Maybe, K::KillOnBadExit),
    Opt::both('l', "label", Nothing, K::Label),
    Opt::long("mpi", Value, K::Mpi),
    Opt::long("multi-prog", Nothing, K::MultiProg),
    Opt::both('o', "output", Value, K::Output),
    Opt::long("overlap", Nothing, K::Overlap),
    Opt::long("pty", Nothing, K::Pty),
    Opt::long("quit-on-interrupt", Nothing, K::QuitOnInterrupt),
    Opt::both('r', "relative", Value, K::Relative),
    Opt::long("task-epilog", Value, K::TaskEpilog),
    Opt::long("task-prolog", Value, K::TaskProlog),
    Opt::both('T', "threads", Value, K::Threads),
    Opt::both('u', "unbuffered", Nothing, K::Unbuffered),
    Opt::both('W', "wait", Value, K::Wait),
    Opt::long("whole", Nothing, K::Whole),
    unbuilt("accel-bind", Value),
    unbuilt("bcast", Maybe),
    unbuilt("bcast-exclude", Value),
    unbuilt("compress", Maybe),
    unbuilt("debugger-test", Nothing),
    unbuilt("epilog", Value),
    unbuilt("het-group", Value),
    Opt::long("pack-group", Value, K::Unbuilt("het-group")),
    unbuilt("interactive", Nothing),
    unbuilt("launch-cmd", Nothing),
    unbuilt("launcher-opts", Value),
    unbuilt("msg-timeout", Value),
    Opt::both('Z', "no-allocate", Nothing, K::Unbuilt("no-allocate")),
    unbuilt("prolog", Value),
    unbuilt("resv-ports", Maybe),
    unbuilt("send-libs", Maybe),
    unbuilt("slurmd-debug", Value),
    unbuilt("treewidth", Value),
];

const SALLOC: &[Opt<Key>] = &[
    Opt::long("bell", Nothing, K::Bell),
    Opt::both('K', "kill-command", Maybe, K::KillCommand),
    Opt::long("no-bell", Nothing, K::NoBell),
    Opt::long("no-shell", Nothing, K::NoShell),
];

/// What sbatch alone has.
const SBATCH_ALONE: &[&str] = &[
    "array",
    "batch",
    "export-file",
    "ignore-pbs",
    "kill-on-invalid-dep",
    "no-requeue",
    "parsable",
    "requeue",
    "wait",
    "wrap",
];

/// What sbatch has and srun not.
const NOT_SRUN: &[&str] = &["get-user-env", "wait-all-nodes"];

/// What sbatch has and salloc not.
const NOT_SALLOC: &[&str] =
    &["error", "export", "input", "open-mode", "output", "propagate", "test-only"];

/// All options of a command.
pub(crate) fn table(command: Command) -> Vec<Opt<Key>> {
    let (own, without) = match command {
        Command::Srun => (SRUN, NOT_SRUN),
        Command::Salloc => (SALLOC, NOT_SALLOC),
    };
    let mut all: Vec<Opt<Key>> = own.iter().chain(BOTH).copied().collect();
    for option in SBATCH {
        let known = all.iter().any(|own| own.long == option.long);
        if known || SBATCH_ALONE.contains(&option.long) || without.contains(&option.long) {
            continue;
        }
        let short = option.short.filter(|letter| all.iter().all(|own| own.short != Some(*letter)));
        let key = match option.key {
            J::Unbuilt(name) => K::Unbuilt(name),
            key => K::Job(key),
        };
        all.push(Opt { long: option.long, short, takes: option.takes, key });
    }
    all
}

/// srun's variables and the options that they stand for; later ones win.
pub(crate) const SRUN_ENVIRONMENT: &[(&str, Key)] = &[
    ("SLURM_ACCOUNT", K::Job(J::Account)),
    ("SLURM_CLUSTERS", K::Unbuilt("clusters")),
    ("SLURM_CONSTRAINT", K::Job(J::Constraint)),
    ("SLURM_CPU_BIND", K::CpuBind),
    ("SLURM_CPUS_PER_GPU", K::Job(J::CpusPerGpu)),
    ("SRUN_CPUS_PER_TASK", K::Job(J::CpusPerTask)),
    ("SLURM_DEBUG", K::Job(J::Verbose)),
    ("SLURM_DEPENDENCY", K::Job(J::Dependency)),
    ("SLURM_DISABLE_STATUS", K::DisableStatus),
    ("SLURM_DISTRIBUTION", K::Distribution),
    ("SLURM_EXACT", K::Exact),
    ("SLURM_EXCLUSIVE", K::Exclusive),
    ("SLURM_EXPORT_ENV", K::Job(J::Export)),
    ("SRUN_EXPORT_ENV", K::Job(J::Export)),
    ("SLURM_GPU_BIND", K::Job(J::GpuBind)),
    ("SLURM_GPUS", K::Job(J::Gpus)),
    ("SLURM_GPUS_PER_NODE", K::Job(J::GpusPerNode)),
    ("SLURM_GPUS_PER_TASK", K::Job(J::GpusPerTask)),
    ("SLURM_HINT", K::Hint),
    ("SLURM_IMMEDIATE", K::Immediate),
    ("SLURM_JOB_NAME", K::Job(J::JobName)),
    ("SLURM_JOB_NUM_NODES", K::Job(J::Nodes)),
    ("SLURM_NNODES", K::Job(J::Nodes)),
    ("SLURM_KILL_BAD_EXIT", K::KillOnBadExit),
    ("SLURM_LABELIO", K::Label),
    ("SLURM_MEM_PER_CPU", K::Job(J::MemPerCpu)),
    ("SLURM_MEM_PER_GPU", K::Job(J::MemPerGpu)),
    ("SLURM_MEM_PER_NODE", K::Job(J::Mem)),
    ("SLURM_MPI_TYPE", K::Mpi),
    ("SLURM_NO_KILL", K::NoKill),
    ("SLURM_NPROCS", K::Job(J::Ntasks)),
    ("SLURM_NTASKS", K::Job(J::Ntasks)),
    ("SLURM_NTASKS_PER_CORE", K::Unbuilt("ntasks-per-core")),
    ("SLURM_NTASKS_PER_NODE", K::Job(J::NtasksPerNode)),
    ("SLURM_NTASKS_PER_SOCKET", K::Unbuilt("ntasks-per-socket")),
    ("SLURM_OPEN_MODE", K::Job(J::OpenMode)),
    ("SLURM_OVERCOMMIT", K::Overcommit),
    ("SLURM_OVERLAP", K::Overlap),
    ("SLURM_PARTITION", K::Job(J::Partition)),
    ("SLURM_QOS", K::Job(J::Qos)),
    ("SLURM_REMOTE_CWD", K::Job(J::Chdir)),
    ("SLURM_REQ_SWITCH", K::Job(J::Switches)),
    ("SLURM_RESERVATION", K::Job(J::Reservation)),
    ("SLURM_SIGNAL", K::Job(J::Signal)),
    ("SLURM_STDERRMODE", K::Error),
    ("SLURM_STDINMODE", K::Input),
    ("SLURM_STDOUTMODE", K::Output),
    ("SLURM_STEP_GRES", K::Job(J::Gres)),
    ("SLURM_TASK_EPILOG", K::TaskEpilog),
    ("SLURM_TASK_PROLOG", K::TaskProlog),
    ("SLURM_THREADS", K::Threads),
    ("SLURM_THREADS_PER_CORE", K::Unbuilt("threads-per-core")),
    ("SLURM_TIMELIMIT", K::Job(J::Time)),
    ("SLURM_UNBUFFEREDIO", K::Unbuffered),
    ("SLURM_WAIT", K::Wait),
    ("SLURM_WCKEY", K::Job(J::Wckey)),
    ("SLURM_WHOLE", K::Whole),
];

/// salloc's variables and the options that they stand for.
pub(crate) const SALLOC_ENVIRONMENT: &[(&str, Key)] = &[
    ("SALLOC_ACCOUNT", K::Job(J::Account)),
    ("SALLOC_BELL", K::Bell),
    ("SALLOC_NO_BELL", K::NoBell),
    ("SALLOC_CLUSTERS", K::Unbuilt("clusters")),
    ("SALLOC_CONSTRAINT", K::Job(J::Constraint)),
    ("SALLOC_CPUS_PER_GPU", K::Job(J::CpusPerGpu)),
    ("SALLOC_DEBUG", K::Job(J::Verbose)),
    ("SALLOC_DISTRIBUTION", K::Distribution),
    ("SALLOC_EXCLUSIVE", K::Job(J::Exclusive)),
    ("SALLOC_GPU_BIND", K::Job(J::GpuBind)),
    ("SALLOC_GPUS", K::Job(J::Gpus)),
    ("SALLOC_GPUS_PER_NODE", K::Job(J::GpusPerNode)),
    ("SALLOC_GPUS_PER_TASK", K::Job(J::GpusPerTask)),
    ("SALLOC_GRES", K::Job(J::Gres)),
    ("SALLOC_HINT", K::Hint),
    ("SALLOC_IMMEDIATE", K::Immediate),
    ("SALLOC_KILL_CMD", K::KillCommand),
    ("SALLOC_MEM_PER_CPU", K::Job(J::MemPerCpu)),
    ("SALLOC_MEM_PER_GPU", K::Job(J::MemPerGpu)),
    ("SALLOC_MEM_PER_NODE", K::Job(J::Mem)),
    ("SALLOC_NO_KILL", K::NoKill),
    ("SALLOC_OVERCOMMIT", K::Overcommit),
    ("SALLOC_PARTITION", K::Job(J::Partition)),
    ("SALLOC_QOS", K::Job(J::Qos)),
    ("SALLOC_REQ_SWITCH", K::Job(J::Switches)),
    ("SALLOC_RESERVATION", K::Job(J::Reservation)),
    ("SALLOC_SIGNAL", K::Job(J::Signal)),
    ("SALLOC_THREADS_PER_CORE", K::Unbuilt("threads-per-core")),
    ("SALLOC_TIMELIMIT", K::Job(J::Time)),
    ("SALLOC_WCKEY", K::Job(J::Wckey)),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_name_and_no_letter_is_given_twice() {
        for command in [Command::Srun, Command::Salloc] {
            let table = table(command);
            let names: BTreeSet<&str> = table.iter().map(|option| option.long).collect();
            assert_eq!(names.len(), table.len());
            let letters: Vec<char> = table.iter().filter_map(|option| option.short).collect();
            assert_eq!(letters.iter().collect::<BTreeSet<_>>().len(), letters.len());
        }
    }

    #[test]
    fn every_variable_stands_for_an_option() {
        for (command, variables) in
            [(Command::Srun, SRUN_ENVIRONMENT), (Command::Salloc, SALLOC_ENVIRONMENT)]
        {
            let table = table(command);
            for (variable, key) in variables {
                assert!(table.iter().any(|option| option.key == *key), "{variable}");
            }
        }
    }

    #[test]
    fn options_of_batch_scripts_are_unknown_here() {
        for command in [Command::Srun, Command::Salloc] {
            assert!(table(command).iter().all(|option| option.long != "wrap"));
        }
        assert!(table(Command::Salloc).iter().all(|option| option.long != "output"));
    }
}
