//! Can what a scenario says be?

use std::collections::BTreeSet;

use super::{At, Fault, Gpu, Scenario};
use crate::abi::SYMBOLS;
use crate::models::{MODELS, Model};

/// Most GPUs of a machine, as many as NVIDIA's table of capabilities has room for.
const MAX_GPUS: usize = 32;

/// Where something is wrong, and what.
type Problem = (String, String);

pub(super) fn check(scenario: &Scenario) -> Result<(), Problem> {
    let whole = |problem: String| Err(("the whole".to_owned(), problem));
    if scenario.gpus.len() > MAX_GPUS {
        return whole(format!("{} GPUs; at most {MAX_GPUS} are possible", scenario.gpus.len()));
    }
    if scenario.driver_major() == 0 {
        return whole(format!("driver {:?} is no version, e.g. \"570.124.06\"", scenario.driver));
    }
    for name in &scenario.missing {
        known(name).map_err(|problem| ("missing".to_owned(), problem))?;
        if ["nvmlInit_v2", "nvmlShutdown"].contains(&name.as_str()) {
            let problem = format!("no driver is without {name}; use init = {{ code = 9 }}");
            return Err(("missing".to_owned(), problem));
        }
    }
    let mut seen = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (index, gpu) in scenario.gpus.iter().enumerate() {
        let place = || format!("gpu {index}");
        check_gpu(gpu, scenario.gpus.len()).map_err(|problem| (place(), problem))?;
        let double = if !seen.0.insert(&gpu.uuid) {
            format!("uuid {:?}", gpu.uuid)
        } else if !seen.1.insert(&gpu.bdf) {
            format!("bdf {:?}", gpu.bdf)
        } else if !seen.2.insert(gpu.minor) {
            format!("minor {}", gpu.minor.unwrap_or(0))
        } else {
            continue;
        };
        return Err((place(), format!("{double} is an earlier GPU's already")));
    }
    for (index, at) in scenario.at.iter().enumerate() {
        check_at(at, scenario).map_err(|problem| (format!("at {index}"), problem))?;
    }
    for (index, fault) in scenario.faults.iter().enumerate() {
        check_fault(fault, scenario).map_err(|problem| (format!("fault {index}"), problem))?;
    }
    Ok(())
}

fn known(name: &str) -> Result<(), String> {
    if SYMBOLS.contains(&name) {
        return Ok(());
    }
    Err(format!("this library has no symbol {name:?}"))
}

fn check_gpu(gpu: &Gpu, count: usize) -> Result<(), String> {
    let Some(model) = Model::find(&gpu.model) else {
        let names: Vec<&str> = MODELS.iter().map(|model| model.key).collect();
        return Err(format!("there is no model {:?}; there are {}", gpu.model, names.join(", ")));
    };
    if !is_uuid(&gpu.uuid) {
        return Err(format!("uuid {:?} is not GPU- and a UUID", gpu.uuid));
    }
    if !is_bdf(&gpu.bdf) {
        return Err(format!("bdf {:?} is no PCI address, e.g. \"0000:3b:00.0\"", gpu.bdf));
    }
    if gpu.minor.is_some_and(|minor| minor > 254) {
        return Err("minor is more than 254".to_owned());
    }
    parse_cpus(&gpu.cpus)?;
    if let Some(other) = gpu.nvlink_to.iter().find(|peer| **peer as usize >= count) {
        return Err(format!("nvlink_to names GPU {other}, and there are {count}"));
    }
    if gpu.nvlink_to.len() > 18 || gpu.nvswitch_links > 18 {
        return Err("a GPU has at most 18 NVLinks".to_owned());
    }
    if let Some(problem) = gpu.util.problem() {
        return Err(format!("util: {problem}"));
    }
    if model.profiles.is_empty() && (gpu.mig.current || !gpu.gi.is_empty()) {
        return Err(format!("{} has no MIG", gpu.model));
    }
    if !gpu.mig.current && !gpu.gi.is_empty() {
        return Err("there are instances, and MIG is off; set mig = { current = true }".to_owned());
    }
    check_instances(gpu, model)
}

fn check_instances(gpu: &Gpu, model: &Model) -> Result<(), String> {
    for (at, gi) in gpu.gi.iter().enumerate() {
        let Some(profile) = model.profile(gi.profile) else {
            let all: Vec<String> =
                model.profiles.iter().map(|p| format!("{} ({})", p.id, p.name)).collect();
            let (model, all) = (model.key, all.join(", "));
            return Err(format!("{model} has no profile {}; it has {all}", gi.profile));
        };
        if !profile.starts.contains(&gi.start) {
            let (name, starts) = (profile.name, profile.starts);
            return Err(format!("{name} cannot begin at slice {}, but at {starts:?}", gi.start));
        }
        if gi.id > 14 || gpu.gi[..at].iter().any(|other| other.id == gi.id) {
            return Err(format!("the id {} of a GPU instance is taken or above 14", gi.id));
        }
        for other in &gpu.gi[..at] {
            let size = model.profile(other.profile).map_or(0, |profile| profile.size);
            if gi.start < other.start + size && other.start < gi.start + profile.size {
                let (name, start) = (profile.name, gi.start);
                let other = format!("the instance {} at slice {}", other.id, other.start);
                return Err(format!("{name} at slice {start} overlaps {other}"));
            }
        }
        let used: Option<u32> = gi.ci.iter().map(|ci| compute_slices(ci.profile)).sum();
        if used.is_none_or(|used| used > profile.compute) {
            return Err(format!("the compute instances of instance {} do not fit in it", gi.id));
        }
    }
    Ok(())
}

/// Compute slices of a compute instance profile.
pub(crate) const fn compute_slices(profile: u32) -> Option<u32> {
    match profile {
        0..=3 => Some(profile + 1),
        4 => Some(7),
        _ => None,
    }
}

fn check_at(at: &At, scenario: &Scenario) -> Result<(), String> {
    on_a_gpu(at.gpu, scenario)?;
    let something = at.xid.is_some()
        || at.lost.is_some()
        || at.recovery.is_some()
        || at.remap_pending.is_some()
        || at.remap_failure.is_some()
        || at.ecc_uncorrected.is_some()
        || at.throttle.is_some()
        || at.temperature.is_some();
    if something { Ok(()) } else { Err("nothing happens; give e.g. xid = 79".to_owned()) }
}

fn check_fault(fault: &Fault, scenario: &Scenario) -> Result<(), String> {
    if fault.call != "*" {
        known(&fault.call)?;
    }
    fault.gpu.map_or(Ok(()), |gpu| on_a_gpu(gpu, scenario))?;
    let does = fault.code.is_some() || fault.hang || fault.abort || fault.garbage;
    if !does && fault.delay_ms == 0 {
        return Err("it does nothing; give code, delay_ms, hang, abort or garbage".to_owned());
    }
    Ok(())
}

fn on_a_gpu(gpu: u32, scenario: &Scenario) -> Result<(), String> {
    let count = scenario.gpus.len();
    if (gpu as usize) < count { Ok(()) } else { Err(format!("gpu = {gpu}, and there are {count}")) }
}

fn is_uuid(text: &str) -> bool {
    let Some(digits) = text.strip_prefix("GPU-") else { return false };
    let parts: Vec<&str> = digits.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn is_bdf(text: &str) -> bool {
    parse_bdf(text).is_some()
}

/// Domain, bus and device of `0000:3b:00.0`.
pub(crate) fn parse_bdf(text: &str) -> Option<(u32, u32, u32)> {
    let (domain, rest) = text.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let device = rest.strip_suffix(".0")?;
    let number =
        |text: &str, len| (text.len() == len).then(|| u32::from_str_radix(text, 16).ok()).flatten();
    Some((number(domain, 4)?, number(bus, 2)?, number(device, 2)?))
}

/// The CPUs of a list as the kernel writes it.
pub(crate) fn parse_cpus(text: &str) -> Result<Vec<u32>, String> {
    let mut cpus = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.parse::<u32>(), last.parse::<u32>()) {
            (Ok(first), Ok(last)) if first <= last && last < 4096 => cpus.extend(first..=last),
            _ => return Err(format!("cpus {text:?} is no list of CPUs, e.g. \"0-15,32-47\"")),
        }
    }
    Ok(cpus)
}
