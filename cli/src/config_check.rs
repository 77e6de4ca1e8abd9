//! Is a cluster file right, and if not, where and why?
//!
//! `penstock config check FILE...` prints every problem as `FILE:LINE:COLUMN: error: ...`, or one
//! line that says what the file describes. The exit status is 1 where a file has an error.

use std::path::Path;

use penstock_agent::AgentConfig;
use penstock_controller::config::{ClusterFile, Existing, Report, Severity, check};

use crate::output::{note, print_line};

const USAGE: &str = "usage: penstock config check FILE...";

/// Runs `penstock config ARGS` and gives its exit status.
pub(crate) fn run(program: &str, args: Vec<String>) -> i32 {
    match args.split_first() {
        Some((verb, [])) if verb == "--help" || verb == "-h" => {
            print_line(USAGE);
            print_line("Explain every mistake of a cluster file, with its line and a fix.");
            0
        }
        Some((verb, files)) if verb == "check" && !files.is_empty() => {
            // Every file is judged, also behind a wrong one.
            files.iter().map(|file| check_file(program, Path::new(file))).max().unwrap_or(0)
        }
        _ => {
            note(USAGE);
            2
        }
    }
}

fn check_file(program: &str, path: &Path) -> i32 {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            note(&format!("{program}: error: cannot read {}: {error}", path.display()));
            return 1;
        }
    };
    let (lines, usable) = judge(path, &text, &Existing::on_this_machine());
    for line in lines {
        print_line(&line);
    }
    i32::from(!usable)
}

/// What there is to print of a file, and whether it can be used.
fn judge(path: &Path, text: &str, existing: &Existing<'_>) -> (Vec<String>, bool) {
    let Report { file, agent, problems, .. } = check(path, text, existing);
    let mut usable = problems.iter().all(|problem| problem.severity != Severity::Error);
    let mut lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let mut agent_says = None;
    if agent.is_some() {
        match AgentConfig::parse(text, path) {
            Ok(agent) => {
                agent_says = Some(format!("agent {} of {}", agent.name, agent.controller));
            }
            Err(error) => {
                lines.push(said_once(&error));
                usable = false;
            }
        }
    }
    if usable {
        let parts = [file.as_ref().map(describe), agent_says];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        lines.push(format!("{}: ok ({})", path.display(), parts.join(", ")));
    }
    (lines, usable)
}

/// An error with its causes, on one line.
fn said_once(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// `cluster demo, 2 partitions, 128 nodes`; nodes that describe themselves are not counted.
fn describe(file: &ClusterFile) -> String {
    let nodes: usize = file.nodes.iter().map(|node| node.names.len()).sum();
    let nodes = match nodes {
        0 => "nodes describe themselves".to_owned(),
        count => counted(count, "node"),
    };
    let partitions = counted(file.partitions.len(), "partition");
    format!("cluster {}, {partitions}, {nodes}", file.cluster.name)
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str) -> (Vec<String>, bool) {
        judge(Path::new("c.toml"), text, &Existing::unasked())
    }

    #[test]
    fn good_file_is_summed_up() {
        let text = "[cluster]\nname = \"demo\"\n[controller]\nlisten = \"0.0.0.0:1\"\n\
                    [[node]]\nname = \"n[1-128]\"\n\
                    [[partition]]\nname = \"a\"\ndefault = true\n[[partition]]\nname = \"b\"\n";
        let (lines, usable) = judged(text);
        assert_eq!(lines, ["c.toml: ok (cluster demo, 2 partitions, 128 nodes)"]);
        assert!(usable);
    }

    #[test]
    fn warning_leaves_a_file_usable() {
        let (lines, usable) = judged("[[partition]]\nname = \"a\"\n[[partition]]\nname = \"b\"\n");
        assert!(usable && lines.len() == 2, "{lines:?}");
        assert!(lines[1].ends_with("2 partitions, nodes describe themselves)"), "{lines:?}");
    }

    #[test]
    fn mistakes_of_cluster_and_agent_are_both_named() {
        let text = "[policy]\nkill = 3\n[[partition]]\nname = \"a\"\n[agent]\ncontroller = \"c\"\n\
                    name = \"n1\"\ncpu = 3\n";
        let (lines, usable) = judged(text);
        assert!(!usable && lines.len() == 2, "{lines:?}");
        assert!(lines[0].starts_with("c.toml:2:1: error:"), "{lines:?}");
        assert!(lines[1].starts_with("c.toml:8: "), "{lines:?}");
    }

    #[test]
    fn file_of_a_node_is_right_by_itself() {
        let (lines, usable) = judged("[agent]\ncontroller = \"ctl:6820\"\nname = \"n1\"\n");
        assert_eq!(lines, ["c.toml: ok (agent n1 of ctl:6820)"]);
        assert!(usable);
    }
}
