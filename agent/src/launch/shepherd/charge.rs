//! What has a shepherd charge of, whatever it started: a script or the tasks of a step?
//!
//! Processes in a container, their end ([`Ending`]), the lease, and what they used. The callers
//! decide whom a signal is for, and what else they wait for.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use penstock_proto::v1;
use penstock_supervisor::ending::{Ending, Input, Terms, UNKILLABLE_SECS};
use penstock_supervisor::{AttemptKey, EndCause, RunResult, Usage};
use penstock_vocab::{Millis, Timestamp};
use rustix::process::Pid;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::control::Link;
use super::meter::Meter;
use super::{LaunchError, memory};
use crate::launch::cgroup::GroupName;
use crate::launch::cgroup::{Container, Counted, Group, Hierarchies, Limits};
use crate::launch::lease::Lease;
use crate::launch::record::{Intent, News, Order, group_name, usage_to_wire};
use crate::sys::{boottime, ended_child, reap_child, wall_clock};

/// How often memory is sampled where the kernel does not limit it.
const SAMPLE: Duration = Duration::from_secs(1);
/// How often is looked for the last process where the kernel does not tell, and how often what
/// forks faster than it is killed is killed again.
pub(super) const LOOK: Duration = Duration::from_millis(20);
/// How often the removal of an empty group is tried; its last process may be on its way out.
const REMOVAL_TRIES: u32 = 50;

/// What the shepherd waits with; made before the fork, after which nothing may fail.
struct Waits {
    signals: SignalFd,
    timer: OwnedFd,
}

impl Waits {
    fn new() -> io::Result<Self> {
        let timer = rustix::time::timerfd_create(
            TimerfdClockId::Boottime,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&SigSet::from_iter([NixSignal::SIGCHLD]), flags)?;
        Ok(Self { signals, timer })
    }
}

/// What is ready before anything is forked.
pub(super) struct Ready {
    pub(super) container: Container,
    pub(super) lease: Option<Lease>,
    limit_bytes: u64,
    /// Whether memory is to be sampled, since no controller limits it.
    sample_memory: bool,
    group: GroupName,
    waits: Waits,
}

impl Ready {
    /// Makes the group of `part`, in what the attempt was given (`of_attempt`),
    /// with less for the part (`of_part`) where it has less.
    pub(super) fn make(
        intent: &Intent,
        part: AttemptKey,
        lease: Option<Lease>,
        of_attempt: &Limits,
        of_part: &Limits,
    ) -> Result<Self, LaunchError> {
        let hierarchies = intent.hierarchies.clone().unwrap_or_default();
        let waits = Waits::new()
            .map_err(|error| LaunchError::node(format!("the job cannot be watched: {error}")))?;
        let name = group_name(part);
        let container = if hierarchies.is_usable() {
            let group = Group::create(&hierarchies, &name, of_attempt, of_part);
            let group = group.map_err(|error| {
                LaunchError::node(format!("the job's cgroup cannot be made: {error}"))
            })?;
            if let Err(error) = confine(intent, &hierarchies, &group) {
                group.remove();
                return Err(error);
            }
            Container::Group(Box::new(group))
        } else {
            Container::Tree
        };
        let limits = [of_part.memory_bytes, of_attempt.memory_bytes];
        Ok(Self {
            container,
            lease,
            limit_bytes: limits.into_iter().filter(|&bytes| bytes > 0).min().unwrap_or(0),
            sample_memory: !hierarchies.limits_memory(),
            group: name,
            waits,
        })
    }

    /// Whether the processes must be killed with their shepherd: without a group, nothing else would
    /// find them if it died; with a lease, nobody else would end them in time.
    pub(super) fn ends_with_shepherd(&self) -> bool {
        matches!(self.container, Container::Tree) || self.lease.is_some()
    }
}

/// Keeps the part from the device files of others, where this node has any and can.
fn confine(intent: &Intent, base: &Hierarchies, group: &Group) -> Result<(), LaunchError> {
    let rules = intent.devices.as_ref().map_or(&[][..], |devices| devices.rules());
    if rules.is_empty() {
        return Ok(());
    }
    group.confine(base, rules).map(drop).map_err(|error| {
        LaunchError::node(format!("the job cannot be kept from devices of others: {error}"))
    })
}

/// The lease that the attempt needs, if it needs one and that is not over. Up to the end of the job
/// it is looked at again and again; here, so that nothing is begun in vain.
pub(super) fn hold_lease(intent: &Intent, lease_secs: u32) -> Result<Option<Lease>, LaunchError> {
    if lease_secs == 0 {
        return Ok(None);
    }
    let path = Path::new(&intent.lease_file);
    let length = Millis::from_secs(u64::from(lease_secs));
    let lease = Lease::open(path, &intent.boot_id, length).map_err(|error| {
        LaunchError::node(format!("the lease in {} cannot be held: {error}", path.display()))
    })?;
    let now = boottime();
    if lease.until(now) <= now {
        return Err(LaunchError::fenced());
    }
    Ok(Some(lease))
}

/// What a shepherd has charge of.
pub(super) struct Charge {
    pub(super) ending: Ending,
    pub(super) container: Container,
    pub(super) counted: Counted,
    pub(super) limit_bytes: u64,
    pub(super) oom_kills: u64,
    pub(super) meter: Meter,
    group: GroupName,
    told: v1::PartUsage,
    start: (Timestamp, Millis),
    removed: bool,
    killing: bool,
    signals: SignalFd,
    timer: OwnedFd,
    armed: Option<Millis>,
    events: Option<File>,
    sampling: bool,
    lease: Option<Lease>,
    /// Held until the record of the end is written.
    claim: File,
}

impl Charge {
    /// Of what starts now, and is measured every so many seconds.
    pub(super) fn new(ready: Ready, terms: Terms, measure_secs: u32, claim: File) -> Self {
        let start = (wall_clock(), boottime());
        let lease_until = ready.lease.as_ref().map(|lease| lease.until(start.1));
        let Waits { signals, timer } = ready.waits;
        Self {
            ending: Ending::new(start.1, Terms { lease_until, ..terms }),
            container: ready.container,
            counted: Counted::default(),
            limit_bytes: ready.limit_bytes,
            oom_kills: 0,
            meter: Meter::new(measure_secs),
            group: ready.group,
            told: v1::PartUsage::default(),
            start,
            removed: false,
            killing: false,
            signals,
            timer,
            armed: None,
            events: None,
            sampling: ready.sample_memory,
            lease: ready.lease,
            claim,
        }
    }

    /// When it was started, on the wall clock.
    pub(super) const fn started(&self) -> Timestamp {
        self.start.0
    }

    /// Descriptors to wait for; readable when there is something to look at.
    pub(super) fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.signals.as_fd(), self.timer.as_fd()]
    }

    /// A descriptor that has `POLLPRI` when the last process is gone, while that is waited for.
    pub(super) fn events(&self) -> Option<BorrowedFd<'_>> {
        self.events.as_ref().filter(|_| self.ending.wants_empty()).map(|file| file.as_fd())
    }

    /// How long at most to wait for what announces itself by no descriptor.
    pub(super) fn timeout(&self) -> Option<Duration> {
        let looks = self.ending.wants_empty() && (self.killing || self.events.is_none());
        if looks {
            return Some(LOOK);
        }
        let sample = self.sampling.then_some(SAMPLE);
        sample.into_iter().chain(self.meter.timeout(boottime())).min()
    }

    /// Sets the timer to the next deadline.
    pub(super) fn arm(&mut self) {
        let deadline = self.ending.deadline();
        if deadline == self.armed {
            return;
        }
        self.armed = deadline;
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A value of zero disarms; a deadline at boot is none that can come.
        let value = deadline.map_or(zero, |at| Timespec {
            tv_sec: i64::try_from(at.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(at.0 % 1000).unwrap_or(0) * 1_000_000,
        });
        let once = Itimerspec { it_interval: zero, it_value: value };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)
            .expect("the timer is ours and the time valid");
    }

    /// When the lease seems over, looks whether it was renewed.
    pub(super) fn look_at_lease(&self) -> Option<Input> {
        let now = boottime();
        let over = self.ending.lease_until().is_some_and(|until| until <= now);
        let lease = self.lease.as_ref().filter(|_| over)?;
        Some(Input::Lease { until: lease.until(now) })
    }

    /// Before children are waited for: a signal that comes while they are is seen next time.
    pub(super) fn clear_signals(&self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
    }

    /// Waits for a child that has ended, if there is one: its pid and raw wait status. What it used is
    /// counted.
    pub(super) fn reap(&mut self) -> Option<(Pid, i32)> {
        if let Some(pid) = ended_child() {
            self.meter.last_look(pid);
        }
        let (pid, status, used) = reap_child()?;
        self.meter.ended(pid, &used);
        Some((pid, status))
    }

    /// Measures what is used, where that is due or `wanted`, and tells the agent what is new.
    pub(super) fn measure(&mut self, wanted: bool, link: &mut Link) {
        let now = boottime();
        if self.removed || !(wanted || self.meter.is_due(now)) {
            return;
        }
        self.meter.look(&self.container, now);
        self.count();
        let usage = usage_to_wire(&self.usage());
        let part = v1::PartUsage {
            usage: Some(usage),
            memory_bytes: self.meter.memory_bytes(),
            pids: self.meter.pids().to_vec(),
            ..v1::PartUsage::default()
        };
        if wanted || self.told != part {
            self.told.clone_from(&part);
            link.tell(News::Usage(part));
        }
    }

    /// What was used until now.
    fn usage(&self) -> Usage {
        let tasks = self.meter.usage();
        Usage {
            user_cpu_usec: self.counted.user_usec,
            system_cpu_usec: self.counted.system_usec,
            peak_memory_bytes: self.counted.peak_bytes,
            memory_limit_bytes: self.limit_bytes,
            tasks: (!tasks.is_empty()).then(|| Box::new(tasks)),
        }
    }

    /// What a user is told of memory that ran out; after [`Self::close`].
    pub(super) fn advice(&self) -> String {
        let victim = memory::victim(&self.group);
        let process = victim.as_ref().or_else(|| self.meter.largest());
        memory::advice(self.limit_bytes, self.counted.peak_bytes, process)
    }

    /// The script, or the last task, ended.
    pub(super) fn exited(&mut self) -> Input {
        self.meter.stop();
        self.count();
        self.removed = self.container.remove();
        if !self.removed {
            self.events = self.container.events_path().and_then(|p| File::open(p).ok());
        }
        Input::Exited { empty: self.removed }
    }

    /// Whether nothing is left, where that is waited for; kills again what should be gone.
    pub(super) fn look_whether_empty(&mut self) -> Option<Input> {
        if !self.ending.wants_empty() {
            return None;
        }
        if self.is_empty() {
            return Some(Input::Empty);
        }
        if self.killing {
            // Whatever forked between the listing and the signal.
            let _next_time = self.kill();
        }
        None
    }

    fn is_empty(&self) -> bool {
        let Some(events) = &self.events else { return self.container.is_empty() };
        // Read from the descriptor that is waited for: that rearms it.
        let mut buffer = [0_u8; 64];
        let length = rustix::io::pread(events, &mut buffer[..], 0).unwrap_or(0);
        let empty = b"populated 0";
        // A group that is gone holds nobody.
        length == 0 || buffer[..length].windows(empty.len()).any(|part| part == empty)
    }

    /// Kills every process.
    ///
    /// # Errors
    /// When that fails; it is tried again as long as something is left.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.killing = true;
        if self.removed { Ok(()) } else { self.container.kill() }
    }

    /// Where no controller limits memory: measures it. True, once, if it is too much.
    pub(super) fn sample(&mut self) -> bool {
        if !self.sampling {
            return false;
        }
        let bytes = self.container.resident_bytes();
        self.counted.peak_bytes = self.counted.peak_bytes.max(bytes);
        let too_much = self.limit_bytes > 0 && bytes > self.limit_bytes && self.oom_kills == 0;
        if too_much {
            self.oom_kills = 1;
        }
        too_much
    }

    /// Looks how many processes the kernel has killed for memory.
    pub(super) fn count_oom_kills(&mut self) {
        if self.limit_bytes > 0 && !self.sampling && !self.removed {
            self.oom_kills = self.container.oom_kills();
        }
    }

    /// Reads what was used, as long as the group is there.
    pub(super) fn count(&mut self) {
        let mut now = self.container.counted();
        let children = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN);
        if let Ok(usage) = children {
            if now.user_usec == 0 && now.system_usec == 0 {
                let usec = |time: nix::sys::time::TimeVal| {
                    u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or(0)
                };
                (now.user_usec, now.system_usec) =
                    (usec(usage.user_time()), usec(usage.system_time()));
            }
            if now.peak_bytes == 0 {
                now.peak_bytes = u64::try_from(usage.max_rss()).unwrap_or(0).saturating_mul(1024);
            }
        }
        now.peak_bytes = now.peak_bytes.max(self.counted.peak_bytes);
        self.counted = now;
        self.count_oom_kills();
    }

    /// The last look, after the end: counts, and removes the group.
    pub(super) fn close(&mut self) {
        if self.removed {
            return;
        }
        self.count();
        if self.ending.unkillable() {
            return;
        }
        for _ in 0..REMOVAL_TRIES {
            if self.container.remove() {
                self.removed = true;
                return;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// How it ended, after [`Self::close`].
    pub(super) fn result(&self, wait_status: i32, error: Option<LaunchError>) -> RunResult {
        RunResult {
            start: self.start.0,
            end: wall_clock(),
            wait_status,
            out_of_memory: self.oom_kills > 0,
            time_limit: self.ending.cause() == Some(EndCause::TimeLimit),
            unkillable: self.ending.unkillable(),
            node_fault: error.as_ref().is_some_and(|error| error.node_fault),
            launch_error: error.map_or_else(String::new, |error| error.text),
            usage: self.usage(),
            elapsed: self.ending.elapsed(boottime()),
            lost: false,
            fenced: self.ending.fenced(),
            devices_changed: false,
        }
    }

    /// The claim, for whoever writes the record of the end: who lets go of it before that is taken
    /// for a shepherd that was lost.
    pub(super) fn into_claim(self) -> File {
        self.claim
    }
}

/// What an order means for the end; `None`: it is about something else.
pub(super) fn input_of(order: &Order) -> Option<Input> {
    Some(match order {
        Order::Terminate(order) => {
            Input::Terminate { cause: cause(order.cause()), kill_wait_secs: order.kill_wait_secs }
        }
        Order::SetLimit(order) => Input::SetLimit {
            limit_secs: Some(order.time_limit_secs).filter(|&secs| secs > 0),
            serial: order.limit_serial,
        },
        Order::Suspend(order) if order.suspend => Input::Suspend,
        Order::Suspend(_) => Input::Resume,
        Order::Signal(_)
        | Order::Attach(_)
        | Order::Measure(_)
        | Order::Relay(_)
        | Order::Notice(_) => return None,
    })
}

/// Seconds after SIGKILL until what is left is given up; 0 on the wire: the agent's default.
pub(super) fn unkillable_secs(wire: u32) -> u64 {
    if wire == 0 { UNKILLABLE_SECS } else { u64::from(wire) }
}

/// The end of the line that tells a user why a job or step is ended.
pub(super) const fn why(cause: EndCause) -> &'static str {
    match cause {
        EndCause::Cancelled | EndCause::Other => "",
        EndCause::TimeLimit => " DUE TO TIME LIMIT",
        EndCause::NodeFail => " DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS",
        EndCause::Requeue | EndCause::RequeueHold => " DUE TO JOB REQUEUE",
    }
}

fn cause(wire: v1::EndCause) -> EndCause {
    match wire {
        v1::EndCause::Cancelled => EndCause::Cancelled,
        v1::EndCause::TimeLimit => EndCause::TimeLimit,
        v1::EndCause::NodeFail => EndCause::NodeFail,
        v1::EndCause::Requeue => EndCause::Requeue,
        v1::EndCause::RequeueHold => EndCause::RequeueHold,
        v1::EndCause::Unspecified
        | v1::EndCause::Exited
        | v1::EndCause::LaunchFailed
        | v1::EndCause::OutOfMemory
        | v1::EndCause::Preempted
        | v1::EndCause::PreemptedRequeue
        | v1::EndCause::Deadline => EndCause::Other,
    }
}
