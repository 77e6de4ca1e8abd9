//! How busy was a GPU, or one of its instances, between two moments?

use std::ffi::{c_double, c_uint};
use std::mem::offset_of;

use nvml_wrapper_sys::bindings as sys;

use super::{Out, WHOLE, gpu_of, small, symbols, whole};
use crate::handle::{Handle, Named};
use crate::state::{Answer, INVALID, NOT_SUPPORTED};
use crate::world::World;

/// One moment of one GPU or instance; `None` until it is taken.
pub(crate) type Sample = Option<Moment>;

/// See [`Sample`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    gpu: usize,
    gi: Option<u32>,
    at_ms: u64,
    percent: u32,
    /// Percent times milliseconds until then, where that is known.
    work: Option<u64>,
}

fn sample_of(sample: Handle) -> Answer<u8> {
    match sample.named() {
        Some((Named::Sample(sample), _)) => Ok(sample),
        _ => Err(INVALID),
    }
}

fn take(world: &mut World, device: Handle, gi: Option<u32>, sample: Handle) -> Answer<()> {
    let gpu = whole(world, device)?;
    let (_, model, state) = world.gpu(gpu)?;
    if !model.is_hopper_or_later() || gi.is_none() && state.mig {
        return Err(NOT_SUPPORTED);
    }
    if let Some(gi) = gi {
        state.instance(gi).ok_or(INVALID)?;
    }
    let (at_ms, percent) = (world.now_ms(), world.percent(gpu, gi));
    let work = if gi.is_none() { Some(world.work(gpu)) } else { None };
    let place = world.samples.get_mut(&sample_of(sample)?).ok_or(INVALID)?;
    *place = Some(Moment { gpu, gi, at_ms, percent, work });
    Ok(())
}

/// The mean between two moments of the same thing: percent.
fn mean(one: Moment, two: Moment) -> Answer<f64> {
    if (one.gpu, one.gi) != (two.gpu, two.gi) || two.at_ms < one.at_ms {
        return Err(INVALID);
    }
    let time = two.at_ms - one.at_ms;
    let by_work = one.work.zip(two.work).filter(|_| time > 0);
    let tenths = match by_work {
        Some((before, after)) => after.saturating_sub(before) * 10 / time,
        None => u64::from(one.percent + two.percent) * 5,
    };
    Ok(f64::from(u32::try_from(tenths).unwrap_or(1000)) / 10.0)
}

/// The share of the work that a metric sees; `None`: not measured here.
const fn factor(metric: c_uint) -> Option<f64> {
    match metric {
        1 | 2 => Some(1.0),
        3 => Some(0.6),
        5 => Some(0.4),
        10 => Some(0.5),
        _ => None,
    }
}

symbols! {
    fn nvmlGpmQueryDeviceSupport(device: Handle, out: Out<sys::nvmlGpmSupport_t>) on gpu_of(device) =>
    |world| {
        let hopper = world.gpu(whole(world, device)?)?.1.is_hopper_or_later();
        let version = out.get()?.version;
        out.put(sys::nvmlGpmSupport_t { version, isSupportedDevice: hopper.into() })
    };
    fn nvmlGpmSampleAlloc(out: Out<Handle>) on WHOLE => |world| {
        let free = (0..=u8::MAX).find(|sample| !world.samples.contains_key(sample));
        let sample = free.ok_or(sys::nvmlReturn_enum_NVML_ERROR_MEMORY)?;
        world.samples.insert(sample, None);
        out.put(Handle::of(Named::Sample(small(sample)?), 0))
    };
    fn nvmlGpmSampleFree(sample: Handle) on WHOLE => |world| {
        world.samples.remove(&sample_of(sample)?).map(drop).ok_or(INVALID)
    };
    fn nvmlGpmSampleGet(device: Handle, sample: Handle) on gpu_of(device) => |world| {
        take(world, device, None, sample)
    };
    fn nvmlGpmMigSampleGet(device: Handle, gi: c_uint, sample: Handle) on gpu_of(device) => |world| {
        take(world, device, Some(gi), sample)
    };
    fn nvmlGpmMetricsGet(out: Out<sys::nvmlGpmMetricsGet_t>) on WHOLE => |world| {
        // Headers differ in the length of the array: only so many entries as the caller names are
        // touched.
        let word = |at| out.behind::<c_uint>(at).get();
        let count = word(offset_of!(sys::nvmlGpmMetricsGet_t, numMetrics))?;
        let sample = |at| -> Answer<Moment> {
            let handle = out.behind::<Handle>(at).get()?;
            world.samples.get(&sample_of(handle)?).copied().flatten().ok_or(INVALID)
        };
        let one = sample(offset_of!(sys::nvmlGpmMetricsGet_t, sample1))?;
        let two = sample(offset_of!(sys::nvmlGpmMetricsGet_t, sample2))?;
        let percent = mean(one, two)?;
        let metrics = offset_of!(sys::nvmlGpmMetricsGet_t, metrics);
        for at in 0..(count as usize).min(333) {
            let place = metrics + at * size_of::<sys::nvmlGpmMetric_t>();
            let id = word(place)?;
            let (code, value) = match factor(id) {
                Some(factor) => (0, percent * factor),
                None => (NOT_SUPPORTED, 0.0),
            };
            let code_at = place + offset_of!(sys::nvmlGpmMetric_t, nvmlReturn);
            out.behind::<c_uint>(code_at).put(code)?;
            let value_at = place + offset_of!(sys::nvmlGpmMetric_t, value);
            out.behind::<c_double>(value_at).put(value)?;
        }
        Ok(())
    };
}
