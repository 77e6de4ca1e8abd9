//! What would be planned if one thing were different?
//!
//! Copies for forecasts alone: cheap, since what is equal is shared, and never put in the place of the
//! real cluster.

use std::sync::Arc;

use imbl::OrdMap;
use penstock_vocab::Timestamp;

use super::Cluster;
use super::index::queued_job;
use crate::command::Unit;
use crate::model::Config;

impl Cluster {
    /// The same cluster as it is seen at `now`, if that is later than its newest command. O(1).
    pub(crate) fn seen_at(&self, now: Timestamp) -> Self {
        let mut view = self.clone();
        view.now = now.max(view.now);
        view
    }

    /// The same cluster with so many places reserved in time, everything else alike. Cost: a copy of
    /// the configuration.
    pub(crate) fn with_depth(&self, depth: u32) -> Self {
        let mut view = self.clone();
        let mut config = Config::clone(&self.config);
        config.scheduling.backfill.depth = depth;
        config.scheduling.backfill.reserve_expansion = 0;
        view.config = Arc::new(config);
        view
    }

    /// The same cluster in which this unit alone waits, whatever keeps a job back by its own records;
    /// an array only where it waits for resources. O(log n).
    pub(crate) fn with_only(&self, unit: Unit) -> Self {
        let queued = self.index.queue.get(&unit).cloned().or_else(|| match unit {
            Unit::Job(id) => {
                self.jobs.get(&id).filter(|job| job.is_pending()).map(|j| queued_job(j))
            }
            Unit::Array(_) => None,
        });
        let mut view = self.clone();
        view.index.queue =
            queued.into_iter().map(|queued| (unit, queued)).collect::<OrdMap<_, _>>();
        view
    }
}
