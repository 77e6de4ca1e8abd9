//! Which options and commands does sacctmgr know?

use crate::options::{Opt, Takes};

use self::Key as K;
use self::Takes::Nothing;
use super::conditions::Entity;

/// What an option sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Associations,
    Help,
    Immediate,
    NoHeader,
    Parsable,
    Parsable2,
    Quiet,
    ReadOnly,
    Usage,
    Version,
    /// Accepted, and without effect here.
    Ignored,
    /// One of Slurm's options that is refused; its long name.
    Unbuilt(&'static str),
}

/// sacctmgr's options.
pub(crate) const TABLE: &[Opt<Key>] = &[
    Opt::both('s', "associations", Nothing, K::Associations),
    Opt::both('h', "help", Nothing, K::Help),
    Opt::both('i', "immediate", Nothing, K::Immediate),
    Opt::long("json", Nothing, K::Unbuilt("json")),
    Opt::both('n', "noheader", Nothing, K::NoHeader),
    // Slurm's sacctmgr takes it and lists no otherwise.
    Opt::both('o', "oneliner", Nothing, K::Ignored),
    Opt::both('p', "parsable", Nothing, K::Parsable),
    Opt::both('P', "parsable2", Nothing, K::Parsable2),
    Opt::both('Q', "quiet", Nothing, K::Quiet),
    Opt::both('r', "readonly", Nothing, K::ReadOnly),
    Opt::long("usage", Nothing, K::Usage),
    Opt::both('v', "verbose", Nothing, K::Ignored),
    Opt::both('V', "version", Nothing, K::Version),
    Opt::long("yaml", Nothing, K::Unbuilt("yaml")),
];

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Add,
    Delete,
    Dump,
    Help,
    Load,
    Modify,
    Show,
    Version,
    /// One of Slurm's that is refused: what to use instead.
    Unbuilt(&'static str),
}

/// Verbs with the fewest letters that mean them, in Slurm's order of precedence.
pub(super) const VERBS: &[(&str, usize, Verb)] = &[
    ("add", 3, Verb::Add),
    (
        "archive",
        3,
        Verb::Unbuilt("accounting is kept in the controller's folder; see penstock store"),
    ),
    ("create", 3, Verb::Add),
    ("clear", 3, Verb::Unbuilt("statistics are begun anew with sdiag -r")),
    ("delete", 3, Verb::Delete),
    ("dump", 3, Verb::Dump),
    ("help", 2, Verb::Help),
    ("list", 3, Verb::Show),
    ("load", 2, Verb::Load),
    ("modify", 1, Verb::Modify),
    ("ping", 3, Verb::Unbuilt("there is no database daemon; see scontrol ping")),
    ("reconfigure", 4, Verb::Unbuilt("there is no database daemon; see scontrol reconfigure")),
    ("remove", 3, Verb::Delete),
    ("show", 3, Verb::Show),
    (
        "shutdown",
        8,
        Verb::Unbuilt("there is no database daemon; see systemctl stop penstock-controller"),
    ),
    ("update", 1, Verb::Modify),
    ("version", 4, Verb::Version),
];

/// Things with the fewest letters that mean them.
pub(super) const ENTITIES: &[(&str, usize, Entity)] = &[
    ("accounts", 2, Entity::Account),
    ("acct", 4, Entity::Account),
    ("associations", 2, Entity::Association),
    ("clusters", 2, Entity::Cluster),
    ("configuration", 3, Entity::Unbuilt("scontrol show config shows the configuration")),
    ("coordinators", 3, Entity::Coordinator),
    (
        "events",
        1,
        Entity::Unbuilt(
            "node events are not kept; sinfo -R tells which nodes are out, and the controller's log since when",
        ),
    ),
    ("federations", 1, Entity::Unbuilt("Penstock has no federations")),
    ("jobs", 1, Entity::Unbuilt("sacct shows jobs, scontrol update changes them")),
    ("problems", 1, Entity::Unbuilt("penstock config check and sacctmgr show user show problems")),
    ("qos", 1, Entity::Qos),
    ("reservations", 4, Entity::Unbuilt("scontrol show reservation shows reservations")),
    (
        "resources",
        4,
        Entity::Unbuilt("licences are in the cluster file; scontrol show licenses shows them"),
    ),
    ("runawayjobs", 2, Entity::RunawayJobs),
    ("runaways", 2, Entity::RunawayJobs),
    ("stats", 3, Entity::Unbuilt("sdiag shows statistics")),
    ("transactions", 1, Entity::Unbuilt("changes of accounts are in the controller's log")),
    ("txn", 2, Entity::Unbuilt("changes of accounts are in the controller's log")),
    ("tres", 2, Entity::Tres),
    ("users", 1, Entity::User),
    (
        "wckeys",
        1,
        Entity::Unbuilt(
            "Penstock has no workload characterization keys; use accounts or --comment",
        ),
    ),
];

/// The short form, for `--usage`.
pub(crate) const USAGE: &str = "\
Usage: sacctmgr [-hinpPQrsV] COMMAND ... (sacctmgr --help lists the commands)
";

/// The long form.
pub(crate) const HELP: &str = "\
Usage: sacctmgr [OPTIONS] COMMAND ...
Manages accounts, users, their associations and shares, limits, and qualities of service.

  -i, --immediate         commit without asking
  -n, --noheader          no header
  -p, --parsable          values ended by |
  -P, --parsable2         values separated by |
  -Q, --quiet             nothing but errors
  -r, --readonly          change nothing
  -s, --associations      accounts and users with their associations
  -h, --help              this text
  -V, --version           version of Slurm whose commands these are

Commands:
  add ENTITY NAME KEY=VALUE ...            account, user, qos, coordinator
  modify ENTITY CONDITION ... set KEY=VALUE ...
                                           account, user, qos, cluster
  delete ENTITY CONDITION ...              account, user, qos, coordinator
  show ENTITY [CONDITION ...] [format=FIELDS]
                                           account, association, cluster, qos, runawayjobs, tres,
                                           user; also withassoc, withcoord, tree, wolimits,
                                           woplimits, withsubaccounts, onlydefaults
  dump [CLUSTER] [file=FILE]               write the tree to a file (CLUSTER.cfg)
  load FILE [clean]                        make the tree of the file; clean: nothing else remains

What can be set:
  account     Description Organization Parent
  user        Account Partition DefaultAccount AdminLevel (None, Operator, Administrator)
  both        Fairshare (number or parent) Priority QOS (= += -=) DefaultQOS RawUsage=0
              GrpTRES GrpTRESMins GrpTRESRunMins GrpJobs GrpSubmitJobs GrpWall
              MaxTRES MaxTRESPerNode MaxTRESMins MaxWall MaxJobs MaxSubmitJobs
              Guaranteed (what the account gets back on demand, e.g. node=4)
              Budget (hours of a resource, e.g. 100gpu-hours: the same as GrpTRESMins)
  qos         Description Priority Flags (= += -=) GraceTime Preempt (= += -=) PreemptMode
              PreemptExemptTime UsageFactor UsageThreshold LimitFactor RawUsage=0, the Grp and Max
              limits above, MaxTRESPU MaxTRESPA MinTRES MaxJobsPU MaxJobsPA MaxSubmitPU MaxSubmitPA
-1 takes a limit away; in lists of TRES, NAME=-1.
";
