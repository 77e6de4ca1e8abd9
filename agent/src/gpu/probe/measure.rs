//! What does a GPU do just now?
//!
//! A number that a GPU does not give is absent. With MIG on, the whole GPU has no utilisation; its
//! slices have one on Hopper and later, as the mean since the last sample.

use std::collections::BTreeMap;

use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::gpm::GpmMetricId;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::{Device, GpmSample};
use penstock_proto::v1;

use super::describe::memory;
use super::library::Library;
use crate::gpu::wire::Look;
use crate::sys::nvml;

/// What is remembered of a GPU from sample to sample.
#[derive(Default)]
pub(super) struct Memory {
    energy_mj: Option<u64>,
    /// The last moment of each instance, by its id and MIG UUID.
    moments: BTreeMap<(u32, String), GpmSample<'static>>,
}

/// Most processes of a GPU that are told.
const MAX_PIDS: usize = 16;

/// Samples of one GPU and of its slices, and what else is seen of it.
///
/// # Errors
/// When the GPU answers nothing at all.
pub(super) fn sample(
    library: &Library,
    index: u32,
    before: &mut Memory,
) -> Result<(Vec<v1::GpuSample>, Look), NvmlError> {
    let device = library.nvml.device_by_index(index)?;
    let is_cut = library.known(device.mig_mode()).is_some_and(|mode| mode.current == 1);
    // The question that every GPU with a working driver answers; a lost one says so here.
    let processes = device.running_compute_processes();
    if matches!(processes, Err(NvmlError::GpuLost | NvmlError::ResetRequired)) {
        return Err(processes.err().unwrap_or(NvmlError::Unknown));
    }
    let processes = library.known(processes);
    let count = |all: &Vec<ProcessInfo>| u32::try_from(all.len()).unwrap_or(u32::MAX);
    let energy = library.known(device.total_energy_consumption());
    let mut samples = vec![v1::GpuSample {
        gpu: index,
        gi: None,
        utilization: library.known(device.utilization_rates()).map(|rates| rates.gpu),
        memory_used_mib: memory(library, &device).map(|(_, used)| used >> 20),
        power_mw: library.known(device.power_usage()),
        // It counts from the load of the driver: less than before is no amount.
        energy_mj: energy.zip(before.energy_mj).and_then(|(now, then)| now.checked_sub(then)),
        processes: processes.as_ref().map(count),
        temperature: library.known(device.temperature(TemperatureSensor::Gpu)),
        job_id: 0,
        attempt: 0,
    }];
    before.energy_mj = energy;
    if is_cut {
        samples.extend(slices(library, &device, processes.as_deref(), index, before)?);
    } else {
        before.moments.clear();
    }
    let pids = processes.iter().flatten().filter(|_| !is_cut).map(|process| process.pid);
    let (errors, volatile) = (MemoryError::Uncorrected, EccCounter::Volatile);
    let look = Look {
        gpu: index,
        throttle: library.known(device.current_throttle_reasons()).map(|reasons| reasons.bits()),
        uncorrected: library.known(device.total_ecc_errors(errors, volatile)),
        pids: pids.take(MAX_PIDS).collect(),
    };
    Ok((samples, look))
}

fn slices(
    library: &Library,
    device: &Device<'static>,
    processes: Option<&[ProcessInfo]>,
    index: u32,
    before: &mut Memory,
) -> Result<Vec<v1::GpuSample>, NvmlError> {
    let measured = library.known(device.gpm_support()) == Some(true);
    let (mut samples, mut moments) = (Vec::new(), BTreeMap::new());
    for number in 0..device.mig_device_count()? {
        let part = match device.mig_device_by_index(number) {
            Ok(part) => part,
            Err(NvmlError::NotFound) => continue,
            Err(error) => return Err(error),
        };
        let (gi, _) = nvml::instance_ids(library.nvml, &part)?;
        let mut utilization = None;
        if measured && let Some(now) = library.known(device.gpm_mig_sample(gi)) {
            let key = (gi, part.uuid()?);
            utilization = before.moments.get(&key).and_then(|then| between(library, then, &now));
            moments.insert(key, now);
        }
        let inside = |all: &[ProcessInfo]| {
            let mine = all.iter().filter(|process| process.gpu_instance_id == Some(gi));
            u32::try_from(mine.count()).unwrap_or(u32::MAX)
        };
        samples.push(v1::GpuSample {
            gpu: index,
            gi: Some(gi),
            utilization,
            memory_used_mib: memory(library, &part).map(|(_, used)| used >> 20),
            processes: processes.map(inside),
            ..v1::GpuSample::default()
        });
    }
    before.moments = moments;
    Ok(samples)
}

/// Mean activity of the multiprocessors between two moments: percent.
fn between(library: &Library, then: &GpmSample<'static>, now: &GpmSample<'static>) -> Option<u32> {
    let metrics = [GpmMetricId::SmUtil];
    let values = nvml_wrapper::gpm::gpm_metrics_get(library.nvml, then, now, &metrics);
    let value = library.known(values)?.into_iter().next()?.ok()?.value;
    if !value.is_finite() {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to percent, and no NaN"
    )]
    let percent = value.round().clamp(0.0, 100.0) as u32;
    Some(percent)
}
