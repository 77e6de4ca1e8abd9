//! Which options does sshare know?

use crate::options::{Opt, Takes};

use self::Key as K;
use self::Takes::{Nothing, Value};

/// What an option sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Account,
    All,
    Explain,
    Format,
    Help,
    HelpFormat,
    Long,
    NoHeader,
    Parsable,
    Parsable2,
    Partition,
    Usage,
    User,
    UsersOnly,
    Version,
    /// Accepted, and without effect here.
    Ignored,
    /// One of Slurm's options that is refused; its long name.
    Unbuilt(&'static str),
}

/// sshare's options.
pub(crate) const TABLE: &[Opt<Key>] = &[
    Opt::both('A', "accounts", Value, K::Account),
    Opt::both('a', "all", Nothing, K::All),
    Opt::both('e', "helpformat", Nothing, K::HelpFormat),
    Opt::long("explain", Value, K::Explain),
    Opt::both('l', "long", Nothing, K::Long),
    Opt::both('M', "clusters", Value, K::Unbuilt("clusters")),
    Opt::long("cluster", Value, K::Unbuilt("clusters")),
    Opt::both('m', "partition", Nothing, K::Partition),
    Opt::both('n', "noheader", Nothing, K::NoHeader),
    Opt::both('o', "format", Value, K::Format),
    Opt::both('p', "parsable", Nothing, K::Parsable),
    Opt::both('P', "parsable2", Nothing, K::Parsable2),
    Opt::both('u', "users", Value, K::User),
    Opt::long("uid", Value, K::User),
    Opt::both('U', "Users", Nothing, K::UsersOnly),
    Opt::both('v', "verbose", Nothing, K::Ignored),
    Opt::both('V', "version", Nothing, K::Version),
    Opt::both('h', "help", Nothing, K::Help),
    Opt::long("usage", Nothing, K::Usage),
];

/// The short form, for `--usage`.
pub(crate) const USAGE: &str = "\
Usage: sshare [-aelmnpPUV] [-A accounts] [-u users] [-o format] [--explain user]
";

/// The long form.
pub(crate) const HELP: &str = "\
Usage: sshare [OPTIONS]
Shows the shares of accounts and users, what they used, and the fair-share factor that comes of it.

  -A, --accounts=list   these accounts
  -a, --all             every user
  -e, --helpformat      the fields that there are
      --explain=user    the path of one user in the tree in words, and its worth for a job now
  -l, --long            more columns
  -m, --partition       also the partition of each association
  -n, --noheader        no header
  -o, --format=list     fields, each with %[-]width
  -p, --parsable        values ended by |
  -P, --parsable2       values separated by |
  -u, --users=list      these users; the own one
  -U, --Users           no lines of accounts

      --help            this text
      --usage           the short form
  -V, --version         version of Slurm whose commands these are
";
