//! Which devices are the units that a job was given?
//!
//! The controller gives units by number. A whole GPU is number n of the GPUs of its type in the
//! order of their index; a slice is number n of the slices of its profile in the order of GPU and
//! first memory slice; a shard is on one of the whole GPUs, of which each has as many as another or
//! one more. Where nothing is known of a node's GPUs but the count in its file, the number is the
//! device's, as it is in Slurm.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use penstock_proto::v1;
use penstock_supervisor::AttemptKey;

use super::settings::{Accelerator, GpuSettings, Numbering};
use crate::launch::confine::{self, Rule};

/// What a job gets of the node's devices. Written into the intent of an attempt.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Grant {
    /// GPUs and slices, in the order of their number.
    #[prost(message, repeated, tag = "1")]
    units: Vec<GrantUnit>,
    /// Variables, as `NAME=VALUE`.
    #[prost(string, repeated, tag = "2")]
    variables: Vec<String>,
    /// Which device files may be opened; the first that fits counts, others may be.
    #[prost(message, repeated, tag = "3")]
    rules: Vec<Rule>,
    /// The node's GPUs are known one by one.
    #[prost(bool, tag = "4")]
    known_gpus: bool,
}

/// A GPU or a slice that a job gets.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct GrantUnit {
    /// Its number among all GPUs and slices of the node.
    #[prost(uint32, tag = "1")]
    pub(crate) number: u32,
    #[prost(string, tag = "2")]
    pub(crate) uuid: String,
    /// By what name it is told to CUDA.
    #[prost(string, tag = "3")]
    pub(crate) visible: String,
}

impl Grant {
    /// UUIDs of its GPUs and slices.
    pub(crate) fn uuids(&self) -> Vec<String> {
        self.units.iter().map(|unit| unit.uuid.clone()).collect()
    }

    /// Its GPUs and slices; `None`: this node knows its GPUs by their count alone.
    pub(crate) fn gpus(&self) -> Option<&[GrantUnit]> {
        self.known_gpus.then_some(&*self.units)
    }

    pub(crate) const fn knows_gpus(&self) -> bool {
        self.known_gpus
    }

    /// Variables that tell a batch script of them, as `NAME=VALUE`.
    pub(crate) fn variables(&self) -> &[String] {
        &self.variables
    }

    /// Which device files may be opened.
    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

/// Why a job does not get its devices, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GrantError {
    /// There is no such unit.
    #[error("{0}")]
    Absent(String),
    /// The slices that the launch names are others by now, since a GPU was cut meanwhile.
    #[error("{0}")]
    Changed(String),
}

/// The node's devices, shared by whoever learns of them and whoever gives them out.
#[derive(Debug, Clone, Default)]
pub struct Devices(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    settings: GpuSettings,
    declared: Vec<Accelerator>,
    gpus: Vec<v1::Gpu>,
    /// The node's counts, as the controller is told them.
    gres: Vec<v1::GresCount>,
    holders: BTreeMap<AttemptKey, Vec<String>>,
}

/// A GPU, or a slice of one.
#[derive(Debug, Clone, Copy)]
struct Unit<'a> {
    gpu: &'a v1::Gpu,
    slice: Option<&'a v1::MigSlice>,
    /// Its number among all GPUs and slices of the node.
    number: usize,
}

impl Unit<'_> {
    fn uuid(&self) -> &str {
        self.slice.map_or(&self.gpu.uuid, |slice| &slice.uuid)
    }

    fn kind(&self) -> &str {
        self.slice.map_or(&self.gpu.r#type, |slice| &slice.profile)
    }

    fn files(&self) -> impl Iterator<Item = &String> {
        let own = self.slice.map_or(&[][..], |slice| &slice.device_files);
        self.gpu.device_files.iter().chain(own)
    }
}

impl Devices {
    /// The devices of a node that declares these.
    #[must_use]
    pub fn new(settings: GpuSettings, declared: Vec<Accelerator>) -> Self {
        Self(Arc::new(Mutex::new(State { settings, declared, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns what the node has.
    pub(crate) fn learn(&self, gpus: Vec<v1::Gpu>, gres: Vec<v1::GresCount>) {
        let mut state = self.state();
        (state.gpus, state.gres) = (gpus, gres);
    }

    /// What `shares` are; they belong to `key` from now on, until it is released.
    ///
    /// # Errors
    /// When a unit does not exist here, or is another than the controller means: the layout changed since
    /// it was given.
    pub(crate) fn grant(
        &self,
        key: AttemptKey,
        shares: &[v1::GresShare],
    ) -> Result<Grant, GrantError> {
        let mut state = self.state();
        let grant = state.grant(shares)?;
        if !grant.units.is_empty() {
            state.holders.insert(key, grant.uuids());
        }
        Ok(grant)
    }

    /// An attempt of an earlier agent holds these.
    pub(crate) fn adopt(&self, key: AttemptKey, uuids: Vec<String>) {
        if !uuids.is_empty() {
            self.state().holders.insert(key, uuids);
        }
    }

    /// The attempt is over.
    pub(crate) fn release(&self, key: AttemptKey) {
        self.state().holders.remove(&key);
    }

    /// Whether an attempt here holds the GPU with this UUID, or shares it.
    pub(crate) fn is_held(&self, uuid: &str) -> bool {
        self.state().holders.values().flatten().any(|held| held == uuid)
    }

    /// Says in each sample whose GPU or slice it is.
    pub(crate) fn attribute(&self, samples: &mut [v1::GpuSample]) {
        let state = self.state();
        for sample in samples {
            let Some(gpu) = state.gpus.iter().find(|gpu| gpu.index == sample.gpu) else { continue };
            let uuid = match sample.gi {
                None => Some(gpu.uuid.as_str()),
                Some(gi) => {
                    let slice = gpu.slices.iter().find(|slice| slice.gi == gi);
                    slice.map(|slice| slice.uuid.as_str())
                }
            };
            let Some(uuid) = uuid else { continue };
            let mut holders = state.holders.iter();
            if let Some((key, _)) = holders.find(|(_, held)| held.iter().any(|had| had == uuid)) {
                (sample.job_id, sample.attempt) = (key.job.0, key.attempt.0);
            }
        }
    }

    /// Whether a job could be kept from device files at all.
    pub(crate) fn any(&self) -> bool {
        let state = self.state();
        !state.gpus.is_empty() || !state.declared.is_empty()
    }
}

impl State {
    fn units(&self) -> Vec<Unit<'_>> {
        let mut units = Vec::new();
        for gpu in &self.gpus {
            if gpu.mig() == v1::MigMode::On {
                let mut slices: Vec<&v1::MigSlice> = gpu.slices.iter().collect();
                slices.sort_by_key(|slice| slice.start);
                for slice in slices {
                    units.push(Unit { gpu, slice: Some(slice), number: units.len() });
                }
            } else {
                units.push(Unit { gpu, slice: None, number: units.len() });
            }
        }
        units
    }

    fn grant(&self, shares: &[v1::GresShare]) -> Result<Grant, GrantError> {
        let units = self.units();
        let mut own: Vec<Unit<'_>> = Vec::new();
        let mut grant = Grant::default();
        let mut files: BTreeSet<PathBuf> = BTreeSet::new();
        for share in shares {
            let of_type = |kind: &str| share.r#type.is_empty() || kind == share.r#type;
            match share.name.as_str() {
                "gpu" if !units.is_empty() => {
                    let all: Vec<_> = units.iter().filter(|unit| of_type(unit.kind())).collect();
                    for (at, id) in share.ids.iter().enumerate() {
                        let unit = all.get(*id as usize).ok_or_else(|| absent(share, *id))?;
                        if let Some(meant) = share.slices.get(at) {
                            same_slice(unit, meant, share, *id)?;
                        }
                        own.push(**unit);
                    }
                }
                "shard" if !units.is_empty() => {
                    let whole = |unit: &&Unit<'_>| unit.slice.is_none() && of_type(unit.kind());
                    let all: Vec<_> = units.iter().filter(whole).collect();
                    let count = self.count(share);
                    for id in &share.ids {
                        let at = shard_gpu(count, all.len() as u64, u64::from(*id));
                        let at = at.and_then(|at| usize::try_from(at).ok());
                        let unit =
                            at.and_then(|at| all.get(at)).ok_or_else(|| absent(share, *id))?;
                        if own.iter().all(|had| had.number != unit.number) {
                            own.push(**unit);
                        }
                    }
                }
                _ => self.grant_declared(share, &mut grant, &mut files)?,
            }
        }
        own.sort_by_key(|unit| unit.number);
        files.extend(own.iter().flat_map(Unit::files).map(PathBuf::from));
        grant.known_gpus = !units.is_empty();
        let cut = own.iter().any(|unit| unit.slice.is_some());
        let by_index = self.settings.numbering == Numbering::Index && !cut;
        grant.units = own.iter().map(|unit| granted(unit, by_index)).collect();
        grant.variables.extend(variables(&grant.units));
        grant.rules = self.rules(&files);
        Ok(grant)
    }

    fn count(&self, share: &v1::GresShare) -> u64 {
        let same = |have: &&v1::GresCount| have.name == share.name && have.r#type == share.r#type;
        self.gres.iter().find(same).map_or(0, |have| have.count)
    }

    fn grant_declared(
        &self,
        share: &v1::GresShare,
        grant: &mut Grant,
        files: &mut BTreeSet<PathBuf>,
    ) -> Result<(), GrantError> {
        let mut declared = self.declared.iter().filter(|accelerator| {
            let kind = accelerator.name.kind().unwrap_or_default();
            accelerator.name.name() == share.name
                && (share.r#type.is_empty() || kind == share.r#type)
        });
        // A plain count has no devices.
        let Some(accelerator) = declared.next() else { return Ok(()) };
        for id in &share.ids {
            let file = accelerator.files.get(*id as usize).ok_or_else(|| absent(share, *id))?;
            files.insert(file.clone());
        }
        files.extend(accelerator.common.iter().cloned());
        if !accelerator.variable.is_empty() {
            let ids: Vec<String> = share.ids.iter().map(u32::to_string).collect();
            grant.variables.push(format!("{}={}", accelerator.variable, ids.join(",")));
        }
        Ok(())
    }

    /// What a job may open that has `own`: of the node's devices these alone.
    fn rules(&self, own: &BTreeSet<PathBuf>) -> Vec<Rule> {
        let mut all: BTreeSet<PathBuf> = BTreeSet::new();
        for gpu in &self.gpus {
            // The first file is the GPU's own, the others are common to all.
            all.extend(gpu.device_files.first().map(PathBuf::from));
            all.extend(gpu.slices.iter().flat_map(|slice| &slice.device_files).map(PathBuf::from));
        }
        all.extend(self.declared.iter().flat_map(|accelerator| accelerator.files.iter().cloned()));
        let real = self.gpus.iter().any(|gpu| !gpu.fake);
        confine::rules(own, &all, real.then_some(self.settings.device_dir.as_path()))
    }
}

/// A unit as it is given; an index cannot choose among slices.
fn granted(unit: &Unit<'_>, by_index: bool) -> GrantUnit {
    let (number, uuid) = (u32::try_from(unit.number).unwrap_or(u32::MAX), unit.uuid().to_owned());
    let visible = if by_index { number.to_string() } else { uuid.clone() };
    GrantUnit { number, uuid, visible }
}

/// The variables of a job with these GPUs and slices, as Slurm names them; what names devices to
/// CUDA does so by UUID, unless the file wants Slurm's numbers.
fn variables(units: &[GrantUnit]) -> Vec<String> {
    if units.is_empty() {
        return Vec::new();
    }
    let join = |words: Vec<String>| words.join(",");
    let numbers = join(units.iter().map(|unit| unit.number.to_string()).collect());
    let visible = join(units.iter().map(|unit| unit.visible.clone()).collect());
    [
        ("CUDA_VISIBLE_DEVICES", &visible),
        ("NVIDIA_VISIBLE_DEVICES", &visible),
        ("GPU_DEVICE_ORDINAL", &numbers),
        ("SLURM_JOB_GPUS", &numbers),
        ("SLURM_GPUS_ON_NODE", &units.len().to_string()),
    ]
    .map(|(name, value)| format!("{name}={value}"))
    .to_vec()
}

fn absent(share: &v1::GresShare, id: u32) -> GrantError {
    let kind = if share.r#type.is_empty() { "" } else { ":" };
    let name = format!("{}{kind}{}", share.name, share.r#type);
    let text =
        format!("this node has no unit {id} of {name} now: its devices changed since it was given");
    if share.slices.is_empty() { GrantError::Absent(text) } else { GrantError::Changed(text) }
}

/// `Err`: the unit is another than the controller meant, for people.
fn same_slice(
    unit: &Unit<'_>,
    meant: &v1::GresSlice,
    share: &v1::GresShare,
    id: u32,
) -> Result<(), GrantError> {
    let uuid = unit.slice.map_or("", |slice| &slice.uuid);
    let name = format!("unit {id} of {}:{}", share.name, share.r#type);
    if uuid != meant.uuid {
        let named = |uuid: &str| {
            if uuid.is_empty() { "a whole GPU".to_owned() } else { uuid.to_owned() }
        };
        let (is, meant) = (named(uuid), named(&meant.uuid));
        let text = format!("{name} is {is} now and not {meant}: its GPU was cut anew");
        return Err(GrantError::Changed(text));
    }
    let (is, meant) = (unit.gpu.generation, meant.generation);
    if meant != 0 && unit.slice.is_some() && is != meant {
        let gpu = unit.gpu.index;
        return Err(GrantError::Changed(format!(
            "{name} is on GPU {gpu}, whose layout is of generation {is} now and not {meant}"
        )));
    }
    Ok(())
}

/// Which of `gpus` GPUs shard `id` of `all` is on.
fn shard_gpu(all: u64, gpus: u64, id: u64) -> Option<u64> {
    if gpus == 0 || id >= all {
        return None;
    }
    let (each, more) = (all / gpus, all % gpus);
    let large = more * (each + 1);
    Some(if id < large { id / (each + 1) } else { more + (id - large) / each.max(1) })
}

#[cfg(test)]
mod tests {
    use penstock_vocab::{Attempt, JobId};

    use super::*;

    fn slice(gpu: u32, profile: &str, start: u32) -> v1::MigSlice {
        v1::MigSlice {
            uuid: format!("MIG-{gpu}-{start}"),
            profile: profile.to_owned(),
            gi: start + 7,
            start,
            size: 1,
            ..v1::MigSlice::default()
        }
    }

    fn devices(numbering: Numbering) -> Devices {
        let whole = |index: u32| v1::Gpu {
            index,
            uuid: format!("GPU-{index}"),
            r#type: "h100".to_owned(),
            ..v1::Gpu::default()
        };
        let slices = vec![slice(1, "1g.10gb", 2), slice(1, "2g.20gb", 4), slice(1, "1g.10gb", 0)];
        let cut = v1::Gpu { mig: v1::MigMode::On.into(), slices, ..whole(1) };
        let npu = Accelerator {
            name: "npu:910b".parse().unwrap(),
            files: vec!["/dev/npu0".into(), "/dev/npu1".into()],
            common: Vec::new(),
            variable: "NPU_VISIBLE".to_owned(),
        };
        let settings = GpuSettings { numbering, ..GpuSettings::default() };
        let devices = Devices::new(settings, vec![npu]);
        let shards = v1::GresCount { name: "shard".to_owned(), r#type: String::new(), count: 5 };
        devices.learn(vec![whole(0), cut, whole(2)], vec![shards]);
        devices
    }

    fn share(name: &str, kind: &str, ids: &[u32]) -> v1::GresShare {
        let (name, r#type, ids) = (name.to_owned(), kind.to_owned(), ids.to_vec());
        v1::GresShare { name, r#type, ids, ..v1::GresShare::default() }
    }

    fn key() -> AttemptKey {
        AttemptKey::new(JobId(1), Attempt(0))
    }

    #[test]
    fn units_are_devices_by_the_order_of_their_type() {
        let devices = devices(Numbering::Uuid);
        let uuids =
            |shares: &[v1::GresShare]| devices.grant(key(), shares).map(|g| g.uuids().join(","));
        for (shares, expect) in [
            (vec![share("gpu", "h100", &[1])], "GPU-2"),
            (vec![share("gpu", "h100", &[0, 1])], "GPU-0,GPU-2"),
            (vec![share("gpu", "1g.10gb", &[0])], "MIG-1-0"),
            (vec![share("gpu", "1g.10gb", &[1])], "MIG-1-2"),
            (vec![share("gpu", "2g.20gb", &[0]), share("gpu", "h100", &[0])], "GPU-0,MIG-1-4"),
            (vec![share("shard", "", &[2])], "GPU-0"),
            (vec![share("shard", "", &[3, 4])], "GPU-2"),
            (vec![share("npu", "910b", &[1])], ""),
            (vec![share("licence", "", &[])], ""),
        ] {
            assert_eq!(uuids(&shares).as_deref(), Ok(expect), "{shares:?}");
        }
        let error = uuids(&[share("gpu", "h100", &[2])]).unwrap_err();
        assert!(error.to_string().contains("no unit 2 of gpu:h100"), "{error}");
    }

    #[test]
    fn a_launch_whose_slices_are_others_by_now_is_refused() {
        let devices = devices(Numbering::Uuid);
        let grant = |ids: &[u32], slices: &[(&str, u64)]| {
            let slices = slices.iter();
            let slice = |(uuid, generation): &(&str, u64)| v1::GresSlice {
                uuid: (*uuid).to_owned(),
                generation: *generation,
            };
            let share = v1::GresShare {
                slices: slices.map(slice).collect(),
                ..share("gpu", "1g.10gb", ids)
            };
            devices.grant(key(), &[share]).map(|grant| grant.uuids().join(","))
        };
        // The layouts of the test are of generation 0, which names none.
        assert_eq!(grant(&[1], &[("MIG-1-2", 0)]).as_deref(), Ok("MIG-1-2"));
        for (ids, slices, text) in [
            (&[1][..], &[("MIG-1-2", 4)][..], "of generation 0 now and not 4"),
            (&[0], &[("MIG-1-2", 0)], "is MIG-1-0 now and not MIG-1-2"),
            (&[0, 1], &[("MIG-1-0", 0), ("", 0)], "is MIG-1-2 now and not a whole GPU"),
            (&[2], &[("MIG-1-4", 0)], "no unit 2 of gpu:1g.10gb"),
        ] {
            match grant(ids, slices) {
                Err(GrantError::Changed(error)) => assert!(error.contains(text), "{error}"),
                other => panic!("{slices:?} gave {other:?}"),
            }
        }
    }

    #[test]
    fn variables_name_devices_by_uuid_or_as_slurm_does() {
        let find = |numbering, shares: &[v1::GresShare]| {
            let grant = devices(numbering).grant(key(), shares).unwrap();
            move |name: &str| {
                let mut pairs = grant.variables.iter().filter_map(|entry| entry.split_once('='));
                pairs.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
            }
        };
        let two = [share("gpu", "h100", &[0, 1])];
        let of = find(Numbering::Uuid, &two);
        assert_eq!(of("CUDA_VISIBLE_DEVICES").as_deref(), Some("GPU-0,GPU-2"));
        assert_eq!(of("NVIDIA_VISIBLE_DEVICES").as_deref(), Some("GPU-0,GPU-2"));
        // Slices of the second GPU are numbers 1 to 3.
        assert_eq!(of("SLURM_JOB_GPUS").as_deref(), Some("0,4"));
        assert_eq!(of("SLURM_GPUS_ON_NODE").as_deref(), Some("2"));
        let of = find(Numbering::Index, &two);
        assert_eq!(of("CUDA_VISIBLE_DEVICES").as_deref(), Some("0,4"));
        let of = find(Numbering::Index, &[share("gpu", "1g.10gb", &[1])]);
        assert_eq!(of("CUDA_VISIBLE_DEVICES").as_deref(), Some("MIG-1-2"));
        assert_eq!(of("GPU_DEVICE_ORDINAL").as_deref(), Some("2"));
        let of = find(Numbering::Uuid, &[share("npu", "910b", &[1])]);
        assert_eq!(of("NPU_VISIBLE").as_deref(), Some("1"));
        assert_eq!(of("CUDA_VISIBLE_DEVICES"), None);
    }

    #[test]
    fn samples_name_the_job_that_holds_the_device() {
        let devices = devices(Numbering::Uuid);
        devices.grant(key(), &[share("gpu", "2g.20gb", &[0])]).unwrap();
        let sample = |gpu, gi| v1::GpuSample { gpu, gi, ..v1::GpuSample::default() };
        let mut samples =
            [sample(0, None), sample(1, None), sample(1, Some(11)), sample(1, Some(7))];
        devices.attribute(&mut samples);
        assert_eq!(samples.map(|sample| sample.job_id), [0, 0, 1, 0]);
        devices.release(key());
        let mut samples = [sample(1, Some(11))];
        devices.attribute(&mut samples);
        assert_eq!(samples[0].job_id, 0);
    }
}
