//! What has the owner to do with GPUs?
//!
//! It passes on: what the monitor learnt to the controller, and orders to cut to the monitor. Events
//! of GPUs wait while there is no controller; samples do not.

use penstock_proto::v1;
use penstock_vocab::SessionId;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::Work;
use crate::convert::{drain_message, gpu_layout_message, gpu_report_message};
use crate::gpu::{News, Orders, Picture};
use crate::host::Launcher;

/// Most events that wait for a controller; more are dropped, the oldest first.
const MAX_EVENTS: usize = 256;

/// See the module's docs.
#[derive(Debug)]
pub(crate) struct OfGpus {
    orders: Orders,
    /// Why the node asks to be drained.
    complaint: Option<String>,
    events: Vec<v1::GpuEvent>,
    /// Layouts that were not told, the newest of each GPU.
    layouts: Vec<v1::GpuLayout>,
    /// A new session is on its way: what the old one would be told may be lost with it.
    renewing: bool,
    /// Whether there is a monitor to listen to.
    pub(super) are_heard: bool,
}

impl Default for OfGpus {
    /// Without a monitor.
    fn default() -> Self {
        Self::new(mpsc::channel(1).0, None)
    }
}

impl OfGpus {
    /// With orders to a monitor, and a complaint of its first look.
    pub(crate) fn new(orders: Orders, complaint: Option<String>) -> Self {
        let (events, layouts) = (Vec::new(), Vec::new());
        Self { orders, complaint, events, layouts, renewing: false, are_heard: true }
    }
}

impl<H: Launcher> Work<H> {
    pub(super) fn gpu_news(&mut self, news: Option<News>) {
        match news {
            Some(News::Picture(picture)) => {
                self.know(picture);
                // The controller learns what a node has from its registration.
                info!(gpus = self.owner.inventory.gpus.len(), "the node's GPUs changed");
                self.owner.gpus.renewing = true;
                self.owner.again.notify_one();
            }
            Some(News::Known(picture)) => self.know(picture),
            Some(News::Report(report)) => match self.gpu_session() {
                Some(session) => self.send(gpu_report_message(session, report)),
                None => self.keep_events(report.events),
            },
            Some(News::Layout(layout)) => match self.gpu_session() {
                Some(session) => self.send(gpu_layout_message(session, *layout)),
                None => {
                    let uuid = |layout: &v1::GpuLayout| layout.gpu.clone().unwrap_or_default().uuid;
                    let new = uuid(&layout);
                    self.owner.gpus.layouts.retain(|old| uuid(old) != new);
                    self.owner.gpus.layouts.push(*layout);
                }
            },
            None => self.owner.gpus.are_heard = false,
        }
    }

    /// The session that can be told something.
    fn gpu_session(&self) -> Option<SessionId> {
        self.supervisor.session().filter(|_| !self.owner.gpus.renewing)
    }

    fn know(&mut self, picture: Picture) {
        picture.apply(&mut self.owner.inventory);
        let complaint = picture.complaint;
        if complaint != self.owner.gpus.complaint {
            self.owner.gpus.complaint = complaint;
            self.complain();
        }
    }

    fn keep_events(&mut self, events: Vec<v1::GpuEvent>) {
        let kept = &mut self.owner.gpus.events;
        kept.extend(events);
        let over = kept.len().saturating_sub(MAX_EVENTS);
        kept.drain(..over);
    }

    /// What a new session has to hear.
    pub(super) fn tell_of_gpus(&mut self) {
        self.owner.gpus.renewing = false;
        let Some(session) = self.supervisor.session() else { return };
        for layout in std::mem::take(&mut self.owner.gpus.layouts) {
            self.send(gpu_layout_message(session, layout));
        }
        let events = std::mem::take(&mut self.owner.gpus.events);
        if !events.is_empty() {
            let time_ms = crate::sys::wall_clock().as_millis();
            let report = v1::GpuReport { time_ms, samples: Vec::new(), events };
            self.send(gpu_report_message(session, report));
        }
        self.complain();
    }

    fn complain(&mut self) {
        let Some(session) = self.supervisor.session() else { return };
        if let Some(reason) = &self.owner.gpus.complaint {
            error!(reason, "this node asks to be drained");
            let message = drain_message(session, reason);
            self.send(message);
        }
    }

    /// The controller wants a GPU cut anew.
    pub(super) fn cut(&mut self, session: SessionId, order: v1::ReshapeGpu) {
        if self.supervisor.session() != Some(session) {
            return;
        }
        // It is said again where no answer comes in time.
        if let Err(error) = self.owner.gpus.orders.try_send(order) {
            warn!(%error, "an order to cut a GPU cannot be taken");
        }
    }
}
