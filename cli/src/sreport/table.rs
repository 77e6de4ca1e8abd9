//! Which options and reports does sreport know?

use crate::options::{Opt, Takes};

use self::Key as K;
use self::Takes::{Nothing, Value};

/// What an option sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Help,
    NoHeader,
    Parsable,
    Parsable2,
    Time,
    Tres,
    Usage,
    Version,
    /// Accepted, and without effect here.
    Ignored,
}

/// sreport's options.
pub(crate) const TABLE: &[Opt<Key>] = &[
    Opt::both('a', "all_clusters", Nothing, K::Ignored),
    Opt::long("federation", Nothing, K::Ignored),
    Opt::both('h', "help", Nothing, K::Help),
    Opt::long("local", Nothing, K::Ignored),
    Opt::both('n', "noheader", Nothing, K::NoHeader),
    Opt::both('p', "parsable", Nothing, K::Parsable),
    Opt::both('P', "parsable2", Nothing, K::Parsable2),
    Opt::both('Q', "quiet", Nothing, K::Ignored),
    Opt::both('t', "time", Value, K::Time),
    Opt::both('T', "tres", Value, K::Tres),
    Opt::long("usage", Nothing, K::Usage),
    Opt::both('v', "verbose", Nothing, K::Ignored),
    Opt::both('V', "version", Nothing, K::Version),
];

/// The short form, for `--usage`.
pub(crate) const USAGE: &str = "\
Usage: sreport [-hnpPV] [-t unit] [-T tres] TYPE REPORT [CONDITION ...]
";

/// The long form.
pub(crate) const HELP: &str = "\
Usage: sreport [OPTIONS] TYPE REPORT [CONDITION ...]
Reports how much of the cluster was used, by whom.

  -n, --noheader        no heading
  -p, --parsable        values ended by |
  -P, --parsable2       values separated by |
  -t unit               Seconds, Minutes (default), Hours, Percent, SecPer, MinPer, HourPer, or
                        Cost by the rates of the cluster file
  -T, --tres=list       these resources (cpu), or ALL
  -h, --help            this text
  -V, --version         version of Slurm whose commands these are

Reports:
  cluster Utilization                 allocated, down, idle and planned
  cluster AccountUtilizationByUser    by account, then user; tree: indented
  cluster UserUtilizationByAccount    by user, then account
  job SizesByAccount                  by CPUs of the jobs; FlatView: every account for itself
  user TopUsage                       who used most; TopCount=n, Group: accounts of a user together

Conditions:
  Start=time End=time                 yesterday; also now-1hour and the like
  Accounts=list Users=list            only these
  Format=list                         columns, each with %[-]width
";
