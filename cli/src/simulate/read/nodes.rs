//! How is a list of nodes, as Alibaba publishes them, read?
//!
//! A CSV with a header: name (or `sn`), cpu (or `cpu_milli`), memory (or `memory_mib`), gpu and
//! model (or spec); where GPUs are cut `mig`, see there.

use std::path::Path;

use super::csv::{Header, field, fields, names};
use super::{ReadError, data_lines, number, text_of};

const NAME: &[&str] = &["name", "node", "sn"];
const CPU: &[&str] = &["cpu", "cpus"];
const CPU_MILLI: &[&str] = &["cpu_milli"];
const GPU: &[&str] = &["gpu", "num_gpu", "gpus"];

/// A node of such a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::simulate) struct NodeLine {
    pub(in crate::simulate) name: String,
    pub(in crate::simulate) cpus: u32,
    /// MiB.
    pub(in crate::simulate) memory: u64,
    pub(in crate::simulate) gpus: u32,
    /// Model of the GPUs; empty: not known.
    pub(in crate::simulate) model: String,
    /// How they are cut; empty: they are whole.
    pub(in crate::simulate) mig: String,
}

/// Whether a text is such a list rather than a cluster file: its first line is a header.
pub(in crate::simulate) fn is_node_list(text: &str) -> bool {
    let Some((_, first)) = data_lines(text).next() else { return false };
    let names = names(first);
    let has = |aliases: &[&str]| aliases.iter().any(|alias| names.iter().any(|name| name == alias));
    first.contains(',') && has(NAME) && (has(CPU) || has(CPU_MILLI))
}

/// Reads the list at `path`; the lines that are not understood are counted.
///
/// # Errors
/// If it can't be read, or lacks a column, or has no node.
pub(in crate::simulate) fn read_nodes(path: &Path) -> Result<(Vec<NodeLine>, usize), ReadError> {
    let text = text_of(path)?;
    let mut lines = data_lines(&text);
    let empty = |why: String| ReadError::Empty { path: path.to_owned(), why };
    let Some((_, first)) = lines.next() else {
        return Err(empty("it is empty".to_owned()));
    };
    let header = Header::new(path, "list of nodes", first);
    let name = header.require(NAME)?;
    let (cpu, cpu_milli) = (header.find(CPU), header.find(CPU_MILLI));
    let memory = header.find(&["memory", "memory_mib", "mem"]);
    let gpu = header.find(GPU);
    let model = header.find(&["model", "spec", "gpu_spec", "gpu_model"]);
    let mig = header.find(&["mig"]);
    let (mut nodes, mut broken) = (Vec::new(), 0);
    for (_, text) in lines {
        let row = fields(text);
        let count = |at: Option<usize>| match field(&row, at) {
            "" => Ok(0),
            text => number::whole(text),
        };
        let cpus = match cpu_milli {
            Some(at) => count(Some(at)).map(|milli| milli / 1_000),
            None => count(cpu),
        };
        let (Ok(cpus), Ok(memory), Ok(gpus)) = (cpus, count(memory), count(gpu)) else {
            broken += 1;
            continue;
        };
        let whole = |number: i64| u32::try_from(number.max(0)).unwrap_or(u32::MAX);
        let line = NodeLine {
            name: field(&row, Some(name)).to_owned(),
            cpus: whole(cpus),
            memory: u64::try_from(memory).unwrap_or(0),
            gpus: whole(gpus),
            model: field(&row, model).to_owned(),
            mig: field(&row, mig).to_owned(),
        };
        if line.cpus == 0 || line.name.is_empty() {
            broken += 1;
        } else {
            nodes.push(line);
        }
    }
    if nodes.is_empty() {
        return Err(empty("no line is a node".to_owned()));
    }
    Ok((nodes, broken))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_read_and_broken_ones_counted() {
        let text = "sn,cpu_milli,memory_mib,gpu,model\nn-0,96000,393216,8,V100\nn-1,x,1,0,\n";
        assert!(is_node_list(text));
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("nodes.csv");
        std::fs::write(&path, text).expect("written");
        let (nodes, broken) = read_nodes(&path).expect("a list");
        let (name, model) = ("n-0".to_owned(), "V100".to_owned());
        assert_eq!(
            nodes,
            [NodeLine { name, cpus: 96, memory: 393_216, gpus: 8, model, mig: String::new() }]
        );
        assert_eq!(broken, 1);
    }

    #[test]
    fn cluster_file_is_no_node_list() {
        assert!(!is_node_list("[[node]]\nname = \"n[1,2]\"\ncpus = 4\n"));
        assert!(!is_node_list(""));
    }
}
