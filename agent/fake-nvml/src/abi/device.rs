//! What a GPU is: names, addresses, neighbours.

use std::ffi::{c_char, c_int, c_uint, c_ulong};

use nvml_wrapper_sys::bindings as sys;

use super::pointers::field;
use super::{Out, either, gpu_of, handle, resolve, small, symbols, whole};
use crate::handle::{Handle, Named};
use crate::scenario::{Gpu, parse_bdf, parse_cpus};
use crate::state::{Answer, INVALID, NOT_FOUND, NOT_SUPPORTED};
use crate::world::World;

/// Bits of one word of a CPU set.
const WORD_BITS: usize = c_ulong::BITS as usize;

/// The handle of a GPU or a MIG device.
pub(super) fn by_uuid(world: &World, uuid: &str) -> Answer<Handle> {
    for (gpu, given) in world.scenario.gpus.iter().enumerate() {
        if given.uuid == uuid {
            lost(world, gpu)?;
            return handle(world, Named::Gpu(small(gpu)?));
        }
        let (_, _, state) = world.gpu(gpu)?;
        if let Some((gi, ci)) = state.devices().find(|(_, ci)| ci.uuid == uuid) {
            return handle(world, Named::Mig(small(gpu)?, small(gi.id)?, small(ci.id)?));
        }
    }
    Err(NOT_FOUND)
}

/// The handle of the GPU at a PCI address; domains have four or eight digits.
pub(super) fn by_bus(world: &World, bus: &str) -> Answer<Handle> {
    let bus = bus.to_ascii_lowercase();
    let short = bus.strip_prefix("0000").filter(|rest| rest.len() == 12).unwrap_or(&bus);
    let at = world.scenario.gpus.iter().position(|gpu| gpu.bdf == short).ok_or(NOT_FOUND)?;
    lost(world, at)?;
    handle(world, Named::Gpu(small(at)?))
}

fn lost(world: &World, gpu: usize) -> Answer<()> {
    if world.now(gpu).lost { Err(sys::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST) } else { Ok(()) }
}

/// A text, or bytes that are none where the scenario wants it so.
fn text(world: &World, out: Out<c_char>, length: c_uint, text: &str) -> Answer<()> {
    out.text(length, if world.garbage { b"\xff\xfe\x80" } else { text.as_bytes() })
}

fn name(world: &World, device: Handle) -> Answer<String> {
    let (gpu, mig) = either(world, device)?;
    let (_, model, state) = world.gpu(gpu)?;
    let Some((gi, _)) = mig else { return Ok(model.name.to_owned()) };
    let profile = state.instance(gi).and_then(|gi| model.profile(gi.profile)).ok_or(INVALID)?;
    Ok(format!("{} MIG {}", model.name, profile.name))
}

fn uuid(world: &World, device: Handle) -> Answer<String> {
    let (gpu, mig) = either(world, device)?;
    let (given, _, state) = world.gpu(gpu)?;
    match mig {
        None => Ok(given.uuid.clone()),
        Some((gi, ci)) => Ok(state.compute(gi, ci).ok_or(INVALID)?.uuid.clone()),
    }
}

fn pci(gpu: &Gpu) -> Answer<sys::nvmlPciInfo_t> {
    let (domain, bus, device) = parse_bdf(&gpu.bdf).ok_or(INVALID)?;
    Ok(sys::nvmlPciInfo_t {
        busIdLegacy: field(&gpu.bdf.to_uppercase()),
        domain,
        bus,
        device,
        pciDeviceId: gpu.model().pci_device,
        pciSubSystemId: 0x16C1_10DE,
        busId: field(&format!("0000{}", gpu.bdf.to_uppercase())),
    })
}

/// The other end of an NVLink: a GPU, or a switch.
enum Far {
    Gpu(usize),
    Switch,
}

fn far_end(given: &Gpu, link: c_uint) -> Option<Far> {
    let link = link as usize;
    let direct = given.nvlink_to.get(link).map(|peer| Far::Gpu(*peer as usize));
    let switched = link < given.nvlink_to.len() + given.nvswitch_links as usize;
    direct.or_else(|| switched.then_some(Far::Switch))
}

fn link_of(world: &World, device: Handle, link: c_uint) -> Answer<Far> {
    let (given, model, _) = world.gpu(whole(world, device)?)?;
    if given.nvlink_to.is_empty() && given.nvswitch_links == 0 {
        return Err(NOT_SUPPORTED);
    }
    let most = if model.is_hopper_or_later() { 18 } else { 12 };
    if link >= most {
        return Err(INVALID);
    }
    far_end(given, link).ok_or(NOT_FOUND)
}

/// How near two GPUs are: NVML's levels.
fn ancestor(one: &Gpu, two: &Gpu) -> c_uint {
    if one.bdf == two.bdf {
        0
    } else if one.pcie_switch.is_some() && one.pcie_switch == two.pcie_switch {
        10
    } else if one.numa == two.numa {
        40
    } else {
        50
    }
}

symbols! {
    fn nvmlDeviceGetIndex(device: Handle, index: Out<c_uint>) on gpu_of(device) => |world| {
        index.put(c_uint::try_from(whole(world, device)?).map_err(|_| INVALID)?)
    };
    fn nvmlDeviceGetMinorNumber(device: Handle, minor: Out<c_uint>) on gpu_of(device) => |world| {
        let (given, _, _) = world.gpu(whole(world, device)?)?;
        minor.put(given.minor.ok_or(INVALID)?)
    };
    fn nvmlDeviceGetName(device: Handle, out: Out<c_char>, length: c_uint) on gpu_of(device) =>
    |world| {
        text(world, out, length, &name(world, device)?)
    };
    fn nvmlDeviceGetUUID(device: Handle, out: Out<c_char>, length: c_uint) on gpu_of(device) =>
    |world| {
        text(world, out, length, &uuid(world, device)?)
    };
    fn nvmlDeviceGetSerial(device: Handle, out: Out<c_char>, length: c_uint) on gpu_of(device) =>
    |world| {
        let (given, _, _) = world.gpu(whole(world, device)?)?;
        if given.serial.is_empty() {
            return Err(NOT_SUPPORTED);
        }
        text(world, out, length, &given.serial)
    };
    fn nvmlDeviceGetPciInfo_v3(device: Handle, out: Out<sys::nvmlPciInfo_t>) on gpu_of(device) =>
    |world| {
        let (gpu, _) = either(world, device)?;
        out.put(pci(world.gpu(gpu)?.0)?)
    };
    fn nvmlDeviceGetArchitecture(device: Handle, out: Out<c_uint>) on gpu_of(device) => |world| {
        out.put(world.gpu(either(world, device)?.0)?.1.architecture)
    };
    fn nvmlDeviceGetCudaComputeCapability(
        device: Handle, major: Out<c_int>, minor: Out<c_int>,
    ) on gpu_of(device) => |world| {
        let compute = world.gpu(either(world, device)?.0)?.1.compute;
        major.put(compute.0)?;
        minor.put(compute.1)
    };
    fn nvmlDeviceGetCpuAffinity(device: Handle, size: c_uint, set: Out<c_ulong>) on gpu_of(device) =>
    |world| {
        let (given, _, _) = world.gpu(either(world, device)?.0)?;
        let cpus = parse_cpus(&given.cpus).map_err(|_| INVALID)?;
        if cpus.is_empty() {
            return Err(NOT_SUPPORTED);
        }
        for word in 0..size as usize {
            let first = word * WORD_BITS;
            let inside = cpus.iter().filter_map(|cpu| (*cpu as usize).checked_sub(first));
            let bits = inside.filter(|bit| *bit < WORD_BITS);
            set.put_at(word, bits.fold(0, |all, bit| all | 1 << bit))?;
        }
        Ok(())
    };
    fn nvmlDeviceGetNumaNodeId(device: Handle, node: Out<c_uint>) on gpu_of(device) => |world| {
        let (given, _, _) = world.gpu(either(world, device)?.0)?;
        node.put(given.numa.ok_or(NOT_SUPPORTED)?)
    };
    fn nvmlDeviceGetTopologyCommonAncestor(
        device: Handle, other: Handle, out: Out<c_uint>,
    ) on gpu_of(device) => |world| {
        let one = world.gpu(whole(world, device)?)?.0;
        let two = world.gpu(whole(world, other)?)?.0;
        out.put(ancestor(one, two))
    };
    fn nvmlDeviceGetNvLinkState(device: Handle, link: c_uint, out: Out<c_uint>) on gpu_of(device) =>
    |world| {
        match link_of(world, device, link) {
            Ok(_) => out.put(1),
            Err(NOT_FOUND) => out.put(0),
            Err(code) => Err(code),
        }
    };
    fn nvmlDeviceGetNvLinkRemotePciInfo_v2(
        device: Handle, link: c_uint, out: Out<sys::nvmlPciInfo_t>,
    ) on gpu_of(device) => |world| {
        match link_of(world, device, link)? {
            Far::Gpu(peer) => out.put(pci(world.gpu(peer)?.0)?),
            Far::Switch => out.put(sys::nvmlPciInfo_t {
                busIdLegacy: field("0000:05:00.0"),
                domain: 0,
                bus: 5,
                device: 0,
                pciDeviceId: 0x22A3_10DE,
                pciSubSystemId: 0,
                busId: field("00000000:05:00.0"),
            }),
        }
    };
    fn nvmlDeviceGetNvLinkRemoteDeviceType(
        device: Handle, link: c_uint, out: Out<c_uint>,
    ) on gpu_of(device) => |world| {
        match link_of(world, device, link)? {
            Far::Gpu(_) => out.put(0),
            Far::Switch => out.put(2),
        }
    };
    fn nvmlDeviceGetPersistenceMode(device: Handle, mode: Out<c_uint>) on gpu_of(device) => |world| {
        whole(world, device)?;
        mode.put(1)
    };
    fn nvmlDeviceGetComputeMode(device: Handle, mode: Out<c_uint>) on gpu_of(device) => |world| {
        resolve(world, device)?;
        mode.put(0)
    };
}
