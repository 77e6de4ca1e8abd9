//! What do the GPUs that can be imitated look like?
//!
//! Figures are those that `nvidia-smi` prints for the real parts. All parts with seven compute
//! slices share one geometry; A30 has its own.

use nvml_wrapper_sys::bindings as sys;

/// A model of GPU.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    /// Its name in scenarios, e.g. `h100-80`.
    pub key: &'static str,
    /// Its GRES type, e.g. `h100`.
    pub gres_type: &'static str,
    /// As the driver spells it.
    pub name: &'static str,
    /// PCI device in the upper half, vendor in the lower.
    pub pci_device: u32,
    /// NVML's number of the architecture.
    pub architecture: u32,
    /// CUDA compute capability.
    pub compute: (i32, i32),
    /// All memory, MiB.
    pub memory_mib: u64,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Power without work and at most, milliwatts.
    pub power_mw: (u32, u32),
    /// Clock of the multiprocessors without work and at most, MHz.
    pub clock_mhz: (u32, u32),
    /// MIG profiles; none: no MIG.
    pub profiles: &'static [Profile],
    /// Memory slices.
    pub slices: u32,
}

/// A MIG profile of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// As NVML names it, without the word MIG.
    pub name: &'static str,
    /// NVML's enumeration, by which it is asked for.
    pub number: u32,
    /// The hardware's number, by which it is made.
    pub id: u32,
    /// Compute slices.
    pub compute: u32,
    /// Memory slices.
    pub size: u32,
    /// Memory slices at which one may begin.
    pub starts: &'static [u32],
    /// Most on one GPU.
    pub most: u32,
    /// Memory of one, MiB.
    pub memory_mib: u64,
    /// Streaming multiprocessors of one.
    pub multiprocessors: u32,
}

impl Model {
    /// The model of this name.
    pub(crate) fn find(key: &str) -> Option<&'static Self> {
        MODELS.iter().find(|model| model.key == key)
    }

    /// Whether instances can be measured one by one (GPM), and MIG is switched without a reset.
    pub(crate) const fn is_hopper_or_later(&self) -> bool {
        self.architecture >= sys::NVML_DEVICE_ARCH_HOPPER
    }

    /// The profile with the hardware's number `id`.
    pub(crate) fn profile(&self, id: u32) -> Option<&'static Profile> {
        self.profiles.iter().find(|profile| profile.id == id)
    }
}

impl Profile {
    /// GPU instance ids that instances of this shape get, as seen on A100 and A30.
    pub(crate) const fn instance_ids(&self) -> std::ops::Range<u32> {
        match (self.compute, self.id) {
            (1, 15 | 19 | 20) => 7..15,
            (1, _) | (2, 14) => 3..7,
            (2 | 3, _) | (4, 5) => 1..3,
            _ => 0..1,
        }
    }
}

const SEVEN: &[u32] = &[0, 1, 2, 3, 4, 5, 6];

/// The profiles of a part with seven compute slices: names, MiB and multiprocessors of 1g, 1g+me,
/// 1g with double memory, 2g, 3g, 4g, 7g.
macro_rules! seven {
    ($($name:literal $mib:literal $sms:literal),+ $(,)?) => {{
        const GIVEN: [(&str, u64, u32); 7] = [$(($name, $mib, $sms)),+];
        const fn shape(
            at: usize, number: u32, id: u32, compute: u32, size: u32, starts: &'static [u32], most: u32,
        ) -> Profile {
            let (name, memory_mib, multiprocessors) = GIVEN[at];
            Profile { name, number, id, compute, size, starts, most, memory_mib, multiprocessors }
        }
        &[
            shape(0, sys::NVML_GPU_INSTANCE_PROFILE_1_SLICE, 19, 1, 1, SEVEN, 7),
            shape(1, sys::NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV1, 20, 1, 1, SEVEN, 1),
            shape(2, sys::NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV2, 15, 1, 2, &[0, 2, 4, 6], 4),
            shape(3, sys::NVML_GPU_INSTANCE_PROFILE_2_SLICE, 14, 2, 2, &[0, 2, 4], 3),
            shape(4, sys::NVML_GPU_INSTANCE_PROFILE_3_SLICE, 9, 3, 4, &[0, 4], 2),
            shape(5, sys::NVML_GPU_INSTANCE_PROFILE_4_SLICE, 5, 4, 4, &[0], 1),
            shape(6, sys::NVML_GPU_INSTANCE_PROFILE_7_SLICE, 0, 7, 8, &[0], 1),
        ]
    }};
}

const fn a30(
    name: &'static str,
    number: u32,
    id: u32,
    shape: (u32, &'static [u32], u32),
    memory_mib: u64,
) -> Profile {
    let (size, starts, most) = shape;
    let multiprocessors = 14 * size;
    Profile { name, number, id, compute: size, size, starts, most, memory_mib, multiprocessors }
}

const A30: &[Profile] = &[
    a30("1g.6gb", sys::NVML_GPU_INSTANCE_PROFILE_1_SLICE, 14, (1, &[0, 1, 2, 3], 4), 5952),
    a30("1g.6gb+me", sys::NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV1, 21, (1, &[0, 1, 2, 3], 1), 5952),
    a30("2g.12gb", sys::NVML_GPU_INSTANCE_PROFILE_2_SLICE, 5, (2, &[0, 2], 2), 11_968),
    a30("2g.12gb+me", sys::NVML_GPU_INSTANCE_PROFILE_2_SLICE_REV1, 6, (2, &[0, 2], 1), 11_968),
    a30("4g.24gb", sys::NVML_GPU_INSTANCE_PROFILE_4_SLICE, 0, (4, &[0], 1), 24_000),
];

const A100_40: &[Profile] = seven!(
    "1g.5gb" 4864 14, "1g.5gb+me" 4864 14, "1g.10gb" 9856 14, "2g.10gb" 9856 28,
    "3g.20gb" 19_968 42, "4g.20gb" 19_968 56, "7g.40gb" 40_192 98,
);

const A100_80: &[Profile] = seven!(
    "1g.10gb" 9856 14, "1g.10gb+me" 9856 14, "1g.20gb" 19_968 14, "2g.20gb" 19_968 28,
    "3g.40gb" 40_192 42, "4g.40gb" 40_192 56, "7g.80gb" 80_384 98,
);

const H100_80: &[Profile] = seven!(
    "1g.10gb" 9984 16, "1g.10gb+me" 9984 16, "1g.20gb" 20_096 26, "2g.20gb" 20_096 32,
    "3g.40gb" 40_448 60, "4g.40gb" 40_448 64, "7g.80gb" 81_152 132,
);

const H200: &[Profile] = seven!(
    "1g.18gb" 16_384 16, "1g.18gb+me" 16_384 16, "1g.35gb" 33_280 26, "2g.35gb" 33_280 32,
    "3g.71gb" 71_424 60, "4g.71gb" 71_424 64, "7g.141gb" 143_360 132,
);

/// Every model that a scenario can name.
pub const MODELS: &[Model] = &[
    Model {
        key: "a30",
        gres_type: "a30",
        name: "NVIDIA A30",
        pci_device: 0x20B7_10DE,
        architecture: sys::NVML_DEVICE_ARCH_AMPERE,
        compute: (8, 0),
        memory_mib: 24_576,
        multiprocessors: 56,
        power_mw: (30_000, 165_000),
        clock_mhz: (210, 1440),
        profiles: A30,
        slices: 4,
    },
    Model {
        key: "a100-40",
        gres_type: "a100",
        name: "NVIDIA A100-SXM4-40GB",
        pci_device: 0x20B0_10DE,
        architecture: sys::NVML_DEVICE_ARCH_AMPERE,
        compute: (8, 0),
        memory_mib: 40_960,
        multiprocessors: 108,
        power_mw: (52_000, 400_000),
        clock_mhz: (210, 1410),
        profiles: A100_40,
        slices: 8,
    },
    Model {
        key: "a100-80",
        gres_type: "a100",
        name: "NVIDIA A100-SXM4-80GB",
        pci_device: 0x20B2_10DE,
        architecture: sys::NVML_DEVICE_ARCH_AMPERE,
        compute: (8, 0),
        memory_mib: 81_920,
        multiprocessors: 108,
        power_mw: (60_000, 400_000),
        clock_mhz: (210, 1410),
        profiles: A100_80,
        slices: 8,
    },
    Model {
        key: "h100-80",
        gres_type: "h100",
        name: "NVIDIA H100 80GB HBM3",
        pci_device: 0x2330_10DE,
        architecture: sys::NVML_DEVICE_ARCH_HOPPER,
        compute: (9, 0),
        memory_mib: 81_559,
        multiprocessors: 132,
        power_mw: (95_000, 700_000),
        clock_mhz: (345, 1980),
        profiles: H100_80,
        slices: 8,
    },
    Model {
        key: "h200",
        gres_type: "h200",
        name: "NVIDIA H200",
        pci_device: 0x2335_10DE,
        architecture: sys::NVML_DEVICE_ARCH_HOPPER,
        compute: (9, 0),
        memory_mib: 143_771,
        multiprocessors: 132,
        power_mw: (95_000, 700_000),
        clock_mhz: (345, 1980),
        profiles: H200,
        slices: 8,
    },
    Model {
        key: "l40s",
        gres_type: "l40s",
        name: "NVIDIA L40S",
        pci_device: 0x26B9_10DE,
        architecture: sys::NVML_DEVICE_ARCH_ADA,
        compute: (8, 9),
        memory_mib: 46_068,
        multiprocessors: 142,
        power_mw: (35_000, 350_000),
        clock_mhz: (210, 2520),
        profiles: &[],
        slices: 0,
    },
];
