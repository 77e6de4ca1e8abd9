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
    /// What was done, as the tasks' environment says it: `none`, `mask_cpu:`, `cores,mask_cpu:` ...
    pub(super) kind: &'static str,
    /// What belongs behind `kind`: the list as it was given, or the masks of this node's tasks.
    pub(super) list: String,
    /// The word of the verbose line.
    word: &'static str,
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
        let (kind, word) = if tasks.is_some() { wish.how.names() } else { ("none", "NONE") };
        let masks = |tasks: &Vec<Vec<usize>>| {
            tasks.iter().map(|cpus| mask_text(cpus)).collect::<Vec<_>>().join(",")
        };
        let list = match (&tasks, &wish.how) {
            (None, _) | (_, How::Rank) => String::new(),
            (_, How::Map(_) | How::Masks(_)) => wish.list,
            (Some(tasks), How::Default | How::None | How::Cores | How::Threads) => masks(tasks),
        };
        Ok(Self {
            kind,
            list,
            word,
            verbosity: if wish.verbose { "verbose" } else { "quiet" },
            in_vain: tasks.is_none() && !matches!(wish.how, How::Default | How::None),
            tasks,
        })
    }

    /// The line that `verbose` asks for, for one task with these CPUs.
    pub(super) fn line(
        &self,
        facts: &Facts,
        local: usize,
        pid: u32,
        cpus: &[usize],
    ) -> Option<String> {
        let rank = facts.tasks.get(local).filter(|_| self.verbosity == "verbose")?;
        let set = if self.tasks.is_some() { " set" } else { "" };
        let (node, word, mask) = (&facts.node, self.word, mask_text(cpus));
        Some(format!("cpu-bind={word} - {node}, task {rank:2} {local:2} [{pid}]: mask {mask}{set}"))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Wish {
    how: How,
    verbose: bool,
    /// A list as it was given.
    list: String,
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
        let mut wish = Self { how: How::Default, verbose: false, list: String::new() };
        let mut rest = text;
        while !rest.is_empty() {
            // A list has commas of its own, and is always the last word.
            let lists = ["map_cpu:", "mask_cpu:"].iter().any(|start| rest.starts_with(start));
            let (word, tail) =
                if lists { (rest, "") } else { rest.split_once(',').unwrap_or((rest, "")) };
            match word {
                "v" | "verbose" => wish.verbose = true,
                "q" | "quiet" => wish.verbose = false,
                word => {
                    wish.how = How::parse(word).ok_or_else(|| Self::wrong(text))?;
                    wish.list = word.split_once(':').map_or("", |(_, list)| list).to_owned();
                }
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

    /// For the environment, and for the verbose line.
    const fn names(&self) -> (&'static str, &'static str) {
        match self {
            Self::Default => ("mask_cpu:", "MASK"),
            Self::None => ("none", "NONE"),
            Self::Cores => ("cores,mask_cpu:", "MASK"),
            Self::Threads => ("threads,mask_cpu:", "MASK"),
            Self::Rank => ("rank", "RANK"),
            Self::Map(_) => ("map_cpu:", "MAP "),
            Self::Masks(_) => ("mask_cpu:", "MASK"),
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
    use penstock_proto::v1;

    use super::*;

    fn bound(text: &str, count: usize, each: usize, threads: usize) -> Option<Vec<Vec<usize>>> {
        Wish::parse(text).unwrap().how.tasks(&[0, 4, 1, 5], count, each, threads)
    }

    #[test]
    fn what_was_done_is_said_as_slurm_says_it() {
        let binding = |bind: &str, cpus: &[u32]| {
            let mut facts = Facts::for_tests(v1::LaunchStep::default(), vec![4, 6]);
            facts.spec.cpu_bind = bind.to_owned();
            Binding::of(&facts, cpus, 1).unwrap()
        };
        for (bind, cpus, kind, list, in_vain) in [
            ("", &[0, 1][..], "mask_cpu:", "0x1,0x2", false),
            ("", &[0, 1, 2], "none", "", false),
            ("none", &[0, 1], "none", "", false),
            ("cores", &[0, 1, 2], "cores,mask_cpu:", "0x1,0x2", false),
            ("rank", &[0, 1], "rank", "", false),
            ("verbose,map_cpu:0,1", &[0, 1], "map_cpu:", "0,1", false),
            ("mask_cpu:0x3", &[0, 1], "mask_cpu:", "0x3", false),
            ("cores", &[], "none", "", true),
            ("", &[], "none", "", false),
        ] {
            let it = binding(bind, cpus);
            assert_eq!((it.kind, it.list.as_str(), it.in_vain), (kind, list, in_vain), "{bind}");
        }
        let facts = Facts::for_tests(v1::LaunchStep::default(), vec![4, 6]);
        let verbose = binding("verbose,map_cpu:0,1", &[0, 1]);
        let line = verbose.line(&facts, 1, 3273, &[1]).unwrap();
        assert_eq!(line, "cpu-bind=MAP  - n1, task  6  1 [3273]: mask 0x2 set");
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
