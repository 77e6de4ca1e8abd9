//! What is the node to be told as, by what is known of its GPUs?

use penstock_proto::v1;

use super::{MAX_CRASHES, Work};
use crate::gpu::{accelerators, claims};

/// Feature of nodes whose GPUs do not exist.
const FAKE_FEATURE: &str = "fake-gpu";

/// What a registration says of GPUs.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Picture {
    pub(crate) gpus: Vec<v1::Gpu>,
    pub(crate) gpu_error: String,
    pub(crate) gres: Vec<v1::GresCount>,
    pub(crate) fake: bool,
    /// Why the node asks to be drained.
    pub(crate) complaint: Option<String>,
}

impl Picture {
    /// Puts it into an inventory.
    pub(crate) fn apply(&self, inventory: &mut v1::Inventory) {
        inventory.gpus.clone_from(&self.gpus);
        inventory.gpu_error.clone_from(&self.gpu_error);
        inventory.gres.clone_from(&self.gres);
        inventory.features.retain(|feature| feature != FAKE_FEATURE);
        if self.fake {
            inventory.features.push(FAKE_FEATURE.to_owned());
        }
    }
}

impl Work {
    /// What the node has, by what is known now.
    pub(super) fn picture(&self) -> Picture {
        let unusable = &self.unusable;
        let gpu_error = match (unusable.word.is_empty(), self.gpus.is_empty()) {
            (true, _) => String::new(),
            (false, _) => format!("{}: {}", unusable.word, unusable.text),
        };
        Picture {
            // One that cannot be read just now has not gone.
            gpus: self.gpus.clone(),
            gpu_error,
            gres: self.gres(),
            fake: self.fake,
            complaint: self.complaint(),
        }
    }

    /// Counts of everything: what the file claims, but for GPUs those that were found.
    pub(super) fn gres(&self) -> Vec<v1::GresCount> {
        let claimed = |wanted: bool| {
            let claims = self.monitor.claims.iter();
            claims.filter(move |claim| (claim.name.name() == "gpu") == wanted).map(|claim| {
                v1::GresCount {
                    name: claim.name.name().to_owned(),
                    r#type: claim.name.kind().unwrap_or_default().to_owned(),
                    count: claim.count,
                }
            })
        };
        let mut gres: Vec<v1::GresCount> =
            if self.looked() { claims::counts(&self.gpus) } else { claimed(true).collect() };
        gres.extend(claimed(false));
        gres.extend(accelerators::counts(&self.monitor.declared));
        gres
    }

    /// Whether what was found counts, and not what the file claims.
    fn looked(&self) -> bool {
        !self.gpus.is_empty() || self.is_wanted()
    }

    fn complaint(&self) -> Option<String> {
        if self.unusable.word == "driver_mismatch" {
            return Some(self.unusable.text.clone());
        }
        if self.crashes.len() >= MAX_CRASHES {
            let count = self.crashes.len();
            return Some(format!("the GPU driver fails: {count} probes were lost in 10 minutes"));
        }
        if !self.looked() {
            return None;
        }
        let mut why: Vec<String> = Vec::new();
        if !self.unusable.word.is_empty() {
            why.push(self.unusable.text.clone());
        }
        let faults = self.gpus.iter().filter(|gpu| !gpu.fault.is_empty());
        why.extend(faults.map(|gpu| format!("GPU {} is {}", gpu.index, gpu.fault)));
        claims::differences(&self.monitor.claims, &claims::counts(&self.gpus), &why.join("; "))
    }
}
