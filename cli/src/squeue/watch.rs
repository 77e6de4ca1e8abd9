//! `squeue --watch`: the listing, kept up to date by the controller.
//!
//! On a terminal it is drawn over itself; elsewhere each new one stands below the last. Changes that come
//! together are drawn together, and times on a terminal go on without anybody being asked.

use std::convert::Infallible;
use std::io::IsTerminal as _;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use penstock_proto::v1;
use penstock_vocab::{JobFlags, JobState, StateFilter, parse_job_state};

use crate::connect::Client;
use crate::listing::{Clock, cluster_name, list_limit_from_env, now_ms};
use crate::output::{note, print_line, write_bytes};
use crate::watch::follow::{Change, Known, News, follow};
use crate::watch::json;

use super::options::Options;
use super::print::Page;
use super::{check_nodes, failed};

/// Least time between two drawings.
const PAUSE: Duration = Duration::from_millis(200);
/// How often times on a terminal go on.
const TERMINAL: Duration = Duration::from_secs(1);
/// Back to the first column of the first line, and nothing below.
const CLEAR: &[u8] = b"\x1b[H\x1b[2J";

/// Follows until it is interrupted, or cannot; returns the exit status.
pub(super) fn watch(program: &str, client: &Client, options: &Options) -> i32 {
    if let Err(status) = check_nodes(program, client, options) {
        return status;
    }
    let listing = options.request();
    let request = v1::WatchJobsRequest { filter: listing.filter, full: listing.full, after: 0 };
    let cluster = if options.needs_cluster() { cluster_name(client) } else { String::new() };
    let mut screen = Screen {
        options,
        cluster,
        states: states(&options.filter.states),
        terminal: options.form.is_none() && std::io::stdout().is_terminal(),
        drawn: None,
        waits: false,
    };
    let ended = follow(client, &request, Some(PAUSE), &mut |news| {
        screen.tell(program, news);
        ControlFlow::<Infallible>::Continue(())
    });
    match ended {
        Err(problem) => failed(program, &problem),
    }
}

fn states(names: &[String]) -> Vec<StateFilter> {
    names.iter().filter_map(|name| parse_job_state(name).ok()).collect()
}

struct Screen<'s> {
    options: &'s Options,
    cluster: String,
    states: Vec<StateFilter>,
    terminal: bool,
    /// When it was drawn last.
    drawn: Option<Instant>,
    /// Something changed since.
    waits: bool,
}

impl Screen<'_> {
    fn tell(&mut self, program: &str, news: News<'_>) {
        let known = match news {
            News::Lost => {
                note(&format!("{program}: the controller does not answer; waiting for it"));
                return;
            }
            News::Changed(_, changes, at_ms) if self.options.form.is_some() => {
                self.lines(changes, at_ms);
                return;
            }
            News::Changed(known, changes, _) => {
                self.waits |= !changes.is_empty() || self.drawn.is_none();
                known
            }
            News::Quiet(known) => known,
        };
        let since = self.drawn.map(|at| at.elapsed());
        let due = self.waits && since.is_none_or(|since| since >= PAUSE)
            || self.terminal && since.is_some_and(|since| since >= TERMINAL);
        if due {
            self.draw(known);
        }
    }

    /// A line for each change, for programs.
    fn lines(&self, changes: &[Change], at_ms: i64) {
        for change in changes {
            let Change::Now(before, info) = change else { continue };
            if self.shows(info) || before.as_ref().is_some_and(|before| self.shows(before)) {
                print_line(&json(info, at_ms));
            }
        }
    }

    fn shows(&self, info: &v1::JobInfo) -> bool {
        let Some(job) = &info.job else { return false };
        let Some(state) = JobState::from_code(job.state) else { return false };
        let flags = JobFlags::from_bits(job.flags);
        if self.states.is_empty() {
            self.options.ended || !state.is_finished() || flags != JobFlags::EMPTY
        } else {
            self.states.iter().any(|wanted| wanted.matches(state, flags))
        }
    }

    fn draw(&mut self, known: &Known) {
        let clock = Clock::from_env(now_ms());
        let page = Page {
            options: self.options,
            clock: &clock,
            cluster: &self.cluster,
            list_limit: list_limit_from_env(),
            limit_given: std::env::var_os("SLURM_BITSTR_LEN").is_some(),
        };
        let mut lines = page.lines();
        for info in known.jobs.values().filter(|info| self.shows(info)) {
            page.take_one(&mut lines, info);
        }
        let mut out = Vec::new();
        if self.terminal {
            out.extend_from_slice(CLEAR);
        } else {
            let gap = if self.drawn.is_some() { "\n" } else { "" };
            out.extend_from_slice(format!("{gap}{}\n", clock.date_line()).as_bytes());
        }
        let head = out.len();
        page.print(lines, &mut |bytes| out.extend_from_slice(bytes));
        if self.terminal
            && let Some(rows) = rows()
        {
            let text = out.split_off(head);
            // The last row stays free, or the terminal would scroll.
            let lines = text.split_inclusive(|byte| *byte == b'\n').take(rows.saturating_sub(1));
            lines.for_each(|line| out.extend_from_slice(line));
        }
        write_bytes(&out);
        (self.drawn, self.waits) = (Some(Instant::now()), false);
    }
}

/// Rows of the terminal.
fn rows() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_row)).filter(|rows| *rows > 0)
}
