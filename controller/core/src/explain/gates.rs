//! Which gates must a waiting unit pass, which of them are shut, and when do they open?
//!
//! What the records alone decide is read from them, with the functions that decide it when jobs are
//! queued and started; what depends on the others that wait is read from the plan; and whether there
//! is room now is asked of the scheduler, as if the unit waited alone.

use penstock_vocab::{PendingReason, Timestamp, UserId, Walltime};

use super::words::{between, count};
use crate::cluster::{Applicant, Cluster, DependencyState, Waiting, kept_back};
use crate::command::Unit;
use crate::model::{AssocId, DependencyKind, Hold, JobSpec, Partition, ReservationFlag};
use crate::policy::FairShare;
use crate::policy::limits::{Check, UsageCache};
use crate::scheduler::{Limits, Plan, partition_obstacle, plan};

/// What a gate is about, in the order in which they are passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GateKind {
    /// A hold.
    Held,
    /// Other jobs.
    Dependency,
    /// The earliest start, or the delay after a requeue.
    Begin,
    /// What its partitions let through.
    Partition,
    /// Its advance reservation.
    Reservation,
    /// Limits: of its array, association and QOS.
    Limits,
    /// Licences.
    Licenses,
    /// Those who are ahead.
    Priority,
    /// Nodes, CPUs, memory, generic resources.
    Resources,
}

impl GateKind {
    /// All, in order.
    pub const ALL: [Self; 9] = [
        Self::Held,
        Self::Dependency,
        Self::Begin,
        Self::Partition,
        Self::Reservation,
        Self::Limits,
        Self::Licenses,
        Self::Priority,
        Self::Resources,
    ];

    /// Its name on the wire and for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Dependency => "dependency",
            Self::Begin => "begin",
            Self::Partition => "partition",
            Self::Reservation => "reservation",
            Self::Limits => "limits",
            Self::Licenses => "licenses",
            Self::Priority => "priority",
            Self::Resources => "resources",
        }
    }
}

/// One thing that must be so before a unit starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// What it is about.
    pub kind: GateKind,
    /// Whether it lets the unit through.
    pub open: bool,
    /// Slurm's reason while it is shut; [`PendingReason::None`]: it is open, or can't be judged before
    /// the gates ahead of it are open, or no plan has looked at the unit yet.
    pub reason: PendingReason,
    /// One sentence with numbers.
    pub detail: String,
    /// When it opens at the latest; `None`: it is open, or nobody knows.
    pub opens: Option<Timestamp>,
}

/// Reasons by the gate that gives them; every other is a limit of an association or a QOS.
const REASONS: &[(GateKind, &[PendingReason])] = &[
    (
        GateKind::Held,
        &[
            PendingReason::JobHeldUser,
            PendingReason::JobHeldAdmin,
            PendingReason::JobHoldMaxRequeue,
            PendingReason::LaunchFailedHeld,
            PendingReason::ReservationDeleted,
        ],
    ),
    (GateKind::Dependency, &[PendingReason::Dependency, PendingReason::DependencyNeverSatisfied]),
    (GateKind::Begin, &[PendingReason::BeginTime]),
    (
        GateKind::Partition,
        &[
            PendingReason::PartitionDown,
            PendingReason::PartitionInactive,
            PendingReason::PartitionNodeLimit,
            PendingReason::PartitionTimeLimit,
            PendingReason::PartitionConfig,
            PendingReason::AccountNotAllowed,
            PendingReason::QosNotAllowed,
            PendingReason::MaxMemPerLimit,
        ],
    ),
    (GateKind::Reservation, &[PendingReason::Reservation]),
    (GateKind::Licenses, &[PendingReason::Licenses]),
    (GateKind::Priority, &[PendingReason::Priority, PendingReason::None]),
    (
        GateKind::Resources,
        &[
            PendingReason::Resources,
            PendingReason::ReqNodeNotAvail,
            PendingReason::NodeDown,
            PendingReason::BadConstraints,
            PendingReason::Cleaning,
            PendingReason::Prolog,
            PendingReason::BurstBufferResources,
            PendingReason::BurstBufferStageIn,
            PendingReason::PowerNotAvail,
            PendingReason::SchedDefer,
        ],
    ),
];

/// The gate that a reason belongs to.
#[must_use]
pub fn gate_of(reason: PendingReason) -> GateKind {
    let found = REASONS.iter().find(|(_, reasons)| reasons.contains(&reason));
    found.map_or(GateKind::Limits, |(kind, _)| *kind)
}

/// A unit that waits, with what its records say.
pub(super) struct Asked<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) plan: &'a Plan,
    pub(super) now: Timestamp,
    pub(super) unit: Unit,
    pub(super) spec: &'a JobSpec,
    pub(super) uid: UserId,
    pub(super) assoc: AssocId,
    pub(super) hold: Hold,
    pub(super) lasting: Option<PendingReason>,
    pub(super) not_before: Timestamp,
    pub(super) limit: Walltime,
    /// Waiting units ahead of it in its partitions.
    pub(super) ahead: u32,
}

/// All gates of a unit, in order.
pub(super) fn gates(asked: &Asked<'_>) -> Vec<Gate> {
    if asked.starts() {
        return GateKind::ALL
            .into_iter()
            .map(|kind| open(kind, "open: the newest plan starts it"))
            .collect();
    }
    let mut gates = vec![
        asked.held(),
        asked.dependency(),
        asked.begin(),
        asked.partition(),
        asked.reservation(),
        asked.limits(),
        asked.licenses(),
    ];
    let clear = gates.iter().all(|gate| gate.open);
    let said = asked.cluster.waiting(asked.unit, asked.plan);
    gates.push(asked.priority(said.as_ref(), clear));
    gates.push(asked.resources());
    if let Some(said) = said {
        asked.agree(&mut gates, said);
    }
    gates
}

fn open(kind: GateKind, detail: impl Into<String>) -> Gate {
    Gate { kind, open: true, reason: PendingReason::None, detail: detail.into(), opens: None }
}

fn shut(kind: GateKind, waiting: Waiting, opens: Option<Timestamp>) -> Gate {
    Gate { kind, open: false, reason: waiting.reason, detail: waiting.detail, opens }
}

impl<'a> Asked<'a> {
    /// Whether the plan starts all of it.
    fn starts(&self) -> bool {
        self.plan.starts.iter().any(|line| line.unit == self.unit)
            && self.plan.reason(self.unit).is_none()
    }

    fn expected(&self) -> Option<Timestamp> {
        self.plan.expected(self.unit).map(|expected| expected.start)
    }

    fn partitions(&self) -> impl Iterator<Item = &'a Partition> {
        self.cluster.partitions_of(self.spec)
    }

    /// What was decided elsewhere stands: the gate of that reason is shut, with its words.
    fn agree(&self, gates: &mut [Gate], said: Waiting) {
        let known = gates.iter().any(|gate| !gate.open && gate.reason == said.reason);
        if known {
            return;
        }
        let kind = gate_of(said.reason);
        if let Some(gate) = gates.iter_mut().find(|gate| gate.kind == kind) {
            *gate = shut(kind, said, self.expected());
        }
    }

    fn held(&self) -> Gate {
        match kept_back(self.hold, self.lasting) {
            Some(waiting) => shut(GateKind::Held, waiting, None),
            None => open(GateKind::Held, "nobody holds it"),
        }
    }

    fn dependency(&self) -> Gate {
        let kind = GateKind::Dependency;
        match self.cluster.waits_for_job(self.unit) {
            Some(waiting) => shut(kind, waiting, self.dependency_opens()),
            None if self.spec.dependency.is_empty() => open(kind, "it waits for no other job"),
            None => open(kind, "what it waited for has come"),
        }
    }

    /// When its dependency is met at the latest: known where it counts minutes, or waits only for the
    /// end, however it comes, of jobs that run with a limit.
    fn dependency_opens(&self) -> Option<Timestamp> {
        if let DependencyState::MetAt(at) = self.cluster.dependency_state(self.unit) {
            return Some(at);
        }
        let dependency = &self.spec.dependency;
        if dependency.any || dependency.singleton {
            return None;
        }
        let mut latest = self.now;
        for term in &dependency.terms {
            match self.cluster.term_state(term, None) {
                DependencyState::Met => {}
                DependencyState::MetAt(at) => latest = latest.max(at),
                DependencyState::Waits if term.kind == DependencyKind::AfterAny => {
                    let job = self.cluster.job(term.job).filter(|_| term.task.is_none())?;
                    latest = latest.max(job.ends_by(self.now)?);
                }
                DependencyState::Waits | DependencyState::Never => return None,
            }
        }
        Some(latest)
    }

    fn begin(&self) -> Gate {
        let begin = self.spec.begin_time.max(self.not_before);
        if begin <= self.now {
            return open(GateKind::Begin, "its begin time has come");
        }
        let delayed = self.not_before > self.spec.begin_time;
        let wait = between(self.now, begin);
        let detail = if delayed {
            format!("it was requeued or delayed; it may start again in {wait}")
        } else {
            format!("it asks not to start before its begin time, in {wait}")
        };
        shut(GateKind::Begin, Waiting::new(PendingReason::BeginTime, detail), Some(begin))
    }

    fn partition(&self) -> Gate {
        let kind = GateKind::Partition;
        let mut first = None;
        for partition in self.partitions() {
            let qos = self.cluster.accounts().qos(&self.spec.qos).map(|qos| &**qos);
            match partition_obstacle(partition, qos, self.spec, self.limit) {
                Some(waiting) => first = first.or(Some(waiting)),
                None => {
                    let (name, limit, most) = (&partition.name, self.limit, partition.max_time);
                    let detail = format!("partition {name} takes it: limit {limit} of {most}");
                    return open(kind, detail);
                }
            }
        }
        let nowhere =
            || Waiting::new(PendingReason::PartitionDown, "it names no partition that exists");
        shut(kind, first.unwrap_or_else(nowhere), None)
    }

    fn reservation(&self) -> Gate {
        let kind = GateKind::Reservation;
        let name = &self.spec.reservation;
        let because = |detail: String, opens| {
            shut(kind, Waiting::new(PendingReason::Reservation, detail), opens)
        };
        if name.is_empty() {
            return open(kind, "it asks for no reservation");
        }
        let Some(own) = self.cluster.reservation(name) else {
            let detail = format!("reservation {name} does not exist any more");
            return shut(kind, Waiting::new(PendingReason::ReservationDeleted, detail), None);
        };
        let account = &self.spec.account;
        let who = Applicant { uid: self.uid, assoc: self.assoc, account };
        if !self.cluster.reservation_admits(own, who) {
            return because(format!("reservation {name} is for others"), None);
        }
        // One without nodes sets licences aside.
        let free = own.has(ReservationFlag::Flex) || own.nodes.is_empty();
        match own.windows().find(|(_, end)| *end > self.now) {
            Some((start, _)) if start > self.now && !free => {
                let wait = between(self.now, start);
                because(format!("reservation {name} begins in {wait}"), Some(start))
            }
            Some((_, end)) => {
                let left = between(self.now, end);
                open(kind, format!("it may use reservation {name}, which ends in {left}"))
            }
            None => because(format!("reservation {name} is over"), None),
        }
    }

    fn limits(&self) -> Gate {
        let kind = GateKind::Limits;
        let base = match self.unit {
            Unit::Array(id) => Some(id),
            Unit::Job(id) => self.cluster.job(id).and_then(|job| job.array).map(|task| task.base),
        };
        if let Some(waiting) = self.limited() {
            return shut(kind, waiting, None);
        }
        let Some(array) = base.and_then(|base| self.cluster.array(base)) else {
            return open(kind, "no limit of its account or QOS keeps it back");
        };
        let (runs, most) = (self.cluster.running_tasks(array.id), array.throttle());
        if runs < most {
            let at_once = match most {
                u32::MAX => "any number".to_owned(),
                most => most.to_string(),
            };
            return open(kind, format!("{runs} tasks of its array run, {at_once} may at once"));
        }
        let ends = self.cluster.tasks_of(array.id).filter_map(|task| task.ends_by(self.now));
        let opens = ends.min();
        let detail = format!("{runs} tasks of its array run, {most} may at once (its throttle)");
        shut(kind, Waiting::new(PendingReason::JobArrayTaskLimit, detail), opens)
    }

    /// The limit of an association or QOS that keeps it from every partition.
    fn limited(&self) -> Option<Waiting> {
        let used = UsageCache::default();
        let shares = FairShare::new(self.cluster, self.now);
        let check = Check::new(self.cluster, self.now, &used).with_shares(&shares);
        check.in_all(self.unit, self.spec, self.partitions()).err()
    }

    fn licenses(&self) -> Gate {
        let kind = GateKind::Licenses;
        let asked = &self.spec.shape.licenses;
        if asked.is_empty() {
            return open(kind, "it asks for no licence");
        }
        let until = match self.limit {
            Walltime::Limited(secs) => self.now.plus_secs(secs),
            Walltime::Unlimited => Timestamp::MAX,
        };
        let own = self.cluster.reservation(&self.spec.reservation).map(|own| &**own);
        let mut free = Vec::new();
        for (name, _) in asked {
            let same = asked.iter().filter(|(other, _)| other == name);
            let needs = same.fold(0u64, |sum, (_, count)| sum.saturating_add(*count));
            let left = self.cluster.licenses_left(name, self.now, until, own);
            let total = self.cluster.licenses_total(name);
            let detail = format!("needs {needs} of licence {name}; {left} of {total} are free");
            if needs > left {
                let waiting = Waiting::new(PendingReason::Licenses, detail);
                return shut(kind, waiting, self.expected());
            }
            free.push(detail);
        }
        open(kind, free.join("; "))
    }

    fn priority(&self, said: Option<&Waiting>, clear: bool) -> Gate {
        let kind = GateKind::Priority;
        let ahead = count(u64::from(self.ahead), "waiting job");
        let standing = match self.plan.priority(self.unit) {
            Some(priority) => format!("priority {priority}; {ahead} ahead of it in its partitions"),
            None => format!("{ahead} ahead of it in its partitions"),
        };
        match said {
            Some(said) if said.reason == PendingReason::Priority => {
                let detail = format!("{standing}; {}", said.detail);
                shut(kind, Waiting::new(said.reason, detail), self.expected())
            }
            Some(said) if said.reason == PendingReason::None && clear => {
                let detail = "the next plan looks at it, within moments";
                shut(kind, Waiting::new(PendingReason::None, detail), None)
            }
            _ if self.plan.priority(self.unit).is_some() => open(kind, standing),
            _ => shut(kind, Waiting::new(PendingReason::None, UNSEEN), None),
        }
    }

    /// Whether there is room now if nobody else waited.
    fn resources(&self) -> Gate {
        let kind = GateKind::Resources;
        let alone = self.cluster.with_only(self.unit);
        let unseen = || shut(kind, Waiting::new(PendingReason::None, UNSEEN), None);
        if alone.queue_is_empty() {
            return unseen();
        }
        let alone = plan(&alone, self.now, Limits::default());
        match alone.reason(self.unit) {
            None if alone.starts.is_empty() => unseen(),
            None => open(kind, "enough is free now"),
            Some(waiting) if gate_of(waiting.reason) == kind => {
                let opens = self
                    .expected()
                    .or_else(|| alone.expected(self.unit).map(|expected| expected.start));
                shut(kind, waiting, opens)
            }
            Some(_) => unseen(),
        }
    }
}

/// Of a gate that nobody can judge yet.
const UNSEEN: &str = "looked at once the gates before it are open";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_and_nothing_else_that_a_plan_says_is_at_the_gate_of_limits() {
        for reason in PendingReason::ALL {
            let limit = reason.code() >= 100;
            assert!(!limit || gate_of(*reason) == GateKind::Limits, "{reason}");
        }
        for reason in REASONS.iter().flat_map(|(_, reasons)| *reasons) {
            assert!(reason.code() < 100, "{reason}");
            let times = REASONS.iter().filter(|(_, reasons)| reasons.contains(reason)).count();
            assert_eq!(times, 1, "{reason}");
        }
    }
}
