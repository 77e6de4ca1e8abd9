//! `sdiag`: what does the controller do all day, and how long does it take?
//!
//! Slurm's blocks, filled with what there is here: the main schedule is every plan, backfilling the
//! whole ones. Behind them stand ours: what planning costs by phase, with histograms.

mod text;

use penstock_proto::v1;

use crate::connect::{Client, Patience};
use crate::errors::error;
use crate::listing::{Clock, now_ms};
use crate::options::{Operands, Opt, Takes, parse};
use crate::output::{note, print_line, write_bytes};

use self::Takes::{Nothing, Value};
use self::text::SortBy;

const FAILED: i32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    All,
    Help,
    Reset,
    Sort(SortBy),
    Usage,
    Version,
    Unbuilt(&'static str),
}

const TABLE: &[Opt<Key>] = &[
    Opt::both('a', "all", Nothing, Key::All),
    Opt::both('r', "reset", Nothing, Key::Reset),
    Opt::both('M', "cluster", Value, Key::Unbuilt("cluster")),
    Opt::both('i', "sort-by-id", Nothing, Key::Sort(SortBy::Name)),
    Opt::both('t', "sort-by-time", Nothing, Key::Sort(SortBy::Total)),
    Opt::both('T', "sort-by-time2", Nothing, Key::Sort(SortBy::Average)),
    Opt::long("json", Nothing, Key::Unbuilt("json")),
    Opt::long("yaml", Nothing, Key::Unbuilt("yaml")),
    Opt::both('V', "version", Nothing, Key::Version),
    Opt::both('h', "help", Nothing, Key::Help),
    Opt::long("usage", Nothing, Key::Usage),
];

const USAGE: &str = "Usage: sdiag [-M cluster] [-aritT]\n";

const HELP: &str = "\
Usage: sdiag [OPTIONS]
Shows what the controller counts: jobs, plans, calls, and how long each took.

  -a, --all             all statistics (the same as without)
  -r, --reset           begin counting anew (administrators)
  -i, --sort-by-id      calls by name
  -t, --sort-by-time    calls by total time
  -T, --sort-by-time2   calls by average time

      --help            this text
      --usage           the short form
  -V, --version         version of Slurm whose commands these are
";

/// Its options, for completion.
pub(crate) fn options() -> Vec<crate::options::Name> {
    crate::options::names(TABLE)
}

/// Runs sdiag; returns its exit status.
pub(crate) fn run(program: &str, args: Vec<String>) -> i32 {
    let parsed = match parse(TABLE, Operands::Anywhere, &args) {
        Ok(parsed) => parsed,
        Err(problem) => {
            problem.report(program);
            return FAILED;
        }
    };
    let (mut reset, mut sort) = (false, SortBy::Count);
    for given in parsed.given {
        match given.key {
            Key::All => {}
            Key::Help => return say(HELP),
            Key::Reset => reset = true,
            Key::Sort(by) => sort = by,
            Key::Usage => return say(USAGE),
            Key::Version => {
                print_line(crate::dispatch::SLURM_VERSION);
                return 0;
            }
            Key::Unbuilt(name) => {
                error(program, &format!("--{name} is not built in Penstock"));
                return FAILED;
            }
        }
    }
    let answer = Client::open().and_then(|client| {
        client.planning(Patience::READ, |mut rpc| async move {
            rpc.diagnose(v1::DiagnoseRequest { reset }).await
        })
    });
    match answer {
        Ok(_) if reset => {
            print_line("Reset scheduling statistics");
            0
        }
        Ok(reply) => {
            let zone = Clock::new(jiff::tz::TimeZone::system(), None, now_ms());
            write_bytes(text::text(&reply, sort, &zone).as_bytes());
            0
        }
        Err(problem) => {
            if let Some(detail) = problem.detail() {
                error(program, &detail);
            }
            note(&format!("slurm_get_statistics: {}", problem.slurm_text()));
            FAILED
        }
    }
}

fn say(text: &str) -> i32 {
    write_bytes(text.as_bytes());
    0
}
