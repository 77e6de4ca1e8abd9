//! Which command is this process?
//!
//! One binary is every command: by the name it was started under (`sbatch`), or by its first
//! argument (`penstock sbatch`). Slurm's commands are found before anything else is set up, since
//! scripts start them by the thousand.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::admin::Admin;
use crate::checkpoint::CheckpointDone;
use crate::completion::{Shell, script};
use crate::errors::{chain, error};
use crate::explain::Explain;
use crate::gpus::Gpus;
use crate::output::{print_line, write_bytes};
use crate::simulate::Simulate;
use crate::web::Web;
use crate::whatif::WhatIf;

/// The Slurm whose commands these are; tools parse the number.
pub(crate) const SLURM_VERSION: &str = "slurm 22.05.8";

const PROGRAM: &str = "penstock";

/// Exit status of everything that fails and has no status of its own.
const FAILED: i32 = 1;

/// How a command is run: its name and its arguments give its exit status.
type Run = fn(&str, Vec<String>) -> i32;

/// A command that bears a Slurm name.
#[derive(Clone, Copy)]
enum SlurmCommand {
    Built(Run),
    /// What it would need that is not there.
    Unbuilt(&'static str),
}

use self::SlurmCommand::{Built, Unbuilt};

const SLURM_COMMANDS: &[(&str, SlurmCommand)] = &[
    ("sbatch", Built(crate::sbatch::run)),
    ("squeue", Built(crate::squeue::run)),
    ("scancel", Built(crate::scancel::run)),
    ("sinfo", Built(crate::sinfo::run)),
    ("scontrol", Built(crate::scontrol::run)),
    ("sacct", Built(crate::sacct::run)),
    ("srun", Built(crate::srun::run)),
    ("salloc", Built(crate::salloc::run)),
    ("sattach", Built(crate::sattach::run)),
    ("sbcast", Built(crate::sbcast::run)),
    ("sstat", Built(crate::sstat::run)),
    ("sprio", Built(crate::sprio::run)),
    ("sshare", Built(crate::sshare::run)),
    ("sacctmgr", Built(crate::sacctmgr::run)),
    ("sreport", Built(crate::sreport::run)),
    ("sdiag", Built(crate::sdiag::run)),
    ("seff", Built(crate::seff::run)),
    ("scrontab", Built(crate::scrontab::run)),
    ("strigger", Unbuilt("strigger is")),
];

/// A workload manager for HPC and AI clusters with Slurm's commands.
#[derive(Debug, Parser)]
#[command(
    name = PROGRAM,
    version,
    after_help = "Slurm's commands are subcommands too (penstock sbatch, srun, salloc, squeue, scancel, \
                  sinfo, sacct, scontrol, sacctmgr, sshare, sprio, sreport, sdiag), and are what this binary does under their names."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try a whole cluster on this machine
    #[command(disable_help_flag = true)]
    Quickstart {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run the controller of a cluster
    Controller {
        /// Cluster file
        #[arg(long)]
        config: PathBuf,
    },
    /// Run the agent of a node or a login host
    Agent {
        /// Cluster file, or one that has just [agent]
        #[arg(long)]
        config: PathBuf,
    },
    /// Look at cluster files: config check FILE
    #[command(disable_help_flag = true)]
    Config {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Replay a trace of jobs under a policy, on units or a cluster file's nodes
    Simulate(Box<Simulate>),
    /// Say why a job waits, until when, and what would start it sooner
    Explain(Explain),
    /// Tell what becomes of jobs as it happens
    Watch(crate::watch::Watch),
    /// Show who would start when if something were otherwise
    #[command(subcommand)]
    WhatIf(WhatIf),
    /// Print a script with which a shell completes commands, options and names
    Completion {
        /// Which shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// List GPUs and slices: what they are and do, who has them
    Gpus(Gpus),
    /// List who holds GPUs that compute nothing
    Idle(crate::idle::Idle),
    /// Print a link that signs a browser in to the controller's page
    Web(Web),
    /// Tell, from inside a job, that it has saved its state
    CheckpointDone(CheckpointDone),
    #[command(flatten)]
    Admin(Admin),
}

/// Runs the command that this process is.
pub(crate) fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_default();
    let args: Vec<OsString> = words.collect();
    let name = Path::new(&name).file_name().unwrap_or_default().to_string_lossy().into_owned();
    if let Some(command) = find(&name) {
        return status(run_slurm(&name, command, args));
    }
    match args.split_first() {
        Some((first, rest)) if first == "shepherd" => run_shepherd(rest),
        Some((first, rest)) if first == crate::sbcast::receive::NAME => {
            status(crate::sbcast::receive::run(rest))
        }
        Some((first, rest)) if first == "gpu-probe" => run_probe(rest),
        Some((first, rest)) => match first.to_str().and_then(|first| Some((first, find(first)?))) {
            Some((first, command)) => status(run_slurm(first, command, rest.to_vec())),
            None => run_own(&args),
        },
        None => run_own(&args),
    }
}

/// The names of Slurm's commands, those that are not built too.
pub(crate) fn slurm_names() -> impl Iterator<Item = &'static str> {
    SLURM_COMMANDS.iter().map(|(name, _)| *name)
}

fn find(name: &str) -> Option<SlurmCommand> {
    SLURM_COMMANDS.iter().find(|(known, _)| *known == name).map(|(_, command)| *command)
}

/// An exit status as the kernel keeps it: its lowest byte.
fn status(code: i32) -> ExitCode {
    ExitCode::from(code.to_le_bytes()[0])
}

fn run_slurm(name: &str, command: SlurmCommand, args: Vec<OsString>) -> i32 {
    let args = match texts(args) {
        Ok(args) => args,
        Err(word) => {
            error(name, &format!("argument {word:?} is not valid UTF-8"));
            return FAILED;
        }
    };
    match command {
        Built(run) => run(name, args),
        Unbuilt(_) if matches!(args.first().map(String::as_str), Some("-V" | "--version")) => {
            print_line(SLURM_VERSION);
            0
        }
        Unbuilt(what) => {
            error(name, &format!("{what} not built yet"));
            FAILED
        }
    }
}

/// The arguments as text; the error is the first that is none.
fn texts(args: Vec<OsString>) -> Result<Vec<String>, OsString> {
    args.into_iter().map(OsString::into_string).collect()
}

/// Found before clap, since every job starts one.
fn run_shepherd(args: &[OsString]) -> ExitCode {
    match args {
        [dir] => penstock_agent::launch::shepherd::main(Path::new(dir)),
        _ => {
            error(PROGRAM, "shepherd takes the folder of an attempt; the agent starts it");
            status(FAILED)
        }
    }
}

/// Found before clap, and not for people either.
fn run_probe(args: &[OsString]) -> ExitCode {
    match args {
        [library, devices] => {
            penstock_agent::gpu::probe::main(Path::new(library), Path::new(devices))
        }
        _ => {
            error(PROGRAM, "gpu-probe takes a library and a folder; the agent starts it");
            status(FAILED)
        }
    }
}

fn run_own(args: &[OsString]) -> ExitCode {
    let words = std::iter::once(OsString::from(PROGRAM)).chain(args.iter().cloned());
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(help_or_error) => {
            help_or_error.print().ok();
            return status(help_or_error.exit_code());
        }
    };
    match cli.command {
        Command::Quickstart { args } => status(crate::quickstart::run("penstock quickstart", args)),
        Command::Config { args } => status(crate::config_check::run("penstock config", args)),
        Command::Simulate(simulate) => status(simulate.run()),
        Command::Explain(explain) => status(explain.run()),
        Command::Watch(watch) => status(watch.run()),
        Command::WhatIf(change) => status(change.run()),
        Command::Completion { shell } => {
            write_bytes(script(shell, &own_commands()).as_bytes());
            ExitCode::SUCCESS
        }
        Command::Gpus(gpus) => status(gpus.run()),
        Command::Idle(idle) => status(idle.run()),
        Command::Web(web) => status(web.run()),
        Command::CheckpointDone(done) => status(done.run()),
        Command::Admin(admin) => status(crate::admin::run(admin)),
        Command::Controller { config } => run_controller(&config),
        Command::Agent { config } => run_agent(&config),
    }
}

/// Our own subcommands with what they are for.
fn own_commands() -> Vec<(String, String)> {
    let about = |command: &clap::Command| {
        let text = command.get_about().map(ToString::to_string).unwrap_or_default();
        (command.get_name().to_owned(), text)
    };
    Cli::command().get_subcommands().map(about).collect()
}

fn run_controller(config: &Path) -> ExitCode {
    log_to_stderr();
    ended(penstock_controller::daemon::run(config, crate::web::shapes()))
}

fn run_agent(config: &Path) -> ExitCode {
    log_to_stderr();
    match penstock_agent::AgentConfig::load(config) {
        Ok(config) => ended(penstock_agent::run_blocking(config)),
        Err(failure) => ended(Err(failure)),
    }
}

/// The exit status of a daemon; why it ended goes to standard error.
fn ended<E: std::error::Error>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error(PROGRAM, &chain(&failure));
            status(FAILED)
        }
    }
}

/// Daemons log to standard error, which systemd or quickstart keeps; `PENSTOCK_LOG` chooses.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("PENSTOCK_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_of_penstock_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn slurms_names_do_not_hide_ours() {
        for sub in Cli::command().get_subcommands() {
            assert!(find(sub.get_name()).is_none(), "{}", sub.get_name());
        }
    }

    #[test]
    fn what_is_not_built_is_refused_but_tells_its_version() {
        let strigger = find("strigger").expect("known");
        assert_eq!(run_slurm("strigger", strigger, vec!["--get".into()]), 1);
        assert_eq!(run_slurm("strigger", strigger, vec!["--version".into()]), 0);
        assert!(find("sfoo").is_none());
    }

    #[test]
    fn our_own_commands_are_read() {
        let table: &[&[&str]] = &[
            &["controller", "--config", "f"],
            &["agent", "--config=f"],
            &["config", "check", "f"],
            &["quickstart", "--nodes", "3"],
            &["quickstart", "--help"],
            &["token", "create", "--role", "login", "--uses", "3", "--valid", "2d"],
            &["host", "list"],
            &["host", "revoke", "n1"],
            &["store", "check", "dir"],
            &["explain", "12_3", "--no-suggestions"],
            &["what-if", "submit", "-n", "4", "--wrap=true"],
            &["what-if", "drain", "n[1-3]"],
            &["what-if", "limit", "modify", "account", "a", "set", "maxjobs=-1"],
            &["what-if", "weights", "f"],
            &["gpus"],
            &["web", "--read-only"],
            &["gpus", "-l", "n[1-3]"],
            &["checkpoint-done", "12"],
            &["watch", "12", "13_[1-3]", "--json"],
            &["watch", "-a"],
            &["completion", "fish"],
            &["simulate", "t.swf", "--cluster", "units:4", "--policy", "easy", "--jobs", "5"],
            &["simulate", "--history", "--cluster", "c.toml", "--compare", "fcfs", "--json"],
        ];
        for args in table {
            let words = std::iter::once(PROGRAM).chain(args.iter().copied());
            assert!(Cli::try_parse_from(words).is_ok(), "{args:?}");
        }
        assert!(Cli::try_parse_from([PROGRAM, "token", "create", "--uses", "0"]).is_err());
        assert!(Cli::try_parse_from([PROGRAM, "controller"]).is_err());
        for wrong in [
            &["t", "--history", "--cluster", "units:4"][..],
            &["t"],
            &["t", "--cluster", "units:0"],
        ] {
            let words = [PROGRAM, "simulate"].into_iter().chain(wrong.iter().copied());
            assert!(Cli::try_parse_from(words).is_err(), "{wrong:?}");
        }
    }
}
