//! Which scripts of the site go before and after a run, and how far did they get?
//!
//! A run with hooks passes through stages: the controller's prolog, the prolog of each of its nodes,
//! the job itself, the epilog of each node. What a run has is fixed when it starts, whatever the
//! cluster file says later. On each node a prolog and an epilog is started at most once for a run.

use penstock_vocab::Timestamp;

use super::step::StepNumber;

/// Which hooks the cluster file names, as far as decisions depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HookPolicy {
    /// The controller has a prolog (`PrologSlurmctld`).
    pub controller_prolog: bool,
    /// Nodes have a prolog.
    pub prolog: bool,
    /// Nodes have an epilog.
    pub epilog: bool,
    /// A job whose prolog failed waits again without being held (`nohold_on_prolog_fail`).
    pub no_hold: bool,
}

impl HookPolicy {
    /// What a run that starts now gets; `None`: nothing goes before or after it.
    #[must_use]
    pub fn for_run(self) -> Option<Box<RunHooks>> {
        let any = self.controller_prolog || self.prolog || self.epilog;
        any.then(|| {
            Box::new(RunHooks {
                policy: self,
                stage: HookStage::Job,
                nodes: Box::default(),
                failed: false,
                job_ended: None,
            })
        })
    }
}

/// The hooks of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunHooks {
    /// Which it has.
    pub policy: HookPolicy,
    /// How far it got.
    pub stage: HookStage,
    /// The hook of the stage on each node, in the order of the run's shares; empty in stages that
    /// have none on nodes.
    pub nodes: Box<[HookPhase]>,
    /// A prolog failed on one of its nodes.
    pub failed: bool,
    /// When the job's own processes had ended; set with [`HookStage::Epilog`].
    pub job_ended: Option<Timestamp>,
}

/// How far a run with hooks got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookStage {
    /// The controller's prolog runs; nothing was told to any node.
    Controller,
    /// The nodes' prologs run.
    Prolog,
    /// The job itself may run.
    Job,
    /// The job has ended, and the nodes' epilogs run.
    Epilog,
}

/// How far a hook got on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookPhase {
    /// The node is to start it; it has not said that it did.
    Allocated,
    /// Its shepherd is there.
    Running,
    /// It has ended, or never will start.
    Ended,
}

impl RunHooks {
    /// The job's own processes may not start yet.
    #[must_use]
    pub fn is_configuring(&self) -> bool {
        matches!(self.stage, HookStage::Controller | HookStage::Prolog)
    }

    /// A hook may run on some node, or is to.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.nodes.iter().any(|phase| *phase != HookPhase::Ended)
    }

    /// The number under which nodes know the hook of this stage.
    #[must_use]
    pub fn number(&self) -> Option<StepNumber> {
        match self.stage {
            HookStage::Prolog => Some(StepNumber::PROLOG),
            HookStage::Epilog => Some(StepNumber::EPILOG),
            HookStage::Controller | HookStage::Job => None,
        }
    }
}
