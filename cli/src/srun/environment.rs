//! What do the tasks find in their environment that only srun knows?
//!
//! Its own environment, as `--export` lets it through, and what the options say. The rest of
//! Slurm's variables comes from the shepherd, which knows the task.

use std::ffi::{OsStr, OsString};

use crate::allocation::Order;
use crate::sbatch::environment::{Export, block};
use crate::sbatch::spec::Submitter;

/// Variables that describe another step, and would be taken for this one's.
const OF_ANOTHER_STEP: [&str; 2] = ["SLURM_CPU_BIND", "SLURM_LABELIO"];

/// The environment as it is sent: NAME=VALUE, each ended by a NUL byte.
pub(super) fn environment(
    order: &Order,
    submitter: &Submitter,
    here: Vec<(OsString, OsString)>,
    own: bool,
) -> Vec<u8> {
    let here: Vec<(OsString, OsString)> = here
        .into_iter()
        .filter(|(name, _)| OF_ANOTHER_STEP.iter().all(|other| name != *other))
        .collect();
    let umask = format!("{:04o}", submitter.umask);
    let cpus = order.request.cpus_per_task.map(|cpus| cpus.to_string());
    let mut added: Vec<(&str, &OsStr)> =
        vec![("SLURM_UMASK", OsStr::new(&umask)), ("SLURM_PRIO_PROCESS", OsStr::new("0"))];
    if own {
        added.push(("SLURM_SUBMIT_DIR", submitter.cwd.as_os_str()));
        added.push(("SLURM_SUBMIT_HOST", OsStr::new(&submitter.host)));
    }
    if order.extras.label {
        added.push(("SLURM_LABELIO", OsStr::new("1")));
    }
    if let Some(cpus) = &cpus {
        added.push(("SLURM_CPUS_PER_TASK", OsStr::new(cpus)));
    }
    block(order.request.export.as_ref().unwrap_or(&Export::All), &here, &added)
}

/// Ports that this host may listen on: `PENSTOCK_SRUN_PORT_RANGE=60001-63000`; absent: any.
///
/// # Errors
/// With what is wrong about it.
pub(crate) fn port_range(
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<(u16, u16)>, String> {
    let Some(text) = env("PENSTOCK_SRUN_PORT_RANGE").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let range = text.split_once('-').and_then(|(low, high)| {
        let (low, high) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
        (low > 0 && low <= high).then_some((low, high))
    });
    range.map(Some).ok_or_else(|| {
        format!("PENSTOCK_SRUN_PORT_RANGE={text:?} is no range of ports; give 60001-63000")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocation::{Command, read};

    #[test]
    fn a_range_of_ports_is_read() {
        for (text, expect) in [
            ("60001-63000", Ok(Some((60_001, 63_000)))),
            ("", Ok(None)),
            ("5-4", Err(())),
            ("0-4", Err(())),
            ("x", Err(())),
            ("1-70000", Err(())),
        ] {
            let found = port_range(&|_| Some(text.to_owned())).map_err(|_| ());
            assert_eq!(found, expect, "{text}");
        }
    }

    #[test]
    fn options_are_told_and_those_of_an_outer_step_are_not() {
        let words = ["-l", "-c2", "true"].map(str::to_owned);
        let order = read(Command::Srun, &words, &|_| None).expect("valid");
        let submitter = Submitter::of_this_process("srun".into()).expect("has a directory");
        let here = vec![
            ("A".into(), "1".into()),
            ("SLURM_CPU_BIND".into(), "quiet".into()),
            ("SLURM_LABELIO".into(), "0".into()),
        ];
        let text = String::from_utf8(environment(&order, &submitter, here, false)).expect("plain");
        let names: Vec<&str> = text.split('\0').collect();
        for expect in ["A=1", "SLURM_LABELIO=1", "SLURM_CPUS_PER_TASK=2", "SLURM_PRIO_PROCESS=0"] {
            assert!(names.contains(&expect), "{expect} in {names:?}");
        }
        assert!(names.iter().all(|name| !name.starts_with("SLURM_CPU_BIND")));
        assert!(names.iter().all(|name| !name.starts_with("SLURM_SUBMIT_DIR")));
    }
}
