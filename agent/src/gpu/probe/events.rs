//! What happened to a GPU?

use penstock_proto::v1;

use super::Mouth;
use super::library::Library;
use crate::gpu::wire::Answer;
use crate::sys::nvml::{Event, Events};
use crate::sys::wall_clock;

/// The kind of event that is an XID.
const XID: u64 = 8;

/// A change of the MIG layout by somebody.
const MIG_CHANGE: u64 = 256;

/// How long one wait is; a thread that waits longer could not be told from one that hangs.
const WAIT_MS: u32 = 60_000;

/// Waits between failures of the wait itself, so that a broken driver costs no processor.
const AFTER_FAILURE: std::time::Duration = std::time::Duration::from_secs(10);

/// Tells every XID and every change of a layout, for ever; returns where nothing can be told.
pub(super) fn watch(library: &Library, count: u32, mouth: &Mouth) {
    let Some(mut events) = library.known(Events::new(library.nvml)) else { return };
    let mut registered = 0;
    for index in 0..count {
        // One that is lost must not cost the others their events.
        let Ok(device) = library.nvml.device_by_index(index) else { continue };
        let supported = library.known(events.supported(&device)).unwrap_or(XID);
        let kinds = (XID | MIG_CHANGE) & supported;
        if kinds != 0 && library.known(events.register(&device, index, kinds)).is_some() {
            registered += 1;
        }
    }
    if registered == 0 {
        return;
    }
    loop {
        match events.wait(WAIT_MS) {
            Ok(Some(event)) => {
                if let Some(event) = told(event) {
                    mouth.say(0, Answer::Event(event));
                }
            }
            Ok(None) => {}
            Err(_) => std::thread::sleep(AFTER_FAILURE),
        }
    }
}

fn told(event: Event) -> Option<v1::GpuEvent> {
    let (xid, text) = match event.kind {
        XID => (u32::try_from(event.data).unwrap_or(u32::MAX), String::new()),
        MIG_CHANGE => (0, "its MIG layout was changed".to_owned()),
        _ => return None,
    };
    let time_ms = wall_clock().as_millis();
    Some(v1::GpuEvent { gpu: event.gpu?, gi: event.gi, xid, text, time_ms })
}
