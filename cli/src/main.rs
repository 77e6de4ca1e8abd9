//! The binary of Penstock: every command that a person types, and both daemons.

#![forbid(unsafe_code)]

mod admin;
mod allocation;
mod checkpoint;
mod completion;
mod config_check;
mod connect;
mod dispatch;
mod errors;
mod explain;
mod gpus;
mod idle;
mod json;
mod listing;
mod options;
mod output;
mod pmi;
mod quickstart;
mod sacct;
mod sacctmgr;
mod salloc;
mod sattach;
mod sbatch;
mod sbcast;
mod scancel;
mod scontrol;
mod scrontab;
mod sdiag;
mod seff;
mod simulate;
mod sinfo;
mod sprio;
mod squeue;
mod sreport;
mod srun;
mod sshare;
mod sstat;
mod step;
mod suggest;
mod text_file;
mod watch;
mod web;
mod whatif;
mod when;
mod words;

fn main() -> std::process::ExitCode {
    dispatch::main()
}
