//! Which options and environment variables does sbatch know, and which of them are built?
//!
//! Every option of Slurm's sbatch is listed: one that is not built yet is refused by its name, so
//! that no script runs with less than it asked for.

use crate::options::{Opt, Takes};

use self::Key as K;
use self::Takes::{Maybe, Nothing, Value};

/// What an option sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Account,
    AcctgFreq,
    Array,
    Begin,
    Chdir,
    Comment,
    Constraint,
    Container,
    ContainerImage,
    CpusPerGpu,
    CpusPerTask,
    Deadline,
    Dependency,
    Distribution,
    Error,
    Exclude,
    Exclusive,
    Oversubscribe,
    Export,
    GetUserEnv,
    GpuBind,
    Gpus,
    GpusPerNode,
    GpusPerSocket,
    GpusPerTask,
    Gres,
    Help,
    Hold,
    Idempotency,
    IdleOk,
    IgnorePbs,
    Input,
    JobName,
    KillOnInvalidDep,
    Licenses,
    MailType,
    MailUser,
    Mem,
    MemPerCpu,
    MemPerGpu,
    Nice,
    NoKill,
    NoRequeue,
    Nodelist,
    Nodes,
    Ntasks,
    NtasksPerNode,
    OpenMode,
    Output,
    Overcommit,
    Parsable,
    Partition,
    Priority,
    Propagate,
    Qos,
    Quiet,
    Requeue,
    Reservation,
    Signal,
    SocketsPerNode,
    Switches,
    TestOnly,
    Time,
    TimeMin,
    Usage,
    Verbose,
    Version,
    Wait,
    WaitAllNodes,
    Wckey,
    Wrap,
    /// One of Slurm's options that is refused; its long name.
    Unbuilt(&'static str),
}

impl Key {
    /// The long name of the option.
    pub(crate) fn name(self) -> &'static str {
        if let Self::Unbuilt(name) = self {
            return name;
        }
        TABLE.iter().find(|option| option.key == self).map_or("", |option| option.long)
    }
}

const fn unbuilt(long: &'static str, takes: Takes) -> Opt<Key> {
    Opt::long(long, takes, K::Unbuilt(long))
}

const fn unbuilt_letter(short: char, long: &'static str, takes: Takes) -> Opt<Key> {
    Opt::both(short, long, takes, K::Unbuilt(long))
}

/// sbatch's options.
pub(crate) const TABLE: &[Opt<Key>] = &[
    Opt::both('A', "account", Value, K::Account),
    Opt::long("acctg-freq", Value, K::AcctgFreq),
    Opt::both('a', "array", Value, K::Array),
    Opt::both('b', "begin", Value, K::Begin),
    Opt::both('D', "chdir", Value, K::Chdir),
    Opt::long("comment", Value, K::Comment),
    Opt::both('C', "constraint", Value, K::Constraint),
    Opt::long("container", Value, K::Container),
    Opt::long("container-image", Value, K::ContainerImage),
    Opt::long("cpus-per-gpu", Value, K::CpusPerGpu),
    Opt::both('c', "cpus-per-task", Value, K::CpusPerTask),
    Opt::long("deadline", Value, K::Deadline),
    Opt::both('d', "dependency", Value, K::Dependency),
    Opt::both('m', "distribution", Value, K::Distribution),
    Opt::both('e', "error", Value, K::Error),
    Opt::both('x', "exclude", Value, K::Exclude),
    Opt::long("exclusive", Maybe, K::Exclusive),
    Opt::long("export", Value, K::Export),
    Opt::both('s', "oversubscribe", Nothing, K::Oversubscribe),
    Opt::long("share", Nothing, K::Oversubscribe),
    Opt::long("get-user-env", Maybe, K::GetUserEnv),
    Opt::long("gpu-bind", Value, K::GpuBind),
    Opt::both('G', "gpus", Value, K::Gpus),
    Opt::long("gpus-per-node", Value, K::GpusPerNode),
    Opt::long("gpus-per-socket", Value, K::GpusPerSocket),
    Opt::long("gpus-per-task", Value, K::GpusPerTask),
    Opt::long("gres", Value, K::Gres),
    Opt::both('h', "help", Nothing, K::Help),
    Opt::both('H', "hold", Nothing, K::Hold),
    Opt::long("idle-ok", Value, K::IdleOk),
    Opt::long("ignore-pbs", Nothing, K::IgnorePbs),
    Opt::both('i', "input", Value, K::Input),
    Opt::both('J', "job-name", Value, K::JobName),
    Opt::long("kill-on-invalid-dep", Value, K::KillOnInvalidDep),
    Opt::both('L', "licenses", Value, K::Licenses),
    Opt::long("mail-type", Value, K::MailType),
    Opt::long("mail-user", Value, K::MailUser),
    Opt::long("mem", Value, K::Mem),
    Opt::long("mem-per-cpu", Value, K::MemPerCpu),
    Opt::long("mem-per-gpu", Value, K::MemPerGpu),
    Opt::long("nice", Maybe, K::Nice),
    Opt::both('k', "no-kill", Maybe, K::NoKill),
    Opt::long("no-requeue", Nothing, K::NoRequeue),
    Opt::both('w', "nodelist", Value, K::Nodelist),
    Opt::both('N', "nodes", Value, K::Nodes),
    Opt::both('n', "ntasks", Value, K::Ntasks),
    Opt::long("tasks", Value, K::Ntasks),
    Opt::long("ntasks-per-node", Value, K::NtasksPerNode),
    Opt::long("tasks-per-node", Value, K::NtasksPerNode),
    Opt::long("open-mode", Value, K::OpenMode),
    Opt::both('o', "output", Value, K::Output),
    Opt::long("parsable", Nothing, K::Parsable),
    Opt::both('p', "partition", Value, K::Partition),
    Opt::long("priority", Value, K::Priority),
    Opt::long("propagate", Maybe, K::Propagate),
    Opt::both('q', "qos", Value, K::Qos),
    Opt::both('Q', "quiet", Nothing, K::Quiet),
    Opt::long("requeue", Nothing, K::Requeue),
    Opt::long("reservation", Value, K::Reservation),
    Opt::long("signal", Value, K::Signal),
    Opt::long("sockets-per-node", Value, K::SocketsPerNode),
    Opt::long("switches", Value, K::Switches),
    Opt::long("test-only", Nothing, K::TestOnly),
    Opt::both('t', "time", Value, K::Time),
    Opt::long("time-min", Value, K::TimeMin),
    Opt::long("usage", Nothing, K::Usage),
    Opt::both('v', "verbose", Nothing, K::Verbose),
    Opt::both('V', "version", Nothing, K::Version),
    Opt::both('O', "overcommit", Nothing, K::Overcommit),
    Opt::long("idempotency-key", Value, K::Idempotency),
    Opt::both('W', "wait", Nothing, K::Wait),
    Opt::long("wait-all-nodes", Value, K::WaitAllNodes),
    Opt::long("wckey", Value, K::Wckey),
    Opt::long("wrap", Value, K::Wrap),
    unbuilt("batch", Value),
    unbuilt("bb", Value),
    unbuilt("bbf", Value),
    unbuilt("cluster-constraint", Value),
    unbuilt_letter('M', "clusters", Value),
    Opt::long("cluster", Value, K::Unbuilt("clusters")),
    unbuilt("contiguous", Nothing),
    unbuilt_letter('S', "core-spec", Value),
    unbuilt("cores-per-socket", Value),
    unbuilt("cpu-freq", Value),
    unbuilt("delay-boot", Value),
    unbuilt("export-file", Value),
    unbuilt_letter('B', "extra-node-info", Value),
    unbuilt("gid", Value),
    unbuilt("gpu-freq", Value),
    unbuilt("gres-flags", Value),
    unbuilt("hint", Value),
    unbuilt("mcs-label", Value),
    unbuilt("mem-bind", Value),
    unbuilt("mincpus", Value),
    unbuilt("network", Value),
    unbuilt_letter('F', "nodefile", Value),
    unbuilt("ntasks-per-core", Value),
    unbuilt("ntasks-per-gpu", Value),
    unbuilt("ntasks-per-socket", Value),
    unbuilt("power", Value),
    unbuilt("prefer", Value),
    unbuilt("profile", Value),
    unbuilt("reboot", Nothing),
    unbuilt("spread-job", Nothing),
    unbuilt("thread-spec", Value),
    unbuilt("threads-per-core", Value),
    unbuilt("tmp", Value),
    unbuilt("uid", Value),
    unbuilt("use-min-nodes", Nothing),
    unbuilt("x11", Maybe),
];

/// sbatch's environment variables and the options that they stand for.
pub(crate) const ENVIRONMENT: &[(&str, Key)] = &[
    ("SBATCH_ACCOUNT", K::Account),
    ("SBATCH_ACCTG_FREQ", K::AcctgFreq),
    ("SBATCH_ARRAY_INX", K::Array),
    ("SBATCH_CLUSTERS", K::Unbuilt("clusters")),
    ("SBATCH_CONSTRAINT", K::Constraint),
    ("SBATCH_CPUS_PER_GPU", K::CpusPerGpu),
    ("SBATCH_DEBUG", K::Verbose),
    ("SBATCH_DISTRIBUTION", K::Distribution),
    ("SBATCH_ERROR", K::Error),
    ("SBATCH_EXCLUSIVE", K::Exclusive),
    ("SBATCH_EXPORT", K::Export),
    ("SBATCH_GET_USER_ENV", K::GetUserEnv),
    ("SBATCH_GPUS", K::Gpus),
    ("SBATCH_GPUS_PER_NODE", K::GpusPerNode),
    ("SBATCH_GPUS_PER_TASK", K::GpusPerTask),
    ("SBATCH_GRES", K::Gres),
    ("SBATCH_HINT", K::Unbuilt("hint")),
    ("SBATCH_IGNORE_PBS", K::IgnorePbs),
    ("SBATCH_INPUT", K::Input),
    ("SBATCH_JOB_NAME", K::JobName),
    ("SBATCH_MEM_PER_CPU", K::MemPerCpu),
    ("SBATCH_MEM_PER_GPU", K::MemPerGpu),
    ("SBATCH_MEM_PER_NODE", K::Mem),
    ("SBATCH_NO_KILL", K::NoKill),
    ("SBATCH_NO_REQUEUE", K::NoRequeue),
    ("SBATCH_OPEN_MODE", K::OpenMode),
    ("SBATCH_OUTPUT", K::Output),
    ("SBATCH_OVERCOMMIT", K::Overcommit),
    ("SBATCH_PARTITION", K::Partition),
    ("SBATCH_PROFILE", K::Unbuilt("profile")),
    ("SBATCH_QOS", K::Qos),
    ("SBATCH_REQUEUE", K::Requeue),
    ("SBATCH_REQ_SWITCH", K::Switches),
    ("SBATCH_CONTAINER", K::Container),
    ("SBATCH_RESERVATION", K::Reservation),
    ("SBATCH_SIGNAL", K::Signal),
    ("SBATCH_THREADS_PER_CORE", K::Unbuilt("threads-per-core")),
    ("SBATCH_TIMELIMIT", K::Time),
    ("SBATCH_USE_MIN_NODES", K::Unbuilt("use-min-nodes")),
    ("SBATCH_WAIT", K::Wait),
    ("SBATCH_WAIT_ALL_NODES", K::WaitAllNodes),
    ("SBATCH_WCKEY", K::Wckey),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_name_and_no_letter_is_given_twice() {
        let names: BTreeSet<&str> = TABLE.iter().map(|option| option.long).collect();
        assert_eq!(names.len(), TABLE.len());
        let letters: Vec<char> = TABLE.iter().filter_map(|option| option.short).collect();
        assert_eq!(letters.iter().collect::<BTreeSet<_>>().len(), letters.len());
    }

    #[test]
    fn every_variable_stands_for_an_option() {
        for (variable, key) in ENVIRONMENT {
            assert!(!key.name().is_empty(), "{variable}");
            assert!(TABLE.iter().any(|option| option.key == *key), "{variable}");
        }
    }
}
