//! How does the controller start, and how does it end?
//!
//! The store is opened and loaded, the cluster is built from its records and the file, the writer
//! and the scheduler get their threads, and only then is anything served. SIGTERM and SIGINT end it:
//! calls are answered, a checkpoint is written, jobs go on. SIGHUP reads the file again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

use penstock_core::Cluster;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::config::{ClusterFile, ConfigError, HttpSection};
use crate::convert::record::Loader;
use crate::events::Events;
use crate::http::auth::{Access, AccessError};
use crate::http::{HttpError, Listening, Shapes};
use crate::identity::{Ca, CaError};
use crate::links::{Links, Performer};
use crate::rpc::{ServeError, Shared, SharedParts, serve};
use crate::settings::core_config;
use crate::site::SiteDesk;
use crate::statistics::Statistics;
use crate::steps::StepDesk;
use crate::store::{CheckpointWriter, EmbeddedStore, OpenError, Options, Store, StoreError};
use crate::writer::{Writer, WriterParts};
use crate::{http, planner, upkeep, writer};

/// How long calls under way may take once the controller ends.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why the controller does not run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The cluster file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The state directory can't be made.
    #[error("can't make the state directory {}", path.display())]
    StateDir {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store did not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificate authority.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// Serving.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// HTTP.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Links and tokens for HTTP.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Threads or the runtime.
    #[error("can't start")]
    System(#[from] io::Error),
    /// A thread panicked: a bug. The supervisor starts the daemon again from durable state.
    #[error("the {0} thread panicked; the controller must be started again")]
    Panicked(&'static str),
}

/// Runs the controller until it is told to end. `shapes` write Slurm's JSON, where HTTP is served.
///
/// # Errors
/// See [`DaemonError`].
pub fn run(config: &Path, shapes: Shapes) -> Result<(), DaemonError> {
    let file = ClusterFile::read(config)?;
    for comment in &file.comments {
        warn!("{comment}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(serve_until_told(file, config.to_owned(), shapes, &runtime));
    runtime.shutdown_timeout(FAREWELL);
    result
}

async fn serve_until_told(
    file: ClusterFile,
    file_path: PathBuf,
    shapes: Shapes,
    runtime: &tokio::runtime::Runtime,
) -> Result<(), DaemonError> {
    let stop = CancellationToken::new();
    let state_dir = file.controller.state_dir.clone();
    make_private_dir(&state_dir)?;
    let ca_dir = state_dir.join("ca");
    // Where there is a CA there was a store: its absence is a loss, not a beginning.
    let existed = ca_dir.exists();
    let loaded = load(&file, &state_dir, !existed)?;
    let ca = if existed { Ca::open(&ca_dir)? } else { Ca::create(&ca_dir)? };
    let web = file.http.as_ref().map(|section| open_http(section, &state_dir, &ca)).transpose()?;
    let (history, blobs) = (loaded.store.history(), loaded.store.blobs());
    let (checkpoints, store_id) = (loaded.store.checkpoints(), loaded.store.id().into_bytes());
    let redo_bytes = Arc::new(AtomicU64::new(loaded.store.redo_bytes_since_checkpoint()));
    let (links, steps, site) = desks(&file);
    let clock = Arc::new(loaded.clock);
    let statistics = Statistics::start(clock.now());
    let events = Arc::new(Events::after(loaded.sequence));
    let (writer, writer_thread) = writer::spawn(WriterParts {
        store: loaded.store,
        term: loaded.term,
        cluster: loaded.cluster,
        sequence: loaded.sequence,
        clock: Arc::clone(&clock),
        poison_dir: state_dir.join("poison"),
        performer: Performer::new(Arc::clone(&links), Arc::clone(&steps), Arc::clone(&site)),
        redo_bytes: Arc::clone(&redo_bytes),
        statistics: Arc::clone(&statistics),
        events: Arc::clone(&events),
        measure: EmbeddedStore::redo_bytes_since_checkpoint,
    })?;
    let (plans, scheduler_thread) = planner::spawn(
        writer.clone(),
        Arc::clone(&statistics),
        Arc::clone(&clock),
        runtime.handle().clone(),
        stop.clone(),
    )?;
    let parts = SharedParts {
        writer: writer.clone(),
        plans,
        statistics,
        events,
        links,
        steps,
        site: Arc::clone(&site),
        history,
        blobs,
        clock,
        ca,
        access: web.as_ref().map(|(_, access)| Arc::clone(access)),
        store_id,
        file_path,
        file,
    };
    let shared = Arc::new(Shared::new(parts));
    let mut tasks = JoinSet::new();
    tasks.spawn(check_in_background(Arc::clone(&shared)));
    tasks.spawn(Arc::clone(&site).run(Arc::clone(&shared), stop.clone()));
    upkeep::start(&mut tasks, &shared, checkpoints.clone(), redo_bytes, &stop);
    let http = spawn_http(web, &shared, shapes, &stop)?;
    let guard = watch_threads(writer_thread, writer, scheduler_thread, http, stop.clone());
    let served = tokio::select! {
        served = serve(Arc::clone(&shared), stop.clone()) => served.map_err(DaemonError::from),
        () = told_to_end(&shared) => Ok(()),
    };
    info!("the controller goes down; jobs go on");
    stop.cancel();
    wind_down(&shared, tasks, checkpoints).await;
    let failure = guard.result();
    served.and(failure)
}

/// Who speaks with agents, with makers of steps, and with the site's own scripts.
fn desks(file: &ClusterFile) -> (Arc<Links>, Arc<StepDesk>, Arc<SiteDesk>) {
    let site = Arc::new(SiteDesk::default());
    site.want_ends(file.hooks.controller_epilog.is_some());
    (Arc::default(), Arc::default(), site)
}

/// A port for HTTP, and what is known of links and tokens.
type Web = (Listening, Arc<Access>);

/// Serves HTTP on a thread of its own, where it is to be served.
fn spawn_http(
    web: Option<Web>,
    shared: &Arc<Shared>,
    shapes: Shapes,
    stop: &CancellationToken,
) -> io::Result<Option<JoinHandle<()>>> {
    let Some((listening, access)) = web else { return Ok(None) };
    http::spawn(listening, Arc::clone(shared), access, shapes, stop.clone()).map(Some)
}

/// Takes the port of HTTP, and opens what is known of links and tokens.
fn open_http(section: &HttpSection, state_dir: &Path, ca: &Ca) -> Result<Web, DaemonError> {
    let listening = http::bind(section, ca)?;
    let base = listening.names().base().to_owned();
    Ok((listening, Arc::new(Access::open(state_dir, section, base)?)))
}

/// Lets upkeep end and writes the last checkpoint.
async fn wind_down(shared: &Arc<Shared>, mut tasks: JoinSet<()>, checkpoints: CheckpointWriter) {
    let farewell = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
        warn!("some upkeep did not end in time");
    }
    let last = Arc::clone(shared);
    let checkpointed =
        tokio::task::spawn_blocking(move || upkeep::checkpoint(&last, &checkpoints)).await;
    if checkpointed.is_err() {
        warn!("the last checkpoint broke off; the next start reads the redo file");
    }
}

/// What was loaded.
struct Loaded {
    store: EmbeddedStore,
    term: crate::store::Term,
    cluster: Cluster,
    sequence: u64,
    clock: Clock,
}

fn load(file: &ClusterFile, state_dir: &Path, create: bool) -> Result<Loaded, DaemonError> {
    let clock = Clock::start();
    let mut store =
        EmbeddedStore::open(&state_dir.join("store"), &Options { create, ..Options::default() })?;
    let mut loader = Loader::default();
    let sequence = store.load(&mut |key, value| {
        loader.take(&key, &value).map_err(|error| StoreError::Corrupt {
            what: error.to_string(),
            how_to_restore: "install the release that wrote it, or see `penstock store check`"
                .to_owned(),
        })
    })?;
    let holder = format!("pid {}", std::process::id());
    let term = store.acquire(&holder)?;
    let config = Arc::new(core_config(file));
    let cluster = Cluster::restore(loader.finish(), config, clock.now());
    info!(
        jobs = cluster.job_count(),
        nodes = cluster.node_count(),
        sequence = sequence.0,
        "state loaded"
    );
    Ok(Loaded { store, term, cluster, sequence: sequence.0, clock })
}

/// Looks at every record once, while calls are answered already.
async fn check_in_background(shared: Arc<Shared>) {
    let snapshot = shared.snapshot();
    let checked = tokio::task::spawn_blocking(move || snapshot.cluster.check()).await;
    for broken in checked.unwrap_or_default() {
        error!(%broken, "after loading, an invariant does not hold; please report this");
    }
}

fn make_private_dir(path: &Path) -> Result<(), DaemonError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| DaemonError::StateDir { path: path.to_owned(), source })
}

/// Waits for SIGTERM or SIGINT; SIGHUP reads the file again.
async fn told_to_end(shared: &Shared) {
    let (Ok(mut term), Ok(mut int), Ok(mut hup)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::hangup()),
    ) else {
        warn!("signals can't be watched; only SIGKILL ends this controller");
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            _ = term.recv() => return,
            _ = int.recv() => return,
            _ = hup.recv() => crate::rpc::reread_on_hangup(shared).await,
        }
    }
}

/// Ends the daemon when one of its threads does.
struct Guard {
    failure: Arc<std::sync::Mutex<Option<DaemonError>>>,
}

impl Guard {
    fn result(self) -> Result<(), DaemonError> {
        let mut failure = self.failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        failure.take().map_or(Ok(()), Err)
    }
}

fn watch_threads(
    writer_thread: JoinHandle<Result<EmbeddedStore, StoreError>>,
    writer: Writer,
    scheduler_thread: JoinHandle<()>,
    mut http_thread: Option<JoinHandle<()>>,
    stop: CancellationToken,
) -> Guard {
    let failure = Arc::new(std::sync::Mutex::new(None));
    let kept = Arc::clone(&failure);
    drop(writer);
    std::thread::spawn(move || {
        let problem = loop {
            if writer_thread.is_finished() {
                break match writer_thread.join() {
                    Ok(Ok(_)) => None,
                    Ok(Err(error)) => Some(DaemonError::Store(error)),
                    Err(_) => Some(DaemonError::Panicked("writer")),
                };
            }
            if scheduler_thread.is_finished() {
                break match scheduler_thread.join() {
                    Ok(()) => None,
                    Err(_) => Some(DaemonError::Panicked("scheduler")),
                };
            }
            if let Some(thread) = http_thread.take_if(|thread| thread.is_finished()) {
                break thread.join().err().map(|_| DaemonError::Panicked("http"));
            }
            if stop.is_cancelled() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        if let Some(problem) = problem {
            error!(error = %writer::chain(&problem), "the controller stops");
            *kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(problem);
        }
        stop.cancel();
    });
    Guard { failure }
}
