//! Which jobs does a request ask for?

use std::collections::{BTreeSet, HashSet};

use penstock_core::Cluster;
use penstock_core::command::Target;
use penstock_core::model::{JobSpec, Run};
use penstock_core::refusal::{Malformed, Refusal};
use penstock_proto::v1;
use penstock_vocab::{JobFlags, JobState, StateFilter, UserId, expand_unique, parse_job_state};

use crate::convert::run::NodeNames;
use crate::convert::wire::selectors;

/// What a job without a QOS of its own is shown with.
const DEFAULT_QOS: &str = "normal";

/// The conditions of a request, read; all that are given must hold.
#[derive(Debug, Default)]
pub(super) struct Filter {
    pub(super) targets: Vec<Target>,
    pub(super) states: Vec<StateFilter>,
    owners: Option<Owners>,
    names: HashSet<String>,
    partitions: HashSet<String>,
    accounts: HashSet<String>,
    qos: HashSet<String>,
    nodes: HashSet<String>,
    reservations: HashSet<String>,
    wckeys: HashSet<String>,
}

#[derive(Debug, Default)]
struct Owners {
    uids: BTreeSet<u32>,
    names: HashSet<String>,
}

impl Filter {
    pub(super) fn of_jobs(filter: &v1::JobFilter) -> Result<Self, Refusal> {
        Ok(Self {
            targets: selectors(&filter.selectors)?,
            states: states(&filter.states)?,
            owners: owners(&filter.uids, &filter.users),
            names: filter.names.iter().cloned().collect(),
            partitions: filter.partitions.iter().cloned().collect(),
            accounts: filter.accounts.iter().cloned().collect(),
            qos: filter.qos.iter().cloned().collect(),
            nodes: nodes(&filter.nodes)?,
            reservations: filter.reservations.iter().cloned().collect(),
            wckeys: filter.wckeys.iter().cloned().collect(),
        })
    }

    pub(super) fn of_accounting(request: &v1::ListAccountingRequest) -> Result<Self, Refusal> {
        Ok(Self {
            targets: selectors(&request.selectors)?,
            states: states(&request.states)?,
            owners: owners(&request.uids, &request.users),
            names: request.names.iter().cloned().collect(),
            partitions: request.partitions.iter().cloned().collect(),
            accounts: request.accounts.iter().cloned().collect(),
            qos: HashSet::new(),
            nodes: nodes(&request.nodes)?,
            reservations: HashSet::new(),
            wckeys: request.wckeys.iter().cloned().collect(),
        })
    }

    /// The only user whose jobs are wanted, where it is one by number.
    pub(super) fn only_uid(&self) -> Option<u32> {
        let owners = self.owners.as_ref().filter(|owners| owners.names.is_empty())?;
        owners.uids.first().copied().filter(|_| owners.uids.len() == 1)
    }

    pub(super) fn accepts_state(&self, state: JobState, flags: JobFlags) -> bool {
        self.states.is_empty() || self.states.iter().any(|wanted| wanted.matches(state, flags))
    }

    /// Everything that does not change while a job lives.
    pub(super) fn accepts_spec(&self, uid: UserId, spec: &JobSpec) -> bool {
        let owner = self.owners.as_ref().is_none_or(|owners| {
            owners.uids.contains(&uid.0) || owners.names.contains(&*spec.details.user_name)
        });
        let named =
            |wanted: &HashSet<String>, text: &str| wanted.is_empty() || wanted.contains(text);
        let qos = if spec.qos.is_empty() { DEFAULT_QOS } else { &spec.qos };
        owner
            && named(&self.names, &spec.name)
            && named(&self.accounts, &spec.account)
            && named(&self.qos, qos)
            && named(&self.reservations, &spec.reservation)
            && named(&self.wckeys, &spec.details.wckey)
    }

    /// A job's run, or that it has none, in which case its request counts.
    pub(super) fn accepts_place(
        &self,
        cluster: &Cluster,
        nodes: &impl NodeNames,
        spec: &JobSpec,
        run: Option<&Run>,
    ) -> bool {
        if !self.nodes.is_empty() {
            let on = |run: &Run| {
                run.shares.iter().any(|share| self.nodes.contains(nodes.node_name(share.node)))
            };
            if !run.is_some_and(on) {
                return false;
            }
        }
        if self.partitions.is_empty() {
            return true;
        }
        match run {
            Some(run) => self.partitions.contains(run.partition.as_str()),
            None if spec.partitions.is_empty() => {
                cluster.partitions_of(spec).any(|p| self.partitions.contains(p.name.as_str()))
            }
            None => spec.partitions.iter().any(|name| self.partitions.contains(name.as_str())),
        }
    }
}

/// Users by number and by name; a name of digits is a number, as everywhere in Slurm.
fn owners(uids: &[u32], users: &[String]) -> Option<Owners> {
    if uids.is_empty() && users.is_empty() {
        return None;
    }
    let mut owners = Owners { uids: uids.iter().copied().collect(), ..Owners::default() };
    for user in users {
        match user.parse() {
            Ok(uid) => {
                owners.uids.insert(uid);
            }
            Err(_) => {
                owners.names.insert(user.clone());
            }
        }
    }
    Some(owners)
}

fn states(texts: &[String]) -> Result<Vec<StateFilter>, Refusal> {
    let state = |text: &String| {
        parse_job_state(text).map_err(|error| Refusal::Malformed {
            what: Malformed::Other,
            detail: error.to_string().into(),
        })
    };
    texts.iter().map(state).collect()
}

fn nodes(texts: &[String]) -> Result<HashSet<String>, Refusal> {
    let mut names = HashSet::new();
    for text in texts {
        let expanded = expand_unique(text).map_err(|error| Refusal::Malformed {
            what: Malformed::NodeList,
            detail: error.to_string().into(),
        })?;
        names.extend(expanded);
    }
    Ok(names)
}
