//! Signals that srun itself gets.

use super::{Session, TWICE_MS, To};

impl Session {
    /// A signal for this process.
    pub(crate) fn on_signal(&mut self, signal: i32, now_ms: u64) {
        match signal {
            libc::SIGINT => self.on_interrupt(now_ms),
            libc::SIGQUIT => {
                self.say("Quit".to_owned());
                self.force(now_ms);
            }
            libc::SIGTERM | libc::SIGHUP => self.force(now_ms),
            other if !self.habits.looks_on => self.send_signal(To::All, other),
            _ => {}
        }
    }

    /// As Slurm's srun: one interrupt tells where tasks stand, two within a second end them.
    fn on_interrupt(&mut self, now_ms: u64) {
        if self.habits.looks_on {
            self.gave_up = true;
            return;
        }
        let last = self.last_interrupt_ms.replace(now_ms);
        let again = last.is_some_and(|last| now_ms.saturating_sub(last) <= TWICE_MS);
        if again || self.habits.quit_on_interrupt {
            self.cancelled = true;
            if !self.aborted {
                self.forward_interrupt();
            }
            self.force(now_ms);
        } else if self.habits.disable_status {
            self.forward_interrupt();
        } else {
            self.say(
                if self.aborted {
                    "interrupt (abort already in progress)"
                } else {
                    "interrupt (one more within 1 sec to abort)"
                }
                .to_owned(),
            );
            self.report();
        }
    }

    fn forward_interrupt(&mut self) {
        self.say(format!("sending Ctrl-C to StepId={}", self.layout.name));
        self.send_signal(To::All, libc::SIGINT);
    }

    fn force(&mut self, now_ms: u64) {
        if self.habits.looks_on {
            self.gave_up = true;
        } else if self.aborted {
            self.say("job abort in progress".to_owned());
            self.send_signal(To::All, libc::SIGKILL);
        } else {
            self.say("forcing job termination".to_owned());
            self.abort(now_ms);
        }
    }
}
