//! Values that are words: distributions, bindings, kinds of MPI.

use penstock_vocab::Signal;

use super::apply::bad;
use crate::sbatch::request::BadValue;

/// What `--mpi` may be, beside a version of `pmix` (`pmix_v4`): whether nodes have that they say.
const MPI: [&str; 4] = ["none", "pmi2", "pmix", "torch"];

/// `--mpi=list`: PMIx only where this host has libpmix, of the version that it has.
pub(crate) fn mpi_list(pmix: Option<&str>) -> String {
    let known = MPI.iter().filter(|kind| **kind != "pmix" || pmix.is_some());
    let lines: String = known.map(|kind| format!("\t{kind}\n")).collect();
    let major = pmix.and_then(|version| version.split('.').next());
    let versions = major
        .map(|major| format!("specific pmix plugin versions available: pmix_v{major}\n"))
        .unwrap_or_default();
    format!("MPI plugin types are...\n{lines}{versions}")
}

/// `block`, `cyclic`, `plane=4`, `arbitrary`, `*`, with parts for sockets and cores.
pub(crate) fn distribution(text: &str) -> Result<String, BadValue> {
    let invalid = || BadValue(vec!["Invalid --distribution specification".to_owned()]);
    let lower = text.trim().to_ascii_lowercase();
    let (words, packing) = match lower.split_once(',') {
        Some((words, packing)) => (words, Some(packing)),
        None => (lower.as_str(), None),
    };
    if let Some(size) = words.strip_prefix("plane=") {
        let size = size.parse::<u32>().ok().filter(|size| *size > 0);
        return if size.is_some() && packing.is_none() { Ok(lower) } else { Err(invalid()) };
    }
    let mut parts = words.split(':');
    let node = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    let known = matches!(node, "block" | "cyclic" | "*" | "arbitrary")
        && rest.len() <= 2
        && rest.iter().all(|part| matches!(*part, "block" | "cyclic" | "fcyclic" | "*"))
        && matches!(packing, None | Some("pack" | "nopack"));
    if known { Ok(lower) } else { Err(invalid()) }
}

/// `--no-kill`, `--no-kill=off`.
pub(crate) fn no_kill(value: Option<&str>) -> Result<bool, BadValue> {
    match value {
        None | Some("set") => Ok(true),
        Some("off" | "no") => Ok(false),
        Some(_) => Err(BadValue(vec!["Invalid --no-kill specification".to_owned()])),
    }
}

/// Words of `--cpu-bind`, checked by their form.
pub(super) fn cpu_bind(text: &str) -> Result<String, BadValue> {
    let wrong = |word: &str| {
        BadValue(vec![
            format!("unrecognized --cpu-bind argument \"{word}\""),
            "Failed to parse --cpu-bind= values.".to_owned(),
        ])
    };
    let lower = text.trim().to_ascii_lowercase();
    let mut rest = lower.as_str();
    while !rest.is_empty() {
        // What a map or a mask lists goes on to the end.
        if let Some((kind, list)) = rest.split_once(':').filter(|(kind, _)| !kind.contains(',')) {
            let listed = matches!(kind, "map_cpu" | "mask_cpu" | "map_ldom" | "mask_ldom");
            return if listed && is_list(list) { Ok(lower) } else { Err(wrong(rest)) };
        }
        let (word, tail) = rest.split_once(',').unwrap_or((rest, ""));
        let known = matches!(
            word,
            "q" | "quiet"
                | "v"
                | "verbose"
                | "no"
                | "none"
                | "rank"
                | "rank_ldom"
                | "sockets"
                | "cores"
                | "threads"
                | "ldoms"
                | "boards"
                | "auto"
        );
        if !known {
            return Err(wrong(word));
        }
        rest = tail;
    }
    Ok(lower)
}

/// Numbers, decimal or with 0x, each with an optional `*count`.
fn is_list(list: &str) -> bool {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => !hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit()),
    };
    list.split(',').all(|entry| match entry.split_once('*') {
        Some((value, times)) => number(value) && times.parse::<u32>().is_ok(),
        None => number(entry),
    })
}

/// A kind of MPI; `list` is answered elsewhere.
pub(super) fn mpi(text: &str) -> Result<String, BadValue> {
    match text {
        "list" => Ok(text.to_owned()),
        known if MPI.contains(&known) => Ok(text.to_owned()),
        pmix if is_pmix_version(pmix) => Ok(text.to_owned()),
        other => Err(BadValue(vec![format!(
            "Invalid MPI type '{other}', --mpi=list for acceptable types"
        )])),
    }
}

fn is_pmix_version(text: &str) -> bool {
    let version = text.strip_prefix("pmix_v");
    version.is_some_and(|digits| digits.len() == 1 && digits.bytes().all(|it| it.is_ascii_digit()))
}

/// The signal for salloc's command when the job ends; SIGTERM unless one is named.
pub(super) fn kill_command(value: Option<&str>) -> Result<i32, BadValue> {
    let Some(text) = value else { return Ok(libc::SIGTERM) };
    let signal: Signal = text.parse().map_err(|error| bad("kill-command", &error))?;
    Ok(signal.number().into())
}
