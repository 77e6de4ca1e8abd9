//! Which GPUs may be cut anew, and what is being cut?

use penstock_vocab::{NodeName, Timestamp};

use super::gpu::{Gpu, MigMode};
use super::node::Node;

/// What the cluster file says of cutting GPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigConfig {
    /// Nodes whose GPUs with MIG on are cut as the queue asks.
    pub dynamic: DynamicNodes,
    /// A reshape must be done by then, seconds.
    pub deadline_secs: u32,
    /// A GPU is left alone for so long after a change, seconds; after one that failed for twice as long
    /// each time, at most an hour.
    pub settle_secs: u32,
}

/// Nodes whose GPUs are cut as the queue asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DynamicNodes {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// These.
    Named(Vec<NodeName>),
}

impl Default for MigConfig {
    fn default() -> Self {
        Self { dynamic: DynamicNodes::None, deadline_secs: 60, settle_secs: 60 }
    }
}

impl MigConfig {
    /// Whether a node's GPUs are cut as the queue asks.
    #[must_use]
    pub fn is_dynamic(&self, node: &NodeName) -> bool {
        match &self.dynamic {
            DynamicNodes::None => false,
            DynamicNodes::All => true,
            DynamicNodes::Named(names) => names.contains(node),
        }
    }

    /// Whether any is.
    #[must_use]
    pub fn any(&self) -> bool {
        self.dynamic != DynamicNodes::None
    }
}

/// A slice that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSlice {
    /// Profile.
    pub profile: Box<str>,
    /// The device's number for it.
    pub id: u32,
    /// First memory slice.
    pub start: u32,
    /// Memory slices.
    pub size: u32,
}

/// A GPU that is being cut: the intent, written down before it is ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reshape {
    /// Index on its node.
    pub gpu: u32,
    /// The board.
    pub uuid: Box<str>,
    /// Generation of the layout that it is made for.
    pub generation: u64,
    /// Slices that go, by first memory slice. Nobody is given them any more.
    pub destroy: Box<[u32]>,
    /// Slices that come.
    pub create: Box<[NewSlice]>,
    /// Given up then.
    pub deadline: Timestamp,
}

/// How long a GPU's slices are left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReshapeRest {
    /// Index of the GPU.
    pub gpu: u32,
    /// Until then.
    pub until: Timestamp,
    /// Reshapes that failed one after the other.
    pub failed: u32,
}

impl Node {
    /// What is being done to a GPU; `None`: nothing.
    #[must_use]
    pub fn reshape_of(&self, gpu: &Gpu) -> Option<&Reshape> {
        self.admin.reshapes.iter().find(|reshape| reshape.gpu == gpu.index)
    }

    /// Most units of a slice profile that its GPUs could give if all were free; 0: it has none.
    #[must_use]
    pub fn most_slices(&self, profile: &str) -> u64 {
        let gpus = self.inventory.gpus.iter().filter(|gpu| gpu.mig == MigMode::On);
        gpus.filter_map(|gpu| gpu.profiles.iter().find(|known| *known.name == *profile))
            .map(|profile| u64::from(profile.most).min(profile.starts.len() as u64))
            .sum()
    }
}
