//! Why is the fair-share factor of a user what it is?
//!
//! The path from the root down to the user, at each level what it is entitled to and what it used,
//! and the points that come of it for a job submitted now.

use penstock_proto::v1;

/// The text about every association of `user` in `accounts`, or in all where none is named; `None`
/// where there is none.
pub(super) fn text(reply: &v1::ListSharesReply, user: &str, accounts: &[String]) -> Option<String> {
    let wanted = |row: &&v1::ShareRow| {
        row.user == user && (accounts.is_empty() || accounts.contains(&row.account))
    };
    let mine: Vec<&v1::ShareRow> = reply.rows.iter().filter(wanted).collect();
    if mine.is_empty() {
        return None;
    }
    let texts: Vec<String> = mine.into_iter().map(|row| of_association(reply, row)).collect();
    Some(texts.join("\n"))
}

fn of_association(reply: &v1::ListSharesReply, row: &v1::ShareRow) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    let factor = row.fair_share.unwrap_or(0.0);
    let partition = match row.partition.as_str() {
        "" => String::new(),
        name => format!(" in partition {name}"),
    };
    line(format!("User {} in account {}{partition}", row.user, row.account));
    line(format!(
        "  {:<24} {:>14} {:>10} {:>14} {:>10} {:>10}",
        "level", "shares", "entitled", "usage", "used", "level FS"
    ));
    for level in path(reply, row) {
        line(level_line(reply, level));
    }
    line(String::new());
    for level in path(reply, row).iter().skip(1) {
        line(format!("  {}", sentence(reply, level)));
    }
    line(format!(
        "  Accounts with a higher level FS come first with all their users, then users within an \
         account: {} ranks {} of {} from the front.",
        row.user,
        (reply.users + 1).saturating_sub(row.rank.max(1)),
        reply.users
    ));
    let points = factor * f64::from(reply.fairshare_weight);
    line(format!(
        "  Fair-share factor {factor:.6} (rank {} of {}) x PriorityWeightFairshare {} = {} points \
         for a job submitted now.",
        row.rank,
        reply.users,
        reply.fairshare_weight,
        points.floor()
    ));
    if reply.fairshare_weight == 0 {
        line("  The weight is 0: fair share does not count in the order of jobs.".to_owned());
    }
    line(match reply.half_life_secs {
        0 => "  Usage does not decay.".to_owned(),
        secs => format!("  Usage counts half after {}.", span(secs)),
    });
    out
}

/// From the root down to the association.
fn path<'r>(reply: &'r v1::ListSharesReply, row: &'r v1::ShareRow) -> Vec<&'r v1::ShareRow> {
    let mut path = vec![row];
    let mut at = row;
    // No longer than the tree is large, whatever the parents say.
    while path.len() <= reply.rows.len()
        && let Some(above) = reply.rows.iter().find(|other| other.association == at.parent)
    {
        path.push(above);
        at = above;
    }
    path.reverse();
    path
}

fn name(row: &v1::ShareRow) -> &str {
    if row.user.is_empty() { &row.account } else { &row.user }
}

/// Shares of all children of the same parent.
fn all_shares(reply: &v1::ListSharesReply, row: &v1::ShareRow) -> u64 {
    let siblings = reply.rows.iter().filter(|other| other.parent == row.parent);
    siblings.map(|other| u64::from(other.raw_shares.unwrap_or(0))).sum()
}

fn level_line(reply: &v1::ListSharesReply, row: &v1::ShareRow) -> String {
    let depth = usize::try_from(row.depth).unwrap_or(0).min(20);
    let label = format!("{:depth$}{}", "", name(row));
    if row.parent == 0 {
        let line = format!("  {label:<24} {:>14} {:>10} {:>14}", "", "", row.raw_usage);
        return line;
    }
    let shares = match row.raw_shares {
        None => "parent".to_owned(),
        Some(shares) => format!("{shares} of {}", all_shares(reply, row)),
    };
    format!(
        "  {label:<24} {shares:>14} {:>9.2}% {:>14} {:>9.2}% {:>10.4}",
        row.norm_shares * 100.0,
        row.raw_usage,
        row.effective_usage * 100.0,
        row.level_fs
    )
}

/// What the level FS of one level means.
fn sentence(reply: &v1::ListSharesReply, row: &v1::ShareRow) -> String {
    let above = reply.rows.iter().find(|other| other.association == row.parent);
    let above = above.map_or("the tree", name);
    let what = name(row);
    if row.raw_shares.is_none() {
        return format!("{what} has no share of its own: it counts as part of {above}.");
    }
    if row.raw_usage == 0 {
        return format!("{what} used nothing and goes before all in {above} that used something.");
    }
    let (entitled, used) = (row.norm_shares * 100.0, row.effective_usage * 100.0);
    let verdict = if row.level_fs > 1.0 {
        "less than its share, so it goes before those that used more than theirs"
    } else if row.level_fs < 1.0 {
        "more than its share, so it goes behind those that used less than theirs"
    } else {
        "just its share"
    };
    format!("{what} is entitled to {entitled:.2} % of {above} and used {used:.2} %: {verdict}.")
}

fn span(secs: u32) -> String {
    match secs {
        secs if secs % 86_400 == 0 => format!("{} days", secs / 86_400),
        secs if secs % 3600 == 0 => format!("{} hours", secs / 3600),
        secs => format!("{secs} seconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::example;
    use super::*;

    #[test]
    fn the_path_of_a_user_is_told_with_its_points() {
        let mut reply = example();
        for (row, depth) in reply.rows.iter_mut().zip([0, 1, 2, 2, 1, 2, 2, 3, 3, 2, 3]) {
            row.depth = depth;
        }
        assert_eq!(
            text(&reply, "erin", &[]).expect("known"),
            "\
User erin in account genomics
  level                            shares   entitled          usage       used   level FS
  root                                                          700
   bio                          40 of 100     40.00%            300     42.86%     0.9333
    genomics                       3 of 5     60.00%            200     66.67%     0.9000
     erin                          1 of 2     50.00%            150     75.00%     0.6667

  bio is entitled to 40.00 % of root and used 42.86 %: more than its share, so it goes behind those that used less than theirs.
  genomics is entitled to 60.00 % of bio and used 66.67 %: more than its share, so it goes behind those that used less than theirs.
  erin is entitled to 50.00 % of genomics and used 75.00 %: more than its share, so it goes behind those that used less than theirs.
  Accounts with a higher level FS come first with all their users, then users within an account: erin ranks 5 of 6 from the front.
  Fair-share factor 0.333333 (rank 2 of 6) x PriorityWeightFairshare 10000 = 3333 points for a job submitted now.
  Usage counts half after 7 days.
"
        );
        let carol = text(&reply, "carol", &[]).expect("known");
        assert!(carol.contains("carol used nothing and goes before all in bio"), "{carol}");
        assert!(carol.contains("= 6666 points"), "{carol}");
        assert_eq!(text(&reply, "nobody", &[]), None);
        assert_eq!(text(&reply, "carol", &["elsewhere".to_owned()]), None);
    }

    #[test]
    fn parents_that_go_round_end() {
        let mut reply = example();
        reply.rows[1].parent = 2;
        assert!(text(&reply, "alice", &[]).is_some());
    }
}
