//! How are GPUs that are cut replayed?
//!
//! A list of nodes may say in a column `mig` that a node's GPUs are cut: `dynamic`, as the queue asks, or
//! into a fixed layout such as `3g@4+2g@2+1g@0+1g@1`. What the slices can be follows from the model, as
//! its driver lists it. A pod that asks for part of a GPU gets the smallest slice with as much compute,
//! or the `profile` that its line names; one that asks for whole GPUs the largest. Sizes are counted in
//! compute slices, of which a GPU has seven (an A30 four).

use penstock_core::model::{Gpu, MigMode, MigProfile, MigSlice, Node, NodeIndex, Reshape};
use penstock_core::scheduler::mig::mask;
use penstock_fake_nvml::{MODELS, Model};
use penstock_vocab::GresRequest;

/// Word of the column for GPUs that are cut as the queue asks.
pub(super) const DYNAMIC: &str = "dynamic";

/// Seconds that a cut takes: each slice that goes or comes about one.
pub(super) fn cut_secs(reshape: &Reshape) -> i64 {
    let slices = reshape.destroy.len() + reshape.create.len();
    i64::try_from(slices.clamp(1, 60)).unwrap_or(60)
}

/// The profiles of a model.
///
/// # Errors
/// If it is not known, or can't be cut; the sentence says which can.
pub(super) fn profiles(model: &str) -> Result<Vec<MigProfile>, String> {
    let can = |known: &&Model| !known.profiles.is_empty();
    let word = model.to_ascii_lowercase();
    let known = MODELS.iter().filter(can).find(|known| known.key == word);
    let Some(known) = known else {
        let all: Vec<_> = MODELS.iter().filter(can).map(|known| known.key).collect();
        return Err(format!("model {model:?} can't be cut; these can: {}", all.join(", ")));
    };
    let profile = |profile: &penstock_fake_nvml::Profile| MigProfile {
        name: profile.name.into(),
        id: profile.id,
        size: profile.size,
        starts: profile.starts.into(),
        memory: penstock_vocab::Mib(profile.memory_mib),
        compute: profile.compute,
        most: profile.most,
    };
    Ok(known.profiles.iter().map(profile).collect())
}

/// Compute slices of a GPU.
fn all_compute(profiles: &[MigProfile]) -> u32 {
    profiles.iter().map(|profile| profile.compute).max().unwrap_or(1)
}

/// The profile for a part of a GPU in thousandths; 0: all of it. Of those with enough compute the
/// smallest, an ordinary one before one with more memory or engines.
pub(super) fn profile_for(profiles: &[MigProfile], milli: u32) -> Option<&MigProfile> {
    let all = u64::from(all_compute(profiles));
    let milli = if milli == 0 { 1_000 } else { milli.min(1_000) };
    // Half a GPU is what a slice with half of its memory has, be it three of seven or four.
    let enough = |profile: &&MigProfile| {
        let compute = u64::from(profile.compute) * 1_000 / all;
        let largest = u64::from(profile.compute) == all;
        largest || compute >= u64::from(milli)
    };
    profiles.iter().filter(enough).min_by_key(|p| (p.compute, p.size, p.name.len(), p.id))
}

/// Compute slices of a job's slices, for its size.
pub(super) fn compute_of(profiles: &[MigProfile], name: &str) -> u32 {
    profiles.iter().find(|profile| *profile.name == *name).map_or(0, |profile| profile.compute)
}

/// A node's GPUs.
///
/// # Errors
/// If the layout is none that the model can have; the sentence says what is wrong with it.
pub(super) fn gpus(model: &str, count: u32, mig: &str) -> Result<Vec<Gpu>, String> {
    let profiles = profiles(model)?;
    let slices = if mig == DYNAMIC { Vec::new() } else { layout(&profiles, mig)? };
    let kind: Box<str> = model.to_ascii_lowercase().into();
    let gpu = |index| Gpu {
        index,
        uuid: format!("GPU-{index}").into(),
        kind: kind.clone(),
        mig: MigMode::On,
        slices: slices.clone().into(),
        profiles: profiles.clone().into(),
        generation: 1,
        ..Gpu::default()
    };
    Ok((0..count).map(gpu).collect())
}

/// A layout as it is written: `PROFILE@START` joined by `+`; of a profile what comes before its dot is
/// enough.
fn layout(profiles: &[MigProfile], text: &str) -> Result<Vec<MigSlice>, String> {
    let mut slices: Vec<MigSlice> = Vec::new();
    for word in text.split('+') {
        let (name, start) = word.split_once('@').unwrap_or((word, ""));
        let named = |profile: &&MigProfile| {
            *profile.name == *name
                || profile.name.split_once('.').is_some_and(|(short, _)| short == name)
        };
        let Some(profile) = profiles.iter().filter(named).min_by_key(|p| (p.size, p.name.len()))
        else {
            let all: Vec<_> = profiles.iter().map(|profile| &*profile.name).collect();
            return Err(format!("{name:?} is no profile of it; it has {}", all.join(", ")));
        };
        let start = start.parse().ok().filter(|start| profile.starts.contains(start));
        let Some(start) = start else {
            let all: Vec<_> = profile.starts.iter().map(u32::to_string).collect();
            return Err(format!("{word:?}: {} may begin at {}", profile.name, all.join(", ")));
        };
        let bits = mask(start, profile.size);
        if let Some(other) = slices.iter().find(|other| mask(other.start, other.size) & bits != 0) {
            let (own, other_name) = (&profile.name, &other.profile);
            return Err(format!("{own} at {start} overlaps {other_name} at {}", other.start));
        }
        let same = slices.iter().filter(|slice| slice.profile == profile.name).count();
        if profile.most > 0 && same >= profile.most as usize {
            return Err(format!("at most {} of {} fit on it", profile.most, profile.name));
        }
        let (name, size, memory) = (profile.name.clone(), profile.size, profile.memory);
        slices.push(MigSlice { profile: name, start, size, memory, ..MigSlice::default() });
    }
    Ok(slices)
}

/// The counts of GPUs.
pub(super) fn counts(gpus: &[Gpu]) -> Vec<GresRequest> {
    let mut counts: Vec<(&str, u64)> = Vec::new();
    for slice in gpus.iter().flat_map(|gpu| &gpu.slices) {
        match counts.iter_mut().find(|(name, _)| *name == &*slice.profile) {
            Some((_, count)) => *count += 1,
            None => counts.push((&slice.profile, 1)),
        }
    }
    let of = |(name, count): &(&str, u64)| format!("gpu:{name}:{count}").parse().ok();
    counts.iter().filter_map(of).collect()
}

/// A GPU once an order was carried out; `None`: none stands.
pub(super) fn after(node: &Node, gpu: u32) -> Option<(Gpu, Reshape)> {
    let known = node.inventory.gpus.iter().find(|known| known.index == gpu)?;
    let reshape = node.reshape_of(known)?.clone();
    let stays = known.slices.iter().filter(|slice| !reshape.destroy.contains(&slice.start));
    let made = reshape.create.iter().map(|new| MigSlice {
        profile: new.profile.clone(),
        start: new.start,
        size: new.size,
        ..MigSlice::default()
    });
    let slices = stays.cloned().chain(made).collect();
    let gpu = Gpu { slices, generation: known.generation + 1, ..known.clone() };
    Some((gpu, reshape))
}

/// A GPU that is being cut, and until when, in seconds of the trace.
pub(super) type Cutting = (i64, NodeIndex, u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_gpu_are_the_smallest_slice_with_as_much_compute() {
        let profiles = profiles("h100-80").expect("it can be cut");
        let name = |milli| profile_for(&profiles, milli).map(|profile| &*profile.name);
        for (milli, expect) in [
            (1, "1g.10gb"),
            (142, "1g.10gb"),
            (143, "2g.20gb"),
            (285, "2g.20gb"),
            (400, "3g.40gb"),
            (500, "4g.40gb"),
            (600, "7g.80gb"),
            (0, "7g.80gb"),
        ] {
            assert_eq!(name(milli), Some(expect), "{milli}");
        }
    }

    #[test]
    fn a_layout_that_cannot_be_is_refused_with_what_is_wrong() {
        let gpus = |mig| gpus("a100-80", 2, mig);
        assert_eq!(gpus("3g@4+2g@2+1g@0+1g@1").expect("it can be")[1].slices.len(), 4);
        assert!(gpus("dynamic").expect("it can be")[0].slices.is_empty());
        for (mig, expect) in [
            ("3g@4+2g@4", "2g.20gb at 4 overlaps 3g.40gb at 4"),
            ("3g@2", "3g.40gb may begin at 0, 4"),
            ("5g@0", "is no profile of it"),
            ("3g", "may begin at"),
        ] {
            let error = gpus(mig).expect_err(mig);
            assert!(error.contains(expect), "{error}");
        }
        let error = super::gpus("v100", 1, "dynamic").expect_err("no MIG");
        assert!(error.contains("can't be cut; these can: "), "{error}");
    }
}
