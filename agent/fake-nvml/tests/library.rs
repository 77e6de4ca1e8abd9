//! The library is loaded and called as NVIDIA's is: by nvml-wrapper, through its C symbols.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings as sys;
use penstock_fake_nvml::{LIBRARY_NAME, SCENARIO_NAME, SYMBOLS, install};
use tempfile::TempDir;

/// A folder with a library of its own: threads of this process load several, and the loader knows
/// a file by its inode.
struct Node {
    dir: TempDir,
}

impl Node {
    fn new(scenario: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        install(dir.path(), scenario).unwrap();
        Self { dir }
    }

    /// Loads a copy of the library: as another process would.
    fn load(&self, name: &str) -> Result<Nvml, NvmlError> {
        let copy = self.dir.path().join(name);
        std::fs::copy(self.dir.path().join(LIBRARY_NAME), &copy).unwrap();
        Nvml::builder().lib_path(copy.as_os_str()).init()
    }

    fn rewrite(&self, scenario: &str) {
        let new = self.dir.path().join("next");
        std::fs::write(&new, scenario).unwrap();
        std::fs::rename(new, self.dir.path().join(SCENARIO_NAME)).unwrap();
    }
}

const H100: &str = "[[gpu]]\nmodel = 'h100-80'\n";

#[test]
fn gpus_are_described() {
    let node = Node::new(
        "driver = '550.163.01'\nnow = 100\n[[gpu]]\nmodel = 'h100-80'\nminor = 4\n\
         bdf = '0000:3b:00.0'\nnuma = 1\ncpus = '0-1,65'\nnvlink_to = [1]\n\
         util = { kind = 'const', percent = 50 }\nproc = [{ pid = 1, mib = 1000 }]\n\
         [[gpu]]\nmodel = 'l40s'\nnvlink_to = [0]\n",
    );
    let nvml = node.load("a").unwrap();
    assert_eq!(nvml.device_count().unwrap(), 2);
    assert_eq!(nvml.sys_driver_version().unwrap(), "550.163.01");
    let gpu = nvml.device_by_index(0).unwrap();
    assert_eq!(gpu.name().unwrap(), "NVIDIA H100 80GB HBM3");
    assert!(gpu.uuid().unwrap().starts_with("GPU-"));
    assert_eq!((gpu.minor_number().unwrap(), gpu.index().unwrap()), (4, 0));
    assert_eq!(gpu.pci_info().unwrap().bus_id, "00000000:3B:00.0");
    assert_eq!(gpu.cpu_affinity(2).unwrap(), [3, 2]);
    assert_eq!(gpu.numa_node_id().unwrap(), 1);
    let memory = gpu.memory_info().unwrap();
    assert_eq!((memory.total >> 20, memory.used >> 20), (81_559, 1000));
    assert_eq!(gpu.utilization_rates().unwrap().gpu, 50);
    assert_eq!(gpu.power_usage().unwrap(), 95_000 + 6_050 * 50);
    assert_eq!(gpu.total_energy_consumption().unwrap(), 100 * (95_000 + 605_000 / 2));
    assert_eq!(gpu.temperature(TemperatureSensor::Gpu).unwrap(), 53);
    assert_eq!(gpu.running_compute_processes().unwrap().len(), 1);
    let link = gpu.link_wrapper_for(0);
    assert!(link.is_active().unwrap());
    let other = nvml.device_by_index(1).unwrap();
    assert_eq!(link.remote_pci_info().unwrap().bus_id, other.pci_info().unwrap().bus_id);
    assert!(!gpu.link_wrapper_for(1).is_active().unwrap());
    assert!(matches!(other.mig_mode(), Err(NvmlError::NotSupported)));
    assert!(matches!(nvml.device_by_index(2), Err(NvmlError::InvalidArg)));
    let uuid = other.uuid().unwrap();
    assert_eq!(nvml.device_by_uuid(uuid.as_str()).unwrap().index().unwrap(), 1);
}

#[test]
fn a_library_that_fails_to_start_says_so() {
    for (code, expect) in [(9, "DriverNotLoaded"), (18, "LibRmVersionMismatch")] {
        let node = Node::new(&format!("init = {{ code = {code} }}\n{H100}"));
        let error = node.load("a").unwrap_err();
        assert!(format!("{error:?}").contains(expect), "{error:?}");
    }
    let node = Node::new(H100);
    node.rewrite("[[gpu]]\nmodel = 'h1'");
    assert!(matches!(node.load("a"), Err(NvmlError::Unknown)));
}

#[test]
fn symbols_of_newer_drivers_can_be_absent() {
    let missing = ["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetNumaNodeId"];
    let node = Node::new(&format!("missing = {missing:?}\n{H100}"));
    let nvml = node.load("a").unwrap();
    let gpu = nvml.device_by_index(0).unwrap();
    assert!(matches!(gpu.memory_info(), Err(NvmlError::FailedToLoadSymbol(_))));
    assert!(matches!(gpu.numa_node_id(), Err(NvmlError::FailedToLoadSymbol(_))));
    assert_eq!(gpu.name().unwrap(), "NVIDIA H100 80GB HBM3");
}

#[test]
fn every_process_sees_what_one_of_them_changed() {
    let node = Node::new("[[gpu]]\nmodel = 'h100-80'\n[[gpu]]\nmodel = 'a100-40'\n");
    let (one, two) = (node.load("a").unwrap(), node.load("b").unwrap());
    let (here, there) = (one.device_by_index(0).unwrap(), two.device_by_index(0).unwrap());
    assert_eq!(here.set_mig_mode(true).unwrap(), 0);
    assert_eq!(there.mig_mode().unwrap().current, 1);
    let gi = create(&one, &here, 9, 4).unwrap();
    assert!(matches!(create(&two, &there, 14, 4), Err(NvmlError::UnexpectedVariant(23))));
    assert!(matches!(there.utilization_rates(), Err(NvmlError::NotSupported)));
    let device = compute(&one, gi);
    let uuid = device.uuid().unwrap();
    assert!(uuid.starts_with("MIG-"));
    assert_eq!(two.device_by_uuid(uuid.as_str()).unwrap().uuid().unwrap(), uuid);
    assert_eq!(device.name().unwrap(), "NVIDIA H100 80GB HBM3 MIG 3g.40gb");
    assert_eq!(device.memory_info().unwrap().total >> 20, 40_448);
    let ampere = one.device_by_index(1).unwrap();
    assert_eq!(ampere.set_mig_mode(true).unwrap(), 16);
    assert_eq!(two.device_by_index(1).unwrap().mig_mode().unwrap().pending, 1);
}

#[test]
fn an_event_is_told_once_and_with_its_instance() {
    let head = format!("now = 10\n{H100}");
    let at = |t: u32, xid: u32| format!("[[at]]\nt = {t}\ngpu = 0\nxid = {xid}\ngi = 5\nci = 0\n");
    let node = Node::new(&format!("{head}{}", at(5, 13)));
    let nvml = node.load("a").unwrap();
    let gpu = nvml.device_by_index(0).unwrap();
    let events = nvml_wrapper::bitmasks::event::EventTypes::CRITICAL_XID_ERROR;
    let set = gpu.register_events(events, nvml.create_event_set().unwrap()).unwrap();
    assert!(matches!(set.wait(1), Err(NvmlError::Timeout)), "it was over before");
    node.rewrite(&format!("{head}{}{}{}", at(5, 13), at(8, 94), at(11, 79)));
    let data = wait(&nvml, &set);
    assert_eq!((data.eventData, data.gpuInstanceId, data.computeInstanceId), (94, 5, 0));
    assert!(matches!(set.wait(1), Err(NvmlError::Timeout)), "79 is yet to come");
    node.rewrite(
        &format!("{head}{}{}{}", at(5, 13), at(8, 94), at(9, 79)).replace("now = 10", "now = 11"),
    );
    assert_eq!(wait(&nvml, &set).eventData, 79);
}

#[test]
fn a_lost_gpu_does_not_take_its_siblings_along() {
    let lost = "[[at]]\nt = 3\ngpu = 0\nlost = true\n";
    let node = Node::new(&format!("now = 2\n{H100}{H100}{lost}"));
    let nvml = node.load("a").unwrap();
    let (first, second) = (nvml.device_by_index(0).unwrap(), nvml.device_by_index(1).unwrap());
    first.name().unwrap();
    node.rewrite(&format!("now = 3\n{H100}{H100}{lost}"));
    assert!(matches!(first.name(), Err(NvmlError::GpuLost)));
    assert!(matches!(nvml.device_by_index(0), Err(NvmlError::GpuLost)));
    second.name().unwrap();
    assert_eq!(nvml.device_count().unwrap(), 2);
}

#[test]
fn a_hang_ends_when_the_scenario_says_so() {
    let node = Node::new(&format!(
        "{H100}{H100}[[fault]]\ncall = 'nvmlDeviceGetName'\ngpu = 0\nafter = 1\nhang = true\n"
    ));
    let nvml = node.load("a").unwrap();
    let (first, second) = (nvml.device_by_index(0).unwrap(), nvml.device_by_index(1).unwrap());
    first.name().unwrap();
    std::thread::scope(|scope| {
        let hung = scope.spawn(|| first.name().unwrap());
        // Another thread's calls go on.
        second.name().unwrap();
        node.rewrite(&format!("{H100}{H100}"));
        hung.join().unwrap();
    });
}

#[test]
fn faults_come_as_the_scenario_says() {
    let node = Node::new(&format!(
        "{H100}[[fault]]\ncall = 'nvmlDeviceGetPowerUsage'\ntimes = 1\ncode = 999\n\
         [[fault]]\ncall = 'nvmlDeviceGetName'\ngarbage = true\n"
    ));
    let nvml = node.load("a").unwrap();
    let gpu = nvml.device_by_index(0).unwrap();
    assert!(matches!(gpu.power_usage(), Err(NvmlError::Unknown)));
    gpu.power_usage().unwrap();
    assert!(matches!(gpu.name(), Err(NvmlError::Utf8Error(_))));
}

#[test]
fn instances_vanish_at_a_boot_and_old_handles_with_them() {
    let text = "mig = { current = true }\ngi = [{ id = 2, profile = 9, start = 4, ci = [{ id = 0, profile = 2 }] }]\n";
    let node = Node::new(&format!("[[gpu]]\nmodel = 'a100-40'\n{text}"));
    let nvml = node.load("a").unwrap();
    let gpu = nvml.device_by_index(0).unwrap();
    let device = gpu.mig_device_by_index(0).unwrap();
    assert_eq!(device.memory_info().unwrap().total >> 20, 19_968);
    node.rewrite(&format!("boot = 1\n[[gpu]]\nmodel = 'a100-40'\n{text}"));
    let after = node.load("b").unwrap();
    let gpu = after.device_by_index(0).unwrap();
    assert_eq!(gpu.mig_mode().unwrap().current, 1);
    assert!(matches!(gpu.mig_device_by_index(0), Err(NvmlError::NotFound)));
    assert!(matches!(device.memory_info(), Err(NvmlError::InvalidArg)));
}

#[test]
fn instances_are_measured_one_by_one() {
    let node = Node::new(
        "now = 5\n[[gpu]]\nmodel = 'h100-80'\nmig = { current = true }\n\
         gi = [{ id = 1, profile = 9, start = 4 }, { id = 3, profile = 14, start = 0 }]\n\
         proc = [{ pid = 9, mib = 100, gi = 1, ci = 0, sm = 80 }]\n",
    );
    let nvml = node.load("a").unwrap();
    let gpu = nvml.device_by_index(0).unwrap();
    assert!(gpu.gpm_support().unwrap());
    for (gi, expect) in [(1, 80.0), (3, 0.0)] {
        let (before, after) = (gpu.gpm_mig_sample(gi).unwrap(), gpu.gpm_mig_sample(gi).unwrap());
        let metric = nvml_wrapper::enums::gpm::GpmMetricId::SmUtil;
        let values = nvml_wrapper::gpm::gpm_metrics_get(&nvml, &before, &after, &[metric]).unwrap();
        let value = values[0].as_ref().unwrap().value;
        assert!((value - expect).abs() < 0.01, "instance {gi}: {value}");
    }
    assert!(matches!(gpu.gpm_sample(), Err(NvmlError::NotSupported)));
}

#[test]
fn every_symbol_that_faults_may_name_is_there() {
    let path = penstock_fake_nvml::library_path().unwrap();
    let library = std::fs::read(&path).unwrap();
    for name in SYMBOLS.iter().chain(&["penstockFakeNvmlProblem"]) {
        let wanted = [&[0], name.as_bytes(), &[0]].concat();
        assert!(library.windows(wanted.len()).any(|w| w == wanted), "{name} in {}", path.display());
    }
}

/// Creates an instance by its raw symbol.
fn create(
    nvml: &Nvml,
    gpu: &Device<'_>,
    id: u32,
    start: u32,
) -> Result<sys::nvmlGpuInstance_t, NvmlError> {
    use nvml_wrapper::error::{nvml_sym, nvml_try};
    let lib = nvml.lib();
    let mut info = std::mem::MaybeUninit::<sys::nvmlGpuInstancePlacement_t>::zeroed();
    let size = if id == 9 { 4 } else { 2 };
    info.write(sys::nvmlGpuInstancePlacement_t { start, size });
    let symbol = nvml_sym(lib.nvmlDeviceCreateGpuInstanceWithPlacement.as_ref())?;
    let mut gi = std::ptr::null_mut();
    // SAFETY: all pointers are good for the call.
    nvml_try(unsafe { symbol(gpu.handle(), id, info.as_ptr(), &raw mut gi) })?;
    Ok(gi)
}

fn compute(nvml: &Nvml, gi: sys::nvmlGpuInstance_t) -> Device<'_> {
    use nvml_wrapper::error::{nvml_sym, nvml_try};
    let lib = nvml.lib();
    let mut ci = std::ptr::null_mut();
    let create = nvml_sym(lib.nvmlGpuInstanceCreateComputeInstance.as_ref()).unwrap();
    // SAFETY: all pointers are good for the call.
    nvml_try(unsafe { create(gi, 2, &raw mut ci) }).unwrap();
    let mut info = std::mem::MaybeUninit::<sys::nvmlComputeInstanceInfo_t>::zeroed();
    let get = nvml_sym(lib.nvmlComputeInstanceGetInfo_v2.as_ref()).unwrap();
    // SAFETY: as above.
    nvml_try(unsafe { get(ci, info.as_mut_ptr()) }).unwrap();
    // SAFETY: all bits zero is a value of it, and the call filled it in.
    let device = unsafe { info.assume_init() }.device;
    // SAFETY: the handle is of this library.
    unsafe { Device::new(device, nvml) }
}

fn wait(nvml: &Nvml, set: &nvml_wrapper::EventSet<'_>) -> sys::nvmlEventData_t {
    let lib = nvml.lib();
    let mut data = std::mem::MaybeUninit::<sys::nvmlEventData_t>::zeroed();
    let symbol = lib.nvmlEventSetWait_v2.as_ref().unwrap();
    // SAFETY: the set is alive and the place good for the call.
    let code = unsafe { symbol(set.handle(), data.as_mut_ptr(), 5000) };
    assert_eq!(code, 0);
    // SAFETY: all bits zero is a value of it, and the call filled it in.
    unsafe { data.assume_init() }
}

#[test]
fn a_folder_is_set_up_again_with_what_was_changed() {
    let node = Node::new(H100);
    let nvml = node.load("a").unwrap();
    nvml.device_by_index(0).unwrap().set_mig_mode(true).unwrap();
    install(node.dir.path(), &format!("{H100}serial = 'x'\n")).unwrap();
    let again = node.load("b").unwrap();
    let gpu = again.device_by_index(0).unwrap();
    assert_eq!((gpu.mig_mode().unwrap().current, gpu.serial().unwrap().as_str()), (1, "x"));
    let wrong = install(node.dir.path(), "[[gpu]]").unwrap_err();
    assert!(wrong.to_string().contains("missing field `model`"), "{wrong}");
}
