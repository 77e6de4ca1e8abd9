//! What becomes of each job when the trace is played through the core in virtual time?
//!
//! The cluster is the one that the controller runs, fed with the commands that the controller would
//! send: nodes register, jobs are submitted, plans are started, nodes report ends, ended jobs are
//! retired. What is here is a clock and a list of ends. All events of one instant are applied, ends
//! before submissions, then the scheduler is asked once (again only where its own bounds cut it).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use penstock_core::command::{
    AttemptPhase, AttemptReport, Caller, MAX_STARTS, ReshapeLine, StartLine, Submission,
    Unit as CoreUnit,
};
use penstock_core::model::{Config, NodeIndex, Scheduling};
use penstock_core::scheduler::{Limits, Memory, plan_with};
use penstock_core::{Cluster, Command, Refusal, Reply};
use penstock_vocab::{GroupId, JobId, SessionId, Timestamp, UserId};

use super::fragmentation::Fragmentation;
use super::job::{Job, Workload};
use super::machine::Machine;
use super::mig::{self, Cutting};

/// Where virtual time begins: the first submit time of any trace. Nothing depends on it but that
/// no time is 0, which means "never" in some records.
const EPOCH_SECS: i64 = 1_000_000_000;

/// Numbers of users begin here, so that nobody is root.
const FIRST_UID: u32 = 1_000;

/// Ended jobs are retired by so many.
const RETIRE_BATCH: usize = 32;

/// Why a replay can't go on. None of these is a mistake in a trace.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReplayError {
    /// The core refused what it should not.
    #[error("the cluster refuses {what}: {why}")]
    Refused { what: &'static str, why: String },
    /// A line of a plan was refused on the very state that it was made from.
    #[error("a plan proposed {refused} starts that do not fit, at {at} s of the trace; a bug")]
    BadPlan { refused: u32, at: i64 },
}

/// What became of a job. Times in seconds of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Fate {
    /// It waits to the end.
    #[default]
    Waits,
    /// The cluster did not take it.
    Refused,
    /// It ran; `end` is missing where it stays for ever.
    Ran { start: i64, end: Option<i64> },
}

/// The cluster after an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) at: i64,
    /// Units in use.
    pub(super) used: u64,
    /// Units that waiting jobs ask for.
    pub(super) waiting: u64,
    /// Jobs that wait.
    pub(super) queue: u32,
}

/// What a replay came to.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    /// One for each job of the workload.
    pub(super) fates: Vec<Fate>,
    /// One for each instant, in order.
    pub(super) samples: Vec<Sample>,
    /// Jobs that the cluster refused, and why the first was.
    pub(super) refused: usize,
    pub(super) first_refusal: Option<(String, String)>,
    /// Starts ahead of a job that waited.
    pub(super) backfilled: usize,
    /// Plans that were made.
    pub(super) plans: u64,
    /// GPUs that were cut.
    pub(super) cuts: u64,
    /// Where the cluster has GPUs on nodes.
    pub(super) fragmentation: Option<Fragmentation>,
}

/// Plays the workload; `watch` is told after each instant how many jobs have ended.
///
/// # Errors
/// If the core refuses what it should not: a bug, or a cluster file that refuses its own nodes.
pub(super) fn replay(
    workload: &Workload,
    machine: &Machine,
    scheduling: &Scheduling,
    watch: &mut dyn FnMut(usize),
) -> Result<Outcome, ReplayError> {
    let mut player = Player::new(workload, machine, scheduling)?;
    let mut next = 0;
    loop {
        let submit = workload.jobs.get(next).map(|job| job.submit);
        let end = player.ends.peek().map(|Reverse((at, _))| *at);
        let cut = player.cuts.iter().map(|(at, ..)| *at).min();
        let all = [submit, end, cut, player.wakes.first().copied()];
        let Some(at) = all.into_iter().flatten().min() else { break };
        player.move_to(at);
        player.finish_cuts()?;
        while let Some(Reverse((end, index))) = player.ends.peek().copied()
            && end == at
        {
            player.ends.pop();
            player.end(index)?;
        }
        while let Some(job) = workload.jobs.get(next).filter(|job| job.submit == at) {
            player.submit(next, job)?;
            next += 1;
        }
        player.schedule()?;
        player.sample();
        watch(player.ended);
    }
    Ok(player.outcome)
}

struct Player<'a> {
    workload: &'a Workload,
    machine: &'a Machine,
    cluster: Cluster,
    memory: Memory,
    /// The instant, in seconds of the trace.
    at: i64,
    /// Where the trace begins.
    first: i64,
    /// Ends to come: when, and of which job.
    ends: BinaryHeap<Reverse<(i64, usize)>>,
    /// GPUs that are being cut, and instants at which one may be cut again.
    cuts: Vec<Cutting>,
    wakes: BTreeSet<i64>,
    /// Jobs in the cluster by their number there.
    jobs: BTreeMap<JobId, usize>,
    /// Their numbers, by job.
    ids: Vec<Option<JobId>>,
    retire: Vec<CoreUnit>,
    used: u64,
    waiting: u64,
    queue: u32,
    ended: usize,
    outcome: Outcome,
}

impl<'a> Player<'a> {
    fn new(
        workload: &'a Workload,
        machine: &'a Machine,
        scheduling: &Scheduling,
    ) -> Result<Self, ReplayError> {
        let config = Config { scheduling: scheduling.clone(), ..machine.config.clone() };
        let first = workload.jobs.first().map_or(0, |job| job.submit);
        let cluster = Cluster::new(Arc::new(config), Timestamp::from_secs(EPOCH_SECS));
        let mut player = Self {
            workload,
            machine,
            cluster,
            memory: Memory::new(),
            at: first,
            first,
            ends: BinaryHeap::new(),
            cuts: Vec::new(),
            wakes: BTreeSet::new(),
            jobs: BTreeMap::new(),
            ids: vec![None; workload.jobs.len()],
            retire: Vec::new(),
            used: 0,
            waiting: 0,
            queue: 0,
            ended: 0,
            outcome: Outcome {
                fates: vec![Fate::default(); workload.jobs.len()],
                // Which slices are idle depends on how they could be cut.
                fragmentation: Fragmentation::new(machine, workload)
                    .filter(|_| machine.profiles.is_empty()),
                ..Outcome::default()
            },
        };
        for (node, inventory) in &machine.nodes {
            let (node, inventory) = (node.clone(), Box::new(inventory.clone()));
            let session = SessionId(1);
            let command = Command::Register { node, session, inventory, attempts: Vec::new() };
            player.execute("a node", command)?;
        }
        Ok(player)
    }

    fn move_to(&mut self, at: i64) {
        self.at = at;
        if let Some(fragmentation) = &mut self.outcome.fragmentation {
            fragmentation.note(at);
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_secs(EPOCH_SECS + (self.at - self.first))
    }

    fn execute(&mut self, what: &'static str, command: Command) -> Result<Reply, ReplayError> {
        let result = self.cluster.execute(self.now(), command);
        let refused = |refusal: Refusal| ReplayError::Refused { what, why: refusal.to_string() };
        Ok(result.map_err(refused)?.reply)
    }

    fn submit(&mut self, index: usize, job: &Job) -> Result<(), ReplayError> {
        let user = &self.workload.users[job.user];
        let number =
            |index: usize| FIRST_UID.saturating_add(u32::try_from(index).unwrap_or(u32::MAX));
        let caller = Caller {
            uid: UserId(number(job.user)),
            gid: GroupId(number(job.account)),
            admin: false,
            request: None,
        };
        let submission = Submission {
            spec: Arc::new(self.machine.spec(job)),
            array: None,
            groups: Arc::default(),
            user: user.as_str().into(),
        };
        let command = Command::Submit(caller, Box::new(submission));
        match self.cluster.execute(self.now(), command).map(|outcome| outcome.reply) {
            Ok(Reply::Submitted { job: id, .. }) => {
                self.jobs.insert(id, index);
                self.ids[index] = Some(id);
                self.waiting += job.size;
                self.queue += 1;
            }
            Ok(_) => {
                let why = "no number was given".to_owned();
                return Err(ReplayError::Refused { what: "a job", why });
            }
            Err(refusal) => {
                self.outcome.fates[index] = Fate::Refused;
                self.outcome.refused += 1;
                if self.outcome.first_refusal.is_none() {
                    self.outcome.first_refusal = Some((job.id.clone(), refusal.to_string()));
                }
            }
        }
        Ok(())
    }

    /// The node of a job reports its end.
    fn end(&mut self, index: usize) -> Result<(), ReplayError> {
        let missing = |what| ReplayError::Refused { what, why: "it is not there".to_owned() };
        let id = self.ids[index].ok_or_else(|| missing("a job's end"))?;
        let job = self.cluster.job(id).ok_or_else(|| missing("a job's end"))?;
        let run = job.active_run().cloned().ok_or_else(|| missing("a run's end"))?;
        let batch = run.batch_node().unwrap_or(NodeIndex(0));
        let (node, _) = self.cluster.node(batch).ok_or_else(|| missing("a node"))?;
        let node = node.name.clone();
        let phase = AttemptPhase::Ended(Box::default());
        let report = AttemptReport { job: id, attempt: run.attempt, step: None, phase };
        self.execute("an end", Command::Report { node, session: SessionId(1), report })?;
        self.jobs.remove(&id);
        self.ended += 1;
        self.used -= self.workload.jobs[index].size;
        if let Some(fragmentation) = &mut self.outcome.fragmentation {
            run.shares.iter().for_each(|share| fragmentation.look_at(&self.cluster, share.node));
        }
        self.retire.push(CoreUnit::Job(id));
        if self.retire.len() >= RETIRE_BATCH {
            let units = std::mem::take(&mut self.retire);
            self.execute("to forget jobs", Command::Retire(units))?;
        }
        Ok(())
    }

    /// Asks the scheduler, and starts what it proposes.
    fn schedule(&mut self) -> Result<(), ReplayError> {
        let now = self.now();
        while !self.cluster.queue_is_empty() {
            let made = plan_with(&mut self.memory, &self.cluster, now, Limits::default());
            self.outcome.plans += 1;
            let again = made.cut && !made.starts.is_empty();
            for lines in made.starts.chunks(MAX_STARTS) {
                self.start(lines)?;
            }
            self.cut(made.reshapes)?;
            if !again {
                break;
            }
        }
        Ok(())
    }

    fn start(&mut self, lines: &[StartLine]) -> Result<(), ReplayError> {
        let reply = self.execute("starts", Command::Start(lines.to_vec()))?;
        if let Reply::Started { refused, .. } = reply
            && refused > 0
        {
            return Err(ReplayError::BadPlan { refused, at: self.at });
        }
        for line in lines {
            let Some(index) = self.jobs.get(&line.unit.id()).copied() else { continue };
            let job = &self.workload.jobs[index];
            let end = job.run.map(|run| self.at + run);
            self.outcome.fates[index] = Fate::Ran { start: self.at, end };
            self.ends.extend(end.map(|end| Reverse((end, index))));
            self.outcome.backfilled += usize::from(line.backfill);
            self.used += job.size;
            self.waiting -= job.size;
            self.queue -= 1;
            if let Some(fragmentation) = &mut self.outcome.fragmentation {
                line.shares
                    .iter()
                    .for_each(|share| fragmentation.look_at(&self.cluster, share.node));
            }
        }
        Ok(())
    }

    /// Has GPUs cut as a plan proposes.
    fn cut(&mut self, lines: Vec<ReshapeLine>) -> Result<(), ReplayError> {
        if lines.is_empty() {
            return Ok(());
        }
        self.execute("cuts", Command::Reshape(lines.clone()))?;
        for line in lines {
            let node = self.cluster.node(line.node).map(|(node, _)| Arc::clone(node));
            if let Some((_, reshape)) = node.and_then(|node| mig::after(&node, line.gpu)) {
                self.cuts.push((self.at + mig::cut_secs(&reshape), line.node, line.gpu));
                self.outcome.cuts += 1;
            }
        }
        Ok(())
    }

    /// Nodes report the GPUs that are cut by now.
    fn finish_cuts(&mut self) -> Result<(), ReplayError> {
        let at = self.at;
        self.wakes = self.wakes.split_off(&(at + 1));
        let (done, rest) = std::mem::take(&mut self.cuts).into_iter().partition(|cut| cut.0 <= at);
        self.cuts = rest;
        let done: Vec<Cutting> = done;
        for (_, index, gpu) in done {
            let node = self.cluster.node(index).map(|(node, _)| Arc::clone(node));
            let Some(node) = node else { continue };
            let Some((gpu, reshape)) = mig::after(&node, gpu) else { continue };
            let command = Command::GpuLayout {
                node: node.name.clone(),
                session: SessionId(1),
                gpu: Box::new(gpu),
                gres: node.inventory.gres.clone(),
                answers: reshape.generation,
                error: "".into(),
            };
            self.execute("a layout", command)?;
            self.wakes.insert(at + i64::from(self.cluster.config().mig.settle_secs));
        }
        Ok(())
    }

    fn sample(&mut self) {
        let Self { at, used, waiting, queue, .. } = *self;
        self.outcome.samples.push(Sample { at, used, waiting, queue });
    }
}
