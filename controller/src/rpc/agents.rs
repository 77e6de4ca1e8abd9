//! What do agents say, and what are they told?

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use penstock_core::command::{AttemptPhase, Order, OrderKind};
use penstock_core::model::{BlobId, EndCause, GpuFault, HostRole, StepKey, StepNumber};
use penstock_core::{Command, Refusal, Reply};
use penstock_proto::v1;
use penstock_proto::v1::agent_link_server::AgentLink;
use penstock_proto::v1::agent_message::Body as FromAgent;
use penstock_proto::v1::controller_message::Body as ToAgent;
use penstock_vocab::{NodeName, SessionId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::jobs::unexpected;
use super::shared::{Shared, role_of};
use super::status::{failed, refused};
use super::steps::relay_from_node;
use crate::convert::gpu::{fault_from_wire, layout_from_wire, reshape_order};
use crate::convert::{hooks, wire};
use crate::identity::{HostIdentity, host_of, secret_hash};
use crate::links::LinkItem;
use crate::store::BlobHash;
use crate::writer::Snapshot;

/// How long an agent may take for its first message.
const FIRST_MESSAGE: Duration = Duration::from_secs(20);
/// Messages that may wait for one agent's connection.
const OUTBOUND: usize = 64;
/// Heartbeats within which a connected machine counts as alive.
const ALIVE_HEARTBEATS: u64 = 3;
/// Longest name of a host, in bytes.
const MAX_HOST_NAME: usize = 253;

/// The agents' service.
#[derive(Clone)]
pub(super) struct Agents {
    pub(super) shared: Arc<Shared>,
    /// Ends every stream when the controller goes down.
    pub(super) stop: CancellationToken,
}

#[tonic::async_trait]
impl AgentLink for Agents {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<v1::ControllerMessage, Status>> + Send>>;

    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinReply>, Status> {
        join(&self.shared, request.into_inner()).await
    }

    async fn attach(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let host = host_of(request.extensions(), &*self.shared)?;
        let address = request.remote_addr().map(|a| a.ip().to_string()).unwrap_or_default();
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(FIRST_MESSAGE, incoming.next())
            .await
            .map_err(|_| Status::deadline_exceeded("the agent did not register in time"))?;
        let register = match first.transpose()?.and_then(|message| message.body) {
            Some(FromAgent::Register(register)) => register,
            Some(_) | None => {
                return Err(Status::invalid_argument("the first message must register the node"));
            }
        };
        let (outbound, receiver) = mpsc::channel(OUTBOUND);
        let link = Link::open(&self.shared, host, register, address, outbound).await?;
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = link.run(incoming) => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

async fn join(
    shared: &Shared,
    request: v1::JoinRequest,
) -> Result<Response<v1::JoinReply>, Status> {
    if request.host.len() > MAX_HOST_NAME {
        return Err(Status::invalid_argument("the host's name is too long"));
    }
    let snapshot = shared.snapshot();
    let known = snapshot.cluster.token(&request.token_id).map(|token| token.role);
    // A used-up token is gone; the host's own record tells the role for a repeated request.
    let role = known
        .or_else(|| snapshot.cluster.host(&request.host).map(|host| host.role))
        .unwrap_or(HostRole::Compute);
    let signed = shared
        .ca
        .sign(&request.csr, &request.host, role_of(role))
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    let command = Command::Join {
        token_id: request.token_id.as_str().into(),
        secret_hash: secret_hash(&request.token_secret),
        host: request.host.as_str().into(),
        key_hash: signed.key_hash,
    };
    match shared.writer.execute(command).await {
        Ok(Reply::Joined(role)) => {
            info!(host = %request.host, role = role_of(role).as_str(), "a host joined");
            Ok(Response::new(v1::JoinReply {
                certificate: signed.certificate_pem,
                ca_certificate: shared.ca.certificate_pem().to_owned(),
                role: role_of(role).to_wire().into(),
                cluster: shared.file().cluster.name.clone(),
            }))
        }
        Ok(_) => Err(unexpected()),
        Err(crate::writer::ExecuteError::Refused(refusal @ Refusal::HostNameTaken(_))) => {
            warn!(host = %request.host, "a host with another key wanted a name that is taken");
            Err(Status::already_exists(refusal.to_string()))
        }
        Err(error) => {
            warn!(host = %request.host, %error, "a host could not join");
            Err(failed(&error))
        }
    }
}

/// One agent's stream.
struct Link {
    shared: Arc<Shared>,
    node: NodeName,
    /// Whether the host runs jobs; what another kind of host says of jobs is ignored.
    is_node: bool,
    session: SessionId,
    orders: mpsc::Receiver<LinkItem>,
    cut: CancellationToken,
    outbound: mpsc::Sender<Result<v1::ControllerMessage, Status>>,
}

impl Link {
    /// Opens a session and registers the node.
    async fn open(
        shared: &Arc<Shared>,
        host: HostIdentity,
        register: v1::Register,
        address: String,
        outbound: mpsc::Sender<Result<v1::ControllerMessage, Status>>,
    ) -> Result<Self, Status> {
        if *host.name != *register.node {
            return Err(Status::permission_denied(format!(
                "host {} can't register node {}: a host registers the node of its own name",
                host.name, register.node
            )));
        }
        let node = NodeName::new(&register.node)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut inventory = wire::inventory_from_wire(register.inventory.unwrap_or_default())
            .map_err(|refusal| refused(&refusal))?;
        if inventory.address.is_empty() {
            inventory.address = address.as_str().into();
        }
        let attempts = register
            .attempts
            .into_iter()
            .map(wire::report_from_wire)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let now = shared.clock.now();
        refuse_twin(shared, &register.node, &inventory.boot_id, now)?;
        let (session, orders, cut) =
            shared.links.open(&register.node, now, address, &inventory.boot_id);
        let link = Self {
            shared: Arc::clone(shared),
            node: node.clone(),
            is_node: host.role == crate::identity::HostRole::Compute,
            session,
            orders,
            cut,
            outbound,
        };
        // The welcome comes before the orders that registering brings forth.
        link.send(ToAgent::Welcome(link.welcome())).await;
        if !link.is_node {
            // A login or admin host keeps its stream and has no resources to offer.
            info!(host = %link.node, role = %host.role, session = session.0, "host connected");
            return Ok(link);
        }
        let held = attempts.len();
        let inventory = Box::new(inventory);
        let command = Command::Register { node, session, inventory, attempts };
        if let Err(error) = shared.writer.execute(command).await {
            shared.links.close(&register.node, session, shared.clock.now());
            return Err(failed(&error));
        }
        info!(node = %link.node, session = session.0, held, "node registered");
        Ok(link)
    }

    fn welcome(&self) -> v1::Welcome {
        let file = self.shared.file();
        v1::Welcome {
            session: self.session.0,
            store_id: self.shared.store_id.clone().into(),
            store_sequence: self.shared.snapshot().sequence,
            heartbeat_secs: file.policy.heartbeat_secs,
            kill_wait_secs: file.policy.kill_wait_secs,
            unkillable_secs: file.policy.unkillable_secs,
            cluster: file.cluster.name.clone(),
        }
    }

    async fn send(&self, body: ToAgent) -> bool {
        let message = v1::ControllerMessage { session: self.session.0, body: Some(body) };
        self.outbound.send(Ok(message)).await.is_ok()
    }

    async fn run(mut self, mut incoming: Streaming<v1::AgentMessage>) {
        let why = loop {
            tokio::select! {
                message = incoming.next() => match message {
                    Some(Ok(message)) => self.take(message).await,
                    Some(Err(status)) => break status.message().to_owned(),
                    None => break "the agent closed the stream".to_owned(),
                },
                item = self.orders.recv() => match item {
                    Some(LinkItem::Reshape(gpu, snapshot)) => {
                        if !self.pass_on_reshape(gpu, &snapshot).await {
                            break "the stream broke".to_owned();
                        }
                    }
                    Some(LinkItem::Order(order, snapshot)) => {
                        if !self.pass_on(order, &snapshot).await {
                            break "the stream broke".to_owned();
                        }
                    }
                    Some(LinkItem::Message(body)) => {
                        if !self.send(*body).await {
                            break "the stream broke".to_owned();
                        }
                    }
                    None => break "a newer stream took its place".to_owned(),
                },
                () = self.cut.cancelled() => break "the stream was cut".to_owned(),
            }
        };
        warn!(node = %self.node, session = self.session.0, why, "node disconnected");
        self.shared.links.close(self.node.as_str(), self.session, self.shared.clock.now());
        if self.is_node {
            let command = Command::Disconnected { node: self.node.clone(), session: self.session };
            self.shared.writer.tell(command).await;
        }
    }

    async fn take(&mut self, message: v1::AgentMessage) {
        if message.session != 0 && message.session != self.session.0 {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let now = shared.clock.now();
        match message.body {
            Some(FromAgent::Heartbeat(beat)) => {
                let vitals = Some((beat.load_centi, beat.free_memory_mib));
                // An answer lets the node's leases go on: only where the silence counts from here.
                if !shared.links.heard(self.node.as_str(), self.session, now, vitals) {
                    return;
                }
                self.send(ToAgent::Heartbeat(v1::HeartbeatReply {
                    sent_boottime_ms: beat.sent_boottime_ms,
                    store_sequence: shared.snapshot().sequence,
                }))
                .await;
            }
            Some(
                FromAgent::Report(_)
                | FromAgent::Drain(_)
                | FromAgent::Gpus(_)
                | FromAgent::Usage(_)
                | FromAgent::GpuLayout(_)
                | FromAgent::Relay(_),
            ) if !self.is_node => {
                warn!(host = %self.node, "a host that runs no jobs speaks of jobs; it is ignored");
            }
            Some(FromAgent::Report(report)) => {
                shared.links.heard(self.node.as_str(), self.session, now, None);
                match wire::report_from_wire(report) {
                    Ok(mut report) => {
                        let (job, attempt) = (report.job, report.attempt);
                        if let AttemptPhase::Ended(result) = &mut report.phase {
                            result.gpus = shared.gpus.of_run(job, attempt);
                            let (part, cluster) = ((job, attempt, report.step), shared.snapshot());
                            let end = (part, &self.node, &mut **result);
                            shared.usage.complete(&cluster.cluster, &shared.gpus, end);
                        }
                        let (node, session) = (self.node.clone(), self.session);
                        shared.writer.tell(Command::Report { node, session, report }).await;
                    }
                    Err(error) => warn!(node = %self.node, %error, "a report can't be read"),
                }
            }
            Some(FromAgent::Drain(drain)) => {
                warn!(node = %self.node, reason = %drain.reason, "the node asks to be drained");
                let (node, session) = (self.node.clone(), self.session);
                let reason = drain.reason.into();
                shared.writer.tell(Command::DrainRequested { node, session, reason }).await;
            }
            Some(FromAgent::Gpus(report)) => self.take_gpus(report, now).await,
            Some(FromAgent::GpuLayout(layout)) => self.take_layout(layout, now).await,
            Some(FromAgent::Usage(report)) => self.take_usage(report, now),
            Some(FromAgent::Relay(frame)) => relay_from_node(&shared, &self.node, frame),
            Some(FromAgent::Register(_)) => {
                warn!(node = %self.node, "a second registration on one stream; it is cut");
                self.cut.cancel();
            }
            None => {}
        }
    }

    /// What parts of runs use stays here.
    fn take_usage(&self, report: v1::UsageReport, now: penstock_vocab::Timestamp) {
        let shared = &self.shared;
        if shared.links.heard(self.node.as_str(), self.session, now, None) {
            shared.usage.report(&shared.snapshot().cluster, &self.node, report, now);
        }
    }

    /// Samples stay here; events may drain a GPU.
    async fn take_gpus(&self, mut report: v1::GpuReport, now: penstock_vocab::Timestamp) {
        let shared = &self.shared;
        if !shared.links.heard(self.node.as_str(), self.session, now, None) {
            return;
        }
        let faults: Vec<GpuFault> =
            std::mem::take(&mut report.events).into_iter().map(fault_from_wire).collect();
        shared.gpus.report(&shared.snapshot().cluster, &self.node, report, now);
        if faults.is_empty() {
            return;
        }
        for fault in &faults {
            warn!(
                node = %self.node, gpu = fault.gpu, gi = fault.gi, xid = fault.xid,
                text = %fault.text, "event of a GPU"
            );
        }
        let (node, session) = (self.node.clone(), self.session);
        shared.writer.tell(Command::GpuFaults { node, session, faults }).await;
    }

    /// How a GPU is cut by now.
    async fn take_layout(&self, layout: v1::GpuLayout, now: penstock_vocab::Timestamp) {
        let shared = &self.shared;
        if !shared.links.heard(self.node.as_str(), self.session, now, None) {
            return;
        }
        let (node, session) = (self.node.clone(), self.session);
        let answers = layout.answers;
        let error: Box<str> = layout.error.as_str().into();
        match layout_from_wire(layout) {
            Ok((gpu, gres)) => {
                info!(%node, gpu = gpu.index, generation = gpu.generation, answers, %error, "layout");
                let gpu = Box::new(gpu);
                let command = Command::GpuLayout { node, session, gpu, gres, answers, error };
                shared.writer.tell(command).await;
            }
            Err(error) => warn!(%node, %error, "the layout of a GPU can't be read"),
        }
    }

    /// False if the stream broke. What is no longer wanted is left out.
    async fn pass_on_reshape(&self, gpu: u32, snapshot: &Snapshot) -> bool {
        let Ok((_, node)) = snapshot.cluster.node_by_name(&self.node) else { return true };
        let Some(reshape) = node.admin.reshapes.iter().find(|reshape| reshape.gpu == gpu) else {
            return true;
        };
        info!(node = %self.node, gpu, generation = reshape.generation, "a GPU is to be cut");
        self.send(ToAgent::Reshape(reshape_order(reshape, self.shared.clock.now()))).await
    }

    async fn pass_on(&self, order: Order, snapshot: &Snapshot) -> bool {
        let body = match (order.kind, order.step) {
            (OrderKind::Launch, None) => match self.launch(&order, snapshot).await {
                Some(launch) => ToAgent::Launch(launch),
                None => return true,
            },
            (OrderKind::Launch, Some(number)) if number.is_hook() => {
                match self.launch_hook(&order, number, snapshot) {
                    Some(launch) => ToAgent::LaunchHook(launch),
                    None => return true,
                }
            }
            (OrderKind::Launch, Some(number)) => match self.launch_step(&order, number, snapshot) {
                Some(body) => body,
                None => return true,
            },
            _ => match wire::order_to_wire(&snapshot.cluster, &order, self.kill_wait()) {
                Some(body) => body,
                None => return true,
            },
        };
        self.send(body).await
    }

    /// Seconds from SIGTERM to SIGKILL.
    fn kill_wait(&self) -> u32 {
        self.shared.file().policy.kill_wait_secs
    }

    /// A launch with script and environment; `None` if it is no longer wanted.
    async fn launch(&self, order: &Order, snapshot: &Snapshot) -> Option<v1::Launch> {
        let job = snapshot.cluster.job(order.job)?;
        let run = job.active_run().filter(|run| run.attempt == order.attempt)?;
        let details = &job.spec.details;
        let script = self.blob(details.script).await;
        let environment = self.blob(details.environment).await;
        let (Some(script), Some(environment)) = (script, environment) else {
            warn!(job = %order.job, "the job's script is not in the store; it can't be launched");
            return None;
        };
        let file = self.shared.file();
        let hosts = if file.cluster.resolve_nodes { addresses(snapshot) } else { Vec::new() };
        info!(
            job = %order.job, attempt = order.attempt.0, node = %self.node,
            cpus = run.cpu_count(), "launch"
        );
        let kill_wait = file.policy.kill_wait_secs;
        let launch = wire::launch(&snapshot.cluster, job, script, environment, kill_wait, hosts)?;
        let measure_secs = details.measure_secs.unwrap_or(file.policy.measure_secs);
        Some(v1::Launch {
            unkillable_secs: file.policy.unkillable_secs,
            measure_secs,
            task_prolog: text_of(file.hooks.task_prolog.as_deref()),
            task_epilog: text_of(file.hooks.task_epilog.as_deref()),
            ..launch
        })
    }

    /// The start of a prolog or epilog; `None` if it is no longer wanted. Where the cluster file no
    /// longer names one, there is nothing to run, and that is done well.
    fn launch_hook(
        &self,
        order: &Order,
        number: StepNumber,
        snapshot: &Snapshot,
    ) -> Option<v1::LaunchHook> {
        let cluster = &snapshot.cluster;
        let job = cluster.job(order.job)?;
        job.active_run().filter(|run| run.attempt == order.attempt)?;
        let node = cluster.node_index(self.node.as_str())?;
        let launch = hooks::launch_hook(cluster, job, number, node)?;
        let file = self.shared.file();
        let epilog = number == StepNumber::EPILOG;
        let path = if epilog { &file.hooks.epilog } else { &file.hooks.prolog };
        info!(job = %order.job, node = %self.node, epilog, "launch a hook");
        Some(v1::LaunchHook {
            path: text_of(path.as_deref()),
            timeout_secs: file.hooks.timeout_secs,
            ..launch
        })
    }

    /// A launch of this node's part of a step, with what only this process knows of it; the end of that
    /// part where it is not known any more. `None` if it is no longer wanted.
    fn launch_step(
        &self,
        order: &Order,
        number: StepNumber,
        snapshot: &Snapshot,
    ) -> Option<ToAgent> {
        let cluster = &snapshot.cluster;
        let key = StepKey { job: order.job, attempt: order.attempt, number };
        let step = cluster.step(key)?;
        let ticket = step.ticket;
        let Some(kept) = self.shared.steps.secrets.find(ticket) else {
            warn!(step = %key, node = %self.node, "a step's secret went with the last controller");
            let kind = OrderKind::Terminate(EndCause::LaunchFailed);
            let end = Order { kind, ..order.clone() };
            return wire::order_to_wire(cluster, &end, self.kill_wait());
        };
        let file = self.shared.file();
        let hosts = if file.cluster.resolve_nodes { addresses(snapshot) } else { Vec::new() };
        let node = cluster.node_index(self.node.as_str())?;
        let launch = wire::launch_step(cluster, key, node, file.policy.kill_wait_secs, hosts)?;
        info!(step = %key, node = %self.node, "launch a step");
        let of_job = cluster.job(key.job).and_then(|job| job.spec.details.measure_secs);
        let measure_secs = step.spec.details.measure_secs.or(of_job);
        Some(ToAgent::LaunchStep(v1::LaunchStep {
            measure_secs: measure_secs.unwrap_or(file.policy.measure_secs),
            unkillable_secs: file.policy.unkillable_secs,
            addresses: kept.addresses,
            port: kept.port,
            secret: kept.secret,
            task_prolog: text_of(file.hooks.task_prolog.as_deref()),
            task_epilog: text_of(file.hooks.task_epilog.as_deref()),
            ..launch
        }))
    }

    async fn blob(&self, id: BlobId) -> Option<bytes::Bytes> {
        let blobs = Arc::clone(&self.shared.blobs);
        let read = move || blobs.blob(&BlobHash(id.0));
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                warn!(error = %crate::writer::chain(&error), "a blob can't be read");
                None
            }
            Err(_) => None,
        }
    }
}

/// A path as a message has it; empty: none.
fn text_of(path: Option<&std::path::Path>) -> String {
    path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Another machine under the name and with the key of one that is connected and alive: a copy of its
/// disk. If it took the node's place, the jobs of the first would be taken for lost.
fn refuse_twin(
    shared: &Shared,
    host: &str,
    boot_id: &str,
    now: penstock_vocab::Timestamp,
) -> Result<(), Status> {
    let Some(link) = shared.links.view(host) else { return Ok(()) };
    let patience = ALIVE_HEARTBEATS * u64::from(shared.file().policy.heartbeat_secs);
    if *link.boot_id == *boot_id || now.since(link.last_seen).as_secs() > patience {
        return Ok(());
    }
    warn!(%host, connected_from = %link.address, "a second machine wants this host's place");
    // Not a refusal for good: after a crash, the machine itself comes back so before it is missed.
    Err(Status::unavailable(format!(
        "host {host} is connected from {} and alive; a copy of a machine needs an identity of its \
         own: remove the agent's identity folder there and join under another name",
        link.address
    )))
}

/// Names and addresses of all nodes that stated one.
fn addresses(snapshot: &Snapshot) -> Vec<v1::HostAddress> {
    snapshot
        .cluster
        .nodes()
        .filter(|(_, node, _)| !node.inventory.address.is_empty())
        .map(|(_, node, _)| v1::HostAddress {
            name: node.name.to_string(),
            address: node.inventory.address.to_string(),
        })
        .collect()
}
