//! How does a step run, from its creation to its last word?

use bytes::Bytes;
use penstock_proto::step_io::encode_frame;
use penstock_proto::v1;
use penstock_proto::v1::step_frame::{Frame, Setup, WindowSize};

use super::environment::{environment, port_range};
use super::streams::{Names, Stream, Streams};
use super::{Failed, Own, PROGRAM, create, fail, multi_prog, name_of};
use crate::allocation::Order;
use crate::connect::Client;
use crate::pmi::Fence;
use crate::sbatch::spec::{Submitter, bundle_path};
use crate::step::drive::Drive;
use crate::step::listener::{Expected, Listener};
use crate::step::session::{Habits, Layout, Session};
use crate::step::signals::Signals;
use crate::step::sinks::Sinks;
use crate::step::terminal::{RawTerminal, window};
use crate::step::{input, watch};

/// Makes the step and stays until it is over; returns its exit status.
pub(super) async fn run(
    client: &Client,
    order: &Order,
    submitter: &Submitter,
    signals: &mut Signals,
    job_id: u32,
    own: Option<Own<'_>>,
) -> Result<i32, Failed> {
    let range = port_range(&|name| std::env::var(name).ok()).map_err(|text| fail(&text))?;
    let listener = Listener::open(range)
        .await
        .map_err(|failure| fail(&format!("cannot listen for the tasks: {failure}")))?;
    let mut spec = create::step_spec(order, &name_of(order), own.is_some(), &listener);
    spec.srun_host.clone_from(&submitter.host);
    spec.submit_line.clone_from(&submitter.submit_line);
    spec.container = bundle_path(&order.request.container, &submitter.cwd);
    let quiet = order.request.quiet;
    let reply = create::create(client, PROGRAM, quiet, job_id, &spec, signals).await?;
    let step = reply.step.unwrap_or_default();
    let layout = Layout::of(&step, reply.kill_wait_secs);
    let job_name = reply.job.as_ref().and_then(|info| info.job.as_ref()?.spec.as_ref());
    let names = Names {
        job_id,
        step: step.step,
        user: &submitter.user_name,
        job_name: job_name.map_or("", |spec| spec.name.as_str()),
        ntasks: layout.ntasks(),
    };
    let prepared = prepare(order, submitter, &names, own.is_some());
    let (setup, streams) = match prepared {
        Ok(prepared) => prepared,
        Err(failed) => {
            watch::end(client, job_id, step.step).await;
            return Err(failed);
        }
    };
    let opened = open(&streams, order);
    let (reader, sinks) = match opened {
        Ok(opened) => opened,
        Err(text) => {
            watch::end(client, job_id, step.step).await;
            return Err(fail(&text));
        }
    };
    let expected = Expected {
        job_id,
        step: step.step,
        nodes: layout.nodes.clone(),
        setup: encode_frame(Frame::Setup(setup)).into(),
    };
    let raw = order.extras.pty.then(RawTerminal::enter).flatten();
    let (connections, shepherds) = listener.serve(expected);
    let (_watch, news) = watch::start(client, job_id, step.step);
    let drive = Drive {
        program: PROGRAM,
        client,
        fence: Fence::of(layout.nodes.len()),
        session: Session::new(layout, habits(order, &streams)),
        shepherds,
        door: connections.door(),
        is_relayed: false,
        news,
        signals,
        input: reader,
        sinks,
        errands: tokio::task::JoinSet::new(),
        raw: raw.is_some(),
        holder: own.map(|own| own.holder),
        step: (job_id, step.step),
    };
    Ok(drive.run().await)
}

fn habits(order: &Order, streams: &Streams) -> Habits {
    let extras = &order.extras;
    Habits {
        label: extras.label && !extras.pty,
        unbuffered: extras.unbuffered || extras.pty,
        kill_on_bad_exit: extras.kill_on_bad_exit,
        max_wait_secs: extras.wait_secs,
        quit_on_interrupt: extras.quit_on_interrupt,
        disable_status: extras.disable_status,
        only_stdout: Streams::only(&streams.output),
        only_stderr: Streams::only(&streams.error),
        input: streams.input_to(),
        no_kill: extras.no_kill,
        looks_on: false,
        copies: false,
    }
}

/// What the shepherds are told, and where the streams go.
fn prepare(
    order: &Order,
    submitter: &Submitter,
    names: &Names<'_>,
    own: bool,
) -> Result<(Setup, Streams), Failed> {
    let extras = &order.extras;
    let bytes = |word: &String| Bytes::copy_from_slice(word.as_bytes());
    let programs = if extras.multi_prog {
        multi_prog::programs(&order.operands[0], names.ntasks).map_err(|lines| {
            lines.iter().for_each(|line| crate::errors::error(PROGRAM, line));
            Failed::With(super::FAILED)
        })?
    } else {
        Vec::new()
    };
    let request = &order.request;
    let here: Vec<_> = std::env::vars_os().collect();
    let work_dir = match &request.chdir {
        Some(dir) => submitter.cwd.join(dir),
        None => submitter.cwd.clone(),
    };
    let size = extras.pty.then(window).flatten();
    let streams = Streams::of(extras, names);
    let mut setup = Setup {
        argv: if extras.multi_prog {
            Vec::new()
        } else {
            order.operands.iter().map(bytes).collect()
        },
        programs,
        environment: environment(order, submitter, here, own).into(),
        work_dir: work_dir.to_string_lossy().into_owned(),
        umask: submitter.umask,
        rlimits: request.manner.propagated(&submitter.rlimits),
        open_mode: request.open_mode.into(),
        pty: extras.pty,
        window: size
            .map(|(rows, columns)| WindowSize { rows: rows.into(), columns: columns.into() }),
        label: extras.label,
        unbuffered: extras.unbuffered || extras.pty,
        task_prolog: extras.task_prolog.clone(),
        task_epilog: extras.task_epilog.clone(),
        kill_on_bad_exit: extras.kill_on_bad_exit,
        export: request.export.as_ref().map_or("", |export| export.as_typed()).to_owned(),
        ..Setup::default()
    };
    streams.put_into(&mut setup);
    Ok((setup, streams))
}

type Opened = (Option<tokio::sync::mpsc::Receiver<Bytes>>, Sinks);

/// Opens what is read and written here.
fn open(streams: &Streams, order: &Order) -> Result<Opened, String> {
    let append = order.request.open_mode == v1::OpenMode::Append;
    let (stdout, stderr) = streams.open_output(append)?;
    let sinks = Sinks::new(stdout, stderr);
    let reader = match streams.open_input()? {
        None => None,
        Some(file) => Some(input::read(file).map_err(|failure| failure.to_string())?),
    };
    Ok((reader.filter(|_| streams.input != Stream::None), sinks))
}
