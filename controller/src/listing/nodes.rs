//! In which state is each node, and what is taken on it?

use std::collections::HashMap;

use penstock_core::Cluster;
use penstock_core::cluster::node_status;
use penstock_core::model::{GresShare, Node, NodeIndex, NodeUse};
use penstock_core::refusal::{Malformed, Refusal};
use penstock_proto::v1;
use penstock_vocab::{Tres, UserId, expand_unique};

use super::facts::count_gres;
use super::gpus::gpu_infos;
use super::partitions::{nodes_of, total};
use crate::convert::node::node_to_wire;
use crate::convert::run::gres_share_to_wire;
use crate::convert::spec::gres_to_wire;

/// A node's load average x 100 and free memory in MiB, as last reported; `None`: unknown.
pub type LoadOf<'a> = &'a dyn Fn(NodeIndex) -> Option<(u32, u64)>;

/// Who is named where the controller itself set a node down.
const CONTROLLER: &str = "root";

/// Lists the nodes that the request names, each once and in its order; without names, all. Names of
/// users are looked up where this host keeps them, which may block.
///
/// # Errors
/// If the list of nodes can't be read.
pub fn list_nodes(
    cluster: &Cluster,
    request: &v1::ListNodesRequest,
    load: LoadOf<'_>,
) -> Result<v1::ListNodesReply, Refusal> {
    let mut reply = v1::ListNodesReply::default();
    let mut lister =
        Lister { cluster, load, partitions: partitions_by_node(cluster), users: HashMap::new() };
    let all = request.nodes.trim();
    if all.is_empty() || all.eq_ignore_ascii_case("all") {
        let nodes = cluster.nodes().map(|(index, node, used)| lister.info(index, node, used));
        reply.nodes = nodes.collect();
        return Ok(reply);
    }
    let names = expand_unique(&request.nodes).map_err(|error| Refusal::Malformed {
        what: Malformed::NodeList,
        detail: error.to_string().into(),
    })?;
    for name in names {
        let index = cluster.node_index(&name);
        match index.and_then(|index| Some((index, cluster.node(index)?))) {
            Some((index, (node, used))) => reply.nodes.push(lister.info(index, node, used)),
            None => reply.unknown.push(name),
        }
    }
    Ok(reply)
}

/// For each place the names of its node's partitions, in the order of the cluster file.
fn partitions_by_node(cluster: &Cluster) -> Vec<Vec<String>> {
    let mut names = vec![Vec::new(); cluster.node_count()];
    for partition in &cluster.config().partitions {
        for (index, _) in nodes_of(cluster, partition) {
            if let Some(of_node) = names.get_mut(index.get()) {
                of_node.push(partition.name.to_string());
            }
        }
    }
    names
}

struct Lister<'a> {
    cluster: &'a Cluster,
    load: LoadOf<'a>,
    partitions: Vec<Vec<String>>,
    users: HashMap<u32, String>,
}

impl Lister<'_> {
    fn info(
        &mut self,
        index: NodeIndex,
        node: &std::sync::Arc<Node>,
        used: &NodeUse,
    ) -> v1::NodeInfo {
        let status = node_status(self.cluster, node, used);
        let load = (self.load)(index);
        let taken = gres_used(node, used);
        // scontrol names neither the node itself nor, of what is taken, the billing.
        let mut has = total([node]);
        has.node = 0;
        v1::NodeInfo {
            node: Some(node_to_wire(node)),
            state: status.to_string(),
            base_state: status.base.code(),
            flags: status.flags.bits(),
            cpus_allocated: used.cpu_count(),
            memory_allocated_mib: used.memory.0,
            cfg_tres: has.to_scontrol(),
            alloc_tres: taken_tres(used, &taken).to_scontrol(),
            gres_used: taken.iter().map(gres_share_to_wire).collect(),
            partitions: self.partitions.get(index.get()).cloned().unwrap_or_default(),
            weight: node.effective_weight(),
            features: node.features().iter().map(ToString::to_string).collect(),
            load_centi: load.map(|(load, _)| load),
            free_memory_mib: load.map(|(_, free)| free),
            reason_user: self.reason_user(node),
            gres: node.inventory.gres.iter().map(gres_to_wire).collect(),
            gpus: gpu_infos(self.cluster, index, node, used, |uid| self.user(uid)),
        }
    }

    /// Who gave the reason that stands with a node: the admin's, else that of its being down.
    fn reason_user(&mut self, node: &Node) -> String {
        match (node.admin.reason_by, &node.down) {
            (Some((uid, _)), _) => self.user(uid),
            (None, Some(down)) => match down.by {
                Some(uid) => self.user(uid),
                None => CONTROLLER.to_owned(),
            },
            (None, None) => String::new(),
        }
    }

    fn user(&mut self, uid: UserId) -> String {
        let name = || match uzers::get_user_by_uid(uid.0) {
            Some(user) => user.name().to_string_lossy().into_owned(),
            None => uid.to_string(),
        };
        self.users.entry(uid.0).or_insert_with(name).clone()
    }
}

/// Units that are taken, for each generic resource that the node has.
fn gres_used(node: &Node, used: &NodeUse) -> Vec<GresShare> {
    let units = |bits: &fixedbitset::FixedBitSet| {
        bits.ones().filter_map(|unit| u32::try_from(unit).ok()).collect::<Box<[u32]>>()
    };
    let none = fixedbitset::FixedBitSet::new();
    let shares = node.inventory.gres.iter().enumerate().map(|(at, have)| GresShare {
        name: have.name.clone(),
        ids: units(used.gres.get(at).unwrap_or(&none)),
    });
    shares.collect()
}

fn taken_tres(used: &NodeUse, taken: &[GresShare]) -> Tres {
    let mut tres = Tres { cpu: u64::from(used.cpu_count()), mem: used.memory, ..Tres::default() };
    for share in taken {
        count_gres(&mut tres.gres, &share.name, share.ids.len() as u64);
    }
    tres
}
