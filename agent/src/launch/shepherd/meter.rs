//! What do the tasks of a part use, and which process the most memory?
//!
//! A look goes over all processes of the container, each of which belongs to the task that it descends
//! from. Of each task the highest that was seen is kept, so that what an orphan had used is not
//! forgotten with it. What a task used up to its end comes from the kernel, when the task is waited for;
//! thus a task that was never looked at has all but memory, of which only much is known then.

use std::collections::HashMap;
use std::time::Duration;

use penstock_vocab::{Measure, Millis, Spread, TaskUsage};
use rustix::process::Pid;

use super::process::{Process, bytes_moved, name_of, rank_of};
use crate::launch::cgroup::Container;
use crate::sys::ChildUsage;

/// The second look comes so soon after the first, which sees a program that has hardly begun.
const SOON: Millis = Millis(1_000);
/// Most processes that one look goes over.
const MAX_PROCESSES: usize = 8_192;
/// Most processes whose numbers are told.
const MAX_PIDS: usize = 512;
/// Processes between which and their task no more parents are looked for.
const MAX_DEPTH: usize = 64;

/// What is known of one task: the highest that was seen.
#[derive(Debug)]
struct Task {
    rank: u32,
    pid: Pid,
    seen: [Option<u64>; Measure::ALL.len()],
}

impl Task {
    fn raise(&mut self, measure: Measure, value: u64) {
        let seen = &mut self.seen[measure as usize];
        *seen = Some(seen.map_or(value, |seen| seen.max(value)));
    }
}

/// The process that had the most memory at the last look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Largest {
    pub(super) name: String,
    pub(super) pid: u32,
}

/// A meter.
#[derive(Debug)]
pub(super) struct Meter {
    /// Between two looks; zero: the first is the only one.
    every: Millis,
    due: Option<Millis>,
    looks: u32,
    tasks: Vec<Task>,
    /// Which task a process belongs to, once that is known: its parents may end before it.
    owners: HashMap<Pid, usize>,
    largest: Option<Largest>,
    /// Processes at the last look, and their memory.
    pids: Vec<u32>,
    memory_bytes: u64,
}

/// What the processes of one task come to at one look.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    process: Process,
    moved: Option<(u64, u64)>,
    any: bool,
}

impl Meter {
    /// One that looks every so many seconds once it is started.
    pub(super) fn new(every_secs: u32) -> Self {
        Self {
            every: Millis::from_secs(every_secs.into()),
            due: None,
            looks: 0,
            tasks: Vec::new(),
            owners: HashMap::new(),
            largest: None,
            pids: Vec::new(),
            memory_bytes: 0,
        }
    }

    /// A task was started.
    pub(super) fn add(&mut self, rank: u32, pid: Pid) {
        self.owners.insert(pid, self.tasks.len());
        self.tasks.push(Task { rank, pid, seen: [None; Measure::ALL.len()] });
    }

    /// The programs run: the first look is due.
    pub(super) const fn start(&mut self, now: Millis) {
        self.due = Some(now);
    }

    /// No more looks.
    pub(super) const fn stop(&mut self) {
        self.due = None;
    }

    /// How long until the next look.
    pub(super) fn timeout(&self, now: Millis) -> Option<Duration> {
        self.due.map(|due| due.saturating_sub(now).to_std())
    }

    /// Whether a look is due.
    pub(super) fn is_due(&self, now: Millis) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Looks at every process, and sets when the next look is due.
    pub(super) fn look(&mut self, container: &Container, now: Millis) {
        let wait = match (self.looks, self.every) {
            (_, Millis::ZERO) => None,
            (0, every) => Some(every.min(SOON)),
            (_, every) => Some(every),
        };
        self.looks = self.looks.saturating_add(1);
        self.due = self.due.and(wait).map(|wait| now.saturating_add(wait));
        let mut pids = container.pids().unwrap_or_default();
        pids.truncate(MAX_PROCESSES);
        let seen: HashMap<Pid, Process> =
            pids.iter().filter_map(|&pid| Some((pid, Process::look(pid)?))).collect();
        pids.retain(|pid| seen.contains_key(pid));
        self.own(&pids, &seen);
        self.count(&pids, &seen);
        self.memory_bytes = seen.values().map(|process| process.rss_bytes).sum();
        let largest = pids.iter().max_by_key(|pid| seen[*pid].rss_bytes);
        let named = largest.and_then(|&pid| Some((pid, name_of(pid)?)));
        self.largest = named.map(|(pid, name)| Largest { name, pid: number(pid) });
        self.pids = pids.iter().take(MAX_PIDS).map(|&pid| number(pid)).collect();
    }

    /// Finds out which task each process belongs to; forgets those that are gone.
    fn own(&mut self, pids: &[Pid], seen: &HashMap<Pid, Process>) {
        let tasks = &self.tasks;
        self.owners.retain(|pid, at| seen.contains_key(pid) || tasks[*at].pid == *pid);
        for &pid in pids {
            if self.owners.contains_key(&pid) {
                continue;
            }
            let mut above = Some(pid);
            let mut owner = None;
            for _ in 0..MAX_DEPTH {
                let Some(parent) = above.and_then(|pid| seen.get(&pid)) else { break };
                above = Pid::from_raw(parent.parent);
                owner = above.and_then(|pid| self.owners.get(&pid).copied());
                if owner.is_some() {
                    break;
                }
            }
            let only = (self.tasks.len() == 1).then_some(0);
            let by_name = || {
                let rank = rank_of(pid)?;
                self.tasks.iter().position(|task| task.rank == rank)
            };
            if let Some(at) = owner.or(only).or_else(by_name) {
                self.owners.insert(pid, at);
            }
        }
    }

    fn count(&mut self, pids: &[Pid], seen: &HashMap<Pid, Process>) {
        let mut sums = vec![Sum::default(); self.tasks.len()];
        for &pid in pids {
            let Some(sum) = self.owners.get(&pid).and_then(|&at| sums.get_mut(at)) else {
                continue;
            };
            let process = seen[&pid];
            sum.any = true;
            sum.process.cpu_usec += process.cpu_usec;
            sum.process.pages += process.pages;
            sum.process.vm_bytes = sum.process.vm_bytes.saturating_add(process.vm_bytes);
            sum.process.rss_bytes += process.rss_bytes;
            if let Some((read, written)) = bytes_moved(pid) {
                let (all_read, all_written) = sum.moved.unwrap_or_default();
                sum.moved =
                    Some((all_read.saturating_add(read), all_written.saturating_add(written)));
            }
        }
        for (task, sum) in self.tasks.iter_mut().zip(sums).filter(|(_, sum)| sum.any) {
            let Process { cpu_usec, pages, vm_bytes, rss_bytes, .. } = sum.process;
            task.raise(Measure::Cpu, cpu_usec);
            task.raise(Measure::Pages, pages);
            if rss_bytes > 0 {
                // A zombie has no memory any more, which is no measurement.
                task.raise(Measure::VmSize, vm_bytes);
                task.raise(Measure::Rss, rss_bytes);
            }
            if let Some((read, written)) = sum.moved {
                task.raise(Measure::Read, read);
                task.raise(Measure::Written, written);
            }
        }
    }

    /// A task has ended and is not waited for yet: what it read and wrote is known for the last time.
    pub(super) fn last_look(&mut self, pid: Pid) {
        let Some(task) = self.tasks.iter_mut().find(|task| task.pid == pid) else { return };
        if let Some((read, written)) = bytes_moved(pid) {
            task.raise(Measure::Read, read);
            task.raise(Measure::Written, written);
        }
    }

    /// A child was waited for.
    pub(super) fn ended(&mut self, pid: Pid, used: &ChildUsage) {
        let Some(task) = self.tasks.iter_mut().find(|task| task.pid == pid) else { return };
        task.raise(Measure::Cpu, used.user_usec.saturating_add(used.system_usec));
        task.raise(Measure::Pages, used.pages);
        if used.peak_bytes > 0 {
            task.raise(Measure::Rss, used.peak_bytes);
        }
    }

    /// What is known of the tasks.
    pub(super) fn usage(&self) -> TaskUsage {
        let mut usage = TaskUsage::of(0);
        for task in &self.tasks {
            let mut own = TaskUsage::of(1);
            for measure in Measure::ALL {
                let seen = task.seen[measure as usize];
                own.set(measure, seen.map(|value| Spread::of(task.rank, value)));
            }
            usage.join(&own);
        }
        usage
    }

    /// The process with the most memory at the last look.
    pub(super) const fn largest(&self) -> Option<&Largest> {
        self.largest.as_ref()
    }

    /// Processes at the last look.
    pub(super) fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// Resident memory at the last look, bytes.
    pub(super) const fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}

fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spawn(script: &str) -> std::process::Child {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]).stdin(std::process::Stdio::piped());
        command.stdout(std::process::Stdio::piped()).spawn().unwrap()
    }

    fn wait_for_line(child: &mut std::process::Child) {
        let mut line = String::new();
        let stdout = child.stdout.as_mut().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
    }

    #[test]
    fn tasks_are_told_apart_by_their_descendants() {
        let one = "sleep 1000 & head -c 300000 /dev/zero >/dev/null; echo go; read line; kill $!";
        let mut one = spawn(one);
        let mut two = spawn("echo go; read line");
        wait_for_line(&mut one);
        wait_for_line(&mut two);
        let mut meter = Meter::new(30);
        meter.add(4, Pid::from_child(&one));
        meter.add(9, Pid::from_child(&two));
        let now = Millis(50_000);
        assert_eq!(meter.timeout(now), None);
        meter.start(now);
        assert!(meter.is_due(now));
        meter.look(&Container::Tree, now);
        assert_eq!(meter.timeout(now), Some(Duration::from_secs(1)));
        let usage = meter.usage();
        assert_eq!(usage.tasks, 2);
        let rss = usage.get(Measure::Rss).unwrap();
        // A shell and a sleep have more than a shell.
        assert_eq!((rss.max_task, rss.min_task), (4, 9), "{rss:?}");
        if let Some(read) = usage.get(Measure::Read) {
            // By a child that had ended when it was looked at.
            assert!(read.max >= 300_000 && read.max_task == 4, "{read:?}");
        }
        assert!(meter.pids().len() >= 3 && meter.memory_bytes() >= rss.total);
        assert!(meter.largest().is_some());
        meter.look(&Container::Tree, now);
        assert_eq!(meter.timeout(now), Some(Duration::from_secs(30)));
        for child in [&mut one, &mut two] {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
    }

    #[test]
    fn what_was_never_looked_at_is_known_by_the_kernel() {
        let mut meter = Meter::new(0);
        let pid = Pid::from_raw(4_000_000).unwrap();
        meter.add(0, pid);
        assert!(meter.usage().is_empty());
        let used = ChildUsage { user_usec: 7, system_usec: 5, peak_bytes: 4096, pages: 1 };
        meter.ended(pid, &used);
        let usage = meter.usage();
        assert_eq!(usage.get(Measure::Cpu), Some(&Spread::of(0, 12)));
        assert_eq!(usage.get(Measure::Rss), Some(&Spread::of(0, 4096)));
        assert_eq!(usage.get(Measure::VmSize), None);
        // Without a distance between looks there is only the first.
        meter.start(Millis(1));
        meter.look(&Container::Tree, Millis(1));
        assert_eq!(meter.timeout(Millis(1)), None);
    }
}
