//! What does quickstart ask of its controller?

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use penstock_proto::v1;
use penstock_vocab::JobState;

use super::failure::Failure;
use crate::connect::{Client, Patience, request_id};

/// For a controller that may not be there yet: one try, and the caller tries again.
const ONE_TRY: Patience = Patience { deadline: Duration::from_secs(10), retry_for: Duration::ZERO };

/// For a look at the cluster: it is on this machine, and somebody waits for it.
const READ: Patience =
    Patience { deadline: Duration::from_secs(10), retry_for: Duration::from_secs(3) };

/// How long a join token serves; agents that are started now join within seconds.
const TOKEN_VALID_SECS: u32 = 600;

/// A controller, by its socket.
pub(super) struct Remote {
    client: Client,
}

/// What the tour shows of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JobView {
    /// Code of its state.
    pub(super) state: u32,
    /// Bits of its flags.
    pub(super) flags: u32,
    /// Where it runs.
    pub(super) nodes: String,
}

impl JobView {
    /// Whether the job has ended, well or not.
    pub(super) fn has_ended(&self) -> bool {
        JobState::from_code(self.state).is_some_and(JobState::is_finished)
    }

    /// Whether it ended as it should.
    pub(super) fn is_completed(&self) -> bool {
        JobState::from_code(self.state) == Some(JobState::Completed)
    }
}

impl Remote {
    /// The controller behind `socket`; connects with the first call.
    pub(super) fn at(socket: &Path) -> Result<Self, Failure> {
        let client = Client::at(socket.to_owned());
        Ok(Self { client: client.map_err(Failure::remote("reach the controller"))? })
    }

    /// Whether it answers now.
    pub(super) fn answers(&self) -> bool {
        let ping = |mut rpc: crate::connect::Rpc| async move { rpc.ping(v1::PingRequest {}).await };
        self.client.call(ONE_TRY, ping).is_ok()
    }

    /// A token with which `uses` agents may join.
    pub(super) fn create_token(&self, uses: u32) -> Result<String, Failure> {
        let request = v1::CreateTokenRequest {
            request_id: request_id(),
            role: v1::HostRole::Compute.into(),
            uses,
            valid_secs: TOKEN_VALID_SECS,
        };
        self.client
            .call(Patience::CHANGE, |mut rpc| {
                let request = request.clone();
                async move { rpc.create_token(request).await }
            })
            .map(|reply| reply.token)
            .map_err(Failure::remote("create a join token"))
    }

    /// Nodes that are registered, not down, and whose agent is connected now.
    pub(super) fn ready_nodes(&self) -> Result<BTreeSet<String>, Failure> {
        let hosts = self
            .client
            .call(READ, |mut rpc| async move { rpc.list_hosts(v1::ListHostsRequest {}).await })
            .map_err(Failure::remote("list the hosts"))?;
        let connected = hosts.hosts.into_iter().filter(|host| host.connected);
        let connected: BTreeSet<String> =
            connected.filter_map(|host| host.host).map(|host| host.name).collect();
        let nodes = self.nodes()?.into_iter().filter_map(|node| node.node);
        let ready = nodes.filter(|node| node.registered_ms > 0 && !node.down);
        Ok(ready.map(|node| node.name).filter(|name| connected.contains(name)).collect())
    }

    fn nodes(&self) -> Result<Vec<v1::NodeInfo>, Failure> {
        let request = v1::ListNodesRequest { nodes: String::new() };
        self.client
            .call(READ, |mut rpc| {
                let request = request.clone();
                async move { rpc.list_nodes(request).await }
            })
            .map(|reply| reply.nodes)
            .map_err(Failure::remote("list the nodes"))
    }

    /// Names and states of all nodes, as `scontrol` prints them.
    pub(super) fn node_states(&self) -> Result<Vec<(String, String)>, Failure> {
        let name = |info: &v1::NodeInfo| info.node.as_ref().map(|node| node.name.clone());
        let state = |info: v1::NodeInfo| (name(&info).unwrap_or_default(), info.state);
        Ok(self.nodes()?.into_iter().map(state).collect())
    }

    fn jobs(&self, request: &v1::ListJobsRequest) -> Result<Vec<v1::JobInfo>, Failure> {
        let replies = self
            .client
            .collect(READ, |mut rpc| {
                let request = request.clone();
                async move { rpc.list_jobs(request).await }
            })
            .map_err(Failure::remote("list the jobs"))?;
        Ok(replies.into_iter().flat_map(|reply| reply.jobs).collect())
    }

    /// One job; `None` when the controller knows none of that id.
    pub(super) fn job(&self, id: u32) -> Result<Option<JobView>, Failure> {
        let filter = v1::JobFilter { selectors: vec![id.to_string()], ..Default::default() };
        let request = v1::ListJobsRequest {
            filter: Some(filter),
            all_states: true,
            full: true,
            expand_arrays: false,
        };
        let view = |info: v1::JobInfo| {
            let job = info.job?;
            Some(JobView { state: job.state, flags: job.flags, nodes: info.nodelist })
        };
        Ok(self.jobs(&request)?.into_iter().find_map(view))
    }

    /// How many jobs wait, run or are ending; a waiting array counts once.
    pub(super) fn active_jobs(&self) -> Result<usize, Failure> {
        let request = v1::ListJobsRequest {
            filter: None,
            all_states: false,
            full: true,
            expand_arrays: false,
        };
        Ok(self.jobs(&request)?.len())
    }

    /// Cancels every job of every user.
    pub(super) fn cancel_all(&self) -> Result<(), Failure> {
        let states = [JobState::Pending, JobState::Running, JobState::Suspended];
        let filter = v1::JobFilter {
            states: states.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        let request = v1::CancelJobsRequest {
            request_id: request_id(),
            filter: Some(filter),
            signal: 0,
            batch_only: false,
            full: false,
            cron: true,
        };
        self.client
            .call(Patience::CHANGE, |mut rpc| {
                let request = request.clone();
                async move { rpc.cancel_jobs(request).await }
            })
            .map(drop)
            .map_err(Failure::remote("cancel the jobs"))
    }

    /// The status of an ended job as a shell would give it: 128 and more for a signal.
    pub(super) fn exit_status(&self, id: u32) -> Result<i32, Failure> {
        let request = v1::WaitJobRequest { job_id: id, timeout_secs: 5 };
        let reply = self
            .client
            .call(READ, |mut rpc| async move { rpc.wait_job(request).await })
            .map_err(Failure::remote("ask for the job's exit status"))?;
        let small = |number: u32| i32::try_from(number.min(127)).unwrap_or(1);
        Ok(match reply.exit_signal {
            0 => i32::try_from(reply.exit_status.min(255)).unwrap_or(1),
            signal => 128 + small(signal),
        })
    }
}
