//! The library itself: beginning, end, versions, and what tells that it is a fake.

use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::time::Duration;

use nvml_wrapper_sys::bindings as sys;

use super::{In, Out, WHOLE, symbols};
use crate::handle::Handle;
use crate::state::{Code, INVALID};
use crate::world::world;

/// The file that this library was loaded from; `None` where the loader does not say.
pub(crate) fn own_path() -> Option<PathBuf> {
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    let here: *const c_void = (own_path as *const ()).cast();
    // SAFETY: the address is one of this library's and the structure is good for a write.
    let found = unsafe { libc::dladdr(here, &raw mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the loader's name for a loaded file ends with a zero and stays while that is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(OsStr::from_bytes(name.to_bytes()).into())
}

fn begin() -> Code {
    let begun = catch_unwind(|| {
        let delay = {
            let mut held = world();
            held.look();
            held.scenario.init.delay_ms
        };
        std::thread::sleep(Duration::from_millis(delay));
        world().init()
    });
    match begun {
        Ok(Ok(())) => sys::nvmlReturn_enum_NVML_SUCCESS,
        Ok(Err(code)) => code,
        Err(_) => sys::nvmlReturn_enum_NVML_ERROR_UNKNOWN,
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> Code {
    begin()
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> Code {
    begin()
}

#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> Code {
    world().shut_down().err().unwrap_or(sys::nvmlReturn_enum_NVML_SUCCESS)
}

/// Tells that this is no real library: what is wrong with its scenario, an empty text if nothing
/// is. The text stays until the next call.
#[unsafe(no_mangle)]
extern "C" fn penstockFakeNvmlProblem() -> *const c_char {
    let held = world();
    held.problem.as_ref().map_or_else(|| c"".as_ptr(), |problem| problem.as_ptr())
}

#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(code: Code) -> *const c_char {
    let text = match code {
        0 => c"The operation was successful",
        1 => c"NVML was not first initialized with nvmlInit()",
        2 => c"A supplied argument is invalid",
        3 => c"The requested operation is not available on target device",
        4 => c"The current user does not have permission for operation",
        6 => c"A query to find an object was unsuccessful",
        7 => c"An input argument is not large enough",
        9 => c"NVIDIA driver is not loaded",
        10 => c"User provided timeout passed",
        13 => c"Local version of NVML doesn't implement this function",
        15 => c"The GPU has fallen off the bus or has otherwise become inaccessible",
        16 => c"The GPU requires a reset before it can be used again",
        18 => c"RM detects a driver/library version mismatch",
        19 => c"An operation cannot be performed because the GPU is currently in use",
        23 => c"Ran out of critical resources, other than memory",
        25 => c"The provided version is invalid/unsupported",
        _ => c"Unknown Error",
    };
    text.as_ptr()
}

symbols! {
    fn nvmlSystemGetDriverVersion(version: Out<c_char>, length: c_uint) on WHOLE => |world| {
        version.text(length, world.scenario.driver.as_bytes())
    };
    fn nvmlSystemGetNVMLVersion(version: Out<c_char>, length: c_uint) on WHOLE => |world| {
        version.text(length, format!("12.{}", world.scenario.driver).as_bytes())
    };
    fn nvmlSystemGetCudaDriverVersion_v2(version: Out<c_int>) on WHOLE => |world| {
        version.put(world.scenario.cuda)
    };
    fn nvmlSystemGetProcessName(pid: c_uint, name: Out<c_char>, length: c_uint) on WHOLE => |_| {
        let program = std::fs::read(format!("/proc/{pid}/cmdline"));
        let program = program.map_err(|_| sys::nvmlReturn_enum_NVML_ERROR_NOT_FOUND)?;
        name.text(length, program.split(|byte| *byte == 0).next().unwrap_or_default())
    };
    fn nvmlDeviceGetCount_v2(count: Out<c_uint>) on WHOLE => |world| {
        count.put(c_uint::try_from(world.scenario.gpus.len()).map_err(|_| INVALID)?)
    };
    fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: Out<Handle>) on
        u8::try_from(index).ok().map(|gpu| Handle::of(crate::handle::Named::Gpu(gpu), 0)) =>
    |world| {
        let named = crate::handle::Named::Gpu(super::small(index)?);
        device.put(super::handle(world, named)?)
    };
    fn nvmlDeviceGetHandleByUUID(uuid: In<c_char>, device: Out<Handle>) on WHOLE => |world| {
        device.put(super::device::by_uuid(world, uuid.text()?)?)
    };
    fn nvmlDeviceGetHandleByPciBusId_v2(bus: In<c_char>, device: Out<Handle>) on WHOLE => |world| {
        device.put(super::device::by_bus(world, bus.text()?)?)
    };
}
