//! What has this machine, and what of it is offered as a node?
//!
//! CPUs count as far as this process may use them (affinity, cpuset); memory is the machine's.
//! What the agent's file claims counts instead. A claim of more CPUs than there are is allowed,
//! for tests and for several agents on one machine: then CPUs are counted and jobs not pinned.

mod cpus;
mod machine;

use std::io;

use penstock_proto::v1;
use penstock_vocab::{GresRequest, Mib};

pub use cpus::CpuMap;
use cpus::Topology;
pub(crate) use cpus::{count_cpus, cpu_list};

/// What the agent's file says about the node.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// CPUs; `None`: those found.
    pub cpus: Option<u32>,
    /// Memory; `None`: what is found.
    pub memory: Option<Mib>,
    /// Generic resources.
    pub gres: Vec<GresRequest>,
    /// Features.
    pub features: Vec<String>,
    /// Address of the node for its jobs; empty: not told.
    pub address: String,
    /// Never pin jobs to CPUs: others use them too.
    pub unpinned: bool,
}

/// Why the machine cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// The kernel does not say what is needed.
    #[error("cannot read {path}; is /proc mounted?")]
    Unreadable {
        /// The file or call.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// A node as it is offered.
#[derive(Debug, Clone)]
pub struct Stock {
    /// What the controller is told.
    pub inventory: v1::Inventory,
    /// Real CPUs of the offered ones; `None`: jobs are not pinned.
    pub cpus: Option<CpuMap>,
}

/// Looks at the machine. Reads a few files of `/proc` and `/sys` for each CPU.
///
/// # Errors
/// When the kernel does not say which CPUs may be used, or which boot this is: without it the
/// spool cannot be judged.
pub fn take(claims: &Claims) -> Result<Stock, InventoryError> {
    let topology = Topology::read()?;
    let boot_id = machine::boot_id()?;
    let found = topology.len();
    let cpus = claims.cpus.unwrap_or(found);
    let unpinned = claims.unpinned || cpus > found;
    let offered = topology.first(cpus);
    // More CPUs than there are have no shape.
    let shape = if cpus > found { cpus::Shape::flat(cpus) } else { offered.shape() };
    let gres = claims.gres.iter().map(|gres| v1::GresCount {
        name: gres.name.name().to_owned(),
        r#type: gres.name.kind().unwrap_or_default().to_owned(),
        count: gres.count,
    });
    let system = machine::system();
    let inventory = v1::Inventory {
        cpus,
        sockets: shape.sockets,
        cores_per_socket: shape.cores,
        threads_per_core: shape.threads,
        memory_mib: claims.memory.unwrap_or_else(machine::memory).0,
        tmp_disk_mib: machine::tmp_disk().0,
        gres: gres.collect(),
        features: claims.features.clone(),
        os: system.os,
        architecture: system.architecture,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id,
        boot_time_ms: machine::boot_time().as_millis(),
        agent_start_ms: crate::sys::wall_clock().as_millis(),
        unpinned,
        address: claims.address.clone(),
        hostname: system.host,
        gpus: Vec::new(),
        gpu_error: String::new(),
    };
    Ok(Stock { inventory, cpus: (!unpinned).then(|| offered.map()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let stock = take(&Claims::default()).unwrap();
        let node = &stock.inventory;
        assert!(node.cpus > 0 && node.memory_mib > 0 && node.boot_time_ms > 0);
        assert_eq!(node.sockets * node.cores_per_socket * node.threads_per_core, node.cpus);
        assert_eq!(node.boot_id.len(), 36);
        assert!(node.os.starts_with("Linux ") && !node.architecture.is_empty());
        assert!(!node.unpinned && stock.cpus.is_some());
    }

    #[test]
    fn claims_count_and_too_many_cpus_are_not_pinned() {
        let gres = penstock_vocab::parse_gres_list("gpu:h100:4").unwrap();
        let claims = Claims {
            cpus: Some(100_000),
            memory: Some(Mib(5)),
            gres,
            features: vec!["ib".to_owned()],
            ..Claims::default()
        };
        let stock = take(&claims).unwrap();
        let node = &stock.inventory;
        assert!(node.unpinned && stock.cpus.is_none());
        assert_eq!((node.cpus, node.memory_mib, node.cores_per_socket), (100_000, 5, 100_000));
        assert_eq!((node.gres[0].name.as_str(), node.gres[0].r#type.as_str()), ("gpu", "h100"));
        let told = take(&Claims { cpus: Some(1), unpinned: true, ..Claims::default() }).unwrap();
        assert!(told.inventory.unpinned && told.cpus.is_none());
        let one = take(&Claims { cpus: Some(1), ..Claims::default() }).unwrap();
        assert_eq!(one.cpus.unwrap().len(), 1);
    }
}
