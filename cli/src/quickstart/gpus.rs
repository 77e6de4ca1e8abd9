//! Which GPUs that do not exist does each node get?
//!
//! `--fake-gpus h100:8` puts the library of `penstock-fake-nvml` and a scenario into `DIR/nodeN/gpu`.
//! The scenario may be edited while the cluster runs: XIDs, lost GPUs, hangs. A GPU is as busy as the
//! jobs are that have it.

use std::fmt::Write as _;
use std::path::PathBuf;

use penstock_fake_nvml::{LIBRARY_NAME, MODELS, Model};

use super::failure::Failure;
use super::layout::Layout;

/// Most GPUs of a node.
const MAX_GPUS: u32 = 32;

/// Folder of a node's library and scenario.
const FOLDER: &str = "gpu";

/// GPUs of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    model: &'static str,
    count: u32,
    /// They are cut into slices.
    mig: bool,
}

/// What each node gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FakeGpus(Vec<Kind>);

/// How a GPU with MIG is cut at the beginning: profile, memory slices, at which slice, compute
/// instance profile. Something of each size.
const CUT_7: &[(&str, u32)] = &[("3g", 4), ("2g", 0), ("1g", 2), ("1g", 3)];
const CUT_4: &[(&str, u32)] = &[("2g", 0), ("1g", 2), ("1g", 3)];

impl FakeGpus {
    /// Reads `h100:8`, `a100:4,mig`, `h100:4,l40s:2`; `none` for none.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut kinds: Vec<Kind> = Vec::new();
        if text == "none" {
            return Ok(Self(kinds));
        }
        for word in text.split(',') {
            if word == "mig" {
                let kind = kinds.last_mut().ok_or("mig comes after the GPUs that it is for")?;
                let model = model(kind.model)?;
                if model.profiles.is_empty() {
                    return Err(format!("{} cannot be cut into slices", kind.model));
                }
                kind.mig = true;
                continue;
            }
            let (name, count) = word.split_once(':').unwrap_or((word, "1"));
            let model = model(name)?;
            let count = count.parse::<u32>().ok().filter(|count| *count > 0);
            let count = count.ok_or_else(|| format!("{word:?} is not TYPE:COUNT, e.g. h100:8"))?;
            kinds.push(Kind { model: model.key, count, mig: false });
        }
        let total: u32 = kinds.iter().map(|kind| kind.count).fold(0, u32::saturating_add);
        if total > MAX_GPUS {
            return Err(format!("{total} GPUs; a node has at most {MAX_GPUS}"));
        }
        Ok(Self(kinds))
    }

    /// Puts library and scenario into the node's folder, or takes the library away where there are to
    /// be no GPUs.
    pub(super) fn install(&self, layout: &Layout, node: &str, cpus: u32) -> Result<(), Failure> {
        let folder = layout.daemon_dir(node).join(FOLDER);
        if self.0.is_empty() {
            return match std::fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(Failure::system(format!("remove {}", folder.display()))(error))
                }
                _ => Ok(()),
            };
        }
        penstock_fake_nvml::install(&folder, &self.scenario(cpus))
            .map(drop)
            .map_err(|error| Failure::Folder { dir: folder, why: crate::errors::chain(&error) })
    }

    fn scenario(&self, cpus: u32) -> String {
        let mut text = "# Written by `penstock quickstart --fake-gpus`. Edits count at once, e.g.:\n\
            # [[at]]\n# t = 0          # seconds since the start; what is over happens now\n\
            # gpu = 3\n# xid = 79\n# lost = true\n\n\
            # GPUs are used by the processes that have their UUID in CUDA_VISIBLE_DEVICES, and are as\n\
            # busy as `util` says, or the variable FAKE_GPU_PERCENT of one of them.\n\
            jobs = true\n"
            .to_owned();
        let total: u32 = self.0.iter().map(|kind| kind.count).sum();
        let mut index = 0;
        for kind in &self.0 {
            for _ in 0..kind.count {
                self.gpu(&mut text, *kind, (index, total), cpus);
                index += 1;
            }
        }
        text
    }

    fn gpu(&self, text: &mut String, kind: Kind, (index, total): (u32, u32), cpus: u32) {
        let mut line = |line: String| {
            text.push_str(&line);
            text.push('\n');
        };
        line(format!("\n[[gpu]]\nmodel = {:?}", kind.model));
        // Half of them hang on each of two sockets, as on most machines with several.
        let socket = u32::from(total > 1 && index >= total.div_ceil(2));
        line(format!("numa = {socket}\npcie_switch = {}", index / 2));
        if cpus >= 2 {
            let half = cpus / 2;
            let (first, last) = if socket == 0 { (0, half - 1) } else { (half, cpus - 1) };
            let near = if total > 1 { (first, last) } else { (0, cpus - 1) };
            line(format!("cpus = \"{}-{}\"", near.0, near.1));
        }
        let links = match kind.model {
            "h100-80" | "h200" => 18,
            "a100-40" | "a100-80" => 12,
            _ => 0,
        };
        if links > 0 && self.0.iter().map(|kind| kind.count).sum::<u32>() > 1 {
            line(format!("nvswitch_links = {links}"));
        }
        let seed = index + 1;
        line(format!("util = {{ kind = \"noise\", seed = {seed}, percent = 88, spread = 9 }}"));
        if kind.mig {
            line(format!("mig = {{ current = true }}\ngi = [{}]", cut(kind.model)));
        }
    }
}

fn model(name: &str) -> Result<&'static Model, String> {
    let by_key = MODELS.iter().find(|model| model.key == name);
    by_key.or_else(|| MODELS.iter().find(|model| model.gres_type == name)).ok_or_else(|| {
        let names: Vec<&str> = MODELS.iter().map(|model| model.key).collect();
        format!("there is no fake GPU {name:?}; there are {}", names.join(", "))
    })
}

/// The instances of a GPU that is cut.
fn cut(key: &str) -> String {
    let Ok(model) = model(key) else { return String::new() };
    let places = if model.slices == 8 { CUT_7 } else { CUT_4 };
    let mut text = String::new();
    // Ids as on the hardware: 1 and 2 for large ones, 3 to 6, then 7 and on.
    let mut next = [7, 3, 1];
    for (shape, start) in places {
        let named = |profile: &&penstock_fake_nvml::Profile| {
            profile.name.starts_with(&format!("{shape}.")) && profile.size == slices(shape, model)
        };
        let Some(profile) = model.profiles.iter().find(named) else { continue };
        let class = profile.compute.min(3) as usize - 1;
        let id = next[class];
        next[class] += 1;
        let compute = profile.compute - 1;
        let comma = if text.is_empty() { "" } else { ", " };
        write!(
            text,
            "{comma}{{ id = {id}, profile = {}, start = {start}, ci = [{{ id = 0, profile = {compute} }}] }}",
            profile.id
        )
        .expect("writing to a String cannot fail");
    }
    text
}

/// Memory slices of the plain profile of a shape.
fn slices(shape: &str, model: &Model) -> u32 {
    match (shape, model.slices) {
        ("3g", 8) => 4,
        ("2g", _) => 2,
        _ => 1,
    }
}

/// The library of a node's GPUs that do not exist; `None` where it has none.
pub(super) fn library(layout: &Layout, node: &str) -> Option<PathBuf> {
    let library = layout.daemon_dir(node).join(FOLDER).join(LIBRARY_NAME);
    library.symlink_metadata().is_ok().then_some(library)
}

#[cfg(test)]
mod tests {
    use penstock_fake_nvml::Scenario;

    use super::*;

    #[test]
    fn words_become_scenarios() {
        for (text, types) in [
            ("h100:8", vec!["h100"; 8]),
            ("a100:2,mig", vec!["a100"; 2]),
            ("a30:1,mig,l40s:1", vec!["a30", "l40s"]),
            ("h200", vec!["h200"]),
            ("none", vec![]),
        ] {
            let gpus = FakeGpus::parse(text).unwrap();
            for cpus in [1, 2, 64] {
                let scenario = Scenario::parse(&gpus.scenario(cpus), "s").unwrap();
                let found: Vec<_> = scenario.models().map(|model| model.gres_type).collect();
                assert_eq!(found, types, "{text}");
            }
        }
    }

    #[test]
    fn nonsense_is_explained() {
        for (text, expect) in [
            ("h1000:8", "there is no fake GPU \"h1000\"; there are a30, a100-40"),
            ("h100:0", "is not TYPE:COUNT"),
            ("h100:x", "is not TYPE:COUNT"),
            ("h100:33", "at most 32"),
            ("mig", "comes after"),
            ("l40s:1,mig", "cannot be cut"),
            ("", "no fake GPU \"\""),
        ] {
            let error = FakeGpus::parse(text).unwrap_err();
            assert!(error.contains(expect), "{text}: {error}");
        }
    }
}
