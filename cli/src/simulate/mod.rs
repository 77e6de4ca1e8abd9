//! `penstock simulate`: how would another policy, or another cluster, have served these jobs?
//!
//! A trace is played through the very core and scheduler of a live cluster in virtual time; there is
//! no other scheduling code here. The same trace, cluster and policy give the same bytes.

mod drive;
mod fragmentation;
mod job;
mod machine;
mod mig;
mod options;
mod policy;
mod progress;
mod read;
mod report;

use std::path::Path;

use penstock_core::model::Scheduling;

use self::job::{Ask, Raw, Unit, Workload};
use self::machine::{Machine, MachineError};
use self::policy::Policy;
use self::progress::Progress;
use self::report::{Figures, Report, Run, Source};
use crate::errors::{chain, error};
use crate::output::write_bytes;

pub(crate) use self::options::Simulate;

const PROGRAM: &str = "penstock simulate";
const FAILED: i32 = 1;

/// Why a replay came to nothing.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Read(#[from] read::ReadError),
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error(transparent)]
    Policy(#[from] penstock_controller::config::ConfigError),
    #[error(transparent)]
    Replay(#[from] drive::ReplayError),
    /// Every record was dropped.
    #[error("{0}: no job is left to replay; {1}")]
    NoJob(String, String),
    #[error("cannot write {path}")]
    Write { path: String, source: std::io::Error },
}

impl Simulate {
    /// Replays, prints, and gives the exit status.
    pub(crate) fn run(self) -> i32 {
        match self.replay() {
            Ok(text) => {
                write_bytes(text.as_bytes());
                0
            }
            Err(problem) => {
                error(PROGRAM, &chain(&problem));
                FAILED
            }
        }
    }

    fn replay(&self) -> Result<String, Problem> {
        let machine = Machine::load(&self.cluster)?;
        let policies = self.policies(&machine.config.scheduling)?;
        let (source, raw) = self.read()?;
        let workload = self.workload(&source, &machine, raw)?;
        let mut runs = Vec::with_capacity(policies.len());
        for (policy, mut scheduling) in policies {
            let preempts = policy::leave_out_preemption(&mut scheduling);
            let mut progress = Progress::new(&policy, workload.jobs.len());
            let mut watch = |done| progress.at(done);
            let outcome = drive::replay(&workload, &machine, &scheduling, &mut watch)?;
            let figures = Figures::new(&workload, &outcome, machine.capacity(workload.unit));
            runs.push(Run { policy, preempts, outcome, figures });
        }
        let report =
            Report { source: &source, machine: &machine, workload: &workload, runs: &runs };
        if let Some(path) = &self.dump {
            write(path, &report::dump(&workload, &runs[0].outcome))?;
        }
        if let Some(path) = &self.plot {
            write(path, &report::plot(&report))?;
        }
        Ok(if self.json { report::json(&report) } else { report::table(&report) })
    }

    /// The policies by name, the one to compare with last.
    fn policies(&self, base: &Scheduling) -> Result<Vec<(String, Scheduling)>, Problem> {
        let own = (self.policy.is_none() && *base != Scheduling::default())
            .then(|| ("cluster".to_owned(), base.clone()));
        let first = match own {
            Some(own) => own,
            None => named(self.policy.as_ref().unwrap_or(&Policy::Default), base)?,
        };
        let second = self.compare.as_ref().map(|policy| named(policy, base)).transpose()?;
        Ok(std::iter::once(first).chain(second).collect())
    }

    fn read(&self) -> Result<(Source, Raw), Problem> {
        let Some(path) = &self.trace else {
            let name = "accounting".to_owned();
            return Ok((Source { name, format: None, guessed: false }, read::read_history()?));
        };
        let trace = read::read_trace(path, self.format)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok((Source { name, format: Some(trace.format), guessed: trace.guessed }, trace.raw))
    }

    fn workload(
        &self,
        source: &Source,
        machine: &Machine,
        mut raw: Raw,
    ) -> Result<Workload, Problem> {
        let pods = raw.records.iter().any(|record| matches!(record.ask, Ask::Pod(_)));
        if pods && machine.units {
            return Err(MachineError::PodsOnUnits.into());
        }
        let gpus = raw.records.iter().any(|record| record.ask.size(Unit::Gpu) > 0);
        machine.cut(&mut raw);
        let unit = if gpus { Unit::Gpu } else { Unit::Cpu };
        let most = self.jobs.map(|most| usize::try_from(most).unwrap_or(usize::MAX));
        let capacity = machine.capacity(unit);
        let workload = job::workload(raw, unit, capacity, self.overrun, most);
        if workload.jobs.is_empty() {
            let counts = &workload.counts;
            let why = format!(
                "of {} records {} were not understood, {} never ran, {} have no size, {} are larger \
                 than {capacity} units",
                counts.records, counts.broken, counts.no_run, counts.no_size, counts.too_large
            );
            return Err(Problem::NoJob(source.name.clone(), why));
        }
        Ok(workload)
    }
}

fn named(policy: &Policy, base: &Scheduling) -> Result<(String, Scheduling), Problem> {
    Ok((policy.name(), policy.scheduling(base)?))
}

fn write(path: &Path, text: &str) -> Result<(), Problem> {
    std::fs::write(path, text)
        .map_err(|source| Problem::Write { path: path.display().to_string(), source })
}
