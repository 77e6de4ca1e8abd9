//! What do the people of a shared cluster do to it?
//!
//! Two users in two accounts, a QOS that is capped, one whose jobs preempt all others, reservations for
//! one of the users, and admins who change all that while jobs run, and suspend and resume them.

use std::sync::Arc;

use penstock_core::Command;
use penstock_core::accounts::{AccountChange, AssocSettings, EditMode, Limit, QosSettings};
use penstock_core::command::{
    NodeChoice, PreemptLine, ReservationChange, ReservationRequest, Target, Unit,
};
use penstock_core::model::{PreemptBy, PreemptMode, ReservationFlag, Scheduling};
use penstock_vocab::{JobId, TresKind, UserId, Walltime};

use crate::common::accounts::{account, add_user, list, member, place, qos, set_account, set_qos};
use crate::common::{admin, asking};
use crate::controller::{Waiter, node_name};
use crate::world::{AGENTS, World};

/// QOS whose jobs together, and whose users, may have only so much.
pub(crate) const CAPPED: &str = "capped";
/// How many CPUs its jobs may have together.
pub(crate) const CAPPED_CPUS: Limit = Limit::GrpTres(TresKind::Cpu);
/// QOS whose jobs take the place of others.
const URGENT: &str = "urgent";
/// The account beside `users`.
const LAB: &str = "lab";
/// Users, by number; they are named so too.
const USERS: [u32; 2] = [1000, 1001];

/// The part of the cluster file that is about sharing. Usage does not decay, so that it adds up.
pub(crate) fn scheduling() -> Scheduling {
    let mut scheduling = Scheduling::default();
    scheduling.fairshare.half_life_secs = 0;
    scheduling.preemption.by = PreemptBy::Qos;
    scheduling.preemption.mode = PreemptMode::Requeue;
    scheduling
}

fn modify(name: &str, settings: QosSettings) -> AccountChange {
    AccountChange::ModifyQos(name.into(), Box::new(settings))
}

/// What an admin sets up before anything else.
fn setup() -> Vec<AccountChange> {
    let limits = [(CAPPED_CPUS, 6), (Limit::MaxJobsPerUser, 2)];
    let of_capped =
        QosSettings { preempt_mode: Some(Some(PreemptMode::Suspend)), ..QosSettings::default() };
    let of_urgent = QosSettings {
        preempt: Some(list(EditMode::Set, &["normal", CAPPED])),
        usage_factor: Some(2_000_000),
        ..QosSettings::default()
    };
    let of_normal = QosSettings { grace_secs: Some(3), ..QosSettings::default() };
    let all = Some(list(EditMode::Set, &["normal", CAPPED, URGENT]));
    let mut changes = vec![
        qos(CAPPED, limits),
        modify(CAPPED, of_capped),
        AccountChange::AddQos(URGENT.into(), Box::new(of_urgent)),
        modify("normal", of_normal),
    ];
    for name in ["users", LAB] {
        changes.push(account(name, ""));
        let settings = AssocSettings { qos: all.clone(), ..AssocSettings::default() };
        changes.push(set_account(name, settings));
    }
    for uid in USERS {
        let name = uid.to_string();
        changes.extend([add_user(&name, uid), member("users", &name), member(LAB, &name)]);
    }
    changes
}

impl World {
    /// The request of a client where the cluster is shared.
    pub(crate) fn shared_command(&mut self, number: usize) -> Command {
        let caller = asking(admin(), self.request(number));
        if number == 0 {
            return Command::Accounts(caller, setup());
        }
        if self.rng.chance(600) {
            return self.shared_submission(number);
        }
        match self.rng.below(12) {
            0..2 => Command::Accounts(caller, vec![self.account_change()]),
            2..4 => Command::Reservation(caller, self.reservation_change()),
            4..6 => Command::Suspend(caller, vec![self.target()], true),
            6 => Command::Suspend(caller, vec![self.target()], false),
            7 => {
                self.stray_preemption();
                Command::Suspend(caller, vec![self.target()], false)
            }
            _ => self.change(number),
        }
    }

    fn shared_submission(&mut self, number: usize) -> Command {
        let Command::Submit(mut caller, mut submission) = self.submission(number) else {
            unreachable!("a submission is one")
        };
        caller.uid = UserId(USERS[self.rng.index(USERS.len())]);
        let spec = Arc::make_mut(&mut submission.spec);
        let names = ["", "normal", CAPPED, CAPPED, CAPPED, URGENT];
        spec.qos = names[self.rng.index(names.len())].into();
        if self.rng.chance(300) {
            spec.account = LAB.into();
        }
        if self.rng.chance(700) {
            spec.time_limit = Some(Walltime::from_minutes(self.rng.between(1, 4)));
        }
        if self.rng.chance(100) {
            spec.reservation = self.reservation_name();
        }
        Command::Submit(caller, submission)
    }

    fn reservation_name(&mut self) -> Box<str> {
        ["r0", "r1", "r2"][self.rng.index(3)].into()
    }

    fn account_change(&mut self) -> AccountChange {
        let name = USERS[1].to_string();
        match self.rng.below(4) {
            0 => AccountChange::DeleteAssoc(place(LAB, &name)),
            1 => member(LAB, &name),
            2 => self.other_cap(CAPPED_CPUS, 4, 9),
            _ => self.other_cap(Limit::MaxJobsPerUser, 1, 4),
        }
    }

    fn other_cap(&mut self, limit: Limit, least: u64, most: u64) -> AccountChange {
        let value = i64::try_from(self.rng.between(least, most)).expect("small");
        set_qos(CAPPED, [(limit, value)])
    }

    fn reservation_change(&mut self) -> ReservationChange {
        let name = self.reservation_name();
        let start = self.wall().plus_secs(self.rng.below(20));
        // Jobs run for minutes, and one whose limit ends later does not start within it.
        let end = start.plus_secs(self.rng.between(5, 400));
        let mut request = ReservationRequest {
            name: name.clone(),
            start: Some(start),
            end: Some(end),
            ..ReservationRequest::default()
        };
        match self.rng.below(8) {
            0 => return ReservationChange::Delete(name),
            1 => {
                request.start = None;
                return ReservationChange::Update(name, Box::new(request));
            }
            _ => {}
        }
        request.nodes = Some(match self.rng.below(3) {
            0 => NodeChoice::Named(vec![node_name(self.rng.index(AGENTS))]),
            count => NodeChoice::Count(u32::try_from(count).expect("small")),
        });
        request.users = Some(vec![(USERS[0].to_string().into(), UserId(USERS[0]))]);
        // Mostly it need not wait for what runs.
        if self.rng.chance(700) {
            request.flags = Some([ReservationFlag::IgnoreJobs].into());
        }
        ReservationChange::Create(Box::new(request))
    }

    /// A plan that was made long ago, or never.
    fn stray_preemption(&mut self) {
        let mut any = || JobId(u32::try_from(self.rng.below(60)).expect("small"));
        let (victim, unit) = (any(), any());
        let mode = [PreemptMode::Cancel, PreemptMode::Requeue, PreemptMode::Suspend];
        let mode = mode[self.rng.index(mode.len())];
        let line = PreemptLine { victim, for_unit: Unit::Job(unit), mode, grace_secs: 1 };
        self.push(Waiter::Nobody, Command::Preempt(vec![line]));
    }

    /// What an admin does for jobs that would stand for ever: those that stand still go on, those
    /// that wait for a reservation that is gone are cancelled.
    pub(crate) fn nurse_shared(&mut self) {
        let Some(cluster) = self.controller.cluster().cloned() else { return };
        for job in cluster.jobs().filter(|job| !job.is_over()) {
            let target = vec![Target::Job(job.id)];
            let still = job.active_run().is_some_and(|run| run.suspended_since.is_some());
            if still {
                self.push(Waiter::Nobody, Command::Suspend(admin(), target, false));
            } else if job.is_pending() && is_gone(&cluster, &job.spec.reservation) {
                self.push(Waiter::Nobody, Command::Cancel(admin(), target));
            }
        }
        for array in cluster.arrays().filter(|array| !array.pending.is_empty()) {
            if is_gone(&cluster, &array.spec.reservation) {
                let target = vec![Target::Id(array.id)];
                self.push(Waiter::Nobody, Command::Cancel(admin(), target));
            }
        }
    }
}

fn is_gone(cluster: &penstock_core::Cluster, reservation: &str) -> bool {
    !reservation.is_empty() && cluster.reservation(reservation).is_none()
}
