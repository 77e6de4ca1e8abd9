//! How does a cluster come back from its records?

use std::sync::Arc;

use imbl::OrdMap;
use penstock_vocab::{JobId, NodeName, Timestamp, UserId};

use super::{AccountRecords, Cluster};
use crate::model::{
    Answer, Array, Config, Crontab, Host, Job, JoinToken, Node, NodeIndex, RequestId, Reservation,
    Step,
};

/// The stored records. Nodes must come before the jobs that name them, by [`Records::node_index`].
#[derive(Debug, Default)]
pub struct Records {
    nodes: Vec<Arc<Node>>,
    node_names: OrdMap<NodeName, NodeIndex>,
    /// Jobs.
    pub jobs: Vec<Job>,
    /// Arrays.
    pub arrays: Vec<Array>,
    /// Steps.
    pub steps: Vec<Step>,
    /// Hosts.
    pub hosts: Vec<Host>,
    /// Tokens.
    pub tokens: Vec<JoinToken>,
    /// Answers.
    pub answers: Vec<((UserId, RequestId), Answer)>,
    /// Accounts, users, QOS, usage.
    pub accounts: AccountRecords,
    /// Reservations.
    pub reservations: Vec<Reservation>,
    /// Crontabs.
    pub crontabs: Vec<Crontab>,
    /// The number that the next job gets; 0: no counter was stored.
    pub next_job: u32,
    /// What was used up to then does not count; the epoch: all counts.
    pub usage_reset_at: Timestamp,
}

impl Records {
    /// Adds a node.
    pub fn add_node(&mut self, node: Node) {
        let index = self.node_index(&node.name);
        if let Some(place) = self.nodes.get_mut(index.get()) {
            *place = Arc::new(node);
        }
    }

    /// The place of a node; one is made if a job names a node that has no record.
    pub fn node_index(&mut self, name: &NodeName) -> NodeIndex {
        if let Some(index) = self.node_names.get(name) {
            return *index;
        }
        let index = NodeIndex(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push(Arc::new(Node {
            name: name.clone(),
            inventory: crate::model::Inventory::default(),
            admin: crate::model::NodeAdmin::default(),
            down: None,
            registered: None,
            last_busy: None,
            trouble: crate::model::LaunchTrouble::default(),
            session: None,
            weight: 1,
            configured_features: Box::default(),
        }));
        self.node_names.insert(name.clone(), index);
        index
    }
}

impl Cluster {
    /// Builds a cluster from its records. Nodes have no session yet.
    #[must_use]
    pub fn restore(records: Records, config: Arc<Config>, now: Timestamp) -> Self {
        let mut cluster = Self::new(Arc::new(Config::default()), now);
        let highest = |ids: &mut dyn Iterator<Item = JobId>| ids.map(|id| id.0).max().unwrap_or(0);
        let used = highest(&mut records.jobs.iter().map(|job| job.id))
            .max(highest(&mut records.arrays.iter().map(|array| array.id)));
        cluster.next_job = records.next_job.max(used.saturating_add(1));
        cluster.accounts.restore(records.accounts);
        cluster.usage_reset_at = records.usage_reset_at;
        cluster.reservations = records
            .reservations
            .into_iter()
            .map(|reservation| (reservation.name.clone(), Arc::new(reservation)))
            .collect();
        let crontabs = records.crontabs.into_iter();
        cluster.crontabs = crontabs.map(|one| (one.uid, Arc::new(one))).collect();
        cluster.nodes = records.nodes.into_iter().collect();
        cluster.uses = cluster.nodes.iter().map(|_| Arc::default()).collect();
        cluster.node_names = records.node_names;
        cluster.jobs = records.jobs.into_iter().map(|job| (job.id, Arc::new(job))).collect();
        cluster.arrays =
            records.arrays.into_iter().map(|array| (array.id, Arc::new(array))).collect();
        // One whose job is gone was about to go with it.
        let known = |step: &Step| cluster.jobs.contains_key(&step.key.job);
        let steps = records.steps.into_iter().filter(known);
        cluster.steps = steps.map(|step| (step.key, Arc::new(step))).collect();
        cluster.hosts =
            records.hosts.into_iter().map(|host| (host.name.clone(), Arc::new(host))).collect();
        cluster.tokens =
            records.tokens.into_iter().map(|token| (token.id.clone(), Arc::new(token))).collect();
        cluster.answers =
            records.answers.into_iter().map(|(key, answer)| (key, Arc::new(answer))).collect();
        let mut by_age: Vec<_> =
            cluster.answers.iter().map(|(key, answer)| (answer.at, *key)).collect();
        by_age.sort_unstable();
        cluster.answers_by_age = by_age.into_iter().map(|(_, key)| key).collect();
        cluster.configure(config);
        cluster.changed.clear();
        cluster.effects.clear();
        cluster
    }
}
