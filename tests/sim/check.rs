//! What must hold, whatever goes wrong? Counted without the help of the code under test.

use std::collections::BTreeMap;

use penstock_core::Cluster;
use penstock_core::command::Unit;
use penstock_core::model::{Array, Job};
use penstock_supervisor::AttemptKey;
use penstock_vocab::JobState;

use crate::client::Operation;
use crate::common::audit;
use crate::world::World;

impl World {
    /// Everything that is checked of a durable cluster.
    pub(crate) fn check_cluster(&mut self, cluster: &Cluster, when: &str) {
        let broken = cluster.check();
        if !broken.is_empty() {
            self.fail(format!("{when}: {broken:?}"));
        }
        audit::nothing_twice(cluster);
        self.check_throttles(cluster);
        self.check_answered(cluster);
        self.check_requests(cluster);
        self.check_shared(cluster);
        self.check_parts(cluster);
        self.check_cuts(cluster);
        for array in cluster.arrays() {
            if let Some(wrong) = miscounted(cluster, array) {
                self.fail(format!("{when}: array {}: {wrong}", array.id));
            }
        }
    }

    /// No answered submission is lost: it is live, or in the history.
    fn check_answered(&mut self, cluster: &Cluster) {
        let lost = self.operations.iter().filter_map(Operation::submitted).find(|id| {
            cluster.job(*id).is_none()
                && cluster.array(*id).is_none()
                && !self.history.contains_key(&Unit::Job(*id))
                && !self.history.contains_key(&Unit::Array(*id))
        });
        if let Some(id) = lost {
            self.fail(format!("job {id} was acknowledged and is lost"));
        }
    }

    /// One request makes one job.
    fn check_requests(&mut self, cluster: &Cluster) {
        let jobs = cluster.jobs().map(|job| {
            let base = job.array.map_or(job.id, |task| task.base);
            (job.spec.name.clone(), base)
        });
        let arrays = cluster.arrays().map(|array| (array.spec.name.clone(), array.id));
        let mut here = BTreeMap::new();
        for (name, base) in jobs.chain(arrays) {
            if *here.entry(name.clone()).or_insert(base) != base {
                self.fail(format!("request {name} made two jobs"));
            }
        }
        // What was answered must be that job.
        let told: Vec<_> = (0..).zip(&self.operations).collect();
        let differs = told.into_iter().find_map(|(number, operation): (usize, _)| {
            let id = operation.submitted()?;
            let name: Box<str> = format!("op-{number}").into();
            here.get(&name).filter(|base| **base != id).map(|base| (number, id, *base))
        });
        if let Some((number, told, is)) = differs {
            self.fail(format!("request {number} was told job {told} and made job {is}"));
        }
    }

    /// No more tasks run than the throttle lets, but where it was lowered below what ran.
    fn check_throttles(&mut self, cluster: &Cluster) {
        let running = audit::running_tasks(cluster);
        for (base, now) in &running {
            let (had, could) = self.running.get(base).copied().unwrap_or_default();
            let most = cluster.array(*base).map_or(0, |array| array.throttle());
            if *now > most.max(had).max(could) {
                self.fail(format!("{now} tasks of array {base} run, {most} may"));
            }
        }
        let with_throttle = |(base, now)| {
            let most = cluster.array(base).map_or(0, |array| array.throttle());
            (base, (now, most))
        };
        self.running = running.into_iter().map(with_throttle).collect();
    }

    /// A job that counts as completed did run to a good end.
    pub(crate) fn check_ended(&mut self, job: &Job) {
        if job.state != JobState::Completed || job.spec.allocation {
            return;
        }
        let run = job.run.as_ref().map(|run| AttemptKey::new(job.id, run.attempt));
        let well = run.and_then(|key| self.truth.get(&key)).copied().flatten();
        if well != Some(true) {
            self.fail(format!("job {} is completed, and {run:?} ended as {well:?}", job.id));
        }
    }

    /// Whether every job is over and every operation answered.
    pub(crate) fn is_done(&self) -> bool {
        let Some(cluster) = self.controller.cluster() else { return false };
        self.operations.iter().all(|operation| operation.answer.is_some())
            && cluster.jobs().all(|job| job.is_over())
            && cluster.arrays().all(|array| array.pending.is_empty())
            && cluster.live_steps().next().is_none()
            && self.machines.iter().all(|machine| machine.on && machine.spooled() == 0)
    }

    /// What keeps the run from its end, for people.
    pub(crate) fn unfinished(&self) -> String {
        let Some(cluster) = self.controller.cluster() else { return "no controller".to_owned() };
        let jobs = cluster.jobs().filter(|job| !job.is_over());
        let jobs: Vec<_> = jobs
            .map(|job| {
                let stage = job.active_run().map(|run| run.stage);
                let held = (job.hold, job.not_before, job.spec.dependency.to_string());
                format!("{} {:?} {stage:?} {held:?}", job.id, job.state)
            })
            .collect();
        let arrays: Vec<_> =
            cluster.arrays().filter(|a| !a.pending.is_empty()).map(|a| a.id).collect();
        let spools: Vec<_> = self.machines.iter().map(|machine| machine.spooled()).collect();
        let nodes: Vec<_> = cluster
            .nodes()
            .map(|(_, node, _)| format!("{} {:?} {:?}", node.name, node.session, node.down))
            .collect();
        format!("jobs {jobs:?}, arrays {arrays:?}, spools {spools:?}, nodes {nodes:?}")
    }

    /// At the end nothing is taken, nothing runs, and what ended is what happened.
    pub(crate) fn at_rest(&mut self) -> Result<(), String> {
        let Some(cluster) = self.controller.cluster().cloned() else { return Ok(()) };
        self.check_cluster(&cluster, "at the end");
        self.check_usage(&cluster);
        for (_, node, used) in cluster.nodes() {
            if used.cpu_count() > 0 || used.memory.0 > 0 || !used.jobs.is_empty() {
                self.fail(format!("at the end {} is not idle", node.name));
            }
        }
        for job in cluster.jobs() {
            self.check_ended(job);
            self.stats.completed += u64::from(job.state == JobState::Completed);
            self.stats.requeues += u64::from(job.restarts);
        }
        let old: Vec<_> = self.history.values().flatten().cloned().collect();
        for job in old {
            self.stats.completed += u64::from(job.state == JobState::Completed);
            self.stats.requeues += u64::from(job.restarts);
        }
        let jobs = cluster.jobs().cloned().chain(self.history.values().flatten().cloned());
        let jobs: Vec<_> = jobs.filter(|job| job.spec.requeue == Some(false)).collect();
        for job in jobs {
            let runs = self.truth.keys().filter(|key| key.job == job.id).count();
            if runs > 1 {
                self.fail(format!("job {} ran {runs} times in spite of --no-requeue", job.id));
            }
        }
        if self.machines.iter().any(|machine| !machine.processes.is_empty()) {
            self.fail("at the end a process runs");
        }
        self.wrong.take().map_or(Ok(()), Err)
    }
}

/// Whether the tasks of an array add up.
fn miscounted(cluster: &Cluster, array: &Array) -> Option<String> {
    let live = cluster.jobs().filter(|job| job.array.is_some_and(|task| task.base == array.id));
    let live = live.filter(|job| !job.is_over()).count() as u64;
    let waiting = array.pending.len();
    let (failed, cancelled) = (array.failed.len(), array.cancelled.len());
    let sum = live + waiting + u64::from(array.completed) + failed + cancelled;
    (sum != u64::from(array.summary.count)).then(|| {
        format!(
            "{live} live, {waiting} waiting, {} completed, {failed} failed, {cancelled} cancelled \
             make {sum} of {}",
            array.completed, array.summary.count
        )
    })
}
