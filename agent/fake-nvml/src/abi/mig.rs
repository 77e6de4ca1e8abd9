//! How a GPU is cut: modes, profiles, instances.

use std::ffi::c_uint;
use std::mem::offset_of;

use nvml_wrapper_sys::bindings as sys;

use super::pointers::field;
use super::{In, Out, either, gpu_of, handle, resolve, small, symbols, whole};
use crate::handle::{Handle, Named};
use crate::models::Profile;
use crate::scenario::compute_slices;
use crate::state::{Answer, INVALID, NOT_FOUND, NOT_SUPPORTED};
use crate::world::World;

/// Number of NVML's enumeration of profiles.
const PROFILES: c_uint = sys::NVML_GPU_INSTANCE_PROFILE_COUNT;

/// The profile that NVML's number names on a GPU. Drivers before 535 know profiles only while MIG
/// is on.
fn by_number(world: &World, device: Handle, number: c_uint) -> Answer<&'static Profile> {
    let (_, model, state) = world.gpu(whole(world, device)?)?;
    if number >= PROFILES {
        return Err(INVALID);
    }
    if !state.mig && world.scenario.driver_major() < 535 {
        return Err(NOT_SUPPORTED);
    }
    model.profiles.iter().find(|profile| profile.number == number).ok_or(NOT_SUPPORTED)
}

/// The GPU and the profile with the hardware's number.
fn by_id(world: &World, device: Handle, id: c_uint) -> Answer<(usize, &'static Profile)> {
    let gpu = whole(world, device)?;
    let (_, model, state) = world.gpu(gpu)?;
    if !state.mig && world.scenario.driver_major() < 535 {
        return Err(NOT_SUPPORTED);
    }
    Ok((gpu, model.profile(id).ok_or(INVALID)?))
}

fn instance(world: &World, handle: Handle) -> Answer<(usize, u32)> {
    match resolve(world, handle)? {
        Named::Instance(gpu, gi) => Ok((gpu.into(), gi.into())),
        _ => Err(INVALID),
    }
}

fn compute(world: &World, handle: Handle) -> Answer<(usize, u32, u32)> {
    match resolve(world, handle)? {
        Named::Compute(gpu, gi, ci) => Ok((gpu.into(), gi.into(), ci.into())),
        _ => Err(INVALID),
    }
}

fn profile_of(world: &World, gpu: usize, gi: u32) -> Answer<&'static Profile> {
    let (_, model, state) = world.gpu(gpu)?;
    let gi = state.instance(gi).ok_or(INVALID)?;
    model.profile(gi.profile).ok_or(INVALID)
}

fn create(
    world: &mut World,
    device: Handle,
    id: c_uint,
    start: Option<u32>,
    out: Out<Handle>,
) -> Answer<()> {
    let gpu = whole(world, device)?;
    let model = world.gpu(gpu)?.1;
    let gi = world.change(|state, _| state.create(gpu, model, id, start))?;
    out.put(handle(world, Named::Instance(small(gpu)?, small(gi)?))?)
}

/// Two calls: without a place, how many there are; then the values.
fn list<T: Copy>(out: Out<T>, count: Out<c_uint>, values: &[T]) -> Answer<()> {
    count.put(c_uint::try_from(values.len()).map_err(|_| INVALID)?)?;
    if !out.is_null() {
        for (at, value) in values.iter().enumerate() {
            out.put_at(at, *value)?;
        }
    }
    Ok(())
}

/// Compute slices of a compute instance profile by NVML's number, if it fits into `profile`.
fn fitting(profile: &Profile, number: c_uint) -> Answer<u32> {
    match compute_slices(number) {
        Some(slices) if slices <= profile.compute => Ok(slices),
        _ if number < sys::NVML_COMPUTE_INSTANCE_PROFILE_COUNT => Err(NOT_SUPPORTED),
        _ => Err(INVALID),
    }
}

symbols! {
    fn nvmlDeviceGetMigMode(device: Handle, current: Out<c_uint>, pending: Out<c_uint>) on
    gpu_of(device) => |world| {
        let (_, model, state) = world.gpu(whole(world, device)?)?;
        if model.profiles.is_empty() {
            return Err(NOT_SUPPORTED);
        }
        current.put(state.mig.into())?;
        pending.put(state.pending.into())
    };
    fn nvmlDeviceSetMigMode(device: Handle, mode: c_uint, status: Out<c_uint>) on gpu_of(device) =>
    |world| {
        let gpu = whole(world, device)?;
        let used = !world.processes(gpu).is_empty();
        if mode > 1 {
            return Err(INVALID);
        }
        let code = world.change(|state, scenario| {
            state.set_mode(gpu, &scenario.gpus[gpu], mode == 1, used)
        })?;
        status.put(code)
    };
    fn nvmlDeviceGetGpuInstanceProfileInfo(
        device: Handle, number: c_uint, out: Out<sys::nvmlGpuInstanceProfileInfo_t>,
    ) on gpu_of(device) => |world| {
        let profile = by_number(world, device, number)?;
        out.put(sys::nvmlGpuInstanceProfileInfo_t {
            id: profile.id,
            isP2pSupported: 0,
            sliceCount: profile.compute,
            instanceCount: profile.most,
            multiprocessorCount: profile.multiprocessors,
            copyEngineCount: profile.compute,
            decoderCount: profile.compute,
            encoderCount: 0,
            jpegCount: 1,
            ofaCount: 0,
            memorySizeMB: profile.memory_mib,
        })
    };
    fn nvmlDeviceGetGpuInstanceProfileInfoV(
        device: Handle, number: c_uint, out: Out<sys::nvmlGpuInstanceProfileInfo_v2_t>,
    ) on gpu_of(device) => |world| {
        let profile = by_number(world, device, number)?;
        let version = out.cast::<c_uint>().get()?;
        let id_at = match version >> 24 {
            2 => offset_of!(sys::nvmlGpuInstanceProfileInfo_v2_t, id),
            3 => offset_of!(sys::nvmlGpuInstanceProfileInfo_v3_t, id),
            _ => return Err(sys::nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH),
        };
        let engines = [profile.compute, profile.compute, 0, 1, 0];
        let mut words = vec![profile.id];
        if version >> 24 == 2 {
            // Whether instances reach each other.
            words.push(0);
        }
        words.extend([profile.compute, profile.most, profile.multiprocessors]);
        words.extend(engines);
        for (at, word) in words.into_iter().enumerate() {
            out.behind::<c_uint>(id_at + at * size_of::<c_uint>()).put(word)?;
        }
        let (memory_at, name_at) = if version >> 24 == 2 {
            let memory = offset_of!(sys::nvmlGpuInstanceProfileInfo_v2_t, memorySizeMB);
            (memory, offset_of!(sys::nvmlGpuInstanceProfileInfo_v2_t, name))
        } else {
            let capabilities = offset_of!(sys::nvmlGpuInstanceProfileInfo_v3_t, capabilities);
            out.behind::<c_uint>(capabilities).put(0)?;
            let memory = offset_of!(sys::nvmlGpuInstanceProfileInfo_v3_t, memorySizeMB);
            (memory, offset_of!(sys::nvmlGpuInstanceProfileInfo_v3_t, name))
        };
        out.behind::<u64>(memory_at).put(profile.memory_mib)?;
        out.behind(name_at).put(field::<96>(&format!("MIG {}", profile.name)))
    };
    fn nvmlDeviceGetGpuInstancePossiblePlacements_v2(
        device: Handle, id: c_uint, out: Out<sys::nvmlGpuInstancePlacement_t>, count: Out<c_uint>,
    ) on gpu_of(device) => |world| {
        let (_, profile) = by_id(world, device, id)?;
        let place = |start: &u32| sys::nvmlGpuInstancePlacement_t { start: *start, size: profile.size };
        let all: Vec<_> = profile.starts.iter().map(place).collect();
        list(out, count, &all)
    };
    fn nvmlDeviceGetGpuInstanceRemainingCapacity(device: Handle, id: c_uint, out: Out<c_uint>) on
    gpu_of(device) => |world| {
        let (gpu, profile) = by_id(world, device, id)?;
        let (_, model, state) = world.gpu(gpu)?;
        let mut after = state.clone();
        let mut number = 0;
        while let Some(start) = after.free_starts(model, profile).first() {
            let gi = crate::state::GiState {
                id: 100 + number,
                profile: id,
                start: *start,
                hidden: false,
                ci: Vec::new(),
            };
            after.gi.push(gi);
            number += 1;
        }
        out.put(number)
    };
    fn nvmlDeviceCreateGpuInstanceWithPlacement(
        device: Handle, id: c_uint, place: In<sys::nvmlGpuInstancePlacement_t>, out: Out<Handle>,
    ) on gpu_of(device) => |world| {
        let place = place.get()?;
        let (_, profile) = by_id(world, device, id)?;
        if place.size != profile.size {
            return Err(INVALID);
        }
        create(world, device, id, Some(place.start), out)
    };
    fn nvmlDeviceCreateGpuInstance(device: Handle, id: c_uint, out: Out<Handle>) on gpu_of(device) =>
    |world| {
        create(world, device, id, None, out)
    };
    fn nvmlDeviceGetGpuInstances(
        device: Handle, id: c_uint, out: Out<Handle>, count: Out<c_uint>,
    ) on gpu_of(device) => |world| {
        let (gpu, _) = by_id(world, device, id)?;
        let (_, _, state) = world.gpu(gpu)?;
        if !state.mig {
            return Err(NOT_SUPPORTED);
        }
        let mut all = Vec::new();
        // Newest first: nobody may take the order of the list for one of places.
        for gi in state.gi.iter().rev().filter(|gi| gi.profile == id && !gi.hidden) {
            all.push(handle(world, Named::Instance(small(gpu)?, small(gi.id)?))?);
        }
        list(out, count, &all)
    };
    fn nvmlDeviceGetGpuInstanceById(device: Handle, gi: c_uint, out: Out<Handle>) on gpu_of(device) =>
    |world| {
        let gpu = whole(world, device)?;
        world.gpu(gpu)?.2.instance(gi).ok_or(NOT_FOUND)?;
        out.put(handle(world, Named::Instance(small(gpu)?, small(gi)?))?)
    };
    fn nvmlDeviceGetMaxMigDeviceCount(device: Handle, out: Out<c_uint>) on gpu_of(device) => |world| {
        let (_, model, _) = world.gpu(whole(world, device)?)?;
        out.put(if model.slices == 8 { 7 } else { model.slices })
    };
    fn nvmlDeviceGetMigDeviceHandleByIndex(device: Handle, index: c_uint, out: Out<Handle>) on
    gpu_of(device) => |world| {
        let gpu = whole(world, device)?;
        let (_, model, state) = world.gpu(gpu)?;
        if !state.mig {
            return Err(NOT_FOUND);
        }
        if index >= model.slices.max(1) {
            return Err(INVALID);
        }
        let mut devices = state.devices().filter(|(gi, _)| !gi.hidden);
        let (gi, ci) = devices.find(|(_, ci)| ci.slot == index).ok_or(NOT_FOUND)?;
        out.put(handle(world, Named::Mig(small(gpu)?, small(gi.id)?, small(ci.id)?))?)
    };
    fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device: Handle, out: Out<Handle>) on
    gpu_of(device) => |world| {
        let Named::Mig(gpu, ..) = resolve(world, device)? else { return Err(INVALID) };
        out.put(handle(world, Named::Gpu(gpu))?)
    };
    fn nvmlDeviceIsMigDeviceHandle(device: Handle, out: Out<c_uint>) on gpu_of(device) => |world| {
        out.put(either(world, device)?.1.is_some().into())
    };
    fn nvmlDeviceGetGpuInstanceId(device: Handle, out: Out<c_uint>) on gpu_of(device) => |world| {
        out.put(either(world, device)?.1.ok_or(NOT_SUPPORTED)?.0)
    };
    fn nvmlDeviceGetComputeInstanceId(device: Handle, out: Out<c_uint>) on gpu_of(device) => |world| {
        out.put(either(world, device)?.1.ok_or(NOT_SUPPORTED)?.1)
    };
    fn nvmlDeviceGetAttributes_v2(device: Handle, out: Out<sys::nvmlDeviceAttributes_t>) on
    gpu_of(device) => |world| {
        let (gpu, mig) = either(world, device)?;
        let (gi, ci) = mig.ok_or(NOT_SUPPORTED)?;
        let profile = profile_of(world, gpu, gi)?;
        let compute = world.gpu(gpu)?.2.compute(gi, ci).ok_or(INVALID)?;
        out.put(sys::nvmlDeviceAttributes_t {
            multiprocessorCount: profile.multiprocessors,
            sharedCopyEngineCount: profile.compute,
            sharedDecoderCount: profile.compute,
            sharedEncoderCount: 0,
            sharedJpegCount: 1,
            sharedOfaCount: 0,
            gpuInstanceSliceCount: profile.compute,
            computeInstanceSliceCount: compute_slices(compute.profile).ok_or(INVALID)?,
            memorySizeMB: profile.memory_mib,
        })
    };
    fn nvmlGpuInstanceGetInfo(gi: Handle, out: Out<sys::nvmlGpuInstanceInfo_t>) on gpu_of(gi) =>
    |world| {
        let (gpu, gi) = instance(world, gi)?;
        let profile = profile_of(world, gpu, gi)?;
        let start = world.gpu(gpu)?.2.instance(gi).ok_or(INVALID)?.start;
        let device = handle(world, Named::Gpu(small(gpu)?))?;
        out.put(sys::nvmlGpuInstanceInfo_t {
            device: std::ptr::without_provenance_mut(device.0),
            id: gi,
            profileId: profile.id,
            placement: sys::nvmlGpuInstancePlacement_t { start, size: profile.size },
        })
    };
    fn nvmlGpuInstanceDestroy(gi: Handle) on gpu_of(gi) => |world| {
        let (gpu, gi) = instance(world, gi)?;
        let processes = world.processes(gpu);
        world.change(|state, _| state.destroy(gpu, gi, &processes))
    };
    fn nvmlGpuInstanceGetComputeInstanceProfileInfo(
        gi: Handle, number: c_uint, engine: c_uint, out: Out<sys::nvmlComputeInstanceProfileInfo_t>,
    ) on gpu_of(gi) => |world| {
        let (gpu, gi) = instance(world, gi)?;
        let profile = profile_of(world, gpu, gi)?;
        if engine != 0 {
            return Err(INVALID);
        }
        let slices = fitting(profile, number)?;
        out.put(sys::nvmlComputeInstanceProfileInfo_t {
            id: number,
            sliceCount: slices,
            instanceCount: profile.compute / slices,
            multiprocessorCount: profile.multiprocessors * slices / profile.compute,
            sharedCopyEngineCount: profile.compute,
            sharedDecoderCount: profile.compute,
            sharedEncoderCount: 0,
            sharedJpegCount: 1,
            sharedOfaCount: 0,
        })
    };
    fn nvmlGpuInstanceCreateComputeInstance(gi: Handle, id: c_uint, out: Out<Handle>) on gpu_of(gi) =>
    |world| {
        let (gpu, gi) = instance(world, gi)?;
        let model = world.gpu(gpu)?.1;
        let ci = world.change(|state, scenario| {
            state.create_compute((gpu, &scenario.gpus[gpu].uuid), model, gi, id)
        })?;
        out.put(handle(world, Named::Compute(small(gpu)?, small(gi)?, small(ci)?))?)
    };
    fn nvmlGpuInstanceGetComputeInstanceById(gi: Handle, ci: c_uint, out: Out<Handle>) on gpu_of(gi) =>
    |world| {
        let (gpu, gi) = instance(world, gi)?;
        world.gpu(gpu)?.2.compute(gi, ci).ok_or(NOT_FOUND)?;
        out.put(handle(world, Named::Compute(small(gpu)?, small(gi)?, small(ci)?))?)
    };
    fn nvmlGpuInstanceGetComputeInstances(
        gi: Handle, id: c_uint, out: Out<Handle>, count: Out<c_uint>,
    ) on gpu_of(gi) => |world| {
        let (gpu, gi) = instance(world, gi)?;
        fitting(profile_of(world, gpu, gi)?, id)?;
        let mut all = Vec::new();
        let (_, _, state) = world.gpu(gpu)?;
        for ci in state.instance(gi).ok_or(INVALID)?.ci.iter().filter(|ci| ci.profile == id) {
            all.push(handle(world, Named::Compute(small(gpu)?, small(gi)?, small(ci.id)?))?);
        }
        list(out, count, &all)
    };
    fn nvmlComputeInstanceGetInfo_v2(ci: Handle, out: Out<sys::nvmlComputeInstanceInfo_t>) on
    gpu_of(ci) => |world| {
        let (gpu, gi, ci) = compute(world, ci)?;
        let profile = world.gpu(gpu)?.2.compute(gi, ci).ok_or(INVALID)?.profile;
        let (at, gi8, ci8) = (small(gpu)?, small(gi)?, small(ci)?);
        let device = handle(world, Named::Mig(at, gi8, ci8))?;
        let instance = handle(world, Named::Instance(at, gi8))?;
        out.put(sys::nvmlComputeInstanceInfo_t {
            device: std::ptr::without_provenance_mut(device.0),
            gpuInstance: std::ptr::without_provenance_mut(instance.0),
            id: ci,
            profileId: profile,
            placement: sys::nvmlComputeInstancePlacement_t {
                start: 0,
                size: compute_slices(profile).ok_or(INVALID)?,
            },
        })
    };
    fn nvmlComputeInstanceDestroy(ci: Handle) on gpu_of(ci) => |world| {
        let (gpu, gi, ci) = compute(world, ci)?;
        let processes = world.processes(gpu);
        world.change(|state, _| state.destroy_compute(gpu, (gi, ci), &processes))
    };
}
