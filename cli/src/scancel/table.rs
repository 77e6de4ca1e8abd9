//! Which options and environment variables does scancel know?

use crate::options::{Opt, Takes};

use self::Key as K;
use self::Takes::{Nothing, Value};

/// What an option sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Account,
    Batch,
    Cron,
    Ctld,
    Full,
    Hurry,
    Reservation,
    Wckey,
    Help,
    Interactive,
    Me,
    Name,
    Nodelist,
    Partition,
    Qos,
    Quiet,
    Signal,
    State,
    Usage,
    User,
    Verbose,
    Version,
    /// One of Slurm's options that is refused; its long name.
    Unbuilt(&'static str),
}

/// scancel's options.
pub(crate) const TABLE: &[Opt<Key>] = &[
    Opt::both('A', "account", Value, K::Account),
    Opt::both('b', "batch", Nothing, K::Batch),
    Opt::long("ctld", Nothing, K::Ctld),
    Opt::both('f', "full", Nothing, K::Full),
    Opt::both('h', "help", Nothing, K::Help),
    Opt::both('i', "interactive", Nothing, K::Interactive),
    Opt::long("me", Nothing, K::Me),
    Opt::both('n', "name", Value, K::Name),
    Opt::long("jobname", Value, K::Name),
    Opt::both('w', "nodelist", Value, K::Nodelist),
    Opt::both('p', "partition", Value, K::Partition),
    Opt::both('q', "qos", Value, K::Qos),
    Opt::both('Q', "quiet", Nothing, K::Quiet),
    Opt::both('s', "signal", Value, K::Signal),
    Opt::both('t', "state", Value, K::State),
    Opt::long("usage", Nothing, K::Usage),
    Opt::both('u', "user", Value, K::User),
    Opt::both('v', "verbose", Nothing, K::Verbose),
    Opt::both('V', "version", Nothing, K::Version),
    Opt::both('M', "clusters", Value, K::Unbuilt("clusters")),
    Opt::both('c', "cron", Nothing, K::Cron),
    Opt::both('H', "hurry", Nothing, K::Hurry),
    Opt::both('R', "reservation", Value, K::Reservation),
    Opt::long("sibling", Value, K::Unbuilt("sibling")),
    Opt::long("wckey", Value, K::Wckey),
];

/// scancel's environment variables and the options that they stand for.
pub(crate) const ENVIRONMENT: &[(&str, Key)] = &[
    ("SCANCEL_ACCOUNT", K::Account),
    ("SCANCEL_BATCH", K::Batch),
    ("SCANCEL_CTLD", K::Ctld),
    ("SCANCEL_FULL", K::Full),
    ("SCANCEL_HURRY", K::Hurry),
    ("SCANCEL_INTERACTIVE", K::Interactive),
    ("SCANCEL_NAME", K::Name),
    ("SCANCEL_PARTITION", K::Partition),
    ("SCANCEL_QOS", K::Qos),
    ("SCANCEL_STATE", K::State),
    ("SCANCEL_USER", K::User),
    ("SCANCEL_VERBOSE", K::Verbose),
    ("SCANCEL_WCKEY", K::Wckey),
];

/// The short form, for `--usage`.
pub(crate) const USAGE: &str = "\
Usage: scancel [-A account] [-b] [-f] [-i] [--me] [-n job_name] [-p partition] [-Q] [-q qos]
               [-s signal] [-t PENDING|RUNNING|SUSPENDED] [-u user] [-v] [-w hosts]
               [job_id[_array_id]...]
";

/// The long form.
pub(crate) const HELP: &str = "\
Usage: scancel [OPTIONS] [job_id[_array_id]]
Ends jobs, or sends them a signal. Ids: 12, 12_3, 12_[1-3]; filters and ids are joined by AND.

  -A, --account=account   jobs of this account
  -b, --batch             signal the batch shell only
  -c, --cron              jobs of crontabs too: they do not come again
      --ctld              accepted: every request goes to the controller
  -f, --full              signal the batch shell and all steps
  -H, --hurry             accepted: there are no burst buffers to stage out
  -i, --interactive       ask for each job
      --me                my jobs
  -n, --name=job_name     jobs of this name
  -p, --partition=list    jobs in these partitions
  -Q, --quiet             no lines about jobs that are gone
  -q, --qos=qos           jobs of this quality of service
  -R, --reservation=name  jobs in this reservation
  -s, --signal=name|n     send this signal instead of ending the job
  -t, --state=states      jobs that are PENDING, RUNNING or SUSPENDED
  -u, --user=user         jobs of this user
  -v, --verbose           tell of each job
      --wckey=wckey       jobs with this wckey
  -w, --nodelist=hosts    jobs on any of these nodes

  -h, --help              this text
      --usage             the short form
  -V, --version           version of Slurm whose commands these are
";
