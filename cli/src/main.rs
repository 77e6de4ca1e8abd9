//! The binary of Penstock: every command that a person types, and both daemons.

#![forbid(unsafe_code)]

mod admin;
mod checkpoint;
mod config_check;
mod connect;
mod dispatch;
mod errors;
mod explain;
mod idle;
mod listing;
mod options;
mod output;
mod quickstart;
mod sacct;
mod sacctmgr;
mod sbatch;
mod scancel;
mod scontrol;
mod sdiag;
mod seff;
mod simulate;
mod sinfo;
mod sprio;
mod squeue;
mod sreport;
mod sshare;
mod text_file;
mod whatif;
mod when;
mod words;

fn main() -> std::process::ExitCode {
    dispatch::main()
}
