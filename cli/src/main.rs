//! The binary of Penstock: every command that a person types, and both daemons.

#![forbid(unsafe_code)]

mod admin;
mod config_check;
mod connect;
mod dispatch;
mod errors;
mod listing;
mod options;
mod output;
mod quickstart;
mod sacct;
mod sbatch;
mod scancel;
mod scontrol;
mod sinfo;
mod squeue;
mod when;
mod words;

fn main() -> std::process::ExitCode {
    dispatch::main()
}
