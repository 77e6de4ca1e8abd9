//! A small cluster that is brought into shape by commands; for tests.

use std::sync::Arc;

use penstock_core::command::*;
use penstock_core::model::*;
use penstock_core::scheduler::{Limits, Plan, plan};
use penstock_core::{Cluster, Reply};
use penstock_proto::v1;
use penstock_vocab::*;

use crate::convert::spec::submission;
use crate::listing::View;

/// A cluster of nodes `n1` to `n4`, 4 CPUs, 4000 MiB and 2 GPUs each, in the partitions `main` (the
/// default) and, from `n3` on, `gpu`.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) plan: Plan,
    pub(crate) now: Timestamp,
}

pub(crate) const ALICE: u32 = 1001;
pub(crate) const BOB: u32 = 1002;
const CAP: u32 = 4;

pub(crate) fn config() -> Config {
    let name = |name: &str| NodeName::new(name).unwrap();
    let mut main = Partition::new(PartitionName::new("main").unwrap());
    main.is_default = true;
    main.def_mem_per_cpu = Some(Mib(100));
    let mut gpu = Partition::new(PartitionName::new("gpu").unwrap());
    gpu.nodes = Some(vec![name("n3"), name("n4")]);
    gpu.max_time = Walltime::Limited(3600);
    let node = |place: u32| NodeConfig {
        name: name(&format!("n{place}")),
        cpus: None,
        memory: None,
        gres: Vec::new(),
        features: vec!["ib".into()],
        weight: place,
    };
    // Jobs start in the order of their submission.
    let weights = Weights { small_area: 0, ..Weights::default() };
    Config {
        cluster: "demo".into(),
        scheduling: Scheduling { weights, ..Scheduling::default() },
        partitions: vec![main, gpu],
        nodes: (1..=4).map(node).collect(),
        ..Config::default()
    }
}

pub(crate) fn world() -> World {
    let now = Timestamp::from_secs(1_000_000);
    let mut world =
        World { cluster: Cluster::new(Arc::new(config()), now), plan: Plan::default(), now };
    for place in 1..=4 {
        world.register(&format!("n{place}"));
    }
    world
}

/// A request of one task, named `name`.
pub(crate) fn job(name: &str, user: &str) -> v1::JobSpec {
    v1::JobSpec {
        name: name.into(),
        user_name: user.into(),
        group_name: "users".into(),
        account: format!("{user}-account"),
        time_limit_secs: Some(600),
        ..Default::default()
    }
}

impl World {
    pub(crate) fn view(&self) -> View<'_> {
        View { cluster: &self.cluster, plan: &self.plan }
    }

    pub(crate) fn wait(&mut self, secs: u64) {
        self.now = self.now.plus_secs(secs);
    }

    pub(crate) fn run(&mut self, command: Command) -> Reply {
        self.cluster.execute(self.now, command).expect("the command is good").reply
    }

    pub(crate) fn register(&mut self, name: &str) {
        let inventory = Inventory {
            cpus: CAP,
            sockets: 1,
            cores_per_socket: CAP,
            threads_per_core: 1,
            memory: Mib(4000),
            gres: vec!["gpu:h100:2".parse().unwrap()].into(),
            ..Inventory::default()
        };
        let node = NodeName::new(name).unwrap();
        let session = SessionId(1);
        let inventory = Box::new(inventory);
        self.run(Command::Register { node, session, inventory, attempts: Vec::new() });
    }

    pub(crate) fn caller(uid: u32, request: Option<u128>) -> Caller {
        let request = request.map(RequestId);
        Caller { uid: UserId(uid), gid: GroupId(100), admin: uid == 0, request }
    }

    /// Submits for alice, or for bob where the request names him.
    pub(crate) fn submit(&mut self, spec: v1::JobSpec) -> JobId {
        let uid = if spec.user_name == "bob" { BOB } else { ALICE };
        let (spec, array) =
            submission(spec, BlobId([7; 32]), BlobId([8; 32])).expect("the request is good");
        let submission =
            Submission { spec: Arc::new(spec), array, groups: Vec::new().into(), user: "".into() };
        let request = Some(u128::from(self.cluster.next_job_id()));
        match self.run(Command::Submit(Self::caller(uid, request), Box::new(submission))) {
            Reply::Submitted { job, .. } => job,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn schedule(&mut self) {
        self.plan = plan(&self.cluster, self.now, Limits::default());
        self.run(Command::Start(self.plan.starts.clone()));
    }

    pub(crate) fn report(&mut self, job: JobId, phase: AttemptPhase) {
        let record = self.cluster.job(job).unwrap();
        let run = record.run.as_ref().unwrap();
        let (node, _) = self.cluster.node(run.batch_node().unwrap()).unwrap();
        let report = AttemptReport { job, attempt: run.attempt, step: None, phase };
        let node = node.name.clone();
        self.run(Command::Report { node, session: SessionId(1), report });
    }

    pub(crate) fn end(&mut self, job: JobId, status: u8) {
        let result = RunResult { exit: ExitCode::exited(status), ..RunResult::default() };
        self.report(job, AttemptPhase::Ended(Box::new(result)));
    }

    pub(crate) fn cancel(&mut self, uid: u32, targets: Vec<Target>) {
        self.run(Command::Cancel(Self::caller(uid, None), targets));
    }

    pub(crate) fn requeue(&mut self, job: JobId) {
        let caller = Self::caller(0, None);
        self.run(Command::Requeue { caller, targets: vec![Target::Id(job)], hold: false });
    }
}
