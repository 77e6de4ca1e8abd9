//! How do C's calls become questions to the world?
//!
//! The only place with `unsafe`. Pointers arrive in [`Out`] and [`In`], which a C caller makes by
//! calling; handles are numbers. Every call goes through [`serve`]: is the library initialised, is
//! something to go wrong with this call, is the GPU lost; and only then the call itself.

mod device;
mod events;
mod measure;
mod mig;
mod pointers;
mod samples;
mod system;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use nvml_wrapper_sys::bindings as sys;

use crate::handle::{Handle, Named};
use crate::state::{Answer, Code, INVALID};
use crate::world::{Verdict, World, world};

pub(crate) use events::Waiting;
use pointers::{In, Out};
pub(crate) use samples::Sample;
pub(crate) use system::own_path;

/// How often a call that hangs looks whether it still shall.
const HANG_LOOK: Duration = Duration::from_millis(50);

/// Every symbol of NVML that this library has.
pub const SYMBOLS: &[&str] = &[
    "nvmlInit_v2",
    "nvmlInitWithFlags",
    "nvmlShutdown",
    "nvmlErrorString",
    "nvmlSystemGetDriverVersion",
    "nvmlSystemGetNVMLVersion",
    "nvmlSystemGetCudaDriverVersion_v2",
    "nvmlSystemGetProcessName",
    "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetHandleByUUID",
    "nvmlDeviceGetHandleByPciBusId_v2",
    "nvmlDeviceGetIndex",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetName",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetSerial",
    "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetArchitecture",
    "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetProcessUtilization",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetEccMode",
    "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetRemappedRows",
    "nvmlDeviceGetCpuAffinity",
    "nvmlDeviceGetNumaNodeId",
    "nvmlDeviceGetTopologyCommonAncestor",
    "nvmlDeviceGetNvLinkState",
    "nvmlDeviceGetNvLinkRemotePciInfo_v2",
    "nvmlDeviceGetNvLinkRemoteDeviceType",
    "nvmlDeviceGetPersistenceMode",
    "nvmlDeviceGetComputeMode",
    "nvmlDeviceGetSupportedEventTypes",
    "nvmlDeviceRegisterEvents",
    "nvmlEventSetCreate",
    "nvmlEventSetWait_v2",
    "nvmlEventSetFree",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceSetMigMode",
    "nvmlDeviceGetGpuInstanceProfileInfo",
    "nvmlDeviceGetGpuInstanceProfileInfoV",
    "nvmlDeviceGetGpuInstancePossiblePlacements_v2",
    "nvmlDeviceGetGpuInstanceRemainingCapacity",
    "nvmlDeviceCreateGpuInstanceWithPlacement",
    "nvmlDeviceCreateGpuInstance",
    "nvmlDeviceGetGpuInstances",
    "nvmlDeviceGetGpuInstanceById",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetMigDeviceHandleByIndex",
    "nvmlDeviceGetDeviceHandleFromMigDeviceHandle",
    "nvmlDeviceIsMigDeviceHandle",
    "nvmlDeviceGetGpuInstanceId",
    "nvmlDeviceGetComputeInstanceId",
    "nvmlDeviceGetAttributes_v2",
    "nvmlGpuInstanceGetInfo",
    "nvmlGpuInstanceDestroy",
    "nvmlGpuInstanceGetComputeInstanceProfileInfo",
    "nvmlGpuInstanceCreateComputeInstance",
    "nvmlGpuInstanceGetComputeInstanceById",
    "nvmlGpuInstanceGetComputeInstances",
    "nvmlComputeInstanceGetInfo_v2",
    "nvmlComputeInstanceDestroy",
    "nvmlGpmQueryDeviceSupport",
    "nvmlGpmSampleAlloc",
    "nvmlGpmSampleFree",
    "nvmlGpmSampleGet",
    "nvmlGpmMigSampleGet",
    "nvmlGpmMetricsGet",
];

/// Defines symbols of the library. The body of each gives an [`Answer`]; a call that concerns a
/// GPU names the handle that says which before its other arguments.
macro_rules! symbols {
    ($($(#[$meta:meta])* fn $name:ident($($arg:ident: $kind:ty),* $(,)?) on $on:expr => $body:expr;)+) => { $(
        $(#[$meta])*
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($arg: $kind),*) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
            $crate::abi::serve(stringify!($name), $on, $body)
        }
    )+ };
}
use symbols;

/// Which GPU a call concerns; none: the whole library.
fn gpu_of(handle: Handle) -> Option<Handle> {
    Some(handle)
}

/// No GPU is concerned.
const WHOLE: Option<Handle> = None;

/// Serves one call.
fn serve(
    call: &'static str,
    on: Option<Handle>,
    body: impl FnOnce(&mut World) -> Answer<()>,
) -> Code {
    let served = catch_unwind(AssertUnwindSafe(|| {
        let gpu = on.and_then(|handle| handle.named()).and_then(|(named, _)| index(named));
        loop {
            let mut held = world();
            if !held.is_initialised() {
                return Err(sys::nvmlReturn_enum_NVML_ERROR_UNINITIALIZED);
            }
            held.look();
            match held.judge(call, gpu) {
                Verdict::Well => return body(&mut held),
                Verdict::Refuse(code) => return Err(code),
                Verdict::Abort => std::process::abort(),
                Verdict::Wait(time) => {
                    drop(held);
                    std::thread::sleep(time);
                    let mut held = world();
                    held.garbage = false;
                    return body(&mut held);
                }
                Verdict::Hang => {
                    drop(held);
                    std::thread::sleep(HANG_LOOK);
                }
            }
        }
    }));
    match served {
        Ok(Ok(())) => sys::nvmlReturn_enum_NVML_SUCCESS,
        Ok(Err(code)) => code,
        // A panic must not run into C.
        Err(_) => sys::nvmlReturn_enum_NVML_ERROR_UNKNOWN,
    }
}

/// The GPU that `named` belongs to.
fn index(named: Named) -> Option<usize> {
    match named {
        Named::Gpu(gpu)
        | Named::Mig(gpu, ..)
        | Named::Instance(gpu, _)
        | Named::Compute(gpu, ..) => Some(usize::from(gpu)),
        Named::Events(_) | Named::Sample(_) => None,
    }
}

/// What `handle` names, if it is of the GPU's present epoch and still exists.
fn resolve(world: &World, handle: Handle) -> Answer<Named> {
    let (named, epoch) = handle.named().ok_or(INVALID)?;
    let Some(gpu) = index(named) else { return Ok(named) };
    let (_, _, state) = world.gpu(gpu)?;
    let exists = match named {
        Named::Mig(_, gi, ci) | Named::Compute(_, gi, ci) => {
            state.compute(gi.into(), ci.into()).is_some()
        }
        Named::Instance(_, gi) => state.instance(gi.into()).is_some(),
        Named::Gpu(_) | Named::Events(_) | Named::Sample(_) => true,
    };
    if exists && state.epoch == epoch { Ok(named) } else { Err(INVALID) }
}

/// The index of a whole GPU; a MIG device is none.
fn whole(world: &World, handle: Handle) -> Answer<usize> {
    match resolve(world, handle)? {
        Named::Gpu(gpu) => Ok(gpu.into()),
        Named::Mig(..) => Err(sys::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED),
        _ => Err(INVALID),
    }
}

/// The GPU of a handle of a whole one or a MIG device, and the ids of the latter.
fn either(world: &World, handle: Handle) -> Answer<(usize, Option<(u32, u32)>)> {
    match resolve(world, handle)? {
        Named::Gpu(gpu) => Ok((gpu.into(), None)),
        Named::Mig(gpu, gi, ci) => Ok((gpu.into(), Some((gi.into(), ci.into())))),
        _ => Err(INVALID),
    }
}

/// A handle for something of a GPU as it is now.
fn handle(world: &World, named: Named) -> Answer<Handle> {
    let gpu = index(named).ok_or(INVALID)?;
    Ok(Handle::of(named, world.gpu(gpu)?.2.epoch))
}

/// A small number in a handle.
fn small(number: impl TryInto<u8>) -> Answer<u8> {
    number.try_into().map_err(|_| INVALID)
}
