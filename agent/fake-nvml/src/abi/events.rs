//! What happened to a GPU since somebody asked to be told?

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{c_uint, c_ulonglong};
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings as sys;

use super::{Out, WHOLE, gpu_of, handle, serve, small, symbols, whole};
use crate::handle::{Handle, Named};
use crate::state::{Answer, Code, INVALID};
use crate::world::{World, world};

/// The event that every model here can tell: an XID.
const XID: c_ulonglong = 8;

/// All events that can be asked for: bit errors, P-state, XID, clock, MIG.
const SUPPORTED: c_ulonglong = 1 | 2 | 4 | 8 | 16 | 256;

/// How often a waiting call looks for news.
const LOOK: Duration = Duration::from_millis(20);

/// An event set.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// For each GPU: entries of the film that were over when it was registered, or are told.
    told: BTreeMap<usize, BTreeSet<usize>>,
    news: VecDeque<News>,
}

#[derive(Debug, Clone, Copy)]
struct News {
    gpu: usize,
    xid: u32,
    gi: Option<u32>,
    ci: Option<u32>,
}

impl Waiting {
    fn gather(&mut self, happened: &[(usize, News)]) {
        for (at, news) in happened {
            if let Some(told) = self.told.get_mut(&news.gpu)
                && told.insert(*at)
            {
                self.news.push_back(*news);
            }
        }
    }
}

/// Every XID of the film up to now.
fn xids(world: &World) -> Vec<(usize, News)> {
    let news = |(at, what): (usize, &crate::scenario::At)| {
        let (gpu, xid) = (what.gpu as usize, what.xid?);
        Some((at, News { gpu, xid, gi: what.gi, ci: what.ci }))
    };
    world.happened().filter_map(news).collect()
}

fn set_of(set: Handle) -> Answer<u8> {
    match set.named() {
        Some((Named::Events(set), _)) => Ok(set),
        _ => Err(INVALID),
    }
}

fn next(world: &mut World, set: u8) -> Answer<Option<News>> {
    world.look();
    let happened = xids(world);
    let waiting = world.waiting.get_mut(&set).ok_or(INVALID)?;
    waiting.gather(&happened);
    Ok(waiting.news.pop_front())
}

symbols! {
    fn nvmlDeviceGetSupportedEventTypes(device: Handle, out: Out<c_ulonglong>) on gpu_of(device) =>
    |world| {
        whole(world, device)?;
        out.put(SUPPORTED)
    };
    fn nvmlDeviceRegisterEvents(device: Handle, types: c_ulonglong, set: Handle) on gpu_of(device) =>
    |world| {
        let (gpu, set) = (whole(world, device)?, set_of(set)?);
        if types & !SUPPORTED != 0 {
            return Err(sys::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED);
        }
        // What was before is not told.
        let before = xids(world).into_iter().map(|(at, _)| at).collect();
        let waiting = world.waiting.get_mut(&set).ok_or(INVALID)?;
        if types & XID != 0 {
            waiting.told.entry(gpu).or_insert(before);
        }
        Ok(())
    };
    fn nvmlEventSetCreate(out: Out<Handle>) on WHOLE => |world| {
        let free = (0..=u8::MAX).find(|set| !world.waiting.contains_key(set));
        let set = free.ok_or(sys::nvmlReturn_enum_NVML_ERROR_MEMORY)?;
        world.waiting.insert(set, Waiting::default());
        out.put(Handle::of(Named::Events(set), 0))
    };
    fn nvmlEventSetFree(set: Handle) on WHOLE => |world| {
        world.waiting.remove(&set_of(set)?).map(drop).ok_or(INVALID)
    };
}

/// Waits without holding the world, so that other threads' calls go on.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetWait_v2(
    set: Handle,
    out: Out<sys::nvmlEventData_t>,
    timeout_ms: c_uint,
) -> Code {
    let begun = Instant::now();
    let timeout = Duration::from_millis(timeout_ms.into());
    loop {
        let mut found = None;
        let code = serve("nvmlEventSetWait_v2", WHOLE, |world| {
            found = next(world, set_of(set)?)?;
            Ok(())
        });
        if code != 0 {
            return code;
        }
        if let Some(news) = found {
            return tell(out, news).err().unwrap_or(0);
        }
        let Some(left) = timeout.checked_sub(begun.elapsed()) else {
            return sys::nvmlReturn_enum_NVML_ERROR_TIMEOUT;
        };
        std::thread::sleep(LOOK.min(left));
    }
}

fn tell(out: Out<sys::nvmlEventData_t>, news: News) -> Answer<()> {
    let device = handle(&world(), Named::Gpu(small(news.gpu)?))?;
    out.put(sys::nvmlEventData_t {
        device: std::ptr::without_provenance_mut(device.0),
        eventType: XID,
        eventData: news.xid.into(),
        gpuInstanceId: news.gi.unwrap_or(c_uint::MAX),
        computeInstanceId: news.ci.unwrap_or(c_uint::MAX),
    })
}
