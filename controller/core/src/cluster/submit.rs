//! When is a job accepted?
//!
//! A job is refused at submission when it could never run: a partition that is closed to it, or a
//! request that the partition could not meet with all its nodes idle and in service.

use std::collections::BTreeSet;
use std::sync::Arc;

use penstock_vocab::{
    Attempt, GresName, GresRequest, IndexSet, JobId, JobState, PartitionName, Walltime,
    gres_matches,
};

use super::Cluster;
use super::accounts::Owner;
use super::allowance::Asks;
use super::reserved::Applicant;
use crate::command::{Caller, MAX_SPECS, RecordKey, Reply, Submission};
use crate::model::{
    Array, ArrayRequest, ArraySummary, AssocId, Dependency, GPU, Hold, Job, JobSpec, Node,
    Partition, Shape,
};
use crate::refusal::{Malformed, Refusal};
use crate::scheduler;

/// Resources that a refusal names at most.
const MAX_NAMED: usize = 16;

/// Shapes that are remembered to fit.
const MAX_KNOWN_FITS: usize = 1_024;

impl Cluster {
    pub(super) fn submit(
        &mut self,
        caller: &Caller,
        submission: Submission,
    ) -> Result<Reply, Refusal> {
        let (job, warnings) = self.accept(caller, submission)?;
        Ok(Reply::Submitted { job, warnings })
    }

    pub(super) fn submit_many(
        &mut self,
        caller: &Caller,
        submissions: Vec<Submission>,
    ) -> Result<Reply, Refusal> {
        if submissions.len() > MAX_SPECS {
            return Err(Refusal::TooManyItems { got: submissions.len(), limit: MAX_SPECS });
        }
        let results = submissions
            .into_iter()
            .map(|submission| self.accept(caller, submission).map(|(job, _)| job).map_err(Box::new))
            .collect();
        Ok(Reply::SubmittedMany(results))
    }

    pub(super) fn accept(
        &mut self,
        caller: &Caller,
        submission: Submission,
    ) -> Result<(JobId, Vec<Box<str>>), Refusal> {
        let known = self.accounts.clone();
        let changed = self.changed.len();
        let accepted = self.accept_resolved(caller, submission);
        if accepted.is_err() && self.changed.len() > changed {
            // Nothing is made for a job that is refused.
            self.accounts = known;
            self.changed.truncate(changed);
            self.resolved.clear();
        }
        accepted
    }

    fn accept_resolved(
        &mut self,
        caller: &Caller,
        submission: Submission,
    ) -> Result<(JobId, Vec<Box<str>>), Refusal> {
        let Submission { mut spec, array, groups, user } = submission;
        let held = self.jobs.len() + self.arrays.len();
        if held >= self.config.policy.max_jobs as usize {
            return Err(Refusal::TooManyJobs(self.config.policy.max_jobs));
        }
        let mut warnings = normalise(&mut spec);
        self.check_names(&spec)?;
        let owner = Owner { uid: caller.uid, login: &user, admin: caller.admin };
        let assoc = self.resolve(owner, &mut spec)?;
        let spec = self.share(spec);
        self.check_request(caller, &spec, &groups)?;
        let who = Applicant { uid: caller.uid, assoc, account: &spec.account };
        self.check_reservation(&spec, who)?;
        self.note_fit(&spec);
        if let Some(array) = &array {
            if spec.allocation {
                let detail = "an array needs a script; submit it by sbatch";
                let what = Malformed::Array;
                return Err(Refusal::Malformed { what, detail: detail.into() });
            }
            self.check_array(array)?;
        }
        let tasks = array.as_ref().map_or(1, |array| array.tasks.len());
        let asks = Asks { spec: &spec, assoc, uid: caller.uid, tasks };
        self.check_limits(&asks, None)?;
        warnings.extend(self.cost_line(&asks));
        Ok((self.enter(caller, assoc, spec, array), warnings))
    }

    /// Puts what was accepted among the records.
    fn enter(
        &mut self,
        caller: &Caller,
        assoc: AssocId,
        spec: Arc<JobSpec>,
        array: Option<ArrayRequest>,
    ) -> JobId {
        let id = self.next_id();
        let time_limit = self.limit_for(&spec);
        let hold = if spec.hold { Hold::User } else { Hold::None };
        let fixed_priority = spec.priority;
        match array {
            Some(request) => {
                self.put_array(Array {
                    id,
                    uid: caller.uid,
                    gid: caller.gid,
                    assoc,
                    spec,
                    submit_time: self.now,
                    summary: summarise(&request),
                    pending: request.tasks,
                    hold,
                    reason: None,
                    held: IndexSet::new(),
                    held_by_admin: IndexSet::new(),
                    fixed_priority,
                    not_before: penstock_vocab::Timestamp(0),
                    time_limit,
                    completed: 0,
                    failed: IndexSet::new(),
                    unlisted: 0,
                    cancelled: IndexSet::new(),
                    cancelled_at: None,
                    last_end: None,
                });
            }
            None => self.put_job(Job {
                id,
                uid: caller.uid,
                gid: caller.gid,
                assoc,
                spec,
                state: JobState::Pending,
                submit_time: self.now,
                eligible_time: None,
                hold,
                restarts: 0,
                run: None,
                earlier_runs: Vec::new(),
                array: None,
                fixed_priority,
                end_time: None,
                cancelled_by: None,
                not_before: penstock_vocab::Timestamp(0),
                last_attempt: Attempt(0),
                reason: None,
                time_limit,
                limit_serial: 0,
                cron: None,
            }),
        }
        id
    }

    /// Shares with the newest request what is equal in both, so that a thousand submits of one
    /// script cost little more memory than one.
    fn share(&mut self, spec: Arc<JobSpec>) -> Arc<JobSpec> {
        let spec = match &self.newest_spec {
            Some(newest) if *newest == spec => Arc::clone(newest),
            Some(newest) => {
                let mut own = Arc::unwrap_or_clone(spec);
                own.share_with(newest);
                Arc::new(own)
            }
            None => spec,
        };
        self.newest_spec = Some(Arc::clone(&spec));
        spec
    }

    /// The next job number. Numbers are never used twice.
    pub(super) fn next_id(&mut self) -> JobId {
        let id = JobId(self.next_job);
        self.next_job = self.next_job.saturating_add(1);
        self.changed.push(RecordKey::Counters);
        id
    }

    /// Everything that can be said against a request before it is tried on nodes, then that.
    fn check_request(
        &self,
        caller: &Caller,
        spec: &JobSpec,
        groups: &[Box<str>],
    ) -> Result<(), Refusal> {
        check_privileges(caller, spec.priority, spec.nice)?;
        self.check_terms(&spec.dependency)?;
        self.check_deadline(spec, self.limit_for(spec))?;
        self.check_licenses(&spec.shape)?;
        self.check_partitions(caller, spec, groups)?;
        self.check_fit(spec)
    }

    /// Refuses a dependency on a job that does not exist yet: it could only be the job itself, or
    /// become somebody else's. One that is no longer known counts as met, as in Slurm.
    pub(super) fn check_terms(&self, dependency: &Dependency) -> Result<(), Refusal> {
        match dependency.terms.iter().find(|term| term.job.0 >= self.next_job) {
            Some(term) => Err(Refusal::Malformed {
                what: Malformed::Dependency,
                detail: format!("the dependency names job {}, which does not exist", term.job)
                    .into(),
            }),
            None => Ok(()),
        }
    }

    /// Refuses partitions that do not exist or are not open to the caller.
    pub(super) fn check_partitions(
        &self,
        caller: &Caller,
        spec: &JobSpec,
        groups: &[Box<str>],
    ) -> Result<(), Refusal> {
        self.check_names(spec)?;
        for partition in self.partitions_of(spec) {
            check_partition(caller, spec, groups, partition)?;
        }
        Ok(())
    }

    /// Refuses partitions that do not exist.
    pub(super) fn check_names(&self, spec: &JobSpec) -> Result<(), Refusal> {
        for name in &spec.partitions {
            if self.partition(name).is_none() {
                return Err(Refusal::InvalidPartition(name.as_str().into()));
            }
        }
        if self.partitions_of(spec).next().is_none() {
            return Err(Refusal::NoDefaultPartition);
        }
        Ok(())
    }

    /// Refuses a request that no partition it names could ever meet.
    pub(super) fn check_fit(&self, spec: &JobSpec) -> Result<(), Refusal> {
        if self.is_known_fit(spec) {
            return Ok(());
        }
        self.check_words(&spec.shape)?;
        // One partition that could take it is enough; the first one's refusal is the most telling.
        let mut refusal = None;
        for partition in self.partitions_of(spec) {
            match scheduler::could_ever_fit(self, partition, &spec.shape) {
                Ok(()) => return Ok(()),
                Err(why) => refusal = refusal.or(Some(why)),
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    /// Under what a request is remembered; one with a choice of partitions is not.
    fn fit_key(&self, spec: &JobSpec) -> Option<(PartitionName, Arc<Shape>)> {
        let mut partitions = self.partitions_of(spec);
        let only = partitions.next().filter(|_| partitions.next().is_none())?;
        Some((only.name.clone(), Arc::clone(&spec.shape)))
    }

    fn is_known_fit(&self, spec: &JobSpec) -> bool {
        self.fit_key(spec).is_some_and(|key| self.known_fits.contains(&key))
    }

    /// Remembers a request that was found to fit.
    fn note_fit(&mut self, spec: &JobSpec) {
        let Some(key) = self.fit_key(spec).filter(|key| !self.known_fits.contains(key)) else {
            return;
        };
        if self.known_fits.len() >= MAX_KNOWN_FITS {
            self.known_fits.clear();
        }
        self.known_fits.insert(key);
    }

    /// Refuses nodes, features and generic resources that do not exist.
    fn check_words(&self, shape: &Shape) -> Result<(), Refusal> {
        for name in shape.required.iter().chain(&shape.excluded) {
            if !self.node_names.contains_key(name) {
                return Err(Refusal::InvalidNode(name.as_str().into()));
            }
        }
        for feature in shape.constraint.features() {
            let known =
                |node: &Arc<crate::model::Node>| node.features().iter().any(|f| **f == *feature);
            if !self.nodes.iter().any(known) {
                return Err(Refusal::InvalidFeature(feature.into()));
            }
        }
        if let Some(missing) = shape.least_gres().find(|asked| !self.is_offered(&asked.name)) {
            return Err(self.no_such_gres(&missing.name));
        }
        let absent = |asked: &&GresRequest| !self.is_offered(&asked.name);
        let choices = shape.gpus.choices.iter();
        let mut lacking = choices.map(|choice| choice.iter().find(absent));
        // One choice that there is will do.
        if let Some(Some(first)) = lacking.next()
            && lacking.all(|lacks| lacks.is_some())
        {
            return Err(self.no_such_gres(&first.name));
        }
        Ok(())
    }

    fn is_offered(&self, name: &GresName) -> bool {
        let offers = |node: &Arc<Node>| {
            node.inventory.gres.iter().any(|have| gres_matches(name, &have.name))
        };
        let dynamic =
            || name.name() == GPU && name.kind().is_some_and(|k| self.is_dynamic_profile(k));
        self.nodes.iter().any(offers) || dynamic()
    }

    /// Refuses a resource that no node has, naming those of the same name that there are.
    fn no_such_gres(&self, name: &GresName) -> Refusal {
        let all = self.nodes.iter().flat_map(|node| &node.inventory.gres).map(|have| &have.name);
        let mut same: BTreeSet<GresName> =
            all.filter(|have| have.name() == name.name()).cloned().collect();
        if name.name() == GPU {
            same.extend(self.dynamic_profiles());
        }
        let mut text = name.to_string();
        if !same.is_empty() {
            let names: Vec<String> = same.iter().take(MAX_NAMED).map(ToString::to_string).collect();
            text.push_str("; there are ");
            text.push_str(&names.join(", "));
        }
        Refusal::InvalidGres(text.into())
    }

    fn check_array(&self, array: &ArrayRequest) -> Result<(), Refusal> {
        let max = self.config.policy.max_array_size.saturating_sub(1);
        match array.tasks.last() {
            Some(index) if index > max => Err(Refusal::ArrayTooLarge { index, max }),
            Some(_) => Ok(()),
            None => Err(Refusal::ArrayTooLarge { index: 0, max }),
        }
    }

    /// The limit in force for a request: its own, else the default of its first partition.
    pub(super) fn limit_for(&self, spec: &JobSpec) -> Walltime {
        spec.time_limit.unwrap_or_else(|| {
            self.partitions_of(spec)
                .next()
                .map_or(Walltime::Unlimited, |first| first.default_time.unwrap_or(first.max_time))
        })
    }

    /// A partition by its name.
    #[must_use]
    pub fn partition(&self, name: &PartitionName) -> Option<&Partition> {
        self.config.partitions.iter().find(|partition| partition.name == *name)
    }

    /// The partitions that a request may use, in its order of preference.
    pub fn partitions_of<'a>(&'a self, spec: &'a JobSpec) -> impl Iterator<Item = &'a Partition> {
        let named = spec.partitions.iter().filter_map(|name| self.partition(name));
        let default = self
            .config
            .partitions
            .iter()
            .filter(|partition| spec.partitions.is_empty() && partition.is_default)
            .take(1);
        named.chain(default)
    }
}

/// Refuses what only admins may ask for.
pub(super) fn check_privileges(
    caller: &Caller,
    priority: Option<u32>,
    nice: i32,
) -> Result<(), Refusal> {
    if caller.admin {
        return Ok(());
    }
    if priority.is_some() {
        return Err(Refusal::AccessDenied("only admins may set a priority".into()));
    }
    if nice < 0 {
        return Err(Refusal::AccessDenied("only admins may set a negative nice value".into()));
    }
    Ok(())
}

fn check_partition(
    caller: &Caller,
    spec: &JobSpec,
    groups: &[Box<str>],
    partition: &Partition,
) -> Result<(), Refusal> {
    let name = || -> Box<str> { partition.name.as_str().into() };
    if !partition.state.accepts_jobs() {
        return Err(Refusal::PartitionClosed { name: name(), state: partition.state.name() });
    }
    if caller.admin {
        return Ok(());
    }
    if partition.root_only {
        return Err(Refusal::PartitionNotAllowed { name: name(), why: "admins only".into() });
    }
    let allowed = &partition.allow_groups;
    if !allowed.is_empty() && !allowed.iter().any(|group| groups.contains(group)) {
        let why = format!("members of {} only", allowed.join(", "));
        return Err(Refusal::PartitionNotAllowed { name: name(), why: why.into() });
    }
    if !passes(&partition.allow_accounts, &partition.deny_accounts, &spec.account) {
        return Err(Refusal::AccountNotAllowed {
            account: spec.account.clone(),
            partition: name(),
        });
    }
    if !passes(&partition.allow_qos, &partition.deny_qos, &spec.qos) {
        let text = format!("QOS {} may not be used in partition {}", spec.qos, partition.name);
        return Err(Refusal::InvalidQos(text.into()));
    }
    Ok(())
}

/// Whether two lists let a name through. As in Slurm the second counts only without the first.
pub(crate) fn passes(allowed: &[Box<str>], denied: &[Box<str>], name: &str) -> bool {
    let named = |list: &[Box<str>]| list.iter().any(|other| other.eq_ignore_ascii_case(name));
    if allowed.is_empty() { !named(denied) } else { named(allowed) }
}

/// More nodes than tasks make no sense; Slurm lowers the nodes and says so.
fn normalise(spec: &mut Arc<JobSpec>) -> Vec<Box<str>> {
    let Some(tasks) = spec.shape.ntasks else { return Vec::new() };
    if spec.shape.nodes_min <= tasks || tasks == 0 {
        return Vec::new();
    }
    let shape = Arc::make_mut(&mut Arc::make_mut(spec).shape);
    let warning = format!(
        "can't run {tasks} processes on {} nodes, setting nnodes to {tasks}",
        shape.nodes_min
    );
    shape.nodes_min = tasks;
    shape.nodes_max = shape.nodes_max.min(tasks);
    vec![warning.into()]
}

fn summarise(request: &ArrayRequest) -> ArraySummary {
    let runs = request.tasks.ranges();
    let step = match runs {
        [only] => only.step.max(1),
        _ => 1,
    };
    ArraySummary {
        count: u32::try_from(request.tasks.len()).unwrap_or(u32::MAX),
        min: request.tasks.first().unwrap_or(0),
        max: request.tasks.last().unwrap_or(0),
        step,
        throttle: request.throttle,
    }
}
