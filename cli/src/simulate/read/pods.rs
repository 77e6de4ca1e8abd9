//! How is a list of pods, as Alibaba publishes them, read?
//!
//! A CSV with a header: name, cpu (or `cpu_milli`), memory (or `memory_mib`), gpu (or `num_gpu`),
//! `gpu_milli`, spec (or `gpu_spec`: models that will do, `A|B`; none: all), and where they are known
//! `creation_time` and `deletion_time` in seconds. A part of a CPU or GPU counts as a whole one, but for
//! nodes whose GPUs are cut: there it gets a slice, that of its `profile` where the list has one.
//! Without times pods come one a second and stay for ever.

use std::path::Path;

use super::csv::{Header, field, fields, names};
use super::{ReadError, data_lines, number};
use crate::simulate::job::{Ask, Length, Pod, Raw, Record};

const NAME: &[&str] = &["name", "pod", "sn"];
const CPU: &[&str] = &["cpu", "cpus"];
const CPU_MILLI: &[&str] = &["cpu_milli"];
const MEMORY: &[&str] = &["memory", "memory_mib", "mem"];
const GPU: &[&str] = &["gpu", "num_gpu", "gpus"];
const MODELS: &[&str] = &["spec", "gpu_spec"];

/// Whether a line is the header.
pub(super) fn is_header(line: &str) -> bool {
    let names = names(line);
    let has = |aliases: &[&str]| aliases.iter().any(|alias| names.iter().any(|name| name == alias));
    has(NAME) && (has(CPU) || has(CPU_MILLI)) && has(GPU)
}

struct Columns {
    name: usize,
    cpu: Option<usize>,
    cpu_milli: Option<usize>,
    memory: Option<usize>,
    gpu: usize,
    gpu_milli: Option<usize>,
    models: Option<usize>,
    created: Option<usize>,
    scheduled: Option<usize>,
    deleted: Option<usize>,
    profile: Option<usize>,
}

/// Reads the list.
///
/// # Errors
/// If the header lacks a column.
pub(super) fn read(path: &Path, text: &str) -> Result<Raw, ReadError> {
    let mut raw = Raw::default();
    let mut lines = data_lines(text);
    let Some((_, first)) = lines.next() else { return Ok(raw) };
    let header = Header::new(path, "list of pods", first);
    let columns = Columns {
        name: header.require(NAME)?,
        cpu: header.find(CPU),
        cpu_milli: header.find(CPU_MILLI),
        memory: header.find(MEMORY),
        gpu: header.require(GPU)?,
        gpu_milli: header.find(&["gpu_milli"]),
        models: header.find(MODELS),
        created: header.find(&["creation_time"]),
        scheduled: header.find(&["scheduled_time"]),
        deleted: header.find(&["deletion_time"]),
        profile: header.find(&["profile"]),
    };
    if columns.cpu.or(columns.cpu_milli).is_none() {
        header.require(CPU)?;
    }
    for (line, text) in lines {
        let row = fields(text);
        match record(line, raw.records.len(), &row, &columns) {
            Ok((record, part)) => {
                raw.fractions += usize::from(part);
                raw.records.push(record);
            }
            Err(why) => raw.skip(line, why),
        }
    }
    Ok(raw)
}

/// The record of a line, the `nth`; whether it asked for part of a GPU.
fn record(
    line: usize,
    nth: usize,
    row: &[&str],
    columns: &Columns,
) -> Result<(Record, bool), String> {
    let count = |what: &str, at: Option<usize>| match field(row, at) {
        "" => Ok(0),
        text => number::size(what, text),
    };
    let cpus = match columns.cpu_milli {
        Some(at) => count("cpu_milli", Some(at))?.saturating_add(999) / 1_000,
        None => count("cpu", columns.cpu)?,
    };
    let memory = count("memory", columns.memory)?;
    let part = count("gpu_milli", columns.gpu_milli)?;
    let gpus = count("gpu", Some(columns.gpu))?;
    // Some lists say the part alone.
    let gpus = if gpus == 0 && part > 0 { 1 } else { gpus };
    let (submit, run) = times(nth, row, columns)?;
    let models = field(row, columns.models).split('|').filter(|model| !model.is_empty());
    let letter = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if let Some(wrong) = models.clone().find(|model| !model.chars().all(letter)) {
        return Err(format!("spec {wrong:?} is no model of a GPU"));
    }
    let pod = Pod {
        cpus: cpus.max(1),
        memory: u64::try_from(memory).unwrap_or(0),
        gpus: gpus.max(0),
        part: u32::try_from(part.clamp(0, 1_000)).unwrap_or(0),
        profile: field(row, columns.profile).to_owned(),
        slices: 0,
        models: models.map(str::to_owned).collect(),
    };
    let record = Record {
        line,
        id: field(row, Some(columns.name)).to_owned(),
        submit,
        run,
        request: -1,
        ask: Ask::Pod(pod),
        user: String::new(),
        account: String::new(),
        partition: String::new(),
    };
    Ok((record, gpus == 1 && (1..1_000).contains(&part)))
}

/// When a pod was made, and how long it ran.
fn times(nth: usize, row: &[&str], columns: &Columns) -> Result<(i64, Length), String> {
    let (Some(_), Some(_)) = (columns.created, columns.deleted) else {
        return Ok((i64::try_from(nth).unwrap_or(i64::MAX), Length::Endless));
    };
    let created = number::submit(field(row, columns.created))?;
    let deleted = field(row, columns.deleted);
    if deleted.is_empty() {
        return Ok((created, Length::Endless));
    }
    let deleted = number::submit(deleted)?;
    let scheduled = field(row, columns.scheduled);
    let began = if scheduled.is_empty() { created } else { number::submit(scheduled)? };
    Ok((created, Length::Secs(deleted - began)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Raw {
        read(Path::new("p.csv"), text).expect("a list")
    }

    #[test]
    fn pods_without_times_come_one_a_second_and_stay() {
        let raw = read_text(
            "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n\
             a,11800,49152,1,460,\nb,6000,1024,8,1000,V100|G2\nc,500,1,0,0,\n",
        );
        let pods: Vec<_> = raw.records.iter().map(|record| (record.submit, &record.ask)).collect();
        let pod = |cpus, memory, gpus, models: &[&str]| {
            let models = models.iter().map(|model| (*model).to_owned()).collect();
            let (part, profile) =
                (if cpus == 12 { 460 } else { u32::from(gpus > 0) * 1_000 }, String::new());
            Ask::Pod(Pod { cpus, memory, gpus, part, profile, slices: 0, models })
        };
        assert_eq!(pods[0], (0, &pod(12, 49_152, 1, &[])));
        assert_eq!(pods[1], (1, &pod(6, 1_024, 8, &["V100", "G2"])));
        assert_eq!(pods[2], (2, &pod(1, 1, 0, &[])));
        assert!(raw.records.iter().all(|record| record.run == Length::Endless));
        assert_eq!(raw.fractions, 1);
    }

    #[test]
    fn times_are_used_where_they_are_known() {
        let raw = read_text(
            "name,cpu,memory,gpu,gpu_milli,spec,creation_time,deletion_time,scheduled_time\n\
             a,4,1,1,1000,,100,900,200\nb,4,1,1,1000,,100,,\nc,4,1,x,1000,,1,2,1\n",
        );
        assert_eq!((raw.records[0].submit, raw.records[0].run), (100, Length::Secs(700)));
        assert_eq!(raw.records[1].run, Length::Endless);
        assert_eq!(raw.first_broken, Some((4, "gpu \"x\" is no number".to_owned())));
    }
}
