//! How is an order to cut a GPU carried out, so that it can be repeated?
//!
//! The intent is durable before the probe is told. Whatever comes of it, the GPU is looked at
//! afterwards, gets the next generation, and that is the answer; asked again for the same
//! generation, the answer is given again.

use std::time::Duration;

use penstock_proto::v1;
use tracing::{info, warn};

use super::{Asked, News, Work};
use crate::gpu::layout::{Intent, cut_of};
use crate::gpu::wire::{Done, Question};

/// Seconds for a cut where the order names none, and at most.
const CUT_SECS: u32 = 60;
const MAX_CUT_SECS: u32 = 600;

impl Work {
    /// Takes an order of the controller.
    pub(super) async fn order(&mut self, order: v1::ReshapeGpu) -> Vec<News> {
        match self.accept(&order) {
            Ok(Some(intent)) => {
                self.resume(intent).await;
                Vec::new()
            }
            // It is being done.
            Ok(None) => Vec::new(),
            Err(error) => vec![self.answer(&order, error)],
        }
    }

    /// Writes the intent; `None`: this order is being carried out. `Err`: it is done or cannot be.
    fn accept(&mut self, order: &v1::ReshapeGpu) -> Result<Option<Intent>, String> {
        if self.probe.is_none() {
            return Err("GPUs cannot be read just now".to_owned());
        }
        let Some(kept) = self.layouts.kept(&order.uuid) else {
            return Err(format!("this node has no GPU {}", order.uuid));
        };
        let gpu = kept.gpu.clone().unwrap_or_default();
        if let Some(intent) = &kept.intent {
            if intent.generation == order.generation {
                return Ok(None);
            }
            return Err(format!("it is being cut for generation {}", intent.generation));
        }
        if kept.answered == order.generation && gpu.generation > order.generation {
            return Err(kept.error.clone());
        }
        if gpu.generation != order.generation {
            let (is, named) = (gpu.generation, order.generation);
            return Err(format!("its layout is of generation {is}, the order of {named}"));
        }
        let intent = Intent {
            cut: Some(cut_of(order, &gpu)?),
            generation: order.generation,
            tries: 1,
            deadline_secs: order.deadline_secs,
        };
        kept.intent = Some(intent.clone());
        if let Err(error) = self.layouts.write() {
            if let Some(kept) = self.layouts.kept(&order.uuid) {
                kept.intent = None;
            }
            return Err(format!("the intent cannot be kept, so nothing is done: {error}"));
        }
        Ok(Some(intent))
    }

    /// Tells the probe to cut.
    pub(super) async fn resume(&mut self, intent: Intent) {
        let Some(cut) = intent.cut else { return };
        info!(gpu = cut.gpu, destroy = cut.destroy.len(), create = cut.create.len(), "cutting");
        let seconds = match intent.deadline_secs {
            0 => CUT_SECS,
            given => given.min(MAX_CUT_SECS),
        };
        let (about, time) = (Asked::Cut(cut.uuid.clone()), Duration::from_secs(seconds.into()));
        self.ask(about, Question::Cut(cut), time).await;
    }

    /// A cut is over.
    pub(super) fn cut_done(&mut self, uuid: &str, done: Done) -> Vec<News> {
        let mut now = done.gpu.map(|gpu| *gpu);
        if let Some(gpu) = &mut now {
            self.localize(gpu);
            // Who is linked to whom is not told with a single GPU.
            if let Some(before) = self.gpus.iter().find(|before| before.uuid == gpu.uuid) {
                gpu.links.clone_from(&before.links);
            }
        }
        let Some(kept) = self.layouts.kept(uuid) else { return Vec::new() };
        let Some(intent) = kept.intent.take() else { return Vec::new() };
        let before = kept.gpu.clone().unwrap_or_default();
        kept.answered = intent.generation;
        kept.error.clone_from(&done.error);
        let told = now.unwrap_or_else(|| before.clone());
        let mut told = self.layouts.take_one(told);
        // Every attempt has a generation of its own, also one that changed nothing.
        told.generation = told.generation.max(before.generation + 1);
        if let Some(kept) = self.layouts.kept(uuid) {
            kept.gpu = Some(told.clone());
        }
        if done.error.is_empty() {
            info!(gpu = told.index, generation = told.generation, "cut");
        } else {
            warn!(gpu = told.index, error = done.error, "could not be cut as ordered");
        }
        if let Some(place) = self.gpus.iter_mut().find(|gpu| gpu.uuid == uuid) {
            *place = told.clone();
        }
        self.keep();
        self.tell_layout(told, intent.generation, done.error)
    }

    fn tell_layout(&mut self, gpu: v1::Gpu, answers: u64, error: String) -> Vec<News> {
        self.learn();
        let layout = v1::GpuLayout { gpu: Some(gpu), answers, error, gres: self.gres() };
        // The layout tells it; a registration is not due for that.
        self.told = Some(self.picture());
        vec![News::Layout(Box::new(layout)), News::Known(self.picture())]
    }

    fn answer(&mut self, order: &v1::ReshapeGpu, error: String) -> News {
        let gpu = self.gpus.iter().find(|gpu| gpu.uuid == order.uuid).cloned();
        let (answers, gres) = (order.generation, self.gres());
        News::Layout(Box::new(v1::GpuLayout { gpu, answers, error, gres }))
    }
}
