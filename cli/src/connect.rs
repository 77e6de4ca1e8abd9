//! How does a command reach its daemon, and what does it do when the answer is late?
//!
//! Each host has one daemon (controller or agent) with a local socket; it knows the caller from the
//! kernel. A call that finds nobody is tried again, with jitter, until its patience ends; a
//! changing request carries an id, so that one whose answer got lost is not carried out twice.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use penstock_proto::v1;
use penstock_proto::v1::accounting_client::AccountingClient;
use penstock_proto::v1::cron_client::CronClient;
use penstock_proto::v1::penstock_client::PenstockClient;
use penstock_proto::v1::planning_client::PlanningClient;
use penstock_proto::v1::steps_client::StepsClient;
use penstock_proto::v1::web_client::WebClient;
use prost::Message as _;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status, Streaming};

use crate::errors::{RemoteError, TIMED_OUT};

/// The generated client over a local socket. Clones share the connection.
pub(crate) type Rpc = PenstockClient<Channel>;

/// The same for accounts, shares, limits and reports.
pub(crate) type AccountingRpc = AccountingClient<Channel>;

/// The same for order, plans and reservations.
pub(crate) type PlanningRpc = PlanningClient<Channel>;

/// The same for steps and for jobs that somebody holds.
pub(crate) type StepsRpc = StepsClient<Channel>;

/// The same for ways into HTTP.
pub(crate) type WebRpc = WebClient<Channel>;

/// The same for crontabs.
pub(crate) type CronRpc = CronClient<Channel>;

const SYSTEM_CONFIG: &str = "/etc/penstock/penstock.toml";
const CONTROLLER_SOCKET: &str = "/run/penstock/controller.sock";
const AGENT_SOCKET: &str = "/run/penstock/agent.sock";

/// First pause between two tries; doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Until the answer of one try has come, in whole.
    pub(crate) deadline: Duration,
    /// How long further tries are begun while nobody answers.
    pub(crate) retry_for: Duration,
}

impl Patience {
    /// For a listing: the user looks at the terminal.
    pub(crate) const READ: Self =
        Self { deadline: Duration::from_secs(60), retry_for: Duration::from_secs(3) };

    /// For a change: a controller that restarts is back within that time.
    pub(crate) const CHANGE: Self =
        Self { deadline: Duration::from_secs(30), retry_for: Duration::from_secs(10) };
}

/// A command's way to its daemon.
pub(crate) struct Client {
    runtime: Runtime,
    rpc: Rpc,
    accounting: AccountingRpc,
    planning: PlanningRpc,
    steps: StepsRpc,
    web: WebRpc,
    channel: Channel,
    socket: PathBuf,
}

impl Client {
    /// Finds the daemon of this host. Connects only when the first call is made.
    ///
    /// # Errors
    /// When a file named by `PENSTOCK_CONFIG` cannot be read, or the process has no descriptors
    /// left.
    pub(crate) fn open() -> Result<Self, RemoteError> {
        let socket = find_socket(&|name| std::env::var_os(name), &|path| path.exists())?;
        Self::at(socket)
    }

    /// Goes to the daemon behind `socket`.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub(crate) fn at(socket: PathBuf) -> Result<Self, RemoteError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| RemoteError::Failed(format!("cannot set up the call: {error}")))?;
        let path = socket.clone();
        let connector = tower::service_fn(move |_: tonic::transport::Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = {
            let _inside = runtime.enter();
            Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
        };
        let rpc = PenstockClient::new(channel.clone())
            .max_decoding_message_size(penstock_proto::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(penstock_proto::MAX_MESSAGE_BYTES);
        let accounting = AccountingClient::new(channel.clone())
            .max_decoding_message_size(penstock_proto::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(penstock_proto::MAX_MESSAGE_BYTES);
        let planning = PlanningClient::new(channel.clone())
            .max_decoding_message_size(penstock_proto::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(penstock_proto::MAX_MESSAGE_BYTES);
        let web = WebClient::new(channel.clone());
        let steps = StepsClient::new(channel.clone())
            .max_decoding_message_size(penstock_proto::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(penstock_proto::MAX_MESSAGE_BYTES);
        Ok(Self { runtime, rpc, accounting, planning, steps, web, channel, socket })
    }

    /// Makes one call; `attempt` is run again, with the same request, while nobody answers.
    ///
    /// # Errors
    /// When the controller refuses, or no answer came within `patience`.
    pub(crate) fn call<T, F, Fut>(
        &self,
        patience: Patience,
        mut attempt: F,
    ) -> Result<T, RemoteError>
    where
        F: FnMut(Rpc) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.runtime.block_on(
            self.persist(patience, async || {
                attempt(self.rpc.clone()).await.map(Response::into_inner)
            }),
        )
    }

    /// As [`Self::call`], of the service for accounts.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(crate) fn accounting<T, F, Fut>(
        &self,
        patience: Patience,
        mut attempt: F,
    ) -> Result<T, RemoteError>
    where
        F: FnMut(AccountingRpc) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.runtime.block_on(self.persist(patience, async || {
            attempt(self.accounting.clone()).await.map(Response::into_inner)
        }))
    }

    /// As [`Self::call`], of the service for plans.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(crate) fn planning<T, F, Fut>(
        &self,
        patience: Patience,
        mut attempt: F,
    ) -> Result<T, RemoteError>
    where
        F: FnMut(PlanningRpc) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.runtime.block_on(self.persist(patience, async || {
            attempt(self.planning.clone()).await.map(Response::into_inner)
        }))
    }

    /// As [`Self::call`], of the service for ways into HTTP.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(crate) fn web<T, F, Fut>(
        &self,
        patience: Patience,
        mut attempt: F,
    ) -> Result<T, RemoteError>
    where
        F: FnMut(WebRpc) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.runtime.block_on(
            self.persist(patience, async || {
                attempt(self.web.clone()).await.map(Response::into_inner)
            }),
        )
    }

    /// As [`Self::call`], of the service for crontabs.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(crate) fn cron<T, F, Fut>(
        &self,
        patience: Patience,
        mut attempt: F,
    ) -> Result<T, RemoteError>
    where
        F: FnMut(CronRpc) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let rpc = CronClient::new(self.channel.clone())
            .max_encoding_message_size(penstock_proto::MAX_MESSAGE_BYTES);
        self.runtime.block_on(
            self.persist(patience, async || attempt(rpc.clone()).await.map(Response::into_inner)),
        )
    }

    /// The way to the daemon, for a service of one's own.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Runs a command's own work, which may call, listen and wait at the same time, on this thread.
    pub(crate) fn run<F: Future>(&self, work: F) -> F::Output {
        self.runtime.block_on(work)
    }

    /// The service for steps, for what lasts longer than a call.
    pub(crate) fn steps(&self) -> StepsRpc {
        self.steps.clone()
    }

    /// As [`Self::call`], from within [`Self::run`].
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(crate) async fn ask<T, F, Fut>(
        &self,
        patience: Patience,
        mut attempt: F,
    ) -> Result<T, RemoteError>
    where
        F: FnMut(Rpc) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.persist(patience, async || attempt(self.rpc.clone()).await.map(Response::into_inner))
            .await
    }

    /// As [`Self::ask`], of the service for steps.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(crate) async fn ask_steps<T, F, Fut>(
        &self,
        patience: Patience,
        mut attempt: F,
    ) -> Result<T, RemoteError>
    where
        F: FnMut(StepsRpc) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.persist(patience, async || attempt(self.steps.clone()).await.map(Response::into_inner))
            .await
    }

    /// Makes one call that is answered by a stream, and gathers its messages.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(crate) fn collect<T, F, Fut>(
        &self,
        patience: Patience,
        attempt: F,
    ) -> Result<Vec<T>, RemoteError>
    where
        F: FnMut(Rpc) -> Fut,
        Fut: Future<Output = Result<Response<Streaming<T>>, Status>>,
    {
        self.fold(patience, attempt, Vec::new, Vec::push)
    }

    /// Makes one call that is answered by a stream, and hands each message to `take` as it comes;
    /// every try begins with what `begin` gives.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(crate) fn fold<T, S, F, Fut>(
        &self,
        patience: Patience,
        mut attempt: F,
        begin: impl Fn() -> S,
        take: impl Fn(&mut S, T),
    ) -> Result<S, RemoteError>
    where
        F: FnMut(Rpc) -> Fut,
        Fut: Future<Output = Result<Response<Streaming<T>>, Status>>,
    {
        self.runtime.block_on(self.persist(patience, async || {
            let mut stream = attempt(self.rpc.clone()).await?.into_inner();
            let mut gathered = begin();
            while let Some(message) = stream.message().await? {
                take(&mut gathered, message);
            }
            Ok(gathered)
        }))
    }

    /// As [`Self::collect`], of the service for steps; a daemon that knows no such service has
    /// nothing to tell.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(crate) fn collect_steps<T, F, Fut>(
        &self,
        patience: Patience,
        mut attempt: F,
    ) -> Result<Vec<T>, RemoteError>
    where
        F: FnMut(StepsRpc) -> Fut,
        Fut: Future<Output = Result<Response<Streaming<T>>, Status>>,
    {
        self.runtime.block_on(self.persist(patience, async || {
            let mut stream = match attempt(self.steps.clone()).await {
                Ok(answer) => answer.into_inner(),
                Err(status) if status.code() == Code::Unimplemented => return Ok(Vec::new()),
                Err(status) => return Err(status),
            };
            let mut gathered = Vec::new();
            while let Some(message) = stream.message().await? {
                gathered.push(message);
            }
            Ok(gathered)
        }))
    }

    /// Tries until there is an answer, a refusal, or no patience left.
    async fn persist<T>(
        &self,
        patience: Patience,
        mut attempt: impl AsyncFnMut() -> Result<T, Status>,
    ) -> Result<T, RemoteError> {
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let status = match tokio::time::timeout(patience.deadline, attempt()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => status,
                Err(_elapsed) => Status::deadline_exceeded(TIMED_OUT),
            };
            if !is_transient(&status) || begun.elapsed() + pause > patience.retry_for {
                return Err(self.explain(&status));
            }
            // Many commands that lost one controller must not come back in step.
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Puts a failed call into words.
    pub(crate) fn explain(&self, status: &Status) -> RemoteError {
        if let Some(refusal) = refusal_of(status) {
            return RemoteError::Refused(refusal);
        }
        match status.code() {
            _ if broke_off(status) => RemoteError::Unreachable(self.who_was_asked(status)),
            Code::Unavailable => RemoteError::Unreachable(self.who_was_asked(status)),
            Code::DeadlineExceeded => RemoteError::Failed(TIMED_OUT.to_owned()),
            _ => RemoteError::Failed(format!("{}: {}", status.code(), status.message())),
        }
    }

    /// Says which socket was tried, and what the kernel or the daemon said.
    fn who_was_asked(&self, status: &Status) -> String {
        let socket = self.socket.display();
        match io_error_of(status) {
            Some(error) if error.kind() == ErrorKind::NotFound => format!(
                "no penstock daemon runs on this host: {socket} does not exist \
                 (PENSTOCK_SOCKET or PENSTOCK_CONFIG may name another)"
            ),
            Some(error) => format!("no daemon answers at {socket}: {error}"),
            None => format!("the daemon at {socket} answers: {}", status.message()),
        }
    }
}

/// A fresh id for a changing request.
pub(crate) fn request_id() -> Bytes {
    Bytes::copy_from_slice(&rand::random::<[u8; 16]>())
}

/// Whether another try may go better: nobody there, a full queue, or a daemon that ended meanwhile.
pub(crate) fn is_transient(status: &Status) -> bool {
    let busy = matches!(status.code(), Code::Unavailable | Code::ResourceExhausted);
    (busy && refusal_of(status).is_none()) || broke_off(status)
}

/// Whether the connection ended under the call: then the status is made on this side, with the
/// cause in it, and tonic has no code for that. Whether the call was carried out is not known; its
/// request id makes another try safe.
pub(crate) fn broke_off(status: &Status) -> bool {
    let vague = matches!(status.code(), Code::Unknown | Code::Internal | Code::Cancelled);
    vague && std::error::Error::source(status).is_some()
}

/// The refusal in the status details, if it is one.
fn refusal_of(status: &Status) -> Option<v1::Refusal> {
    let details = status.details();
    let refusal = v1::Refusal::decode(details).ok()?;
    (!details.is_empty() && !refusal.kind.is_empty()).then_some(refusal)
}

/// The kernel's error behind a failed call.
fn io_error_of(status: &Status) -> Option<&std::io::Error> {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io);
        }
        cause = error.source();
    }
    None
}

/// The parts of the cluster file that name sockets.
#[derive(Debug, Default, serde::Deserialize)]
struct ConfigSockets {
    controller: Option<ConfigSocket>,
    agent: Option<ConfigSocket>,
}

#[derive(Debug, Default, serde::Deserialize)]
struct ConfigSocket {
    socket: Option<PathBuf>,
}

/// Where this host's daemon listens: `PENSTOCK_SOCKET`, then the cluster file, then the usual
/// places.
fn find_socket(
    env: &dyn Fn(&str) -> Option<OsString>,
    exists: &dyn Fn(&Path) -> bool,
) -> Result<PathBuf, RemoteError> {
    let set = |name: &str| env(name).filter(|value| !value.as_bytes().is_empty());
    if let Some(socket) = set("PENSTOCK_SOCKET") {
        return Ok(socket.into());
    }
    if let Some(file) = set("PENSTOCK_CONFIG").map(PathBuf::from) {
        let named = read_sockets(&file).map_err(RemoteError::Failed)?;
        return pick(&named, exists).ok_or_else(|| {
            let file = file.display();
            RemoteError::Failed(format!("{file} has neither [controller] nor [agent]"))
        });
    }
    let system = Path::new(SYSTEM_CONFIG);
    // The system's file may be the administrator's alone; the usual places remain.
    let named =
        if exists(system) { read_sockets(system).unwrap_or_default() } else { <_>::default() };
    let usual = ConfigSockets {
        controller: Some(ConfigSocket::default()),
        agent: Some(ConfigSocket::default()),
    };
    let found = pick(&named, exists).or_else(|| pick(&usual, exists));
    Ok(found.unwrap_or_else(|| CONTROLLER_SOCKET.into()))
}

/// The controller's socket if it exists, else the agent's; the only one named in any case.
fn pick(named: &ConfigSockets, exists: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    let path = |section: &Option<ConfigSocket>, default: &str| {
        let section = section.as_ref()?;
        Some(section.socket.clone().unwrap_or_else(|| default.into()))
    };
    let controller = path(&named.controller, CONTROLLER_SOCKET);
    let agent = path(&named.agent, AGENT_SOCKET);
    match (controller, agent) {
        (Some(controller), Some(agent)) => {
            Some(if exists(&controller) || !exists(&agent) { controller } else { agent })
        }
        (controller, agent) => controller.or(agent),
    }
}

fn read_sockets(file: &Path) -> Result<ConfigSockets, String> {
    let told = file.display();
    let text =
        std::fs::read_to_string(file).map_err(|error| format!("cannot read {told}: {error}"))?;
    toml::from_str(&text).map_err(|error| format!("{told} is not understood: {error}"))
}

#[cfg(test)]
#[path = "connect_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "connect_services_tests.rs"]
mod services_tests;
