//! On which CPUs does each task of a step run?
//!
//! `--cpu-bind` (srun(1)): `none`, `cores` and its kin, `threads`, `rank`, `map_cpu:`, `mask_cpu:`. CPU
//! numbers that users give are those of the machine, as in Slurm. Without the option each task
//! gets CPUs of its own where the step's CPUs are just enough for that, else all tasks share them.

use super::facts::Facts;
use super::numbers::{mask_bits, mask_text, number, repeated_list};
use crate::launch::shepherd::LaunchError;

/// How the tasks of this node are bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binding {
    /// CPUs of each task, in local order; `None`: not bound.
    pub(super) tasks: Option<Vec<Vec<usize>>>,
    /// `quiet` or `verbose`.
    pub(super) verbosity: &'static str,
    /// `mask_cpu:` or `none`, for the tasks' environment.
    pub(super) kind: &'static str,
    /// Masks of all tasks of this node.
    pub(super) list: String,
    /// Somebody asked for it, and it cannot be done here.
    pub(super) in_vain: bool,
}

impl Binding {
    /// `cpus`: the step's on this node in the order of their logical numbers, threads of a core
    /// beside each other; empty where this node pins nothing. `threads`: of each core.
    pub(super) fn of(facts: &Facts, cpus: &[u32], threads: usize) -> Result<Self, LaunchError> {
        let wish = Wish::parse(&facts.spec.cpu_bind)?;
        let cpus: Vec<usize> = cpus.iter().filter_map(|&cpu| usize::try_from(cpu).ok()).collect();
        let each = facts.spec.cpus_per_task.map_or(1, |count| count.max(1));
        let each = usize::try_from(each).unwrap_or(usize::MAX);
        let tasks = if cpus.is_empty() {
            None
        } else {
            wish.how.tasks(&cpus, facts.tasks.len(), each, threads.max(1))
        };
        let list = tasks
            .as_ref()
            .map(|tasks| tasks.iter().map(|cpus| mask_text(cpus)).collect::<Vec<_>>().join(","));
        Ok(Self {
            kind: if tasks.is_some() { "mask_cpu:" } else { "none" },
            list: list.unwrap_or_default(),
            verbosity: if wish.verbose { "verbose" } else { "quiet" },
            in_vain: tasks.is_none() && !matches!(wish.how, How::Default | How::None),
            tasks,
        })
    }

    /// The line that `verbose` asks for, for one task.
    pub(super) fn line(&self, facts: &Facts, local: usize, pid: u32) -> Option<String> {
        let rank = facts.tasks.get(local).filter(|_| self.verbosity == "verbose")?;
        let (kind, mask, set) = match self.tasks.as_ref().and_then(|tasks| tasks.get(local)) {
            Some(cpus) => ("MASK", mask_text(cpus), " set"),
            None => ("NONE", String::from("0xffffffff"), ""),
        };
        let node = &facts.node;
        Some(format!("cpu-bind={kind} - {node}, task {rank:2} {local:2} [{pid}]: mask {mask}{set}"))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Wish {
    how: How,
    verbose: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum How {
    Default,
    None,
    /// Whole cores, `cpus_per_task` CPUs rounded up to them.
    Cores,
    /// Single threads.
    Threads,
    /// The CPU with the number of the task among the step's.
    Rank,
    Map(Vec<usize>),
    Masks(Vec<Vec<usize>>),
}

impl Wish {
    fn parse(text: &str) -> Result<Self, LaunchError> {
        let mut wish = Self { how: How::Default, verbose: false };
        let mut rest = text;
        while !rest.is_empty() {
            // A list has commas of its own, and is always the last word.
            let lists = ["map_cpu:", "mask_cpu:"].iter().any(|start| rest.starts_with(start));
            let (word, tail) =
                if lists { (rest, "") } else { rest.split_once(',').unwrap_or((rest, "")) };
            match word {
                "v" | "verbose" => wish.verbose = true,
                "q" | "quiet" => wish.verbose = false,
                word => wish.how = How::parse(word).ok_or_else(|| Self::wrong(text))?,
            }
            rest = tail;
        }
        Ok(wish)
    }

    fn wrong(text: &str) -> LaunchError {
        LaunchError::job(format!(
            "--cpu-bind={text} is not understood or cannot be done here; give none, cores, threads, \
             rank, map_cpu:LIST or mask_cpu:LIST"
        ))
    }
}

impl How {
    fn parse(word: &str) -> Option<Self> {
        if let Some(list) = word.strip_prefix("map_cpu:") {
            let read = |word: &str| number(word).and_then(|cpu| usize::try_from(cpu).ok());
            return repeated_list(list, read).map(Self::Map);
        }
        if let Some(list) = word.strip_prefix("mask_cpu:") {
            return repeated_list(list, mask_bits).map(Self::Masks);
        }
        match word {
            "no" | "none" => Some(Self::None),
            "core" | "cores" => Some(Self::Cores),
            "thread" | "threads" => Some(Self::Threads),
            "rank" => Some(Self::Rank),
            _ => None,
        }
    }

    fn tasks(
        &self,
        cpus: &[usize],
        count: usize,
        each: usize,
        threads: usize,
    ) -> Option<Vec<Vec<usize>>> {
        let own = |each: usize| {
            let groups: Vec<&[usize]> = cpus.chunks(each.min(cpus.len())).collect();
            (0..count).map(|local| groups[local % groups.len()].to_vec()).collect::<Vec<_>>()
        };
        match self {
            Self::None => None,
            Self::Default => (count.checked_mul(each) == Some(cpus.len())).then(|| own(each)),
            Self::Cores => Some(own(each.div_ceil(threads).saturating_mul(threads))),
            Self::Threads => Some(own(each)),
            Self::Rank => Some((0..count).map(|local| vec![cpus[local % cpus.len()]]).collect()),
            Self::Map(map) => Some((0..count).map(|local| vec![map[local % map.len()]]).collect()),
            Self::Masks(masks) => {
                Some((0..count).map(|local| masks[local % masks.len()].clone()).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(text: &str, count: usize, each: usize, threads: usize) -> Option<Vec<Vec<usize>>> {
        Wish::parse(text).unwrap().how.tasks(&[0, 4, 1, 5], count, each, threads)
    }

    #[test]
    fn tasks_get_what_the_option_says() {
        assert_eq!(bound("", 4, 1, 2), Some(vec![vec![0], vec![4], vec![1], vec![5]]));
        assert_eq!(bound("", 2, 2, 2), Some(vec![vec![0, 4], vec![1, 5]]));
        assert_eq!(bound("", 3, 1, 2), None, "not just enough");
        assert_eq!(bound("verbose,none", 4, 1, 2), None);
        assert_eq!(bound("cores", 2, 1, 2), Some(vec![vec![0, 4], vec![1, 5]]));
        assert_eq!(bound("quiet,threads", 5, 1, 2).unwrap()[4], [0], "and again from the start");
        assert_eq!(bound("rank", 2, 1, 2), Some(vec![vec![0], vec![4]]));
        assert_eq!(bound("map_cpu:7,0x2", 3, 1, 1), Some(vec![vec![7], vec![2], vec![7]]));
        assert_eq!(bound("v,mask_cpu:0x3,c", 2, 1, 1), Some(vec![vec![0, 1], vec![2, 3]]));
        for text in ["odd", "map_cpu:", "map_cpu:x", "mask_cpu:0x", "rank_ldom", "none,odd"] {
            let error = Wish::parse(text).unwrap_err();
            assert!(!error.node_fault && error.text.contains(text), "{}", error.text);
        }
    }
}
