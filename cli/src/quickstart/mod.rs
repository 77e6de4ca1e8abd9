//! How does somebody try Penstock on one machine, with nothing prepared?
//!
//! `penstock quickstart` keeps a whole cluster in one folder: a controller and N agents, each a
//! process of its own. It starts what is missing there, adopts what lives, runs a first job and
//! shows what happens.
//!
//! - **Who stops what.** A cluster in the foreground ends with Ctrl-C: its jobs are cancelled and
//!   awaited, then the agents and the controller end. `--detach` leaves it running until `--stop`,
//!   which does the same; a foreground quickstart on a detached cluster is a visitor and stops
//!   nothing. The folder with its history stays in any case.
//! - **One at a time.** A lock in the folder keeps a second quickstart out; `--status` needs none.
//! - **Exactly these processes.** Each is remembered by pid, start time and boot, and is held by a
//!   pidfd before it is signalled.

mod cluster;
mod commands;
mod failure;
mod files;
mod gpus;
mod interrupt;
mod layout;
mod options;
mod process;
mod registry;
mod remote;
mod status;
mod stop;
mod talk;
mod tidy;
mod tour;

use failure::Failure;
use interrupt::Interrupt;
use layout::Layout;
use options::{Mode, Options};
use talk::Talk;

/// First argument with which quickstart starts itself to become a daemon.
const AS_DAEMON: &str = "--as-daemon";

/// Runs `penstock quickstart ARGS` and gives its exit status.
pub(crate) fn run(program: &str, args: Vec<String>) -> i32 {
    if args.first().is_some_and(|arg| arg == AS_DAEMON) {
        return process::become_daemon(&args[1..]);
    }
    let options = match Options::parse(program, args) {
        Ok(options) => options,
        Err(status) => return status,
    };
    let talk = Talk::new(options.mode);
    match carry_out(&options, talk) {
        Ok(status) => status,
        Err(failure) => {
            failure.report();
            failure.status()
        }
    }
}

fn carry_out(options: &Options, talk: Talk) -> Result<i32, Failure> {
    match options.mode {
        Mode::Status => status::show(&Layout::existing(options.dir.as_deref())?),
        Mode::Stop => {
            let layout = Layout::existing(options.dir.as_deref())?;
            stop::from_outside(&layout, &Interrupt::install()?, talk)
        }
        Mode::Serve | Mode::Exit | Mode::Detach => {
            let layout = Layout::prepare(options.dir.as_deref(), talk)?;
            tour::start(&layout, options, &Interrupt::install()?, talk)
        }
    }
}
