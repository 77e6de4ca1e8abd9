//! What did a job use, its batch script and all its steps together?

use penstock_proto::v1;

/// CPU time and memory of a job. What is `None` is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Used {
    /// CPU time, microseconds.
    pub(super) cpu_usec: Option<u64>,
    /// Highest memory of a part, all its nodes together, bytes: parts that ran at the same time may
    /// have had more.
    pub(super) memory_bytes: Option<u64>,
    /// Several parts had memory.
    pub(super) estimated: bool,
}

impl Used {
    /// Of a run: what its records say, and of one that goes on what its parts use now.
    pub(super) fn of(info: &v1::JobInfo, run: &v1::Run, live: &[v1::StatPart]) -> Self {
        let mut used = Self::default();
        let batch: Vec<&v1::Usage> = run.usage.iter().filter(|_| run.end_ms != 0).collect();
        used.add(&batch);
        let steps = info.steps.iter().filter(|step| step.attempt == run.attempt);
        for step in steps {
            let results = step.shares.iter().filter_map(|share| share.result.as_ref());
            let parts: Vec<&v1::Usage> =
                results.filter_map(|result| result.usage.as_ref()).collect();
            used.add(&parts);
        }
        let id = info.job.as_ref().map_or(0, |job| job.id);
        let running = live.iter().filter(|part| part.job_id == id && part.attempt == run.attempt);
        for part in running {
            let parts: Vec<&v1::Usage> =
                part.nodes.iter().filter_map(|node| node.usage.as_ref()).collect();
            used.add(&parts);
        }
        used
    }

    /// Takes in one part, with what each of its nodes says.
    fn add(&mut self, nodes: &[&v1::Usage]) {
        let cpu = |usage: &&v1::Usage| usage.user_cpu_usec.saturating_add(usage.system_cpu_usec);
        let cpu: u64 = nodes.iter().map(cpu).fold(0, u64::saturating_add);
        let memory = nodes.iter().map(|usage| usage.peak_memory_bytes);
        let memory = memory.fold(0, u64::saturating_add);
        if cpu > 0 || memory > 0 {
            self.cpu_usec = Some(self.cpu_usec.unwrap_or(0).saturating_add(cpu));
        }
        if memory > 0 {
            self.estimated |= self.memory_bytes.is_some();
            self.memory_bytes = self.memory_bytes.max(Some(memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(cpu: u64, memory: u64) -> v1::Usage {
        v1::Usage { user_cpu_usec: cpu, peak_memory_bytes: memory, ..v1::Usage::default() }
    }

    #[test]
    fn steps_count_and_so_does_what_runs() {
        let part = |cpu, memory| v1::StepShare {
            result: Some(v1::RunResult {
                usage: Some(usage(cpu, memory)),
                ..v1::RunResult::default()
            }),
            ..v1::StepShare::default()
        };
        let step = |attempt, shares| v1::Step { attempt, shares, ..v1::Step::default() };
        let info = v1::JobInfo {
            job: Some(v1::Job { id: 4, ..v1::Job::default() }),
            // One of an earlier run.
            steps: vec![
                step(1, vec![part(5, 100), part(5, 200)]),
                step(0, vec![part(1_000, 9_999)]),
            ],
            ..v1::JobInfo::default()
        };
        let mut run =
            v1::Run { attempt: 1, end_ms: 1, usage: Some(usage(7, 250)), ..v1::Run::default() };
        let expect = Used { cpu_usec: Some(17), memory_bytes: Some(300), estimated: true };
        assert_eq!(Used::of(&info, &run, &[]), expect);
        run.end_ms = 0;
        let live = v1::StatPart {
            job_id: 4,
            attempt: 1,
            nodes: vec![v1::StatNode { usage: Some(usage(3, 400)), ..v1::StatNode::default() }],
            ..v1::StatPart::default()
        };
        let expect = Used { cpu_usec: Some(13), memory_bytes: Some(400), estimated: true };
        assert_eq!(Used::of(&info, &run, std::slice::from_ref(&live)), expect);
        assert_eq!(Used::of(&v1::JobInfo::default(), &run, &[live]), Used::default());
    }
}
