//! How are the hooks of a run stored, and what are its scripts told?

use penstock_core::Cluster;
use penstock_core::model::{
    BatchPart, HookPhase, HookPolicy, HookStage, Job, NodeIndex, Run, RunHooks, StepNumber,
};
use penstock_proto::v1;
use penstock_vocab::compress;

use super::codes;
use super::error::ConvertError;
use super::run::{NodeNames as _, share_to_wire};

/// Hooks as the store has them.
#[must_use]
pub fn hooks_to_wire(hooks: &RunHooks) -> v1::RunHooks {
    let stage = match hooks.stage {
        HookStage::Controller => v1::HookStage::Controller,
        HookStage::Prolog => v1::HookStage::Prolog,
        HookStage::Job => v1::HookStage::Job,
        HookStage::Epilog => v1::HookStage::Epilog,
    };
    let phase = |phase: &HookPhase| match phase {
        HookPhase::Allocated => v1::HookPhase::Allocated as i32,
        HookPhase::Running => v1::HookPhase::Running as i32,
        HookPhase::Ended => v1::HookPhase::Ended as i32,
    };
    v1::RunHooks {
        controller_prolog: hooks.policy.controller_prolog,
        prolog: hooks.policy.prolog,
        epilog: hooks.policy.epilog,
        no_hold: hooks.policy.no_hold,
        stage: stage as i32,
        nodes: hooks.nodes.iter().map(phase).collect(),
        job_ended_ms: codes::moment(hooks.job_ended),
        failed: hooks.failed,
    }
}

/// Inverse of [`hooks_to_wire`].
///
/// # Errors
/// If a code is unknown.
pub fn hooks_from_wire(hooks: &v1::RunHooks) -> Result<RunHooks, ConvertError> {
    let stage = match hooks.stage() {
        v1::HookStage::Controller => HookStage::Controller,
        v1::HookStage::Prolog => HookStage::Prolog,
        v1::HookStage::Job => HookStage::Job,
        v1::HookStage::Epilog => HookStage::Epilog,
        v1::HookStage::Unspecified => {
            return Err(ConvertError::invalid("the stage of hooks", hooks.stage));
        }
    };
    let phase = |code: &i32| match v1::HookPhase::try_from(*code) {
        Ok(v1::HookPhase::Allocated) => Ok(HookPhase::Allocated),
        Ok(v1::HookPhase::Running) => Ok(HookPhase::Running),
        Ok(v1::HookPhase::Ended) => Ok(HookPhase::Ended),
        Ok(v1::HookPhase::Unspecified) | Err(_) => {
            Err(ConvertError::invalid("the phase of a hook", *code))
        }
    };
    Ok(RunHooks {
        policy: HookPolicy {
            controller_prolog: hooks.controller_prolog,
            prolog: hooks.prolog,
            epilog: hooks.epilog,
            no_hold: hooks.no_hold,
        },
        stage,
        nodes: hooks.nodes.iter().map(phase).collect::<Result<_, _>>()?,
        failed: hooks.failed,
        job_ended: codes::moment_from(hooks.job_ended_ms),
    })
}

/// What the prolog or epilog of a run on `node` needs, but for its path and time; `None` if it is no
/// longer wanted.
#[must_use]
pub fn launch_hook(
    cluster: &Cluster,
    job: &Job,
    number: StepNumber,
    node: NodeIndex,
) -> Option<v1::LaunchHook> {
    let run = job.active_run()?;
    let hooks = run.hooks.as_ref().filter(|hooks| hooks.number() == Some(number))?;
    let at = run.shares.iter().position(|share| share.node == node)?;
    hooks.nodes.get(at).filter(|phase| **phase != HookPhase::Ended)?;
    let context = if number == StepNumber::EPILOG { "epilog_slurmd" } else { "prolog_slurmd" };
    let mut variables = hook_variables(cluster, job, run, context);
    if number == StepNumber::EPILOG {
        variables.extend(exit_variables(run));
    }
    Some(v1::LaunchHook {
        job_id: job.id.0,
        attempt: run.attempt.0,
        step: number.0,
        path: String::new(),
        timeout_secs: 0,
        variables: variables.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        share: Some(share_to_wire(cluster, run.shares.get(at)?)),
    })
}

/// What every script of the site is told of a run (slurm.conf(5), "PROLOG AND EPILOG SCRIPTS").
#[must_use]
pub fn hook_variables(
    cluster: &Cluster,
    job: &Job,
    run: &Run,
    context: &str,
) -> Vec<(&'static str, String)> {
    let details = &job.spec.details;
    let nodes: Vec<&str> = run.shares.iter().map(|share| cluster.node_name(share.node)).collect();
    let nodes = compress(nodes.iter().copied());
    let mut all = vec![
        ("SLURM_CLUSTER_NAME", cluster.config().cluster.to_string()),
        ("SLURM_JOB_ID", job.id.to_string()),
        ("SLURM_JOBID", job.id.to_string()),
        ("SLURM_JOB_UID", job.uid.0.to_string()),
        ("SLURM_UID", job.uid.0.to_string()),
        ("SLURM_JOB_GID", job.gid.0.to_string()),
        ("SLURM_JOB_USER", details.user_name.to_string()),
        ("SLURM_JOB_GROUP", details.group_name.to_string()),
        ("SLURM_JOB_PARTITION", run.partition.to_string()),
        ("SLURM_JOB_NODELIST", nodes.clone()),
        ("SLURM_NODELIST", nodes),
        ("SLURM_JOB_WORK_DIR", details.work_dir.to_string()),
        ("SLURM_SCRIPT_CONTEXT", context.to_owned()),
    ];
    let constraint = job.spec.shape.constraint.to_string();
    if !constraint.is_empty() {
        all.push(("SLURM_JOB_CONSTRAINTS", constraint));
    }
    if let Some(task) = job.array {
        all.push(("SLURM_ARRAY_JOB_ID", task.base.to_string()));
        all.push(("SLURM_ARRAY_TASK_ID", task.index.to_string()));
    }
    all
}

/// What only the controller's own scripts are told beside that.
#[must_use]
pub fn controller_variables(job: &Job) -> Vec<(&'static str, String)> {
    let spec = &job.spec;
    let all = [
        ("SLURM_JOB_NAME", spec.name.to_string()),
        ("SLURM_JOB_ACCOUNT", spec.account.to_string()),
        ("SLURM_JOB_QOS", spec.qos.to_string()),
        ("SLURM_JOB_RESERVATION", spec.reservation.to_string()),
        ("SLURM_JOB_COMMENT", spec.comment.to_string()),
    ];
    all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// How a run ended, for its epilogs.
#[must_use]
pub fn exit_variables(run: &Run) -> Vec<(&'static str, String)> {
    let exit = match &run.batch {
        BatchPart::Ended(result) => result.exit,
        BatchPart::None | BatchPart::Script | BatchPart::NeverStarted => run.exit,
    };
    let derived = run.derived_exit.to_wait_status();
    vec![
        ("SLURM_JOB_EXIT_CODE", exit.to_wait_status().to_string()),
        ("SLURM_JOB_EXIT_CODE2", format!("{}:{}", exit.status, exit.signal)),
        ("SLURM_JOB_DERIVED_EC", derived.to_string()),
    ]
}
