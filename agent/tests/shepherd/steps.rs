//! Tasks of a step: what they are told, what they say, and how they end.

use nix::unistd::{Gid, Uid, User};
use penstock_proto::v1;
use penstock_supervisor::{AttemptKey, EndCause, HostEvent};
use penstock_vocab::{Attempt, JobId};

use crate::srun::{SECRET, Srun, shell};
use crate::world::{World, is_alive, wait_until};

/// A step of `tasks` tasks on this node alone, by this process's user.
pub(crate) fn step(srun: &Srun, tasks: u32) -> v1::LaunchStep {
    let user = User::from_uid(Uid::effective()).unwrap();
    let share = v1::NodeShare {
        node: "n1".to_owned(),
        cpu_ranges: vec![0, 0],
        tasks,
        ..v1::NodeShare::default()
    };
    let own = v1::StepShare {
        share: Some(share.clone()),
        tasks: (0..tasks).collect(),
        ..v1::StepShare::default()
    };
    let step = v1::Step {
        job_id: 7,
        attempt: 0,
        step: 3,
        uid: Uid::effective().as_raw(),
        spec: Some(v1::StepSpec { name: "probe".to_owned(), ..v1::StepSpec::default() }),
        shares: vec![own],
        ..v1::Step::default()
    };
    v1::LaunchStep {
        step: Some(step),
        step_nodes: vec!["n1".to_owned()],
        step_tasks: vec![tasks],
        gid: Gid::effective().as_raw(),
        user_name: user.map(|user| user.name).unwrap_or_default(),
        kill_wait_secs: 30,
        addresses: vec!["127.0.0.1".to_owned()],
        port: srun.port(),
        secret: SECRET.to_vec().into(),
        job_share: Some(share),
        ..v1::LaunchStep::default()
    }
}

pub(crate) fn key() -> AttemptKey {
    AttemptKey::of_step(JobId(7), Attempt(0), 3)
}

#[test]
fn tasks_run_speak_and_exit() {
    let mut world = World::new();
    let srun = Srun::new();
    world.spool().start(step(&srun, 3)).unwrap();
    let call =
        srun.run(shell("echo $SLURM_PROCID of $SLURM_NTASKS; echo no >&2; exit $SLURM_PROCID"));
    assert_eq!((call.hello.job_id, call.hello.step, call.hello.node.as_str()), (7, 3, "n1"));
    let heard = call.finish();
    assert_eq!(heard.error, "");
    assert_eq!(heard.pids.as_ref().map(Vec::len), Some(3));
    for task in 0..3 {
        assert_eq!(heard.said(task), format!("{task} of 3\n"));
        assert_eq!(heard.complained(task), "no\n");
        assert_eq!(heard.exits[&task], i32::try_from(task).unwrap() << 8);
    }
    assert_eq!(heard.ended, 6, "each stream of each task was ended");
    let result = world.end(key());
    assert_eq!(result.wait_status, 2 << 8, "the highest");
    assert!(result.launch_error.is_empty() && !result.lost);
    assert!(result.usage.peak_memory_bytes > 0);
}
