//! One option over what is there.

use super::super::table::Key;
use super::words;
use super::{Extras, Order};
use crate::options::Given;
use crate::sbatch::request::{BadValue, Source};
use crate::sbatch::table::Key as J;

impl Order {
    /// Reads one option over what is there.
    ///
    /// # Errors
    /// When the value is none, or the option is not built.
    pub(super) fn apply(&mut self, given: &Given<Key>, source: Source) -> Result<(), BadValue> {
        let value = given.value.as_deref();
        let text = value.unwrap_or_default();
        match given.key {
            Key::Job(key) => {
                if key == J::JobName && source == Source::CommandLine {
                    self.extras.step_name = Some(text.to_owned());
                }
                return self.request.apply(&Given { key, value: given.value.clone() }, source);
            }
            Key::Unbuilt(name) => return Err(not_built(name)),
            // A whole node in a job of its own, and its own CPUs in a step.
            Key::Exclusive => {
                self.extras.exact = true;
                let key = J::Exclusive;
                return self.request.apply(&Given { key, value: given.value.clone() }, source);
            }
            Key::Hint => return self.apply_hint(text),
            _ => {}
        }
        self.told(given.key, value);
        if self.extras.apply_text(given.key, text) || self.extras.apply_switch(given.key) {
            return Ok(());
        }
        self.extras.apply_checked(given.key, value)
    }

    /// For `-v`.
    fn told(&mut self, key: Key, value: Option<&str>) {
        let own = super::super::table::table(super::Command::Srun).into_iter();
        let all = own.chain(super::super::table::table(super::Command::Salloc));
        if let Some(option) = all.into_iter().find(|option| option.key == key) {
            self.request.told.push((option.long, value.unwrap_or("set").to_owned()));
        }
    }

    /// What a hint would change is not built; the one that changes nothing is fine.
    fn apply_hint(&self, text: &str) -> Result<(), BadValue> {
        match text {
            "multithread" => {}
            "nomultithread" | "compute_bound" | "memory_bound" => {
                return Err(not_built(&format!("hint={text}")));
            }
            _ => {
                let line = format!("unrecognized --hint argument \"{text}\", see --hint=help");
                return Err(BadValue(vec![line, "Invalid --hint specification".to_owned()]));
            }
        }
        Ok(())
    }
}

impl Extras {
    /// Options whose value is taken as it is; false for the others.
    fn apply_text(&mut self, key: Key, text: &str) -> bool {
        let place = match key {
            Key::TaskEpilog => &mut self.task_epilog,
            Key::TaskProlog => &mut self.task_prolog,
            Key::Error => self.error.get_or_insert_default(),
            Key::Input => self.input.get_or_insert_default(),
            Key::Output => self.output.get_or_insert_default(),
            _ => return false,
        };
        text.clone_into(place);
        true
    }

    /// Options without a value; false for the others.
    fn apply_switch(&mut self, key: Key) -> bool {
        match key {
            Key::Overcommit => self.overcommit = true,
            Key::DisableStatus => self.disable_status = true,
            Key::Exact => (self.exact, self.whole) = (true, false),
            Key::Label => self.label = true,
            Key::MultiProg => self.multi_prog = true,
            Key::Overlap => self.overlap = true,
            Key::Pty => self.pty = true,
            Key::QuitOnInterrupt => self.quit_on_interrupt = true,
            Key::Unbuffered => self.unbuffered = true,
            Key::Whole => (self.exact, self.whole) = (false, true),
            Key::Bell => self.bell = true,
            Key::NoBell => self.bell = false,
            Key::NoShell => self.no_shell = true,
            _ => return false,
        }
        true
    }

    /// Options whose value has a form of its own.
    fn apply_checked(&mut self, key: Key, value: Option<&str>) -> Result<(), BadValue> {
        let text = value.unwrap_or_default();
        match key {
            // Launches take no threads here; the number is checked and means nothing.
            Key::Threads => drop(count("threads", text)?),
            Key::Jobid => self.jobid = Some(count("jobid", text)?),
            Key::Relative => self.relative = Some(number("relative", text)?),
            Key::Wait => self.wait_secs = number("wait", text)?.into(),
            Key::Distribution => self.distribution = words::distribution(text)?,
            Key::CpuBind => self.cpu_bind = words::cpu_bind(text)?,
            Key::Mpi => self.mpi = words::mpi(text)?,
            Key::Immediate => {
                self.immediate = Some(value.map_or(Ok(0), |text| number("immediate", text))?);
            }
            Key::KillOnBadExit => {
                let flag = value.map_or(Ok(1), |text| number("kill-on-bad-exit", text))?;
                self.kill_on_bad_exit = flag != 0;
            }
            Key::NoKill => self.no_kill = words::no_kill(value)?,
            Key::KillCommand => self.kill_command = Some(words::kill_command(value)?),
            _ => {}
        }
        Ok(())
    }
}

pub(super) fn not_built(name: &str) -> BadValue {
    BadValue(vec![format!("--{name} is not built yet")])
}

pub(super) fn bad(name: &str, error: &dyn std::error::Error) -> BadValue {
    BadValue(vec![error.to_string(), format!("Invalid --{name} specification")])
}

/// A number from 0 up.
fn number(name: &str, text: &str) -> Result<u32, BadValue> {
    text.trim()
        .parse()
        .map_err(|_| BadValue(vec![format!("Invalid numeric value \"{text}\" for --{name}.")]))
}

/// A number from 1 up.
fn count(name: &str, text: &str) -> Result<u32, BadValue> {
    match number(name, text)? {
        0 => Err(BadValue(vec![format!("Invalid numeric value \"{text}\" for --{name}.")])),
        number => Ok(number),
    }
}
