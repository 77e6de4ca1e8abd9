//! `scontrol show`: what is known about a job, a node, a partition or the cluster?
//!
//! A record is a run of `Key=Value` words on lines that are indented by three blanks; `-o` puts each
//! record on one line.

mod config;
mod hosts;
mod job;
mod node;
mod partition;
mod record;
mod reservation;
mod step;

use crate::connect::Client;
use crate::errors::{RemoteError, error};
use crate::listing::{Clock, now_ms};
use crate::output::{note, print_line};

const FAILED: i32 = 1;

/// How much is shown, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// Hidden partitions too (`-a`).
    pub(super) all: bool,
    /// More of each record (`-d`).
    pub(super) details: bool,
    /// One line a record (`-o`).
    pub(super) oneline: bool,
}

/// What can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entity {
    Config,
    Hostlist {
        sorted: bool,
    },
    Hostnames,
    Jobs,
    Licenses,
    Nodes,
    Partitions,
    Reservations,
    Steps,
    Topology,
    /// What no Penstock has, in the words of a Slurm that has none either.
    Absent(&'static str),
    Aliases,
    Daemons,
    Slurmd,
    Unbuilt,
}

/// Names with the fewest letters that mean them, in Slurm's order of precedence.
const ENTITIES: &[(&str, usize, Entity)] = &[
    ("aliases", 1, Entity::Aliases),
    ("assoc_mgr", 2, Entity::Unbuilt),
    ("bbstat", 2, Entity::Absent("")),
    ("burstbuffer", 2, Entity::Absent("")),
    ("config", 1, Entity::Config),
    ("daemons", 1, Entity::Daemons),
    ("dwstat", 2, Entity::Absent("")),
    ("federation", 2, Entity::Absent("")),
    ("frontend", 2, Entity::Absent("No nodes in the system")),
    ("hostnames", 5, Entity::Hostnames),
    ("hostlist", 5, Entity::Hostlist { sorted: false }),
    ("hostlistsorted", 9, Entity::Hostlist { sorted: true }),
    ("jobs", 1, Entity::Jobs),
    ("jobid", 1, Entity::Jobs),
    ("licenses", 2, Entity::Licenses),
    ("nodes", 1, Entity::Nodes),
    ("nodename", 1, Entity::Nodes),
    ("partitions", 1, Entity::Partitions),
    ("partitionname", 1, Entity::Partitions),
    ("reservations", 1, Entity::Reservations),
    ("reservationname", 1, Entity::Reservations),
    ("slurmd", 2, Entity::Slurmd),
    ("steps", 2, Entity::Steps),
    ("topology", 1, Entity::Topology),
];

/// Runs `scontrol show`: flags (`-a`, `-d`, `-o`) first, then what is to be shown.
pub(crate) fn run(program: &str, args: Vec<String>) -> i32 {
    let (letters, words): (Vec<String>, Vec<String>) =
        args.into_iter().partition(|word| word.starts_with('-'));
    let has = |letter: &str| letters.iter().any(|given| given == letter);
    let flags = Flags { all: has("-a"), details: has("-d"), oneline: has("-o") };
    let (what, id) = match words.as_slice() {
        [] => return refuse("too few arguments for keyword:show"),
        [what] => match what.split_once('=') {
            Some((what, id)) => (what, Some(id)),
            None => (what.as_str(), None),
        },
        [what, id] => (what.as_str(), Some(id.as_str())),
        _ => return refuse("too many arguments for keyword:show"),
    };
    let Some((name, entity)) = find_entity(what) else {
        return refuse(&format!("invalid entity:{what} for keyword:show "));
    };
    match entity {
        Entity::Hostnames => hosts::names(program, id),
        Entity::Hostlist { sorted } => hosts::list(id, sorted),
        Entity::Topology => {
            error(program, "No topology information available");
            0
        }
        Entity::Absent(text) => {
            if !text.is_empty() {
                print_line(text);
            }
            0
        }
        // On the controller's host both run, as far as anybody can tell without asking them.
        Entity::Daemons => {
            print_line("slurmctld slurmd");
            0
        }
        Entity::Slurmd => {
            error(program, "slurm_slurmd_info: Connection refused");
            refuse("slurm_load_slurmd_status: Connection refused")
        }
        Entity::Unbuilt => {
            error(program, &format!("show {name} is not built in Penstock"));
            FAILED
        }
        Entity::Aliases
        | Entity::Config
        | Entity::Jobs
        | Entity::Licenses
        | Entity::Nodes
        | Entity::Partitions
        | Entity::Reservations
        | Entity::Steps => ask(program, entity, id, flags),
    }
}

fn ask(program: &str, entity: Entity, id: Option<&str>, flags: Flags) -> i32 {
    let clock = Clock::from_env(now_ms());
    let shown = Client::open().and_then(|client| match entity {
        Entity::Aliases => node::aliases(&client, id),
        Entity::Config => config::show(&client, &clock),
        Entity::Nodes => node::show(&client, id, flags, &clock),
        Entity::Partitions => partition::show(&client, id, flags),
        Entity::Steps => step::show(&client, id, flags, &clock),
        Entity::Reservations => reservation::show(&client, id, flags, &clock),
        Entity::Licenses => reservation::licenses(&client, id, flags),
        _ => job::show(&client, id, flags, &clock),
    });
    match shown {
        Ok(status) => status,
        Err(problem) => failed(program, entity, &problem),
    }
}

fn failed(program: &str, entity: Entity, problem: &RemoteError) -> i32 {
    let what = match entity {
        Entity::Config => "slurm_load_ctl_conf error",
        Entity::Nodes | Entity::Aliases => "slurm_load_node error",
        Entity::Steps => "slurm_get_job_steps error",
        Entity::Partitions => "slurm_load_partitions error",
        Entity::Reservations => "slurm_load_reservations error",
        Entity::Licenses => "slurm_load_licenses error",
        _ => "slurm_load_jobs error",
    };
    if let Some(detail) = problem.detail() {
        error(program, &detail);
    }
    refuse(&format!("{what}: {}", problem.slurm_text()))
}

fn find_entity(word: &str) -> Option<(&'static str, Entity)> {
    let exact = ENTITIES.iter().find(|(name, _, _)| name.eq_ignore_ascii_case(word));
    let short = || {
        ENTITIES.iter().find(|(name, least, _)| {
            let head = name.get(..word.len());
            word.len() >= *least && head.is_some_and(|head| head.eq_ignore_ascii_case(word))
        })
    };
    exact.or_else(short).map(|(name, _, entity)| (*name, *entity))
}

fn refuse(line: &str) -> i32 {
    note(line);
    FAILED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entities_may_be_cut_short() {
        let check = |word: &str, expect| {
            assert_eq!(find_entity(word).map(|(_, entity)| entity), expect, "{word}");
        };
        check("job", Some(Entity::Jobs));
        check("jobs", Some(Entity::Jobs));
        check("JobId", Some(Entity::Jobs));
        check("jo", Some(Entity::Jobs));
        check("node", Some(Entity::Nodes));
        check("part", Some(Entity::Partitions));
        check("PartitionName", Some(Entity::Partitions));
        check("hostnames", Some(Entity::Hostnames));
        check("hostname", Some(Entity::Hostnames));
        check("hostlist", Some(Entity::Hostlist { sorted: false }));
        check("hostlistsorted", Some(Entity::Hostlist { sorted: true }));
        check("res", Some(Entity::Reservations));
        check("lic", Some(Entity::Licenses));
        check("foo", None);
        check("host", None);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let run =
            |line: &[&str]| run("scontrol", line.iter().map(|&word| word.to_owned()).collect());
        assert_eq!(run(&[]), 1);
        assert_eq!(run(&["foo"]), 1);
        assert_eq!(run(&["job", "1", "3"]), 1);
        assert_eq!(run(&["-o", "assoc_mgr"]), 1);
        assert_eq!(run(&["daemons"]), 0);
    }
}
