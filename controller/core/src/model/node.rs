//! What is a node, what has it got, and who may use it?

use std::collections::BTreeMap;

use fixedbitset::FixedBitSet;
use imbl::OrdSet;
use penstock_vocab::{GresRequest, JobId, Mib, NodeName, SessionId, Timestamp, UserId};

use super::gpu::{GpuDrain, Gpus};
use super::job::NodeShare;
use super::mig::{Reshape, ReshapeRest};

/// Place of a node in the cluster's table; never reused while the daemon runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub u32);

impl NodeIndex {
    /// As an index of a table.
    #[must_use]
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

/// What an agent says of its machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// Logical CPUs.
    pub cpus: u32,
    /// Sockets.
    pub sockets: u32,
    /// Cores in a socket.
    pub cores_per_socket: u32,
    /// Hardware threads in a core; CPUs are given out by whole cores.
    pub threads_per_core: u32,
    /// Memory for jobs.
    pub memory: Mib,
    /// Space for temporary files.
    pub tmp_disk: Mib,
    /// Generic resources.
    pub gres: Box<[GresRequest]>,
    /// Features for `--constraint`.
    pub features: Box<[Box<str>]>,
    /// Operating system.
    pub os: Box<str>,
    /// Architecture.
    pub architecture: Box<str>,
    /// Version of the agent.
    pub version: Box<str>,
    /// The kernel's boot id: another one proves that every process of before is gone.
    pub boot_id: Box<str>,
    /// When the machine started.
    pub boot_time: Timestamp,
    /// When the agent started.
    pub agent_start: Timestamp,
    /// CPUs are counted and not pinned.
    pub unpinned: bool,
    /// Address under which other nodes reach it.
    pub address: Box<str>,
    /// Host name.
    pub hostname: Box<str>,
    /// Each GPU, in the order of its index; `gres` counts them by type.
    pub gpus: Gpus,
    /// Why no GPU could be read; empty: they could, or there is none.
    pub gpu_error: Box<str>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Name.
    pub name: NodeName,
    /// What it last said it has, or what the cluster file says of it until it has joined.
    pub inventory: Inventory,
    /// What admins set.
    pub admin: NodeAdmin,
    /// Set when it is out of service.
    pub down: Option<Down>,
    /// When it first registered; `None`: named in the cluster file only.
    pub registered: Option<Timestamp>,
    /// When a job last ended there.
    pub last_busy: Option<Timestamp>,
    /// Launches that failed there of late; not stored.
    pub trouble: LaunchTrouble,
    /// Its stream's session; not stored.
    pub session: Option<SessionId>,
    /// From the cluster file; not stored.
    pub weight: u32,
    /// Features from the cluster file; not stored.
    pub configured_features: Box<[Box<str>]>,
}

/// Launches that failed on a node by its own fault.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LaunchTrouble {
    /// When, and of which job; oldest first, each job once.
    pub failures: Vec<(Timestamp, JobId)>,
    /// Until then it gets no new job.
    pub cool_until: Option<Timestamp>,
    /// Events of its GPUs within a day, oldest first.
    pub gpu_faults: Vec<GpuFaultSeen>,
    /// GPUs whose slices are left alone for a while.
    pub rests: Vec<ReshapeRest>,
}

/// An event of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuFaultSeen {
    /// Index of the GPU.
    pub gpu: u32,
    /// XID.
    pub xid: u32,
    /// When.
    pub at: Timestamp,
    /// Whose job held the GPU.
    pub by: Option<UserId>,
}

/// What admins set on a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeAdmin {
    /// No new jobs.
    pub drain: bool,
    /// No new jobs, expected to fail.
    pub fail: bool,
    /// Powered down, which proves that nothing runs there.
    pub powered_down: bool,
    /// Why.
    pub reason: Box<str>,
    /// Who said so and when.
    pub reason_by: Option<(UserId, Timestamp)>,
    /// Instead of the cluster file's weight.
    pub weight: Option<u32>,
    /// Instead of the features found and configured.
    pub features: Option<Box<[Box<str>]>>,
    /// Free text.
    pub comment: Box<str>,
    /// What still runs there then is requeued or cancelled, as long as it is drained.
    pub drain_by: Option<Timestamp>,
    /// GPUs that get no new job, by index.
    pub gpus: Box<[GpuDrain]>,
    /// GPUs that are being cut.
    pub reshapes: Box<[Reshape]>,
}

/// Why and since when a node is down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Down {
    /// Why.
    pub reason: Box<str>,
    /// Since when.
    pub at: Timestamp,
    /// By whom; `None`: by the controller.
    pub by: Option<UserId>,
    /// For silence: it returns by itself when it answers.
    pub by_silence: bool,
}

/// What is taken on a node; derived from the runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeUse {
    /// Logical CPUs that are taken.
    pub cpus: FixedBitSet,
    /// Of these, those whose holders share them, and how many jobs each of the holders lets there be;
    /// in order.
    pub shared: BTreeMap<u32, Vec<u32>>,
    /// Memory that is taken.
    pub memory: Mib,
    /// Units that are taken, for each generic resource of the inventory in its order.
    pub gres: Vec<FixedBitSet>,
    /// Jobs with a run there.
    pub jobs: OrdSet<JobId>,
    /// Whose shares these are, and how many of each, in order.
    pub holders: Vec<(Holder, u32)>,
}

/// Who holds a share of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// User that the job runs as.
    pub uid: UserId,
    /// Whether the node may not be shared with another user's jobs.
    pub alone: bool,
}

impl NodeUse {
    /// Adds a share that is free. Cost: its CPUs and devices.
    pub fn add(&mut self, inventory: &Inventory, share: &NodeShare, holder: Holder) {
        self.add_cpus(share);
        self.memory = self.memory.saturating_add(share.memory);
        self.gres.resize_with(inventory.gres.len(), Default::default);
        for gres in &share.gres {
            let at = inventory.gres.iter().position(|have| have.name == gres.name);
            let Some(units) = at.and_then(|at| self.gres.get_mut(at)) else { continue };
            for id in &gres.ids {
                units.grow(*id as usize + 1);
                units.insert(*id as usize);
            }
        }
        match self.holders.binary_search_by_key(&holder, |(holder, _)| *holder) {
            Ok(at) => self.holders[at].1 += 1,
            Err(at) => self.holders.insert(at, (holder, 1)),
        }
    }

    /// Adds the CPUs of a share.
    pub fn add_cpus(&mut self, share: &NodeShare) {
        self.cpus.grow(share.cpus.len());
        self.cpus.union_with(&share.cpus);
        if share.sharing > 1 {
            for cpu in cpu_numbers(share) {
                let holders = self.shared.entry(cpu).or_default();
                let at = holders.partition_point(|most| *most < share.sharing);
                holders.insert(at, share.sharing);
            }
        }
    }

    fn remove_cpus(&mut self, share: &NodeShare) {
        if share.sharing <= 1 {
            return self.cpus.difference_with(&share.cpus);
        }
        for cpu in cpu_numbers(share) {
            let Some(holders) = self.shared.get_mut(&cpu) else { continue };
            if let Ok(at) = holders.binary_search(&share.sharing) {
                holders.remove(at);
            }
            if holders.is_empty() {
                self.shared.remove(&cpu);
                self.cpus.set(cpu as usize, false);
            }
        }
    }

    /// Whether the CPUs of a share are free, or held by jobs that share them with one more.
    #[must_use]
    pub fn admits_cpus(&self, share: &NodeShare) -> bool {
        let mut held = share.cpus.intersection(&self.cpus).map(|cpu| u32::try_from(cpu).ok());
        held.all(|cpu| cpu.is_some_and(|cpu| self.can_join(cpu, share.sharing)))
    }

    /// CPUs that are held and may be joined by a job that shares its own with `sharing - 1` others.
    pub fn joinable(&self, sharing: u32) -> impl Iterator<Item = u32> {
        self.shared.keys().copied().filter(move |cpu| self.can_join(*cpu, sharing))
    }

    fn can_join(&self, cpu: u32, sharing: u32) -> bool {
        let Some(holders) = self.shared.get(&cpu) else { return false };
        let least = holders.first().map_or(sharing, |least| sharing.min(*least));
        holders.len() < least as usize
    }

    /// Takes out a share that was added.
    pub fn remove(&mut self, inventory: &Inventory, share: &NodeShare, holder: Holder) {
        self.remove_cpus(share);
        self.memory = self.memory.saturating_sub(share.memory);
        for gres in &share.gres {
            let at = inventory.gres.iter().position(|have| have.name == gres.name);
            let Some(units) = at.and_then(|at| self.gres.get_mut(at)) else { continue };
            for id in &gres.ids {
                if (*id as usize) < units.len() {
                    units.set(*id as usize, false);
                }
            }
        }
        if let Ok(at) = self.holders.binary_search_by_key(&holder, |(holder, _)| *holder) {
            self.holders[at].1 -= 1;
            if self.holders[at].1 == 0 {
                self.holders.remove(at);
            }
        }
    }

    /// Whether a job of `holder` may run beside those that are there.
    #[must_use]
    pub fn admits(&self, holder: Holder) -> bool {
        let mut others = self.holders.iter().filter(|(other, _)| other.uid != holder.uid);
        others.all(|(other, _)| !other.alone && !holder.alone)
    }

    /// Number of CPUs that are taken.
    #[must_use]
    pub fn cpu_count(&self) -> u32 {
        u32::try_from(self.cpus.count_ones(..)).unwrap_or(u32::MAX)
    }
}

fn cpu_numbers(share: &NodeShare) -> impl Iterator<Item = u32> {
    share.cpus.ones().filter_map(|cpu| u32::try_from(cpu).ok())
}

impl Node {
    /// A node of which nothing but its name is known.
    #[must_use]
    pub fn named(name: NodeName) -> Self {
        Self {
            name,
            inventory: Inventory::default(),
            admin: NodeAdmin::default(),
            down: None,
            registered: None,
            last_busy: None,
            trouble: LaunchTrouble::default(),
            session: None,
            weight: 1,
            configured_features: Box::default(),
        }
    }

    /// Whether it may be given new work now.
    #[must_use]
    pub fn accepts_work(&self) -> bool {
        self.session.is_some() && self.in_service() && self.trouble.cool_until.is_none()
    }

    /// Whether nothing but its silence keeps work away.
    #[must_use]
    pub fn in_service(&self) -> bool {
        let admin = &self.admin;
        self.down.is_none() && !admin.drain && !admin.fail && !admin.powered_down
    }

    /// Features: what an admin set, else what was found and configured.
    #[must_use]
    pub fn features(&self) -> Vec<Box<str>> {
        if let Some(set) = &self.admin.features {
            return set.to_vec();
        }
        let mut features = self.inventory.features.to_vec();
        for feature in &self.configured_features {
            if !features.contains(feature) {
                features.push(feature.clone());
            }
        }
        features
    }

    /// Whether it has a feature, as [`Node::features`] lists them.
    #[must_use]
    pub fn has_feature(&self, name: &str) -> bool {
        let named = |features: &[Box<str>]| features.iter().any(|feature| **feature == *name);
        match &self.admin.features {
            Some(set) => named(set),
            None => named(&self.inventory.features) || named(&self.configured_features),
        }
    }

    /// Weight: the lower, the sooner it is used.
    #[must_use]
    pub fn effective_weight(&self) -> u32 {
        self.admin.weight.unwrap_or(self.weight)
    }
}
