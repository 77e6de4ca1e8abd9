//! What is a GPU, and which device does a unit of a generic resource stand for?
//!
//! The scheduler counts units by name and type; a unit's number among those of its type leads to the
//! device. Whole GPUs are numbered in the order of the inventory's list, slices by (GPU, first memory
//! slice) among the slices of their profile, shards by the GPUs that are shared, as evenly as goes.

use std::sync::Arc;

use fixedbitset::FixedBitSet;
use penstock_vocab::{GresName, Mib, Timestamp, UserId};

use super::node::{Inventory, Node};

/// Name of the generic resource of which each unit is a GPU or a slice of one.
pub const GPU: &str = "gpu";

/// Name of the generic resource of which some units share one GPU.
pub const SHARD: &str = "shard";

/// One GPU as its driver describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gpu {
    /// Index on its node.
    pub index: u32,
    /// Number of its device file.
    pub minor: u32,
    /// The board.
    pub uuid: Box<str>,
    /// As a GRES type: `h100`.
    pub kind: Box<str>,
    /// As the driver spells it.
    pub model: Box<str>,
    /// Memory.
    pub memory: Mib,
    /// PCI address.
    pub pci: Box<str>,
    /// NUMA node; `None`: unknown.
    pub numa: Option<u32>,
    /// Logical CPUs near it as inclusive ranges; empty: unknown.
    pub cpus: Box<[(u32, u32)]>,
    /// How near the node's other GPUs are.
    pub links: Box<[GpuLink]>,
    /// Whether it can be cut, and is.
    pub mig: MigMode,
    /// Slices that it is cut into.
    pub slices: Box<[MigSlice]>,
    /// Profiles and places that it can have.
    pub profiles: Box<[MigProfile]>,
    /// Raised at each change of its slices.
    pub generation: u64,
    /// What is wrong with it; empty: nothing.
    pub fault: Box<str>,
    /// Device files that a job which holds it needs.
    pub device_files: Box<[Box<str>]>,
    /// Not a real one.
    pub fake: bool,
    /// Vendor.
    pub vendor: Box<str>,
}

/// How near two GPUs of a node are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuLink {
    /// Index of the other one.
    pub peer: u32,
    /// `NVLinks` between them.
    pub nvlinks: u32,
    /// NVML's common ancestor on PCIe: 0 the same board, then 10, 20 ... 50 another NUMA node.
    pub ancestor: u32,
}

/// Whether a GPU can be cut into slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum MigMode {
    /// It can't.
    #[default]
    None,
    /// It could be, and is one whole.
    Off,
    /// It is cut; nothing but its slices is given out.
    On,
}

/// A slice of a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MigSlice {
    /// MIG device.
    pub uuid: Box<str>,
    /// Profile, such as `1g.10gb`.
    pub profile: Box<str>,
    /// GPU instance.
    pub gi: u32,
    /// Compute instance.
    pub ci: u32,
    /// First memory slice.
    pub start: u32,
    /// Memory slices.
    pub size: u32,
    /// Memory.
    pub memory: Mib,
    /// Device files that a job which holds it needs.
    pub device_files: Box<[Box<str>]>,
}

/// A profile that a GPU's slices can have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MigProfile {
    /// Name, such as `1g.10gb`.
    pub name: Box<str>,
    /// The device's number for it.
    pub id: u32,
    /// Memory slices.
    pub size: u32,
    /// First memory slices at which it may be.
    pub starts: Box<[u32]>,
    /// Memory.
    pub memory: Mib,
    /// Compute slices, of seven (four on small parts).
    pub compute: u32,
    /// Most on one GPU.
    pub most: u32,
}

/// Why a GPU gets no new job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuDrain {
    /// Index on its node.
    pub index: u32,
    /// The board; another one in its place is not drained.
    pub uuid: Box<str>,
    /// Why.
    pub reason: Box<str>,
    /// Who said so; `None`: the controller.
    pub by: Option<UserId>,
    /// Since when.
    pub since: Timestamp,
    /// XID of its fault; 0: none.
    pub xid: u32,
    /// What ends it.
    pub end: GpuDrainEnd,
    /// What still runs on it then is requeued or cancelled.
    pub deadline: Option<Timestamp>,
}

/// What ends the drain of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum GpuDrainEnd {
    /// An admin resumes it.
    #[default]
    ByHand,
    /// Its node says that nothing is wrong with it any more.
    Reported,
    /// Its node boots.
    Boot,
}

/// The device, or part of one, that a unit of a generic resource stands for.
#[derive(Debug, Clone, Copy)]
pub struct Device<'a> {
    /// The GPU.
    pub gpu: &'a Gpu,
    /// Its slice; `None`: all of it, or a shard.
    pub slice: Option<&'a MigSlice>,
}

impl Gpu {
    /// Whether it is given out whole.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.mig != MigMode::On
    }

    /// How near another GPU is: the smaller, the nearer. `NVLinks` count before the way on PCIe.
    #[must_use]
    pub fn distance(&self, peer: u32) -> u32 {
        /// Further than any known one.
        const UNKNOWN: u32 = 4_000;
        let link = self.links.iter().find(|link| link.peer == peer);
        link.map_or(UNKNOWN, |link| {
            let wires = 32 - link.nvlinks.min(32);
            wires * 100 + link.ancestor.min(99)
        })
    }

    /// What part of the GPU a slice is, in millionths: of its compute or of its memory slices,
    /// whichever is more, since that is what nobody else can have.
    #[must_use]
    pub fn part(&self, slice: &MigSlice) -> u64 {
        const ALL: u64 = 1_000_000;
        let profile = self.profiles.iter().find(|profile| profile.name == slice.profile);
        let compute = profile.map_or(0, |profile| u64::from(profile.compute));
        let all_compute = self.profiles.iter().map(|p| u64::from(p.compute)).max().unwrap_or(0);
        let slots = self.profiles.iter().map(|p| u64::from(p.size)).max().unwrap_or(8).max(1);
        let of_compute = (compute * ALL).checked_div(all_compute).unwrap_or(0);
        of_compute.max(u64::from(slice.size) * ALL / slots).min(ALL)
    }

    /// Slices in the order in which units are counted.
    pub fn slices_in_order(&self) -> impl Iterator<Item = &MigSlice> {
        let mut slices: Vec<&MigSlice> = self.slices.iter().collect();
        slices.sort_by_key(|slice| slice.start);
        slices.into_iter()
    }
}

impl Inventory {
    /// The device behind a unit, by the order in which units of its type are counted. `None`: the
    /// resource is no GPU, or nothing is known of its devices.
    #[must_use]
    pub fn device(&self, name: &GresName, id: u32) -> Option<Device<'_>> {
        match name.name() {
            GPU => self.devices(name).nth(id as usize),
            SHARD => {
                let (shared, at) = self.shard_place(name, id)?;
                shared.get(at).map(|gpu| Device { gpu, slice: None })
            }
            _ => None,
        }
    }

    /// The devices behind the units of a type, in order: unit 0 first.
    pub fn devices<'a, 'n>(
        &'a self,
        name: &'n GresName,
    ) -> impl Iterator<Item = Device<'a>> + use<'a, 'n> {
        let kind = name.kind().unwrap_or_default();
        let of_type = move |word: &str| kind.is_empty() || word == kind;
        let is_gpu = name.name() == GPU;
        self.gpus.iter().filter(move |_| is_gpu).flat_map(move |gpu| {
            let whole =
                (gpu.is_whole() && of_type(&gpu.kind)).then_some(Device { gpu, slice: None });
            let cut = gpu
                .slices_in_order()
                .filter(move |slice| !gpu.is_whole() && of_type(&slice.profile));
            let cut: Vec<_> = cut.map(|slice| Device { gpu, slice: Some(slice) }).collect();
            whole.into_iter().chain(cut)
        })
    }

    /// The GPUs that shards of this type share, in order.
    fn shared(&self, name: &GresName) -> Vec<&Gpu> {
        let of_type = |gpu: &&Gpu| name.kind().is_none_or(|kind| *gpu.kind == *kind);
        self.gpus.iter().filter(|gpu| gpu.is_whole()).filter(of_type).collect()
    }

    /// On which of the node's GPUs a unit is: by place in the list of GPUs, or where nothing is known
    /// of them as if each whole one were one unit. `at`: the resource's place in `gres`.
    #[must_use]
    pub fn gpu_place(&self, at: usize, id: u32) -> Option<usize> {
        let name = &self.gres.get(at)?.name;
        if !self.gpus.is_empty() {
            let index = self.device(name, id)?.gpu.index;
            return self.gpus.binary_search_by_key(&index, |gpu| gpu.index).ok();
        }
        let before = self.gres[..at].iter().filter(|have| have.name.name() == GPU);
        let before: u64 = before.map(|have| have.count).sum();
        let place = match name.name() {
            GPU => before + u64::from(id),
            SHARD => {
                let gpus = self.gres.iter().filter(|have| have.name.name() == GPU);
                shard_gpu(self.gres[at].count, gpus.map(|have| have.count).sum(), id.into())?
            }
            _ => return None,
        };
        usize::try_from(place).ok()
    }

    /// Whether some units share a GPU with others.
    #[must_use]
    pub fn has_shards(&self) -> bool {
        self.gres.iter().any(|have| have.name.name() == SHARD)
    }

    fn shard_place(&self, name: &GresName, id: u32) -> Option<(Vec<&Gpu>, usize)> {
        let shared = self.shared(name);
        let all = self.gres.iter().find(|have| have.name == *name)?.count;
        let at = shard_gpu(all, shared.len() as u64, u64::from(id))?;
        Some((shared, usize::try_from(at).ok()?))
    }
}

impl Node {
    /// Why a GPU gets no new job; `None`: it does.
    #[must_use]
    pub fn gpu_drain(&self, gpu: &Gpu) -> Option<&GpuDrain> {
        self.admin.gpus.iter().find(|drain| drain.concerns(gpu))
    }

    /// Units of a generic resource that are withheld from jobs, because their GPU is drained or they
    /// are about to be destroyed. `at`: the resource's place in `gres`. Empty where nothing is. Cost: none where no GPU is.
    #[must_use]
    pub fn withheld(&self, at: usize) -> FixedBitSet {
        let mut units = FixedBitSet::new();
        if self.admin.gpus.is_empty() && self.admin.reshapes.is_empty() {
            return units;
        }
        let inventory = &self.inventory;
        let count = inventory.gres.get(at).map_or(0, |have| have.count);
        for id in 0..u32::try_from(count).unwrap_or(u32::MAX) {
            let Some(place) = inventory.gpu_place(at, id) else { continue };
            let slice = inventory.device(&inventory.gres[at].name, id).and_then(|it| it.slice);
            let goes = inventory.gpus.get(place).and_then(|gpu| self.reshape_of(gpu));
            if goes.is_some_and(|it| slice.is_some_and(|slice| it.destroy.contains(&slice.start))) {
                units.grow_and_insert(id as usize);
                continue;
            }
            let drained = match inventory.gpus.get(place) {
                Some(gpu) => self.gpu_drain(gpu).is_some(),
                None => self.admin.gpus.iter().any(|drain| drain.index as usize == place),
            };
            if drained {
                units.grow_and_insert(id as usize);
            }
        }
        units
    }
}

impl GpuDrain {
    /// Whether this GPU is meant: by its board, where both are known.
    #[must_use]
    pub fn concerns(&self, gpu: &Gpu) -> bool {
        if self.uuid.is_empty() || gpu.uuid.is_empty() {
            self.index == gpu.index
        } else {
            self.uuid == gpu.uuid
        }
    }
}

/// Which of `gpus` GPUs shard `id` of `all` is on: each has as many as another, or one more.
fn shard_gpu(all: u64, gpus: u64, id: u64) -> Option<u64> {
    if gpus == 0 || id >= all {
        return None;
    }
    let (each, more) = (all / gpus, all % gpus);
    let large = more * (each + 1);
    Some(if id < large { id / (each + 1) } else { more + (id - large) / each.max(1) })
}

/// GPUs of a node, shared by the snapshots that have them.
pub type Gpus = Arc<[Gpu]>;

#[cfg(test)]
mod tests {
    use penstock_vocab::GresRequest;

    use super::*;

    fn slice(profile: &str, start: u32) -> MigSlice {
        MigSlice { profile: profile.into(), start, size: 1, ..MigSlice::default() }
    }

    fn inventory() -> Inventory {
        let whole = |index| Gpu { index, kind: "h100".into(), ..Gpu::default() };
        let cut = |index, slices: &[(&str, u32)]| Gpu {
            mig: MigMode::On,
            slices: slices.iter().map(|(profile, start)| slice(profile, *start)).collect(),
            ..whole(index)
        };
        let gpus = [
            whole(0),
            cut(1, &[("2g.20gb", 4), ("1g.10gb", 2), ("1g.10gb", 0)]),
            whole(2),
            cut(3, &[("1g.10gb", 6)]),
        ];
        let count = |text: &str| text.parse::<GresRequest>().unwrap();
        Inventory {
            gpus: gpus.into(),
            gres: Box::new([count("gpu:h100:2"), count("gpu:1g.10gb:3"), count("shard:5")]),
            ..Inventory::default()
        }
    }

    #[test]
    fn units_lead_to_devices_in_order() {
        let inventory = inventory();
        let at = |name: &str, id| {
            let name: GresName = name.parse().unwrap();
            let device = inventory.device(&name, id)?;
            Some((device.gpu.index, device.slice.map(|slice| slice.start)))
        };
        assert_eq!(at("gpu:h100", 0), Some((0, None)));
        assert_eq!(at("gpu:h100", 1), Some((2, None)));
        assert_eq!(at("gpu:h100", 2), None);
        assert_eq!(at("gpu:1g.10gb", 0), Some((1, Some(0))));
        assert_eq!(at("gpu:1g.10gb", 1), Some((1, Some(2))));
        assert_eq!(at("gpu:1g.10gb", 2), Some((3, Some(6))));
        assert_eq!(at("gpu:2g.20gb", 0), Some((1, Some(4))));
        assert_eq!(at("npu", 0), None);
        // Five shards on two GPUs: three and two.
        assert_eq!(at("shard", 2), Some((0, None)));
        assert_eq!(at("shard", 3), Some((2, None)));
        assert_eq!(at("shard", 5), None);
    }

    #[test]
    fn nvlinks_count_before_the_way_on_pcie() {
        let link = |peer, nvlinks, ancestor| GpuLink { peer, nvlinks, ancestor };
        let gpu = Gpu {
            links: Box::new([link(1, 4, 50), link(2, 0, 10), link(3, 12, 50)]),
            ..Gpu::default()
        };
        let mut peers = [1, 2, 3, 4];
        peers.sort_by_key(|peer| gpu.distance(*peer));
        assert_eq!(peers, [3, 1, 2, 4]);
    }
}
