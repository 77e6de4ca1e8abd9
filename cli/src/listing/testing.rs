//! Short worlds for tests of listings.

use penstock_proto::v1;
use penstock_vocab::{JobFlag, JobFlags, JobState, NodeFlag, NodeFlags, NodeState, NodeStatus};

/// 2026-11-24T08:05:47Z, at which every job here was submitted.
pub(crate) const SUBMIT: i64 = 1_795_507_547_000;

/// Two seconds later, at which runs begin.
pub(crate) const START: i64 = SUBMIT + 2000;

/// A job under construction: pending, of root, one CPU, in partition `main`.
pub(crate) struct JobBuilder(v1::JobInfo);

pub(crate) fn job(id: u32) -> JobBuilder {
    let spec = v1::JobSpec {
        name: "wrap".into(),
        account: "acct1".into(),
        qos: "normal".into(),
        mem_per_node_mib: Some(10),
        work_dir: "/tmp/rs/w".into(),
        submit_host: "localhost".into(),
        submit_sid: 7266,
        ..v1::JobSpec::default()
    };
    let job = v1::Job {
        id,
        spec: Some(spec),
        submit_ms: SUBMIT,
        eligible_ms: SUBMIT,
        time_limit_secs: 3600,
        ..v1::Job::default()
    };
    JobBuilder(v1::JobInfo {
        job: Some(job),
        user_name: "root".into(),
        group_name: "root".into(),
        partition: "main".into(),
        num_nodes: 1,
        num_cpus: 1,
        num_tasks: 1,
        memory_mib: 10,
        tres_requested: "billing=1,cpu=1,mem=10M,node=1".into(),
        ..v1::JobInfo::default()
    })
}

impl JobBuilder {
    /// Changes the message.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut v1::JobInfo)) -> Self {
        change(&mut self.0);
        self
    }

    /// Changes the record.
    pub(crate) fn record(self, change: impl FnOnce(&mut v1::Job)) -> Self {
        self.with(|info| change(info.job.as_mut().expect("built with one")))
    }

    /// Changes what was submitted.
    pub(crate) fn spec(self, change: impl FnOnce(&mut v1::JobSpec)) -> Self {
        self.record(|job| change(job.spec.as_mut().expect("built with one")))
    }

    pub(crate) fn state(self, state: JobState) -> Self {
        self.record(|job| job.state = state.code())
    }

    pub(crate) fn flag(self, flag: JobFlag) -> Self {
        self.record(|job| job.flags = JobFlags::from_bits(job.flags).with(flag).bits())
    }

    pub(crate) fn name(self, name: &str) -> Self {
        self.spec(|spec| spec.name = name.to_owned())
    }

    pub(crate) fn partition(self, name: &str) -> Self {
        self.with(|info| info.partition = name.to_owned())
    }

    pub(crate) fn priority(self, priority: u32) -> Self {
        self.with(|info| info.priority = priority)
    }

    pub(crate) fn reason(self, reason: &str) -> Self {
        self.with(|info| info.reason = reason.to_owned())
    }

    /// Runs on `node` since [`START`].
    pub(crate) fn running(self, node: &str) -> Self {
        let share = v1::NodeShare {
            node: node.to_owned(),
            cpu_ranges: vec![0, 0],
            memory_mib: 10,
            tasks: 1,
            ..v1::NodeShare::default()
        };
        let run = v1::Run {
            attempt: 1,
            shares: vec![share],
            start_ms: START,
            partition: "main".into(),
            ..v1::Run::default()
        };
        self.state(JobState::Running).record(|job| job.run = Some(run)).with(|info| {
            info.nodelist = node.to_owned();
            info.batch_host = node.to_owned();
            info.tres_allocated = info.tres_requested.clone();
        })
    }

    /// Ended `secs` after its start.
    pub(crate) fn ended(self, state: JobState, cause: v1::EndCause, secs: i64) -> Self {
        self.state(state).run(|run| {
            run.end_ms = START + secs * 1000;
            run.end_state = state.code();
            run.set_end_cause(cause);
        })
    }

    /// Changes the run.
    pub(crate) fn run(self, change: impl FnOnce(&mut v1::Run)) -> Self {
        self.record(|job| change(job.run.as_mut().expect("runs or ran")))
    }

    /// Is task `task` of array `array`.
    pub(crate) fn task(self, array: u32, task: u32) -> Self {
        self.record(|job| {
            job.array_job_id = array;
            job.array_task_id = Some(task);
        })
    }

    /// Is the waiting rest of an array.
    pub(crate) fn rest(self, runs: &[u32], throttle: u32) -> Self {
        let id = self.0.job.as_ref().expect("built with one").id;
        self.with(|info| info.pending_tasks = Some(v1::IndexRuns { runs: runs.to_vec() })).record(
            |job| {
                job.array_job_id = id;
                job.array = Some(v1::ArraySummary { throttle, ..v1::ArraySummary::default() });
            },
        )
    }

    pub(crate) fn build(self) -> v1::JobInfo {
        self.0
    }
}

/// A node of `cpus` CPUs and `memory` MiB, of which `used` CPUs are given out.
pub(crate) fn node(name: &str, cpus: u32, memory: u64, used: u32) -> v1::NodeInfo {
    let inventory = v1::Inventory {
        cpus,
        sockets: cpus,
        cores_per_socket: 1,
        threads_per_core: 1,
        memory_mib: memory,
        version: "22.05.8".into(),
        os: "Linux 6.1 #1 SMP".into(),
        architecture: "x86_64".into(),
        address: "127.0.0.1".into(),
        hostname: "localhost".into(),
        ..v1::Inventory::default()
    };
    let record =
        v1::Node { name: name.to_owned(), inventory: Some(inventory), ..v1::Node::default() };
    let base = match used {
        0 => NodeState::Idle,
        used if used == cpus => NodeState::Allocated,
        _ => NodeState::Mixed,
    };
    v1::NodeInfo {
        node: Some(record),
        state: base.name().to_owned(),
        base_state: base.code(),
        cpus_allocated: used,
        memory_allocated_mib: u64::from(used) * 10,
        weight: 1,
        ..v1::NodeInfo::default()
    }
}

/// The same node, drained by root.
pub(crate) fn drained(mut info: v1::NodeInfo, reason: &str) -> v1::NodeInfo {
    let status = NodeStatus {
        base: NodeState::from_code(info.base_state).expect("known"),
        flags: NodeFlags::EMPTY.with(NodeFlag::Drain),
    };
    info.flags = status.flags.bits();
    info.state = status.to_string();
    info.reason_user = "root".into();
    if let Some(record) = &mut info.node {
        record.admin = Some(v1::NodeAdmin {
            drain: true,
            reason: reason.to_owned(),
            reason_ms: SUBMIT + 30_000,
            ..v1::NodeAdmin::default()
        });
    }
    info
}

/// A partition of nodes.
pub(crate) fn partition(name: &str, nodes: &[&str]) -> v1::PartitionInfo {
    v1::PartitionInfo {
        name: name.to_owned(),
        state: "UP".into(),
        nodes: nodes.iter().map(|&node| node.to_owned()).collect(),
        priority_tier: 1,
        priority_job_factor: 1,
        ..v1::PartitionInfo::default()
    }
}
