//! Which settings of the one scheduler does a policy's name stand for?
//!
//! `fcfs`, `easy` and `conservative` are the order of submission with backfill of depth 0, 1 and
//! without bound, all textbook forms; `default` is what a cluster file that says nothing gets. Any
//! other word is a file with the keys that a cluster file has for the same.

use std::path::{Path, PathBuf};

use penstock_controller::config::{ConfigError, policy_from};
use penstock_core::model::{Backfill, PreemptBy, Scheduling, Weights};

/// What `--policy` and `--compare` name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Policy {
    /// Strict order of submission.
    Fcfs,
    /// The same, and whoever delays the first in line by nothing goes ahead (Lifka, 1995).
    Easy,
    /// The same, where nobody ahead may be delayed (Mu'alem and Feitelson, 2001).
    Conservative,
    /// What a cluster file that says nothing gets.
    Default,
    /// The scheduling keys of a file.
    File(PathBuf),
}

impl std::str::FromStr for Policy {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "fcfs" => Self::Fcfs,
            "easy" => Self::Easy,
            "conservative" => Self::Conservative,
            "default" => Self::Default,
            path => Self::File(PathBuf::from(path)),
        })
    }
}

impl Policy {
    /// As a report names it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Fcfs => "fcfs".to_owned(),
            Self::Easy => "easy".to_owned(),
            Self::Conservative => "conservative".to_owned(),
            Self::Default => "default".to_owned(),
            Self::File(path) => stem(path),
        }
    }

    /// The scheduling that it stands for, on a cluster whose file says `base`: order and planning
    /// are the policy's, what describes the cluster (licences, switches) stays the cluster's.
    ///
    /// # Errors
    /// If the file can't be read or has mistakes, such as a key that is not known.
    pub(super) fn scheduling(&self, base: &Scheduling) -> Result<Scheduling, ConfigError> {
        Ok(match self {
            Self::Fcfs => in_order(base, 0),
            Self::Easy => in_order(base, 1),
            Self::Conservative => in_order(base, u32::MAX),
            Self::Default => {
                let own = Scheduling::default();
                Scheduling {
                    weights: own.weights,
                    backfill: own.backfill,
                    fairshare: own.fairshare,
                    packing: own.packing,
                    ..base.clone()
                }
            }
            Self::File(path) => {
                let own = read_policy(path)?;
                Scheduling {
                    enforce: base.enforce,
                    licenses: base.licenses.clone(),
                    topology: base.topology.clone(),
                    cost: base.cost.clone(),
                    ..own
                }
            }
        })
    }
}

/// Takes preemption out of a policy; returns whether there was any.
///
/// A replay knows when each job ends from the trace, and not what a job that makes room would lose.
/// A plan that counts on room which nobody makes would keep nodes idle.
pub(super) fn leave_out_preemption(scheduling: &mut Scheduling) -> bool {
    let own = std::mem::take(&mut scheduling.preemption);
    own.by != PreemptBy::None || own.reclaim
}

/// The policy of a file.
fn read_policy(path: &Path) -> Result<Scheduling, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    policy_from(path, &text).map_err(|problems| ConfigError::Invalid { problems })
}

/// Order of submission, with so many places reserved in time and no other bound.
fn in_order(base: &Scheduling, depth: u32) -> Scheduling {
    Scheduling {
        weights: Weights { fcfs: true, ..Weights::default() },
        backfill: Backfill {
            depth,
            window_secs: u32::MAX,
            max_tests: u32::MAX,
            reserve_expansion: 0,
            max_array_reserve: u32::MAX,
            ..Backfill::default()
        },
        ..base.clone()
    }
}

/// The name of a file without folder and ending.
fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_policies_and_the_rest_are_files() {
        for (text, expect) in [
            ("fcfs", Policy::Fcfs),
            ("easy", Policy::Easy),
            ("conservative", Policy::Conservative),
            ("default", Policy::Default),
            ("conf/mine.toml", Policy::File("conf/mine.toml".into())),
        ] {
            assert_eq!(text.parse(), Ok(expect));
        }
        assert_eq!(Policy::File("conf/mine.toml".into()).name(), "mine");
    }

    #[test]
    fn file_has_the_keys_of_a_cluster_file_and_no_others() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("p.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("written");
            Policy::File(path.clone()).scheduling(&Scheduling::default())
        };
        let deep = read("[backfill]\ndepth = 7\n").expect("it is right");
        assert_eq!(deep.backfill.depth, 7);
        let error = read("[backfill]\ndepht = 7\n").expect_err("a slip").to_string();
        assert!(error.contains("did you mean \"depth\"?"), "{error}");
        assert!(Policy::File("/nonexistent".into()).scheduling(&deep).is_err());
    }

    #[test]
    fn preemption_is_left_out_and_that_is_known() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("p.toml");
        for (text, expect) in [
            ("[preemption]\nby = \"partition\"\nmode = \"requeue\"\n", true),
            ("[preemption]\nreclaim = true\nmode = \"cancel\"\n", true),
            ("[backfill]\ndepth = 7\n", false),
        ] {
            std::fs::write(&path, text).expect("written");
            let base = Scheduling::default();
            let mut own = Policy::File(path.clone()).scheduling(&base).expect("it is right");
            assert_eq!(leave_out_preemption(&mut own), expect, "{text}");
            assert_eq!(own.preemption, base.preemption, "{text}");
        }
    }

    #[test]
    fn textbook_policies_differ_in_depth_alone() {
        let base = Scheduling::default();
        let easy = Policy::Easy.scheduling(&base).expect("no file");
        assert!(easy.weights.fcfs && easy.backfill.depth == 1);
        let fcfs = Policy::Fcfs.scheduling(&base).expect("no file");
        let backfill = Backfill { depth: 1, ..fcfs.backfill };
        assert_eq!(Scheduling { backfill, ..fcfs }, easy);
        assert_eq!(Policy::Default.scheduling(&base).expect("no file"), base);
    }
}
