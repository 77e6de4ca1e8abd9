//! What is told of a node, its GPUs, and a partition?

use penstock_proto::v1;
use serde::Serialize;
use utoipa::ToSchema;

use super::time;

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct NodeView {
    /// Name.
    pub name: String,
    /// As scontrol prints it: `MIXED+DRAIN`.
    #[schema(example = "MIXED+DRAIN")]
    pub state: String,
    /// Why it is drained or down; empty: it is neither.
    pub reason: String,
    /// Who said so.
    pub reason_user: String,
    /// Since when.
    pub reason_ms: Option<i64>,
    /// Partitions.
    pub partitions: Vec<String>,
    /// Features.
    pub features: Vec<String>,
    /// CPUs.
    pub cpus: u32,
    /// CPUs that jobs have.
    pub cpus_allocated: u32,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Memory that jobs have, MiB.
    pub memory_allocated_mib: u64,
    /// Memory that is free by the node's own count, MiB.
    pub free_memory_mib: Option<u64>,
    /// Load average times 100.
    pub load_centi: Option<u32>,
    /// Everything it has, as scontrol prints `CfgTRES`.
    pub tres_configured: String,
    /// What jobs have of it, as scontrol prints `AllocTRES`.
    pub tres_allocated: String,
    /// GPUs, by index.
    pub gpus: Vec<GpuView>,
    /// Operating system.
    pub os: String,
    /// When it booted.
    pub boot_ms: Option<i64>,
    /// When a job last ran on it.
    pub last_busy_ms: Option<i64>,
    /// Version of its agent.
    pub version: String,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct GpuView {
    /// Node.
    pub node: String,
    /// Index on the node.
    pub index: u32,
    /// GRES type: `h100`.
    pub kind: String,
    /// As the driver spells it.
    pub model: String,
    /// UUID.
    pub uuid: String,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// IDLE, MIXED, ALLOCATED, DRAINED, DRAINING or CHANGING.
    pub state: String,
    /// What is wrong with it, or why it gets no new job; empty: nothing.
    pub fault: String,
    /// Whether MIG is on.
    pub mig: bool,
    /// Its slices.
    pub slices: Vec<SliceView>,
    /// Who has it or parts of it.
    pub holders: Vec<HolderView>,
    /// What was last measured of it and its slices.
    pub samples: Vec<SampleView>,
}

/// A slice of a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct SliceView {
    /// `1g.10gb`.
    pub profile: String,
    /// First memory slice.
    pub start: u32,
    /// Memory slices.
    pub size: u32,
    /// UUID.
    pub uuid: String,
}

/// Who has a GPU, a slice or shards of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct HolderView {
    /// Job.
    pub job: u32,
    /// Login name.
    pub user: String,
    /// First memory slice of the slice; null: the whole GPU, or shards.
    pub slice_start: Option<u32>,
    /// Profile of the slice.
    pub profile: String,
    /// Shards; 0: it does not share.
    pub shards: u32,
}

/// What was measured. What is null is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct SampleView {
    /// GPU instance of a slice; null: the whole GPU.
    pub gpu_instance: Option<u32>,
    /// Percent.
    pub utilization: Option<u32>,
    /// MiB.
    pub memory_used_mib: Option<u64>,
    /// Milliwatts.
    pub power_mw: Option<u32>,
    /// Degrees Celsius.
    pub temperature: Option<u32>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct PartitionView {
    /// Name.
    pub name: String,
    /// Jobs that name none go here.
    pub is_default: bool,
    /// UP, DOWN, DRAIN or INACTIVE.
    pub state: String,
    /// Nodes, a hostlist.
    pub nodes: String,
    /// How many.
    pub node_count: u32,
    /// CPUs.
    pub cpus: u32,
    /// Longest time limit, seconds; null: none.
    pub max_time_secs: Option<u64>,
    /// Time limit of jobs that name none, seconds.
    pub default_time_secs: Option<u64>,
    /// Fewest nodes of a job.
    pub min_nodes: u32,
    /// Most nodes of a job; null: no limit.
    pub max_nodes: Option<u32>,
    /// Priority tier.
    pub priority_tier: u32,
    /// Accounts that may use it; empty: all.
    pub allow_accounts: Vec<String>,
    /// Groups that may use it; empty: all.
    pub allow_groups: Vec<String>,
    /// QOS that may be used in it; empty: all.
    pub allow_qos: Vec<String>,
    /// Everything that its nodes have, as scontrol prints it.
    pub tres: String,
}

impl NodeView {
    pub(in crate::http) fn of(info: &v1::NodeInfo) -> Self {
        let no_node = v1::Node::default();
        let no_inventory = v1::Inventory::default();
        let no_admin = v1::NodeAdmin::default();
        let node = info.node.as_ref().unwrap_or(&no_node);
        let inventory = node.inventory.as_ref().unwrap_or(&no_inventory);
        let admin = node.admin.as_ref().unwrap_or(&no_admin);
        let (reason, since) = match admin.reason.is_empty() {
            false => (&admin.reason, admin.reason_ms),
            true => (&node.down_reason, node.down_ms),
        };
        Self {
            name: node.name.clone(),
            state: info.state.clone(),
            reason: reason.clone(),
            reason_user: info.reason_user.clone(),
            reason_ms: time(since),
            partitions: info.partitions.clone(),
            features: info.features.clone(),
            cpus: inventory.cpus,
            cpus_allocated: info.cpus_allocated,
            memory_mib: inventory.memory_mib,
            memory_allocated_mib: info.memory_allocated_mib,
            free_memory_mib: info.free_memory_mib,
            load_centi: info.load_centi,
            tres_configured: info.cfg_tres.clone(),
            tres_allocated: info.alloc_tres.clone(),
            gpus: GpuView::all_of(info),
            os: inventory.os.clone(),
            boot_ms: time(inventory.boot_time_ms),
            last_busy_ms: time(node.last_busy_ms),
            version: inventory.version.clone(),
        }
    }
}

impl GpuView {
    /// The GPUs of a node.
    pub(in crate::http) fn all_of(info: &v1::NodeInfo) -> Vec<Self> {
        let Some(node) = &info.node else { return Vec::new() };
        let gpus = node.inventory.as_ref().map_or(&[][..], |inventory| &inventory.gpus);
        gpus.iter().zip(&info.gpus).map(|(gpu, now)| Self::of(&node.name, gpu, now)).collect()
    }

    fn of(node: &str, gpu: &v1::Gpu, now: &v1::GpuInfo) -> Self {
        let drained = now.drain.as_ref().map(|drain| drain.reason.clone());
        Self {
            node: node.to_owned(),
            index: gpu.index,
            kind: gpu.r#type.clone(),
            model: gpu.model.clone(),
            uuid: gpu.uuid.clone(),
            memory_mib: gpu.memory_mib,
            state: now.state.clone(),
            fault: if gpu.fault.is_empty() {
                drained.unwrap_or_default()
            } else {
                gpu.fault.clone()
            },
            mig: gpu.mig() == v1::MigMode::On,
            slices: gpu.slices.iter().map(SliceView::of).collect(),
            holders: now.holders.iter().map(HolderView::of).collect(),
            samples: now.samples.iter().map(SampleView::of).collect(),
        }
    }
}

impl SliceView {
    fn of(slice: &v1::MigSlice) -> Self {
        Self {
            profile: slice.profile.clone(),
            start: slice.start,
            size: slice.size,
            uuid: slice.uuid.clone(),
        }
    }
}

impl HolderView {
    fn of(holder: &v1::GpuHolder) -> Self {
        Self {
            job: holder.job_id,
            user: holder.user_name.clone(),
            slice_start: holder.start,
            profile: holder.profile.clone(),
            shards: holder.shards,
        }
    }
}

impl SampleView {
    fn of(sample: &v1::GpuSample) -> Self {
        Self {
            gpu_instance: sample.gi,
            utilization: sample.utilization,
            memory_used_mib: sample.memory_used_mib,
            power_mw: sample.power_mw,
            temperature: sample.temperature,
        }
    }
}

impl PartitionView {
    pub(in crate::http) fn of(info: &v1::PartitionInfo) -> Self {
        let nodes = info.nodes.iter().map(String::as_str);
        Self {
            name: info.name.clone(),
            is_default: info.is_default,
            state: info.state.clone(),
            nodes: penstock_vocab::compress(nodes),
            node_count: info.total_nodes,
            cpus: info.total_cpus,
            max_time_secs: (info.max_time_secs != 0).then_some(info.max_time_secs),
            default_time_secs: info.default_time_secs,
            min_nodes: info.min_nodes,
            max_nodes: (info.max_nodes != 0).then_some(info.max_nodes),
            priority_tier: info.priority_tier,
            allow_accounts: info.allow_accounts.clone(),
            allow_groups: info.allow_groups.clone(),
            allow_qos: info.allow_qos.clone(),
            tres: info.tres.clone(),
        }
    }
}
