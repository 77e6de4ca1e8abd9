//! How is a GPU cut anew while its other slices keep working?
//!
//! What is to go is destroyed, compute instances first; what is to come is made at explicit places,
//! the largest first. If the driver refuses, what was made is undone and what was destroyed made
//! again, as far as the driver lets us. Whatever happened, the caller looks at the GPU afterwards
//! and believes that.

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;
use penstock_proto::v1;

use super::library::{Library, words};
use crate::gpu::wire::{Cut, OldSlice};
use crate::sys::nvml::{self, Instance};

/// Cuts; `Err`: why it could not be cut so.
pub(super) fn cut(library: &Library, order: &Cut) -> Result<(), String> {
    let device = library.nvml.device_by_index(order.gpu).map_err(|error| words(&error))?;
    let uuid = device.uuid().map_err(|error| words(&error))?;
    if uuid != order.uuid {
        return Err(format!("GPU {} is now {uuid} and not {}", order.gpu, order.uuid));
    }
    if order.mode() == v1::MigMode::On {
        switch(&device, true)?;
    }
    if let Some((size, start)) = overlap(&order.create) {
        return Err(format!("two new slices cover memory slices {start} to {}", start + size - 1));
    }
    let mut destroyed = Vec::new();
    let done = destroy_all(library, &device, &order.destroy, &mut destroyed)
        .and_then(|()| create_all(library, &device, &order.create));
    if let Err(error) = done {
        let back = undo(library, &device, &destroyed);
        return Err(match back {
            Some(also) => format!("{error}; {also}"),
            None => error,
        });
    }
    if order.mode() == v1::MigMode::Off { switch(&device, false) } else { Ok(()) }
}

/// Size and start of the first of two new slices that overlap.
fn overlap(create: &[v1::NewSlice]) -> Option<(u32, u32)> {
    create.iter().enumerate().find_map(|(at, one)| {
        let clash = create[..at].iter().any(|two| {
            one.start < two.start.saturating_add(two.size)
                && two.start < one.start.saturating_add(one.size)
        });
        clash.then_some((one.size.max(1), one.start))
    })
}

/// Switches MIG. That the call succeeds does not say that the mode is changed.
fn switch(device: &Device<'static>, on: bool) -> Result<(), String> {
    let wanted = u32::from(on);
    let mode = device.mig_mode().map_err(|error| words(&error))?;
    if mode.current == wanted {
        return Ok(());
    }
    let status = device.set_mig_mode(on).map_err(|error| words(&error))?;
    let word = if on { "on" } else { "off" };
    match status {
        0 if device.mig_mode().is_ok_and(|mode| mode.current == wanted) => Ok(()),
        19 => Err(format!("MIG cannot be switched {word}: the GPU is in use")),
        0 | 16 => Err(format!("MIG {word} is pending: the GPU needs a reset")),
        code => Err(format!("MIG cannot be switched {word}: NVML's status {code}")),
    }
}

fn all_instances(library: &Library, device: &Device<'_>) -> Result<Vec<Instance>, String> {
    let mut all = Vec::new();
    for number in 0..64 {
        match nvml::profile(library.nvml, device, number) {
            Ok(profile) => {
                let found = nvml::instances(library.nvml, device, &profile);
                all.extend(found.map_err(|error| words(&error))?);
            }
            Err(NvmlError::NotSupported) => {}
            Err(NvmlError::InvalidArg) => break,
            Err(error) => return Err(words(&error)),
        }
    }
    Ok(all)
}

fn destroy_all(
    library: &Library,
    device: &Device<'_>,
    destroy: &[OldSlice],
    destroyed: &mut Vec<OldSlice>,
) -> Result<(), String> {
    let instances = all_instances(library, device)?;
    for old in destroy {
        let Some(gi) = instances.iter().find(|gi| gi.start == old.start).copied() else { continue };
        let computes = nvml::computes(library.nvml, gi).map_err(|error| words(&error))?;
        // Another slice has taken its place: this was done before.
        let another = computes
            .iter()
            .any(|ci| nvml::device_of(library.nvml, *ci).uuid().is_ok_and(|uuid| uuid != old.uuid));
        if another {
            continue;
        }
        let place = format!("the slice at {}", old.start);
        for ci in computes {
            nvml::destroy_compute(library.nvml, ci)
                .map_err(|error| format!("{place} cannot be destroyed: {}", words(&error)))?;
        }
        destroyed.push(OldSlice { profile: gi.profile, size: gi.size, ..old.clone() });
        nvml::destroy_instance(library.nvml, gi)
            .map_err(|error| format!("{place} cannot be destroyed: {}", words(&error)))?;
    }
    Ok(())
}

fn create_all(
    library: &Library,
    device: &Device<'_>,
    create: &[v1::NewSlice],
) -> Result<(), String> {
    let mut wanted: Vec<&v1::NewSlice> = create.iter().collect();
    wanted.sort_by_key(|slice| (std::cmp::Reverse(slice.size), slice.start));
    let before = all_instances(library, device)?;
    let mut made = Vec::new();
    for slice in wanted {
        let there = before.iter().find(|gi| gi.start == slice.start && gi.profile == slice.id);
        let result = match there {
            Some(gi) => complete(library, device, *gi),
            None => create_one(library, device, slice, &mut made),
        };
        if let Err(error) = result {
            for gi in made {
                remove(library, gi);
            }
            let (name, start) = (&slice.profile, slice.start);
            return Err(format!("{name} cannot be made at {start}: {}", words(&error)));
        }
    }
    Ok(())
}

fn create_one(
    library: &Library,
    device: &Device<'_>,
    slice: &v1::NewSlice,
    made: &mut Vec<Instance>,
) -> Result<(), NvmlError> {
    let place = (slice.start, slice.size);
    let gi = nvml::create_instance(library.nvml, device, slice.id, place)?;
    made.push(gi);
    complete(library, device, gi)
}

/// Gives an instance the one compute instance that is as large as it is, unless it has one.
fn complete(library: &Library, device: &Device<'_>, gi: Instance) -> Result<(), NvmlError> {
    if !nvml::computes(library.nvml, gi)?.is_empty() {
        return Ok(());
    }
    for number in 0..64 {
        match nvml::profile(library.nvml, device, number) {
            Ok(profile) if profile.id == gi.profile => {
                return nvml::create_compute(library.nvml, gi, profile.compute).map(drop);
            }
            Ok(_) | Err(NvmlError::NotSupported) => {}
            Err(error) => return Err(error),
        }
    }
    Err(NvmlError::NotFound)
}

/// Takes back what was made just now; what cannot be is found when the GPU is looked at.
fn remove(library: &Library, gi: Instance) {
    for ci in nvml::computes(library.nvml, gi).unwrap_or_default() {
        let _stays = nvml::destroy_compute(library.nvml, ci);
    }
    let _stays = nvml::destroy_instance(library.nvml, gi);
}

/// Makes again what was destroyed; what could not be, for people.
fn undo(library: &Library, device: &Device<'_>, destroyed: &[OldSlice]) -> Option<String> {
    let mut lost = Vec::new();
    let instances = all_instances(library, device).unwrap_or_default();
    for old in destroyed {
        let there = instances.iter().find(|gi| gi.start == old.start).copied();
        let done = match there {
            // Only its compute instance was gone.
            Some(gi) => complete(library, device, gi),
            None => nvml::create_instance(library.nvml, device, old.profile, (old.start, old.size))
                .and_then(|gi| complete(library, device, gi)),
        };
        if let Err(error) = done {
            lost.push(format!(
                "the slice at {} could not be made again: {}",
                old.start,
                words(&error)
            ));
        }
    }
    (!lost.is_empty()).then(|| lost.join("; "))
}
