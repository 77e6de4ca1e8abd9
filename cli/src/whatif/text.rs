//! How is the answer laid out?

use penstock_proto::v1;

use crate::explain::{TimeWords, aligned};
use crate::listing::{Clock, push_printable};

/// The whole answer.
pub(super) fn text(reply: &v1::WhatIfReply, clock: &Clock) -> String {
    let words = TimeWords { clock };
    let mut out = String::new();
    if reply.rows.is_empty() {
        out.push_str("No job would start at another time.\n");
    } else {
        let head = ["JOB", "USER", "PARTITION", "BEFORE", "AFTER", "SHIFT", "NODES", "REASON"];
        let mut table = vec![head.map(str::to_owned)];
        table.extend(reply.rows.iter().map(|row| line(row, &words)));
        out.push_str(&aligned(&table));
    }
    if reply.unchanged > 0 {
        let jobs = if reply.unchanged == 1 { "job keeps its" } else { "jobs keep their" };
        out.push_str(&format!("{} waiting {jobs} expected start.\n", reply.unchanged));
    }
    for note in &reply.notes {
        push_printable(&mut out, note);
        out.push('\n');
    }
    out
}

fn line(row: &v1::WhatIfRow, words: &TimeWords<'_>) -> [String; 8] {
    let is_new = row.before_ms == 0 && row.nodes_before.is_empty();
    let before = if is_new { "-".to_owned() } else { words.time(row.before_ms) };
    let shift = if is_new { "-".to_owned() } else { TimeWords::shift(row.before_ms, row.after_ms) };
    let nodes = match (row.nodes_before.as_str(), row.nodes_after.as_str()) {
        ("", after) => after.to_owned(),
        (before, after) if before == after => after.to_owned(),
        (before, "") => format!("{before} -> ?"),
        (before, after) => format!("{before} -> {after}"),
    };
    [
        row.job.clone(),
        row.user.clone(),
        row.partition.clone(),
        before,
        words.time(row.after_ms),
        shift,
        nodes,
        row.reason_after.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use crate::listing::testing::SUBMIT;

    use super::*;

    #[test]
    fn jobs_are_shown_before_and_after() {
        let row = |job: &str, before, after, nodes: (&str, &str), reason: &str| v1::WhatIfRow {
            job: job.into(),
            user: "alice".into(),
            before_ms: before,
            after_ms: after,
            nodes_before: nodes.0.into(),
            nodes_after: nodes.1.into(),
            partition: "main".into(),
            reason_after: reason.into(),
        };
        let reply = v1::WhatIfReply {
            rows: vec![
                row("new", 0, SUBMIT + 60_000, ("", "n[1-2]"), ""),
                row("7", SUBMIT, SUBMIT + 3_600_000, ("n3", "n4"), "Resources"),
                row("8", SUBMIT, 0, ("n3", ""), "ReqNodeNotAvail"),
            ],
            unchanged: 12,
            notes: vec!["the last job on n3 ends 2026-11-24T14:05:00".into()],
            now_ms: SUBMIT,
            cpus: 4,
        };
        let clock = Clock::new(TimeZone::UTC, None, SUBMIT);
        assert_eq!(
            text(&reply, &clock),
            "  JOB  USER   PARTITION  BEFORE               AFTER                SHIFT     NODES     REASON
  new  alice  main       -                    2026-11-24T08:06:47  -         n[1-2]
  7    alice  main       2026-11-24T08:05:47  2026-11-24T09:05:47  +1:00:00  n3 -> n4  Resources
  8    alice  main       2026-11-24T08:05:47  unknown              ?         n3 -> ?   ReqNodeNotAvail
12 waiting jobs keep their expected start.
the last job on n3 ends 2026-11-24T14:05:00
"
        );
        let none = v1::WhatIfReply { unchanged: 1, ..v1::WhatIfReply::default() };
        assert_eq!(
            text(&none, &clock),
            "No job would start at another time.\n1 waiting job keeps its expected start.\n"
        );
    }
}
