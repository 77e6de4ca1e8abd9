//! How is the answer about one job laid out?

use penstock_proto::v1;
use penstock_vocab::elapsed_short;

use crate::listing::{Clock, push_printable};

/// Writes points in time, and how far off they are.
pub(crate) struct TimeWords<'c> {
    pub(crate) clock: &'c Clock,
}

impl TimeWords<'_> {
    /// The time; `unknown` for 0.
    pub(crate) fn time(&self, ms: i64) -> String {
        let mut out = String::new();
        match ms {
            0 => out.push_str("unknown"),
            ms => self.clock.push(&mut out, ms),
        }
        out
    }

    /// ` (in 1:00:00)`; nothing for what is unknown or past.
    pub(crate) fn until(&self, ms: i64) -> String {
        let left = ms.saturating_sub(self.clock.now_ms());
        match u64::try_from(left / 1000) {
            Ok(secs) if ms != 0 && secs > 0 => format!(" (in {})", elapsed_short(secs)),
            _ => String::new(),
        }
    }

    /// By how much `after` is earlier or later than `before`: `-1:00:00`, `+5:00`, `0`.
    pub(crate) fn shift(before: i64, after: i64) -> String {
        if before == 0 || after == 0 {
            return "?".to_owned();
        }
        let secs = after.saturating_sub(before) / 1000;
        let sign = match secs {
            0 => return "0".to_owned(),
            secs if secs < 0 => '-',
            _ => '+',
        };
        format!("{sign}{}", elapsed_short(secs.unsigned_abs()))
    }
}

/// The whole answer.
pub(super) fn text(reply: &v1::ExplainReply, clock: &Clock) -> String {
    let words = TimeWords { clock };
    let mut out = Lines::default();
    out.line(&format!("Job {} ({}): {}", reply.job, reply.state, reply.summary));
    push_start(&mut out, reply, &words);
    push_gates(&mut out, reply, &words);
    if let Some(priority) = &reply.priority {
        out.line("");
        out.line(&priority_line(priority));
    }
    if !reply.ahead.is_empty() {
        out.line("");
        out.line(&ahead_title(reply));
        out.text.push_str(&ahead_table(&reply.ahead, &words));
    }
    push_suggestions(&mut out, reply, &words);
    out.text
}

/// Lines in which nothing steers the terminal.
#[derive(Default)]
struct Lines {
    text: String,
}

impl Lines {
    fn line(&mut self, line: &str) {
        push_printable(&mut self.text, line.trim_end());
        self.text.push('\n');
    }
}

fn push_start(out: &mut Lines, reply: &v1::ExplainReply, words: &TimeWords<'_>) {
    if reply.expected_start_ms == 0 {
        if reply.gates.iter().any(|gate| !gate.open) {
            out.line("Expected start: unknown");
        }
        return;
    }
    let place = match (reply.expected_nodes.as_str(), reply.expected_partition.as_str()) {
        ("", "") => String::new(),
        ("", partition) => format!(" in partition {partition}"),
        (nodes, "") => format!(" on {nodes}"),
        (nodes, partition) => format!(" on {nodes} in partition {partition}"),
    };
    let start = reply.expected_start_ms;
    out.line(&format!("Expected start: {}{}{place}", words.time(start), words.until(start)));
    if !reply.moved_by.is_empty() {
        out.line(&format!("  It last moved because of this: {}", reply.moved_by));
    }
}

fn push_gates(out: &mut Lines, reply: &v1::ExplainReply, words: &TimeWords<'_>) {
    if reply.gates.is_empty() {
        return;
    }
    out.line("");
    out.line("What it must pass, in order:");
    let width = reply.gates.iter().map(|gate| gate.name.chars().count()).max().unwrap_or(0);
    for gate in &reply.gates {
        let mark = if gate.open { "[ok]     " } else { "[blocked]" };
        let reason = match gate.reason.as_str() {
            "" => String::new(),
            _ if gate.open => String::new(),
            reason if gate.detail.is_empty() => reason.to_owned(),
            reason => format!("{reason}: "),
        };
        let opens = match (gate.open, gate.opens_ms) {
            (true, _) | (_, 0) => String::new(),
            (false, ms) => format!("; opens by {}{}", words.time(ms), words.until(ms)),
        };
        let name = &gate.name;
        out.line(&format!("  {mark} {name:<width$}  {reason}{}{opens}", gate.detail));
    }
}

/// `Priority 11036 = age 0 + fair share 10000 + ... - nice 10`.
fn priority_line(row: &v1::PriorityRow) -> String {
    if row.fixed {
        return format!(
            "Priority {}: an administrator fixed it, so that no factor counts",
            row.priority
        );
    }
    let points = |factor: &Option<v1::PriorityFactor>| factor.map_or(0, |factor| factor.points);
    let tres = row.tres.iter().map(|tres| (tres.kind.clone(), points(&tres.factor)));
    let fixed = [
        ("age", points(&row.age)),
        ("association", points(&row.association)),
        ("fair share", points(&row.fair_share)),
        ("job size", points(&row.job_size)),
        ("partition", points(&row.partition_factor)),
        ("QOS", points(&row.qos_factor)),
        ("expansion", points(&row.expansion)),
        ("small area", points(&row.small_area)),
        ("site", row.site.into()),
    ];
    let parts = fixed.into_iter().map(|(name, points)| (name.to_owned(), points)).chain(tres);
    let shown: Vec<String> = parts
        .filter(|(_, points)| *points != 0)
        .map(|(name, points)| format!("{name} {points}"))
        .collect();
    let nice = match row.nice {
        0 => String::new(),
        nice if nice < 0 => format!(" + nice {}", nice.unsigned_abs()),
        nice => format!(" - nice {nice}"),
    };
    let sum = if shown.is_empty() { "0".to_owned() } else { shown.join(" + ") };
    format!("Priority {} = {sum}{nice}", row.priority)
}

fn ahead_title(reply: &v1::ExplainReply) -> String {
    let shown = reply.ahead.len();
    let all = usize::try_from(reply.ahead_count).unwrap_or(shown).max(shown);
    let jobs = if all == 1 { "job is" } else { "jobs are" };
    if all == shown {
        format!("{all} {jobs} ahead of it:")
    } else {
        format!("{all} {jobs} ahead of it, of which the first {shown}:")
    }
}

/// Jobs ahead as a table.
fn ahead_table(ahead: &[v1::JobAhead], words: &TimeWords<'_>) -> String {
    let mut table =
        vec![["JOB", "USER", "PRIORITY", "EXPECTED START", "NODES", "WHY"].map(str::to_owned)];
    table.extend(ahead.iter().map(|job| {
        [
            job.job.clone(),
            job.user.clone(),
            job.priority.to_string(),
            words.time(job.expected_start_ms),
            job.nodes.clone(),
            job.why.clone(),
        ]
    }));
    aligned(&table)
}

fn push_suggestions(out: &mut Lines, reply: &v1::ExplainReply, words: &TimeWords<'_>) {
    if reply.suggestions.is_empty() {
        return;
    }
    out.line("");
    out.line("What would start it sooner (each tried with the real engine):");
    let mut table = vec![["CHANGE", "START", "SHIFT", "NODES"].map(str::to_owned)];
    table.extend(reply.suggestions.iter().map(|suggestion| {
        [
            suggestion.change.clone(),
            words.time(suggestion.start_ms),
            TimeWords::shift(reply.expected_start_ms, suggestion.start_ms),
            suggestion.nodes.clone(),
        ]
    }));
    out.text.push_str(&aligned(&table));
}

/// Columns as wide as their widest text, two blanks apart, indented by two.
pub(crate) fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let printable = |text: &String| {
        let mut shown = String::new();
        push_printable(&mut shown, text);
        shown
    };
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| std::array::from_fn(|at| printable(&row[at]))).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    for row in &rows {
        let mut line = String::from("  ");
        for (text, width) in row.iter().zip(widths) {
            let blanks = width - text.chars().count() + 2;
            line.push_str(text);
            line.extend(std::iter::repeat_n(' ', blanks));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use crate::listing::testing::SUBMIT;

    use super::*;

    fn gate(name: &str, open: bool, reason: &str, detail: &str, opens_ms: i64) -> v1::Gate {
        v1::Gate { name: name.into(), open, reason: reason.into(), detail: detail.into(), opens_ms }
    }

    fn reply() -> v1::ExplainReply {
        v1::ExplainReply {
            job: "7".into(),
            state: "PENDING".into(),
            summary: "waits for 3 nodes with 4 free CPUs each; 1 has them".into(),
            gates: vec![
                gate("held", true, "", "", 0),
                gate("limits", true, "", "2 of 10 jobs of account a1 run", 0),
                gate(
                    "resources",
                    false,
                    "Resources",
                    "needs 12 CPUs, 4 are free",
                    SUBMIT + 3_600_000,
                ),
            ],
            ahead: vec![v1::JobAhead {
                job: "5_[2-3]".into(),
                user: "alice".into(),
                priority: 12_000,
                why: "higher priority".into(),
                expected_start_ms: SUBMIT + 60_000,
                nodes: "n[1-4]".into(),
            }],
            ahead_count: 12,
            expected_start_ms: SUBMIT + 3_600_000,
            expected_nodes: "n[1-3]".into(),
            expected_partition: "main".into(),
            moved_by: "job 9 was submitted with a higher priority".into(),
            suggestions: vec![v1::Suggestion {
                change: "--time=30:00".into(),
                start_ms: SUBMIT + 600_000,
                nodes: "n[2-4]".into(),
            }],
            now_ms: SUBMIT,
            priority: Some(v1::PriorityRow {
                priority: 11_026,
                fair_share: Some(v1::PriorityFactor { millionths: 1_000_000, points: 10_000 }),
                job_size: Some(v1::PriorityFactor { millionths: 343_750, points: 34 }),
                partition_factor: Some(v1::PriorityFactor { millionths: 1_000_000, points: 1000 }),
                nice: 10,
                ..v1::PriorityRow::default()
            }),
        }
    }

    fn told(reply: &v1::ExplainReply) -> String {
        text(reply, &Clock::new(TimeZone::UTC, None, reply.now_ms))
    }

    #[test]
    fn a_waiting_job_is_explained() {
        assert_eq!(
            told(&reply()),
            "\
Job 7 (PENDING): waits for 3 nodes with 4 free CPUs each; 1 has them
Expected start: 2026-11-24T09:05:47 (in 1:00:00) on n[1-3] in partition main
  It last moved because of this: job 9 was submitted with a higher priority

What it must pass, in order:
  [ok]      held
  [ok]      limits     2 of 10 jobs of account a1 run
  [blocked] resources  Resources: needs 12 CPUs, 4 are free; opens by 2026-11-24T09:05:47 (in 1:00:00)

Priority 11026 = fair share 10000 + job size 34 + partition 1000 - nice 10

12 jobs are ahead of it, of which the first 1:
  JOB      USER   PRIORITY  EXPECTED START       NODES   WHY
  5_[2-3]  alice  12000     2026-11-24T08:06:47  n[1-4]  higher priority

What would start it sooner (each tried with the real engine):
  CHANGE        START                SHIFT   NODES
  --time=30:00  2026-11-24T08:15:47  -50:00  n[2-4]
"
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let short = v1::ExplainReply {
            job: "3".into(),
            state: "RUNNING".into(),
            summary: "it runs since 10 minutes\u{1b}[2J".into(),
            now_ms: SUBMIT,
            ..v1::ExplainReply::default()
        };
        assert_eq!(told(&short), "Job 3 (RUNNING): it runs since 10 minutes?[2J\n");
        let fixed = v1::PriorityRow { priority: 5, fixed: true, ..v1::PriorityRow::default() };
        assert!(priority_line(&fixed).starts_with("Priority 5: an administrator"));
    }

    #[test]
    fn shifts_are_told_with_their_sign() {
        for (before, after, expect) in [
            (1000, 1000, "0"),
            (3_601_000, 1000, "-1:00:00"),
            (1000, 301_000, "+5:00"),
            (0, 1000, "?"),
            (1000, 0, "?"),
        ] {
            assert_eq!(TimeWords::shift(before, after), expect);
        }
    }
}
