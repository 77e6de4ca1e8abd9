//! What do the reports say?

use std::collections::BTreeMap;

use penstock_proto::v1;

use crate::listing::{Cell, Clock, Report, ReportField};

use super::options::{Kind, Options};
use super::units::{Unit, cost};

/// One line of any report, its values as they are told.
#[derive(Debug, Clone, Default, PartialEq)]
struct Line {
    cluster: String,
    account: String,
    login: String,
    proper: String,
    tres: String,
    used: String,
    /// Never measured: none, in the unit.
    energy: String,
    /// Allocated, down, planned down, idle, planned and reported; or by size of jobs.
    parts: [String; 6],
}

macro_rules! field {
    ($names:expr, $header:expr, $width:expr, $value:expr) => {
        ReportField { names: $names, header: $header, width: $width, value: $value }
    };
}

/// Fields of all reports but that of sizes.
const FIELDS: &[ReportField<Line>] = &[
    field!(&["Cluster"], "Cluster", 9, |line| Cell::text(&line.cluster)),
    field!(&["Account", "Accounts"], "Account", 15, |line| Cell::text(&line.account)),
    field!(&["Login"], "Login", 9, |line| Cell::text(&line.login)),
    field!(&["Proper"], "Proper Name", 15, |line| Cell::text(&line.proper)),
    field!(&["TresName"], "TRES Name", 14, |line| Cell::text(&line.tres)),
    field!(&["Used"], "Used", 8, |line| Cell::text(&line.used)),
    field!(&["Energy"], "Energy", 8, |line| Cell::text(&line.energy)),
    field!(&["Allocated"], "Allocated", 8, |line| Cell::text(&line.parts[0])),
    field!(&["Down"], "Down", 8, |line| Cell::text(&line.parts[1])),
    field!(&["PlannedDown", "PLNDDown"], "PLND Down", 8, |line| Cell::text(&line.parts[2])),
    field!(&["Idle"], "Idle", 8, |line| Cell::text(&line.parts[3])),
    field!(&["Planned"], "Planned", 8, |line| Cell::text(&line.parts[4])),
    field!(&["Reported"], "Reported", 8, |line| Cell::text(&line.parts[5])),
];

/// Fields of the report of sizes.
const SIZES: &[ReportField<Line>] = &[
    field!(&["Cluster"], "Cluster", 9, |line| Cell::text(&line.cluster)),
    field!(&["Account"], "Account", 9, |line| Cell::text(&line.account)),
    field!(&["size0"], "0-49 CPUs", 13, |line| Cell::text(&line.parts[0])),
    field!(&["size1"], "50-249 CPUs", 13, |line| Cell::text(&line.parts[1])),
    field!(&["size2"], "250-499 CPUs", 13, |line| Cell::text(&line.parts[2])),
    field!(&["size3"], "500-999 CPUs", 13, |line| Cell::text(&line.parts[3])),
    field!(&["size4"], ">= 1000 CPUs", 13, |line| Cell::text(&line.parts[4])),
    field!(&["share"], "% of cluster", 12, |line| Cell::text(&line.parts[5])),
];

const RULE: &str =
    "--------------------------------------------------------------------------------\n";

/// The heading and the table.
///
/// # Errors
/// When another cluster is meant, a format names no field, no resource is counted under a name, or
/// there are no rates.
pub(super) fn text(
    options: &Options,
    usage: &v1::ReportUsageReply,
    tree: &v1::ListAccountsReply,
    clock: &Clock,
) -> Result<Vec<u8>, String> {
    let ours = |name: &String| name.eq_ignore_ascii_case(&usage.cluster);
    if !options.clusters.is_empty() && !options.clusters.iter().any(ours) {
        let named = options.clusters.join(",");
        return Err(format!("this is cluster {}; nothing is known of {named}", usage.cluster));
    }
    let unit = options.unit;
    if unit == Unit::Cost && usage.cost_per_hour.is_empty() {
        return Err("the cluster file sets no rates; without them nothing has a cost".to_owned());
    }
    if unit == Unit::Cost && options.kind == Kind::Sizes {
        return Err("sizes are told in time, not in cost".to_owned());
    }
    let view = View { options, usage, tree, kinds: kinds(options, usage)? };
    let lines = view.lines();
    let default = view.default_format();
    let format = options.format.as_deref().unwrap_or(&default);
    let fields = if options.kind == Kind::Sizes { SIZES } else { FIELDS };
    let mut report = Report::new(fields, format, options.style.clone(), options.header)
        .map_err(|name| format!("Unknown field '{name}'"))?;
    view.widen(&mut report);
    let mut out = Vec::new();
    if options.header {
        out.extend_from_slice(heading(options, usage, clock).as_bytes());
    }
    out.extend_from_slice(&report.text(&lines));
    Ok(out)
}

fn heading(options: &Options, usage: &v1::ReportUsageReply, clock: &Clock) -> String {
    let title = match options.kind {
        Kind::Utilization | Kind::Unbuilt(_) => "Cluster Utilization".to_owned(),
        Kind::AccountByUser => "Cluster/Account/User Utilization".to_owned(),
        Kind::UserByAccount => "Cluster/User/Account Utilization".to_owned(),
        Kind::Sizes => "Job Sizes".to_owned(),
        Kind::Top => format!("Top {} Users", options.top),
    };
    let time = |ms: i64| {
        let mut out = String::new();
        clock.push(&mut out, ms);
        out
    };
    let (start, end) = (options.start_ms, options.end_ms);
    let secs = end.saturating_sub(start) / 1000;
    let span =
        if options.kind == Kind::Utilization { String::new() } else { format!(" ({secs} secs)") };
    let unit = options.unit;
    let what = match (options.kind, unit, &options.tres) {
        (_, Unit::Cost, _) if usage.currency.is_empty() => "Cost reported".to_owned(),
        (_, Unit::Cost, _) => format!("Cost reported in {}", usage.currency),
        (Kind::Sizes, _, _) => format!("Time reported in {}", unit.name()),
        (_, Unit::Percent, _) => format!("Usage reported in {}", unit.name()),
        (_, _, None) => format!("Usage reported in CPU {}", unit.name()),
        (_, _, Some(_)) => format!("Usage reported in TRES {}", unit.name()),
    };
    format!("{RULE}{title} {} - {}{span}\n{what}\n{RULE}", time(start), time(end - 1000))
}

/// The resources that are told of.
fn kinds(options: &Options, usage: &v1::ReportUsageReply) -> Result<Vec<String>, String> {
    let Some(wanted) = &options.tres else { return Ok(vec!["cpu".to_owned()]) };
    let mut known: Vec<String> =
        usage.capacity_secs.iter().map(|amount| amount.kind.clone()).collect();
    for amount in usage.lines.iter().flat_map(|line| &line.tres_secs) {
        if !known.contains(&amount.kind) {
            known.push(amount.kind.clone());
        }
    }
    if wanted.iter().any(|kind| kind == "all") {
        return Ok(known);
    }
    let found: Vec<String> = wanted.iter().filter(|kind| known.contains(kind)).cloned().collect();
    if found.is_empty() {
        return Err(format!("No valid TRES given; there are {}", known.join(", ")));
    }
    Ok(found)
}

struct View<'a> {
    options: &'a Options,
    usage: &'a v1::ReportUsageReply,
    tree: &'a v1::ListAccountsReply,
    kinds: Vec<String>,
}

/// Amounts times seconds, summed by kind.
#[derive(Debug, Clone, Default)]
struct Sum {
    amounts: BTreeMap<String, u64>,
    by_size: [u64; 5],
}

impl Sum {
    fn add(&mut self, line: &v1::UsageLine) {
        for amount in &line.tres_secs {
            let place = self.amounts.entry(amount.kind.clone()).or_default();
            *place = place.saturating_add(amount.count);
        }
        for (place, secs) in self.by_size.iter_mut().zip(&line.cpu_secs_by_size) {
            *place = place.saturating_add(*secs);
        }
    }

    fn of(&self, kind: &str) -> u64 {
        self.amounts.get(kind).copied().unwrap_or(0)
    }

    fn list(&self) -> Vec<v1::TresAmount> {
        let amount =
            |(kind, count): (&String, &u64)| v1::TresAmount { kind: kind.clone(), count: *count };
        self.amounts.iter().map(amount).collect()
    }
}

fn of(list: &[v1::TresAmount], kind: &str) -> u64 {
    list.iter().find(|amount| amount.kind == kind).map_or(0, |amount| amount.count)
}

impl View<'_> {
    fn lines(&self) -> Vec<Line> {
        match self.options.kind {
            Kind::Utilization | Kind::Unbuilt(_) => self.utilization(),
            Kind::AccountByUser => self.accounts(),
            Kind::UserByAccount => self.users(),
            Kind::Sizes => self.sizes(),
            Kind::Top => self.top(),
        }
    }

    fn default_format(&self) -> String {
        let with_tres = self.options.tres.is_some() && self.options.unit != Unit::Cost;
        let tres = if with_tres { ",tresname" } else { "" };
        let energy = if with_tres { "" } else { ",energy" };
        match self.options.kind {
            Kind::Utilization | Kind::Unbuilt(_) => {
                format!("cluster{tres},allocated,down,planneddown,idle,planned,reported")
            }
            Kind::AccountByUser => format!("cluster,account,login,proper{tres},used{energy}"),
            Kind::UserByAccount | Kind::Top => {
                format!("cluster,login,proper,account{tres},used{energy}")
            }
            Kind::Sizes => "cluster,account,size0,size1,size2,size3,size4,share".to_owned(),
        }
    }

    fn widen(&self, report: &mut Report<Line>) {
        if self.options.tree {
            report.widen("Account", -20);
        }
        if self.options.unit.is_double() && self.options.format.is_none() {
            for header in
                ["Used", "Energy", "Allocated", "Down", "PLND Down", "Idle", "Planned", "Reported"]
            {
                report.widen(header, 17);
            }
        }
    }

    fn base(&self) -> Line {
        let energy = match self.options.unit {
            Unit::Cost => String::new(),
            unit => unit.text(0, 0),
        };
        Line { cluster: self.usage.cluster.clone(), energy, ..Line::default() }
    }

    /// One line, or one for each resource; with cost one for all.
    fn told(&self, line: Line, sum: &Sum) -> Vec<Line> {
        if self.options.unit == Unit::Cost {
            let used = cost(&sum.list(), &self.usage.cost_per_hour);
            return vec![Line { used, ..line }];
        }
        let of_kind = |kind: &String| {
            let total = of(&self.usage.capacity_secs, kind);
            let used = self.options.unit.text(sum.of(kind), total);
            Line { tres: kind.clone(), used, ..line.clone() }
        };
        self.kinds.iter().map(of_kind).collect()
    }

    fn wanted(&self) -> impl Iterator<Item = &v1::UsageLine> {
        let users = &self.options.users;
        self.usage.lines.iter().filter(move |line| users.is_empty() || users.contains(&line.user))
    }

    fn utilization(&self) -> Vec<Line> {
        let mut used = Sum::default();
        self.usage.lines.iter().for_each(|line| used.add(line));
        let usage = self.usage;
        let lists = [used.list(), usage.down_secs.clone(), usage.planned_down_secs.clone()];
        let parts_of = |kind: &str| {
            let total = of(&usage.capacity_secs, kind);
            let [allocated, down, planned_down] = lists.each_ref().map(|list| of(list, kind));
            let planned = of(&usage.planned_secs, kind);
            let busy = allocated + down + planned_down + planned;
            [allocated, down, planned_down, total.saturating_sub(busy), planned, total]
        };
        if self.options.unit == Unit::Cost {
            let all: Vec<String> = usage.capacity_secs.iter().map(|a| a.kind.clone()).collect();
            let parts: Vec<(String, [u64; 6])> =
                all.into_iter().map(|kind| (kind.clone(), parts_of(&kind))).collect();
            let of_part = |at: usize| {
                let amounts: Vec<v1::TresAmount> = parts
                    .iter()
                    .map(|(kind, part)| v1::TresAmount { kind: kind.clone(), count: part[at] })
                    .collect();
                cost(&amounts, &usage.cost_per_hour)
            };
            return vec![Line { parts: std::array::from_fn(of_part), ..self.base() }];
        }
        let line = |kind: &String| {
            let parts = parts_of(kind);
            let told = parts.map(|part| self.options.unit.text(part, parts[5]));
            Line { tres: kind.clone(), parts: told, ..self.base() }
        };
        self.kinds.iter().map(line).collect()
    }

    /// Accounts in the order of the tree, with their depth; those that are no longer there last.
    fn tree_order(&self) -> Vec<(String, usize)> {
        let places: Vec<&v1::Association> =
            self.tree.associations.iter().filter(|assoc| assoc.user.is_empty()).collect();
        let mut order: Vec<(String, usize)> = Vec::new();
        let known = |id: u32| places.iter().any(|place| place.id == id);
        let mut stack: Vec<(&v1::Association, usize)> =
            places.iter().filter(|place| !known(place.parent)).map(|place| (*place, 0)).collect();
        stack.reverse();
        while let Some((place, depth)) = stack.pop() {
            order.push((place.account.clone(), depth));
            let mut below: Vec<&&v1::Association> = places
                .iter()
                .filter(|other| other.parent == place.id && other.id != place.id)
                .collect();
            below.sort_by(|a, b| b.account.cmp(&a.account));
            // A ring has no place without a parent, so that none is met twice.
            stack.extend(below.into_iter().map(|below| (*below, depth + 1)));
        }
        for line in &self.usage.lines {
            if !order.iter().any(|(name, _)| *name == line.account) {
                order.push((line.account.clone(), 0));
            }
        }
        order
    }

    /// The account and all below it.
    fn below(&self, order: &[(String, usize)], at: usize) -> Vec<String> {
        let depth = order.get(at).map_or(0, |(_, depth)| *depth);
        let deeper = order.iter().skip(at + 1).take_while(|(_, other)| *other > depth);
        let own = order.get(at).map(|(name, _)| name.clone());
        own.into_iter().chain(deeper.map(|(name, _)| name.clone())).collect()
    }

    fn accounts(&self) -> Vec<Line> {
        let order = self.tree_order();
        let mut lines = Vec::new();
        for (at, (account, depth)) in order.iter().enumerate() {
            let wanted = &self.options.accounts;
            if !wanted.is_empty() && !wanted.contains(account) {
                continue;
            }
            let below = self.below(&order, at);
            let mut all = Sum::default();
            self.wanted().filter(|line| below.contains(&line.account)).for_each(|l| all.add(l));
            if all.amounts.values().all(|secs| *secs == 0) {
                continue;
            }
            let indent = if self.options.tree { *depth } else { 0 };
            let named = Line { account: format!("{:indent$}{account}", ""), ..self.base() };
            lines.extend(self.told(named, &all));
            let mut users: Vec<&v1::UsageLine> =
                self.wanted().filter(|line| line.account == *account).collect();
            users.sort_by(|a, b| a.user.cmp(&b.user));
            for line in users {
                let indent = if self.options.tree { depth + 1 } else { 0 };
                let account = format!("{:indent$}{account}", "");
                let mut sum = Sum::default();
                sum.add(line);
                lines.extend(self.told(self.of_user(&line.user, line.uid, account), &sum));
            }
        }
        lines
    }

    fn of_user(&self, login: &str, uid: u32, account: String) -> Line {
        Line { account, login: login.to_owned(), proper: proper_name(uid, login), ..self.base() }
    }

    /// Usage of each user in each account, or with `group` in all accounts together.
    fn by_user(&self, group: bool) -> Vec<(String, u32, String, Sum)> {
        let accounts = &self.options.accounts;
        let mut sums: BTreeMap<(String, String), (u32, Vec<String>, Sum)> = BTreeMap::new();
        let wanted =
            self.wanted().filter(|line| accounts.is_empty() || accounts.contains(&line.account));
        for line in wanted {
            let account = if group { String::new() } else { line.account.clone() };
            let (uid, names, sum) = sums.entry((line.user.clone(), account)).or_default();
            *uid = line.uid;
            if !names.contains(&line.account) {
                names.push(line.account.clone());
                names.sort_unstable();
            }
            sum.add(line);
        }
        let row = |((user, _), (uid, names, sum)): ((String, String), (u32, Vec<String>, Sum))| {
            (user, uid, names.join(", "), sum)
        };
        sums.into_iter().map(row).collect()
    }

    fn users(&self) -> Vec<Line> {
        let rows = self.by_user(false).into_iter();
        rows.flat_map(|(user, uid, account, sum)| {
            self.told(self.of_user(&user, uid, account), &sum)
        })
        .collect()
    }

    fn top(&self) -> Vec<Line> {
        let mut rows = self.by_user(self.options.group);
        let first = self.kinds.first().map_or("cpu", String::as_str);
        rows.sort_by_key(|(user, _, _, sum)| (std::cmp::Reverse(sum.of(first)), user.clone()));
        rows.truncate(self.options.top);
        rows.into_iter()
            .flat_map(|(user, uid, account, sum)| {
                self.told(self.of_user(&user, uid, account), &sum)
            })
            .collect()
    }

    fn sizes(&self) -> Vec<Line> {
        let order = self.tree_order();
        let total = of(&self.usage.capacity_secs, "cpu");
        // As Slurm's, the share is of what all jobs had, not of what there was.
        let all: u64 = self.usage.lines.iter().flat_map(|line| &line.cpu_secs_by_size).sum();
        let mut lines = Vec::new();
        for (at, (account, depth)) in order.iter().enumerate() {
            let wanted = &self.options.accounts;
            let shown = match (wanted.is_empty(), self.options.flat) {
                (true, true) => true,
                // All of the tree in one line.
                (true, false) => *depth == 0,
                (false, _) => wanted.contains(account),
            };
            let below =
                if self.options.flat { vec![account.clone()] } else { self.below(&order, at) };
            let mut sum = Sum::default();
            self.wanted().filter(|line| below.contains(&line.account)).for_each(|l| sum.add(l));
            let used: u64 = sum.by_size.iter().sum();
            if !shown || used == 0 {
                continue;
            }
            let size = |at: usize| match sum.by_size.get(at) {
                Some(secs) => self.options.unit.text(*secs, total),
                None => Unit::Percent.text(used, all),
            };
            lines.push(Line {
                account: account.clone(),
                parts: std::array::from_fn(size),
                ..self.base()
            });
        }
        lines
    }
}

/// The name of the person, as the host knows it.
fn proper_name(uid: u32, login: &str) -> String {
    let user = nix::unistd::User::from_name(login).ok().flatten();
    let user = user.or_else(|| nix::unistd::User::from_uid(uid.into()).ok().flatten());
    let gecos = user.map(|user| user.gecos.to_string_lossy().into_owned()).unwrap_or_default();
    gecos.split(',').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
