//! Which options and environment variables does sinfo know?

use crate::options::{Opt, Takes};

use self::Key as K;
use self::Takes::{Maybe, Nothing, Value};

/// What an option sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    All,
    Dead,
    Exact,
    Format,
    FormatNames,
    Help,
    Iterate,
    Long,
    ByNode,
    Nodes,
    NoHeader,
    Partition,
    Reasons,
    Reservations,
    Responding,
    Sort,
    States,
    Summary,
    Usage,
    Version,
    Json,
    Yaml,
    /// Accepted, and without effect here.
    Ignored,
    /// One of Slurm's options that is refused; its long name.
    Unbuilt(&'static str),
}

/// sinfo's options.
pub(crate) const TABLE: &[Opt<Key>] = &[
    Opt::both('a', "all", Nothing, K::All),
    Opt::both('d', "dead", Nothing, K::Dead),
    Opt::both('e', "exact", Nothing, K::Exact),
    Opt::long("federation", Nothing, K::Ignored),
    Opt::both('o', "format", Value, K::Format),
    Opt::both('O', "Format", Value, K::FormatNames),
    Opt::long("help", Nothing, K::Help),
    Opt::long("hide", Nothing, K::Ignored),
    Opt::both('i', "iterate", Value, K::Iterate),
    Opt::long("json", Maybe, K::Json),
    Opt::both('R', "list-reasons", Nothing, K::Reasons),
    Opt::long("local", Nothing, K::Ignored),
    Opt::both('l', "long", Nothing, K::Long),
    Opt::both('M', "clusters", Value, K::Unbuilt("clusters")),
    Opt::long("noconvert", Nothing, K::Ignored),
    Opt::both('N', "Node", Nothing, K::ByNode),
    Opt::both('n', "nodes", Value, K::Nodes),
    Opt::both('h', "noheader", Nothing, K::NoHeader),
    Opt::both('p', "partition", Value, K::Partition),
    Opt::both('T', "reservation", Nothing, K::Reservations),
    Opt::both('r', "responding", Nothing, K::Responding),
    Opt::both('S', "sort", Value, K::Sort),
    Opt::both('t', "states", Value, K::States),
    Opt::both('s', "summarize", Nothing, K::Summary),
    Opt::long("usage", Nothing, K::Usage),
    Opt::both('v', "verbose", Nothing, K::Ignored),
    Opt::both('V', "version", Nothing, K::Version),
    Opt::long("yaml", Maybe, K::Yaml),
];

/// The environment variables that stand for options with a value.
pub(crate) const ENVIRONMENT: &[(&str, Key)] =
    &[("SINFO_FORMAT", K::Format), ("SINFO_PARTITION", K::Partition), ("SINFO_SORT", K::Sort)];

/// The short form, for `--usage`.
pub(crate) const USAGE: &str = "\
Usage: sinfo [-abdelNRrsTv] [-i seconds] [-t states] [-p partition] [-n nodes]
             [-S fields] [-o format] [-O Format]
";

/// The long form.
pub(crate) const HELP: &str = "\
Usage: sinfo [OPTIONS]
Shows partitions and the states of their nodes.

  -a, --all               hidden partitions too
  -d, --dead              nodes that do not answer
  -e, --exact             group nodes only where their sizes are equal
  -h, --noheader          no header
  -i, --iterate=seconds   list again and again
  -l, --long              more columns
  -N, --Node              a line for each node and partition
  -n, --nodes=hosts       these nodes
  -o, --format=format     columns as %[[.]width]letter[suffix]; %all for every one
  -O, --Format=format     columns as name[:[.]width[suffix]], joined by commas; or all
  -p, --partition=list    these partitions
  -R, --list-reasons      why nodes are down or drained
  -r, --responding        nodes that answer
  -S, --sort=letters      order, e.g. #P,-t
  -s, --summarize         a line for each partition
  -t, --states=list       nodes in these states; joined by & in all of them
  -T, --reservation       reservations

      --json[=version]    as JSON: v0.0.38 or v0.0.40
      --yaml[=version]    as YAML
      --help              this text
      --usage             the short form
  -V, --version           version of Slurm whose commands these are
";
