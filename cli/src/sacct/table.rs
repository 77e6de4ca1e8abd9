//! Which options does sacct know?

use crate::options::{Opt, Takes};

use self::Key as K;
use self::Takes::{Maybe, Nothing, Value};

/// What an option sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Account,
    Associations,
    AllUsers,
    Allocations,
    Brief,
    Completion,
    Cpus,
    Delimiter,
    Duplicates,
    End,
    Format,
    Group,
    Help,
    HelpFormat,
    Jobs,
    Long,
    Name,
    Wckeys,
    NoConvert,
    NoHeader,
    Nodes,
    NodeList,
    Parsable,
    Parsable2,
    Partition,
    Qos,
    Start,
    State,
    TimeLimitMin,
    TimeLimitMax,
    Truncate,
    Uid,
    Units,
    Clusters,
    Usage,
    User,
    Version,
    Json,
    Yaml,
    /// Accepted, and without effect here.
    Ignored,
    /// One of Slurm's options that is refused; its long name.
    Unbuilt(&'static str),
}

/// sacct's options.
pub(crate) const TABLE: &[Opt<Key>] = &[
    Opt::both('A', "accounts", Value, K::Account),
    Opt::both('a', "allusers", Nothing, K::AllUsers),
    Opt::both('L', "allclusters", Nothing, K::Ignored),
    Opt::both('X', "allocations", Nothing, K::Allocations),
    Opt::both('x', "associations", Value, K::Associations),
    Opt::both('b', "brief", Nothing, K::Brief),
    Opt::both('B', "batch-script", Nothing, K::Unbuilt("batch-script")),
    Opt::both('M', "clusters", Value, K::Clusters),
    Opt::both('c', "completion", Nothing, K::Completion),
    Opt::both('C', "constraints", Value, K::Unbuilt("constraints")),
    Opt::long("delimiter", Value, K::Delimiter),
    Opt::both('D', "duplicates", Nothing, K::Duplicates),
    Opt::both('E', "endtime", Value, K::End),
    Opt::long("env-vars", Nothing, K::Unbuilt("env-vars")),
    Opt::long("federation", Nothing, K::Ignored),
    Opt::both('f', "file", Value, K::Unbuilt("file")),
    Opt::both('F', "flags", Value, K::Unbuilt("flags")),
    Opt::both('o', "format", Value, K::Format),
    Opt::long("fields", Value, K::Format),
    Opt::both('g', "gid", Value, K::Group),
    Opt::long("group", Value, K::Group),
    Opt::both('h', "help", Nothing, K::Help),
    Opt::both('e', "helpformat", Nothing, K::HelpFormat),
    Opt::both('j', "jobs", Value, K::Jobs),
    Opt::long("json", Maybe, K::Json),
    Opt::long("local", Nothing, K::Ignored),
    Opt::both('l', "long", Nothing, K::Long),
    Opt::long("name", Value, K::Name),
    Opt::both('I', "ncpus", Value, K::Cpus),
    Opt::both('i', "nnodes", Value, K::Nodes),
    Opt::long("noconvert", Nothing, K::NoConvert),
    Opt::both('N', "nodelist", Value, K::NodeList),
    Opt::both('n', "noheader", Nothing, K::NoHeader),
    Opt::both('p', "parsable", Nothing, K::Parsable),
    Opt::both('P', "parsable2", Nothing, K::Parsable2),
    Opt::both('r', "partition", Value, K::Partition),
    Opt::both('q', "qos", Value, K::Qos),
    Opt::long("reason", Value, K::Unbuilt("reason")),
    Opt::both('S', "starttime", Value, K::Start),
    Opt::both('s', "state", Value, K::State),
    Opt::both('k', "timelimit-min", Value, K::TimeLimitMin),
    Opt::both('K', "timelimit-max", Value, K::TimeLimitMax),
    Opt::both('T', "truncate", Nothing, K::Truncate),
    Opt::long("uid", Value, K::Uid),
    Opt::long("units", Value, K::Units),
    Opt::long("usage", Nothing, K::Usage),
    Opt::both('u', "user", Value, K::User),
    Opt::long("use-local-uid", Nothing, K::Ignored),
    Opt::both('v', "verbose", Nothing, K::Ignored),
    Opt::both('V', "version", Nothing, K::Version),
    Opt::both('W', "wckeys", Value, K::Wckeys),
    Opt::long("whole-hetjob", Maybe, K::Unbuilt("whole-hetjob")),
    Opt::long("yaml", Maybe, K::Yaml),
];

/// The short form, for `--usage`.
pub(crate) const USAGE: &str = "\
Usage: sacct [-aDhnPpTXVv] [-A accounts] [-E end] [-S start] [-i nodes] [-I cpus] [-j jobs]
             [-N nodes] [--name names] [-o format] [-q qos] [-r partitions] [-s states] [-u users]
             [--delimiter text] [--units K|M|G|T|P] [--noconvert] [--helpformat]
";

/// The long form.
pub(crate) const HELP: &str = "\
Usage: sacct [OPTIONS]
Shows jobs with what they used and how they ended.

  -a, --allusers          jobs of every user
  -A, --accounts=list     jobs of these accounts
  -b, --brief             id, state and exit code
  -D, --duplicates        each run of a job that was requeued
      --delimiter=text    between values of -p and -P
  -E, --endtime=time      jobs of before that time; now
  -e, --helpformat        the fields that there are
  -g, --gid=list          jobs of these groups
  -i, --nnodes=n[-m]      jobs with so many nodes
  -I, --ncpus=n[-m]       jobs with so many CPUs
  -j, --jobs=list         these jobs: 12, 12_3, 12.batch
  -k, --timelimit-min=t   jobs with that time limit, or with -K at least that
  -K, --timelimit-max=t   and at most that
  -l, --long              many fields
  -n, --noheader          no header
  -N, --nodelist=hosts    jobs on any of these nodes
      --name=list         jobs of these names
      --noconvert         memory as it is kept
  -o, --format=list       fields, each with %[-]width; ALL, and besides Cost
  -p, --parsable          values ended by |
  -P, --parsable2         values separated by |
  -q, --qos=list          jobs of these qualities of service
  -r, --partition=list    jobs in these partitions
  -s, --state=list        jobs in these states, now unless -S says when
  -S, --starttime=time    jobs of after that time; midnight
  -T, --truncate          times cut to that window
  -u, --user=list         jobs of these users
      --units=K|M|G|T|P   memory in that unit
  -W, --wckeys=list       jobs with these keys of workloads
  -x, --associations=list jobs of these associations, by number
  -X, --allocations       no steps

      --json[=version]    as JSON: v0.0.38 or v0.0.40
      --yaml[=version]    as YAML
  -h, --help              this text
      --usage             the short form
  -V, --version           version of Slurm whose commands these are
";
