//! Do the invariants hold under random orders, repeats, reorderings, crashes and reconnects?
//!
//! A slow, obvious model of a controller, a network that keeps every message for ever, and a host
//! whose spool survives the agent surround the supervisor. The checks look only at what it says.

use std::collections::{BTreeMap, BTreeSet};

use penstock_vocab::{Attempt, JobId, SessionId, Timestamp};
use proptest::prelude::*;

use crate::*;

const JOBS: u32 = 3;
const ATTEMPTS: u32 = 3;
/// Parts of an attempt: its batch script, and steps.
const PARTS: u32 = 3;

fn key_of(job: u32, attempt: u32, part: u32) -> AttemptKey {
    AttemptKey { step: part.checked_sub(1), ..AttemptKey::new(JobId(job), Attempt(attempt)) }
}

#[derive(Debug, Clone)]
enum Step {
    /// The controller sends a message about one attempt, in the session it believes in.
    Send {
        verb: u8,
        job: u32,
        attempt: u32,
        part: u32,
    },
    /// Some message of all ever sent arrives, perhaps again.
    Deliver(prop::sample::Index),
    /// Some attempt on the host goes one step on.
    Host(prop::sample::Index),
    Disconnect,
    Reconnect,
    /// The controller comes back with an older store.
    Rollback,
    /// An admin says that this is right.
    Confirm,
    AgentCrash,
    Later(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u8..3, 1..=JOBS, 0..ATTEMPTS, 0..PARTS)
            .prop_map(|(verb, job, attempt, part)| Step::Send { verb, job, attempt, part }),
        12 => any::<prop::sample::Index>().prop_map(Step::Deliver),
        6 => any::<prop::sample::Index>().prop_map(Step::Host),
        1 => Just(Step::Disconnect),
        2 => Just(Step::Reconnect),
        1 => Just(Step::Rollback),
        1 => Just(Step::Confirm),
        1 => Just(Step::AgentCrash),
        2 => any::<u16>().prop_map(Step::Later),
    ]
}

/// What the host has of an attempt; survives the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Spool {
    Intent,
    Locked,
    Running,
    Ended,
    Tombstone,
}

struct World {
    agent: Supervisor<()>,
    now: Timestamp,
    sessions: u64,
    spool: BTreeMap<AttemptKey, Spool>,
    network: Vec<(SessionId, Order<()>)>,
    store: Option<StorePosition>,
    /// Where the controller's store is; may go back.
    sequence: u64,
    /// Where it was when what is protected became so; `None`: nothing is.
    doubted: Option<u64>,
    /// What ran here when a controller with an older store came, until somebody confirms it.
    protected: BTreeSet<AttemptKey>,
    /// What a controller could end when it said so: that holds, also where it is carried out only when
    /// the shepherd shows itself, after a controller with an older store came.
    condemned: BTreeSet<AttemptKey>,
    /// Ends that the controller made durable; it never launches those again.
    acknowledged: BTreeSet<AttemptKey>,
    started: BTreeSet<AttemptKey>,
    /// Attempts for which a terminate had an effect.
    terminated: BTreeSet<AttemptKey>,
    /// What the controller heard last of each.
    heard: BTreeMap<AttemptKey, ReportedPhase>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            agent: Supervisor::new(),
            now: Timestamp(0),
            sessions: 0,
            spool: BTreeMap::new(),
            network: Vec::new(),
            store: None,
            sequence: 0,
            doubted: None,
            protected: BTreeSet::new(),
            condemned: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            started: BTreeSet::new(),
            terminated: BTreeSet::new(),
            heard: BTreeMap::new(),
        };
        world.start_agent();
        world
    }

    fn start_agent(&mut self) {
        self.agent = Supervisor::new();
        self.condemned.clear();
        self.trust();
        let found = self
            .spool
            .iter()
            .map(|(key, spool)| match spool {
                Spool::Intent => Found::Unclaimed(*key),
                Spool::Locked => Found::NeverStarted(*key),
                Spool::Running => Found::Running(*key),
                Spool::Ended => Found::Ended(*key, RunResult::default()),
                Spool::Tombstone => Found::Tombstone(*key),
            })
            .collect();
        self.input(Input::Recovered(Recovery { found, store: self.store.clone(), leases: false }));
    }

    fn input(&mut self, input: Input<()>) {
        for output in self.agent.handle(self.now, input) {
            self.output(output);
        }
    }

    fn output(&mut self, output: Output<()>) {
        match output {
            Output::Start(key, ()) => {
                assert!(self.started.insert(key), "{key} was started twice");
                assert!(!self.terminated.contains(&key), "{key} was started after a terminate");
                let busy = |(other, spool): (&AttemptKey, &Spool)| {
                    other.job == key.job
                        && other.attempt != key.attempt
                        && matches!(spool, Spool::Intent | Spool::Running)
                };
                assert!(!self.spool.iter().any(busy), "{key}: an attempt of its job is not over");
                let newer =
                    |other: &AttemptKey| other.job == key.job && other.attempt > key.attempt;
                assert!(!self.spool.keys().any(newer), "{key}: a newer attempt was seen");
                assert_eq!(self.spool.insert(key, Spool::Intent), None);
            }
            Output::TakeLock(_) | Output::Signal(..) | Output::Suspend(..) => {}
            Output::SetLimit(..) | Output::Withheld { .. } | Output::Ignored { .. } => {}
            Output::Terminate { key, .. } => {
                self.terminated.insert(key);
                assert!(self.started.contains(&key), "{key}: nothing to end");
                let free = !self.protected.contains(&key) || self.condemned.contains(&key);
                assert!(free, "{key} was protected");
            }
            Output::Forget(key) => {
                assert!(self.acknowledged.contains(&key), "{key} was forgotten unacknowledged");
                self.spool.remove(&key);
            }
            Output::WriteTombstone(key) => {
                self.terminated.insert(key);
                assert_eq!(self.spool.insert(key, Spool::Tombstone), None);
            }
            Output::RemoveTombstone(key) => {
                assert!(self.acknowledged.contains(&key), "{key}: tombstone went too early");
                assert_eq!(self.spool.remove(&key), Some(Spool::Tombstone));
            }
            Output::PersistStore(store) => self.adopt(store),
            Output::Renew(_) => panic!("nothing here holds a lease"),
            Output::Report(session, report) => {
                assert_eq!(Some(session), self.agent.session());
                let started = self.started.contains(&report.key);
                let running = self.spool.get(&report.key) == Some(&Spool::Running);
                match report.phase {
                    ReportedPhase::Running => assert!(running),
                    ReportedPhase::Ended(_) => assert!(started && !running),
                    ReportedPhase::NeverStarted => assert!(!running),
                }
                self.heard.insert(report.key, report.phase);
            }
            Output::Drain(..) => {}
        }
    }

    fn send(&mut self, verb: u8, key: AttemptKey) {
        let session = SessionId(self.sessions);
        let over = matches!(
            self.heard.get(&key),
            Some(ReportedPhase::Ended(_) | ReportedPhase::NeverStarted)
        );
        let order = match verb {
            // A controller launches nothing whose end it made durable.
            0 if !self.acknowledged.contains(&key) => {
                Order::Launch { key, limit_serial: 0, lease: None, payload: () }
            }
            1 => Order::Terminate { key, cause: EndCause::Cancelled, kill_wait_secs: 1 },
            2 if over => {
                self.acknowledged.insert(key);
                Order::Acknowledge { key }
            }
            _ => return,
        };
        self.network.push((session, order));
    }

    fn deliver(&mut self, session: SessionId, order: Order<()>) {
        if let Order::Terminate { key, .. } = order
            && self.agent.session() == Some(session)
            && !self.protected.contains(&key)
        {
            self.condemned.insert(key);
        }
        self.input(Input::Order { session, order });
    }

    fn host(&mut self, index: prop::sample::Index) {
        let keys: Vec<AttemptKey> = self.spool.keys().copied().collect();
        if keys.is_empty() {
            return;
        }
        let key = *index.get(&keys);
        let held_here = self.agent.reports().iter().any(|report| report.key == key);
        match self.spool[&key] {
            // Unreported intents are either being started, or being refused after a crash; both
            // a shepherd and a lock may win.
            Spool::Intent if !held_here && index.index(2) == 0 => {
                self.spool.insert(key, Spool::Running);
                self.input(Input::Host(HostEvent::Started(key)));
            }
            Spool::Intent => {
                self.spool.insert(key, Spool::Locked);
                self.input(Input::Host(HostEvent::LockTaken(key)));
                if !self.agent.reports().iter().any(|report| report.key == key) {
                    // It was being started: then only a failure can stop it.
                    let error = "no room".to_owned();
                    self.spool.insert(key, Spool::Ended);
                    let failed = HostEvent::StartFailed { key, error, node_fault: true };
                    self.input(Input::Host(failed));
                }
            }
            Spool::Running => {
                self.spool.insert(key, Spool::Ended);
                self.input(Input::Host(HostEvent::Ended(key, RunResult::default())));
            }
            Spool::Locked | Spool::Ended | Spool::Tombstone => {}
        }
    }

    fn trust(&mut self) {
        self.doubted = None;
        self.protected.clear();
    }

    /// An older position is only adopted when nothing that is protected can run any more.
    fn adopt(&mut self, store: StorePosition) {
        if self.store.as_ref().is_some_and(|known| store.sequence < known.sequence) {
            let runs = |key| matches!(self.spool.get(key), Some(Spool::Intent | Spool::Running));
            assert!(!self.protected.iter().any(runs), "{:?}", self.protected);
            self.trust();
        }
        self.store = Some(store);
    }

    fn reconnect(&mut self) {
        self.sessions += 1;
        self.sequence += 1;
        let known = self.store.as_ref().map_or(0, |store| store.sequence);
        if self.sequence >= known {
            self.trust();
        } else if self.doubted.is_none_or(|doubted| self.sequence < doubted) {
            let runs = |spool: &Spool| matches!(spool, Spool::Intent | Spool::Running);
            let running = self.spool.iter().filter(|(_, spool)| runs(spool));
            self.protected = running.map(|(key, _)| *key).collect();
        }
        self.doubted = (self.sequence < known).then_some(self.sequence);
        let store = StorePosition { id: StoreId::new(b"store"), sequence: self.sequence };
        let session = SessionId(self.sessions);
        self.input(Input::Welcome(Welcome { session, store, asked: self.now, fresh: false }));
        self.check_everything_is_known();
    }

    /// After a welcome the controller has heard of every end that it did not acknowledge.
    fn check_everything_is_known(&self) {
        for (key, spool) in &self.spool {
            let heard = self.heard.get(key);
            match spool {
                Spool::Ended => {
                    assert!(matches!(heard, Some(ReportedPhase::Ended(_))), "{key}: {heard:?}");
                }
                Spool::Running => assert_eq!(heard, Some(&ReportedPhase::Running), "{key}"),
                Spool::Locked | Spool::Tombstone => {
                    assert_eq!(heard, Some(&ReportedPhase::NeverStarted), "{key}");
                }
                Spool::Intent => {}
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Send { verb, job, attempt, part } => {
                self.send(verb, key_of(job, attempt, part));
            }
            Step::Deliver(index) => {
                if !self.network.is_empty() {
                    let (session, order) = index.get(&self.network).clone();
                    self.deliver(session, order);
                }
            }
            Step::Host(index) => self.host(index),
            Step::Disconnect => self.input(Input::Disconnected),
            Step::Reconnect => self.reconnect(),
            Step::Rollback => {
                self.sequence /= 2;
                self.reconnect();
            }
            Step::Confirm => {
                self.trust();
                self.input(Input::Confirmed);
            }
            Step::AgentCrash => self.start_agent(),
            Step::Later(ms) => {
                self.now = self.now.plus(penstock_vocab::Millis(u64::from(ms)));
                self.input(Input::Tick);
            }
        }
    }

    /// With a network that loses nothing and a controller that acknowledges, all is forgotten.
    fn settle(&mut self) {
        self.sequence += 1_000;
        for _ in 0..8 {
            self.reconnect();
            for key in self.spool.keys().copied().collect::<Vec<_>>() {
                if let Some(Spool::Intent | Spool::Running) = self.spool.get(&key) {
                    self.finish(key);
                }
                self.send(2, key);
                if let Some((session, order)) = self.network.last().cloned() {
                    self.input(Input::Order { session, order });
                }
            }
        }
        assert_eq!(self.spool, BTreeMap::new(), "everything was acknowledged");
    }

    fn finish(&mut self, key: AttemptKey) {
        if self.spool[&key] == Spool::Intent {
            self.spool.insert(key, Spool::Running);
            self.input(Input::Host(HostEvent::Started(key)));
        }
        self.spool.insert(key, Spool::Ended);
        self.input(Input::Host(HostEvent::Ended(key, RunResult::default())));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_attempt_starts_twice_or_after_its_end_and_no_end_is_lost(
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut world = World::new();
        world.reconnect();
        for step in steps {
            world.step(step);
        }
        world.settle();
    }

    #[test]
    fn the_same_inputs_give_the_same_outputs(steps in prop::collection::vec(step(), 0..60)) {
        let transcript = |steps: Vec<Step>| {
            let mut world = World::new();
            world.reconnect();
            steps.into_iter().for_each(|step| world.step(step));
            format!("{:?}", world.agent)
        };
        prop_assert_eq!(transcript(steps.clone()), transcript(steps));
    }
}
