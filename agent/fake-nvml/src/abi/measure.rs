//! What a GPU does: memory, work, power, heat, errors.

use std::ffi::{c_int, c_uint, c_ulonglong};
use std::mem::offset_of;

use nvml_wrapper_sys::bindings as sys;

use super::{Out, either, gpu_of, symbols, whole};
use crate::handle::Handle;
use crate::scenario::Process;
use crate::state::{Answer, Code, INVALID, NOT_SUPPORTED};
use crate::world::World;

/// Memory that the driver keeps to itself, MiB.
const RESERVED_MIB: u64 = 551;

const TOO_SMALL: Code = sys::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;

/// Total, reserved and used memory of a GPU or a MIG device, bytes.
fn memory(world: &mut World, device: Handle) -> Answer<(u64, u64, u64)> {
    let (gpu, mig) = either(world, device)?;
    let processes = world.processes(gpu);
    let (_, model, state) = world.gpu(gpu)?;
    let (total, reserved, used): (u64, u64, u64) = match mig {
        None => {
            let reserved = RESERVED_MIB.min(model.memory_mib);
            (model.memory_mib, reserved, processes.iter().map(|p| p.mib).sum())
        }
        Some((gi, _)) => {
            let profile = state.instance(gi).and_then(|gi| model.profile(gi.profile));
            let inside = processes.iter().filter(|p| p.gi == Some(gi));
            (profile.ok_or(INVALID)?.memory_mib, 0, inside.map(|p| p.mib).sum())
        }
    };
    let used = used.min(total - reserved);
    Ok((total << 20, reserved << 20, used << 20))
}

/// The processes that a list for `device` names.
fn listed(world: &mut World, device: Handle) -> Answer<Vec<Process>> {
    let (gpu, mig) = either(world, device)?;
    let mut all = world.processes(gpu);
    all.retain(|p| !p.hidden && mig.is_none_or(|(gi, ci)| p.gi == Some(gi) && p.ci == Some(ci)));
    Ok(all)
}

/// The index of a whole GPU whose work has a number: not one with MIG.
fn measurable(world: &World, device: Handle) -> Answer<usize> {
    let gpu = whole(world, device)?;
    if world.gpu(gpu)?.2.mig { Err(NOT_SUPPORTED) } else { Ok(gpu) }
}

/// The value of one field, as an unsigned number.
fn field(world: &mut World, gpu: usize, id: c_uint) -> Answer<c_ulonglong> {
    let now = world.now(gpu);
    let (given, model, state) = world.gpu(gpu)?;
    let ampere = model.architecture >= sys::NVML_DEVICE_ARCH_AMPERE;
    let remap = |value: c_ulonglong| {
        let hidden = !ampere || state.mig && !state.gi.is_empty();
        if hidden { Err(NOT_SUPPORTED) } else { Ok(value) }
    };
    match id {
        142 => remap(given.remap.corrected.into()),
        143 => remap(given.remap.uncorrected.into()),
        144 => remap(now.remap_pending.into()),
        145 => remap(now.remap_failure.into()),
        184 => Ok(model.is_hopper_or_later().into()),
        199 => Ok((!model.profiles.is_empty() && world.scenario.driver_major() >= 535).into()),
        230 => now.recovery.map(Into::into).ok_or(NOT_SUPPORTED),
        83 => Ok(world.energy_mj(gpu)),
        185 | 186 => Ok(world.power_mw(gpu).into()),
        _ => Err(NOT_SUPPORTED),
    }
}

symbols! {
    fn nvmlDeviceGetMemoryInfo(device: Handle, out: Out<sys::nvmlMemory_t>) on gpu_of(device) =>
    |world| {
        let (total, reserved, used) = memory(world, device)?;
        // Version 1 counts what is reserved as used.
        let used = used + reserved;
        out.put(sys::nvmlMemory_t { total, free: total - used, used })
    };
    fn nvmlDeviceGetMemoryInfo_v2(device: Handle, out: Out<sys::nvmlMemory_v2_t>) on gpu_of(device) =>
    |world| {
        let version = out.cast::<c_uint>().get()?;
        if version >> 24 != 2 || version & 0xff_ffff != 40 {
            return Err(sys::nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
        }
        let (total, reserved, used) = memory(world, device)?;
        let free = total - reserved - used;
        out.put(sys::nvmlMemory_v2_t { version, total, reserved, free, used })
    };
    fn nvmlDeviceGetUtilizationRates(device: Handle, out: Out<sys::nvmlUtilization_t>) on
    gpu_of(device) => |world| {
        let gpu = measurable(world, device)?;
        let busy = world.percent(gpu, None);
        out.put(sys::nvmlUtilization_t { gpu: busy, memory: busy / 2 })
    };
    fn nvmlDeviceGetProcessUtilization(
        device: Handle, out: Out<sys::nvmlProcessUtilizationSample_t>, count: Out<c_uint>, since: c_ulonglong,
    ) on gpu_of(device) => |world| {
        measurable(world, device)?;
        let all = listed(world, device)?;
        let stamp = world.now_ms() * 1000;
        if all.is_empty() || stamp <= since {
            count.put(0)?;
            return Err(sys::nvmlReturn_enum_NVML_ERROR_NOT_FOUND);
        }
        let room = count.get()? as usize;
        count.put(c_uint::try_from(all.len()).map_err(|_| INVALID)?)?;
        if out.is_null() || room < all.len() {
            return Err(TOO_SMALL);
        }
        for (at, process) in all.iter().enumerate() {
            out.put_at(at, sys::nvmlProcessUtilizationSample_t {
                pid: process.pid,
                timeStamp: stamp,
                smUtil: process.sm,
                memUtil: process.sm / 2,
                encUtil: 0,
                decUtil: 0,
            })?;
        }
        Ok(())
    };
    fn nvmlDeviceGetComputeRunningProcesses_v3(
        device: Handle, count: Out<c_uint>, out: Out<sys::nvmlProcessInfo_t>,
    ) on gpu_of(device) => |world| {
        let all = listed(world, device)?;
        let room = count.get()? as usize;
        count.put(c_uint::try_from(all.len()).map_err(|_| INVALID)?)?;
        if all.is_empty() {
            return Ok(());
        }
        if out.is_null() || room < all.len() {
            return Err(TOO_SMALL);
        }
        for (at, process) in all.iter().enumerate() {
            out.put_at(at, sys::nvmlProcessInfo_t {
                pid: process.pid,
                usedGpuMemory: process.mib << 20,
                gpuInstanceId: process.gi.unwrap_or(c_uint::MAX),
                computeInstanceId: process.ci.unwrap_or(c_uint::MAX),
            })?;
        }
        Ok(())
    };
    fn nvmlDeviceGetTemperature(device: Handle, sensor: c_uint, out: Out<c_uint>) on gpu_of(device) =>
    |world| {
        let gpu = whole(world, device)?;
        if sensor != 0 {
            return Err(INVALID);
        }
        let busy = world.percent(gpu, None);
        let usual = world.gpu(gpu)?.0.temperature + busy * 45 / 100;
        out.put(world.now(gpu).temperature.unwrap_or(usual))
    };
    fn nvmlDeviceGetPowerUsage(device: Handle, out: Out<c_uint>) on gpu_of(device) => |world| {
        let gpu = whole(world, device)?;
        out.put(world.power_mw(gpu))
    };
    fn nvmlDeviceGetEnforcedPowerLimit(device: Handle, out: Out<c_uint>) on gpu_of(device) => |world| {
        let gpu = whole(world, device)?;
        out.put(world.gpu(gpu)?.1.power_mw.1)
    };
    fn nvmlDeviceGetTotalEnergyConsumption(device: Handle, out: Out<c_ulonglong>) on gpu_of(device) =>
    |world| {
        let gpu = whole(world, device)?;
        out.put(world.energy_mj(gpu))
    };
    fn nvmlDeviceGetCurrentClocksThrottleReasons(device: Handle, out: Out<c_ulonglong>) on
    gpu_of(device) => |world| {
        let gpu = whole(world, device)?;
        let idle = c_ulonglong::from(world.percent(gpu, None) == 0);
        out.put(world.now(gpu).throttle | idle)
    };
    fn nvmlDeviceGetClockInfo(device: Handle, kind: c_uint, out: Out<c_uint>) on gpu_of(device) =>
    |world| {
        let (gpu, _) = either(world, device)?;
        let (idle, most) = world.gpu(gpu)?.1.clock_mhz;
        match kind {
            0 | 1 => out.put(if world.percent(gpu, None) > 0 { most } else { idle }),
            2 | 3 => out.put(1593),
            _ => Err(INVALID),
        }
    };
    fn nvmlDeviceGetEccMode(device: Handle, current: Out<c_uint>, pending: Out<c_uint>) on
    gpu_of(device) => |world| {
        let enabled = world.gpu(whole(world, device)?)?.0.ecc.enabled;
        current.put(enabled.into())?;
        pending.put(enabled.into())
    };
    fn nvmlDeviceGetTotalEccErrors(
        device: Handle, kind: c_uint, _counter: c_uint, out: Out<c_ulonglong>,
    ) on gpu_of(device) => |world| {
        let gpu = whole(world, device)?;
        let ecc = &world.gpu(gpu)?.0.ecc;
        match kind {
            _ if !ecc.enabled => Err(NOT_SUPPORTED),
            0 => out.put(ecc.corrected),
            1 => out.put(world.now(gpu).ecc_uncorrected),
            _ => Err(INVALID),
        }
    };
    fn nvmlDeviceGetFieldValues(device: Handle, count: c_int, values: Out<sys::nvmlFieldValue_t>) on
    gpu_of(device) => |world| {
        let gpu = whole(world, device)?;
        for at in 0..usize::try_from(count).map_err(|_| INVALID)? {
            let place = at * size_of::<sys::nvmlFieldValue_t>();
            // Only the parts that are integers are read: a union may hold anything.
            let id = values.behind::<c_uint>(place).get()?;
            let scope = offset_of!(sys::nvmlFieldValue_t, scopeId);
            let scope = values.behind::<c_uint>(place + scope).get()?;
            let (code, number) = match field(world, gpu, id) {
                Ok(number) => (0, number),
                Err(code) => (code, 0),
            };
            values.put_at(at, sys::nvmlFieldValue_t {
                fieldId: id,
                scopeId: scope,
                timestamp: i64::try_from(world.now_ms() * 1000).unwrap_or(i64::MAX),
                latencyUsec: 1,
                // An unsigned long long.
                valueType: 3,
                nvmlReturn: code,
                value: sys::nvmlValue_t { ullVal: number },
            })?;
        }
        Ok(())
    };
    fn nvmlDeviceGetRemappedRows(
        device: Handle, corrected: Out<c_uint>, uncorrected: Out<c_uint>,
        pending: Out<c_uint>, failure: Out<c_uint>,
    ) on gpu_of(device) => |world| {
        let gpu = whole(world, device)?;
        let mut get = |id| field(world, gpu, id).and_then(|n| c_uint::try_from(n).map_err(|_| INVALID));
        corrected.put(get(142)?)?;
        uncorrected.put(get(143)?)?;
        pending.put(get(144)?)?;
        failure.put(get(145)?)
    };
}
