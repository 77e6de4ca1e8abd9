//! What must a PMIx server know of the step?

use std::fmt::Write as _;

use super::super::facts::Facts;
use crate::launch::shepherd::LaunchError;
use crate::sys::pmix::Fact;

/// Most tasks of a step whose places can be told.
const MAX_TASKS: usize = 1 << 20;

/// Where every task of the step is, and whose they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// `7.0`.
    pub(super) step: String,
    /// Name of the tasks' namespace.
    pub(super) nspace: String,
    /// `pmix`, or `pmix_v4` where the user wants that version.
    pub(super) kind: String,
    /// Nodes of the step.
    pub(super) nodes: Vec<String>,
    /// Ranks on each.
    pub(super) ranks: Vec<Vec<u32>>,
    /// Which of them this one is.
    pub(super) index: usize,
    pub(super) owner: (u32, u32),
}

impl Plan {
    /// # Errors
    /// Where the launch does not say where the tasks are, or contradicts itself.
    pub(super) fn of(facts: &Facts) -> Result<Self, LaunchError> {
        let launch = &facts.launch;
        let broken = |what: &str| LaunchError::node(format!("the launch of a PMIx step {what}"));
        let mut left = MAX_TASKS;
        let ranks: Option<Vec<Vec<u32>>> =
            launch.step_ranks.iter().map(|text| ranks_in(text, &mut left)).collect();
        let ranks = ranks.ok_or_else(|| broken("has a broken list of ranks"))?;
        let index = usize::try_from(facts.node_index).unwrap_or(usize::MAX);
        if ranks.len() != launch.step_nodes.len() || ranks.get(index) != Some(&facts.tasks) {
            return Err(broken("does not say which tasks each node has"));
        }
        let step = facts.step_id();
        Ok(Self {
            // As Slurm's plugin calls it.
            nspace: format!("slurm.pmix.{step}"),
            step,
            kind: facts.spec.mpi.clone(),
            nodes: launch.step_nodes.clone(),
            ranks,
            index,
            owner: (facts.uid, launch.gid),
        })
    }

    /// Tasks of this node.
    pub(super) fn own(&self) -> &[u32] {
        self.ranks.get(self.index).map_or(&[], Vec::as_slice)
    }

    /// The node of a rank.
    pub(super) fn node_of(&self, rank: u32) -> Option<usize> {
        self.ranks.iter().position(|ranks| ranks.contains(&rank))
    }

    /// What the server is told of itself; `dir` is a folder of the user's.
    pub(super) fn of_server(&self, dir: &str) -> Vec<Fact> {
        let node = self.nodes.get(self.index).cloned().unwrap_or_default();
        vec![
            Fact::Text("pmix.srvr.tmpdir", dir.to_owned()),
            Fact::Text("pmix.sys.tmpdir", dir.to_owned()),
            Fact::Text("pmix.hname", node),
            Fact::Text("pmix.srv.nspace", format!("penstock.{}", self.step)),
            Fact::Rank("pmix.srv.rank", count(self.index)),
            Fact::Number("pmix.euid", self.owner.0),
            Fact::Number("pmix.egid", self.owner.1),
        ]
    }

    /// What the tasks can ask about their step.
    pub(super) fn of_step(&self, dir: &str) -> Vec<Fact> {
        let own = self.own();
        let size = count(self.ranks.iter().map(Vec::len).sum());
        let here = count(own.len());
        let mut facts = vec![
            Fact::Text("pmix.jobid", self.step.clone()),
            Fact::Number("pmix.univ.size", size),
            Fact::Number("pmix.job.size", size),
            Fact::Number("pmix.max.size", size),
            Fact::Number("pmix.job.napps", 1),
            Fact::Number("pmix.num.nodes", count(self.nodes.len())),
            Fact::Number("pmix.local.size", here),
            Fact::Number("pmix.node.size", here),
            Fact::Text("pmix.lpeers", joined(own)),
            Fact::Text("pmix.nmap", self.nodes.join(",")),
            Fact::Text("pmix.pmap", self.map()),
            Fact::Rank("pmix.lldr", own.first().copied().unwrap_or(0)),
            Fact::Rank("pmix.aldr", 0),
            Fact::Rank("pmix.offset", 0),
            Fact::Flag("pmix.spawned", false),
            Fact::Text("pmix.tmpdir", dir.to_owned()),
            Fact::Text("pmix.nsdir", dir.to_owned()),
            Fact::Flag("pmix.tdir.rmclean", true),
        ];
        for (node, ranks) in self.ranks.iter().enumerate() {
            for (local, &rank) in ranks.iter().enumerate() {
                facts.push(self.of_task(node, local, rank));
            }
        }
        facts
    }

    fn of_task(&self, node: usize, local: usize, rank: u32) -> Fact {
        let short = u16::try_from(local).unwrap_or(u16::MAX);
        let name = self.nodes.get(node).cloned().unwrap_or_default();
        let facts = vec![
            // First: whom the rest is about.
            Fact::Rank("pmix.rank", rank),
            Fact::Number("pmix.appnum", 0),
            Fact::Rank("pmix.apprank", rank),
            Fact::Rank("pmix.grank", rank),
            Fact::Short("pmix.lrank", short),
            Fact::Short("pmix.nrank", short),
            Fact::Number("pmix.nodeid", count(node)),
            Fact::Text("pmix.hname", name),
        ];
        Fact::Many("pmix.pdata", facts)
    }

    /// Ranks of each node, nodes parted by semicolons.
    fn map(&self) -> String {
        self.ranks.iter().map(|ranks| joined(ranks)).collect::<Vec<_>>().join(";")
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn joined(ranks: &[u32]) -> String {
    let mut text = String::new();
    for rank in ranks {
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a text cannot fail.
        let _written = write!(text, "{comma}{rank}");
    }
    text
}

/// `0-3,8`; `None` if it is no such list, or has more than `left` ranks, of which it takes its own.
fn ranks_in(text: &str, left: &mut usize) -> Option<Vec<u32>> {
    let mut all = Vec::new();
    for run in text.split(',').filter(|run| !run.is_empty()) {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        let length = usize::try_from(last.checked_sub(first)?).ok()?.checked_add(1)?;
        *left = left.checked_sub(length)?;
        all.extend(first..=last);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use penstock_proto::v1;

    use super::*;

    fn plan(ranks: &[&str], own: &[u32]) -> Result<Plan, LaunchError> {
        let launch = v1::LaunchStep {
            step_nodes: (1..=ranks.len()).map(|at| format!("n{at}")).collect(),
            step_ranks: ranks.iter().map(|&text| text.to_owned()).collect(),
            ..v1::LaunchStep::default()
        };
        Plan::of(&Facts::for_tests(launch, own.to_vec()))
    }

    #[test]
    fn every_task_has_its_place() {
        let plan = plan(&["0-1,4", "2,3"], &[0, 1, 4]).unwrap();
        assert_eq!((plan.map().as_str(), plan.nspace.as_str()), ("0,1,4;2,3", "slurm.pmix.7.3"));
        assert_eq!([0, 3, 4, 5].map(|rank| plan.node_of(rank)), [Some(0), Some(1), Some(0), None]);
        let facts = plan.of_step("/tmp/x");
        let of_tasks = facts.iter().filter(|fact| matches!(fact, Fact::Many("pmix.pdata", _)));
        assert_eq!(of_tasks.count(), 5);
        let peers =
            facts.iter().any(|fact| matches!(fact, Fact::Text("pmix.lpeers", it) if it == "0,1,4"));
        assert!(peers);
    }

    #[test]
    fn a_launch_that_contradicts_itself_is_refused() {
        assert!(plan(&[], &[0]).is_err());
        assert!(plan(&["0-1"], &[0]).is_err());
        for broken in ["1-0", "x", "0-4294967295", "-", "1-"] {
            assert!(plan(&[broken], &[0]).is_err(), "{broken}");
        }
    }
}
