//! Which lines of the tree are shown, and how far are they indented?

use std::collections::BTreeMap;

use penstock_proto::v1;

use super::fields::Line;
use super::options::Options;

/// The lines that `options` ask for, in the controller's order.
///
/// A line is indented by the number of lines above it, in the tree, that are shown too.
pub(super) fn choose(options: &Options, rows: &[v1::ShareRow], cluster: &str) -> Vec<Line> {
    let mut depths: BTreeMap<u32, usize> = BTreeMap::new();
    let mut lines = Vec::new();
    for share in rows {
        let above = depths.get(&share.parent).copied();
        if !wanted(options, share) {
            if let Some(above) = above.filter(|_| share.user.is_empty()) {
                depths.insert(share.association, above);
            }
            continue;
        }
        let indent = if options.users_only { 0 } else { above.unwrap_or(0) };
        depths.insert(share.association, indent + 1);
        lines.push(Line { share: share.clone(), indent, cluster: cluster.to_owned() });
    }
    lines
}

fn wanted(options: &Options, share: &v1::ShareRow) -> bool {
    let of_account = options.accounts.is_empty() || options.accounts.contains(&share.account);
    let of_user = match (&options.users, share.user.as_str()) {
        (_, "") => !options.users_only,
        (None, _) => true,
        (Some(users), user) => users.iter().any(|wanted| wanted == user),
    };
    of_account && of_user
}

/// The tree of the worked example, as a controller tells of it.
#[cfg(test)]
pub(super) fn example() -> v1::ListSharesReply {
    struct Row(u32, u32, &'static str, &'static str, u32, f64, u64, f64, f64, u32);
    let rows = [
        Row(1, 0, "root", "", 0, 0.0, 700, 1.0, 0.0, 0),
        Row(2, 1, "physics", "", 60, 0.6, 400, 4.0 / 7.0, 1.05, 0),
        Row(3, 2, "physics", "alice", 10, 0.5, 100, 0.25, 2.0, 6),
        Row(4, 2, "physics", "bob", 10, 0.5, 300, 0.75, 0.5 / 0.75, 5),
        Row(5, 1, "bio", "", 40, 0.4, 300, 3.0 / 7.0, 14.0 / 15.0, 0),
        Row(6, 5, "bio", "carol", 1, 0.2, 0, 0.0, f64::INFINITY, 4),
        Row(7, 5, "genomics", "", 3, 0.6, 200, 2.0 / 3.0, 0.9, 0),
        Row(8, 7, "genomics", "dave", 1, 0.5, 50, 0.25, 2.0, 3),
        Row(9, 7, "genomics", "erin", 1, 0.5, 150, 0.75, 0.5 / 0.75, 2),
        Row(10, 5, "imaging", "", 1, 0.2, 100, 1.0 / 3.0, 0.6, 0),
        Row(11, 10, "imaging", "frank", 1, 1.0, 100, 1.0, 1.0, 1),
    ];
    let row = |row: Row| v1::ShareRow {
        association: row.0,
        parent: row.1,
        account: row.2.into(),
        user: row.3.into(),
        raw_shares: (row.0 > 1).then_some(row.4),
        norm_shares: row.5,
        raw_usage: row.6,
        norm_usage: f64::from(u32::try_from(row.6).expect("small")) / 700.0,
        effective_usage: row.7,
        level_fs: row.8,
        fair_share: (row.9 > 0).then(|| f64::from(row.9) / 6.0),
        rank: row.9,
        ..v1::ShareRow::default()
    };
    v1::ListSharesReply {
        rows: rows.into_iter().map(row).collect(),
        fairshare_weight: 10_000,
        half_life_secs: 604_800,
        users: 6,
        now_ms: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::{Choice, read};
    use super::*;

    fn sshare(line: &[&str]) -> String {
        let args: Vec<String> = line.iter().map(|&word| word.to_owned()).collect();
        let Ok(Choice::List(options)) = read("sshare", &args) else {
            panic!("{line:?} is refused");
        };
        let lines = choose(&options, &example().rows, "bench");
        String::from_utf8(options.report.text(&lines)).expect("UTF-8")
    }

    #[test]
    fn the_worked_example_is_listed_as_slurm_lists_it() {
        assert_eq!(
            sshare(&["-a"]),
            "\
Account                    User  RawShares  NormShares    RawUsage  EffectvUsage  FairShare 
-------------------- ---------- ---------- ----------- ----------- ------------- ---------- 
root                                          0.000000         700      1.000000            
 physics                                60    0.600000         400      0.571429            
  physics                 alice         10    0.500000         100      0.250000   1.000000 
  physics                   bob         10    0.500000         300      0.750000   0.833333 
 bio                                    40    0.400000         300      0.428571            
  bio                     carol          1    0.200000           0      0.000000   0.666667 
  genomics                               3    0.600000         200      0.666667            
   genomics                dave          1    0.500000          50      0.250000   0.500000 
   genomics                erin          1    0.500000         150      0.750000   0.333333 
  imaging                                1    0.200000         100      0.333333            
   imaging                frank          1    1.000000         100      1.000000   0.166667 
"
        );
    }

    #[test]
    fn long_columns_are_those_of_slurm() {
        let long = sshare(&["-l", "-u", "carol", "-A", "bio,root"]);
        let lines: Vec<&str> = long.lines().collect();
        assert_eq!(
            lines[0],
            "Account                    User  RawShares  NormShares    RawUsage   NormUsage  \
             EffectvUsage  FairShare    LevelFS                    GrpTRESMins                    \
             TRESRunMins "
        );
        let blanks = " ".repeat(18);
        let root =
            format!("root{}0.000000         700{blanks}1.000000            ", " ".repeat(42));
        assert!(lines[2].starts_with(&root), "{}", lines[2]);
        assert!(lines[4].contains("   0.000000   0.666667        inf "), "{}", lines[4]);
    }

    #[test]
    fn rows_are_chosen_by_account_and_user() {
        let table: &[(&[&str], &str)] = &[
            (&["-U", "-u", "dave,erin"], "genomics|dave\ngenomics|erin\n"),
            (&["-A", "genomics", "-u", "erin"], "genomics|\n genomics|erin\n"),
            (&["-A", "physics,imaging", "-u", "x"], "physics|\nimaging|\n"),
            (&["-A", "nope", "-a"], ""),
            (
                &["-u", "frank"],
                "root|\n physics|\n bio|\n  genomics|\n  imaging|\n   imaging|frank\n",
            ),
        ];
        for (line, expect) in table {
            let line: Vec<&str> =
                line.iter().copied().chain(["-nP", "-o", "account,user"]).collect();
            assert_eq!(sshare(&line), *expect, "{line:?}");
        }
        assert_eq!(
            sshare(&["-p", "-U", "-u", "bob", "-o", "cluster,id,user%20,levelfs"]),
            "Cluster|ID|User|LevelFS|\nbench|4|bob|0.666667|\n"
        );
        assert!(sshare(&["-am"]).starts_with("Account                    User    Partition  Raw"));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in [&["--foo"][..], &["-o", "foo"], &["-M", "bench"], &["--json"]] {
            let args: Vec<String> = line.iter().map(|&word| word.to_owned()).collect();
            assert_eq!(read("sshare", &args).err(), Some(1), "{line:?}");
        }
    }
}
