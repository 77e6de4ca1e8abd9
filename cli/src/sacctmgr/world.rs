//! What is known of the tree of accounts while one command runs?
//!
//! The controller's answer with the look-ups that conditions and listings need. Nothing here changes
//! anything: a command becomes a list of changes, which the controller carries out or refuses.

use std::collections::{HashMap, HashSet};

use penstock_proto::v1;

/// Name of the account at the top.
pub(super) const ROOT: &str = "root";

/// Account, user and partition.
type Place = (String, String, String);

/// The controller's answer.
#[derive(Debug, Clone, Default)]
pub(super) struct World {
    /// As it came, associations put in the order of the tree.
    tree: v1::ListAccountsReply,
    /// Where the controller runs; empty where it was not asked.
    pub(super) control_host: String,
    // Where things are in the lists of the tree.
    ids: HashMap<u32, usize>,
    places: HashMap<Place, usize>,
    of_user: HashMap<String, Vec<usize>>,
    accounts: HashMap<String, usize>,
    users: HashMap<String, usize>,
}

impl World {
    /// Puts associations in order: an account, its users, then the accounts below it, each by name.
    pub(super) fn new(mut tree: v1::ListAccountsReply) -> Self {
        let mut left = std::mem::take(&mut tree.associations);
        let known: HashSet<u32> = left.iter().map(|assoc| assoc.id).collect();
        // The stack hands out the last one first: users by name, then accounts by name.
        left.sort_by_cached_key(|assoc| {
            let name = if assoc.user.is_empty() { &assoc.account } else { &assoc.user };
            std::cmp::Reverse((assoc.user.is_empty(), name.clone(), assoc.partition.clone()))
        });
        let mut stack = Vec::new();
        let mut below: HashMap<u32, Vec<v1::Association>> = HashMap::new();
        for assoc in left {
            if assoc.parent == 0 || !known.contains(&assoc.parent) {
                stack.push(assoc);
            } else {
                below.entry(assoc.parent).or_default().push(assoc);
            }
        }
        let mut ordered = Vec::with_capacity(known.len());
        while let Some(assoc) = stack.pop() {
            stack.extend(below.remove(&assoc.id).into_iter().flatten());
            ordered.push(assoc);
        }
        // Those that hang from each other in a ring are still shown.
        let mut rings: Vec<v1::Association> = below.into_values().flatten().collect();
        rings.sort_by_key(|assoc| assoc.id);
        ordered.extend(rings);
        let names = |names: Vec<&String>| {
            names.into_iter().enumerate().map(|(at, name)| (name.clone(), at)).collect()
        };
        let mut world = Self {
            accounts: names(tree.accounts.iter().map(|account| &account.name).collect()),
            users: names(tree.users.iter().map(|user| &user.name).collect()),
            tree,
            ..Self::default()
        };
        ordered.into_iter().for_each(|assoc| world.add_association(assoc));
        world
    }

    /// The answer as it came, but for the order of associations.
    pub(super) fn tree(&self) -> &v1::ListAccountsReply {
        &self.tree
    }

    /// Adds an association behind all others, as a file that is loaded will make it.
    pub(super) fn add_association(&mut self, assoc: v1::Association) {
        let at = self.tree.associations.len();
        self.ids.insert(assoc.id, at);
        let place = (assoc.account.clone(), assoc.user.clone(), assoc.partition.clone());
        self.places.insert(place, at);
        if !assoc.user.is_empty() {
            self.of_user.entry(assoc.user.clone()).or_default().push(at);
        }
        self.tree.associations.push(assoc);
    }

    /// Adds an account.
    pub(super) fn add_account(&mut self, account: v1::Account) {
        self.accounts.insert(account.name.clone(), self.tree.accounts.len());
        self.tree.accounts.push(account);
    }

    /// Adds a QOS.
    pub(super) fn add_qos(&mut self, qos: v1::Qos) {
        self.tree.qos.push(qos);
    }

    /// The places of one user, in the order of the tree.
    pub(super) fn places_of(&self, user: &str) -> impl Iterator<Item = &v1::Association> {
        let places = self.of_user.get(user).map_or(&[][..], Vec::as_slice);
        places.iter().filter_map(|at| self.tree.associations.get(*at))
    }

    /// Name of the cluster.
    pub(super) fn cluster(&self) -> &str {
        &self.tree.cluster
    }

    /// The account of that name.
    pub(super) fn account(&self, name: &str) -> Option<&v1::Account> {
        self.tree.accounts.get(*self.accounts.get(name)?)
    }

    /// The user of that name.
    pub(super) fn user(&self, name: &str) -> Option<&v1::User> {
        self.tree.users.get(*self.users.get(name)?)
    }

    /// The QOS of that name.
    pub(super) fn qos(&self, name: &str) -> Option<&v1::Qos> {
        self.tree.qos.iter().find(|qos| qos.name == name)
    }

    /// Names of every QOS, by number.
    pub(super) fn qos_names(&self) -> Vec<String> {
        let mut qos: Vec<&v1::Qos> = self.tree.qos.iter().collect();
        qos.sort_by_key(|qos| qos.id);
        qos.into_iter().map(|qos| qos.name.clone()).collect()
    }

    /// The association of a place.
    pub(super) fn association(
        &self,
        account: &str,
        user: &str,
        partition: &str,
    ) -> Option<&v1::Association> {
        let place = (account.to_owned(), user.to_owned(), partition.to_owned());
        self.tree.associations.get(*self.places.get(&place)?)
    }

    /// The account's own place in the tree.
    pub(super) fn place(&self, account: &str) -> Option<&v1::Association> {
        self.association(account, "", "")
    }

    fn by_id(&self, id: u32) -> Option<&v1::Association> {
        self.tree.associations.get(*self.ids.get(&id)?)
    }

    /// The account above an account; empty for the root, and for users.
    pub(super) fn parent_name(&self, assoc: &v1::Association) -> &str {
        if !assoc.user.is_empty() {
            return "";
        }
        self.by_id(assoc.parent).map_or("", |parent| &parent.account)
    }

    /// How many associations there are above one.
    pub(super) fn depth(&self, assoc: &v1::Association) -> usize {
        self.above(assoc).count()
    }

    /// The associations above one, the nearest first; ends even where they hang in a ring.
    fn above<'w>(
        &'w self,
        assoc: &v1::Association,
    ) -> impl Iterator<Item = &'w v1::Association> + use<'w> {
        let mut next = self.by_id(assoc.parent);
        let mut left = self.tree.associations.len();
        std::iter::from_fn(move || {
            let here = next?;
            left = left.checked_sub(1)?;
            next = self.by_id(here.parent);
            Some(here)
        })
    }

    /// Whether `assoc` lies below the account, or is its own place.
    pub(super) fn is_below(&self, assoc: &v1::Association, account: &str) -> bool {
        assoc.account == account
            || self.above(assoc).any(|above| above.user.is_empty() && above.account == account)
    }

    /// The association with the limits on each job and each user, and the QOS, that it has from
    /// above where it sets none itself.
    pub(super) fn effective(&self, assoc: &v1::Association) -> v1::Association {
        let mut merged = assoc.clone();
        let mut each = merged.each.unwrap_or_default();
        let mut job = merged.job.unwrap_or_default();
        for above in self.above(assoc) {
            if let Some(theirs) = &above.each {
                each.jobs = each.jobs.or(theirs.jobs);
                each.jobs_accrue = each.jobs_accrue.or(theirs.jobs_accrue);
                each.submit_jobs = each.submit_jobs.or(theirs.submit_jobs);
            }
            if let Some(theirs) = &above.job {
                job.wall_mins = job.wall_mins.or(theirs.wall_mins);
                merge(&mut job.tres, &theirs.tres);
                merge(&mut job.tres_per_node, &theirs.tres_per_node);
                merge(&mut job.tres_mins, &theirs.tres_mins);
            }
            merged.qos = merged.qos.or_else(|| above.qos.clone());
            if merged.default_qos.is_empty() {
                merged.default_qos.clone_from(&above.default_qos);
            }
        }
        merged.qos = merged.qos.or_else(|| Some(v1::NameList { names: self.qos_names() }));
        merged.each = Some(each);
        merged.job = Some(job);
        merged
    }

    /// Accounts that a user coordinates.
    pub(super) fn coordinated(&self, user: &str) -> Vec<String> {
        let mine = |account: &&v1::Account| account.coordinators.iter().any(|name| name == user);
        self.tree.accounts.iter().filter(mine).map(|account| account.name.clone()).collect()
    }
}

fn merge(own: &mut Vec<v1::TresAmount>, above: &[v1::TresAmount]) {
    for amount in above {
        if !own.iter().any(|known| known.kind == amount.kind) {
            own.push(amount.clone());
        }
    }
}

/// A small tree for tests: that of the recorded session with a real sacctmgr.
#[cfg(test)]
pub(super) fn example() -> World {
    let account = |name: &str, description: &str, organization: &str| v1::Account {
        name: name.into(),
        description: description.into(),
        organization: organization.into(),
        coordinators: Vec::new(),
    };
    let user = |name: &str, default_account: &str, level: v1::AdminLevel| v1::User {
        name: name.into(),
        uid: None,
        default_account: default_account.into(),
        admin_level: level.into(),
    };
    let assoc = |id, account: &str, user: &str, parent, shares| v1::Association {
        id,
        account: account.into(),
        user: user.into(),
        parent,
        shares: Some(shares),
        ..v1::Association::default()
    };
    let jobs = |jobs| Some(v1::EachLimits { jobs: Some(jobs), ..v1::EachLimits::default() });
    let mut associations = vec![
        assoc(1, "root", "", 0, 1),
        assoc(2, "root", "root", 1, 1),
        assoc(3, "a1", "", 1, 1),
        assoc(8, "a1", "nobody", 3, 7),
        assoc(4, "physics", "", 1, 60),
        assoc(5, "p1", "", 4, 9),
        assoc(9, "p1", "bin", 5, 5),
        assoc(11, "p1", "daemon", 5, 5),
    ];
    associations[3].each = jobs(3);
    associations[3].group = Some(v1::GroupLimits {
        tres: vec![v1::TresAmount { kind: "cpu".into(), count: 4 }],
        ..v1::GroupLimits::default()
    });
    associations[5].each = jobs(5);
    associations[5].group = Some(v1::GroupLimits {
        tres_mins: vec![v1::TresAmount { kind: "gres/gpu".into(), count: 6000 }],
        ..v1::GroupLimits::default()
    });
    associations[6].each = jobs(3);
    associations[7].job = Some(v1::JobLimits { wall_mins: Some(60), ..v1::JobLimits::default() });
    World::new(v1::ListAccountsReply {
        cluster: "bench".into(),
        accounts: vec![
            account("a1", "a1", "a1"),
            account("p1", "foo", "physics"),
            account("physics", "physics dept", "sci"),
            account("root", "default root account", "root"),
        ],
        users: vec![
            user("bin", "p1", v1::AdminLevel::Operator),
            user("daemon", "p1", v1::AdminLevel::None),
            user("nobody", "a1", v1::AdminLevel::None),
            user("root", "root", v1::AdminLevel::Administrator),
        ],
        associations,
        qos: example_qos(),
        tres: ["cpu", "mem", "node", "billing", "gres/gpu"].map(str::to_owned).to_vec(),
        enforce: "safe".into(),
    })
}

#[cfg(test)]
fn example_qos() -> Vec<v1::Qos> {
    let qos = |id, name: &str| v1::Qos {
        id,
        name: name.into(),
        usage_factor: 1_000_000,
        ..v1::Qos::default()
    };
    let mut high = qos(3, "high");
    high.priority = 100;
    high.flags = ["DenyOnLimit", "OverPartQOS", "NoDecay"].map(str::to_owned).to_vec();
    high.preempt = vec!["normal".into()];
    high.group = Some(v1::GroupLimits {
        tres: vec![
            v1::TresAmount { kind: "cpu".into(), count: 8 },
            v1::TresAmount { kind: "gres/gpu".into(), count: 2 },
        ],
        ..v1::GroupLimits::default()
    });
    high.job = Some(v1::JobLimits { wall_mins: Some(1440), ..v1::JobLimits::default() });
    high.per_user = Some(v1::EachLimits { jobs: Some(2), ..v1::EachLimits::default() });
    vec![qos(1, "normal"), qos(2, "q1"), high]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn associations_stand_in_the_order_of_the_tree() {
        let mut tree = example().tree().clone();
        tree.associations.reverse();
        let world = World::new(tree);
        let names: Vec<String> = world
            .tree
            .associations
            .iter()
            .map(|assoc| {
                format!("{}{}/{}", " ".repeat(world.depth(assoc)), assoc.account, assoc.user)
            })
            .collect();
        assert_eq!(
            names,
            [
                "root/",
                " root/root",
                " a1/",
                "  a1/nobody",
                " physics/",
                "  p1/",
                "   p1/bin",
                "   p1/daemon"
            ]
        );
    }

    #[test]
    fn limits_come_from_above_but_those_of_groups_stay() {
        let world = example();
        let daemon = world.effective(world.association("p1", "daemon", "").expect("there"));
        assert_eq!(daemon.each.and_then(|each| each.jobs), Some(5));
        assert_eq!(daemon.job.and_then(|job| job.wall_mins), Some(60));
        assert_eq!(daemon.group, None);
        assert_eq!(daemon.qos.expect("all").names, ["normal", "q1", "high"]);
    }

    #[test]
    fn a_ring_of_parents_ends() {
        let mut tree = example().tree().clone();
        tree.associations.iter_mut().for_each(|assoc| assoc.parent = assoc.parent.max(1) % 5 + 1);
        let world = World::new(tree);
        assert_eq!(world.tree.associations.len(), 8);
        let deepest = world.tree.associations.iter().map(|assoc| world.depth(assoc)).max();
        assert!(deepest.is_some_and(|depth| depth <= 8));
    }
}
