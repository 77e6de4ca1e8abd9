//! What is said of tasks that end, and what is the exit status of the step?
//!
//! The texts are srun's. Tasks of one node that end alike at nearly the same time share a line.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use nix::errno::Errno;

/// Bit of a wait status that says that a core was dumped.
const CORE_DUMPED: i32 = 0x80;

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskState {
    /// Its shepherd has not started it yet.
    Unknown,
    Running,
    Exited,
    ExitedAbnormally,
}

impl TaskState {
    /// As srun prints it.
    fn told(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::ExitedAbnormally => "exited abnormally",
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WaitStatus(pub(crate) i32);

impl WaitStatus {
    /// The signal that ended it; `None`: it exited.
    pub(crate) fn signal(self) -> Option<i32> {
        let number = self.0 & 0x7f;
        (number != 0).then_some(number)
    }

    /// Its exit status, 0 where a signal ended it.
    pub(crate) fn code(self) -> i32 {
        if self.signal().is_some() { 0 } else { (self.0 >> 8) & 0xff }
    }

    /// What a shell says of it: the code, or 128 and the signal.
    pub(crate) fn shell_code(self) -> i32 {
        self.signal().map_or_else(|| self.code(), |signal| 128 + signal)
    }

    /// As srun tells it: `Exited with exit code 3`, `Killed`; `None` for success.
    fn told(self) -> Option<String> {
        match (self.signal(), self.code()) {
            (None, 0) => None,
            (None, code) => Some(format!("Exited with exit code {code}")),
            (Some(signal), _) => {
                let core = if self.0 & CORE_DUMPED != 0 { " (core dumped)" } else { "" };
                Some(format!("{}{core}", signal_text(signal)))
            }
        }
    }
}

/// What glibc's `strsignal` says, in English.
fn signal_text(signal: i32) -> String {
    let text = match signal {
        1 => "Hangup",
        2 => "Interrupt",
        3 => "Quit",
        4 => "Illegal instruction",
        5 => "Trace/breakpoint trap",
        6 => "Aborted",
        7 => "Bus error",
        8 => "Floating point exception",
        9 => "Killed",
        10 => "User defined signal 1",
        11 => "Segmentation fault",
        12 => "User defined signal 2",
        13 => "Broken pipe",
        14 => "Alarm clock",
        15 => "Terminated",
        16 => "Stack fault",
        17 => "Child exited",
        18 => "Continued",
        19 => "Stopped (signal)",
        20 => "Stopped",
        21 => "Stopped (tty input)",
        22 => "Stopped (tty output)",
        23 => "Urgent I/O condition",
        24 => "CPU time limit exceeded",
        25 => "File size limit exceeded",
        26 => "Virtual timer expired",
        27 => "Profiling timer expired",
        28 => "Window changed",
        29 => "I/O possible",
        30 => "Power failure",
        31 => "Bad system call",
        number if number >= 34 => return format!("Real-time signal {}", number - 34),
        number => return format!("Unknown signal {number}"),
    };
    text.to_owned()
}

/// Task numbers as srun lists them: `task 0`, `tasks 0-3,5`.
pub(crate) fn task_words(tasks: &[u32]) -> String {
    let mut sorted = tasks.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut text = String::from(if sorted.len() == 1 { "task " } else { "tasks " });
    let mut rest = sorted.as_slice();
    let mut comma = "";
    while let Some(first) = rest.first().copied() {
        let run = (first..).zip(rest).take_while(|(expect, task)| expect == *task).count();
        let last = rest[run - 1];
        let written = match run {
            1 => write!(text, "{comma}{first}"),
            _ => write!(text, "{comma}{first}-{last}"),
        };
        written.expect("writing to a String cannot fail");
        (rest, comma) = (&rest[run..], ",");
    }
    text
}

/// The ends of a step's tasks.
#[derive(Debug)]
pub(crate) struct Exits {
    states: Vec<TaskState>,
    /// Ended and not told yet: node and status, tasks; in the order in which they came.
    untold: Vec<((usize, WaitStatus), Vec<u32>)>,
    status: Option<WaitStatus>,
}

impl Exits {
    /// Of `ntasks` tasks that were not started yet.
    pub(crate) fn new(ntasks: u32) -> Self {
        let count = usize::try_from(ntasks).unwrap_or(usize::MAX);
        Self { states: vec![TaskState::Unknown; count], untold: Vec::new(), status: None }
    }

    /// These tasks run now.
    pub(crate) fn started(&mut self, tasks: &[u32]) {
        for task in tasks {
            if let Some(state @ TaskState::Unknown) = self.state(*task) {
                *state = TaskState::Running;
            }
        }
    }

    /// A task of the node with that index has ended; false if it was known, or there is no such task.
    pub(crate) fn ended(&mut self, node: usize, task: u32, status: WaitStatus) -> bool {
        let Some(state) = self.state(task).filter(|state| !state.is_over()) else { return false };
        *state = if status.0 == 0 { TaskState::Exited } else { TaskState::ExitedAbnormally };
        if status.0 != 0 {
            match self.untold.iter_mut().find(|(key, _)| *key == (node, status)) {
                Some((_, tasks)) => tasks.push(task),
                None => self.untold.push(((node, status), vec![task])),
            }
        }
        self.add(status);
        true
    }

    /// A task is gone with its node, which is told instead of its end.
    pub(crate) fn lost(&mut self, task: u32) {
        if let Some(state) = self.state(task).filter(|state| !state.is_over()) {
            *state = TaskState::ExitedAbnormally;
            self.add(WaitStatus(libc::SIGKILL));
        }
    }

    /// As Slurm: a signal counts over an exit code that came before it, and the other way round;
    /// among its like the higher one.
    fn add(&mut self, status: WaitStatus) {
        let replaces = match (self.status, status.signal()) {
            (None, _) => true,
            (Some(known), None) => known.signal().is_some() || status.code() > known.code(),
            (Some(known), Some(signal)) => known.signal().is_none_or(|other| signal > other),
        };
        // Success says nothing against a failure.
        if replaces && (status.0 != 0 || self.status.is_none()) {
            self.status = Some(status);
        }
    }

    /// Whether something is to be told.
    pub(crate) fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    /// Lines about what ended since the last call: `n1: tasks 0-1: Killed`.
    pub(crate) fn tell(&mut self, nodes: &[String]) -> Vec<String> {
        self.tell_as(nodes, |node, status, tasks| {
            status.told().map(|told| format!("{node}: {}: {told}", task_words(tasks)))
        })
    }

    /// The same of the tasks of sbcast, whose exit status is an error number.
    pub(crate) fn tell_copies(&mut self, nodes: &[String]) -> Vec<String> {
        self.tell_as(nodes, |node, status, _| {
            let why = match status.signal() {
                None => Errno::from_raw(status.code()).desc().to_owned(),
                Some(signal) => signal_text(signal),
            };
            Some(format!("REQUEST_FILE_BCAST({node}): {why}"))
        })
    }

    fn tell_as(
        &mut self,
        nodes: &[String],
        told: impl Fn(&str, WaitStatus, &[u32]) -> Option<String>,
    ) -> Vec<String> {
        let line = |((node, status), tasks): ((usize, WaitStatus), Vec<u32>)| {
            told(nodes.get(node).map_or("", String::as_str), status, &tasks)
        };
        let mut untold = std::mem::take(&mut self.untold);
        untold.sort_by_key(|((node, _), _)| *node);
        untold.into_iter().filter_map(line).collect()
    }

    /// Where all tasks stand, a line a state, as srun prints it on an interrupt.
    pub(crate) fn report(&self) -> Vec<String> {
        let mut by_state: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        let order = [
            TaskState::Unknown,
            TaskState::Running,
            TaskState::ExitedAbnormally,
            TaskState::Exited,
        ];
        for (task, state) in (0..).zip(&self.states) {
            let place = order.iter().position(|known| known == state).unwrap_or_default();
            by_state.entry(place).or_default().push(task);
        }
        let line = |(place, tasks): (usize, Vec<u32>)| {
            format!("{}: {}", task_words(&tasks), order[place].told())
        };
        by_state.into_iter().map(line).collect()
    }

    /// Whether every task has ended.
    pub(crate) fn all_ended(&self) -> bool {
        self.states.iter().all(|state| state.is_over())
    }

    /// Whether one of these has not ended.
    pub(crate) fn any_open(&self, tasks: &[u32]) -> bool {
        let over = |task: &u32| {
            let index = usize::try_from(*task).unwrap_or(usize::MAX);
            self.states.get(index).is_none_or(|state| state.is_over())
        };
        !tasks.iter().all(over)
    }

    /// The status of the step so far; `None` where no task has ended.
    pub(crate) fn status(&self) -> Option<WaitStatus> {
        self.status
    }

    fn state(&mut self, task: u32) -> Option<&mut TaskState> {
        self.states.get_mut(usize::try_from(task).ok()?)
    }
}

impl TaskState {
    fn is_over(self) -> bool {
        matches!(self, Self::Exited | Self::ExitedAbnormally)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXIT_3: WaitStatus = WaitStatus(3 << 8);
    const KILLED: WaitStatus = WaitStatus(9);
    const TERMINATED: WaitStatus = WaitStatus(15);

    #[test]
    fn tasks_are_listed_as_slurm_lists_them() {
        let table: &[(&[u32], &str)] = &[
            (&[0], "task 0"),
            (&[0, 1, 2, 3], "tasks 0-3"),
            (&[5, 0, 1], "tasks 0-1,5"),
            (&[1, 3, 5], "tasks 1,3,5"),
        ];
        for (tasks, expect) in table {
            assert_eq!(task_words(tasks), *expect);
        }
    }

    #[test]
    fn ends_are_told_by_node_and_status() {
        let nodes = ["n1".to_owned(), "n2".to_owned()];
        let mut exits = Exits::new(6);
        exits.started(&[0, 1, 2, 3, 4, 5]);
        assert!(exits.ended(0, 0, EXIT_3));
        assert!(exits.ended(1, 3, EXIT_3));
        assert!(exits.ended(0, 1, EXIT_3));
        assert!(exits.ended(0, 2, WaitStatus(0)));
        assert!(exits.ended(1, 4, WaitStatus(11 | CORE_DUMPED)));
        assert!(!exits.ended(1, 4, EXIT_3), "a task ends once");
        assert!(!exits.ended(1, 6, EXIT_3), "there is no such task");
        assert_eq!(
            exits.tell(&nodes),
            [
                "n1: tasks 0-1: Exited with exit code 3",
                "n2: task 3: Exited with exit code 3",
                "n2: task 4: Segmentation fault (core dumped)",
            ]
        );
        assert!(exits.tell(&nodes).is_empty());
        assert_eq!(
            exits.report(),
            ["task 5: running", "tasks 0-1,3-4: exited abnormally", "task 2: exited"]
        );
        assert!(!exits.all_ended());
    }

    #[test]
    fn the_status_of_the_step_is_slurms() {
        let table: &[(&[WaitStatus], i32)] = &[
            (&[WaitStatus(0), WaitStatus(0)], 0),
            (&[EXIT_3, WaitStatus(2 << 8), WaitStatus(0)], 3),
            (&[WaitStatus(5 << 8), TERMINATED], 143),
            (&[TERMINATED, KILLED], 143),
            (&[KILLED, TERMINATED], 143),
            (&[TERMINATED, EXIT_3], 3),
            (&[TERMINATED, WaitStatus(0)], 143),
        ];
        for (ends, expect) in table {
            let mut exits = Exits::new(9);
            for (task, status) in (0..).zip(*ends) {
                exits.ended(0, task, *status);
            }
            assert_eq!(exits.status().map(WaitStatus::shell_code), Some(*expect), "{ends:?}");
        }
    }

    #[test]
    fn signals_have_their_names() {
        for (signal, expect) in [
            (9, "Killed"),
            (15, "Terminated"),
            (12, "User defined signal 2"),
            (35, "Real-time signal 1"),
        ] {
            assert_eq!(WaitStatus(signal).told().as_deref(), Some(expect));
        }
    }
}
