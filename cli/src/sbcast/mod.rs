//! `sbcast`: how does a file come to all nodes of a job?
//!
//! A step with one task on each node takes the file from its standard input ([`receive`]); srun's
//! ways carry it, as fast as the slowest node takes it.

pub(crate) mod receive;

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use bytes::Bytes;
use penstock_proto::step_io::encode_frame;
use penstock_proto::v1;
use penstock_proto::v1::step_frame::{Frame, Setup};

use crate::connect::Client;
use crate::errors::error;
use crate::options::{Given, Operands, Opt, Takes, parse};
use crate::output::{note, print_line, write_bytes};
use crate::pmi::Fence;
use crate::sbatch::spec::Submitter;
use crate::srun::{Failed, create, exit_status, port_range, submit_line};
use crate::step::drive::Drive;
use crate::step::listener::{Expected, Listener};
use crate::step::session::{Habits, InputTo, Layout, Session};
use crate::step::signals::{SRUN, Signals};
use crate::step::sinks::Sinks;
use crate::step::{input, own_stream, watch};

use self::receive::Receipt;

const PROGRAM: &str = "sbcast";
const FAILED: i32 = 1;

/// Exit status where the file cannot be read.
const UNREADABLE: i32 = 255;

/// The shepherd's own program, which is this one, whatever it is called on the node.
const RECEIVER: &str = "/proc/self/exe";

const USAGE: &str = "Usage: sbcast [-fpv] [-j id] [-s size] [-t secs] SOURCE DEST\n";

const HELP: &str = "\
Usage: sbcast [OPTIONS] SOURCE DEST
Copies a file to all nodes of the job that this runs in. DEST is a path on the nodes; with a slash
at its end, SOURCE's name is put behind it.

  -f, --force                 replace a file that is there
  -j, --jobid=id              the nodes of that job
  -p, --preserve              keep times and modes
  -s, --size=size             accepted: pieces are as large as the nodes take them
  -F, --fanout=n              accepted: every node is sent the file by this process
  -t, --timeout=secs          give up after so long
  -v, --verbose               tell what is done
  -V, --version               tell the version
  -h, --help                  this help
      --usage                 a shorter one
";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Fanout,
    Force,
    Help,
    Jobid,
    Preserve,
    Size,
    Timeout,
    Usage,
    Verbose,
    Version,
    Unbuilt(&'static str),
}

const TABLE: &[Opt<Key>] = &[
    Opt::both('F', "fanout", Takes::Value, Key::Fanout),
    Opt::both('f', "force", Takes::Nothing, Key::Force),
    Opt::both('h', "help", Takes::Nothing, Key::Help),
    Opt::both('j', "jobid", Takes::Value, Key::Jobid),
    Opt::both('p', "preserve", Takes::Nothing, Key::Preserve),
    Opt::both('s', "size", Takes::Value, Key::Size),
    Opt::both('t', "timeout", Takes::Value, Key::Timeout),
    Opt::long("usage", Takes::Nothing, Key::Usage),
    Opt::both('v', "verbose", Takes::Nothing, Key::Verbose),
    Opt::both('V', "version", Takes::Nothing, Key::Version),
    Opt::both('C', "compress", Takes::Maybe, Key::Unbuilt("compress")),
    Opt::long("exclude", Takes::Value, Key::Unbuilt("exclude")),
    Opt::long("send-libs", Takes::Maybe, Key::Unbuilt("send-libs")),
    Opt::long("treewidth", Takes::Value, Key::Unbuilt("treewidth")),
];

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq)]
struct Wish {
    source: String,
    dest: String,
    force: bool,
    preserve: bool,
    verbose: bool,
    job_id: Option<u32>,
    timeout_secs: u64,
    ask: Option<&'static str>,
}

/// Its options, for completion.
pub(crate) fn options() -> Vec<crate::options::Name> {
    crate::options::names(TABLE)
}

/// Runs sbcast; returns its exit status.
pub(crate) fn run(_program: &str, args: Vec<String>) -> i32 {
    let parsed = match parse(TABLE, Operands::Anywhere, &args) {
        Ok(parsed) => parsed,
        Err(usage) => {
            usage.report(PROGRAM);
            return FAILED;
        }
    };
    let wish = match read(&parsed.given, &parsed.operands) {
        Ok(wish) => wish,
        Err(lines) => {
            lines.iter().for_each(|line| note(line));
            return FAILED;
        }
    };
    match wish.ask {
        Some("") => print_line(crate::dispatch::SLURM_VERSION),
        Some(text) => write_bytes(text.as_bytes()),
        None => {
            let status = cast(&wish, &submit_line(PROGRAM, &args));
            return status
                .unwrap_or_else(|failed| exit_status(failed, &|name| std::env::var(name).ok()));
        }
    }
    0
}

/// The error is the lines to print.
fn read(given: &[Given<Key>], operands: &[String]) -> Result<Wish, Vec<String>> {
    let told = |text: String| vec![format!("{PROGRAM}: error: {text}")];
    let mut wish = Wish::default();
    for option in given {
        let text = option.value.as_deref().unwrap_or_default();
        let number = |name: &str| {
            let wrong = || told(format!("Invalid numeric value \"{text}\" for --{name}."));
            text.trim().parse::<u32>().map_err(|_| wrong())
        };
        match option.key {
            Key::Fanout => drop(number("fanout")?),
            Key::Size if penstock_vocab::parse_memory(text).is_err() => {
                return Err(told(format!("Invalid --size specification: {text}")));
            }
            Key::Size => {}
            Key::Force => wish.force = true,
            Key::Jobid => wish.job_id = Some(number("jobid")?),
            Key::Preserve => wish.preserve = true,
            Key::Timeout => wish.timeout_secs = number("timeout")?.into(),
            Key::Verbose => wish.verbose = true,
            Key::Help => wish.ask = wish.ask.or(Some(HELP)),
            Key::Usage => wish.ask = wish.ask.or(Some(USAGE)),
            Key::Version => wish.ask = wish.ask.or(Some("")),
            Key::Unbuilt(name) => return Err(told(format!("--{name} is not built yet"))),
        }
    }
    if wish.ask.is_some() {
        return Ok(wish);
    }
    let [source, dest] = operands else {
        return Err(vec![
            format!("Need two file names, have {} names", operands.len()),
            format!("Try \"{PROGRAM} --help\" for more information"),
        ]);
    };
    let name = Path::new(source).file_name().unwrap_or_default().to_string_lossy();
    wish.dest = if dest.ends_with('/') { format!("{dest}{name}") } else { dest.clone() };
    wish.source.clone_from(source);
    Ok(wish)
}

fn fail(text: &str) -> Failed {
    error(PROGRAM, text);
    Failed::With(FAILED)
}

fn cast(wish: &Wish, line: &str) -> Result<i32, Failed> {
    let unreadable = |failure: &std::io::Error| {
        let errno = failure.raw_os_error().unwrap_or_default();
        let why = nix::errno::Errno::from_raw(errno).desc();
        error(PROGRAM, &format!("Can't open `{}`: {why}", wish.source));
        Failed::With(UNREADABLE)
    };
    let job_id = wish.job_id.or_else(|| std::env::var("SLURM_JOB_ID").ok()?.trim().parse().ok());
    let Some(job_id) = job_id else {
        return Err(fail(
            "Need a job id to run this command.  Run from within a Slurm job or use the --jobid \
             option.",
        ));
    };
    let file = File::open(&wish.source).map_err(|failure| unreadable(&failure))?;
    let about = file.metadata().map_err(|failure| unreadable(&failure))?;
    if !about.is_file() {
        return Err(fail(&format!("`{}` is no regular file", wish.source)));
    }
    let receipt = Receipt {
        size: about.len(),
        mode: about.mode() & 0o7777,
        times: wish.preserve.then(|| (about.atime(), about.mtime())),
        force: wish.force,
        dest: wish.dest.clone(),
    };
    if wish.verbose {
        let dest = &wish.dest;
        note(&format!("{PROGRAM}: {} to {dest} on the nodes of job {job_id}", wish.source));
    }
    let submitter = Submitter::of_this_process(line.to_owned()).map_err(|text| fail(&text))?;
    let client = Client::open().map_err(|failure| {
        failure.report(PROGRAM, "");
        Failed::With(FAILED)
    })?;
    client.run(send(&client, &submitter, job_id, file, &receipt, wish.timeout_secs))
}

/// One task on each node of the job, beside whatever runs there.
fn step_spec(
    listener: &Listener,
    submitter: &Submitter,
    nodes: u32,
    limit_secs: u64,
) -> v1::StepSpec {
    v1::StepSpec {
        name: PROGRAM.to_owned(),
        ntasks: Some(nodes),
        nodes_min: Some(nodes),
        nodes_max: Some(nodes),
        ntasks_per_node: Some(1),
        overlap: true,
        time_limit_secs: (limit_secs > 0).then_some(limit_secs),
        addresses: listener.addresses.clone(),
        port: listener.port.into(),
        secret: listener.secret.clone(),
        srun_host: submitter.host.clone(),
        srun_pid: std::process::id(),
        submit_line: submitter.submit_line.clone(),
        ..v1::StepSpec::default()
    }
}

/// Nodes of the job.
async fn nodes_of(client: &Client, job_id: u32) -> Result<u32, Failed> {
    let known = std::env::var("SLURM_JOB_ID").is_ok_and(|id| id.trim() == job_id.to_string());
    let count = std::env::var("SLURM_JOB_NUM_NODES").ok().and_then(|text| text.trim().parse().ok());
    if let Some(count) = count.filter(|_| known) {
        return Ok(count);
    }
    let filter = v1::JobFilter { selectors: vec![job_id.to_string()], ..<_>::default() };
    let request = v1::ListJobsRequest { filter: Some(filter), ..<_>::default() };
    let gather = async |mut rpc: crate::connect::Rpc| {
        let mut stream = rpc.list_jobs(request.clone()).await?.into_inner();
        let mut count = None;
        while let Some(part) = stream.message().await? {
            count = count.or_else(|| part.jobs.first().map(|job| job.num_nodes));
        }
        Ok::<_, tonic::Status>(tonic::Response::new(count))
    };
    let found = client.ask(crate::connect::Patience::READ, gather).await;
    match found {
        Ok(Some(count)) => Ok(count),
        Ok(None) => Err(fail(&format!("Invalid job id {job_id}"))),
        Err(failure) => {
            failure.report(PROGRAM, "");
            Err(Failed::With(FAILED))
        }
    }
}

async fn send(
    client: &Client,
    submitter: &Submitter,
    job_id: u32,
    file: File,
    receipt: &Receipt,
    limit_secs: u64,
) -> Result<i32, Failed> {
    let io = |failure: std::io::Error| fail(&failure.to_string());
    let range = port_range(&|name| std::env::var(name).ok()).map_err(|text| fail(&text))?;
    let listener = Listener::open(range).await.map_err(io)?;
    let mut signals = Signals::catch(&SRUN).map_err(io)?;
    let nodes = nodes_of(client, job_id).await?;
    let spec = step_spec(&listener, submitter, nodes, limit_secs);
    let reply = create::create(client, PROGRAM, false, job_id, &spec, &mut signals).await?;
    let step = reply.step.unwrap_or_default();
    let layout = Layout::of(&step, reply.kill_wait_secs);
    let mut argv = vec![RECEIVER.to_owned(), receive::NAME.to_owned()];
    argv.extend(receipt.words());
    let setup = Setup {
        argv: argv.into_iter().map(|word| Bytes::from(word.into_bytes())).collect(),
        work_dir: submitter.cwd.to_string_lossy().into_owned(),
        umask: submitter.umask,
        kill_on_bad_exit: false,
        ..Setup::default()
    };
    let expected = Expected {
        job_id,
        step: step.step,
        nodes: layout.nodes.clone(),
        setup: encode_frame(Frame::Setup(setup)).into(),
    };
    let habits = Habits { input: InputTo::All, copies: true, ..Habits::default() };
    let input = Some(input::read(file).map_err(io)?);
    let (connections, shepherds) = listener.serve(expected);
    let (_watch, news) = watch::start(client, job_id, step.step);
    let drive = Drive {
        program: PROGRAM,
        client,
        fence: Fence::of(0),
        session: Session::new(layout, habits),
        shepherds,
        door: connections.door(),
        is_relayed: false,
        news,
        signals: &mut signals,
        input,
        sinks: Sinks::new(own_stream(&std::io::stdout()), own_stream(&std::io::stderr())),
        errands: tokio::task::JoinSet::new(),
        raw: false,
        holder: None,
        step: (job_id, step.step),
    };
    Ok(drive.run().await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(line: &[&str]) -> Result<Wish, Vec<String>> {
        let words: Vec<String> = line.iter().map(|&word| word.to_owned()).collect();
        let parsed = parse(TABLE, Operands::Anywhere, &words).expect("known options");
        read(&parsed.given, &parsed.operands)
    }

    #[test]
    fn two_names_are_needed() {
        let read = wish(&["-f", "-p", "-s", "8m", "a/b", "/tmp/"]).expect("valid");
        assert_eq!((read.source.as_str(), read.dest.as_str()), ("a/b", "/tmp/b"));
        assert!(read.force && read.preserve);
        assert_eq!(wish(&["a"]).expect_err("one")[0], "Need two file names, have 1 names");
        let refused = wish(&["-C", "a", "b"]).expect_err("not built");
        assert_eq!(refused, ["sbcast: error: --compress is not built yet"]);
        assert!(wish(&["-s", "x", "a", "b"]).is_err());
    }
}
