//! Which options does sstat know?

use crate::options::{Opt, Takes};

use self::Key as K;
use self::Takes::{Nothing, Value};

/// What an option sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    AllSteps,
    Format,
    Help,
    HelpFormat,
    Jobs,
    NoConvert,
    NoHeader,
    Parsable,
    Parsable2,
    Pids,
    Usage,
    Verbose,
    Version,
}

/// sstat's options.
pub(crate) const TABLE: &[Opt<Key>] = &[
    Opt::both('a', "allsteps", Nothing, K::AllSteps),
    Opt::both('e', "helpformat", Nothing, K::HelpFormat),
    Opt::both('h', "help", Nothing, K::Help),
    Opt::both('i', "pidformat", Nothing, K::Pids),
    Opt::both('j', "jobs", Value, K::Jobs),
    Opt::both('n', "noheader", Nothing, K::NoHeader),
    Opt::long("noconvert", Nothing, K::NoConvert),
    Opt::both('o', "format", Value, K::Format),
    Opt::long("fields", Value, K::Format),
    Opt::both('p', "parsable", Nothing, K::Parsable),
    Opt::both('P', "parsable2", Nothing, K::Parsable2),
    Opt::long("usage", Nothing, K::Usage),
    Opt::both('v', "verbose", Nothing, K::Verbose),
    Opt::both('V', "version", Nothing, K::Version),
];

/// The short form, for `--usage`.
pub(crate) const USAGE: &str = "\
Usage: sstat [options] -j <job(.stepid)>
\tUse --help for help
";

/// The long form.
pub(crate) const HELP: &str = "\
Usage: sstat [OPTIONS] -j JOB[.STEP][,...]
What steps of running jobs use at this moment.

  -a, --allsteps       all steps of a job, and its batch script
  -e, --helpformat     the fields that there are
  -i, --pidformat      the processes of each step, by node
  -j, --jobs=list      jobs, each with or without a step: 12, 12.0, 12.batch, 12_3.1;
                       without one the lowest numbered that runs
  -n, --noheader       no header
      --noconvert      memory in bytes
  -o, --format=list    fields, each with %[-]width
  -p, --parsable       values ended by |
  -P, --parsable2      values separated by |

  -h, --help           this text
      --usage          the short form
  -V, --version        version of Slurm whose commands these are
";
