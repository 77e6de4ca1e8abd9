//! On what is a trace replayed: so many units, or the nodes and partitions of a cluster file?
//!
//! `units:N` is one node of N CPUs on which a job of n processors is n tasks, so that the scheduler
//! sees units and nothing else. A cluster file gives its nodes, partitions and scheduling; a list of
//! nodes as CSV gives nodes alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use penstock_controller::config::{ClusterFile, ConfigError};
use penstock_controller::settings::core_config;
use penstock_core::model::{
    Config, Constraint, Dependency, Details, DynamicNodes, Inventory, JobSpec, MemoryRequest,
    MigProfile, Partition, Policy, Scheduling, Shape,
};
use penstock_vocab::{
    GresName, GresRequest, Mib, NodeName, PartitionName, Timestamp, Walltime, parse_gres_list,
};

use super::job::{Ask, Job, Pod, Raw, Unit};
use super::mig;
use super::read::{NodeLine, ReadError, is_node_list, read_nodes};

/// Most units: a job's CPUs are counted in 32 bits, and each unit is a bit in each running job.
const MAX_UNITS: u32 = 10_000_000;

/// The partition of a cluster that has no file.
const PARTITION: &str = "main";

/// What `--cluster` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// So many units, without nodes.
    Units(u32),
    /// A cluster file, or a list of nodes.
    File(PathBuf),
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(count) = text.strip_prefix("units:") else {
            return Ok(Self::File(PathBuf::from(text)));
        };
        match count.parse() {
            Ok(count) if (1..=MAX_UNITS).contains(&count) => Ok(Self::Units(count)),
            _ => Err(format!("{count:?} is no number of units; give units:1 to units:{MAX_UNITS}")),
        }
    }
}

/// Why a cluster can't be replayed on.
#[derive(Debug, thiserror::Error)]
pub(super) enum MachineError {
    /// The cluster file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The list of nodes is.
    #[error(transparent)]
    Nodes(#[from] ReadError),
    /// A node that would describe itself on joining never joins here.
    #[error(
        "{}: the file does not say what {what}; a replay needs cpus = ... in each [[node]]",
        path.display()
    )]
    Undescribed { path: PathBuf, what: String },
    /// Jobs that name no partition would have none.
    #[error("{}: no partition is the default one; write default = true in one", path.display())]
    NoDefault { path: PathBuf },
    /// A name of the list can't be a node's.
    #[error("{}: {why}", path.display())]
    Name { path: PathBuf, why: String },
    /// Pods go on nodes.
    #[error("a list of pods needs nodes; give --cluster a cluster file or a list of nodes")]
    PodsOnUnits,
}

/// A cluster to replay on.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    /// The configuration, its scheduling as the file has it.
    pub(super) config: Config,
    /// The nodes, in the order in which they join.
    pub(super) nodes: Vec<(NodeName, Inventory)>,
    /// Nodes are not looked at: it has so many units.
    pub(super) units: bool,
    /// As a report names it.
    pub(super) title: String,
    /// Lines of a node list that were not understood.
    pub(super) broken: usize,
    /// What the slices of its GPUs can be; empty: they are whole.
    pub(super) profiles: Vec<MigProfile>,
}

impl Machine {
    /// Reads what `--cluster` names.
    ///
    /// # Errors
    /// If the file is wrong, or says too little of its nodes.
    pub(super) fn load(target: &Target) -> Result<Self, MachineError> {
        match target {
            Target::Units(count) => Ok(Self::of_units(*count)),
            Target::File(path) => match std::fs::read_to_string(path) {
                Ok(text) if is_node_list(&text) => Self::of_list(path),
                // The parser says what is wrong with it, and whether it is there.
                Ok(_) | Err(_) => Self::of_file(path, &ClusterFile::read(path)?),
            },
        }
    }

    fn of_units(count: u32) -> Self {
        let name = NodeName::new("units").expect("it has only letters");
        Self {
            config: config(Scheduling::default(), vec![open_partition()]),
            nodes: vec![(name, inventory(count, Mib(0), Vec::new(), &[]))],
            units: true,
            title: format!("{count} units"),
            broken: 0,
            profiles: Vec::new(),
        }
    }

    fn of_list(path: &Path) -> Result<Self, MachineError> {
        let (lines, broken) = read_nodes(path)?;
        let nodes = lines.iter().map(|line| of_line(path, line)).collect::<Result<Vec<_>, _>>()?;
        let title = format!("{} nodes of {}", nodes.len(), path.display());
        let mut config = config(Scheduling::default(), vec![open_partition()]);
        let profiles = cut_profiles(&lines)
            .map_err(|why| MachineError::Name { path: path.to_owned(), why })?;
        let dynamic = lines.iter().zip(&nodes).filter(|(line, _)| line.mig == mig::DYNAMIC);
        let dynamic: Vec<NodeName> = dynamic.map(|(_, (name, _))| name.clone()).collect();
        if !dynamic.is_empty() {
            config.mig.dynamic = DynamicNodes::Named(dynamic);
        }
        Ok(Self { config, nodes, units: false, title, broken, profiles })
    }

    fn of_file(path: &Path, file: &ClusterFile) -> Result<Self, MachineError> {
        let read = core_config(file);
        let undescribed = |what: String| MachineError::Undescribed { path: path.to_owned(), what };
        if read.nodes.is_empty() {
            return Err(undescribed("nodes there are".to_owned()));
        }
        if !read.partitions.iter().any(|partition| partition.is_default) {
            return Err(MachineError::NoDefault { path: path.to_owned() });
        }
        let mut nodes = Vec::with_capacity(read.nodes.len());
        for node in &read.nodes {
            let Some(cpus) = node.cpus else {
                return Err(undescribed(format!("CPUs node {} has", node.name)));
            };
            let memory = node.memory.unwrap_or_default();
            let features: Vec<&str> = node.features.iter().map(|text| &**text).collect();
            nodes.push((node.name.clone(), inventory(cpus, memory, node.gres.clone(), &features)));
        }
        let title = format!("cluster {}, {} nodes", read.cluster, nodes.len());
        let config = Config { nodes: read.nodes, ..config(read.scheduling, read.partitions) };
        Ok(Self { config, nodes, units: false, title, broken: 0, profiles: Vec::new() })
    }

    /// Size in units of one kind.
    pub(super) fn capacity(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Gpu if !self.profiles.is_empty() => {
                let each = self.profiles.iter().map(|profile| profile.compute).max().unwrap_or(1);
                let gpus = self.nodes.iter().map(|(_, have)| have.gpus.len() as u64);
                gpus.sum::<u64>() * u64::from(each)
            }
            Unit::Gpu if !self.units => self.nodes.iter().map(|(_, have)| gpus_of(have)).sum(),
            Unit::Cpu | Unit::Gpu => self.nodes.iter().map(|(_, have)| u64::from(have.cpus)).sum(),
        }
    }

    /// Gives the pods of a trace slices, where GPUs are cut; those that name a profile which there is none
    /// of are skipped.
    pub(super) fn cut(&self, raw: &mut Raw) {
        if self.profiles.is_empty() {
            return;
        }
        let records = std::mem::take(&mut raw.records);
        for mut record in records {
            if let Ask::Pod(pod) = &mut record.ask
                && pod.gpus > 0
            {
                let part = if pod.gpus == 1 { pod.part } else { 0 };
                let fits = mig::profile_for(&self.profiles, part);
                if pod.profile.is_empty() {
                    pod.profile = fits.map_or_else(String::new, |profile| profile.name.to_string());
                }
                let compute = mig::compute_of(&self.profiles, &pod.profile);
                if compute == 0 {
                    raw.skip(record.line, format!("profile {:?} is none there", pod.profile));
                    continue;
                }
                pod.slices = pod.gpus.saturating_mul(i64::from(compute));
            }
            raw.records.push(record);
        }
        raw.fractions = 0;
    }

    /// What a job asks of this cluster.
    pub(super) fn spec(&self, job: &Job) -> JobSpec {
        let shape = match &job.ask {
            Ask::Processors(count) => tasks(*count),
            Ask::Gpus(count) if self.units => tasks(*count),
            Ask::Gpus(count) => self.gpu_shape(u64::try_from(*count).unwrap_or(0)),
            Ask::Pod(pod) => pod_shape(pod),
        };
        let known =
            self.config.partitions.iter().find(|known| known.name.as_str() == job.partition);
        let secs = |secs: i64| Walltime::Limited(u64::try_from(secs).unwrap_or(0));
        JobSpec {
            name: "".into(),
            account: "".into(),
            qos: "".into(),
            partitions: known.map(|partition| partition.name.clone()).into_iter().collect(),
            shape: Arc::new(shape),
            time_limit: Some(job.request.map_or(Walltime::Unlimited, secs)),
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
            details: Arc::new(Details::default()),
        }
    }

    /// GPUs on as few nodes as have them, as many on each.
    fn gpu_shape(&self, gpus: u64) -> Shape {
        let most = self.most_gpus().max(1);
        let nodes = gpus.div_ceil(most).max(1);
        let each = GresRequest { name: GresName::gpu(), count: gpus.div_ceil(nodes) };
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        Shape {
            nodes_min: nodes,
            nodes_max: nodes,
            ntasks: Some(nodes),
            cpus_per_task: Some(1),
            memory: MemoryRequest::PerNode(Mib(0)),
            gres_per_node: [each].into(),
            ..Shape::default()
        }
    }

    /// The most GPUs of one node.
    pub(super) fn most_gpus(&self) -> u64 {
        self.nodes.iter().map(|(_, have)| gpus_of(have)).max().unwrap_or(0)
    }
}

/// GPUs of a node.
fn gpus_of(have: &Inventory) -> u64 {
    have.gres.iter().filter(|gres| gres.name.name() == "gpu").map(|gres| gres.count).sum()
}

/// Processors, wherever they are; a trace's memory is not looked at.
fn tasks(count: i64) -> Shape {
    Shape {
        ntasks: Some(u32::try_from(count).unwrap_or(u32::MAX)),
        cpus_per_task: Some(1),
        memory: MemoryRequest::PerNode(Mib(0)),
        ..Shape::default()
    }
}

fn pod_shape(pod: &Pod) -> Shape {
    let count = u64::try_from(pod.gpus).unwrap_or(0);
    let kind = Some(pod.profile.as_str()).filter(|profile| !profile.is_empty());
    let name = GresName::new("gpu", kind).unwrap_or_else(|_| GresName::gpu());
    let gres = (count > 0).then_some(GresRequest { name, count });
    Shape {
        nodes_min: 1,
        nodes_max: 1,
        ntasks: Some(1),
        cpus_per_task: Some(u32::try_from(pod.cpus).unwrap_or(u32::MAX)),
        memory: MemoryRequest::PerNode(Mib(pod.memory)),
        gres_per_node: gres.into_iter().collect(),
        // The reader let through only what can be a feature.
        constraint: Constraint::parse(&pod.models.join("|")).unwrap_or_default(),
        ..Shape::default()
    }
}

fn of_line(path: &Path, line: &NodeLine) -> Result<(NodeName, Inventory), MachineError> {
    let wrong = |why: String| MachineError::Name { path: path.to_owned(), why };
    let name = NodeName::new(&line.name).map_err(|error| wrong(error.to_string()))?;
    let mut gres = Vec::new();
    let mut gpus = Vec::new();
    if !line.mig.is_empty() {
        gpus = mig::gpus(&line.model, line.gpus, &line.mig)
            .map_err(|why| wrong(format!("node {}: {why}", line.name)))?;
        gres = mig::counts(&gpus);
    } else if line.gpus > 0 {
        let model = line.model.to_ascii_lowercase();
        let text = if model.is_empty() {
            format!("gpu:{}", line.gpus)
        } else {
            format!("gpu:{model}:{}", line.gpus)
        };
        gres = parse_gres_list(&text).map_err(|error| wrong(error.to_string()))?;
    }
    let features: Vec<&str> =
        Some(line.model.as_str()).filter(|m| !m.is_empty()).into_iter().collect();
    let plain = inventory(line.cpus, Mib(line.memory), gres, &features);
    Ok((name, Inventory { gpus: gpus.into(), ..plain }))
}

/// What the slices of a list's GPUs can be; none: they are whole.
fn cut_profiles(lines: &[NodeLine]) -> Result<Vec<MigProfile>, String> {
    let mut with_gpus = lines.iter().filter(|line| line.gpus > 0);
    let Some(first) = with_gpus.clone().find(|line| !line.mig.is_empty()) else {
        return Ok(Vec::new());
    };
    if let Some(other) = with_gpus.find(|line| line.mig.is_empty() || line.model != first.model) {
        return Err(format!(
            "node {}: where GPUs are cut, all must be, and of one model: node {} has {:?} with mig {:?}",
            other.name, first.name, first.model, first.mig
        ));
    }
    mig::profiles(&first.model)
}

fn inventory(cpus: u32, memory: Mib, gres: Vec<GresRequest>, features: &[&str]) -> Inventory {
    Inventory {
        cpus,
        sockets: 1,
        cores_per_socket: cpus,
        threads_per_core: 1,
        memory,
        gres: gres.into(),
        features: features.iter().map(|text| Box::from(*text)).collect(),
        boot_id: "replay".into(),
        ..Inventory::default()
    }
}

fn open_partition() -> Partition {
    let name = PartitionName::new(PARTITION).expect("it has only letters");
    Partition { is_default: true, ..Partition::new(name) }
}

/// A configuration under which ended jobs can be forgotten at once.
fn config(scheduling: Scheduling, partitions: Vec<Partition>) -> Config {
    let policy = Policy { min_job_age_secs: 0, max_jobs: u32::MAX, ..Policy::default() };
    Config { cluster: "replay".into(), policy, scheduling, partitions, ..Config::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_files_are_told_apart() {
        assert_eq!("units:128".parse(), Ok(Target::Units(128)));
        assert_eq!("c.toml".parse(), Ok(Target::File(PathBuf::from("c.toml"))));
        for text in ["units:0", "units:", "units:x", "units:-1", "units:10000001"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    fn load(text: &str) -> Result<Machine, MachineError> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("cluster");
        std::fs::write(&path, text).expect("written");
        Machine::load(&Target::File(path))
    }

    #[test]
    fn cluster_file_gives_nodes_and_partitions() {
        let machine = load(
            "[[partition]]\nname = \"a\"\n[[node]]\nname = \"n[1-3]\"\ncpus = 16\n\
             gres = [\"gpu:h100:8\"]\n",
        );
        let machine = machine.expect("it is complete");
        assert_eq!((machine.capacity(Unit::Cpu), machine.capacity(Unit::Gpu)), (48, 24));
        assert_eq!(machine.config.partitions.len(), 1);
        assert_eq!(machine.gpu_shape(12).gres_per_node[0].count, 6);
        assert_eq!(machine.gpu_shape(12).nodes_min, 2);
    }

    #[test]
    fn file_that_says_too_little_is_refused() {
        for (text, expect) in [
            ("[[partition]]\nname = \"a\"\n", "what nodes there are"),
            ("[[partition]]\nname = \"a\"\n[[node]]\nname = \"n1\"\n", "what CPUs node n1 has"),
            (
                "[[partition]]\nname = \"a\"\n[[partition]]\nname = \"b\"\n[[node]]\n\
                 name = \"n1\"\ncpus = 1\n",
                "no partition is the default",
            ),
            ("nonsense", "not TOML"),
        ] {
            let error = load(text).expect_err("an error").to_string();
            assert!(error.contains(expect), "{error}");
        }
        assert!(Machine::load(&Target::File(PathBuf::from("/nonexistent"))).is_err());
    }

    #[test]
    fn list_of_nodes_gives_gpus_and_features() {
        let machine = load("sn,cpu_milli,memory_mib,gpu,model\nn-0,96000,393216,8,V100\n");
        let machine = machine.expect("a machine");
        assert_eq!((machine.capacity(Unit::Cpu), machine.capacity(Unit::Gpu)), (96, 8));
        assert_eq!(machine.nodes[0].1.features, [Box::from("V100")].into());
    }
}
