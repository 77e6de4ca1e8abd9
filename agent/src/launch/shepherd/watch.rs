//! What does a shepherd do from the fork until nothing of the job is left?
//!
//! It waits in one place for everything: its children, the job's first reports, the agent's
//! orders, the group's emptiness and the clock. What follows from each is decided by
//! [`Ending`]; this module carries it out.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use penstock_proto::v1;
use penstock_supervisor::ending::{Action, Ending, Input, Target, Terms, UNKILLABLE_SECS};
use penstock_supervisor::{EndCause, RunResult, Usage};
use penstock_vocab::{Millis, Signal, SignalSpec, Timestamp};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, WaitOptions};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::control::{self, Link, Report};
use super::{LaunchError, Names, Prepared, write_line};
use crate::launch::cgroup::{Container, Counted};
use crate::launch::lease::Lease;
use crate::launch::record::{News, Order};
use crate::sys::{boottime, local_time_text, signal_pid, wall_clock};

/// How often memory is sampled where the kernel does not limit it.
const SAMPLE: Duration = Duration::from_secs(1);
/// How often is looked for the last process where the kernel does not tell, and how often what
/// forks faster than it is killed is killed again.
const LOOK: Duration = Duration::from_millis(20);
/// How often the removal of an empty group is tried; its last process may be on its way out.
const REMOVAL_TRIES: u32 = 50;

/// What the shepherd waits with; made before the fork, after which nothing may fail.
pub(super) struct Waits {
    signals: SignalFd,
    timer: OwnedFd,
}

impl Waits {
    pub(super) fn new() -> io::Result<Self> {
        let timer = rustix::time::timerfd_create(
            TimerfdClockId::Boottime,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&SigSet::from_iter([NixSignal::SIGCHLD]), flags)?;
        Ok(Self { signals, timer })
    }
}

/// A started job.
pub(super) struct Watch {
    child: Pid,
    names: Names,
    ending: Ending,
    container: Container,
    removed: bool,
    killing: bool,
    wait_status: Option<i32>,
    launch_error: Option<LaunchError>,
    report: Option<OwnedFd>,
    stderr: Option<File>,
    signals: SignalFd,
    timer: OwnedFd,
    events: Option<File>,
    start: (Timestamp, Millis),
    counted: Counted,
    limit_bytes: u64,
    sampling: bool,
    oom_kills: u64,
    lease: Option<Lease>,
    /// Held until the record of the end is written.
    claim: File,
}

impl Watch {
    /// A job whose process is `child`, started just now.
    pub(super) fn new(
        child: Pid,
        launch: &v1::Launch,
        node: String,
        prepared: Prepared,
        (claim, report): (File, OwnedFd),
    ) -> Self {
        let start = (wall_clock(), boottime());
        let lease_until = prepared.lease.as_ref().map(|lease| lease.until(start.1));
        let Waits { signals, timer } = prepared.waits;
        Self {
            child,
            names: Names { job_id: launch.job_id, node },
            ending: Ending::new(start.1, Terms { lease_until, ..terms(launch) }),
            container: prepared.container,
            removed: false,
            killing: false,
            wait_status: None,
            launch_error: None,
            report: Some(report),
            stderr: None,
            signals,
            timer,
            events: None,
            start,
            counted: Counted::default(),
            limit_bytes: prepared.limits.memory_bytes,
            sampling: prepared.sample_memory,
            oom_kills: 0,
            lease: prepared.lease,
            claim,
        }
    }

    /// Waits for the end of the job. Gives the claim back with how it ended: who lets go of it
    /// before the record is written is taken for a shepherd that was lost.
    pub(super) fn run(mut self, link: &mut Link) -> (RunResult, File) {
        let mut armed = None;
        while !self.ending.is_done() {
            let deadline = self.ending.deadline();
            if deadline != armed {
                self.arm(deadline);
                armed = deadline;
            }
            // An interrupted or failed wait is one that ended early.
            let _early = self.wait(link);
            self.look_at_lease(link);
            self.hear_the_job(link);
            self.reap(link);
            for order in link.receive() {
                self.obey(order, link);
            }
            self.sample();
            self.look_whether_empty(link);
            self.feed(Input::Tick, link);
        }
        let result = self.result();
        (result, self.claim)
    }

    /// When the lease seems over, looks whether it was renewed.
    fn look_at_lease(&mut self, link: &mut Link) {
        let now = boottime();
        if let Some(lease) = &self.lease
            && self.ending.lease_until().is_some_and(|until| until <= now)
        {
            let until = lease.until(now);
            self.feed(Input::Lease { until }, link);
        }
    }

    fn wait(&self, link: &Link) -> rustix::io::Result<usize> {
        let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let own = [self.signals.as_fd(), self.timer.as_fd()];
        let report = self.report.as_ref().map(OwnedFd::as_fd);
        let mut fds: Vec<PollFd<'_>> =
            own.into_iter().chain(report).chain(link.fds()).map(readable).collect();
        if let Some(events) = self.events.as_ref().filter(|_| self.ending.wants_empty()) {
            fds.push(PollFd::from_borrowed_fd(events.as_fd(), PollFlags::PRI));
        }
        let timeout = self.timeout().and_then(|length| Timespec::try_from(length).ok());
        poll(&mut fds, timeout.as_ref())
    }

    /// How long at most to wait for what announces itself by no descriptor.
    fn timeout(&self) -> Option<Duration> {
        let looks = self.ending.wants_empty() && (self.killing || self.events.is_none());
        if looks { Some(LOOK) } else { self.sampling.then_some(SAMPLE) }
    }

    fn arm(&self, deadline: Option<Millis>) {
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

    fn feed(&mut self, input: Input, link: &mut Link) {
        for action in self.ending.on(boottime(), input) {
            self.perform(action, link);
        }
    }

    fn perform(&mut self, action: Action, link: &mut Link) {
        let done = match action {
            Action::Announce(cause) => {
                self.announce(cause);
                Ok(())
            }
            Action::Signal(signal, target) => self.signal(signal, target),
            Action::Freeze => self.container.set_frozen(true),
            Action::Thaw => self.container.set_frozen(false),
            Action::Kill => {
                self.killing = true;
                self.kill()
            }
            Action::Unkillable | Action::Done => Ok(()),
        };
        if let Err(error) = done {
            link.tell(News::Notice(format!(
                "{action:?} failed for job {}: {error}",
                self.names.job_id
            )));
        }
    }

    fn signal(&self, signal: Signal, target: Target) -> io::Result<()> {
        match target {
            Target::Shell => self.signal_child(signal),
            // Before it has entered its group, the job is only the child.
            Target::Everything if self.report.is_some() => self.signal_child(signal),
            Target::Everything => self.container.signal(signal, |_| true),
            Target::Steps => {
                let child = self.child;
                self.container.signal(signal, |pid| pid != child && is_of_a_step(pid))
            }
        }
    }

    fn signal_child(&self, signal: Signal) -> io::Result<()> {
        if self.wait_status.is_some() { Ok(()) } else { signal_pid(self.child, signal) }
    }

    fn kill(&self) -> io::Result<()> {
        self.signal_child(Signal::KILL)?;
        if self.removed { Ok(()) } else { self.container.kill() }
    }

    fn announce(&self, cause: EndCause) {
        let tail = match cause {
            EndCause::Cancelled | EndCause::Other => "",
            EndCause::TimeLimit => " DUE TO TIME LIMIT",
            EndCause::NodeFail => " DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS",
            EndCause::Requeue | EndCause::RequeueHold => " DUE TO JOB REQUEUE",
        };
        let Names { job_id, node } = &self.names;
        let at = local_time_text(wall_clock());
        self.tell_user(&format!("*** JOB {job_id} ON {node} CANCELLED AT {at}{tail} ***"));
    }

    fn tell_user(&self, line: &str) {
        let Some(stderr) = &self.stderr else { return };
        // A pipe that nobody reads must not hold up the end of the job.
        let mut ready = [PollFd::new(stderr, PollFlags::OUT)];
        if matches!(poll(&mut ready, Some(&Timespec::default())), Ok(1)) {
            write_line(stderr, &format!("slurmstepd: error: {line}"));
        }
    }

    /// Takes the reports that come until the script runs.
    fn hear_the_job(&mut self, link: &mut Link) {
        while let Some(report) = &self.report {
            match control::hear(report) {
                Ok(Some((Report::Output, file))) => self.stderr = file.map(File::from),
                Ok(Some((Report::Notice(text), _))) => {
                    link.tell(News::Notice(text));
                }
                Ok(Some((Report::Failed(error), _))) => self.launch_error = Some(error),
                Ok(None) => {
                    self.report = None;
                    if self.launch_error.is_none() && self.wait_status.is_none() {
                        link.tell(News::Started(self.start.0.as_millis()));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.report = None,
            }
        }
    }

    /// Takes in every child that ended, orphans of the job among them.
    fn reap(&mut self, link: &mut Link) {
        // Cleared first: a signal that comes while we reap is seen next time.
        while let Ok(Some(_)) = self.signals.read_signal() {}
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid == self.child {
                self.wait_status = Some(status.as_raw());
                self.hear_the_job(link);
                self.count();
                self.removed = self.container.remove();
                if !self.removed {
                    self.events = self.container.events_path().and_then(|p| File::open(p).ok());
                }
                self.feed(Input::Exited { empty: self.removed }, link);
            }
        }
    }

    fn look_whether_empty(&mut self, link: &mut Link) {
        if !self.ending.wants_empty() {
            return;
        }
        if self.is_empty() {
            self.feed(Input::Empty, link);
        } else if self.killing {
            // Whatever forked between the listing and the signal.
            let _next_time = self.kill();
        }
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

    fn obey(&mut self, order: Order, link: &mut Link) {
        let input = match order {
            Order::Terminate(order) => Input::Terminate {
                cause: cause(order.cause()),
                kill_wait_secs: order.kill_wait_secs,
            },
            Order::SetLimit(order) => Input::SetLimit {
                limit_secs: Some(order.time_limit_secs).filter(|&secs| secs > 0),
                serial: order.limit_serial,
            },
            Order::Suspend(order) if order.suspend => Input::Suspend,
            Order::Suspend(_) => Input::Resume,
            Order::Signal(order) => {
                let signal = u8::try_from(order.signal).ok().and_then(Signal::new);
                if let Some(signal) = signal {
                    let target = match (order.batch_only, order.full) {
                        (true, _) => Target::Shell,
                        (false, true) => Target::Everything,
                        // Slurm spares the batch shell, except from this one.
                        _ if signal == Signal::KILL => Target::Everything,
                        _ => Target::Steps,
                    };
                    self.perform(Action::Signal(signal, target), link);
                }
                return;
            }
        };
        self.feed(input, link);
    }

    /// Where no controller limits memory: measures it, and kills a job that has too much.
    fn sample(&mut self) {
        if !self.sampling || self.wait_status.is_some() {
            return;
        }
        let bytes = self.container.resident_bytes();
        self.counted.peak_bytes = self.counted.peak_bytes.max(bytes);
        if self.limit_bytes > 0 && bytes > self.limit_bytes && self.oom_kills == 0 {
            self.oom_kills = 1;
            let _repeated = self.kill();
        }
    }

    /// Reads what the job used, as long as its group is there.
    fn count(&mut self) {
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
        if self.limit_bytes > 0 && !self.sampling {
            self.oom_kills = self.container.oom_kills();
        }
    }

    fn result(&mut self) -> RunResult {
        let end = boottime();
        if !self.removed {
            self.count();
            self.remove_group();
        }
        if self.oom_kills > 0 {
            self.tell_of_memory();
        }
        let error = self.launch_error.take();
        RunResult {
            start: self.start.0,
            end: wall_clock(),
            wait_status: self.wait_status.unwrap_or(libc::SIGKILL),
            out_of_memory: self.oom_kills > 0,
            time_limit: self.ending.cause() == Some(EndCause::TimeLimit),
            unkillable: self.ending.unkillable(),
            node_fault: error.as_ref().is_some_and(|error| error.node_fault),
            launch_error: error.map_or_else(String::new, |error| error.text),
            usage: Usage {
                user_cpu_usec: self.counted.user_usec,
                system_cpu_usec: self.counted.system_usec,
                peak_memory_bytes: self.counted.peak_bytes,
                memory_limit_bytes: self.limit_bytes,
            },
            elapsed: self.ending.elapsed(end),
            lost: false,
            fenced: self.ending.fenced(),
        }
    }

    fn remove_group(&self) {
        if self.ending.unkillable() {
            return;
        }
        for _ in 0..REMOVAL_TRIES {
            if self.container.remove() {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }

    fn tell_of_memory(&self) {
        let Self { names: Names { job_id, node }, oom_kills, .. } = self;
        let plural = if *oom_kills == 1 { "" } else { "s" };
        self.tell_user(&format!(
            "Detected {oom_kills} oom_kill event{plural} in StepId={job_id}.batch. Some of the \
             step tasks have been OOM Killed."
        ));
        self.tell_user(&format!(
            "job {job_id} on {node}: peak memory {} MiB, limit {} MiB; ask for more with --mem",
            self.counted.peak_bytes >> 20,
            self.limit_bytes >> 20
        ));
    }
}

fn terms(launch: &v1::Launch) -> Terms {
    let spec = launch.job.as_ref().and_then(|job| job.spec.as_ref());
    let warning = spec.and_then(|spec| spec.signal).and_then(|request| {
        Some(SignalSpec {
            signal: Signal::new(u8::try_from(request.signal).ok()?)?,
            lead_secs: u16::try_from(request.seconds_before).unwrap_or(u16::MAX),
            batch_only: request.batch_only,
            reservation: false,
        })
    });
    Terms {
        limit_secs: Some(launch.time_limit_secs).filter(|&secs| secs > 0),
        limit_serial: launch.limit_serial,
        kill_wait_secs: launch.kill_wait_secs,
        unkillable_secs: match launch.unkillable_secs {
            0 => UNKILLABLE_SECS,
            secs => u64::from(secs),
        },
        warning,
        lease_until: None,
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

/// Whether a process was started by a step: steps put their number into its environment.
fn is_of_a_step(pid: Pid) -> bool {
    let block = std::fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero()));
    block.is_ok_and(|block| {
        block.split(|&byte| byte == 0).any(|entry| entry.starts_with(b"SLURM_STEP_ID="))
    })
}
