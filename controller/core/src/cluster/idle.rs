//! What becomes of a run whose GPUs are idle?
//!
//! Whoever sees the samples says what comes next; here it is checked against the rules and against what
//! was said before, written down, told to the job, and done. What was seen is believed.

use std::sync::Arc;

use super::Cluster;
use super::control::MAX_CHANGES;
use crate::command::{Effect, IdleLine, MAX_TARGETS, Reply, Target, TargetResult};
use crate::model::{EndCause, IdleAction, IdleNote, IdleRule, Job, Run, RunStage, idle_rule};
use crate::policy::idle::{IdleStep, follows, length};
use crate::refusal::Refusal;

impl Cluster {
    /// Takes what was decided; lines that no longer hold are refused one by one.
    pub(super) fn idle(&mut self, lines: Vec<IdleLine>) -> Result<Reply, Refusal> {
        if lines.len() > MAX_TARGETS {
            return Err(Refusal::TooManyItems { got: lines.len(), limit: MAX_TARGETS });
        }
        let got = lines.len();
        let results = lines.into_iter().enumerate().map(|(done, line)| TargetResult {
            target: Target::Job(line.job),
            refusal: if self.changed.len() > MAX_CHANGES {
                Some(Refusal::TooManyItems { got, limit: done })
            } else {
                self.idle_one(&line).err()
            },
        });
        Ok(Reply::Targets(results.collect()))
    }

    fn idle_one(&mut self, line: &IdleLine) -> Result<(), Refusal> {
        let job = self.jobs.get(&line.job).cloned().ok_or(Refusal::InvalidJobId(line.job))?;
        let run = job.active_run().cloned().ok_or(Refusal::NotRunning(job.id))?;
        if run.attempt != line.attempt || matches!(run.stage, RunStage::Ending(_)) {
            return Err(Refusal::StalePlan("the run is another one, or ends"));
        }
        let config = Arc::clone(&self.config);
        let rule = idle_rule(&config.idle, &job, &run).filter(|rule| rule.name == line.rule);
        let Some(rule) = rule else {
            // What was said under a rule that is gone is taken back.
            if line.step == IdleStep::Clear && run.idle.is_some() {
                self.set_idle(&job, &run, None);
                return Ok(());
            }
            return Err(Refusal::StalePlan("that rule does not count for the job"));
        };
        if !follows(rule, run.idle.as_ref(), line.step, self.now) {
            return Err(Refusal::StalePlan("it was said or done already"));
        }
        match line.step {
            IdleStep::Clear => self.set_idle(&job, &run, None),
            IdleStep::Warn(number) => self.warn_idle(&job, &run, rule, (number, line)),
            IdleStep::Act => self.act_on_idle(&job, &run, rule, line),
        }
        Ok(())
    }

    fn set_idle(&mut self, job: &Job, run: &Run, note: Option<IdleNote>) {
        let mut job = job.clone();
        job.run = Some(Arc::new(Run { idle: note, ..run.clone() }));
        self.put_job(job);
    }

    fn warn_idle(
        &mut self,
        job: &Arc<Job>,
        run: &Arc<Run>,
        rule: &IdleRule,
        (number, line): (u32, &IdleLine),
    ) {
        let since = run.idle.as_ref().map_or(self.now, |note| note.since);
        let note = IdleNote {
            rule: rule.name.clone(),
            warned: number,
            since,
            act_at: since.plus_secs(rule.grace_secs.into()),
            action: rule.action,
            dry_run: rule.dry_run,
            evidence: line.evidence.clone(),
            lost_ms: line.lost_ms,
            acted: None,
            freed_ms: 0,
        };
        let left = note.act_at.since(self.now).0;
        let what = match rule.action {
            IdleAction::Notify => "give them back by".to_owned(),
            IdleAction::Requeue if !job.may_requeue() => "give them back by".to_owned(),
            IdleAction::Requeue => format!("the job is requeued in {}; or end it by", length(left)),
            IdleAction::Cancel => format!("the job is cancelled in {}; or end it by", length(left)),
            IdleAction::Preemptible => {
                format!("other jobs may take its place in {}; or end it by", length(left))
            }
        };
        let text = format!(
            "job {}: {} (notice {number} of {}); {what}: scancel {}. If that is meant, submit with \
             --idle-ok=REASON",
            job.id, line.evidence, rule.warnings, job.id
        );
        self.set_idle(job, run, Some(note));
        self.tell_idle(job, run, rule, &text);
    }

    /// The job's own words, or the log's where it is only tried out.
    fn tell_idle(&mut self, job: &Job, run: &Run, rule: &IdleRule, text: &str) {
        if rule.dry_run {
            let text = format!("idle_reclaim {} (dry run, nobody is told): {text}", rule.name);
            self.effects.push(Effect::Warn(text.into()));
            return;
        }
        self.notice(job, run, text.into());
    }

    fn act_on_idle(&mut self, job: &Arc<Job>, run: &Arc<Run>, rule: &IdleRule, line: &IdleLine) {
        let Some(before) = run.idle.clone() else { return };
        let ends = match rule.action {
            IdleAction::Requeue if job.may_requeue() => Some(EndCause::Requeue),
            IdleAction::Cancel => Some(EndCause::Cancelled),
            IdleAction::Requeue | IdleAction::Notify | IdleAction::Preemptible => None,
        };
        let left = job.ends_by(self.now).map_or(0, |end| end.since(self.now).0);
        let gpus = u64::from(run.whole_gpus().unwrap_or(0));
        let note = IdleNote {
            evidence: line.evidence.clone(),
            lost_ms: line.lost_ms,
            acted: Some(self.now),
            freed_ms: if ends.is_some() { left.saturating_mul(gpus) } else { 0 },
            ..before
        };
        let done = match (rule.action, ends) {
            (IdleAction::Requeue, Some(_)) => "requeued",
            (_, Some(_)) => "cancelled",
            (IdleAction::Preemptible, None) => "may be preempted from now on",
            (_, None) => "may not be requeued and goes on",
        };
        let text = format!("job {} {done}: {} (idle_reclaim {})", job.id, line.evidence, rule.name);
        let mut run = (**run).clone();
        run.idle = Some(note);
        let mut changed = (**job).clone();
        match ends.filter(|_| !rule.dry_run) {
            Some(cause) => {
                run.end_reason = format!("{} (idle_reclaim {})", line.evidence, rule.name).into();
                self.tell_idle(job, &run, rule, &text);
                let run = Arc::new(run);
                self.end_run_soon(&mut changed, &run, cause);
            }
            None => {
                self.tell_idle(job, &run, rule, &text);
                changed.run = Some(Arc::new(run));
                self.effects.push(Effect::Schedule);
            }
        }
        self.put_job(changed);
    }
}
