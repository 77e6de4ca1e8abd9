//! How is a node stored and sent?

use penstock_core::model::{Down, Inventory, LaunchTrouble, Node, NodeAdmin};
use penstock_core::refusal::{Malformed, Refusal};
use penstock_proto::v1;
use penstock_vocab::{MAX_GRES_LIST, Mib, NodeName, Timestamp, UserId};

use super::bounds::{MAX_NAME_BYTES, check_count, check_text, malformed};
use super::codes;
use super::error::ConvertError;
use super::gpu;
use super::run::MAX_CPUS;
use super::spec;

/// Most units of one generic resource on one node; each is counted by itself.
pub(super) const MAX_GRES_UNITS: u64 = 1 << 16;
/// Most features of one node.
const MAX_FEATURES: usize = 256;

/// What an agent says of its machine, with every bound checked.
///
/// # Errors
/// With a sentence for the agent's log, if something can't be read or is beyond a bound.
pub fn inventory_from_wire(inventory: v1::Inventory) -> Result<Inventory, Refusal> {
    let texts = [
        ("the operating system", &inventory.os),
        ("the architecture", &inventory.architecture),
        ("the version", &inventory.version),
        ("the boot id", &inventory.boot_id),
        ("the address", &inventory.address),
        ("the host name", &inventory.hostname),
    ];
    texts.iter().try_for_each(|(field, text)| check_text(field, text, MAX_NAME_BYTES))?;
    let features = &inventory.features;
    check_count("features", features.len(), MAX_FEATURES)?;
    features.iter().try_for_each(|name| check_text("a feature", name, MAX_NAME_BYTES))?;
    check_count("generic resources", inventory.gres.len(), MAX_GRES_LIST)?;
    if let Some(gres) = inventory.gres.iter().find(|gres| gres.count > MAX_GRES_UNITS) {
        let detail = format!("{} has {} units, at most {MAX_GRES_UNITS}", gres.name, gres.count);
        return Err(malformed(Malformed::Gres, detail));
    }
    if inventory.cpus == 0 || inventory.cpus > MAX_CPUS {
        let detail = format!("{} CPUs; a node has 1 to {MAX_CPUS}", inventory.cpus);
        return Err(malformed(Malformed::Count, detail));
    }
    gpu::check_gpus(&inventory.gpus, &inventory.gpu_error)?;
    read_inventory(inventory)
}

fn read_inventory(inventory: v1::Inventory) -> Result<Inventory, Refusal> {
    Ok(Inventory {
        cpus: inventory.cpus,
        sockets: inventory.sockets,
        cores_per_socket: inventory.cores_per_socket,
        threads_per_core: inventory.threads_per_core,
        memory: Mib(inventory.memory_mib),
        tmp_disk: Mib(inventory.tmp_disk_mib),
        gres: spec::gres_list(&inventory.gres)?,
        features: inventory.features.into_iter().map(Into::into).collect(),
        os: inventory.os.into(),
        architecture: inventory.architecture.into(),
        version: inventory.version.into(),
        boot_id: inventory.boot_id.into(),
        boot_time: Timestamp(inventory.boot_time_ms),
        agent_start: Timestamp(inventory.agent_start_ms),
        unpinned: inventory.unpinned,
        address: inventory.address.into(),
        hostname: inventory.hostname.into(),
        gpus: gpu::gpus_from_wire(inventory.gpus),
        gpu_error: inventory.gpu_error.into(),
    })
}

/// Inverse of [`inventory_from_wire`].
#[must_use]
pub fn inventory_to_wire(inventory: &Inventory) -> v1::Inventory {
    v1::Inventory {
        cpus: inventory.cpus,
        sockets: inventory.sockets,
        cores_per_socket: inventory.cores_per_socket,
        threads_per_core: inventory.threads_per_core,
        memory_mib: inventory.memory.0,
        tmp_disk_mib: inventory.tmp_disk.0,
        gres: inventory.gres.iter().map(spec::gres_to_wire).collect(),
        features: strings(&inventory.features),
        os: inventory.os.to_string(),
        architecture: inventory.architecture.to_string(),
        version: inventory.version.to_string(),
        boot_id: inventory.boot_id.to_string(),
        boot_time_ms: inventory.boot_time.0,
        agent_start_ms: inventory.agent_start.0,
        unpinned: inventory.unpinned,
        address: inventory.address.to_string(),
        hostname: inventory.hostname.to_string(),
        gpus: gpu::gpus_to_wire(&inventory.gpus),
        gpu_error: inventory.gpu_error.to_string(),
    }
}

/// A node as the wire and the store have it: without its session and what the cluster file says.
#[must_use]
pub fn node_to_wire(node: &Node) -> v1::Node {
    let down = node.down.as_ref();
    v1::Node {
        name: node.name.to_string(),
        inventory: Some(inventory_to_wire(&node.inventory)),
        admin: Some(admin_to_wire(&node.admin)),
        registered_ms: codes::moment(node.registered),
        last_busy_ms: codes::moment(node.last_busy),
        down: down.is_some(),
        down_reason: down.map_or_else(String::new, |down| down.reason.to_string()),
        down_ms: down.map_or(0, |down| down.at.0),
        down_by_uid: down.and_then(|down| down.by).map_or(0, |uid| uid.0),
        down_by_silence: down.is_some_and(|down| down.by_silence),
        down_by_user: down.is_some_and(|down| down.by.is_some()),
    }
}

/// Inverse of [`node_to_wire`].
///
/// # Errors
/// If a part is missing or a text can't be read.
pub fn node_from_wire(node: v1::Node) -> Result<Node, ConvertError> {
    let wrong = |error| ConvertError::invalid("the node's name", error);
    let name = NodeName::new(&node.name).map_err(wrong)?;
    let inventory = node.inventory.ok_or(ConvertError::Missing { what: "the inventory" })?;
    let down = node.down.then(|| Down {
        reason: node.down_reason.as_str().into(),
        at: Timestamp(node.down_ms),
        by: node.down_by_user.then_some(UserId(node.down_by_uid)),
        by_silence: node.down_by_silence,
    });
    Ok(Node {
        name,
        inventory: read_inventory(inventory)
            .map_err(|refusal| ConvertError::invalid("the inventory", refusal))?,
        admin: admin_from_wire(node.admin.unwrap_or_default())?,
        down,
        registered: codes::moment_from(node.registered_ms),
        last_busy: codes::moment_from(node.last_busy_ms),
        trouble: LaunchTrouble::default(),
        session: None,
        weight: 1,
        configured_features: Box::default(),
    })
}

fn admin_to_wire(admin: &NodeAdmin) -> v1::NodeAdmin {
    v1::NodeAdmin {
        drain: admin.drain,
        reason: admin.reason.to_string(),
        reason_uid: admin.reason_by.map_or(0, |(uid, _)| uid.0),
        reason_ms: codes::moment(admin.reason_by.map(|(_, at)| at)),
        weight: admin.weight,
        features: admin.features.as_deref().map(strings).unwrap_or_default(),
        features_set: admin.features.is_some(),
        comment: admin.comment.to_string(),
        powered_down: admin.powered_down,
        fail: admin.fail,
        drain_by_ms: codes::moment(admin.drain_by),
        gpus: admin.gpus.iter().map(gpu::drain_to_wire).collect(),
        reshapes: admin.reshapes.iter().map(gpu::reshape_to_wire).collect(),
    }
}

fn admin_from_wire(admin: v1::NodeAdmin) -> Result<NodeAdmin, ConvertError> {
    let features = admin.features.into_iter().map(Into::into);
    Ok(NodeAdmin {
        drain: admin.drain,
        fail: admin.fail,
        powered_down: admin.powered_down,
        reason: admin.reason.into(),
        reason_by: codes::moment_from(admin.reason_ms).map(|at| (UserId(admin.reason_uid), at)),
        weight: admin.weight,
        features: admin.features_set.then(|| features.collect()),
        comment: admin.comment.into(),
        drain_by: codes::moment_from(admin.drain_by_ms),
        gpus: admin.gpus.into_iter().map(gpu::drain_from_wire).collect::<Result<_, _>>()?,
        reshapes: admin.reshapes.into_iter().map(gpu::reshape_from_wire).collect(),
    })
}

fn strings(texts: &[Box<str>]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}
