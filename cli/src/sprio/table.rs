//! Which options does sprio know?

use crate::options::{Opt, Takes};

use self::Key as K;
use self::Takes::{Nothing, Value};

/// What an option sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Format,
    Help,
    Job,
    Long,
    NoHeader,
    Norm,
    Partition,
    Sort,
    Usage,
    User,
    Version,
    Weights,
    /// Accepted, and without effect here.
    Ignored,
    /// One of Slurm's options that is refused; its long name.
    Unbuilt(&'static str),
}

/// sprio's options.
pub(crate) const TABLE: &[Opt<Key>] = &[
    Opt::long("federation", Nothing, K::Ignored),
    Opt::both('o', "format", Value, K::Format),
    Opt::long("help", Nothing, K::Help),
    Opt::both('j', "jobs", Value, K::Job),
    Opt::long("local", Nothing, K::Ignored),
    Opt::both('l', "long", Nothing, K::Long),
    Opt::both('M', "clusters", Value, K::Unbuilt("clusters")),
    Opt::long("cluster", Value, K::Unbuilt("clusters")),
    Opt::both('h', "noheader", Nothing, K::NoHeader),
    Opt::both('n', "norm", Nothing, K::Norm),
    Opt::both('p', "partition", Value, K::Partition),
    Opt::long("sibling", Nothing, K::Ignored),
    Opt::both('S', "sort", Value, K::Sort),
    Opt::long("usage", Nothing, K::Usage),
    Opt::both('u', "user", Value, K::User),
    Opt::both('v', "verbose", Nothing, K::Ignored),
    Opt::both('V', "version", Nothing, K::Version),
    Opt::both('w', "weights", Nothing, K::Weights),
];

/// The short form, for `--usage`.
pub(crate) const USAGE: &str = "\
Usage: sprio [-j jid[s]] [-u user_name[s]] [-o format] [-p partitions]
   [--federation] [--local] [--sibling] [--usage] [-hlnvVw]
";

/// The long form.
pub(crate) const HELP: &str = "\
Usage: sprio [OPTIONS]
Shows the factors of the priority of waiting jobs; those of weight 0 are left out.

  -h, --noheader          no header
  -j, --jobs=list         these jobs
  -l, --long              every factor, the user and the nice value
  -n, --norm              factors between 0 and 1 instead of points
  -o, --format=format     columns as %[[.]width]letter[suffix]; a capital letter for points, a
                          small one for the factor: Y priority, A age, B association, F fair share,
                          J job size, P partition, Q QOS, T TRES, X expansion (XFACTOR: how long
                          the job waits against how long it runs), W work (AREA: how few
                          CPU-seconds it asks for), and N nice, S site, i job,
                          r partition, u user, o account, c cluster
  -p, --partition=list    jobs in these partitions
  -S, --sort=letters      order, e.g. -Y
  -u, --user=list         jobs of these users
  -w, --weights           the weights

      --help              this text
      --usage             the short form
  -V, --version           version of Slurm whose commands these are
";
