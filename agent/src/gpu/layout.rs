//! How were the GPUs cut when we last looked, and what was to be done to them?
//!
//! One file in the agent's folder: each GPU as it was last seen, with the generation of its layout,
//! and the order that is being carried out, written before its first step. So an agent that was
//! restarted finishes what was begun, a booted node gets its layout back, and a GPU that does not
//! answer keeps its place. A file that cannot be read is set aside: then nothing is destroyed, and
//! generations go on far above those of before.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use penstock_proto::v1;
use prost::Message as _;
use rustix::fs::fsync;

use super::wire::{Cut, OldSlice};
use crate::sys::wall_clock;

/// Name of the file.
const NAME: &str = "gpus";

/// Tries of an order that was interrupted before it is given up.
const MAX_TRIES: u32 = 3;

/// What the file holds.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Record {
    /// Boot in which it was written.
    #[prost(string, tag = "1")]
    pub(super) boot_id: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) kept: Vec<Kept>,
    /// Generation from which new GPUs begin.
    #[prost(uint64, tag = "3")]
    pub(super) first_generation: u64,
}

/// One GPU.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Kept {
    /// As it was last seen, with its generation.
    #[prost(message, optional, tag = "1")]
    pub(super) gpu: Option<v1::Gpu>,
    /// What is being done to it.
    #[prost(message, optional, tag = "2")]
    pub(super) intent: Option<Intent>,
    /// Generation of the last order that was answered, and what was wrong with it.
    #[prost(uint64, tag = "3")]
    pub(super) answered: u64,
    #[prost(string, tag = "4")]
    pub(super) error: String,
}

/// An order that is being carried out.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Intent {
    #[prost(message, optional, tag = "1")]
    pub(super) cut: Option<Cut>,
    /// Generation that the order names; 0: ours, after a boot.
    #[prost(uint64, tag = "2")]
    pub(super) generation: u64,
    #[prost(uint32, tag = "3")]
    pub(super) tries: u32,
    #[prost(uint32, tag = "4")]
    pub(super) deadline_secs: u32,
}

/// The file and what it holds.
#[derive(Debug)]
pub(super) struct Layouts {
    path: PathBuf,
    pub(super) record: Record,
    /// Why the file of before was set aside.
    pub(super) broken: Option<String>,
}

impl Layouts {
    /// Reads the file in `state_dir`.
    pub(super) fn open(state_dir: &Path, boot_id: &str) -> Self {
        let path = state_dir.join(NAME);
        let fresh = |first_generation| Record {
            boot_id: boot_id.to_owned(),
            kept: Vec::new(),
            first_generation,
        };
        let read = match fs::read(&path) {
            Ok(bytes) => Record::decode(&*bytes).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(fresh(1)),
            Err(error) => Err(error),
        };
        match read {
            Ok(record) => Self { path, record, broken: None },
            Err(error) => {
                let aside = path.with_extension("broken");
                let moved = fs::rename(&path, &aside);
                let broken = format!(
                    "{} cannot be read ({error}) and was put aside{}: layouts of GPUs are taken as \
                     they are",
                    path.display(),
                    if moved.is_ok() { "" } else { " in vain" }
                );
                let seconds = u64::try_from(wall_clock().as_secs()).unwrap_or(1);
                Self { path, record: fresh(seconds.max(1)), broken: Some(broken) }
            }
        }
    }

    /// Makes what it holds durable.
    ///
    /// # Errors
    /// When the disk takes it not; what was there before is still there then.
    pub(super) fn write(&self) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&self.record.encode_to_vec())?;
        fsync(&file)?;
        fs::rename(&new, &self.path)?;
        match self.path.parent() {
            Some(folder) => Ok(fsync(File::open(folder)?)?),
            None => Ok(()),
        }
    }

    /// The GPU with this UUID.
    pub(super) fn kept(&mut self, uuid: &str) -> Option<&mut Kept> {
        let mut all = self.record.kept.iter_mut();
        all.find(|kept| kept.gpu.as_ref().is_some_and(|gpu| gpu.uuid == uuid))
    }

    /// Takes up what was seen: generations go up where a layout changed, and a GPU that gave
    /// nothing stays as it was, with its fault. What is to be told of all.
    pub(super) fn take(&mut self, seen: Vec<v1::Gpu>) -> Vec<v1::Gpu> {
        // A board that was exchanged leaves its place; one that moved does not.
        self.record.kept.retain(|kept| {
            let Some(old) = &kept.gpu else { return false };
            let there = seen.iter().any(|gpu| gpu.uuid == old.uuid);
            there || !seen.iter().any(|gpu| gpu.index == old.index && !gpu.uuid.is_empty())
        });
        seen.into_iter().map(|gpu| self.take_one(gpu)).collect()
    }

    /// The same for one.
    pub(super) fn take_one(&mut self, mut gpu: v1::Gpu) -> v1::Gpu {
        if gpu.uuid.is_empty() {
            let mut all = self.record.kept.iter().filter_map(|kept| kept.gpu.as_ref());
            let before = all.find(|before| before.index == gpu.index);
            let Some(before) = before else { return gpu };
            return v1::Gpu { fault: gpu.fault, ..before.clone() };
        }
        let first = self.record.first_generation.max(1);
        match self.kept(&gpu.uuid) {
            Some(kept) => {
                let before = kept.gpu.take().unwrap_or_default();
                let changed = shape(&before) != shape(&gpu);
                gpu.generation = before.generation + u64::from(changed);
                kept.gpu = Some(gpu.clone());
            }
            None => {
                gpu.generation = first;
                self.record.kept.push(Kept { gpu: Some(gpu.clone()), ..Kept::default() });
            }
        }
        gpu
    }

    /// What is to be done, now that the GPUs were seen: orders that were interrupted, and layouts
    /// that a boot took away. An order that was tried too often is given up and counts as answered.
    pub(super) fn open_intents(&mut self, boot_id: &str, seen: &[v1::Gpu]) -> Vec<Intent> {
        let booted = self.record.boot_id != boot_id;
        boot_id.clone_into(&mut self.record.boot_id);
        let mut todo = Vec::new();
        for kept in &mut self.record.kept {
            let Some(before) = &kept.gpu else { continue };
            let Some(now) = seen.iter().find(|gpu| gpu.uuid == before.uuid) else { continue };
            if booted && kept.intent.is_none() && now.slices.is_empty() && now.fault.is_empty() {
                kept.intent =
                    again(before).map(|cut| Intent { cut: Some(cut), ..Intent::default() });
            }
            let Some(intent) = &mut kept.intent else { continue };
            if intent.tries >= MAX_TRIES {
                kept.answered = intent.generation;
                kept.error = format!("given up after {MAX_TRIES} tries that were interrupted");
                kept.intent = None;
                continue;
            }
            intent.tries += 1;
            todo.push(intent.clone());
        }
        todo
    }
}

/// What makes two layouts the same.
fn shape(gpu: &v1::Gpu) -> (i32, Vec<(&str, u32)>) {
    let mut slices: Vec<_> = gpu.slices.iter().map(|s| (s.uuid.as_str(), s.start)).collect();
    slices.sort_unstable();
    (gpu.mig, slices)
}

/// The cut that makes a layout of before again.
fn again(gpu: &v1::Gpu) -> Option<Cut> {
    let create: Vec<_> = gpu.slices.iter().filter_map(|slice| new_slice(gpu, slice)).collect();
    (!create.is_empty()).then(|| Cut {
        gpu: gpu.index,
        uuid: gpu.uuid.clone(),
        destroy: Vec::new(),
        create,
        mode: v1::MigMode::On.into(),
    })
}

fn new_slice(gpu: &v1::Gpu, slice: &v1::MigSlice) -> Option<v1::NewSlice> {
    let profile = gpu.profiles.iter().find(|profile| profile.name == slice.profile)?;
    let (id, start, size) = (profile.id, slice.start, slice.size);
    Some(v1::NewSlice { profile: slice.profile.clone(), id, start, size })
}

/// The cut that an order asks for, of a GPU as it is; `Err`: why it cannot be made.
pub(super) fn cut_of(order: &v1::ReshapeGpu, gpu: &v1::Gpu) -> Result<Cut, String> {
    let old = |start: &u32| {
        let slice = gpu.slices.iter().find(|slice| slice.start == *start);
        let slice = slice.ok_or_else(|| format!("there is no slice at {start}"))?;
        let profile = gpu.profiles.iter().find(|profile| profile.name == slice.profile);
        Ok(OldSlice {
            start: *start,
            uuid: slice.uuid.clone(),
            profile: profile.map_or(0, |profile| profile.id),
            size: slice.size,
        })
    };
    Ok(Cut {
        gpu: gpu.index,
        uuid: gpu.uuid.clone(),
        destroy: order.destroy.iter().map(old).collect::<Result<_, String>>()?,
        create: order.create.clone(),
        mode: order.mode,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(index: u32, slices: &[(&str, u32)]) -> v1::Gpu {
        let slice = |(uuid, start): &(&str, u32)| v1::MigSlice {
            uuid: (*uuid).to_owned(),
            profile: "1g.10gb".to_owned(),
            start: *start,
            size: 1,
            ..v1::MigSlice::default()
        };
        let profile =
            v1::MigProfile { name: "1g.10gb".to_owned(), id: 19, size: 1, ..Default::default() };
        v1::Gpu {
            index,
            uuid: format!("GPU-{index}"),
            r#type: "h100".to_owned(),
            mig: v1::MigMode::On.into(),
            slices: slices.iter().map(slice).collect(),
            profiles: vec![profile],
            ..v1::Gpu::default()
        }
    }

    #[test]
    fn generations_count_changes_of_a_layout() {
        let dir = tempfile::tempdir().unwrap();
        let mut layouts = Layouts::open(dir.path(), "b1");
        let generation = |layouts: &mut Layouts, gpu| layouts.take_one(gpu).generation;
        assert_eq!(generation(&mut layouts, gpu(0, &[])), 1);
        assert_eq!(generation(&mut layouts, gpu(0, &[])), 1);
        assert_eq!(generation(&mut layouts, gpu(0, &[("a", 0), ("b", 1)])), 2);
        assert_eq!(generation(&mut layouts, gpu(0, &[("b", 1), ("a", 0)])), 2);
        assert_eq!(generation(&mut layouts, gpu(0, &[("a", 0), ("c", 1)])), 3);
        layouts.write().unwrap();
        let mut again = Layouts::open(dir.path(), "b1");
        assert_eq!(generation(&mut again, gpu(0, &[("a", 0), ("c", 1)])), 3);
    }

    #[test]
    fn a_gpu_that_does_not_answer_keeps_its_place_and_its_type() {
        let dir = tempfile::tempdir().unwrap();
        let mut layouts = Layouts::open(dir.path(), "b1");
        layouts.take(vec![gpu(0, &[]), gpu(1, &[("a", 0)])]);
        let lost = v1::Gpu { index: 1, fault: "lost".to_owned(), ..v1::Gpu::default() };
        let told = layouts.take(vec![gpu(0, &[]), lost]);
        assert_eq!((told[1].r#type.as_str(), told[1].fault.as_str()), ("h100", "lost"));
        assert_eq!(told[1].slices.len(), 1);
        let unknown = v1::Gpu { index: 7, fault: "lost".to_owned(), ..v1::Gpu::default() };
        assert_eq!(layouts.take_one(unknown.clone()), unknown);
    }

    #[test]
    fn a_boot_brings_the_layout_back_and_an_interrupted_order_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        let mut layouts = Layouts::open(dir.path(), "b1");
        layouts.take(vec![gpu(0, &[("a", 0), ("b", 4)])]);
        let same = [gpu(0, &[("a", 0), ("b", 4)])];
        assert!(layouts.open_intents("b1", &same).is_empty());
        let todo = layouts.open_intents("b2", &[gpu(0, &[])]);
        let cut = todo[0].cut.clone().unwrap();
        let places: Vec<_> = cut.create.iter().map(|slice| (slice.id, slice.start)).collect();
        assert_eq!((places, cut.mode()), (vec![(19, 0), (19, 4)], v1::MigMode::On));
        layouts.write().unwrap();
        let mut later = Layouts::open(dir.path(), "b2");
        assert_eq!(later.open_intents("b2", &[gpu(0, &[])]).len(), 1, "it was not done");
        assert_eq!(later.open_intents("b2", &[gpu(0, &[])]).len(), 1);
        assert!(later.open_intents("b2", &[gpu(0, &[])]).is_empty(), "it is given up");
        assert!(later.kept("GPU-0").unwrap().error.contains("given up"));
    }

    #[test]
    fn an_unreadable_record_destroys_nothing_and_generations_go_on() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), [0xff; 9]).unwrap();
        let mut layouts = Layouts::open(dir.path(), "b1");
        assert!(layouts.broken.is_some());
        assert!(layouts.open_intents("b2", &[gpu(0, &[])]).is_empty());
        assert!(layouts.take_one(gpu(0, &[])).generation > 1_000_000);
        assert!(dir.path().join("gpus.broken").exists());
    }

    #[test]
    fn an_order_is_made_of_what_is_there() {
        let order = v1::ReshapeGpu { destroy: vec![4], ..v1::ReshapeGpu::default() };
        let cut = cut_of(&order, &gpu(0, &[("a", 4)])).unwrap();
        let old = &cut.destroy[0];
        assert_eq!((old.uuid.as_str(), old.profile, old.size), ("a", 19, 1));
        assert_eq!(cut_of(&order, &gpu(0, &[])).unwrap_err(), "there is no slice at 4");
    }
}
