//! `sattach`: how does one look at a step that runs already?
//!
//! Its shepherds dial one more listener and send it what the tasks write from then on. An interrupt
//! ends the looking, not the step.

use penstock_proto::step_io::encode_frame;
use penstock_proto::v1;
use penstock_proto::v1::step_frame::{Frame, Setup};
use penstock_vocab::{StepId, StepSelector};

use crate::connect::{Client, Patience, request_id};
use crate::errors::{RemoteError, error};
use crate::options::{Given, Operands, Opt, Takes, parse};
use crate::output::{note, print_line, write_bytes};
use crate::pmi::Fence;
use crate::step::drive::Drive;
use crate::step::listener::{Expected, Listener};
use crate::step::session::{Habits, InputTo, Layout, Session};
use crate::step::signals::{SRUN, Signals};
use crate::step::sinks::Sinks;
use crate::step::{input, own_stream, watch};

const PROGRAM: &str = "sattach";
const FAILED: i32 = 1;

/// Number of salloc's step on the node.
const INTERACTIVE: u32 = 4_294_967_290;

const USAGE: &str = "Usage: sattach [options] <jobid.stepid>\n";

const HELP: &str = "\
Usage: sattach [options] <jobid.stepid>
Shows what the tasks of a running step write, and gives them what is typed.

  -l, --label                 begin each line with the number of its task
      --output-filter=TASK    only what this task writes to standard output
      --error-filter=TASK     only what this task writes to standard error
      --input-filter=TASK     input for this task only
      --layout                tell which tasks run where, and nothing else
  -Q, --quiet                 no words that are no errors
  -v, --verbose               more words
  -V, --version               tell the version
  -h, --help                  this help
      --usage                 a shorter one
";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    ErrorFilter,
    Help,
    InputFilter,
    Label,
    Layout,
    OutputFilter,
    Quiet,
    Usage,
    Verbose,
    Version,
    Unbuilt(&'static str),
}

const TABLE: &[Opt<Key>] = &[
    Opt::long("error-filter", Takes::Value, Key::ErrorFilter),
    Opt::both('h', "help", Takes::Nothing, Key::Help),
    Opt::long("input-filter", Takes::Value, Key::InputFilter),
    Opt::both('l', "label", Takes::Nothing, Key::Label),
    Opt::long("layout", Takes::Nothing, Key::Layout),
    Opt::long("output-filter", Takes::Value, Key::OutputFilter),
    Opt::both('Q', "quiet", Takes::Nothing, Key::Quiet),
    Opt::both('u', "usage", Takes::Nothing, Key::Usage),
    Opt::both('v', "verbose", Takes::Nothing, Key::Verbose),
    Opt::both('V', "version", Takes::Nothing, Key::Version),
    Opt::long("debugger-test", Takes::Nothing, Key::Unbuilt("debugger-test")),
    Opt::long("pty", Takes::Nothing, Key::Unbuilt("pty")),
];

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq)]
struct Wish {
    job_id: u32,
    step: u32,
    layout: bool,
    label: bool,
    output: Option<u32>,
    error: Option<u32>,
    input: Option<u32>,
    ask: Option<&'static str>,
}

/// Its options, for completion.
pub(crate) fn options() -> Vec<crate::options::Name> {
    crate::options::names(TABLE)
}

/// Runs sattach; returns its exit status.
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
        Err(line) => {
            error(PROGRAM, &line);
            if !line.ends_with("is not built yet") {
                note(USAGE.trim_end());
            }
            return FAILED;
        }
    };
    match wish.ask {
        Some("") => print_line(crate::dispatch::SLURM_VERSION),
        Some(text) => write_bytes(text.as_bytes()),
        None => return attach(&wish),
    }
    0
}

fn read(given: &[Given<Key>], operands: &[String]) -> Result<Wish, String> {
    let mut wish = Wish::default();
    for option in given {
        let task = || {
            let text = option.value.as_deref().unwrap_or_default();
            text.trim().parse::<u32>().map_err(|_| format!("{text:?} is no number of a task"))
        };
        match option.key {
            Key::Layout => wish.layout = true,
            Key::Label => wish.label = true,
            Key::OutputFilter => wish.output = Some(task()?),
            Key::ErrorFilter => wish.error = Some(task()?),
            Key::InputFilter => wish.input = Some(task()?),
            Key::Help => wish.ask = wish.ask.or(Some(HELP)),
            Key::Usage => wish.ask = wish.ask.or(Some(USAGE)),
            Key::Version => wish.ask = wish.ask.or(Some("")),
            Key::Quiet | Key::Verbose => {}
            Key::Unbuilt(name) => return Err(format!("--{name} is not built yet")),
        }
    }
    if wish.ask.is_some() {
        return Ok(wish);
    }
    let [operand] = operands else {
        return Err(if operands.is_empty() { "too few parameters" } else { "too many parameters" }
            .to_owned());
    };
    let unread = || "Failed to parse stepid from command line options".to_owned();
    let selector: StepSelector = operand.parse().map_err(|_| unread())?;
    wish.job_id = selector.job.0;
    wish.step = match (selector.step, selector.task) {
        (StepId::Number(number), None) => number,
        (StepId::Interactive, None) => INTERACTIVE,
        _ => return Err(unread()),
    };
    Ok(wish)
}

fn attach(wish: &Wish) -> i32 {
    let done = Client::open().and_then(|client| {
        if wish.layout {
            client.run(find(&client, wish)).map(|step| {
                write_bytes(layout_text(&Layout::of(&step, 0)).as_bytes());
                0
            })
        } else {
            client.run(look(&client, wish))
        }
    });
    match done {
        Ok(status) => status,
        Err(failure) => {
            failure.report(PROGRAM, "Could not get job step info");
            FAILED
        }
    }
}

/// The step as it is listed.
async fn find(client: &Client, wish: &Wish) -> Result<v1::Step, RemoteError> {
    let filter = v1::JobFilter { selectors: vec![wish.job_id.to_string()], ..<_>::default() };
    let request = v1::ListStepsRequest { filter: Some(filter), all: false };
    let gather = async |mut rpc: crate::connect::StepsRpc| {
        let mut stream = rpc.list_steps(request.clone()).await?.into_inner();
        let mut found = None;
        while let Some(part) = stream.message().await? {
            let steps = part.steps.into_iter().filter_map(|info| info.step);
            found = found.or_else(|| {
                steps.into_iter().find(|step| (step.job_id, step.step) == (wish.job_id, wish.step))
            });
        }
        Ok::<_, tonic::Status>(tonic::Response::new(found))
    };
    let found = client.ask_steps(Patience::READ, gather).await?;
    found.ok_or_else(|| {
        RemoteError::Refused(v1::Refusal {
            kind: "InvalidJobId".to_owned(),
            slurm_text: "Invalid job id specified".to_owned(),
            detail: String::new(),
        })
    })
}

/// Which tasks run where, in Slurm's layout.
fn layout_text(layout: &Layout) -> String {
    let nodes = &layout.nodes;
    let list = penstock_vocab::compress(nodes.iter().map(String::as_str));
    let mut text = format!(
        "Job step layout:\n\t{} tasks, {} nodes ({list})\n\n",
        layout.ntasks(),
        nodes.len()
    );
    for (index, (node, tasks)) in nodes.iter().zip(&layout.tasks).enumerate() {
        text.push_str(&format!("\tNode {index} ({node}), {} task(s): ", tasks.len()));
        tasks.iter().for_each(|task| text.push_str(&format!("{task} ")));
        text.push('\n');
    }
    text
}

async fn look(client: &Client, wish: &Wish) -> Result<i32, RemoteError> {
    let failed = |failure: std::io::Error| RemoteError::Failed(failure.to_string());
    let range = crate::srun::port_range(&|name| std::env::var(name).ok());
    let listener = Listener::open(range.map_err(RemoteError::Failed)?).await.map_err(failed)?;
    let mut signals = Signals::catch(&SRUN).map_err(failed)?;
    let request = v1::AttachStepRequest {
        request_id: request_id(),
        job_id: wish.job_id,
        step: wish.step,
        addresses: listener.addresses.clone(),
        port: listener.port.into(),
        secret: listener.secret.clone(),
    };
    let reply = client
        .ask_steps(Patience::READ, |mut rpc| {
            let request = request.clone();
            async move { rpc.attach_step(request).await }
        })
        .await?;
    let layout = Layout::of(&reply.step.unwrap_or_default(), 0);
    let setup = Setup { listener: true, label: wish.label, ..Setup::default() };
    let expected = Expected {
        job_id: wish.job_id,
        step: wish.step,
        nodes: layout.nodes.clone(),
        setup: encode_frame(Frame::Setup(setup)).into(),
    };
    let habits = Habits {
        label: wish.label,
        only_stdout: wish.output,
        only_stderr: wish.error,
        input: wish.input.map_or(InputTo::All, InputTo::Task),
        looks_on: true,
        ..Habits::default()
    };
    let stdin = own_stream(&std::io::stdin());
    let input = stdin.map(input::read).transpose().map_err(failed)?;
    let (connections, shepherds) = listener.serve(expected);
    let (_watch, news) = watch::start(client, wish.job_id, wish.step);
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
        step: (wish.job_id, wish.step),
    };
    drive.run().await;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(line: &[&str]) -> Result<Wish, String> {
        let words: Vec<String> = line.iter().map(|&word| word.to_owned()).collect();
        let parsed = parse(TABLE, Operands::Anywhere, &words).map_err(|error| error.to_string())?;
        read(&parsed.given, &parsed.operands)
    }

    #[test]
    fn a_step_is_named() {
        let read = wish(&["-l", "12.3", "--output-filter=1"]).expect("valid");
        assert_eq!((read.job_id, read.step, read.label, read.output), (12, 3, true, Some(1)));
        assert_eq!(wish(&["12.interactive"]).expect("valid").step, INTERACTIVE);
        let unread = "Failed to parse stepid from command line options";
        for line in ["foo", "12", "12.batch", "12_1.0", "12.x"] {
            assert_eq!(wish(&[line]), Err(unread.to_owned()), "{line}");
        }
        assert_eq!(wish(&[]), Err("too few parameters".to_owned()));
        assert_eq!(wish(&["1.0", "2.0"]), Err("too many parameters".to_owned()));
        assert_eq!(wish(&["--pty", "1.0"]), Err("--pty is not built yet".to_owned()));
    }

    #[test]
    fn the_layout_is_told_as_slurm_tells_it() {
        let layout = Layout {
            nodes: vec!["n1".into(), "n2".into()],
            tasks: vec![vec![0, 1], vec![2]],
            ..Layout::default()
        };
        assert_eq!(
            layout_text(&layout),
            "Job step layout:\n\t3 tasks, 2 nodes (n[1-2])\n\n\tNode 0 (n1), 2 task(s): 0 1 \n\
             \tNode 1 (n2), 1 task(s): 2 \n"
        );
    }
}
