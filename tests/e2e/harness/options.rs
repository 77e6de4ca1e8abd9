//! How does one test's cluster differ from the others'?

use std::sync::Arc;

use super::clock::WallClock;

/// How a cluster is to be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// The agents, started one after the other.
    pub(crate) agents: Vec<AgentOptions>,
    /// Lines of `[policy]` besides the short times that all tests want.
    pub(crate) policy: String,
    /// Further sections of the cluster's file.
    pub(crate) sections: String,
    /// Node names resolve inside jobs.
    pub(crate) resolve_nodes: bool,
    /// Everything runs as this user.
    pub(crate) uid: Option<u32>,
    /// The wall clock of the controller's process.
    pub(crate) clock: Option<Arc<WallClock>>,
}

/// How one agent is to be.
#[derive(Debug, Clone)]
pub(crate) struct AgentOptions {
    pub(crate) name: String,
    /// `compute` or `login`.
    pub(crate) role: &'static str,
    pub(crate) cpus: u32,
    /// As in the file: `"1G"`.
    pub(crate) memory: String,
    /// Further lines of `[agent]`.
    pub(crate) lines: String,
}

impl AgentOptions {
    /// A compute node.
    pub(crate) fn node(name: &str, cpus: u32) -> Self {
        Self {
            name: name.to_owned(),
            role: "compute",
            cpus,
            memory: "1G".to_owned(),
            lines: String::new(),
        }
    }

    /// A login host.
    pub(crate) fn login(name: &str) -> Self {
        Self { role: "login", ..Self::node(name, 1) }
    }

    /// Adds lines to its file.
    pub(crate) fn with(mut self, lines: &str) -> Self {
        self.lines.push_str(lines);
        self.lines.push('\n');
        self
    }
}

impl Options {
    /// One node with `cpus` CPUs.
    pub(crate) fn one_node(cpus: u32) -> Self {
        Self { agents: vec![AgentOptions::node("n1", cpus)], ..Self::default() }
    }

    /// `count` nodes, `n1` and on, with `cpus` CPUs each.
    pub(crate) fn nodes(count: u32, cpus: u32) -> Self {
        let node = |number| AgentOptions::node(&format!("n{number}"), cpus);
        Self { agents: (1..=count).map(node).collect(), ..Self::default() }
    }

    /// No agent at all.
    pub(crate) fn controller_only() -> Self {
        Self::default()
    }

    /// Adds an agent.
    pub(crate) fn and(mut self, agent: AgentOptions) -> Self {
        self.agents.push(agent);
        self
    }

    /// Adds a line to `[policy]`; it takes the place of the tests' own.
    pub(crate) fn policy(mut self, line: &str) -> Self {
        self.policy.push_str(line);
        self.policy.push('\n');
        self
    }
}
