//! Which columns does sshare have?

use penstock_proto::v1;

use crate::listing::{Cell, ReportField, amounts, raw_amounts};

/// One line of the listing.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    /// The numbers.
    pub(super) share: v1::ShareRow,
    /// How many lines above this one it hangs from.
    pub(super) indent: usize,
    /// Name of the cluster; empty where no column shows it.
    pub(super) cluster: String,
}

impl Line {
    fn is_root(&self) -> bool {
        self.share.parent == 0 && self.share.user.is_empty()
    }

    fn is_user(&self) -> bool {
        !self.share.user.is_empty()
    }
}

const fn field(
    names: &'static [&'static str],
    width: i16,
    value: fn(&Line) -> Cell,
) -> ReportField<Line> {
    ReportField { names, header: names[0], width, value }
}

/// Every field.
pub(super) const FIELDS: &[ReportField<Line>] = &[
    field(&["Account"], -20, |line| {
        Cell::Text(format!("{:indent$}{}", "", line.share.account, indent = line.indent))
    }),
    field(&["Cluster"], 10, |line| Cell::text(&line.cluster)),
    field(&["EffectvUsage"], 13, |line| six(Some(line.share.effective_usage))),
    field(&["FairShare"], 10, |line| six(line.share.fair_share.filter(|_| line.is_user()))),
    field(&["GrpTRESMins"], 30, |line| Cell::Text(amounts(&line.share.grp_tres_mins))),
    field(&["GrpTRESRaw"], 30, |line| Cell::Text(raw_amounts(&line.share.used_tres_mins))),
    field(&["ID"], 6, |line| Cell::number(Some(line.share.association))),
    field(&["LevelFS"], 10, |line| six(Some(line.share.level_fs).filter(|_| !line.is_root()))),
    field(&["NormShares"], 11, |line| six(Some(line.share.norm_shares))),
    field(&["NormUsage"], 11, |line| six(Some(line.share.norm_usage).filter(|_| !line.is_root()))),
    field(&["Partition"], 12, |line| Cell::text(&line.share.partition)),
    field(&["RawShares"], 10, |line| match line.share.raw_shares {
        _ if line.is_root() => Cell::text(""),
        Some(shares) => Cell::number(Some(shares)),
        None => Cell::text("parent"),
    }),
    field(&["RawUsage"], 11, |line| Cell::number(Some(line.share.raw_usage))),
    field(&["TRESRunMins"], 30, |line| Cell::Text(raw_amounts(&line.share.tres_run_mins))),
    field(&["User"], 10, |line| Cell::text(&line.share.user)),
];

/// Six decimals; infinity as Slurm writes it.
fn six(number: Option<f64>) -> Cell {
    Cell::Exact(number.map(|number| format!("{number:.6}")).unwrap_or_default())
}

/// The columns when none are named.
pub(super) fn default_format(long: bool, partition: bool) -> String {
    let partition = if partition { ",partition" } else { "" };
    let (norm, limits) =
        if long { ("normusage,", ",levelfs,grptresmins,tresrunmins") } else { ("", "") };
    format!(
        "account,user{partition},rawshares,normshares,rawusage,{norm}effectvusage,fairshare{limits}"
    )
}

/// All names, four in a line, as `--helpformat` shows them.
pub(super) fn help() -> String {
    let mut out = String::new();
    for line in FIELDS.chunks(4) {
        let names: Vec<String> = line.iter().map(|field| format!("{:<17}", field.header)).collect();
        out.push_str(&names.join(" "));
        out.push('\n');
    }
    out
}
