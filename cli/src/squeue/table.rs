//! Which options and environment variables does squeue know?

use crate::options::{Opt, Takes};

use self::Key as K;
use self::Takes::{Maybe, Nothing, Value};

/// What an option sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Account,
    All,
    Array,
    Format,
    FormatNames,
    Help,
    Iterate,
    Watch,
    Job,
    Licenses,
    Long,
    Me,
    Name,
    Nodelist,
    NoHeader,
    Partition,
    Qos,
    Reservation,
    Sort,
    Start,
    States,
    Steps,
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

/// squeue's options.
pub(crate) const TABLE: &[Opt<Key>] = &[
    Opt::both('A', "account", Value, K::Account),
    Opt::long("accounts", Value, K::Account),
    Opt::both('a', "all", Nothing, K::All),
    Opt::both('r', "array", Nothing, K::Array),
    Opt::long("array-unique", Nothing, K::Array),
    Opt::long("federation", Nothing, K::Ignored),
    Opt::both('o', "format", Value, K::Format),
    Opt::both('O', "Format", Value, K::FormatNames),
    Opt::long("help", Nothing, K::Help),
    Opt::long("hide", Nothing, K::Ignored),
    Opt::both('i', "iterate", Value, K::Iterate),
    Opt::long("watch", Nothing, K::Watch),
    Opt::both('j', "jobs", Maybe, K::Job),
    Opt::long("json", Maybe, K::Json),
    Opt::both('L', "licenses", Value, K::Licenses),
    Opt::long("local", Nothing, K::Ignored),
    Opt::both('l', "long", Nothing, K::Long),
    Opt::both('M', "clusters", Value, K::Unbuilt("clusters")),
    Opt::long("me", Nothing, K::Me),
    Opt::both('n', "name", Value, K::Name),
    Opt::long("noconvert", Nothing, K::Ignored),
    Opt::both('w', "nodelist", Value, K::Nodelist),
    Opt::long("nodes", Value, K::Nodelist),
    Opt::both('h', "noheader", Nothing, K::NoHeader),
    Opt::both('p', "partitions", Value, K::Partition),
    Opt::both('P', "priority", Nothing, K::Ignored),
    Opt::both('q', "qos", Value, K::Qos),
    Opt::both('R', "reservation", Value, K::Reservation),
    Opt::long("sib", Nothing, K::Ignored),
    Opt::long("sibling", Nothing, K::Ignored),
    Opt::both('S', "sort", Value, K::Sort),
    Opt::long("start", Nothing, K::Start),
    Opt::both('s', "steps", Maybe, K::Steps),
    Opt::both('t', "states", Value, K::States),
    Opt::long("usage", Nothing, K::Usage),
    Opt::both('u', "users", Value, K::User),
    Opt::both('v', "verbose", Nothing, K::Ignored),
    Opt::both('V', "version", Nothing, K::Version),
    Opt::long("yaml", Maybe, K::Yaml),
];

/// The environment variables that stand for options with a value.
pub(crate) const ENVIRONMENT: &[(&str, Key)] = &[
    ("SQUEUE_ACCOUNT", K::Account),
    ("SQUEUE_FORMAT", K::Format),
    ("SQUEUE_FORMAT2", K::FormatNames),
    ("SQUEUE_NAMES", K::Name),
    ("SQUEUE_PARTITION", K::Partition),
    ("SQUEUE_QOS", K::Qos),
    ("SQUEUE_SORT", K::Sort),
    ("SQUEUE_STATES", K::States),
    ("SQUEUE_USERS", K::User),
];

/// The short form, for `--usage`.
pub(crate) const USAGE: &str = "\
Usage: squeue [-A account] [-i seconds] [--job jobid] [-n name] [-o format] [-p partitions]
              [--qos qos] [--sort fields] [--start] [-t states] [-u user] [--me] [--usage]
              [-w nodes] [-ahjlrv]
";

/// The long form.
pub(crate) const HELP: &str = "\
Usage: squeue [OPTIONS]
Lists jobs that wait or run, and on request those that ended a short time ago.

  -A, --account=list      jobs of these accounts
  -a, --all               accepted: hidden partitions are shown in any case
  -h, --noheader          no header
  -i, --iterate=seconds   list again and again
      --watch             list, and keep the list up to date; with --json a line for each change
  -j, --jobs=list         these jobs: 12, 12_3, 12_[1-3]
  -L, --licenses=list     jobs that hold or want any of these licenses
  -l, --long              more columns
      --me                my jobs
  -n, --name=list         jobs of these names
  -o, --format=format     columns as %[[.]width]letter[suffix]; %all for every one
  -O, --Format=format     columns as name[:[.]width[suffix]], joined by commas
  -p, --partition=list    jobs in these partitions
  -q, --qos=list          jobs of these qualities of service
  -R, --reservation=name  jobs in this reservation
  -r, --array             a line for each waiting task of an array
  -S, --sort=letters      order, e.g. P,t,-p
      --start             waiting jobs with their expected start
  -t, --states=list       jobs in these states; all for every one
  -u, --user=list         jobs of these users
  -w, --nodelist=hosts    jobs on any of these nodes

      --json[=version]    as JSON: v0.0.38 or v0.0.40
      --yaml[=version]    as YAML
      --help              this text
      --usage             the short form
  -V, --version           version of Slurm whose commands these are
";
