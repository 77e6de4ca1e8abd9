//! `salloc`: how does a person get a job to work in?
//!
//! It gets a job without a script, holds it, runs a command or a shell here with the job's variables,
//! and gives the job back when that ends.

mod command;
mod help;

use crate::allocation::{Allocated, Command, Holder, NoJob, Order, Pending, get, job_spec, read};
use crate::connect::Client;
use crate::errors::error;
use crate::output::{note, print_line, write_bytes};
use crate::sbatch::request::Ask;
use crate::sbatch::spec::Submitter;
use crate::sbatch::{check_licenses, check_times, fit_nodes_to_tasks, tell_options};
use crate::srun::{Failed, exit_status, submit_line};
use crate::step::signals::{SRUN, Signals};

use self::command::{Ended, Running};

const PROGRAM: &str = "salloc";

/// Exit status of everything that fails and has no status of its own.
const FAILED: i32 = 1;

/// What a job is called unless it was given a name.
const DEFAULT_NAME: &str = "interactive";

/// Runs salloc; returns its exit status.
pub(crate) fn run(_program: &str, args: Vec<String>) -> i32 {
    match try_run(&args) {
        Ok(status) => status,
        Err(failed) => exit_status(failed, &|name| std::env::var(name).ok()),
    }
}

fn try_run(args: &[String]) -> Result<i32, Failed> {
    let order = match prepare(args) {
        Ok(Some(order)) => order,
        Ok(None) => return Ok(0),
        Err(status) => return Err(Failed::With(status)),
    };
    let submitter =
        Submitter::of_this_process(submit_line(PROGRAM, args)).map_err(|text| fail(&text))?;
    let client = Client::open().map_err(|failure| {
        failure.report(PROGRAM, "Job submit/allocate failed");
        Failed::With(FAILED)
    })?;
    client.run(allocate(&client, &order, &submitter))
}

fn fail(text: &str) -> Failed {
    error(PROGRAM, text);
    Failed::With(FAILED)
}

/// Reads the command line; `None`: it asked for help and the like, which was given.
fn prepare(args: &[String]) -> Result<Option<Order>, i32> {
    let env = |name: &str| std::env::var(name).ok();
    let mut order = read(Command::Salloc, args, &env).map_err(|stop| stop.report(PROGRAM))?;
    let request = &mut order.request;
    match request.ask {
        Some(Ask::Help) => write_bytes(help::HELP.as_bytes()),
        Some(Ask::Usage) => write_bytes(help::USAGE.as_bytes()),
        Some(Ask::Version) => print_line(crate::dispatch::SLURM_VERSION),
        None => {
            let checked = check_licenses(&request.licenses).and_then(|()| check_times(request));
            if let Err(lines) = checked {
                lines.0.iter().for_each(|line| error(PROGRAM, line));
                return Err(FAILED);
            }
            fit_nodes_to_tasks(PROGRAM, request);
            if request.verbose > 0 {
                tell_options(PROGRAM, request);
            }
            if order.extras.no_shell && !order.operands.is_empty() {
                error(PROGRAM, "--no-shell runs nothing; leave the command away");
                return Err(FAILED);
            }
            return Ok(Some(order));
        }
    }
    Ok(None)
}

async fn allocate(client: &Client, order: &Order, submitter: &Submitter) -> Result<i32, Failed> {
    let mut signals = Signals::catch(&SRUN)
        .map_err(|failure| fail(&format!("cannot catch signals: {failure}")))?;
    let pending = Pending {
        program: PROGRAM,
        refused: "Job submit/allocate failed",
        salloc: true,
        quiet: order.request.quiet,
        immediate: order.extras.immediate,
    };
    let spec = job_spec(order, DEFAULT_NAME, submitter);
    let got = get(client, pending, spec, &mut signals).await;
    let (allocated, mut holder) = got.map_err(|why| match why {
        NoJob::Failed => Failed::With(FAILED),
        NoJob::NotAtOnce => Failed::NotAtOnce,
    })?;
    if order.extras.bell {
        // Slurm rings where somebody may hear it.
        note("\u{7}");
    }
    if order.extras.no_shell {
        return Ok(0);
    }
    let work = Work { client, order, submitter, allocated: &allocated };
    work.run(&mut holder, &mut signals).await
}

/// A job and what is to be done in it.
struct Work<'a> {
    client: &'a Client,
    order: &'a Order,
    submitter: &'a Submitter,
    allocated: &'a Allocated,
}

impl Work<'_> {
    async fn run(&self, holder: &mut Holder, signals: &mut Signals) -> Result<i32, Failed> {
        let started = Running::start(self.order, self.submitter, self.allocated);
        let mut running = match started {
            Ok(running) => running,
            Err(text) => {
                error(PROGRAM, &text);
                self.release(holder, FAILED).await;
                return Err(Failed::With(FAILED));
            }
        };
        let mut revoked = false;
        let ended = loop {
            tokio::select! {
                ended = running.wait() => break ended,
                event = holder.next() => {
                    use penstock_proto::v1::allocation_event::Kind;
                    if matches!(event.kind(), Kind::Ending | Kind::Ended) && !revoked {
                        revoked = true;
                        self.revoked();
                        running.end(self.order.extras.kill_command);
                    }
                }
                signal = signals.next() => {
                    if running.on_signal(signal) {
                        break Ended::LetGo;
                    }
                }
            }
        };
        let status = ended.status();
        running.take_terminal_back();
        if !revoked {
            self.release(holder, status).await;
        }
        Ok(status)
    }

    fn revoked(&self) {
        if !self.order.request.quiet {
            let job_id = self.allocated.job_id;
            note(&format!("{PROGRAM}: Job allocation {job_id} has been revoked."));
        }
    }

    async fn release(&self, holder: &Holder, status: i32) {
        if !self.order.request.quiet {
            note(&format!("{PROGRAM}: Relinquishing job allocation {}", self.allocated.job_id));
        }
        if let Err(failure) = holder.release(self.client, status).await {
            // A job that has ended by itself needs no release.
            if !matches!(failure, crate::errors::RemoteError::Refused(_)) {
                let job_id = self.allocated.job_id;
                failure.report(PROGRAM, &format!("cannot give job {job_id} back"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_answered_as_slurm_answers_them() {
        let run = |line: &[&str]| run(PROGRAM, line.iter().map(|&word| word.to_owned()).collect());
        assert_eq!(run(&["--version"]), 0);
        assert_eq!(run(&["--foo"]), 255);
        assert_eq!(run(&["-n0"]), 1);
        assert_eq!(run(&["-o", "f"]), 255);
        assert_eq!(run(&["--no-shell", "true"]), 1);
        assert_eq!(run(&["--time-min=5", "-t1", "true"]), 1);
    }
}
