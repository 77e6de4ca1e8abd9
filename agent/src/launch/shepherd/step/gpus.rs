//! Which GPUs of a step does each of its tasks see?
//!
//! All of them, unless `--gpu-bind` or `--gpus-per-task` says otherwise (srun(1)). GPUs are named by
//! their number on the node, and to CUDA by their UUID, where that is known.

use penstock_proto::v1;

use super::facts::Facts;
use super::numbers::{self, mask_bits};
use crate::gpu::GrantUnit;
use crate::launch::environment::Gpus;
use crate::launch::shepherd::LaunchError;

/// The GPUs of each task on this node, in local order; `None` where neither step nor job has any.
pub(super) fn of_tasks(facts: &Facts) -> Result<Option<Vec<Gpus>>, LaunchError> {
    let numbers = |units: &Vec<GrantUnit>| units.iter().map(|unit| unit.number).collect();
    let step: Vec<u32> = facts.gpus.as_ref().map_or_else(|| ids(&facts.share), numbers);
    let of_job = facts.launch.job_share.as_ref().map(ids).unwrap_or_default();
    if step.is_empty() && of_job.is_empty() {
        return Ok(None);
    }
    let per_task = facts.spec.gpus_per_task.as_ref().map(|gpus| gpus.count);
    let bind = Bind::parse(&facts.spec.gpu_bind, per_task)?;
    let task = |local| {
        let task = bind.seen(&step, local);
        let visible = facts.gpus.as_ref().map(|units| visible(units, &task));
        Gpus { task, step: step.clone(), visible }
    };
    Ok(Some((0..facts.tasks.len()).map(task).collect()))
}

/// By what names a task's GPUs are told to CUDA.
fn visible(units: &[GrantUnit], task: &[u32]) -> Vec<String> {
    let unit = |number: &u32| units.iter().find(|unit| unit.number == *number);
    task.iter().filter_map(unit).map(|unit| unit.visible.clone()).collect()
}

fn ids(share: &v1::NodeShare) -> Vec<u32> {
    share.gres.iter().filter(|gres| gres.name == "gpu").flat_map(|gres| gres.ids.clone()).collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Bind {
    All,
    /// So many for each task, its own as long as there are enough.
    Each(usize),
    /// So many for every `tasks` tasks.
    Shared {
        tasks: usize,
    },
    /// Positions among the step's GPUs, one list a task.
    Lists(Vec<Vec<usize>>),
}

impl Bind {
    fn parse(text: &str, per_task: Option<u64>) -> Result<Self, LaunchError> {
        let loud = text.strip_prefix("verbose,");
        let text = loud.or_else(|| text.strip_prefix("quiet,")).unwrap_or(text);
        let wrong = || {
            LaunchError::job(format!(
                "--gpu-bind={text} is not understood; give none, closest, single:TASKS, \
                 per_task:GPUS, map_gpu:LIST or mask_gpu:LIST"
            ))
        };
        let count = |text: &str| text.parse::<usize>().ok().filter(|&count| count > 0);
        let (kind, value) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "" => Ok(per_task.map_or(Self::All, |count| {
                Self::Each(usize::try_from(count).unwrap_or(usize::MAX))
            })),
            "none" | "closest" | "verbose" | "quiet" => Ok(Self::All),
            "single" => count(value).map(|tasks| Self::Shared { tasks }).ok_or_else(wrong),
            "per_task" => count(value).map(Self::Each).ok_or_else(wrong),
            "map_gpu" | "map" => {
                let map = numbers::repeated_list(value, |word| {
                    numbers::number(word).and_then(|at| usize::try_from(at).ok())
                });
                let one = |at| vec![at];
                Ok(Self::Lists(map.ok_or_else(wrong)?.into_iter().map(one).collect()))
            }
            "mask_gpu" | "mask" => {
                numbers::repeated_list(value, mask_bits).map(Self::Lists).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        }
    }

    /// A list that is shorter than the tasks is gone round again, as in Slurm.
    fn seen(&self, step: &[u32], local: usize) -> Vec<u32> {
        if step.is_empty() {
            return Vec::new();
        }
        match self {
            Self::All => step.to_vec(),
            Self::Each(count) => {
                let count = (*count).min(step.len());
                let first = local.wrapping_mul(count);
                (0..count).map(|at| step[(first + at) % step.len()]).collect()
            }
            Self::Shared { tasks } => vec![step[(local / tasks) % step.len()]],
            Self::Lists(lists) => {
                let list = lists.get(local % lists.len().max(1)).map_or(&[][..], Vec::as_slice);
                list.iter().filter_map(|&at| step.get(at).copied()).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(bind: &str, per_task: Option<u64>) -> Vec<Vec<u32>> {
        let bind = Bind::parse(bind, per_task).unwrap();
        (0..3).map(|local| bind.seen(&[2, 3, 5, 7], local)).collect()
    }

    #[test]
    fn each_way_to_bind_gives_a_task_its_own() {
        let all = vec![vec![2, 3, 5, 7]; 3];
        for text in ["", "none", "closest", "verbose,none"] {
            assert_eq!(seen(text, None), all, "{text}");
        }
        assert_eq!(seen("", Some(1)), [[2], [3], [5]]);
        assert_eq!(seen("per_task:2", None), [[2, 3], [5, 7], [2, 3]]);
        assert_eq!(seen("single:2", None), [[2], [2], [3]]);
        assert_eq!(seen("map_gpu:3,0", None), [[7], [2], [7]]);
        assert_eq!(seen("mask_gpu:0x3,0xc", None), [[2, 3], [5, 7], [2, 3]]);
        for text in ["single:0", "single:x", "per_task", "map_gpu:", "mask_gpu:zz", "odd"] {
            let error = Bind::parse(text, None).unwrap_err();
            assert!(!error.node_fault && error.text.contains(text), "{}", error.text);
        }
    }
}
