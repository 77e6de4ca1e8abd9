//! Does the fair tree rank as the algorithm says, whatever the tree?

use std::collections::BTreeMap;

use penstock_core::Cluster;
use penstock_core::cluster::Records;
use penstock_core::model::{AssocId, Association, DecayedUsage, ROOT_ACCOUNT, Shares, UsageOwner};
use penstock_core::policy::{FairShare, decay};
use penstock_vocab::{Timestamp, TresKind};
use proptest::prelude::*;

use crate::common::{START, job, world};

/// An association: number, parent, whether it is a user, shares, own usage in unit-seconds.
type Line = (u32, u32, bool, Shares, u64);

fn cluster(lines: &[Line]) -> Cluster {
    let mut records = Records::default();
    for (id, parent, is_user, shares, usage) in lines {
        let (account, user) = (format!("a{id}"), format!("u{id}"));
        let user = is_user.then_some(user.as_str());
        let mut assoc = Association::new(AssocId(*id), &account, user, Some(AssocId(*parent)));
        if *id == AssocId::ROOT.0 {
            assoc = Association::new(AssocId::ROOT, ROOT_ACCOUNT, None, None);
        }
        assoc.shares = *shares;
        records.accounts.assocs.push(assoc);
        let used = u128::from(*usage) * 1_000 * decay::UNIT_MS;
        let tres = BTreeMap::from([(TresKind::Billing, used)]);
        let used = DecayedUsage { as_of: START, half_life_secs: 0, tres, wall: 0 };
        if *usage > 0 {
            records.accounts.usage.push((UsageOwner::Assoc(AssocId(*id)), used));
        }
    }
    let mut config = penstock_core::model::Config::default();
    config.scheduling.fairshare.half_life_secs = 0;
    Cluster::restore(records, config.into(), START)
}

fn raw(shares: u32) -> Shares {
    Shares::Raw(shares)
}

/// The worked example of the reference.
fn example() -> Vec<Line> {
    vec![
        (1, 1, false, raw(1), 0),
        (10, 1, false, raw(60), 0),
        (11, 10, true, raw(10), 100),
        (12, 10, true, raw(10), 300),
        (20, 1, false, raw(40), 0),
        (21, 20, true, raw(1), 0),
        (30, 20, false, raw(3), 0),
        (31, 30, true, raw(1), 50),
        (32, 30, true, raw(1), 150),
        (40, 20, false, raw(1), 0),
        (41, 40, true, raw(1), 100),
    ]
}

#[test]
fn the_worked_example_comes_out_to_the_digit() {
    let fair = FairShare::new(&cluster(&example()), START);
    // Number, S, U, LF, rank, factor.
    let table: [(u32, u64, u64, Option<u64>, u32, u64); 10] = [
        (10, 600_000, 571_429, Some(1_050_000), 0, 0),
        (11, 500_000, 250_000, Some(2_000_000), 6, 1_000_000),
        (12, 500_000, 750_000, Some(666_667), 5, 833_333),
        (20, 400_000, 428_571, Some(933_333), 0, 0),
        (21, 200_000, 0, None, 4, 666_667),
        (30, 600_000, 666_667, Some(900_000), 0, 0),
        (31, 500_000, 250_000, Some(2_000_000), 3, 500_000),
        (32, 500_000, 750_000, Some(666_667), 2, 333_333),
        (40, 200_000, 333_333, Some(600_000), 0, 0),
        (41, 1_000_000, 1_000_000, Some(1_000_000), 1, 166_667),
    ];
    for (id, shares, usage, level, rank, factor) in table {
        let row = fair.row(AssocId(id)).unwrap();
        let have = (row.norm_shares, row.effective_usage, row.level_fs, row.rank, row.factor);
        assert_eq!(have, (shares, usage, level, rank, factor), "association {id}");
    }
    let root = fair.row(AssocId::ROOT).unwrap();
    assert_eq!((root.norm_shares, root.effective_usage, root.raw_usage), (0, 1_000_000, 700));
    assert_eq!((root.depth, root.parent), (0, None));
    let dave = fair.row(AssocId(31)).unwrap();
    assert_eq!((dave.raw_usage, dave.norm_usage, dave.depth), (50, 71_429, 3));
    let path: Vec<_> = fair.explain(AssocId(31)).iter().map(|row| row.id.0).collect();
    assert_eq!(path, [1, 20, 30, 31]);
}

fn ranks(lines: &[Line]) -> Vec<(u32, u32)> {
    let fair = FairShare::new(&cluster(lines), START);
    fair.rows().filter(|row| row.is_user).map(|row| (row.id.0, row.rank)).collect()
}

#[test]
fn ties_share_a_rank_and_the_next_one_skips() {
    let users = |usage: [u64; 4]| -> Vec<Line> {
        let user = |(n, used): (u32, u64)| (n, 1, true, raw(1), used);
        let root = (1, 1, false, raw(1), 0);
        std::iter::once(root).chain((2..).zip(usage).map(user)).collect()
    };
    assert_eq!(ranks(&users([5, 5, 5, 9])), [(2, 4), (3, 4), (4, 4), (5, 1)]);
    assert_eq!(ranks(&users([9, 5, 7, 7])), [(2, 1), (3, 4), (4, 3), (5, 3)]);
    assert_eq!(ranks(&users([0, 0, 0, 0])), [(2, 4), (3, 4), (4, 4), (5, 4)]);
}

#[test]
fn a_tied_account_begins_with_the_rank_before_it() {
    // Two accounts of equal standing: the first user of the second has the last rank of the first.
    let lines = [
        (1, 1, false, raw(1), 0),
        (2, 1, false, raw(1), 0),
        (3, 1, false, raw(1), 0),
        (4, 2, true, raw(1), 10),
        (5, 2, true, raw(1), 20),
        (6, 3, true, raw(1), 10),
        (7, 3, true, raw(1), 20),
    ];
    assert_eq!(ranks(&lines), [(4, 4), (5, 3), (6, 3), (7, 1)]);
    // A user goes before an account of equal standing, whose best user ties with it.
    let lines = [
        (1, 1, false, raw(1), 0),
        (2, 1, false, raw(1), 0),
        (3, 2, true, raw(1), 30),
        (4, 1, true, raw(1), 30),
    ];
    assert_eq!(ranks(&lines), [(3, 2), (4, 2)]);
}

#[test]
fn no_shares_and_parent_shares_are_the_ends_of_the_scale() {
    let lines = [
        (1, 1, false, raw(1), 0),
        (2, 1, true, raw(0), 0),
        (3, 1, true, raw(1), 1_000),
        (4, 1, true, Shares::Parent, 9_000),
    ];
    assert_eq!(ranks(&lines), [(2, 1), (3, 2), (4, 3)]);
    // The children of an account with the parent's shares are compared with its siblings.
    let lines = [
        (1, 1, false, raw(1), 0),
        (2, 1, false, Shares::Parent, 0),
        (3, 2, true, raw(1), 100),
        (4, 2, true, raw(1), 300),
        (5, 1, true, raw(2), 400),
    ];
    let fair = FairShare::new(&cluster(&lines), START);
    assert_eq!(ranks(&lines), [(3, 3), (4, 1), (5, 2)]);
    let row = fair.row(AssocId(3)).unwrap();
    assert_eq!((row.norm_shares, row.effective_usage, row.depth), (250_000, 125_000, 2));
    let path: Vec<_> = fair.explain(AssocId(3)).iter().map(|row| row.id.0).collect();
    assert_eq!(path, [1, 2, 3]);
}

#[test]
fn who_has_no_association_has_the_whole_factor() {
    let mut w = world().scheduling(|s| s.fairshare.half_life_secs = 0).build();
    w.submit(&job());
    w.run_plan();
    w.advance(100);
    let fair = FairShare::new(&w.cluster, w.now);
    assert_eq!(fair.factor(AssocId::ROOT), 1_000_000);
    assert_eq!(fair.factor(AssocId(77)), 0);
    assert_eq!(fair.row(AssocId::ROOT).unwrap().raw_usage, 100);
    assert_eq!(fair.explain(AssocId(77)), []);
}

#[test]
fn circles_and_orphans_do_no_harm() {
    let lines = [
        (1, 1, false, raw(1), 0),
        (2, 3, false, raw(1), 5),
        (3, 2, false, raw(1), 5),
        (4, 2, true, raw(1), 5),
        (5, 99, true, raw(1), 5),
    ];
    let fair = FairShare::new(&cluster(&lines), START);
    assert_eq!(fair.users(), 1);
    assert_eq!(fair.factor(AssocId(5)), 1_000_000);
    assert_eq!(fair.factor(AssocId(4)), 0);
    assert!(fair.explain(AssocId(4)).len() < 3);
}

#[test]
fn a_tree_of_any_depth_is_walked() {
    let mut lines = vec![(1, 1, false, raw(1), 0)];
    lines.extend((2..20_000).map(|n| (n, n - 1, false, raw(1), 0)));
    lines.push((20_000, 19_999, true, raw(1), 7));
    let fair = FairShare::new(&cluster(&lines), START);
    let row = fair.row(AssocId(20_000)).unwrap();
    assert_eq!((row.rank, row.depth), (1, 19_999));
    assert_eq!(fair.row(AssocId(5)).unwrap().raw_usage, 7);
}

/// The algorithm as it is told, in floating point and by recursion, written apart from the engine.
struct Slow<'a> {
    lines: &'a [Line],
    rank: u32,
    left: u32,
    ranks: BTreeMap<u32, u32>,
}

impl Slow<'_> {
    fn children(&self, of: u32) -> Vec<Line> {
        let mut found = Vec::new();
        for line in self.lines.iter().filter(|line| line.1 == of && line.0 != of) {
            if !line.2 && line.3 == Shares::Parent {
                found.extend(self.children(line.0));
            } else {
                found.push(*line);
            }
        }
        found
    }

    fn usage(&self, of: u32) -> u64 {
        let own = self.lines.iter().find(|line| line.0 == of).map_or(0, |line| line.4);
        let below = self.lines.iter().filter(|line| line.1 == of && line.0 != of);
        own + below.map(|line| self.usage(line.0)).sum::<u64>()
    }

    /// Shares over usage; both are so small that the quotient tells every two fractions apart.
    fn level(&self, line: &Line) -> f64 {
        let usage = u32::try_from(self.usage(line.0)).unwrap();
        match line.3 {
            Shares::Parent => f64::INFINITY,
            Shares::Raw(0) => 0.0,
            Shares::Raw(shares) => f64::from(shares) / f64::from(usage),
        }
    }

    fn walk(&mut self, account: u32, tied: bool) {
        let mut children: Vec<_> =
            self.children(account).into_iter().map(|line| (self.level(&line), line)).collect();
        children.sort_by(|(a, x), (b, y)| b.total_cmp(a).then(y.2.cmp(&x.2)).then(x.0.cmp(&y.0)));
        let mut before = None;
        for (level, line) in children {
            let tied = before.map_or(tied, |before: f64| before.total_cmp(&level).is_eq());
            if line.2 {
                if !tied {
                    self.rank = self.left;
                }
                self.ranks.insert(line.0, self.rank);
                self.left -= 1;
            } else {
                self.walk(line.0, tied);
            }
            before = Some(level);
        }
    }
}

fn any_tree() -> impl Strategy<Value = Vec<Line>> {
    let shares = prop_oneof![6 => (0..4u32).prop_map(Shares::Raw), 1 => Just(Shares::Parent)];
    let line = (any::<prop::sample::Index>(), any::<bool>(), shares, 0..5u64);
    prop::collection::vec(line, 1..40).prop_map(|lines| {
        let mut tree = vec![(1, 1, false, raw(1), 0)];
        for ((parent, is_user, shares, usage), id) in lines.into_iter().zip(2..) {
            let accounts: Vec<u32> = tree.iter().filter(|l| !l.2).map(|l: &Line| l.0).collect();
            tree.push((id, *parent.get(&accounts), is_user, shares, usage * 60));
        }
        tree
    })
}

proptest! {
    #[test]
    fn ranks_are_those_of_the_slow_walk(tree in any_tree()) {
        let users = u32::try_from(tree.iter().filter(|line| line.2).count()).unwrap();
        let mut slow =
            Slow { lines: &tree, rank: users, left: users, ranks: BTreeMap::new() };
        slow.walk(1, false);
        let fair = FairShare::new(&cluster(&tree), START);
        prop_assert_eq!(fair.users(), users);
        for row in fair.rows() {
            prop_assert_eq!(row.rank, slow.ranks.get(&row.id.0).copied().unwrap_or(0));
            prop_assert_eq!(row.raw_usage, slow.usage(row.id.0));
            if row.is_user {
                let factor = (2_000_000 * u64::from(row.rank) / u64::from(users)).div_ceil(2);
                prop_assert_eq!(fair.factor(row.id), factor);
            }
        }
    }

    #[test]
    fn using_more_never_raises_a_level(tree in any_tree(), who in any::<prop::sample::Index>()) {
        let users: Vec<usize> = (0..tree.len()).filter(|at| tree[*at].2).collect();
        prop_assume!(!users.is_empty());
        let at = *who.get(&users);
        let id = AssocId(tree[at].0);
        let before = FairShare::new(&cluster(&tree), START).row(id).unwrap();
        let mut more = tree;
        more[at].4 += 1_000;
        let after = FairShare::new(&cluster(&more), START).row(id).unwrap();
        let level = |row: penstock_core::policy::Row| row.level_fs.unwrap_or(u64::MAX);
        prop_assert!(level(after) <= level(before), "{after:?} {before:?}");
        prop_assert!(after.raw_usage == before.raw_usage + 1_000);
    }

    #[test]
    fn any_numbers_have_an_answer(
        usage in prop::collection::vec(any::<u64>(), 3),
        shares in prop::collection::vec(any::<u32>(), 3),
        now in any::<i64>(),
    ) {
        let mut lines = vec![(1, 1, false, raw(1), u64::MAX)];
        for at in 0..3 {
            let id = u32::try_from(at).unwrap() * 2_000_000_000 / 2 + 2;
            lines.push((id, 1, at != 1, raw(shares[at]), usage[at]));
        }
        let fair = FairShare::new(&cluster(&lines), Timestamp(now));
        for row in fair.rows() {
            prop_assert!(row.factor <= 1_000_000 && row.norm_usage <= 1_000_000);
        }
    }
}
