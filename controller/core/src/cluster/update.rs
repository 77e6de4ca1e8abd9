//! What does `scontrol update` make of a job?

use std::collections::BTreeSet;
use std::sync::Arc;

use penstock_vocab::{GresRequest, JobId, JobState, UserId, Walltime};

use super::Cluster;
use super::accounts::Owner;
use super::allowance::Asks;
use super::reserved::Applicant;
use super::submit::check_privileges;
use crate::command::{Caller, JobUpdate, OrderKind, Reply, Target, Unit};
use crate::model::{Array, AssocId, Dependency, Job, JobSpec, MemoryRequest};
use crate::refusal::{Malformed, Refusal};

/// Most jobs that are looked at in the search for a circle of dependencies.
const MAX_CIRCLE_STEPS: usize = 10_000;
/// Most jobs of one name that such a search looks at, for `singleton`. A circle over more of them is
/// not found; its jobs wait until somebody changes one.
const MAX_SAME_NAME: usize = 1_000;

impl Cluster {
    pub(super) fn update_jobs(
        &mut self,
        caller: &Caller,
        targets: Vec<Target>,
        update: &JobUpdate,
    ) -> Result<Reply, Refusal> {
        if *update == JobUpdate::default() {
            return Err(Refusal::NoChange);
        }
        self.each(targets, |cluster, target| cluster.update_target(caller, target, update))
    }

    fn update_target(
        &mut self,
        caller: &Caller,
        target: &Target,
        update: &JobUpdate,
    ) -> Result<(), Refusal> {
        self.make_places(target, update)?;
        // Checked against an untouched cluster, then applied.
        let view = self.clone();
        let mut limited = Vec::new();
        self.change(
            caller,
            target,
            update.needs_pending(),
            |job| {
                if view.update_job(caller, job, update)? {
                    limited.push((job.id, job.run.clone()));
                }
                Ok(())
            },
            |array| view.update_array(caller, array, update),
        )?;
        for (id, run) in limited {
            if let Some(run) = run {
                self.order_all(id, &run, OrderKind::SetLimit);
            }
        }
        Ok(())
    }

    /// True if nodes must hear of another time limit.
    fn update_job(
        &self,
        caller: &Caller,
        job: &mut Job,
        update: &JobUpdate,
    ) -> Result<bool, Refusal> {
        if job.is_over() {
            return Err(Refusal::AlreadyDone(job.id));
        }
        if job.cron.is_some() {
            return Err(Refusal::CronUnchangeable(job.id));
        }
        if !job.is_pending() && update.needs_pending() {
            return Err(Refusal::NotPending(job.id));
        }
        let mut spec = (*job.spec).clone();
        self.apply_spec(caller, &mut spec, update)?;
        if update.touches_reservation() {
            let who = Applicant { uid: job.uid, assoc: job.assoc, account: &spec.account };
            self.check_reservation(&spec, who)?;
        }
        if let Some(dependency) = &update.dependency {
            let base = job.array.map(|task| task.base);
            self.check_dependency(Unit::Job(job.id), base, dependency)?;
        }
        if update.needs_place() {
            let unit = Unit::Job(job.id);
            job.assoc = self.place_again(caller, job.uid, &mut spec, (unit, 1))?;
        }
        job.spec = Arc::new(spec);
        if update.partitions.is_some() && job.spec.time_limit.is_none() && job.is_pending() {
            job.time_limit = self.limit_for(&job.spec);
        }
        if let Some(begin) = update.begin_time {
            job.not_before = begin;
        }
        if let Some(priority) = update.priority {
            job.fixed_priority = Some(priority);
        }
        let limit = new_limit(job.time_limit, update);
        if limit == job.time_limit {
            if update.deadline.is_some() || update.min_time.is_some() {
                self.check_deadline(&job.spec, limit)?;
            }
            return Ok(false);
        }
        if !caller.admin && longer(limit, job.time_limit) {
            return Err(Refusal::TimeLimitRaise(job.id));
        }
        job.time_limit = limit;
        if job.is_pending() {
            self.check_deadline(&job.spec, limit)?;
        }
        job.limit_serial = job.limit_serial.saturating_add(1);
        let running = matches!(job.state, JobState::Running | JobState::Suspended);
        Ok(running && job.active_run().is_some())
    }

    fn update_array(
        &self,
        caller: &Caller,
        array: &mut Array,
        update: &JobUpdate,
    ) -> Result<(), Refusal> {
        let mut spec = (*array.spec).clone();
        self.apply_spec(caller, &mut spec, update)?;
        if update.touches_reservation() {
            let who = Applicant { uid: array.uid, assoc: array.assoc, account: &spec.account };
            self.check_reservation(&spec, who)?;
        }
        if let Some(dependency) = &update.dependency {
            self.check_dependency(Unit::Array(array.id), Some(array.id), dependency)?;
        }
        if update.needs_place() {
            let waiting = (Unit::Array(array.id), array.pending.len());
            array.assoc = self.place_again(caller, array.uid, &mut spec, waiting)?;
        }
        array.spec = Arc::new(spec);
        if let Some(throttle) = update.throttle {
            array.summary.throttle = throttle;
        }
        if let Some(begin) = update.begin_time {
            array.not_before = begin;
        }
        if let Some(priority) = update.priority {
            array.fixed_priority = Some(priority);
        }
        let limit = new_limit(array.time_limit, update);
        if !caller.admin && longer(limit, array.time_limit) {
            return Err(Refusal::TimeLimitRaise(array.id));
        }
        array.time_limit = limit;
        self.check_deadline(&array.spec, limit)
    }

    fn apply_spec(
        &self,
        caller: &Caller,
        spec: &mut JobSpec,
        update: &JobUpdate,
    ) -> Result<(), Refusal> {
        check_privileges(caller, update.priority, update.nice.unwrap_or(0))?;
        set(&mut spec.qos, update.qos.as_ref());
        set(&mut spec.account, update.account.as_ref());
        set(&mut spec.nice, update.nice.as_ref());
        set(&mut spec.dependency, update.dependency.as_ref());
        set(&mut spec.reservation, update.reservation.as_ref());
        set(&mut spec.begin_time, update.begin_time.as_ref());
        if let Some(deadline) = update.deadline {
            spec.deadline = Some(deadline).filter(|at| at.0 > 0);
        }
        if update.min_time.is_some() {
            spec.min_time = update.min_time;
        }
        set(&mut spec.name, update.name.as_ref());
        set(&mut spec.comment, update.comment.as_ref());
        let details = Arc::make_mut(&mut spec.details);
        set(&mut details.work_dir, update.work_dir.as_ref());
        set(&mut details.stdout, update.stdout.as_ref());
        set(&mut details.stderr, update.stderr.as_ref());
        set(&mut details.stdin, update.stdin.as_ref());
        if let Some(requeue) = update.requeue {
            spec.requeue = Some(requeue);
        }
        if let Some(partitions) = &update.partitions {
            spec.partitions = partitions.clone().into_boxed_slice();
        }
        self.apply_shape(spec, update)?;
        if update.partitions.is_some() {
            self.check_names(spec)?;
        }
        if update.needs_fit() {
            self.check_fit(spec)?;
        }
        Ok(())
    }

    fn apply_shape(&self, spec: &mut JobSpec, update: &JobUpdate) -> Result<(), Refusal> {
        let shape = Arc::make_mut(&mut spec.shape);
        if let Some((min, max)) = update.nodes {
            if max != 0 && max < min {
                let detail = format!("{min} nodes at least and {max} at most can't both hold");
                return Err(Refusal::Malformed { what: Malformed::Count, detail: detail.into() });
            }
            (shape.nodes_min, shape.nodes_max) = (min, max);
        }
        if let Some(tasks) = update.ntasks {
            shape.ntasks = Some(tasks);
        }
        if let Some(cpus) = update.cpus_per_task {
            shape.cpus_per_task = Some(cpus);
        }
        if let Some(memory) = update.mem_per_node {
            shape.memory = if memory.0 == 0 {
                MemoryRequest::WholeNode
            } else {
                MemoryRequest::PerNode(memory)
            };
        }
        if let Some(memory) = update.mem_per_cpu {
            shape.memory = MemoryRequest::PerCpu(memory);
        }
        set(&mut shape.constraint, update.constraint.as_ref());
        if let Some(licenses) = &update.licenses {
            shape.licenses = licenses.iter().cloned().collect();
            self.check_licenses(shape)?;
        }
        if let Some(gres) = &update.gres {
            shape.gres_per_node = gres.iter().cloned().collect::<Box<[GresRequest]>>();
        }
        if let Some(nodes) = &update.required {
            shape.required = nodes.iter().cloned().collect();
        }
        if let Some(nodes) = &update.excluded {
            shape.excluded = nodes.iter().cloned().collect();
        }
        Ok(())
    }

    /// Makes the association that a waiting job would be charged to after the change, where such
    /// are made by themselves.
    fn make_places(&mut self, target: &Target, update: &JobUpdate) -> Result<(), Refusal> {
        if !update.needs_place() {
            return Ok(());
        }
        let id = target.id();
        let record = self.arrays.get(&id).map(|array| (array.uid, Arc::clone(&array.spec)));
        let job = || self.jobs.get(&id).map(|job| (job.uid, Arc::clone(&job.spec)));
        let Some((uid, spec)) = record.or_else(job) else { return Ok(()) };
        let mut spec = (*spec).clone();
        set(&mut spec.account, update.account.as_ref());
        self.make_missing(Owner { uid, login: "", admin: false }, &spec)
    }

    /// Finds anew who is charged for a request, and whether partition and limits let it in there.
    fn place_again(
        &self,
        caller: &Caller,
        uid: UserId,
        spec: &mut JobSpec,
        (unit, tasks): (Unit, u64),
    ) -> Result<AssocId, Refusal> {
        let owner = Owner { uid, login: "", admin: caller.admin };
        let assoc = self.find_place(owner, spec)?.apply(spec);
        // The groups of whoever asks are not known here, so a partition for some groups only is
        // closed to all but admins.
        self.check_partitions(caller, spec, &[])?;
        self.check_limits(&Asks { spec, assoc, uid, tasks }, Some(unit))?;
        Ok(assoc)
    }

    /// Refuses a dependency that leads back to the job, or to one that does not exist yet.
    fn check_dependency(
        &self,
        unit: Unit,
        base: Option<JobId>,
        dependency: &Dependency,
    ) -> Result<(), Refusal> {
        self.check_terms(dependency)?;
        let mut open: Vec<JobId> = dependency.terms.iter().map(|term| term.job).collect();
        if dependency.singleton {
            open.extend(self.earlier_by_name(unit).take(MAX_SAME_NAME).map(Unit::id));
        }
        let mut seen = BTreeSet::new();
        while let Some(next) = open.pop() {
            if next == unit.id() || Some(next) == base || seen.len() > MAX_CIRCLE_STEPS {
                return Err(Refusal::CircularDependency(next));
            }
            if !seen.insert(next) {
                continue;
            }
            let (next, dependency) = match (self.arrays.get(&next), self.jobs.get(&next)) {
                (Some(array), _) if !array.pending.is_empty() => {
                    (Unit::Array(next), &array.spec.dependency)
                }
                (_, Some(waiting)) if waiting.is_pending() => {
                    (Unit::Job(next), &waiting.spec.dependency)
                }
                _ => continue,
            };
            open.extend(dependency.terms.iter().map(|term| term.job));
            if dependency.singleton {
                open.extend(self.earlier_by_name(next).take(MAX_SAME_NAME).map(Unit::id));
            }
        }
        Ok(())
    }
}

impl JobUpdate {
    /// Whether it touches what only a waiting job may change.
    fn needs_pending(&self) -> bool {
        let running = Self {
            time_limit: self.time_limit,
            time_limit_delta: self.time_limit_delta,
            name: self.name.clone(),
            comment: self.comment.clone(),
            requeue: self.requeue,
            throttle: self.throttle,
            ..Self::default()
        };
        *self != running
    }

    /// Whether it changes what a job may use by a reservation.
    fn touches_reservation(&self) -> bool {
        self.reservation.is_some() || self.partitions.is_some() || self.account.is_some()
    }

    /// Whether it changes who is charged, or under which limits.
    fn needs_place(&self) -> bool {
        self.partitions.is_some() || self.account.is_some() || self.qos.is_some()
    }

    /// Whether it changes where or how the job could run.
    fn needs_fit(&self) -> bool {
        self.partitions.is_some()
            || self.nodes.is_some()
            || self.ntasks.is_some()
            || self.cpus_per_task.is_some()
            || self.mem_per_node.is_some()
            || self.mem_per_cpu.is_some()
            || self.constraint.is_some()
            || self.gres.is_some()
            || self.required.is_some()
            || self.excluded.is_some()
    }
}

fn set<T: Clone>(place: &mut T, value: Option<&T>) {
    if let Some(value) = value {
        place.clone_from(value);
    }
}

fn new_limit(now: Walltime, update: &JobUpdate) -> Walltime {
    if let Some(limit) = update.time_limit {
        return limit;
    }
    match (now, update.time_limit_delta) {
        (Walltime::Limited(secs), Some(delta)) => {
            Walltime::Limited(secs.saturating_add_signed(delta).max(60))
        }
        _ => now,
    }
}

fn longer(new: Walltime, old: Walltime) -> bool {
    match (new, old) {
        (_, Walltime::Unlimited) => false,
        (Walltime::Unlimited, Walltime::Limited(_)) => true,
        (Walltime::Limited(new), Walltime::Limited(old)) => new > old,
    }
}
