//! `scancel`: which jobs are ended or signalled, and what is said about it?
//!
//! As in Slurm a job that is gone, or that never was, is no error: tools cancel twice. Only `-v`
//! tells of it.

mod ask;
mod table;

use std::str::FromStr as _;

use penstock_proto::v1;
use penstock_vocab::{
    JobSelector, JobState, Signal, StateFilter, StepSelector, expand, parse_job_state,
};

use crate::connect::{Client, Patience, request_id};
use crate::errors::{RemoteError, error, refusal_detail, refusal_text};
use crate::options::{Given, Operands, parse};
use crate::output::{note, print_line, write_bytes};
use crate::words::{list, split_job_ids};

use self::table::{ENVIRONMENT, HELP, Key, TABLE, USAGE};

const PROGRAM: &str = "scancel";

/// Exit status of everything that fails.
const FAILED: i32 = 1;

/// Slurm's texts for a job that is gone.
const GONE: [&str; 3] = [
    "Invalid job id specified",
    "Job/step already completing or completed",
    "Job has already finished",
];

/// What is to be done, to which jobs.
#[derive(Debug, Clone, Default, PartialEq)]
struct Orders {
    filter: v1::JobFilter,
    /// Steps: `12.0`.
    steps: Vec<String>,
    signal: Option<Signal>,
    batch_only: bool,
    cron: bool,
    full: bool,
    interactive: bool,
    quiet: bool,
    verbose: u32,
    ask: Option<Key>,
}

/// Its options, for completion.
pub(crate) fn options() -> Vec<crate::options::Name> {
    crate::options::names(table::TABLE)
}

/// Runs scancel; returns its exit status.
pub(crate) fn run(_program: &str, args: Vec<String>) -> i32 {
    let parsed = match parse(TABLE, Operands::Anywhere, &args) {
        Ok(parsed) => parsed,
        Err(usage) => {
            usage.report(PROGRAM);
            return FAILED;
        }
    };
    let orders = match read(&parsed.given, &parsed.operands, &|name| std::env::var(name).ok()) {
        Ok(orders) => orders,
        Err(lines) => {
            for line in lines {
                note(&line);
            }
            return FAILED;
        }
    };
    match orders.ask {
        Some(Key::Version) => print_line(crate::dispatch::SLURM_VERSION),
        Some(Key::Usage) => write_bytes(USAGE.as_bytes()),
        Some(_) => write_bytes(HELP.as_bytes()),
        None => return carry_out(orders),
    }
    0
}

/// Puts options and environment together; the error is the lines to print.
fn read(
    given: &[Given<Key>],
    operands: &[String],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Orders, Vec<String>> {
    let mut orders = Orders::default();
    for (variable, key) in ENVIRONMENT {
        let Some(text) = env(variable) else { continue };
        let set = !matches!(text.trim().to_ascii_lowercase().as_str(), "0" | "no" | "false");
        // The command line replaces a filter of the environment.
        let replaced = given.iter().any(|option| option.key == *key);
        if set && !replaced {
            orders.apply(*key, &text)?;
        }
    }
    for option in given {
        orders.apply(option.key, option.value.as_deref().unwrap_or_default())?;
    }
    if orders.ask.is_some() {
        return Ok(orders);
    }
    for operand in operands {
        for word in split_job_ids(operand) {
            if word.contains('.') {
                orders.steps.push(step(word)?);
            } else {
                orders.filter.selectors.push(selector(word)?);
            }
        }
    }
    if orders.filter == v1::JobFilter::default() && orders.steps.is_empty() {
        return Err(told("No job identification provided"));
    }
    Ok(orders)
}

impl Orders {
    fn apply(&mut self, key: Key, text: &str) -> Result<(), Vec<String>> {
        let filter = &mut self.filter;
        match key {
            Key::Account => filter.accounts = list(text),
            Key::Name => filter.names = vec![text.to_owned()],
            Key::Partition => filter.partitions = list(text),
            Key::Qos => filter.qos = list(text),
            Key::Nodelist => {
                filter.nodes = expand(text).map_err(|error| told(&error.to_string()))?;
            }
            Key::State => filter.states = states(text)?,
            Key::User => filter.uids = vec![uid_of(text)?],
            Key::Me => filter.uids = vec![nix::unistd::getuid().as_raw()],
            Key::Signal => self.signal = Some(signal(text)?),
            Key::Batch => self.batch_only = true,
            Key::Cron => self.cron = true,
            Key::Full => self.full = true,
            Key::Interactive => self.interactive = true,
            Key::Quiet => self.quiet = true,
            Key::Verbose => self.verbose += 1,
            Key::Reservation => filter.reservations = vec![text.to_owned()],
            Key::Wckey => filter.wckeys = vec![text.to_owned()],
            // Every request goes to the controller, and there is nothing to stage out.
            Key::Ctld | Key::Hurry => {}
            Key::Help | Key::Usage | Key::Version => self.ask = self.ask.or(Some(key)),
            Key::Unbuilt(name) => return Err(told(&format!("--{name} is not built yet"))),
        }
        Ok(())
    }
}

/// One line as Slurm prints errors.
fn told(text: &str) -> Vec<String> {
    vec![format!("{PROGRAM}: error: {text}")]
}

/// A job or tasks as typed, checked.
fn selector(text: &str) -> Result<String, Vec<String>> {
    match JobSelector::from_str(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(told(&format!("Invalid job id {text}"))),
    }
}

/// A step as typed, checked; the batch script is the job.
fn step(text: &str) -> Result<String, Vec<String>> {
    match StepSelector::from_str(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) if text.split_once('.').is_some_and(|(job, _)| job.parse::<u32>().is_ok()) => {
            Err(told(&format!("Invalid step id {text}")))
        }
        Err(_) => Err(told(&format!("Invalid job id {text}"))),
    }
}

fn signal(text: &str) -> Result<Signal, Vec<String>> {
    text.parse().map_err(|_| vec![format!("Unknown job signal: {text}")])
}

/// Only unfinished jobs can be cancelled.
fn states(text: &str) -> Result<Vec<String>, Vec<String>> {
    let read = |word: &str| match parse_job_state(word) {
        Ok(StateFilter::Base(state)) if !state.is_finished() => {
            Ok(JobState::name(state).to_owned())
        }
        _ => Err(vec![
            format!("Invalid job state specified: {word}"),
            "Valid job states are PENDING, RUNNING, and SUSPENDED".to_owned(),
        ]),
    };
    text.split(',').map(read).collect()
}

/// A user by name or number.
fn uid_of(text: &str) -> Result<u32, Vec<String>> {
    if let Some(user) = uzers::get_user_by_name(text) {
        return Ok(user.uid());
    }
    text.parse().map_err(|_| told(&format!("Invalid user name: {text}")))
}

fn carry_out(orders: Orders) -> i32 {
    match try_carry_out(orders) {
        Ok(status) => status,
        Err(failure) => {
            failure.report(PROGRAM, "");
            FAILED
        }
    }
}

fn try_carry_out(mut orders: Orders) -> Result<i32, RemoteError> {
    let client = Client::open()?;
    let steps = if orders.steps.is_empty() { 0 } else { signal_steps(&client, &orders)? };
    if orders.filter == v1::JobFilter::default() {
        return Ok(steps);
    }
    if orders.filter.selectors.is_empty() && orders.filter.uids.is_empty() {
        // Filters alone, of somebody who may cancel no others' jobs, mean their own.
        let me = client
            .call(Patience::READ, |mut rpc| async move { rpc.ping(v1::PingRequest {}).await })?;
        if !me.admin {
            orders.filter.uids = vec![me.uid];
        }
    }
    if orders.interactive {
        let chosen = ask::choose(&client, &orders.filter)?;
        if chosen.is_empty() {
            return Ok(0);
        }
        orders.filter = v1::JobFilter { selectors: chosen, ..v1::JobFilter::default() };
    }
    let request = v1::CancelJobsRequest {
        request_id: request_id(),
        filter: Some(orders.filter.clone()),
        signal: orders.signal.map_or(0, |signal| signal.number().into()),
        batch_only: orders.batch_only,
        full: orders.full,
        cron: orders.cron,
    };
    let reply = client.call(Patience::CHANGE, |mut rpc| {
        let request = request.clone();
        async move { rpc.cancel_jobs(request).await }
    })?;
    Ok(steps.max(tell(&orders, &reply.results)))
}

/// Ends or signals the steps that were named; returns the exit status.
fn signal_steps(client: &Client, orders: &Orders) -> Result<i32, RemoteError> {
    let request = v1::SignalStepsRequest {
        request_id: request_id(),
        selectors: orders.steps.clone(),
        signal: orders.signal.map_or(0, |signal| signal.number().into()),
    };
    let reply = client.run(client.ask_steps(Patience::CHANGE, |mut rpc| {
        let request = request.clone();
        async move { rpc.signal_steps(request).await }
    }))?;
    Ok(tell(orders, &reply.results))
}

/// Prints what `-v` asks for and what went wrong; returns the exit status.
fn tell(orders: &Orders, results: &[v1::JobResult]) -> i32 {
    let mut status = 0;
    for result in results {
        let job = &result.job;
        if orders.verbose > 0 && !orders.quiet {
            note(&match orders.signal {
                Some(signal) => format!("{PROGRAM}: Signal {} to job {job}", signal.number()),
                None => format!("{PROGRAM}: Terminating job {job}"),
            });
        }
        let Some(refusal) = &result.refusal else { continue };
        let text = refusal_text(refusal);
        let gone = GONE.contains(&text);
        // A job that is gone cannot be ended again, but a signal has missed it.
        let ends = matches!(orders.signal, None | Some(Signal::KILL));
        if !(gone && ends) {
            status = FAILED;
        }
        if orders.verbose > 0 || !gone {
            if let Some(detail) = refusal_detail(refusal).filter(|_| !gone) {
                error(PROGRAM, &detail);
            }
            error(PROGRAM, &format!("Kill job error on job id {job}: {text}"));
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders_of(args: &[&str], env: &[(&str, &str)]) -> Result<Orders, Vec<String>> {
        let words: Vec<String> = args.iter().map(|&word| word.to_owned()).collect();
        let parsed = parse(TABLE, Operands::Anywhere, &words).map_err(|e| vec![e.to_string()])?;
        read(&parsed.given, &parsed.operands, &|name| {
            env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn ids_and_filters_are_read() {
        type Set = fn(&mut Orders);
        let table: &[(&[&str], Set)] = &[
            (&["12", "13,14_2"], |o| {
                o.filter.selectors = vec!["12".into(), "13".into(), "14_2".into()];
            }),
            (&["1_[2-5,7],9"], |o| o.filter.selectors = vec!["1_[2-5,7]".into(), "9".into()]),
            (&["3", "-s", "SIGUSR1", "-b"], |o| {
                o.filter.selectors = vec!["3".into()];
                o.signal = Signal::new(10);
                o.batch_only = true;
            }),
            (&["--signal=9", "-f", "3"], |o| {
                o.filter.selectors = vec!["3".into()];
                o.signal = Signal::new(9);
                o.full = true;
            }),
            (&["12.0,13", "14.interactive"], |o| {
                o.filter.selectors = vec!["13".into()];
                o.steps = vec!["12.0".into(), "14.interactive".into()];
            }),
            (&["-u", "0"], |o| o.filter.uids = vec![0]),
            (&["-n", "a,b"], |o| o.filter.names = vec!["a,b".into()]),
            (&["-p", "a,b", "-A", "x", "-q", "y"], |o| {
                o.filter.partitions = vec!["a".into(), "b".into()];
                o.filter.accounts = vec!["x".into()];
                o.filter.qos = vec!["y".into()];
            }),
            (&["-t", "pd"], |o| o.filter.states = vec!["PENDING".into()]),
            (&["--state=RUNNING,SUSPENDED"], |o| {
                o.filter.states = vec!["RUNNING".into(), "SUSPENDED".into()];
            }),
            (&["-R", "maint", "--wckey=k", "-H", "-c"], |o| {
                o.filter.reservations = vec!["maint".into()];
                o.filter.wckeys = vec!["k".into()];
                o.cron = true;
            }),
            (&["-w", "n[1-2]"], |o| o.filter.nodes = vec!["n1".into(), "n2".into()]),
            (&["-Q", "-vv", "-i", "--ctld", "5"], |o| {
                o.filter.selectors = vec!["5".into()];
                o.quiet = true;
                o.verbose = 2;
                o.interactive = true;
            }),
            (&["--help"], |o| o.ask = Some(Key::Help)),
        ];
        for (args, set) in table {
            let mut expect = Orders::default();
            set(&mut expect);
            assert_eq!(orders_of(args, &[]), Ok(expect), "{args:?}");
        }
        let me = orders_of(&["--me"], &[]).expect("valid");
        assert_eq!(me.filter.uids, [nix::unistd::getuid().as_raw()]);
    }

    #[test]
    fn refusals_are_slurms() {
        let table: &[(&[&str], &str)] = &[
            (&[], "scancel: error: No job identification provided"),
            (&["-v"], "scancel: error: No job identification provided"),
            (&["foo"], "scancel: error: Invalid job id foo"),
            (&["0"], "scancel: error: Invalid job id 0"),
            (&["12", "1_x"], "scancel: error: Invalid job id 1_x"),
            (&["12.x"], "scancel: error: Invalid step id 12.x"),
            (&["x.0"], "scancel: error: Invalid job id x.0"),
            (&["-s", "foo", "1"], "Unknown job signal: foo"),
            (&["-t", "xx"], "Invalid job state specified: xx"),
            (&["-t", "COMPLETED"], "Invalid job state specified: COMPLETED"),
            (&["-u", "no such user"], "scancel: error: Invalid user name: no such user"),
            (&["-M", "x"], "scancel: error: --clusters is not built yet"),
            (&["--foo"], "unrecognized option '--foo'"),
        ];
        for (args, first) in table {
            let lines = orders_of(args, &[]).expect_err(first);
            assert_eq!(lines[0], *first, "{args:?}");
        }
    }

    #[test]
    fn the_environment_gives_filters_that_the_command_line_replaces() {
        let env = [("SCANCEL_PARTITION", "a"), ("SCANCEL_FULL", "1"), ("SCANCEL_BATCH", "0")];
        let orders = orders_of(&["-p", "b"], &env).expect("valid");
        assert_eq!(orders.filter.partitions, ["b"]);
        assert!(orders.full && !orders.batch_only);
    }

    #[test]
    fn a_job_that_is_gone_is_an_error_only_for_signals() {
        let gone =
            v1::Refusal { slurm_text: "Invalid job id specified".into(), ..v1::Refusal::default() };
        let denied =
            v1::Refusal { slurm_text: "Access/permission denied".into(), ..v1::Refusal::default() };
        let result = |refusal: Option<&v1::Refusal>| v1::JobResult {
            job: "9".into(),
            refusal: refusal.cloned(),
        };
        let usr1 = Signal::new(10);
        let table = [
            (None, None, 0),
            (Some(&gone), None, 0),
            (Some(&gone), Some(Signal::KILL), 0),
            (Some(&gone), usr1, 1),
            (Some(&denied), None, 1),
        ];
        for (refusal, signal, status) in table {
            let orders = Orders { signal, ..Orders::default() };
            assert_eq!(tell(&orders, &[result(refusal)]), status);
        }
    }
}
