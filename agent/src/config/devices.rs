//! What does the file say about GPUs and other devices?

use std::path::{Path, PathBuf};

use penstock_vocab::{GresName, expand};
use serde::Deserialize;
use toml::Spanned;

use super::Problem;
use crate::gpu::{Accelerator, GpuSettings, Numbering};

/// Most units of one kind of accelerator.
const MAX_UNITS: usize = 1024;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GpuSection {
    detect: Option<Spanned<String>>,
    library: Option<PathBuf>,
    device_dir: Option<PathBuf>,
    sample_secs: Option<Spanned<u32>>,
    visible_devices: Option<Spanned<String>>,
    kernel_log: Option<PathBuf>,
    foreign_processes: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AcceleratorSection {
    name: Spanned<String>,
    files: Spanned<String>,
    #[serde(default)]
    common: Vec<PathBuf>,
    #[serde(default)]
    variable: String,
}

pub(super) fn gpu(section: GpuSection, folder: &Path) -> Result<GpuSettings, Problem> {
    let default = GpuSettings::default();
    let detect = match section.detect.as_ref().map(|word| (word, word.as_ref().as_str())) {
        None | Some((_, "auto")) => true,
        Some((_, "none")) => false,
        Some((at, word)) => {
            let text = format!("detect {word:?} is neither \"auto\" nor \"none\"");
            return Err(Problem::at(at, text));
        }
    };
    let numbering =
        match section.visible_devices.as_ref().map(|word| (word, word.as_ref().as_str())) {
            None | Some((_, "uuid")) => Numbering::Uuid,
            Some((_, "index")) => Numbering::Index,
            Some((at, word)) => {
                let text = format!("visible_devices {word:?} is neither \"uuid\" nor \"index\"");
                return Err(Problem::at(at, text));
            }
        };
    let shares_foreign =
        match section.foreign_processes.as_ref().map(|word| (word, word.as_ref().as_str())) {
            None | Some((_, "withhold")) => false,
            Some((_, "ignore")) => true,
            Some((at, word)) => {
                let text =
                    format!("foreign_processes {word:?} is neither \"withhold\" nor \"ignore\"");
                return Err(Problem::at(at, text));
            }
        };
    let sample_secs = match &section.sample_secs {
        None => default.sample_secs,
        Some(given) if *given.as_ref() <= 3600 => *given.as_ref(),
        Some(given) => {
            return Err(Problem::at(given, "sample_secs is more than 3600; 0 takes no samples"));
        }
    };
    Ok(GpuSettings {
        detect,
        shares_foreign,
        kernel_log: section.kernel_log.map(|path| folder.join(path)),
        library: section.library.map(|path| folder.join(path)),
        device_dir: section.device_dir.map_or(default.device_dir, |path| folder.join(path)),
        sample_secs,
        numbering,
    })
}

pub(super) fn accelerators(
    sections: Vec<Spanned<AcceleratorSection>>,
) -> Result<Vec<Accelerator>, Problem> {
    let mut all: Vec<Accelerator> = Vec::new();
    for section in sections {
        let section = section.into_inner();
        let name: GresName =
            section.name.as_ref().parse().map_err(|error| Problem::at(&section.name, error))?;
        if name.name() == "gpu" {
            let text = "GPUs are found and not declared; give another name, or claim them in gres";
            return Err(Problem::at(&section.name, text));
        }
        if all.iter().any(|other| other.name == name) {
            return Err(Problem::at(&section.name, format!("{name} is declared twice")));
        }
        let list = expand(section.files.as_ref())
            .map_err(|error| Problem::at(&section.files, format!("files: {error}")))?;
        if list.len() > MAX_UNITS {
            let text =
                format!("files name {} devices; at most {MAX_UNITS} are possible", list.len());
            return Err(Problem::at(&section.files, text));
        }
        let files: Vec<PathBuf> = list.into_iter().map(PathBuf::from).collect();
        if let Some(relative) = files.iter().find(|path| !path.is_absolute()) {
            let text = format!("{} is no absolute path, e.g. /dev/npu[0-3]", relative.display());
            return Err(Problem::at(&section.files, text));
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !section.variable.chars().all(is_name) {
            let text = format!("variable {:?} is no name of a variable", section.variable);
            return Err(Problem::at(&section.name, text));
        }
        let (common, variable) = (section.common, section.variable);
        all.push(Accelerator { name, files, common, variable });
    }
    Ok(all)
}
