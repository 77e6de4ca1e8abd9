//! How are GPUs stored and sent?

use penstock_core::model::{
    Gpu, GpuDrain, GpuDrainEnd, GpuFault, GpuLink, GpuUsage, Gpus, IdleAction, IdleNote, MigMode,
    MigProfile, MigSlice, NewSlice, Reshape,
};
use penstock_core::refusal::{Malformed, Refusal};
use penstock_proto::v1;
use penstock_vocab::{GresRequest, MAX_GRES_LIST, Mib, NodeName, Timestamp, UserId};

use super::bounds::{MAX_NAME_BYTES, check_count, check_text, malformed};
use super::error::ConvertError;

/// Most GPUs of one node.
const MAX_GPUS: usize = 256;
/// Most memory slices of one GPU: they are bits of a mask.
const MAX_SLOTS: u32 = 8;
/// Most profiles of one GPU, and places of one profile.
const MAX_PROFILES: usize = 64;
/// Most ranges of CPUs near one GPU.
const MAX_RANGES: usize = 1_024;
/// Longest text of an event.
const MAX_FAULT_BYTES: usize = 256;
/// Most device files of one GPU or slice.
const MAX_FILES: usize = 16;

/// Checks what an agent says of its GPUs against every bound.
///
/// # Errors
/// With a sentence for the agent's log, if something is beyond a bound or contradicts itself.
pub fn check_gpus(gpus: &[v1::Gpu], error: &str) -> Result<(), Refusal> {
    check_text("why no GPU could be read", error, MAX_NAME_BYTES)?;
    check_count("GPUs", gpus.len(), MAX_GPUS)?;
    for pair in gpus.windows(2) {
        if pair[0].index >= pair[1].index {
            let detail = format!("GPU {} stands before {}", pair[0].index, pair[1].index);
            return Err(malformed(Malformed::Gres, detail));
        }
    }
    gpus.iter().try_for_each(check_gpu)
}

fn check_gpu(gpu: &v1::Gpu) -> Result<(), Refusal> {
    let texts = [&gpu.uuid, &gpu.r#type, &gpu.model, &gpu.pci, &gpu.fault, &gpu.vendor];
    let of_slices = gpu.slices.iter().flat_map(|slice| [&slice.uuid, &slice.profile]);
    let files = gpu.device_files.iter().chain(gpu.slices.iter().flat_map(|s| &s.device_files));
    let of_profiles = gpu.profiles.iter().map(|profile| &profile.name);
    let mut all = texts.into_iter().chain(of_slices).chain(files).chain(of_profiles);
    all.try_for_each(|text| check_text("a text of a GPU", text, MAX_NAME_BYTES))?;
    check_count("links of a GPU", gpu.links.len(), MAX_GPUS)?;
    check_count("slices of a GPU", gpu.slices.len(), MAX_SLOTS as usize)?;
    check_count("profiles of a GPU", gpu.profiles.len(), MAX_PROFILES)?;
    check_count("CPU ranges of a GPU", gpu.cpu_ranges.len(), 2 * MAX_RANGES)?;
    let slices = gpu.slices.iter().map(|slice| slice.device_files.len());
    let most = slices.chain([gpu.device_files.len()]).max().unwrap_or(0);
    check_count("device files of a GPU", most, MAX_FILES)?;
    let mut taken = 0u32;
    for slice in &gpu.slices {
        let fits = slice.size >= 1 && slice.start.saturating_add(slice.size) <= MAX_SLOTS;
        let mask = if fits { ((1u32 << slice.size) - 1) << slice.start } else { 0 };
        if !fits || taken & mask != 0 {
            let (index, start, size) = (gpu.index, slice.start, slice.size);
            let detail =
                format!("GPU {index}: a slice of {size} at {start} overlaps or is too large");
            return Err(malformed(Malformed::Gres, detail));
        }
        taken |= mask;
    }
    for profile in &gpu.profiles {
        check_count("places of a profile", profile.starts.len(), MAX_SLOTS as usize)?;
        let most = profile.starts.iter().copied().max().unwrap_or(0);
        if profile.size == 0 || most.saturating_add(profile.size) > MAX_SLOTS {
            let detail = format!("GPU {}: profile {} does not fit", gpu.index, profile.name);
            return Err(malformed(Malformed::Gres, detail));
        }
    }
    Ok(())
}

/// GPUs as the core has them.
#[must_use]
pub fn gpus_from_wire(gpus: Vec<v1::Gpu>) -> Gpus {
    gpus.into_iter().map(gpu_from_wire).collect()
}

/// Inverse of [`gpus_from_wire`].
#[must_use]
pub fn gpus_to_wire(gpus: &[Gpu]) -> Vec<v1::Gpu> {
    gpus.iter().map(gpu_to_wire).collect()
}

/// One GPU as the core has it.
#[must_use]
pub fn gpu_from_wire(gpu: v1::Gpu) -> Gpu {
    let mig = match v1::MigMode::try_from(gpu.mig) {
        Ok(v1::MigMode::On) => MigMode::On,
        Ok(v1::MigMode::Off) => MigMode::Off,
        Ok(v1::MigMode::Unspecified) | Err(_) => MigMode::None,
    };
    let link = |link: &v1::GpuLink| GpuLink {
        peer: link.peer,
        nvlinks: link.nvlinks,
        ancestor: link.ancestor,
    };
    Gpu {
        index: gpu.index,
        minor: gpu.minor,
        uuid: gpu.uuid.into(),
        kind: gpu.r#type.into(),
        model: gpu.model.into(),
        memory: Mib(gpu.memory_mib),
        pci: gpu.pci.into(),
        numa: gpu.numa,
        cpus: gpu.cpu_ranges.chunks_exact(2).map(|ends| (ends[0], ends[1])).collect(),
        links: gpu.links.iter().map(link).collect(),
        mig,
        slices: gpu.slices.into_iter().map(slice_from_wire).collect(),
        profiles: gpu.profiles.into_iter().map(profile_from_wire).collect(),
        generation: gpu.generation,
        fault: gpu.fault.into(),
        device_files: gpu.device_files.into_iter().map(Into::into).collect(),
        fake: gpu.fake,
        vendor: gpu.vendor.into(),
    }
}

/// Inverse of [`gpu_from_wire`].
#[must_use]
pub fn gpu_to_wire(gpu: &Gpu) -> v1::Gpu {
    let mig = match gpu.mig {
        MigMode::None => v1::MigMode::Unspecified,
        MigMode::Off => v1::MigMode::Off,
        MigMode::On => v1::MigMode::On,
    };
    let link = |link: &GpuLink| v1::GpuLink {
        peer: link.peer,
        nvlinks: link.nvlinks,
        ancestor: link.ancestor,
    };
    v1::Gpu {
        index: gpu.index,
        minor: gpu.minor,
        uuid: gpu.uuid.to_string(),
        r#type: gpu.kind.to_string(),
        model: gpu.model.to_string(),
        memory_mib: gpu.memory.0,
        pci: gpu.pci.to_string(),
        numa: gpu.numa,
        cpu_ranges: gpu.cpus.iter().flat_map(|(first, last)| [*first, *last]).collect(),
        links: gpu.links.iter().map(link).collect(),
        mig: mig as i32,
        slices: gpu.slices.iter().map(slice_to_wire).collect(),
        profiles: gpu.profiles.iter().map(profile_to_wire).collect(),
        generation: gpu.generation,
        fault: gpu.fault.to_string(),
        device_files: strings(&gpu.device_files),
        fake: gpu.fake,
        vendor: gpu.vendor.to_string(),
    }
}

fn slice_from_wire(slice: v1::MigSlice) -> MigSlice {
    MigSlice {
        uuid: slice.uuid.into(),
        profile: slice.profile.into(),
        gi: slice.gi,
        ci: slice.ci,
        start: slice.start,
        size: slice.size,
        memory: Mib(slice.memory_mib),
        device_files: slice.device_files.into_iter().map(Into::into).collect(),
    }
}

fn slice_to_wire(slice: &MigSlice) -> v1::MigSlice {
    v1::MigSlice {
        uuid: slice.uuid.to_string(),
        profile: slice.profile.to_string(),
        gi: slice.gi,
        ci: slice.ci,
        start: slice.start,
        size: slice.size,
        memory_mib: slice.memory.0,
        device_files: strings(&slice.device_files),
    }
}

fn profile_from_wire(profile: v1::MigProfile) -> MigProfile {
    MigProfile {
        name: profile.name.into(),
        id: profile.id,
        size: profile.size,
        starts: profile.starts.into(),
        memory: Mib(profile.memory_mib),
        compute: profile.compute_slices,
        most: profile.most,
    }
}

fn profile_to_wire(profile: &MigProfile) -> v1::MigProfile {
    v1::MigProfile {
        name: profile.name.to_string(),
        id: profile.id,
        size: profile.size,
        starts: profile.starts.to_vec(),
        memory_mib: profile.memory.0,
        compute_slices: profile.compute,
        most: profile.most,
    }
}

/// Why a GPU gets no new job, as the wire and the store have it.
#[must_use]
pub fn drain_to_wire(drain: &GpuDrain) -> v1::GpuDrain {
    let end = match drain.end {
        GpuDrainEnd::ByHand => v1::GpuDrainEnd::ByHand,
        GpuDrainEnd::Reported => v1::GpuDrainEnd::Reported,
        GpuDrainEnd::Boot => v1::GpuDrainEnd::Boot,
    };
    v1::GpuDrain {
        index: drain.index,
        uuid: drain.uuid.to_string(),
        reason: drain.reason.to_string(),
        by_uid: drain.by.map_or(0, |uid| uid.0),
        by_user: drain.by.is_some(),
        since_ms: drain.since.0,
        xid: drain.xid,
        end: end as i32,
        deadline_ms: drain.deadline.map_or(0, |at| at.0),
    }
}

/// Inverse of [`drain_to_wire`].
///
/// # Errors
/// If a word is of a newer version.
pub fn drain_from_wire(drain: v1::GpuDrain) -> Result<GpuDrain, ConvertError> {
    let end = match v1::GpuDrainEnd::try_from(drain.end) {
        Ok(v1::GpuDrainEnd::ByHand) => GpuDrainEnd::ByHand,
        Ok(v1::GpuDrainEnd::Reported) => GpuDrainEnd::Reported,
        Ok(v1::GpuDrainEnd::Boot) => GpuDrainEnd::Boot,
        Err(error) => return Err(ConvertError::invalid("what ends the drain of a GPU", error)),
    };
    Ok(GpuDrain {
        index: drain.index,
        uuid: drain.uuid.into(),
        reason: drain.reason.into(),
        by: drain.by_user.then_some(UserId(drain.by_uid)),
        since: Timestamp(drain.since_ms),
        xid: drain.xid,
        end,
        deadline: (drain.deadline_ms != 0).then_some(Timestamp(drain.deadline_ms)),
    })
}

fn strings(texts: &[Box<str>]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

/// The intent to cut a GPU, as the store has it.
#[must_use]
pub fn reshape_to_wire(reshape: &Reshape) -> v1::GpuReshape {
    v1::GpuReshape {
        gpu: reshape.gpu,
        uuid: reshape.uuid.to_string(),
        generation: reshape.generation,
        destroy: reshape.destroy.to_vec(),
        create: reshape.create.iter().map(new_slice).collect(),
        deadline_ms: reshape.deadline.0,
    }
}

/// Inverse of [`reshape_to_wire`].
#[must_use]
pub fn reshape_from_wire(reshape: v1::GpuReshape) -> Reshape {
    let slice = |slice: v1::NewSlice| NewSlice {
        profile: slice.profile.into(),
        id: slice.id,
        start: slice.start,
        size: slice.size,
    };
    Reshape {
        gpu: reshape.gpu,
        uuid: reshape.uuid.into(),
        generation: reshape.generation,
        destroy: reshape.destroy.into(),
        create: reshape.create.into_iter().map(slice).collect(),
        deadline: Timestamp(reshape.deadline_ms),
    }
}

/// The order to cut a GPU, as its node is told at `now`.
#[must_use]
pub fn reshape_order(reshape: &Reshape, now: Timestamp) -> v1::ReshapeGpu {
    let left = reshape.deadline.since(now).as_secs();
    v1::ReshapeGpu {
        gpu: reshape.gpu,
        uuid: reshape.uuid.to_string(),
        generation: reshape.generation,
        destroy: reshape.destroy.to_vec(),
        create: reshape.create.iter().map(new_slice).collect(),
        mode: v1::MigMode::Unspecified.into(),
        deadline_secs: u32::try_from(left).unwrap_or(u32::MAX),
    }
}

fn new_slice(slice: &NewSlice) -> v1::NewSlice {
    v1::NewSlice {
        profile: slice.profile.to_string(),
        id: slice.id,
        start: slice.start,
        size: slice.size,
    }
}

/// What an agent says of one GPU's layout: the GPU, and what the node has.
///
/// # Errors
/// If it is beyond a bound or contradicts itself.
pub fn layout_from_wire(layout: v1::GpuLayout) -> Result<(Gpu, Box<[GresRequest]>), Refusal> {
    let gpu = layout.gpu.unwrap_or_default();
    check_gpus(std::slice::from_ref(&gpu), &layout.error)?;
    check_count("generic resources", layout.gres.len(), MAX_GRES_LIST)?;
    let gres = super::spec::gres_list(&layout.gres)?;
    if let Some(large) = gres.iter().find(|gres| gres.count > super::node::MAX_GRES_UNITS) {
        let detail = format!("{} has {} units", large.name, large.count);
        return Err(malformed(Malformed::Gres, detail));
    }
    Ok((gpu_from_wire(gpu), gres))
}

/// An event of a GPU as the core has it.
#[must_use]
pub fn fault_from_wire(event: v1::GpuEvent) -> GpuFault {
    let mut text = event.text;
    let mut end = text.len().min(MAX_FAULT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    GpuFault { gpu: event.gpu, gi: event.gi, xid: event.xid, text: text.into() }
}

/// What was said and done about a run's idle GPUs, as the wire and the store have it.
#[must_use]
pub fn idle_to_wire(note: &IdleNote) -> v1::IdleNote {
    v1::IdleNote {
        rule: note.rule.to_string(),
        warned: note.warned,
        since_ms: note.since.0,
        act_at_ms: note.act_at.0,
        action: note.action.name().to_owned(),
        dry_run: note.dry_run,
        evidence: note.evidence.to_string(),
        lost_ms: note.lost_ms,
        acted_ms: note.acted.map_or(0, |at| at.0),
        freed_ms: note.freed_ms,
    }
}

/// Inverse of [`idle_to_wire`].
///
/// # Errors
/// If the action is of a newer version.
pub fn idle_from_wire(note: v1::IdleNote) -> Result<IdleNote, ConvertError> {
    let action = IdleAction::from_name(&note.action)
        .ok_or_else(|| ConvertError::invalid("what is done about idle GPUs", &note.action))?;
    Ok(IdleNote {
        rule: note.rule.into(),
        warned: note.warned,
        since: Timestamp(note.since_ms),
        act_at: Timestamp(note.act_at_ms),
        action,
        dry_run: note.dry_run,
        evidence: note.evidence.into(),
        lost_ms: note.lost_ms,
        acted: (note.acted_ms != 0).then_some(Timestamp(note.acted_ms)),
        freed_ms: note.freed_ms,
    })
}

/// What a run made of one GPU, as the wire and the store have it.
#[must_use]
pub fn usage_to_wire(usage: &GpuUsage) -> v1::GpuUsage {
    v1::GpuUsage {
        node: usage.node.to_string(),
        gpu: usage.gpu,
        start: usage.start,
        r#type: usage.kind.to_string(),
        memory_mib: usage.memory.0,
        utilization_mean: usage.mean,
        utilization_p50: usage.p50,
        utilization_p95: usage.p95,
        peak_memory_mib: usage.peak_memory.map(|mib| mib.0),
        energy_mj: usage.energy_mj,
        idle_ms: usage.idle_ms,
        empty_ms: usage.empty_ms,
        seen_ms: usage.seen_ms,
        idle_now_ms: usage.idle_now_ms,
        last_ms: usage.last.0,
    }
}

/// Inverse of [`usage_to_wire`].
///
/// # Errors
/// If the node's name can't be one.
pub fn usage_from_wire(usage: &v1::GpuUsage) -> Result<GpuUsage, ConvertError> {
    let node = NodeName::new(&usage.node)
        .map_err(|error| ConvertError::invalid("the node of a GPU", error))?;
    Ok(GpuUsage {
        node,
        gpu: usage.gpu,
        start: usage.start,
        kind: usage.r#type.as_str().into(),
        memory: Mib(usage.memory_mib),
        mean: usage.utilization_mean,
        p50: usage.utilization_p50,
        p95: usage.utilization_p95,
        peak_memory: usage.peak_memory_mib.map(Mib),
        energy_mj: usage.energy_mj,
        idle_ms: usage.idle_ms,
        empty_ms: usage.empty_ms,
        seen_ms: usage.seen_ms,
        idle_now_ms: usage.idle_now_ms,
        last: Timestamp(usage.last_ms),
    })
}
