//! `srun`: how do tasks run in parallel within a job, as if they ran here?
//!
//! Inside a job it makes a step of it; outside it gets a job first, holds it, and gives it back. The
//! tasks' shepherds dial this process (see [`crate::step`]).

pub(crate) mod create;
mod environment;
mod help;
mod launch;
mod multi_prog;
mod streams;

use penstock_vocab::expand;

use crate::allocation::{
    Allocated, Command, Holder, NoJob, Order, Pending, get, job_spec, mpi_list, read,
};
use crate::connect::Client;
use crate::errors::{RemoteError, error};
use crate::output::{note, print_line, write_bytes};
use crate::sbatch::request::{Ask, Request};
use crate::sbatch::spec::Submitter;
use crate::sbatch::{check_licenses, check_times, fit_nodes_to_tasks, tell_options, test_only};
use crate::step::signals::{SRUN, Signals};

pub(crate) use environment::port_range;

const PROGRAM: &str = "srun";

/// Exit status of everything that fails and has no status of its own.
const FAILED: i32 = 1;

/// Signals that change the size of the terminal are heard with `--pty`.
const WITH_PTY: [i32; 7] = [SRUN[0], SRUN[1], SRUN[2], SRUN[3], SRUN[4], SRUN[5], libc::SIGWINCH];

/// srun did not get so far as to run something; the reason was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    /// With this status, unless SLURM_EXIT_ERROR has another.
    With(i32),
    /// It had to start at once and could not.
    NotAtOnce,
}

/// Runs srun; returns its exit status.
pub(crate) fn run(_program: &str, args: Vec<String>) -> i32 {
    match try_run(&args) {
        Ok(status) => status,
        Err(failed) => exit_status(failed, &|name| std::env::var(name).ok()),
    }
}

/// What SLURM_EXIT_ERROR and SLURM_EXIT_IMMEDIATE make of a failure.
pub(crate) fn exit_status(failed: Failed, env: &dyn Fn(&str) -> Option<String>) -> i32 {
    let chosen = |name| env(name).and_then(|text: String| text.trim().parse().ok());
    match failed {
        Failed::With(code) => chosen("SLURM_EXIT_ERROR").unwrap_or(code),
        Failed::NotAtOnce => {
            chosen("SLURM_EXIT_IMMEDIATE").or_else(|| chosen("SLURM_EXIT_ERROR")).unwrap_or(FAILED)
        }
    }
}

fn try_run(args: &[String]) -> Result<i32, Failed> {
    let order = match prepare(args) {
        Ok(Some(order)) => order,
        Ok(None) => return Ok(0),
        Err(status) => return Err(Failed::With(status)),
    };
    let line = submit_line(PROGRAM, args);
    let submitter = Submitter::of_this_process(line).map_err(|text| fail(&text))?;
    let inside = job_id(&order, &|name| std::env::var(name).ok())?;
    let client = Client::open().map_err(|failure| {
        failure.report(PROGRAM, "Unable to allocate resources");
        Failed::With(FAILED)
    })?;
    match inside {
        Some(job_id) => client.run(within(&client, &order, &submitter, job_id)),
        None if order.request.test_only => {
            let spec = job_spec(&order, &name_of(&order), &submitter);
            Ok(test_only(PROGRAM, spec))
        }
        None => client.run(alone(&client, &order, &submitter)),
    }
}

fn fail(text: &str) -> Failed {
    error(PROGRAM, text);
    Failed::With(FAILED)
}

/// The command line as it was typed, words joined by blanks.
pub(crate) fn submit_line(program: &str, args: &[String]) -> String {
    let words: Vec<&str> =
        std::iter::once(program).chain(args.iter().map(String::as_str)).collect();
    words.join(" ")
}

/// Reads the command line; `None`: it asked for help and the like, which was given.
fn prepare(args: &[String]) -> Result<Option<Order>, i32> {
    let env = |name: &str| std::env::var(name).ok();
    let mut order = read(Command::Srun, args, &env).map_err(|stop| stop.report(PROGRAM))?;
    match order.request.ask {
        Some(Ask::Help) => write_bytes(help::HELP.as_bytes()),
        Some(Ask::Usage) => write_bytes(help::USAGE.as_bytes()),
        Some(Ask::Version) => print_line(crate::dispatch::SLURM_VERSION),
        None if order.extras.mpi == "list" => {
            let pmix = penstock_agent::pmix_version();
            write_bytes(mpi_list(pmix.as_deref()).as_bytes())
        }
        None => {
            check(&mut order)?;
            return Ok(Some(order));
        }
    }
    Ok(None)
}

/// What can be said before anything is sent.
fn check(order: &mut Order) -> Result<(), i32> {
    if order.operands.is_empty() {
        note(&format!("{PROGRAM}: fatal: No command given to execute."));
        return Err(FAILED);
    }
    let request = &mut order.request;
    let checked = check_licenses(&request.licenses).and_then(|()| check_times(request));
    if let Err(lines) = checked {
        lines.0.iter().for_each(|line| error(PROGRAM, line));
        return Err(FAILED);
    }
    fit_nodes_to_tasks(PROGRAM, request);
    fit_tasks_to_nodes(request);
    place_tasks(order, &|name| std::env::var(name).ok()).map_err(|line| {
        error(PROGRAM, &line);
        FAILED
    })?;
    if order.extras.multi_prog {
        let known = order.request.ntasks;
        multi_prog::check(&order.operands[0], known).map_err(|lines| {
            lines.iter().for_each(|line| error(PROGRAM, line));
            FAILED
        })?;
    }
    if order.request.verbose > 0 {
        tell_options(PROGRAM, &order.request);
    }
    Ok(())
}

/// With `arbitrary` each task has its node: the list of nodes names them in order, or SLURM_HOSTFILE
/// does.
fn place_tasks(order: &mut Order, env: &dyn Fn(&str) -> Option<String>) -> Result<(), String> {
    if !order.extras.distribution.starts_with("arbitrary") {
        return Ok(());
    }
    let request = &mut order.request;
    if request.nodelist.is_empty() {
        let Some(file) = env("SLURM_HOSTFILE").filter(|file| !file.is_empty()) else {
            return Err("--distribution=arbitrary needs a node for each task; name them with \
                        --nodelist, or in a file with SLURM_HOSTFILE"
                .to_owned());
        };
        let text = std::fs::read_to_string(&file)
            .map_err(|failure| format!("cannot read {file}: {failure}"))?;
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            request.nodelist.extend(expand(line).map_err(|failure| failure.to_string())?);
        }
    }
    let named = u32::try_from(request.nodelist.len()).unwrap_or(u32::MAX);
    match *request.ntasks.get_or_insert(named) {
        tasks if tasks > named => Err(format!(
            "--distribution=arbitrary: {tasks} tasks, and only {named} nodes are named for them"
        )),
        _ => Ok(()),
    }
}

/// More tasks than so many on each node make: Slurm says so and drops the latter.
fn fit_tasks_to_nodes(request: &mut Request) {
    let (Some((min, max)), Some(tasks), Some(each)) =
        (request.nodes, request.ntasks, request.ntasks_per_node)
    else {
        return;
    };
    if min == max && tasks > min.saturating_mul(each) {
        if !request.quiet {
            note(&format!(
                "{PROGRAM}: Warning: can't honor --ntasks-per-node set to {each} which doesn't match \
                 the requested tasks {tasks} with the number of requested nodes {min}. Ignoring \
                 --ntasks-per-node."
            ));
        }
        request.ntasks_per_node = None;
    }
}

/// The job that this process is to work in: `--jobid`, or the one that it runs in.
fn job_id(order: &Order, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<u32>, Failed> {
    if let Some(given) = order.extras.jobid {
        return Ok(Some(given));
    }
    let Some(text) = env("SLURM_JOB_ID").or_else(|| env("SLURM_JOBID")) else { return Ok(None) };
    match text.trim() {
        "" => Ok(None),
        number => match number.parse() {
            Ok(job_id) => Ok(Some(job_id)),
            Err(_) => Err(fail(&format!(
                "SLURM_JOB_ID={number:?} is no job id; unset it to get a job of its own"
            ))),
        },
    }
}

/// What a job or a step is called unless it was given a name.
fn name_of(order: &Order) -> String {
    let command = order.operands.first().map_or("", String::as_str);
    command.rsplit('/').next().unwrap_or_default().to_owned()
}

fn catch(order: &Order) -> Result<Signals, Failed> {
    let numbers = if order.extras.pty { &WITH_PTY[..] } else { &SRUN[..] };
    Signals::catch(numbers).map_err(|failure| fail(&format!("cannot catch signals: {failure}")))
}

/// Makes a step of a job that somebody else has.
async fn within(
    client: &Client,
    order: &Order,
    submitter: &Submitter,
    job_id: u32,
) -> Result<i32, Failed> {
    let mut signals = catch(order)?;
    create::check_against_job(order, &|name| std::env::var(name).ok())?;
    launch::run(client, order, submitter, &mut signals, job_id, None).await
}

/// Gets a job, runs the step in it, and gives it back.
async fn alone(client: &Client, order: &Order, submitter: &Submitter) -> Result<i32, Failed> {
    if order.extras.relative.is_some() {
        note(&format!("{PROGRAM}: fatal: --relative option invalid for job allocation request"));
        return Err(Failed::With(FAILED));
    }
    let mut signals = catch(order)?;
    let pending = Pending {
        program: PROGRAM,
        refused: "Unable to allocate resources",
        salloc: false,
        quiet: order.request.quiet,
        immediate: order.extras.immediate,
    };
    let spec = job_spec(order, &name_of(order), submitter);
    let got = get(client, pending, spec, &mut signals).await;
    let (allocated, mut holder) = got.map_err(|why| match why {
        NoJob::Failed => Failed::With(FAILED),
        NoJob::NotAtOnce => Failed::NotAtOnce,
    })?;
    let own = Own { allocated: &allocated, holder: &mut holder };
    let job_id = own.allocated.job_id;
    let ran = launch::run(client, order, submitter, &mut signals, job_id, Some(own)).await;
    let status = match ran {
        Ok(status) => status,
        Err(Failed::With(status)) => status,
        Err(Failed::NotAtOnce) => FAILED,
    };
    if let Err(failure) = holder.release(client, status).await {
        tell_unreleased(&failure, allocated.job_id);
    }
    ran
}

/// A job of this process's own.
struct Own<'a> {
    allocated: &'a Allocated,
    holder: &'a mut Holder,
}

/// A job that has ended already needs no release.
fn tell_unreleased(failure: &RemoteError, job_id: u32) {
    if !matches!(failure, RemoteError::Refused(_)) {
        failure.report(PROGRAM, &format!("cannot give job {job_id} back"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[&str]) -> Vec<String> {
        line.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn a_command_is_needed() {
        assert_eq!(run(PROGRAM, words(&["-n2"])), 1);
        assert_eq!(run(PROGRAM, words(&["--version"])), 0);
        assert_eq!(run(PROGRAM, words(&["--mpi=list"])), 0);
        assert_eq!(run(PROGRAM, words(&["--foo"])), 255);
    }

    #[test]
    fn the_job_is_the_one_that_was_named_or_that_this_runs_in() {
        let order = |line: &[&str]| read(Command::Srun, &words(line), &|_| None).expect("valid");
        let env =
            |id: &'static str| move |name: &str| (name == "SLURM_JOB_ID").then(|| id.to_owned());
        assert_eq!(job_id(&order(&["true"]), &|_| None), Ok(None));
        assert_eq!(job_id(&order(&["true"]), &env("7")), Ok(Some(7)));
        assert_eq!(job_id(&order(&["true"]), &env("")), Ok(None));
        assert_eq!(job_id(&order(&["--jobid=8", "true"]), &env("7")), Ok(Some(8)));
        assert_eq!(job_id(&order(&["true"]), &env("x")), Err(Failed::With(1)));
    }

    #[test]
    fn arbitrary_tasks_have_their_nodes_named() {
        let placed = |line: &[&str], file: Option<&str>| {
            let mut order = read(Command::Srun, &words(line), &|_| None).expect("valid");
            place_tasks(&mut order, &|_| file.map(str::to_owned))
                .map(|()| (order.request.nodelist.join(" "), order.request.ntasks))
        };
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("hosts");
        std::fs::write(&path, "# nodes\nn2\nn1\nn[1-2]\n").expect("written");
        let file = path.to_str();
        let expect = ("n2 n1 n1 n2".to_owned(), Some(4));
        assert_eq!(placed(&["-m", "arbitrary", "true"], file), Ok(expect));
        let few = placed(&["-m", "arbitrary", "-n2", "-w", "n2,n2,n1", "true"], file);
        assert_eq!(few, Ok(("n2 n2 n1".to_owned(), Some(2))));
        assert!(placed(&["-m", "arbitrary", "true"], None).is_err());
        assert!(placed(&["-m", "arbitrary", "-n5", "true"], file).is_err());
        assert_eq!(placed(&["true"], file), Ok((String::new(), None)));
    }

    #[test]
    fn the_environment_chooses_the_status_of_a_failure() {
        let env = |name: &str| match name {
            "SLURM_EXIT_ERROR" => Some("7".to_owned()),
            "SLURM_EXIT_IMMEDIATE" => Some("8".to_owned()),
            _ => None,
        };
        assert_eq!(exit_status(Failed::With(1), &env), 7);
        assert_eq!(exit_status(Failed::NotAtOnce, &env), 8);
        assert_eq!(exit_status(Failed::With(255), &|_| None), 255);
    }

    #[test]
    fn the_name_is_the_commands() {
        let named =
            |line: &[&str]| name_of(&read(Command::Srun, &words(line), &|_| None).expect("valid"));
        assert_eq!(named(&["/bin/hostname", "-f"]), "hostname");
        assert_eq!(named(&["./a.out"]), "a.out");
    }
}
