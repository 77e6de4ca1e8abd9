//! How much of every countable resource does a job use or a limit allow?
//!
//! TRES ("trackable resources") are CPUs, memory, nodes, billing units, generic resources and
//! licences. A set never holds a zero entry in its maps, so that equal sets compare equal.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::gres::{GresError, GresName, parse_count};
use crate::ids::check_name;
use crate::limits::{MAX_GRES_LIST, MAX_LIST_TEXT};
use crate::memory::{MemoryError, Mib, parse_memory};

/// Amounts of every kind; what is not named is zero.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tres {
    /// CPUs.
    pub cpu: u64,
    /// Memory.
    pub mem: Mib,
    /// Nodes.
    pub node: u64,
    /// Billing units, after the partition's weights.
    pub billing: u64,
    /// Generic resources. `gpu` and `gpu:h100` are counted apart: a typed one is usually counted
    /// under both.
    pub gres: BTreeMap<GresName, u64>,
    /// Licences by name.
    pub licenses: BTreeMap<Box<str>, u64>,
}

/// One kind of countable resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TresKind {
    /// `cpu`.
    Cpu,
    /// `mem`, counted in MiB.
    Mem,
    /// `node`.
    Node,
    /// `billing`.
    Billing,
    /// `gres/NAME[:TYPE]`.
    Gres(GresName),
    /// `license/NAME`.
    License(Box<str>),
}

/// Why a text is no TRES list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TresError {
    /// An entry without `=` or with a wrong count.
    #[error("TRES {text:?} is not understood; give NAME=COUNT, as in cpu=4,mem=8G,gres/gpu=2")]
    Malformed {
        /// The entry.
        text: String,
    },
    /// A name that is no resource.
    #[error("TRES {name:?} is unknown; use cpu, mem, node, billing, gres/NAME or license/NAME")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The same name twice.
    #[error("TRES {name:?} is given twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// The amount of memory is wrong.
    #[error("TRES mem is not understood")]
    Memory(#[from] MemoryError),
    /// The name of a gres is wrong.
    #[error("TRES gres is not understood")]
    Gres(#[from] GresError),
    /// More than [`MAX_GRES_LIST`] entries, or a text beyond [`MAX_LIST_TEXT`].
    #[error("TRES list is too long; at most {MAX_GRES_LIST} entries are allowed")]
    TooLong,
}

impl FromStr for TresKind {
    type Err = TresError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || TresError::Unknown { name: text.to_owned() };
        match text.to_ascii_lowercase().as_str() {
            "cpu" => return Ok(Self::Cpu),
            "mem" => return Ok(Self::Mem),
            "node" => return Ok(Self::Node),
            "billing" => return Ok(Self::Billing),
            _ => {}
        }
        let (family, name) = text.split_once('/').ok_or_else(unknown)?;
        if family.eq_ignore_ascii_case("gres") {
            let (name, kind) = match name.split_once(':') {
                None => (name, None),
                Some((name, kind)) => (name, Some(kind)),
            };
            return Ok(Self::Gres(GresName::new(name, kind)?));
        }
        // A licence of a remote server is written NAME@SERVER.
        let mut parts = name.splitn(2, '@');
        let plain = parts.all(|part| check_name("license", part).is_ok());
        if family.eq_ignore_ascii_case("license") && plain {
            return Ok(Self::License(name.into()));
        }
        Err(unknown())
    }
}

impl fmt::Display for TresKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Mem => f.write_str("mem"),
            Self::Node => f.write_str("node"),
            Self::Billing => f.write_str("billing"),
            Self::Gres(name) => write!(f, "gres/{name}"),
            Self::License(name) => write!(f, "license/{name}"),
        }
    }
}

/// Reads a list like `cpu=4,mem=8G,gres/gpu:h100=2` entry by entry, in its order, zeros kept.
///
/// For limits, where a zero is not the same as nothing. Memory is in MiB; counts may carry k, m, g.
///
/// # Errors
/// When an entry is malformed, unknown or given twice, or the list is beyond [`MAX_GRES_LIST`].
pub fn parse_tres_list(text: &str) -> Result<Vec<(TresKind, u64)>, TresError> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Ok(Vec::new());
    }
    if trimmed.len() > MAX_LIST_TEXT || trimmed.split(',').count() > MAX_GRES_LIST {
        return Err(TresError::TooLong);
    }
    let mut entries: Vec<(TresKind, u64)> = Vec::new();
    for entry in trimmed.split(',') {
        let malformed = || TresError::Malformed { text: entry.to_owned() };
        let (name, amount) = entry.split_once('=').ok_or_else(malformed)?;
        let kind: TresKind = name.parse()?;
        let amount = match kind {
            TresKind::Mem => parse_memory(amount)?.0,
            TresKind::Cpu
            | TresKind::Node
            | TresKind::Billing
            | TresKind::Gres(_)
            | TresKind::License(_) => parse_count(amount).ok_or_else(malformed)?,
        };
        if entries.iter().any(|(known, _)| *known == kind) {
            return Err(TresError::Twice { name: name.to_owned() });
        }
        entries.push((kind, amount));
    }
    Ok(entries)
}

impl Tres {
    /// Whether every amount is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.entries().is_empty()
    }

    /// The amount of one kind; memory in MiB.
    #[must_use]
    pub fn get(&self, kind: &TresKind) -> u64 {
        match kind {
            TresKind::Cpu => self.cpu,
            TresKind::Mem => self.mem.0,
            TresKind::Node => self.node,
            TresKind::Billing => self.billing,
            TresKind::Gres(name) => self.gres.get(name).copied().unwrap_or(0),
            TresKind::License(name) => self.licenses.get(name).copied().unwrap_or(0),
        }
    }

    /// Sets the amount of one kind; memory in MiB. Zero takes the entry out.
    pub fn set(&mut self, kind: TresKind, amount: u64) {
        match kind {
            TresKind::Cpu => self.cpu = amount,
            TresKind::Mem => self.mem = Mib(amount),
            TresKind::Node => self.node = amount,
            TresKind::Billing => self.billing = amount,
            TresKind::Gres(name) => put(&mut self.gres, name, amount),
            TresKind::License(name) => put(&mut self.licenses, name, amount),
        }
    }

    /// The amounts that are not zero, in Slurm's order of kinds: cpu, mem, node, billing, gres and
    /// licences by name.
    #[must_use]
    pub fn entries(&self) -> Vec<(TresKind, u64)> {
        let fixed = [
            (TresKind::Cpu, self.cpu),
            (TresKind::Mem, self.mem.0),
            (TresKind::Node, self.node),
            (TresKind::Billing, self.billing),
        ];
        let gres = self.gres.iter().map(|(name, n)| (TresKind::Gres(name.clone()), *n));
        let licenses = self.licenses.iter().map(|(name, n)| (TresKind::License(name.clone()), *n));
        fixed.into_iter().chain(gres).chain(licenses).filter(|(_, amount)| *amount > 0).collect()
    }

    /// Sum kind by kind; `None` if one is beyond 64 bits.
    #[must_use]
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        self.combine(other, u64::checked_add)
    }

    /// Difference kind by kind; `None` if one is below zero.
    #[must_use]
    pub fn checked_sub(&self, other: &Self) -> Option<Self> {
        self.combine(other, u64::checked_sub)
    }

    /// Sum kind by kind, each capped at 64 bits.
    #[must_use]
    pub fn saturating_add(&self, other: &Self) -> Self {
        self.combine(other, |a, b| Some(a.saturating_add(b))).unwrap_or_default()
    }

    /// Difference kind by kind, each at least zero.
    #[must_use]
    pub fn saturating_sub(&self, other: &Self) -> Self {
        self.combine(other, |a, b| Some(a.saturating_sub(b))).unwrap_or_default()
    }

    /// Whether no amount exceeds that in `limit`.
    #[must_use]
    pub fn fits_in(&self, limit: &Self) -> bool {
        limit.checked_sub(self).is_some()
    }

    fn combine(&self, other: &Self, f: impl Fn(u64, u64) -> Option<u64>) -> Option<Self> {
        let mut result = self.clone();
        // Kinds that `other` lacks stay as they are: adding or taking zero changes nothing.
        for (kind, amount) in other.entries() {
            let amount = f(self.get(&kind), amount)?;
            result.set(kind, amount);
        }
        Some(result)
    }

    /// As scontrol prints it: in Slurm's order of kinds, `cpu=4,mem=8G,node=2,billing=5,gres/gpu=2`.
    #[must_use]
    pub fn to_scontrol(&self) -> String {
        let words: Vec<String> = self.entries().iter().map(word).collect();
        words.join(",")
    }
}

fn put<K: Ord>(map: &mut BTreeMap<K, u64>, key: K, amount: u64) {
    if amount == 0 {
        map.remove(&key);
    } else {
        map.insert(key, amount);
    }
}

fn word((kind, amount): &(TresKind, u64)) -> String {
    match kind {
        TresKind::Mem => format!("mem={}", Mib(*amount).to_arg()),
        TresKind::Cpu
        | TresKind::Node
        | TresKind::Billing
        | TresKind::Gres(_)
        | TresKind::License(_) => format!("{kind}={amount}"),
    }
}

/// As sacct's AllocTRES: sorted by name, zeros left out, memory exact:
/// `billing=3,cpu=3,gres/gpu=4,mem=30M,node=2`.
impl fmt::Display for Tres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut entries = self.entries();
        entries.sort_by_cached_key(|(kind, _)| kind.to_string());
        f.pad(&entries.iter().map(word).collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Tres {
    type Err = TresError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut tres = Self::default();
        for (kind, amount) in parse_tres_list(text)? {
            tres.set(kind, amount);
        }
        Ok(tres)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn tres(text: &str) -> Tres {
        text.parse().expect("a valid list")
    }

    #[test]
    fn lists_print_in_both_orders() {
        let set = tres("cpu=3,mem=30M,node=2,gres/gpu:h100=4,gres/gpu=4,billing=3,license/x=1");
        let sorted = "billing=3,cpu=3,gres/gpu=4,gres/gpu:h100=4,license/x=1,mem=30M,node=2";
        assert_eq!(set.to_string(), sorted);
        let by_kind = "cpu=3,mem=30M,node=2,billing=3,gres/gpu=4,gres/gpu:h100=4,license/x=1";
        assert_eq!(set.to_scontrol(), by_kind);
        assert_eq!(tres("mem=1536,cpu=0").to_string(), "mem=1536M");
        assert_eq!(tres("").to_string(), "");
    }

    #[test]
    fn zeros_are_kept_for_limits_only() {
        assert_eq!(parse_tres_list("cpu=0"), Ok(vec![(TresKind::Cpu, 0)]));
        assert!(tres("cpu=0,gres/gpu=0").is_zero());
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "cpu",
            "cpu=",
            "cpu=x",
            "cpu=-1",
            "foo=1",
            "gres/=1",
            "gres/gpu:=1",
            "license/a b=1",
            "mem=1.5G",
            "cpu=1,cpu=2",
            "cpu=1,",
            "gres=1",
        ] {
            assert!(text.parse::<Tres>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn sums_and_differences_know_their_ends() {
        let (big, small) = (tres("cpu=4,gres/gpu=2"), tres("cpu=1,gres/gpu=2"));
        assert_eq!(big.checked_sub(&small), Some(tres("cpu=3")));
        assert_eq!(small.checked_sub(&big), None);
        assert_eq!(small.saturating_sub(&big), Tres::default());
        assert!(small.fits_in(&big) && !big.fits_in(&small));
        let top = Tres { cpu: u64::MAX, ..Tres::default() };
        assert_eq!(top.checked_add(&small), None);
        assert_eq!(top.saturating_add(&small).cpu, u64::MAX);
        assert_eq!(Tres::default().saturating_add(&small), small);
    }

    prop_compose! {
        fn any_tres()(
            cpu: u64, mem: u64, node: u64, billing: u64,
            gres in prop::collection::btree_map("[a-z]{1,3}(:[a-z]{1,3})?", 1_u64.., 0..4),
            licenses in prop::collection::btree_map("[a-z]{1,4}", 1_u64.., 0..3),
        ) -> Tres {
            let gres = gres.into_iter().map(|(name, n)| (name.parse().expect("valid"), n)).collect();
            let licenses = licenses.into_iter().map(|(name, n)| (name.into(), n)).collect();
            Tres { cpu, mem: Mib(mem), node, billing, gres, licenses }
        }
    }

    proptest! {
        #[test]
        fn both_forms_read_back(set in any_tres()) {
            prop_assert_eq!(set.to_string().parse(), Ok(set.clone()));
            prop_assert_eq!(set.to_scontrol().parse(), Ok(set));
        }

        #[test]
        fn what_is_added_can_be_taken_away(a in any_tres(), b in any_tres()) {
            if let Some(sum) = a.checked_add(&b) {
                prop_assert_eq!(sum.checked_sub(&b), Some(a));
            }
        }
    }
}
