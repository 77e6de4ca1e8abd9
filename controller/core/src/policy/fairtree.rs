//! Who has had less than their share, level by level of the account tree?
//!
//! Fair Tree (Cox and Morrison, Brigham Young University, SLUG 2014; Slurm's default). Among the
//! children of an account each has the level fair share `LF = S / U`: `S` is its shares over the sum
//! of its siblings' shares, `U` its usage over its parent's. `U = 0` is infinite, `S = 0` is 0. The
//! tree is walked depth first, children by falling `LF`; the users met get the ranks `N` downwards,
//! and a user's factor is rank / N. So all of a better account come before all of a worse one.
//!
//! As in Slurm:
//! - users come before accounts of equal `LF`; siblings of equal `LF` share a rank, and the next one
//!   below skips as many;
//! - an account that ties with the sibling before it begins tied: its first user has the rank of the
//!   last user before. (The paper merges the children of tied accounts; released Slurm does not.)
//! - a user with `parent` shares is infinite and counts for no shares; the children of an account
//!   with `parent` shares are children of the account above.
//!
//! Everything is compared in whole numbers: of siblings `S / U` is `s / u` up to a common factor, so
//! `s1 * u2` against `s2 * u1` in 256 bits. Siblings that neither shares nor usage tell apart go by
//! number.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use penstock_vocab::Timestamp;

use super::decay::whole_secs;
use super::wide;
use crate::cluster::Cluster;
use crate::model::{AssocId, ONE_MILLIONTHS, Shares, UsageOwner};

/// Numbers of associations below this are found by index.
const DENSE: u32 = 1 << 20;

/// The standing of all associations at one instant. Cost to make: all associations, times the
/// logarithm of how many siblings they have.
#[derive(Debug, Clone)]
pub struct FairShare {
    /// By number of association.
    nodes: Vec<Node>,
    places: Places,
    /// How many users' associations there are.
    users: u32,
}

/// Where an association stands among the nodes.
#[derive(Debug, Clone, Default)]
struct Places {
    dense: Vec<u32>,
    others: BTreeMap<AssocId, u32>,
}

/// No place.
const NOWHERE: u32 = u32::MAX;

#[derive(Debug, Clone)]
struct Node {
    id: AssocId,
    is_user: bool,
    shares: Shares,
    /// The association above; the root's is itself.
    parent: u32,
    /// The account among whose children it is compared: above those with `parent` shares.
    level: u32,
    depth: u32,
    /// Of the whole subtree.
    usage: u128,
    /// Sum of the shares of those compared below it.
    shares_below: u64,
    /// 0: none, as of accounts.
    rank: u32,
    reached: bool,
}

/// What `sshare` shows of an association. Fractions are in millionths, rounded to the nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Which.
    pub id: AssocId,
    /// The association above; `None`: the root.
    pub parent: Option<AssocId>,
    /// Levels below the root.
    pub depth: u32,
    /// It is a user's.
    pub is_user: bool,
    /// As it was set.
    pub raw_shares: Shares,
    /// Its part of the shares of its level; with `parent` shares that of the account above. 0 at the
    /// root.
    pub norm_shares: u64,
    /// Billing unit-seconds, decayed, of the whole subtree.
    pub raw_usage: u64,
    /// Its part of the root's usage.
    pub norm_usage: u64,
    /// Its part of the usage of the account that it is compared in; 1 at the root.
    pub effective_usage: u64,
    /// Shares over usage; `None`: infinite.
    pub level_fs: Option<u64>,
    /// Rank among all users, the best is their number; 0 for accounts.
    pub rank: u32,
    /// Rank over number of users; 0 for accounts.
    pub factor: u64,
}

impl FairShare {
    /// Where everybody stands at `now`. What runs is counted up to `now`.
    #[must_use]
    pub fn new(cluster: &Cluster, now: Timestamp) -> Self {
        let mut fair = Self { nodes: Vec::new(), places: Places::default(), users: 0 };
        let billing = cluster.billing_at(now);
        for assoc in cluster.accounts().all_assocs() {
            let place = u32::try_from(fair.nodes.len()).unwrap_or(NOWHERE);
            fair.places.insert(assoc.id, place);
            fair.nodes.push(Node {
                id: assoc.id,
                is_user: assoc.user.is_some(),
                shares: assoc.shares,
                parent: place,
                level: place,
                depth: 0,
                usage: billing(&UsageOwner::Assoc(assoc.id)),
                shares_below: 0,
                rank: 0,
                reached: false,
            });
        }
        let Some(root) = fair.places.find(AssocId::ROOT) else { return fair };
        for (assoc, place) in cluster.accounts().all_assocs().zip(0usize..) {
            // One whose parent is gone stands below the root.
            let parent = assoc.parent.filter(|_| assoc.id != AssocId::ROOT);
            let parent = parent.and_then(|parent| fair.places.find(parent));
            fair.nodes[place].parent = parent.unwrap_or(root);
        }
        let order = fair.descend(root);
        fair.gather(&order);
        fair.rank(root, &order);
        fair
    }

    /// Places from the root downwards, with depth and level set. A circle is never reached.
    fn descend(&mut self, root: u32) -> Vec<u32> {
        let below = Below::new(&self.nodes, |node| node.parent, |_| true);
        let mut order = vec![root];
        self.nodes[root as usize].reached = true;
        let mut next = 0;
        while let Some(place) = order.get(next).copied() {
            next += 1;
            let (depth, level) = {
                let node = &self.nodes[place as usize];
                let passes = place != root && node.shares == Shares::Parent;
                (node.depth + 1, if passes { node.level } else { place })
            };
            for child in below.of(place) {
                let node = &mut self.nodes[*child as usize];
                if !node.reached {
                    (node.reached, node.depth, node.level) = (true, depth, level);
                    order.push(*child);
                }
            }
        }
        order
    }

    /// Sums usage and shares from the leaves upwards.
    fn gather(&mut self, order: &[u32]) {
        for place in order.iter().skip(1).rev() {
            let node = &self.nodes[*place as usize];
            let (parent, level, usage) = (node.parent as usize, node.level as usize, node.usage);
            let shares = match node.shares {
                Shares::Raw(shares) => u64::from(shares),
                Shares::Parent => 0,
            };
            let parent = &mut self.nodes[parent];
            parent.usage = parent.usage.saturating_add(usage);
            self.nodes[level].shares_below += shares;
        }
    }

    /// Walks the tree, best first.
    fn rank(&mut self, root: u32, order: &[u32]) {
        let users = order.iter().filter(|place| self.nodes[**place as usize].is_user).count();
        self.users = u32::try_from(users).unwrap_or(u32::MAX);
        let compared =
            |node: &Node| node.reached && (node.is_user || node.shares != Shares::Parent);
        let mut below = Below::new(&self.nodes, |node| node.level, compared);
        for place in order {
            let nodes = &self.nodes;
            below.of_mut(*place).sort_unstable_by(|a, b| {
                let (a, b) = (&nodes[*a as usize], &nodes[*b as usize]);
                // Users before accounts.
                by_level(b, a).then(b.is_user.cmp(&a.is_user)).then(a.id.cmp(&b.id))
            });
        }
        let (mut rank, mut left) = (self.users, self.users);
        // Account, its next child, and whether that one is tied with what was met before.
        let mut path = vec![(root, 0usize, false)];
        while let Some((account, next, tied)) = path.pop() {
            let Some(child) = below.of(account).get(next).copied() else { continue };
            let following = below.of(account).get(next + 1);
            let equal = |after: &u32| {
                let (one, other) = (&self.nodes[child as usize], &self.nodes[*after as usize]);
                by_level(one, other) == Ordering::Equal
            };
            path.push((account, next + 1, following.is_some_and(equal)));
            let node = &mut self.nodes[child as usize];
            if node.is_user {
                if !tied {
                    rank = left;
                }
                node.rank = rank;
                left = left.saturating_sub(1);
            } else {
                path.push((child, 0, tied));
            }
        }
    }

    /// Factor of an association for the priority, in millionths: of a user rank / N, rounded to the
    /// nearest. 1 for the root, which carries the jobs of those who have no association; 0 for other
    /// accounts, which carry none, and for an association that is gone.
    #[must_use]
    pub fn factor(&self, id: AssocId) -> u64 {
        if id == AssocId::ROOT {
            return ONE_MILLIONTHS;
        }
        self.node(id).map_or(0, |node| self.factor_of(node))
    }

    fn factor_of(&self, node: &Node) -> u64 {
        rounded(u128::from(node.rank), u128::from(self.users))
    }

    /// Rank and number of users, as the exact factor; (1, 1) for the root, (0, 1) for what has none.
    pub(super) fn ranks(&self) -> impl Iterator<Item = (AssocId, u32, u32)> {
        self.nodes.iter().map(|node| match node.id {
            AssocId::ROOT => (AssocId::ROOT, 1, 1),
            id => (id, node.rank, self.users.max(1)),
        })
    }

    /// How many users' associations there are: the best rank.
    #[must_use]
    pub fn users(&self) -> u32 {
        self.users
    }

    /// Everything that `sshare` shows of an association.
    #[must_use]
    pub fn row(&self, id: AssocId) -> Option<Row> {
        self.node(id).map(|node| self.row_of(node))
    }

    /// The rows of all associations, by number.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        self.nodes.iter().map(|node| self.row_of(node))
    }

    /// The way from the root to an association, with the numbers that decide at each level; empty if
    /// there is no such association.
    #[must_use]
    pub fn explain(&self, id: AssocId) -> Vec<Row> {
        let mut path = Vec::new();
        let mut next = self.node(id);
        while let Some(node) = next {
            path.push(self.row_of(node));
            // A circle has no way to the root.
            let above = &self.nodes[node.parent as usize];
            next = (above.id != node.id && node.reached).then_some(above);
        }
        path.reverse();
        path
    }

    fn node(&self, id: AssocId) -> Option<&Node> {
        self.places.find(id).and_then(|place| self.nodes.get(place as usize))
    }

    fn row_of(&self, node: &Node) -> Row {
        let is_root = node.id == AssocId::ROOT;
        let level = &self.nodes[node.level as usize];
        let root = self.node(AssocId::ROOT).map_or(0, |root| root.usage);
        let parent = self.nodes.get(node.parent as usize).filter(|_| !is_root);
        let effective = if is_root { ONE_MILLIONTHS } else { rounded(node.usage, level.usage) };
        Row {
            id: node.id,
            parent: parent.map(|parent| parent.id),
            depth: node.depth,
            is_user: node.is_user,
            raw_shares: node.shares,
            norm_shares: self.norm_shares(node),
            raw_usage: whole_secs(node.usage),
            norm_usage: rounded(node.usage, root),
            effective_usage: effective,
            level_fs: self.level_fs(node),
            rank: node.rank,
            factor: self.factor_of(node),
        }
    }

    fn norm_shares(&self, node: &Node) -> u64 {
        let mut node = node;
        if node.shares == Shares::Parent {
            node = &self.nodes[node.level as usize];
        }
        match node.shares {
            Shares::Raw(shares) if node.id != AssocId::ROOT => {
                let all = self.nodes[node.level as usize].shares_below;
                rounded(u128::from(shares), u128::from(all))
            }
            Shares::Raw(_) | Shares::Parent => 0,
        }
    }

    fn level_fs(&self, node: &Node) -> Option<u64> {
        let level = &self.nodes[node.level as usize];
        match standing(node) {
            Standing::Infinite => None,
            Standing::Finite { shares: 0, .. } => Some(0),
            Standing::Finite { shares, usage } => {
                // (s / all) / (u / of the level), twice, so that the half rounds up.
                let twice = u128::from(shares) * u128::from(2 * ONE_MILLIONTHS);
                let twice = wide::mul_div(level.usage, twice, usage);
                Some(half(twice / u128::from(level.shares_below.max(1))))
            }
        }
    }
}

/// A part of a whole in millionths, rounded to the nearest; 0 of nothing.
fn rounded(part: u128, whole: u128) -> u64 {
    if whole == 0 {
        return 0;
    }
    half(wide::mul_div(part, u128::from(2 * ONE_MILLIONTHS), whole))
}

fn half(twice: u128) -> u64 {
    u64::try_from(twice.saturating_add(1) / 2).unwrap_or(u64::MAX)
}

impl Places {
    fn insert(&mut self, id: AssocId, place: u32) {
        if id.0 >= DENSE {
            self.others.insert(id, place);
            return;
        }
        let at = id.0 as usize;
        if self.dense.len() <= at {
            self.dense.resize(at + 1, NOWHERE);
        }
        self.dense[at] = place;
    }

    fn find(&self, id: AssocId) -> Option<u32> {
        let dense = self.dense.get(id.0 as usize).copied().filter(|place| *place != NOWHERE);
        dense.or_else(|| self.others.get(&id).copied())
    }
}

/// Who stands below whom: the children of all places one after the other.
struct Below {
    children: Vec<u32>,
    /// Where those of each place begin; one more for the end.
    begins: Vec<usize>,
}

impl Below {
    /// By the place that `above` names; those below themselves, and those not `counted`, are left
    /// out.
    fn new(nodes: &[Node], above: impl Fn(&Node) -> u32, counted: impl Fn(&Node) -> bool) -> Self {
        let links = || {
            let places = (0u32..).zip(nodes).filter(|(_, node)| counted(node));
            places.map(|(place, node)| (place, above(node))).filter(|(place, up)| place != up)
        };
        let mut begins = vec![0; nodes.len() + 1];
        for (_, up) in links() {
            begins[up as usize + 1] += 1;
        }
        for at in 1..begins.len() {
            begins[at] += begins[at - 1];
        }
        let mut ends = begins.clone();
        let mut children = vec![0; begins.last().copied().unwrap_or(0)];
        for (place, up) in links() {
            let end = &mut ends[up as usize];
            children[*end] = place;
            *end += 1;
        }
        Self { children, begins }
    }

    fn of(&self, place: u32) -> &[u32] {
        let place = place as usize;
        &self.children[self.begins[place]..self.begins[place + 1]]
    }

    fn of_mut(&mut self, place: u32) -> &mut [u32] {
        let place = place as usize;
        &mut self.children[self.begins[place]..self.begins[place + 1]]
    }
}

/// What siblings are compared by.
#[derive(Debug, Clone, Copy)]
enum Standing {
    /// More than any number.
    Infinite,
    /// Shares over usage; the usage is not 0 unless the shares are.
    Finite { shares: u32, usage: u128 },
}

fn standing(node: &Node) -> Standing {
    match node.shares {
        Shares::Parent => Standing::Infinite,
        Shares::Raw(0) => Standing::Finite { shares: 0, usage: 1 },
        Shares::Raw(_) if node.usage == 0 => Standing::Infinite,
        Shares::Raw(shares) => Standing::Finite { shares, usage: node.usage },
    }
}

/// Order of two siblings by level fair share, the lower first.
fn by_level(a: &Node, b: &Node) -> Ordering {
    match (standing(a), standing(b)) {
        (Standing::Infinite, Standing::Infinite) => Ordering::Equal,
        (Standing::Infinite, Standing::Finite { .. }) => Ordering::Greater,
        (Standing::Finite { .. }, Standing::Infinite) => Ordering::Less,
        (Standing::Finite { shares, usage }, Standing::Finite { shares: s, usage: u }) => {
            wide::mul(u128::from(shares), u).cmp(&wide::mul(u128::from(s), usage))
        }
    }
}
