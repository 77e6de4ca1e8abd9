//! Random accounts, QOS, usage and reservations, for tests of the conversion.

use penstock_core::model::{
    Account, AdminLevel, AssocId, Association, Constraint, CronJob, Crontab, DecayedUsage,
    EachLimits, GroupLimits, JobLimits, PreemptMode, Qos, QosFlag, Reservation, ReservationFlag,
    Shares, TresLimits, UsageOwner, User,
};
use penstock_vocab::{CronSpec, TresKind, UserId, Walltime};

use super::generate::Dice;

impl Dice {
    fn kind(&mut self) -> TresKind {
        match self.below(6) {
            0 => TresKind::Cpu,
            1 => TresKind::Mem,
            2 => TresKind::Node,
            3 => TresKind::Billing,
            4 => TresKind::Gres(self.gres_name()),
            _ => TresKind::License(self.pick(&["matlab", "abaqus@server"]).into()),
        }
    }

    fn tres(&mut self) -> TresLimits {
        self.some(|dice| (dice.kind(), dice.roll()))
    }

    fn group(&mut self) -> GroupLimits {
        GroupLimits {
            tres: self.tres(),
            tres_mins: self.tres(),
            tres_run_mins: self.tres(),
            jobs: self.maybe(Self::number),
            jobs_accrue: self.maybe(Self::number),
            submit_jobs: self.maybe(Self::number),
            wall_mins: self.maybe(Self::number),
        }
    }

    fn each(&mut self) -> EachLimits {
        EachLimits {
            tres: self.tres(),
            jobs: self.maybe(Self::number),
            jobs_accrue: self.maybe(Self::number),
            submit_jobs: self.maybe(Self::number),
        }
    }

    fn per_job(&mut self) -> JobLimits {
        JobLimits {
            tres: self.tres(),
            tres_per_node: self.tres(),
            tres_mins: self.tres(),
            min_tres: self.tres(),
            wall_mins: self.maybe(Self::number),
        }
    }

    /// A text that is not empty: empty ones stand for absent ones.
    fn word(&mut self) -> Box<str> {
        format!("w{}", self.number()).into()
    }

    pub(super) fn account(&mut self) -> Account {
        Account {
            name: self.text(),
            description: self.text(),
            organization: self.text(),
            coordinators: self.some(Self::text),
        }
    }

    pub(super) fn account_user(&mut self) -> User {
        let levels = [AdminLevel::None, AdminLevel::Operator, AdminLevel::Administrator];
        User {
            name: self.text(),
            uid: self.maybe(|dice| UserId(dice.number())),
            default_account: self.text(),
            admin_level: self.pick(&levels),
        }
    }

    pub(super) fn association(&mut self) -> Association {
        Association {
            id: AssocId(self.number()),
            account: self.text(),
            user: self.maybe(Self::word),
            partition: self.maybe(Self::partition),
            parent: self.maybe(|dice| AssocId(1 + dice.number() / 2)),
            shares: if self.chance() { Shares::Parent } else { Shares::Raw(self.number()) },
            priority: self.number(),
            group: self.group(),
            each: self.each(),
            job: self.per_job(),
            qos: self.maybe(|dice| dice.some(Self::text)),
            default_qos: self.maybe(Self::word),
            guaranteed: self.tres(),
            implicit: self.chance(),
        }
    }

    fn preempt_mode(&mut self) -> PreemptMode {
        self.pick(&[
            PreemptMode::Off,
            PreemptMode::Cancel,
            PreemptMode::Requeue,
            PreemptMode::Suspend,
        ])
    }

    pub(super) fn qos(&mut self) -> Qos {
        Qos {
            name: self.text(),
            id: self.number(),
            description: self.text(),
            priority: self.number(),
            flags: self.some(|dice| dice.pick(QosFlag::ALL).0),
            grace_secs: self.number(),
            preempt: self.some(Self::text),
            preempt_mode: self.maybe(Self::preempt_mode),
            preempt_exempt_secs: self.maybe(Self::number),
            usage_factor: self.roll(),
            usage_threshold: self.maybe(Self::roll),
            limit_factor: self.maybe(Self::roll),
            group: self.group(),
            per_user: self.each(),
            per_account: self.each(),
            job: self.per_job(),
        }
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.roll()) << 64 | u128::from(self.roll())
    }

    pub(super) fn stored_usage(&mut self) -> (UsageOwner, DecayedUsage) {
        let owner = match self.chance() {
            true => UsageOwner::Assoc(AssocId(1 + self.number() / 2)),
            false => UsageOwner::Qos(self.word()),
        };
        let usage = DecayedUsage {
            as_of: self.time(),
            tres: self.some(|dice| (dice.kind(), dice.wide())),
            wall: self.wide(),
            half_life_secs: self.number(),
        };
        (owner, usage)
    }

    pub(super) fn cron(&mut self) -> CronJob {
        let specs = ["* * * * *", "0,30 2-4 * * 1-5", "59 23 31 12 *"];
        CronJob {
            spec: CronSpec::parse(self.pick(&specs)).unwrap(),
            zone: self.text(),
            lines: (self.number(), self.number()),
            upcoming: self.some::<_, Vec<_>>(Self::time).into(),
        }
    }

    pub(super) fn crontab(&mut self) -> Crontab {
        Crontab {
            uid: UserId(self.number()),
            text: self.text(),
            disabled: self.some::<_, Vec<_>>(|dice| (dice.number(), dice.number())).into(),
        }
    }

    pub(super) fn reservation(&mut self) -> Reservation {
        let features = self.pick(&["", "h100", "h100&(ib|eth)"]);
        Reservation {
            name: self.text(),
            start: self.time(),
            end: self.time(),
            nodes: self.some(Self::node),
            node_count: self.maybe(Self::number),
            partition: self.maybe(Self::partition),
            features: Constraint::parse(features).unwrap(),
            users: self.some(Self::text),
            uids: self.some(|dice| UserId(dice.number())),
            accounts: self.some(Self::text),
            deny: self.chance(),
            licenses: self.tres(),
            flags: self.some(|dice| dice.pick(ReservationFlag::ALL).0),
            purge_after: self.maybe(|dice| Walltime::Limited(1 + u64::from(dice.number()))),
            idle_since: self.maybe(Self::time),
            created_by: UserId(self.number()),
            comment: self.text(),
            upcoming: self.some(|dice| (dice.time(), dice.time())),
        }
    }
}
