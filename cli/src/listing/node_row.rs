//! What does a node look like to sinfo and scontrol?

use std::borrow::Cow;
use std::sync::LazyLock;

use penstock_proto::v1;
use penstock_vocab::{GresName, GresRequest, NodeFlag, NodeFlags, NodeState, NodeStatus};

use super::value::Value;

static NO_NODE: LazyLock<v1::Node> = LazyLock::new(v1::Node::default);
static NO_INVENTORY: LazyLock<v1::Inventory> = LazyLock::new(v1::Inventory::default);
static NO_ADMIN: LazyLock<v1::NodeAdmin> = LazyLock::new(v1::NodeAdmin::default);

/// A node as a line sees it. A message without a record reads as one whose fields are all unset.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeRow<'a> {
    /// The message.
    pub(crate) info: &'a v1::NodeInfo,
    /// Its record.
    pub(crate) node: &'a v1::Node,
    /// What its agent found.
    pub(crate) inventory: &'a v1::Inventory,
    admin: &'a v1::NodeAdmin,
}

/// Why a node takes no work, and who said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reason<'a> {
    /// The words.
    pub(crate) text: &'a str,
    /// Milliseconds since the epoch.
    pub(crate) since_ms: i64,
    /// Whose words.
    pub(crate) uid: u32,
    /// The name of that user.
    pub(crate) user: &'a str,
}

/// Slurm's bits of the node flags, by which sinfo sorts states.
const SORT_BITS: [(NodeFlag, u32); 16] = [
    (NodeFlag::Reserved, 0x20),
    (NodeFlag::Cloud, 0x80),
    (NodeFlag::Drain, 0x200),
    (NodeFlag::Completing, 0x400),
    (NodeFlag::NotResponding, 0x800),
    (NodeFlag::PoweredDown, 0x1000),
    (NodeFlag::Fail, 0x2000),
    (NodeFlag::PoweringUp, 0x4000),
    (NodeFlag::Maintenance, 0x8000),
    (NodeFlag::RebootRequested, 0x1_0000),
    (NodeFlag::PoweringDown, 0x4_0000),
    (NodeFlag::RebootIssued, 0x10_0000),
    (NodeFlag::Planned, 0x20_0000),
    (NodeFlag::InvalidReg, 0x40_0000),
    (NodeFlag::PowerDown, 0x80_0000),
    (NodeFlag::DynamicNorm, 0x100_0000),
];

impl<'a> NodeRow<'a> {
    /// The row of a message.
    pub(crate) fn new(info: &'a v1::NodeInfo) -> Self {
        let node = info.node.as_ref().unwrap_or_else(|| &*NO_NODE);
        let inventory = node.inventory.as_ref().unwrap_or_else(|| &*NO_INVENTORY);
        let admin = node.admin.as_ref().unwrap_or_else(|| &*NO_ADMIN);
        Self { info, node, inventory, admin }
    }

    /// Base state and flags; unknown codes of a newer daemon read as UNKNOWN.
    pub(crate) fn status(&self) -> NodeStatus {
        let base = NodeState::from_code(self.info.base_state).unwrap_or(NodeState::Unknown);
        NodeStatus { base, flags: NodeFlags::from_bits(self.info.flags) }
    }

    /// Slurm's number of the state, by which sinfo sorts.
    pub(crate) fn sort_number(&self) -> u32 {
        let status = self.status();
        let bits = SORT_BITS.iter().filter(|(flag, _)| status.flags.contains(*flag));
        bits.fold(status.base.code(), |number, (_, bit)| number | bit)
    }

    /// Whether the node runs jobs, alone or with CPUs left.
    pub(crate) fn is_in_use(&self) -> bool {
        let status = self.status();
        matches!(status.base, NodeState::Allocated | NodeState::Mixed)
            || status.flags.contains(NodeFlag::Completing)
    }

    /// Whether what it does not use can be given out.
    pub(crate) fn is_usable(&self) -> bool {
        let status = self.status();
        let base = matches!(status.base, NodeState::Idle | NodeState::Allocated | NodeState::Mixed);
        base && !status.flags.contains(NodeFlag::Drain) && !status.flags.contains(NodeFlag::Fail)
    }

    /// Why it takes no work; an administrator's words go before the daemon's.
    pub(crate) fn reason(&self) -> Option<Reason<'a>> {
        let user = self.info.reason_user.as_str();
        if !self.admin.reason.is_empty() {
            let (text, since_ms, uid) =
                (self.admin.reason.as_str(), self.admin.reason_ms, self.admin.reason_uid);
            return Some(Reason { text, since_ms, uid, user });
        }
        let (text, since_ms, uid) =
            (self.node.down_reason.as_str(), self.node.down_ms, self.node.down_by_uid);
        (!text.is_empty()).then_some(Reason { text, since_ms, uid, user })
    }

    /// An administrator's remark.
    pub(crate) fn comment(&self) -> &'a str {
        &self.admin.comment
    }

    /// Load average with two decimals, or `N/A`.
    pub(crate) fn load_text(load_centi: Option<u32>) -> String {
        load_centi
            .map_or_else(|| "N/A".to_owned(), |load| format!("{}.{:02}", load / 100, load % 100))
    }

    /// `gpu:h100:8`, joined by commas; empty: none.
    pub(crate) fn gres_text(&self) -> String {
        let entries =
            self.info.gres.iter().map(|gres| gres_entry(&gres.name, &gres.r#type, gres.count));
        entries.collect::<Vec<_>>().join(",")
    }

    /// `gpu:h100:2(IDX:0-1)`, joined by commas, of what is in use.
    pub(crate) fn gres_used_text(&self) -> String {
        let used = |gres: &v1::GresCount| {
            let same =
                |share: &&v1::GresShare| share.name == gres.name && share.r#type == gres.r#type;
            match self.info.gres_used.iter().find(same) {
                Some(share) => share_text(share),
                None => format!("{}(IDX:N/A)", gres_entry(&gres.name, &gres.r#type, 0)),
            }
        };
        self.info.gres.iter().map(used).collect::<Vec<_>>().join(",")
    }

    /// Address that the agent was reached under, or its name.
    pub(crate) fn address(&self) -> &'a str {
        if self.inventory.address.is_empty() { &self.node.name } else { &self.inventory.address }
    }

    /// Host name of the machine, or the node's name.
    pub(crate) fn hostname(&self) -> &'a str {
        if self.inventory.hostname.is_empty() { &self.node.name } else { &self.inventory.hostname }
    }

    /// Features, joined by commas.
    pub(crate) fn features(&self) -> Value<'a> {
        Value::Text(Cow::Owned(self.info.features.join(",")))
    }

    /// Memory that jobs have not been given, as the machine reports it: MiB.
    pub(crate) fn free_memory(&self) -> Option<u64> {
        self.info.free_memory_mib
    }
}

/// `gpu:2(IDX:0-1)`, or without indices where the resource has none.
pub(crate) fn share_text(share: &v1::GresShare) -> String {
    let count = super::job_values::size::gres_count(share);
    let entry = gres_entry(&share.name, &share.r#type, count);
    if share.ids.is_empty() {
        return entry;
    }
    let runs = share.ids.iter().flat_map(|id| [*id, *id, 1]).collect();
    let mut text = format!("{entry}(IDX:");
    super::array::push_ranges(&mut text, &v1::IndexRuns { runs });
    text.push(')');
    text
}

fn gres_entry(name: &str, kind: &str, count: u64) -> String {
    match GresName::new(name, Some(kind).filter(|kind| !kind.is_empty())) {
        Ok(name) => GresRequest { name, count }.to_string(),
        // A name that this version would not accept is still shown.
        Err(_) => format!("{name}:{kind}:{count}"),
    }
}
