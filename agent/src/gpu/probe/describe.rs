//! What is a GPU, and how is it cut?

use std::collections::BTreeMap;
use std::path::Path;

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;
use penstock_proto::v1;

use super::library::{Library, words};
use crate::gpu::{files, naming};
use crate::sys::nvml;

/// Most NVLinks of a GPU.
const MAX_LINKS: u32 = 18;

/// Most numbers of NVML's enumeration of profiles; a driver ends it earlier.
const MAX_PROFILES: u32 = 64;

/// Most CPUs that an affinity may name.
const MAX_CPUS: usize = 4096;

/// Field of the recovery action, of recent drivers only.
const RECOVERY_ACTION: u32 = 230;

/// Field that tells that a replacement of memory failed.
const REMAP_FAILURE: u32 = 145;

/// The other end of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Far {
    /// A GPU, by its address.
    Gpu(String),
    Switch,
}

/// A GPU and what of it concerns others.
pub(super) struct Described {
    pub(super) gpu: v1::Gpu,
    pub(super) far: Vec<Far>,
    /// Common ancestor with each other GPU, by index.
    pub(super) ancestors: BTreeMap<u32, u32>,
}

/// Looks at one GPU of `count`.
pub(super) fn describe(library: &Library, index: u32, count: u32, dir: &Path) -> Described {
    let device = match library.nvml.device_by_index(index) {
        Ok(device) => device,
        Err(error) => return fault(index, words(&error)),
    };
    match whole(library, &device, index, dir) {
        Ok(gpu) => Described {
            far: far(library, &device),
            ancestors: ancestors(library, &device, index, count),
            gpu,
        },
        Err(error) => fault(index, words(&error)),
    }
}

/// A GPU of which nothing is known but that something is wrong.
pub(super) fn fault(index: u32, fault: String) -> Described {
    let gpu = v1::Gpu { index, fault, ..v1::Gpu::default() };
    Described { gpu, far: Vec::new(), ancestors: BTreeMap::new() }
}

fn whole(
    library: &Library,
    device: &Device<'_>,
    index: u32,
    dir: &Path,
) -> Result<v1::Gpu, NvmlError> {
    let minor = library.known(device.minor_number()).unwrap_or(index);
    let model = device.name()?;
    let pci = naming::bdf(&device.pci_info()?.bus_id);
    let mode = library.known(device.mig_mode());
    let mut gpu = v1::Gpu {
        index,
        minor,
        uuid: device.uuid()?,
        r#type: naming::gres_type(&model),
        model,
        memory_mib: memory(library, device).map_or(0, |(total, _)| total >> 20),
        numa: library.known(device.numa_node_id()).or_else(|| numa(&pci)),
        pci,
        cpu_ranges: cpus(library, device),
        mig: mode.as_ref().map_or(v1::MigMode::Unspecified, |mode| mig(mode.current)).into(),
        device_files: files::of_gpu(dir, minor),
        fault: health(library, device),
        fake: library.fake,
        vendor: "nvidia".to_owned(),
        ..v1::Gpu::default()
    };
    if let Some(mode) = mode {
        let numbers = profiles(library, device);
        if mode.current == 1 {
            gpu.slices = slices(library, device, minor, &numbers, dir)?;
        }
        gpu.profiles = numbers;
    }
    Ok(gpu)
}

const fn mig(mode: u32) -> v1::MigMode {
    if mode == 1 { v1::MigMode::On } else { v1::MigMode::Off }
}

/// Total and used memory, bytes.
pub(super) fn memory(library: &Library, device: &Device<'_>) -> Option<(u64, u64)> {
    let newer = library.known(device.memory_info()).map(|memory| (memory.total, memory.used));
    newer.or_else(|| nvml::memory_before_v2(library.nvml, device).ok())
}

fn numa(pci: &str) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/sys/bus/pci/devices/{pci}/numa_node")).ok()?;
    // -1 is what a machine without NUMA says.
    text.trim().parse().ok()
}

/// Real CPUs near a GPU, as inclusive ranges.
fn cpus(library: &Library, device: &Device<'_>) -> Vec<u32> {
    let bits = std::ffi::c_ulong::BITS as usize;
    let words = library.known(device.cpu_affinity(MAX_CPUS / bits)).unwrap_or_default();
    let mut ranges: Vec<u32> = Vec::new();
    let near = |cpu: usize| words.get(cpu / bits).is_some_and(|word| word >> (cpu % bits) & 1 == 1);
    for cpu in (0..MAX_CPUS).filter(|cpu| near(*cpu)) {
        let cpu = u32::try_from(cpu).unwrap_or(u32::MAX);
        match ranges.last_mut() {
            Some(last) if *last + 1 == cpu => *last = cpu,
            _ => ranges.extend([cpu, cpu]),
        }
    }
    ranges
}

/// What makes a GPU that answers unfit for work; empty: nothing.
fn health(library: &Library, device: &Device<'_>) -> String {
    match field(library, device, RECOVERY_ACTION) {
        Some(1) => "needs a reset".to_owned(),
        Some(2 | 7) => "its node needs a reboot".to_owned(),
        Some(4) => "needs a reset when its jobs have ended".to_owned(),
        _ if field(library, device, REMAP_FAILURE) == Some(1) => {
            "memory could not be replaced; the board must be exchanged".to_owned()
        }
        _ => String::new(),
    }
}

/// The value of a field that is a whole number.
pub(super) fn field(library: &Library, device: &Device<'_>, id: u32) -> Option<u64> {
    use nvml_wrapper::enums::device::SampleValue;
    use nvml_wrapper::structs::device::FieldId;

    let values = library.known(device.field_values_for(&[FieldId(id)]))?;
    match values.into_iter().next()?.ok()?.value.ok()? {
        SampleValue::U32(value) => Some(value.into()),
        SampleValue::U64(value) => Some(value),
        SampleValue::I64(value) => u64::try_from(value).ok(),
        SampleValue::F64(_) => None,
    }
}

/// Where its NVLinks end.
fn far(library: &Library, device: &Device<'_>) -> Vec<Far> {
    let mut ends = Vec::new();
    for number in 0..MAX_LINKS {
        let link = device.link_wrapper_for(number);
        match link.is_active() {
            Ok(true) => {}
            // A GPU without NVLink says so at the first.
            Err(_) => break,
            Ok(false) => continue,
        }
        let switch = library.known(nvml::ends_at_switch(library.nvml, device, number));
        if switch == Some(true) {
            ends.push(Far::Switch);
        } else if let Some(pci) = library.known(link.remote_pci_info()) {
            ends.push(Far::Gpu(naming::bdf(&pci.bus_id)));
        }
    }
    ends
}

fn ancestors(library: &Library, device: &Device<'_>, index: u32, count: u32) -> BTreeMap<u32, u32> {
    let mut levels = BTreeMap::new();
    for peer in (0..count).filter(|peer| *peer != index) {
        let Ok(other) = library.nvml.device_by_index(peer) else { continue };
        let level = nvml::common_ancestor(library.nvml, device, &other);
        if let Some(level) = library.known(level) {
            levels.insert(peer, level);
        }
    }
    levels
}

/// Ties the GPUs of a node together: who is linked to whom.
pub(super) fn tie(all: Vec<Described>) -> Vec<v1::Gpu> {
    let count = |ends: &[Far], wanted: &Far| {
        u32::try_from(ends.iter().filter(|end| *end == wanted).count()).unwrap_or(0)
    };
    let links = |one: &Described, two: &Described| {
        let direct = count(&one.far, &Far::Gpu(two.gpu.pci.clone()));
        // All that hang on switches reach each other through them.
        let switched = count(&one.far, &Far::Switch).min(count(&two.far, &Far::Switch));
        let ancestor = one.ancestors.get(&two.gpu.index).copied();
        let nvlinks = direct + switched;
        let known = ancestor.is_some() || nvlinks > 0;
        let ancestor = ancestor.unwrap_or(50);
        known.then_some(v1::GpuLink { peer: two.gpu.index, nvlinks, ancestor })
    };
    let of = |one: &Described| {
        let others = all.iter().filter(|two| two.gpu.index != one.gpu.index);
        others.filter_map(|two| links(one, two)).collect::<Vec<_>>()
    };
    let tied: Vec<_> = all.iter().map(of).collect();
    all.into_iter().zip(tied).map(|(one, links)| v1::Gpu { links, ..one.gpu }).collect()
}

/// Every profile that a GPU can have.
fn profiles(library: &Library, device: &Device<'_>) -> Vec<v1::MigProfile> {
    let mut all = Vec::new();
    for number in 0..MAX_PROFILES {
        let profile = match nvml::profile(library.nvml, device, number) {
            Ok(profile) => profile,
            Err(NvmlError::NotSupported) => continue,
            Err(error) => {
                // The end of the enumeration, or a driver that has none.
                let _noted: Option<()> = library.known(Err(error));
                break;
            }
        };
        let places = nvml::placements(library.nvml, device, profile.id);
        let Some((starts, size)) = library.known(places) else { continue };
        let made_up = || naming::profile_name(number, profile.compute, profile.memory_mib);
        let name = nvml::profile_name(library.nvml, device, number);
        all.push(v1::MigProfile {
            name: library.known(name).unwrap_or_else(made_up),
            id: profile.id,
            size,
            starts,
            memory_mib: profile.memory_mib,
            compute_slices: profile.compute,
            most: profile.most,
        });
    }
    all
}

/// Every MIG device, in the order of its place.
fn slices(
    library: &Library,
    device: &Device<'_>,
    minor: u32,
    profiles: &[v1::MigProfile],
    dir: &Path,
) -> Result<Vec<v1::MigSlice>, NvmlError> {
    let mut slices = Vec::new();
    for number in 0..device.mig_device_count()? {
        let part = match device.mig_device_by_index(number) {
            Ok(part) => part,
            // Handles have holes: the next may be there.
            Err(NvmlError::NotFound) => continue,
            Err(error) => return Err(error),
        };
        slices.push(slice(library, (device, &part), minor, profiles, dir)?);
    }
    slices.sort_by_key(|slice| (slice.start, slice.ci));
    Ok(slices)
}

/// One MIG device.
pub(super) fn slice(
    library: &Library,
    (device, part): (&Device<'_>, &Device<'_>),
    minor: u32,
    profiles: &[v1::MigProfile],
    dir: &Path,
) -> Result<v1::MigSlice, NvmlError> {
    let (gi, ci) = nvml::instance_ids(library.nvml, part)?;
    let instance = nvml::instance_by_id(library.nvml, device, gi)?;
    let profile = profiles.iter().find(|profile| profile.id == instance.profile);
    let attributes = library.known(part.attributes());
    let mut name = profile.map_or_else(String::new, |profile| profile.name.clone());
    if let (Some(profile), Some(has)) = (profile, &attributes) {
        let compute = has.compute_instance_slice_count;
        if compute != 0 && compute < profile.compute_slices {
            // A part of an instance, as NVIDIA writes it.
            name = format!("{compute}c.{name}");
        }
    }
    let memory = attributes.map(|has| has.memory_size_mb).or_else(|| profile.map(|p| p.memory_mib));
    Ok(v1::MigSlice {
        uuid: part.uuid()?,
        profile: name,
        gi,
        ci,
        start: instance.start,
        size: instance.size,
        memory_mib: memory.unwrap_or(0),
        device_files: files::of_slice(dir, minor, gi, ci),
    })
}
