//! What did a run make of each GPU that it held?

use penstock_vocab::{Mib, NodeName, Timestamp};

/// What was measured of one GPU or slice while one run held it. What is `None` is unknown, never 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuUsage {
    /// Its node.
    pub node: NodeName,
    /// Index on the node.
    pub gpu: u32,
    /// First memory slice; `None`: the whole GPU.
    pub start: Option<u32>,
    /// GRES type: `h100`, or a slice's profile.
    pub kind: Box<str>,
    /// Memory that it has.
    pub memory: Mib,
    /// Mean utilisation over the time that was seen, percent.
    pub mean: Option<u32>,
    /// Median.
    pub p50: Option<u32>,
    /// Ninety-fifth percentile.
    pub p95: Option<u32>,
    /// Most memory in use.
    pub peak_memory: Option<Mib>,
    /// Energy, millijoules.
    pub energy_mj: Option<u64>,
    /// How long it was seen to compute nothing, milliseconds.
    pub idle_ms: Option<u64>,
    /// How long it was seen without any process, milliseconds.
    pub empty_ms: Option<u64>,
    /// How long its utilisation was known, milliseconds.
    pub seen_ms: u64,
    /// Idle without a break up to the last sample, milliseconds.
    pub idle_now_ms: u64,
    /// The last sample.
    pub last: Timestamp,
}
