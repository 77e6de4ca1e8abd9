//! What does the shepherd of a batch script do from the fork until nothing of the job is left?
//!
//! It waits in one place for everything: its children, the job's first reports, the agent's
//! orders, the group's emptiness and the clock. What follows from each is decided by
//! [`penstock_supervisor::ending::Ending`]; this module carries it out.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use penstock_proto::v1;
use penstock_supervisor::ending::{Action, Input, Target, Terms};
use penstock_supervisor::{EndCause, RunResult};
use penstock_vocab::{Signal, SignalSpec};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Pid;
use rustix::time::Timespec;

use super::charge::{self, Charge};
use super::child::AfterScript;
use super::control::{self, Link, Report};
use super::{LaunchError, Names, Prepared, write_line};
use crate::launch::record::{News, Order};
use crate::sys::{boottime, local_time_text, signal_pid, wall_clock};

/// A started job.
pub(super) struct Watch {
    child: Pid,
    names: Names,
    charge: Charge,
    wait_status: Option<i32>,
    launch_error: Option<LaunchError>,
    report: Option<OwnedFd>,
    stderr: Option<File>,
    after: Option<AfterScript>,
    /// The process that runs the epilog of the script.
    epilog: Option<Pid>,
}

impl Watch {
    /// A job whose process is `child`, started just now.
    pub(super) fn new(
        child: Pid,
        launch: &v1::Launch,
        (names, after): (Names, Option<AfterScript>),
        prepared: Prepared,
        (claim, report): (File, OwnedFd),
    ) -> Self {
        let mut charge = Charge::new(prepared.ready, terms(launch), launch.measure_secs, claim);
        charge.meter.add(0, child);
        Self {
            child,
            names,
            charge,
            wait_status: None,
            launch_error: None,
            report: Some(report),
            stderr: None,
            after,
            epilog: None,
        }
    }

    /// Waits for the end of the job. Gives the claim back with how it ended: who lets go of it
    /// before the record is written is taken for a shepherd that was lost.
    pub(super) fn run(mut self, link: &mut Link) -> (RunResult, File) {
        while !self.charge.ending.is_done() {
            self.charge.arm();
            // An interrupted or failed wait is one that ended early.
            let _early = self.wait(link);
            if let Some(input) = self.charge.look_at_lease() {
                self.feed(input, link);
            }
            self.hear_the_job(link);
            self.reap(link);
            for order in link.receive() {
                self.obey(&order, link);
            }
            if self.wait_status.is_none() {
                if self.charge.sample() {
                    let _repeated = self.kill();
                }
                self.charge.measure(false, link);
            }
            if let Some(input) = self.charge.look_whether_empty() {
                self.feed(input, link);
            }
            self.feed(Input::Tick, link);
        }
        let result = self.result();
        (result, self.charge.into_claim())
    }

    fn wait(&self, link: &Link) -> rustix::io::Result<usize> {
        let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let report = self.report.as_ref().map(std::os::fd::AsFd::as_fd);
        let mut fds: Vec<PollFd<'_>> =
            self.charge.fds().into_iter().chain(report).chain(link.fds()).map(readable).collect();
        if let Some(events) = self.charge.events() {
            fds.push(PollFd::from_borrowed_fd(events, PollFlags::PRI));
        }
        let timeout = self.charge.timeout().and_then(|length| Timespec::try_from(length).ok());
        poll(&mut fds, timeout.as_ref())
    }

    fn feed(&mut self, input: Input, link: &mut Link) {
        for action in self.charge.ending.on(boottime(), input) {
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
            Action::Freeze => self.charge.container.set_frozen(true),
            Action::Thaw => self.charge.container.set_frozen(false),
            Action::Kill => self.kill(),
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
            Target::Everything => self.charge.container.signal(signal, |_| true),
            Target::Steps => {
                let child = self.child;
                self.charge.container.signal(signal, |pid| pid != child && is_of_a_step(pid))
            }
        }
    }

    fn signal_child(&self, signal: Signal) -> io::Result<()> {
        if self.wait_status.is_some() { Ok(()) } else { signal_pid(self.child, signal) }
    }

    fn kill(&mut self) -> io::Result<()> {
        self.signal_child(Signal::KILL)?;
        self.charge.kill()
    }

    fn announce(&self, cause: EndCause) {
        let tail = charge::why(cause);
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
                        link.tell(News::Started(self.charge.started().as_millis()));
                        self.charge.meter.start(boottime());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.report = None,
            }
        }
    }

    /// Takes in every child that ended, orphans of the job among them.
    fn reap(&mut self, link: &mut Link) {
        self.charge.clear_signals();
        while let Some((pid, status)) = self.charge.reap() {
            if pid == self.child {
                self.wait_status = Some(status);
                self.hear_the_job(link);
                self.epilog =
                    self.after.take().filter(|_| self.launch_error.is_none()).and_then(|after| {
                        after.start(&self.charge.container, self.stderr.as_ref())
                    });
                if self.epilog.is_none() {
                    let exited = self.charge.exited();
                    self.feed(exited, link);
                }
            } else if self.epilog == Some(pid) {
                self.epilog = None;
                let exited = self.charge.exited();
                self.feed(exited, link);
            }
        }
    }

    fn obey(&mut self, order: &Order, link: &mut Link) {
        if let Some(input) = charge::input_of(order) {
            self.feed(input, link);
        } else if let Order::Measure(_) = order {
            self.charge.measure(true, link);
        } else if let Order::Notice(notice) = order {
            self.tell_user(&notice.text);
        } else if let Order::Signal(order) = order
            && let Some(signal) = u8::try_from(order.signal).ok().and_then(Signal::new)
        {
            let target = match (order.batch_only, order.full) {
                (true, _) => Target::Shell,
                (false, true) => Target::Everything,
                // Slurm spares the batch shell, except from this one.
                _ if signal == Signal::KILL => Target::Everything,
                _ => Target::Steps,
            };
            self.perform(Action::Signal(signal, target), link);
        }
    }

    fn result(&mut self) -> RunResult {
        self.charge.close();
        if self.charge.oom_kills > 0 {
            self.tell_of_memory();
        }
        let status = self.wait_status.unwrap_or(libc::SIGKILL);
        self.charge.result(status, self.launch_error.take())
    }

    fn tell_of_memory(&self) {
        let Names { job_id, node } = &self.names;
        let oom_kills = self.charge.oom_kills;
        let plural = if oom_kills == 1 { "" } else { "s" };
        self.tell_user(&format!(
            "Detected {oom_kills} oom_kill event{plural} in StepId={job_id}.batch. Some of the \
             step tasks have been OOM Killed."
        ));
        self.tell_user(&format!("job {job_id} on {node}: {}", self.charge.advice()));
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
        unkillable_secs: charge::unkillable_secs(launch.unkillable_secs),
        warning,
        lease_until: None,
    }
}

/// Whether a process was started by a step: steps put their number into its environment.
fn is_of_a_step(pid: Pid) -> bool {
    let block = std::fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero()));
    block.is_ok_and(|block| {
        block.split(|&byte| byte == 0).any(|entry| entry.starts_with(b"SLURM_STEP_ID="))
    })
}
