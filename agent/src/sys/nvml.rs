//! Which calls of NVML does the wrapper lack, or get wrong?
//!
//! All that makes and destroys instances is missing there. `Device::possible_placements` of 0.13.0
//! always gives an empty list, `NvLink::remote_device_type` always `Unknown`, and `EventData` drops
//! the ids of the instances. Handles of instances are plain pointers that go stale when a GPU is
//! reset or an instance destroyed: they are fetched anew for each change and never stored.

use std::ffi::{CStr, CString, c_char, c_uint};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nvml_wrapper::Device;
use nvml_wrapper::Nvml;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings as sys;

/// What a call gives.
type Answer<T> = Result<T, NvmlError>;

/// Most values that a list may have before it is taken for garbage.
const MAX_LIST: c_uint = 256;

/// Calls a symbol that may be absent.
macro_rules! call {
    ($nvml:expr, $symbol:ident($($argument:expr),* $(,)?)) => {{
        let symbol = nvml_sym($nvml.lib().$symbol.as_ref())?;
        // SAFETY: the symbol is NVML's with the type that its header gives; handles come from the
        // same library, and every pointer is good for what the header says is written there.
        nvml_try(unsafe { symbol($($argument),*) })
    }};
}

/// Calls a symbol that fills in one value.
macro_rules! fill {
    ($nvml:expr, $symbol:ident($($argument:expr),* ; $kind:ty)) => {{
        let mut value = MaybeUninit::<$kind>::zeroed();
        call!($nvml, $symbol($($argument,)* value.as_mut_ptr()))?;
        // SAFETY: the value is made of integers, pointers and arrays of them, for which all bits
        // zero is valid, and the call has filled it in.
        unsafe { value.assume_init() }
    }};
}

/// A GPU instance of a device, good until the next change of that device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Instance {
    raw: sys::nvmlGpuInstance_t,
    /// The hardware's number of its profile.
    pub(crate) profile: u32,
    /// First memory slice.
    pub(crate) start: u32,
    /// Memory slices.
    pub(crate) size: u32,
}

/// A compute instance, good until the next change of its device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Compute {
    raw: sys::nvmlComputeInstance_t,
    device: sys::nvmlDevice_t,
}

fn handle(device: &Device<'_>) -> sys::nvmlDevice_t {
    // SAFETY: the handle is passed to the library that it came from and kept nowhere.
    unsafe { device.handle() }
}

/// The scenario's problem of a fake library, empty if it has none; `None` for a real library, and
/// for a file that is none.
pub(crate) fn fake_problem(library: &Path) -> Option<String> {
    let path = CString::new(library.as_os_str().as_bytes()).ok()?;
    // SAFETY: loading runs the library's initialisers, as loading it for its use does; the handle is
    // kept open, so that nothing found in it goes away.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        return None;
    }
    // SAFETY: the handle is open and the name ends with a zero.
    let symbol = unsafe { libc::dlsym(handle, c"penstockFakeNvmlProblem".as_ptr()) };
    if symbol.is_null() {
        return None;
    }
    // SAFETY: no other library has a symbol of this name, and in ours it has this type.
    let ask: extern "C" fn() -> *const c_char = unsafe { std::mem::transmute(symbol) };
    let text = ask();
    // SAFETY: the text ends with a zero and stays until the next call of the library.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// Total and used memory, bytes, of a driver that has no second version of the question.
pub(crate) fn memory_before_v2(nvml: &Nvml, device: &Device<'_>) -> Answer<(u64, u64)> {
    let memory: sys::nvmlMemory_t =
        fill!(nvml, nvmlDeviceGetMemoryInfo(handle(device); sys::nvmlMemory_t));
    Ok((memory.total, memory.used))
}

/// Whether a switch is at the other end of an NVLink.
pub(crate) fn ends_at_switch(nvml: &Nvml, device: &Device<'_>, link: u32) -> Answer<bool> {
    let kind: c_uint =
        fill!(nvml, nvmlDeviceGetNvLinkRemoteDeviceType(handle(device), link; c_uint));
    Ok(kind == sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH)
}

/// NVML's level of the common ancestor of two GPUs on PCIe.
pub(crate) fn common_ancestor(nvml: &Nvml, one: &Device<'_>, two: &Device<'_>) -> Answer<u32> {
    let (one, two) = (handle(one), handle(two));
    Ok(fill!(nvml, nvmlDeviceGetTopologyCommonAncestor(one, two; c_uint)))
}

/// A profile by NVML's number: hardware's number, compute slices, most, MiB.
pub(crate) struct Profile {
    pub(crate) id: u32,
    pub(crate) compute: u32,
    pub(crate) most: u32,
    pub(crate) memory_mib: u64,
}

/// The profile that NVML's number names.
pub(crate) fn profile(nvml: &Nvml, device: &Device<'_>, number: u32) -> Answer<Profile> {
    let info: sys::nvmlGpuInstanceProfileInfo_t = fill!(
        nvml,
        nvmlDeviceGetGpuInstanceProfileInfo(
            handle(device), number; sys::nvmlGpuInstanceProfileInfo_t)
    );
    let (id, compute, most) = (info.id, info.sliceCount, info.instanceCount);
    Ok(Profile { id, compute, most, memory_mib: info.memorySizeMB })
}

/// The name of a profile, without the word MIG; only newer drivers tell.
pub(crate) fn profile_name(nvml: &Nvml, device: &Device<'_>, number: u32) -> Answer<String> {
    let mut info = MaybeUninit::<sys::nvmlGpuInstanceProfileInfo_v2_t>::zeroed();
    let size = u32::try_from(size_of::<sys::nvmlGpuInstanceProfileInfo_v2_t>()).unwrap_or(0);
    // SAFETY: the place is the structure's own, whose first field is the version.
    unsafe { (&raw mut (*info.as_mut_ptr()).version).write(size | 2 << 24) };
    call!(nvml, nvmlDeviceGetGpuInstanceProfileInfoV(handle(device), number, info.as_mut_ptr()))?;
    // SAFETY: it is made of integers, for which all bits zero is valid, and was filled in.
    let info = unsafe { info.assume_init() };
    let bytes: Vec<u8> = info.name.iter().map(|letter| letter.to_ne_bytes()[0]).collect();
    let text = CStr::from_bytes_until_nul(&bytes).map_err(|_| NvmlError::Unknown)?;
    let text = text.to_str()?;
    Ok(text.strip_prefix("MIG ").unwrap_or(text).to_owned())
}

/// Where instances of the profile with the hardware's number `id` can be: starts, and the size.
pub(crate) fn placements(nvml: &Nvml, device: &Device<'_>, id: u32) -> Answer<(Vec<u32>, u32)> {
    let mut count: c_uint = 0;
    let ask = |places: *mut sys::nvmlGpuInstancePlacement_t, count: *mut c_uint| {
        let device = handle(device);
        call!(nvml, nvmlDeviceGetGpuInstancePossiblePlacements_v2(device, id, places, count))
    };
    ask(std::ptr::null_mut(), &raw mut count)?;
    let none = sys::nvmlGpuInstancePlacement_t { start: 0, size: 0 };
    let mut places = vec![none; count.min(MAX_LIST) as usize];
    if places.is_empty() {
        return Ok((Vec::new(), 0));
    }
    ask(places.as_mut_ptr(), &raw mut count)?;
    places.truncate(count as usize);
    let size = places.first().map_or(0, |place| place.size);
    Ok((places.iter().map(|place| place.start).collect(), size))
}

/// The instances of a profile, in no order.
pub(crate) fn instances(
    nvml: &Nvml,
    device: &Device<'_>,
    profile: &Profile,
) -> Answer<Vec<Instance>> {
    // The call has no size: the list must have room for as many as there can be.
    let mut list = vec![std::ptr::null_mut(); profile.most.clamp(8, MAX_LIST) as usize];
    let mut count: c_uint = 0;
    let (device, place) = (handle(device), list.as_mut_ptr());
    call!(nvml, nvmlDeviceGetGpuInstances(device, profile.id, place, &raw mut count))?;
    list.truncate(count as usize);
    list.into_iter().map(|raw| instance(nvml, raw)).collect()
}

/// The instance with an id.
pub(crate) fn instance_by_id(nvml: &Nvml, device: &Device<'_>, id: u32) -> Answer<Instance> {
    let raw: sys::nvmlGpuInstance_t =
        fill!(nvml, nvmlDeviceGetGpuInstanceById(handle(device), id; sys::nvmlGpuInstance_t));
    instance(nvml, raw)
}

fn instance(nvml: &Nvml, raw: sys::nvmlGpuInstance_t) -> Answer<Instance> {
    let info: sys::nvmlGpuInstanceInfo_t =
        fill!(nvml, nvmlGpuInstanceGetInfo(raw; sys::nvmlGpuInstanceInfo_t));
    let (start, size) = (info.placement.start, info.placement.size);
    Ok(Instance { raw, profile: info.profileId, start, size })
}

/// Makes an instance at an explicit place: left to choose, a driver fragments the GPU.
pub(crate) fn create_instance(
    nvml: &Nvml,
    device: &Device<'_>,
    id: u32,
    (start, size): (u32, u32),
) -> Answer<Instance> {
    let place = sys::nvmlGpuInstancePlacement_t { start, size };
    let device = handle(device);
    let raw: sys::nvmlGpuInstance_t = fill!(
        nvml,
        nvmlDeviceCreateGpuInstanceWithPlacement(
            device, id, &raw const place; sys::nvmlGpuInstance_t)
    );
    instance(nvml, raw)
}

/// Destroys an instance that has no compute instance.
pub(crate) fn destroy_instance(nvml: &Nvml, gi: Instance) -> Answer<()> {
    call!(nvml, nvmlGpuInstanceDestroy(gi.raw))
}

/// Every compute instance of an instance.
pub(crate) fn computes(nvml: &Nvml, gi: Instance) -> Answer<Vec<Compute>> {
    let mut all = Vec::new();
    for number in 0..sys::NVML_COMPUTE_INSTANCE_PROFILE_COUNT {
        let Ok(info) = compute_profile(nvml, gi, number) else { continue };
        let mut list = vec![std::ptr::null_mut(); info.instanceCount.clamp(8, MAX_LIST) as usize];
        let mut count: c_uint = 0;
        let place = list.as_mut_ptr();
        call!(nvml, nvmlGpuInstanceGetComputeInstances(gi.raw, info.id, place, &raw mut count))?;
        list.truncate(count as usize);
        for raw in list {
            all.push(compute(nvml, raw)?);
        }
    }
    Ok(all)
}

fn compute_profile(
    nvml: &Nvml,
    gi: Instance,
    number: u32,
) -> Answer<sys::nvmlComputeInstanceProfileInfo_t> {
    let engine = sys::NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED;
    Ok(fill!(
        nvml,
        nvmlGpuInstanceGetComputeInstanceProfileInfo(
            gi.raw, number, engine; sys::nvmlComputeInstanceProfileInfo_t)
    ))
}

fn compute(nvml: &Nvml, raw: sys::nvmlComputeInstance_t) -> Answer<Compute> {
    let info: sys::nvmlComputeInstanceInfo_t =
        fill!(nvml, nvmlComputeInstanceGetInfo_v2(raw; sys::nvmlComputeInstanceInfo_t));
    Ok(Compute { raw, device: info.device })
}

/// Makes the compute instance that is as large as its GPU instance.
pub(crate) fn create_compute(nvml: &Nvml, gi: Instance, slices: u32) -> Answer<Compute> {
    let profiles = 0..sys::NVML_COMPUTE_INSTANCE_PROFILE_COUNT;
    let mut infos = profiles.filter_map(|number| compute_profile(nvml, gi, number).ok());
    let whole = infos.find(|info| info.sliceCount == slices).ok_or(NvmlError::NotSupported)?;
    let raw: sys::nvmlComputeInstance_t = fill!(
        nvml,
        nvmlGpuInstanceCreateComputeInstance(gi.raw, whole.id; sys::nvmlComputeInstance_t)
    );
    compute(nvml, raw)
}

/// Destroys a compute instance.
pub(crate) fn destroy_compute(nvml: &Nvml, ci: Compute) -> Answer<()> {
    call!(nvml, nvmlComputeInstanceDestroy(ci.raw))
}

/// The MIG device of a compute instance.
pub(crate) fn device_of(nvml: &Nvml, ci: Compute) -> Device<'_> {
    // SAFETY: the handle came from this library just now.
    unsafe { Device::new(ci.device, nvml) }
}

/// The ids of a MIG device's GPU instance and compute instance.
pub(crate) fn instance_ids(nvml: &Nvml, device: &Device<'_>) -> Answer<(u32, u32)> {
    let gi: c_uint = fill!(nvml, nvmlDeviceGetGpuInstanceId(handle(device); c_uint));
    let ci: c_uint = fill!(nvml, nvmlDeviceGetComputeInstanceId(handle(device); c_uint));
    Ok((gi, ci))
}

/// An event of a GPU.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    /// Index of the GPU; `None`: it cannot be told any more.
    pub(crate) gpu: Option<u32>,
    /// Bits of the kind.
    pub(crate) kind: u64,
    /// The XID where the kind is one.
    pub(crate) data: u64,
    /// GPU instance; `None`: the whole GPU.
    pub(crate) gi: Option<u32>,
}

/// Events that are waited for; freed at its end.
#[derive(Debug)]
pub(crate) struct Events<'n> {
    nvml: &'n Nvml,
    set: nvml_wrapper::EventSet<'n>,
    /// Handles of the GPUs that are registered, with their index: a lost one does not tell it.
    known: Vec<(sys::nvmlDevice_t, u32)>,
}

impl<'n> Events<'n> {
    /// An empty set.
    pub(crate) fn new(nvml: &'n Nvml) -> Answer<Self> {
        Ok(Self { nvml, set: nvml.create_event_set()?, known: Vec::new() })
    }

    /// Adds the events of one GPU; the wrapper's own call would end the set for all where one GPU
    /// is lost.
    pub(crate) fn register(&mut self, device: &Device<'_>, index: u32, kinds: u64) -> Answer<()> {
        // SAFETY: the set lives as long as this value, and the call keeps no copy.
        let set = unsafe { self.set.handle() };
        call!(self.nvml, nvmlDeviceRegisterEvents(handle(device), kinds, set))?;
        self.known.push((handle(device), index));
        Ok(())
    }

    /// The kinds that a GPU can tell.
    pub(crate) fn supported(&self, device: &Device<'_>) -> Answer<u64> {
        Ok(fill!(self.nvml, nvmlDeviceGetSupportedEventTypes(handle(device); u64)))
    }

    /// The next event; `None` if there is none within `timeout_ms`.
    pub(crate) fn wait(&self, timeout_ms: u32) -> Answer<Option<Event>> {
        // SAFETY: as in `register`.
        let set = unsafe { self.set.handle() };
        let mut data = MaybeUninit::<sys::nvmlEventData_t>::zeroed();
        match call!(self.nvml, nvmlEventSetWait_v2(set, data.as_mut_ptr(), timeout_ms)) {
            Err(NvmlError::Timeout) => return Ok(None),
            waited => waited?,
        }
        // SAFETY: it is made of integers and a pointer, for which all bits zero is valid, and was
        // filled in.
        let data = unsafe { data.assume_init() };
        let known = self.known.iter().find(|(handle, _)| *handle == data.device);
        // SAFETY: the handle came from this library just now.
        let device = unsafe { Device::new(data.device, self.nvml) };
        Ok(Some(Event {
            gpu: known.map(|(_, index)| *index).or_else(|| device.index().ok()),
            kind: data.eventType,
            data: data.eventData,
            gi: (data.gpuInstanceId != u32::MAX).then_some(data.gpuInstanceId),
        }))
    }
}
