//! Builders of worlds and jobs.

use std::sync::Arc;

use penstock_core::Cluster;
use penstock_core::command::{Caller, Submission};
use penstock_core::model::{
    ArrayRequest, Config, Constraint, Dependency, Details, Inventory, JobSpec, MemoryRequest,
    Partition, Policy, Scheduling, Shape,
};
use penstock_vocab::{
    GresName, GresRequest, IndexSet, Mib, PartitionName, Timestamp, Walltime, parse_gres_list,
};

use super::{START, World, node_name, user};

/// Makes a [`World`].
pub(crate) struct WorldBuilder {
    nodes: u32,
    inventory: Inventory,
    config: Config,
}

/// Two idle nodes of four CPUs and 4,000 MiB in one partition `main`, if nothing else is said.
pub(crate) fn world() -> WorldBuilder {
    let mut main = Partition::new(partition_name("main"));
    main.is_default = true;
    WorldBuilder {
        nodes: 2,
        inventory: Inventory {
            cpus: 4,
            sockets: 1,
            cores_per_socket: 4,
            threads_per_core: 1,
            memory: Mib(4_000),
            boot_id: "boot".into(),
            ..Inventory::default()
        },
        config: Config {
            cluster: "test".into(),
            policy: Policy::default(),
            scheduling: Scheduling::default(),
            partitions: vec![main],
            nodes: Vec::new(),
            ..Config::default()
        },
    }
}

pub(crate) fn partition_name(name: &str) -> PartitionName {
    PartitionName::new(name).unwrap()
}

impl WorldBuilder {
    pub(crate) fn nodes(mut self, nodes: u32) -> Self {
        self.nodes = nodes;
        self
    }

    pub(crate) fn cpus(mut self, cpus: u32) -> Self {
        self.inventory.cpus = cpus;
        self.inventory.cores_per_socket = cpus;
        self
    }

    pub(crate) fn threads(mut self, threads: u32) -> Self {
        self.inventory.threads_per_core = threads;
        self
    }

    pub(crate) fn memory(mut self, memory: u64) -> Self {
        self.inventory.memory = Mib(memory);
        self
    }

    pub(crate) fn gpus(mut self, gpus: u64) -> Self {
        self.inventory.gres = [GresRequest { name: GresName::gpu(), count: gpus }].into();
        self
    }

    pub(crate) fn policy(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        change(&mut self.config.policy);
        self
    }

    /// Changes how jobs are ordered, planned and preempted.
    pub(crate) fn scheduling(mut self, change: impl FnOnce(&mut Scheduling)) -> Self {
        change(&mut self.config.scheduling);
        self
    }

    /// Changes the partition `main`.
    pub(crate) fn main(mut self, change: impl FnOnce(&mut Partition)) -> Self {
        change(&mut self.config.partitions[0]);
        self
    }

    /// One more partition.
    pub(crate) fn partition(mut self, name: &str, change: impl FnOnce(&mut Partition)) -> Self {
        let mut partition = Partition::new(partition_name(name));
        change(&mut partition);
        self.config.partitions.push(partition);
        self
    }

    pub(crate) fn build(self) -> World {
        let mut world = World {
            cluster: Cluster::new(Arc::new(self.config), START),
            now: START,
            orders: Vec::new(),
            inventory: self.inventory,
            next_session: 0,
        };
        for number in 1..=self.nodes {
            world.register(number, Vec::new());
        }
        world
    }
}

/// A job to be submitted.
#[derive(Debug, Clone)]
pub(crate) struct JobBuilder {
    pub(crate) caller: Caller,
    pub(crate) spec: JobSpec,
    pub(crate) array: Option<ArrayRequest>,
    pub(crate) groups: Vec<Box<str>>,
}

/// A job of one task by uid 1000, without any wish.
pub(crate) fn job() -> JobBuilder {
    JobBuilder {
        caller: user(1000),
        spec: JobSpec {
            name: "job".into(),
            account: "".into(),
            qos: "".into(),
            partitions: Box::default(),
            shape: std::sync::Arc::new(Shape::default()),
            time_limit: None,
            begin_time: Timestamp(0),
            hold: false,
            requeue: None,
            nice: 0,
            priority: None,
            comment: "".into(),
            dependency: Dependency::default(),
            kill_on_invalid_dep: false,
            allocation: false,
            no_kill: false,
            reservation: "".into(),
            deadline: None,
            min_time: None,
            signal: None,
            details: std::sync::Arc::new(Details::default()),
        },
        array: None,
        groups: Vec::new(),
    }
}

impl JobBuilder {
    pub(crate) fn spec(mut self, change: impl FnOnce(&mut JobSpec)) -> Self {
        change(&mut self.spec);
        self
    }

    pub(crate) fn shape(mut self, change: impl FnOnce(&mut Shape)) -> Self {
        change(Arc::make_mut(&mut self.spec.shape));
        self
    }

    pub(crate) fn by(mut self, caller: Caller) -> Self {
        self.caller = caller;
        self
    }

    pub(crate) fn tasks(self, tasks: u32) -> Self {
        self.shape(|shape| shape.ntasks = Some(tasks))
    }

    pub(crate) fn nodes(self, nodes: u32) -> Self {
        self.shape(|shape| shape.nodes_min = nodes)
    }

    pub(crate) fn memory(self, memory: u64) -> Self {
        self.shape(|shape| shape.memory = MemoryRequest::PerNode(Mib(memory)))
    }

    pub(crate) fn gres(self, text: &str) -> Self {
        let gres = parse_gres_list(text).unwrap();
        self.shape(|shape| shape.gres_per_node = gres.into_boxed_slice())
    }

    pub(crate) fn constraint(self, text: &str) -> Self {
        let constraint = Constraint::parse(text).unwrap();
        self.shape(|shape| shape.constraint = constraint)
    }

    pub(crate) fn on(self, nodes: &[u32]) -> Self {
        self.shape(|shape| shape.required = nodes.iter().map(|n| node_name(*n)).collect())
    }

    pub(crate) fn partition(self, names: &[&str]) -> Self {
        let names = names.iter().map(|name| partition_name(name)).collect();
        self.spec(|spec| spec.partitions = names)
    }

    pub(crate) fn after(self, text: &str) -> Self {
        let dependency = Dependency::parse(text).unwrap();
        self.spec(|spec| spec.dependency = dependency)
    }

    pub(crate) fn minutes(self, minutes: u64) -> Self {
        self.spec(|spec| spec.time_limit = Some(Walltime::from_minutes(minutes)))
    }

    /// An array of tasks `first..=last`, at most `throttle` at once (0: no limit).
    pub(crate) fn array(mut self, first: u32, last: u32, throttle: u32) -> Self {
        self.array = Some(ArrayRequest { tasks: IndexSet::from_range(first, last, 1), throttle });
        self
    }

    pub(crate) fn submission(&self) -> Submission {
        Submission {
            spec: Arc::new(self.spec.clone()),
            array: self.array.clone(),
            groups: self.groups.clone().into(),
            user: "".into(),
        }
    }
}
