//! How is a step made, and what is said while it waits for room?

use std::time::Duration;

use penstock_proto::v1;

use super::{FAILED, Failed, fail};
use crate::allocation::{Order, once};
use crate::connect::{Client, Patience, request_id};
use crate::errors::{RemoteError, error, refusal_detail, refusal_text};
use crate::output::note;
use crate::sbatch::limit_secs;
use crate::sbatch::request::Memory;
use crate::step::listener::Listener;
use crate::step::signals::Signals;

/// Seconds of the first wait; a step that gets room so soon is not worth a line.
const FIRST_WAIT_SECS: u32 = 1;

/// Seconds for which the controller may hold one call.
const WAIT_SECS: u32 = 50;

/// Slurm's text where the user gave up.
const OVER: &str = "Job/step already completing or completed";

/// What can be said from the job's environment, in Slurm's words.
pub(super) fn check_against_job(
    order: &Order,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(), Failed> {
    let count = env("SLURM_JOB_NUM_NODES").and_then(|text| text.trim().parse::<u32>().ok());
    let Some(count) = count.filter(|_| order.extras.jobid.is_none()) else { return Ok(()) };
    let wanted = order.request.nodes.map_or(1, |(min, _)| min);
    if let Some(relative) = order.extras.relative
        && relative.saturating_add(wanted) > count
    {
        return Err(fail(&format!(
            "--relative and SLURM_JOB_NUM_NODES option incompatible with count of allocated nodes \
             ({relative}+{wanted}>{count})"
        )));
    }
    if wanted > count {
        return Err(fail(&format!("Only allocated {count} nodes asked for {wanted}")));
    }
    Ok(())
}

/// What the step is to be. `own`: the job is srun's own, whose shape it already has.
pub(super) fn step_spec(order: &Order, name: &str, own: bool, listener: &Listener) -> v1::StepSpec {
    let (request, extras) = (&order.request, &order.extras);
    let (per_node, per_cpu) = match request.memory.filter(|_| !own) {
        Some((Memory::PerNode(size), _)) => (Some(size.0), None),
        Some((Memory::PerCpu(size), _)) => (None, Some(size.0)),
        // A step has the memory of its job's GPUs with them.
        Some((Memory::PerGpu(_), _)) | None => (None, None),
    };
    let gres_per_node = request.gres.iter().chain(&request.gpus_per_node);
    let nodes = request.nodes.filter(|_| !own);
    v1::StepSpec {
        name: extras.step_name.clone().unwrap_or_else(|| name.to_owned()),
        ntasks: request.ntasks.or_else(|| extras.pty.then_some(1)),
        nodes_min: nodes.map(|(min, _)| min),
        nodes_max: nodes.map(|(_, max)| max),
        cpus_per_task: request.cpus_per_task,
        ntasks_per_node: request.ntasks_per_node,
        mem_per_node_mib: per_node,
        mem_per_cpu_mib: per_cpu,
        gres_per_node: if own { Vec::new() } else { gres_per_node.cloned().collect() },
        gpus_total: request.gpus.clone().filter(|_| !own),
        gpus_per_task: request.gpu.per_task.clone(),
        // As in Slurm, CPUs for each task are meant exactly.
        exact: !extras.whole && !own && (extras.exact || request.cpus_per_task.is_some()),
        overlap: extras.overlap,
        overcommit: extras.overcommit,
        relative: extras.relative,
        required_nodes: if own { Vec::new() } else { once(&request.nodelist) },
        excluded_nodes: if own { Vec::new() } else { request.exclude.clone() },
        distribution: extras.distribution.clone(),
        task_nodes: if extras.distribution.starts_with("arbitrary") {
            request.nodelist.clone()
        } else {
            Vec::new()
        },
        time_limit_secs: request.time.filter(|_| !own).map(limit_secs),
        immediate: extras.immediate.is_some(),
        no_kill: extras.no_kill,
        cpu_bind: extras.cpu_bind.clone(),
        gpu_bind: request.gpu.bind.clone(),
        mpi: extras.mpi.clone(),
        addresses: listener.addresses.clone(),
        port: listener.port.into(),
        secret: listener.secret.clone(),
        srun_pid: std::process::id(),
        comment: request.comment.clone(),
        measure_secs: request.measure_secs,
        container_image: request.container_image.clone(),
        container_dir: request
            .chdir
            .as_ref()
            .map_or_else(String::new, |dir| dir.display().to_string()),
        pty: extras.pty,
        ..v1::StepSpec::default()
    }
}

/// Makes the step; waits for room unless the user wants it at once.
pub(crate) async fn create(
    client: &Client,
    program: &str,
    quiet: bool,
    job_id: u32,
    spec: &v1::StepSpec,
    signals: &mut Signals,
) -> Result<v1::CreateStepReply, Failed> {
    let mut wait_secs = if spec.immediate { 0 } else { FIRST_WAIT_SECS };
    let mut told = false;
    loop {
        let asked = ask(client, job_id, spec, wait_secs);
        let answer = tokio::select! {
            answer = asked => answer,
            signal = signals.next() => {
                note(&format!("{program}: Cancelled pending job step with signal {signal}"));
                error(program, &format!("Unable to create step for job {job_id}: {OVER}"));
                return Err(Failed::With(FAILED));
            }
        };
        let reply = answer.map_err(|failure| refused(program, job_id, &failure))?;
        if reply.step.is_some() {
            if told && !quiet {
                note(&format!("{program}: Step created for job {job_id}"));
            }
            return Ok(reply);
        }
        let busy = reply.busy.unwrap_or_default();
        if spec.immediate {
            let text = refusal_text(&busy);
            error(program, &format!("Unable to create step for job {job_id}: {text}"));
            return Err(Failed::NotAtOnce);
        }
        if !std::mem::replace(&mut told, true) && !quiet {
            note(&format!(
                "{program}: Job {job_id} step creation temporarily disabled, retrying ({})",
                refusal_text(&busy)
            ));
        }
        wait_secs = WAIT_SECS;
    }
}

async fn ask(
    client: &Client,
    job_id: u32,
    spec: &v1::StepSpec,
    wait_secs: u32,
) -> Result<v1::CreateStepReply, RemoteError> {
    let request = v1::CreateStepRequest {
        request_id: request_id(),
        job_id,
        spec: Some(spec.clone()),
        wait_secs,
    };
    let patience = Patience {
        deadline: Patience::CHANGE.deadline + Duration::from_secs(wait_secs.into()),
        retry_for: Duration::from_secs(60),
    };
    client
        .ask_steps(patience, |mut rpc| {
            let request = request.clone();
            async move { rpc.create_step(request).await }
        })
        .await
}

fn refused(program: &str, job_id: u32, failure: &RemoteError) -> Failed {
    let RemoteError::Refused(refusal) = failure else {
        failure.report(program, &format!("Unable to create step for job {job_id}"));
        return Failed::With(FAILED);
    };
    let text = refusal_text(refusal);
    if refusal.kind == "InvalidJobId" {
        error(program, &format!("Unable to confirm allocation for job {job_id}: {text}"));
        note(&format!(
            "{program}: Check SLURM_JOB_ID environment variable. Expired or invalid job {job_id}"
        ));
    } else {
        if let Some(detail) = refusal_detail(refusal) {
            error(program, &detail);
        }
        error(program, &format!("Unable to create step for job {job_id}: {text}"));
    }
    Failed::With(FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocation::{Command, read};

    fn order(line: &[&str]) -> Order {
        let words: Vec<String> = line.iter().map(|&word| word.to_owned()).collect();
        read(Command::Srun, &words, &|_| None).expect("valid")
    }

    #[test]
    fn a_step_larger_than_its_job_is_refused_in_slurms_words() {
        let env = |name: &str| (name == "SLURM_JOB_NUM_NODES").then(|| "2".to_owned());
        for (line, fits) in [
            (&["-N2", "true"][..], true),
            (&["-N3", "true"], false),
            (&["-r1", "true"], true),
            (&["-r2", "true"], false),
            (&["-N2", "-r1", "true"], false),
            (&["--jobid=7", "-N9", "true"], true),
        ] {
            assert_eq!(check_against_job(&order(line), &env).is_ok(), fits, "{line:?}");
        }
    }

    #[tokio::test]
    async fn the_step_is_what_was_asked_for() {
        let listener = Listener::open(None).await.expect("a free port");
        let line = ["-n4", "-N2", "-c2", "--mem=10", "--overlap", "-l", "--gres=gpu:1", "true"];
        let spec = step_spec(&order(&line), "true", false, &listener);
        assert_eq!((spec.ntasks, spec.nodes_min, spec.nodes_max), (Some(4), Some(2), Some(2)));
        assert_eq!((spec.cpus_per_task, spec.mem_per_node_mib), (Some(2), Some(10)));
        assert!(spec.exact && spec.overlap);
        assert_eq!(spec.gres_per_node.len(), 1);
        assert_eq!((spec.name.as_str(), spec.secret.len()), ("true", 32));
        let own = step_spec(&order(&line), "true", true, &listener);
        assert_eq!((own.nodes_min, own.mem_per_node_mib, own.exact), (None, None, false));
        let whole = step_spec(&order(&["-c2", "--whole", "true"]), "true", false, &listener);
        assert!(!whole.exact);
    }
}
