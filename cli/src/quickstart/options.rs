//! What was asked of quickstart?

use std::path::PathBuf;

use clap::Parser;

use penstock_vocab::{Mib, parse_memory};

use super::gpus::FakeGpus;

/// Most agents on one machine: each is a process of some 10 MiB, and has a 127.x.y.z of its own.
const MAX_NODES: u32 = 1000;

/// What quickstart does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Starts, shows a job, serves until Ctrl-C.
    Serve,
    /// Starts, shows a job, stops.
    Exit,
    /// Starts, and leaves the cluster running.
    Detach,
    /// Stops what runs.
    Stop,
    /// Lists what runs.
    Status,
}

/// What each agent claims to have; `None`: what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Claims {
    /// CPUs, at least one.
    pub(super) cpus: Option<u32>,
    /// Memory, at least one MiB.
    pub(super) memory: Option<Mib>,
}

/// A checked command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) dir: Option<PathBuf>,
    /// `None`: as many as the folder has, one in a new folder.
    pub(super) nodes: Option<u32>,
    pub(super) claims: Claims,
    /// `None`: those that the nodes have already.
    pub(super) gpus: Option<FakeGpus>,
    pub(super) mode: Mode,
}

#[derive(Debug, Parser)]
#[command(
    about = "Start a cluster on this machine, run a first job and show how to go on",
    long_about = "Start a cluster on this machine, run a first job and show how to go on.\n\n\
        Controller and agents are processes of their own, on loopback, with all their files in one \
        folder. A start on the same folder starts only what is missing. Ctrl-C (or --stop) cancels \
        the jobs, ends the processes and leaves the folder with its history.\n\n\
        Needs no root. As root, jobs of all users run, with their memory and CPUs limited.",
    after_help = "Try in a shell:\n  \
        eval \"$(penstock quickstart --detach)\"\n  \
        sbatch --wrap hostname; squeue; sacct\n  \
        penstock quickstart --stop"
)]
#[group(skip)]
struct Line {
    /// Folder for state and ports [as root: /var/lib/penstock/quickstart, which all users reach;
    /// else: $XDG_STATE_HOME/penstock/quickstart, ~/.local/state by default]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Number of agents: node1 to nodeN [default: as many as DIR has, 1 in a new one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_NODES)))]
    nodes: Option<u32>,
    /// CPUs that each agent claims, more than the machine has if you like [default: all it has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cpus: Option<u32>,
    /// Memory that each agent claims, e.g. 16G [default: all the machine has]
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory: Option<Mib>,
    /// GPUs that do not exist, for each agent: TYPE:N, and `mig` for those cut into slices, e.g.
    /// h100:8 or a100:4,mig [default: as DIR has, none in a new one]
    #[arg(long, value_name = "GPUS", value_parser = FakeGpus::parse)]
    fake_gpus: Option<FakeGpus>,
    /// Stop after the job, with its exit status
    #[arg(long, conflicts_with_all = ["detach", "stop", "status"])]
    exit: bool,
    /// Leave the cluster running; print only the exports that a shell needs
    #[arg(long, conflicts_with_all = ["stop", "status"])]
    detach: bool,
    /// Cancel the jobs of DIR's cluster and end its processes
    #[arg(long, conflicts_with_all = ["status", "nodes", "cpus", "memory", "fake_gpus"])]
    stop: bool,
    /// List the processes of DIR's cluster
    #[arg(long, conflicts_with_all = ["nodes", "cpus", "memory", "fake_gpus"])]
    status: bool,
}

fn memory(text: &str) -> Result<Mib, String> {
    match parse_memory(text) {
        Ok(Mib(0)) => Err("a node needs some memory; give e.g. 4G".to_owned()),
        Ok(memory) => Ok(memory),
        Err(error) => Err(error.to_string()),
    }
}

impl Options {
    /// Reads the words after `penstock quickstart`. `Err` is the exit status when there is nothing
    /// to do: help was printed, or a mistake was explained.
    pub(super) fn parse(program: &str, args: Vec<String>) -> Result<Self, i32> {
        let command = <Line as clap::CommandFactory>::command()
            .name("quickstart")
            .bin_name(bin_name(program));
        let words = std::iter::once("quickstart".to_owned()).chain(args);
        let line = command
            .try_get_matches_from(words)
            .and_then(|matches| <Line as clap::FromArgMatches>::from_arg_matches(&matches))
            .map_err(|error| {
                // Whoever closed the stream wants no words.
                error.print().ok();
                error.exit_code()
            })?;
        let mode = match &line {
            Line { exit: true, .. } => Mode::Exit,
            Line { detach: true, .. } => Mode::Detach,
            Line { stop: true, .. } => Mode::Stop,
            Line { status: true, .. } => Mode::Status,
            _ => Mode::Serve,
        };
        let claims = Claims { cpus: line.cpus, memory: line.memory };
        Ok(Self { dir: line.dir, nodes: line.nodes, claims, gpus: line.fake_gpus, mode })
    }
}

fn bin_name(program: &str) -> String {
    // The dispatcher may name us by the word alone, which nobody can type.
    if program.contains(' ') { program.to_owned() } else { "penstock quickstart".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, i32> {
        Options::parse("penstock", line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn words_become_options() {
        let options = parse("--dir /x --nodes 3 --cpus 8 --memory 4G --exit").unwrap();
        assert_eq!(options.dir.unwrap().as_os_str(), "/x");
        assert_eq!((options.nodes, options.mode), (Some(3), Mode::Exit));
        assert_eq!(options.claims, Claims { cpus: Some(8), memory: Some(Mib(4096)) });
        assert_eq!(parse("").unwrap().mode, Mode::Serve);
        assert_eq!(parse("").unwrap().gpus, None);
        assert!(parse("--fake-gpus a100:4,mig").unwrap().gpus.is_some());
        assert_eq!(parse("--stop").unwrap().mode, Mode::Stop);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "--nodes 0",
            "--nodes 1001",
            "--cpus 0",
            "--memory 0",
            "--memory lots",
            "--stop --status",
            "--exit --detach",
            "--stop --nodes 3",
            "extra",
            "--frob",
            "--fake-gpus h1000:8",
            "--stop --fake-gpus h100",
        ] {
            assert_eq!(parse(line), Err(2), "{line}");
        }
        assert_eq!(parse("--help"), Err(0));
    }
}
