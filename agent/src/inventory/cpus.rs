//! Which CPUs may be used, and how do they share cores and sockets?

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use super::InventoryError;

const STATUS: &str = "/proc/self/status";

/// Most CPUs of one machine; Linux has room for 8192.
const MAX_CPUS: u32 = 65_536;

/// One CPU and where it sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cpu {
    // In this order CPUs are numbered: threads of a core are neighbours, and so are its cores.
    package: u32,
    core: u32,
    number: u32,
}

/// The CPUs that this process may use, in the order of their logical numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Topology(Vec<Cpu>);

/// Sockets, cores of each and threads of each core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) sockets: u32,
    pub(super) cores: u32,
    pub(super) threads: u32,
}

impl Shape {
    /// One socket of `cpus` cores.
    pub(super) const fn flat(cpus: u32) -> Self {
        Self { sockets: 1, cores: cpus, threads: 1 }
    }
}

/// Which real CPU each logical one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuMap(Vec<u32>);

impl Topology {
    pub(super) fn read() -> Result<Self, InventoryError> {
        let unreadable = |source| InventoryError::Unreadable { path: STATUS, source };
        let status = fs::read_to_string(STATUS).map_err(unreadable)?;
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let allowed = parse_list(line.unwrap_or_default());
        if allowed.is_empty() {
            return Err(unreadable(std::io::Error::from(std::io::ErrorKind::InvalidData)));
        }
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let mut cpus: Vec<Cpu> = allowed.iter().map(|&number| locate(number, &info)).collect();
        cpus.sort_unstable();
        Ok(Self(cpus))
    }

    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(MAX_CPUS)
    }

    /// The first `count` of them, or all.
    pub(super) fn first(&self, count: u32) -> Self {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        Self(self.0.iter().copied().take(count).collect())
    }

    /// Their shape; flat where not every socket or core has as many as the others.
    pub(super) fn shape(&self) -> Shape {
        let count = |many: usize| u32::try_from(many).unwrap_or(MAX_CPUS);
        let sockets: BTreeSet<u32> = self.0.iter().map(|cpu| cpu.package).collect();
        let cores: BTreeSet<(u32, u32)> =
            self.0.iter().map(|cpu| (cpu.package, cpu.core)).collect();
        let per = |whole: u32, parts: u32| whole.checked_div(parts).unwrap_or(0);
        let shape = Shape {
            sockets: count(sockets.len()),
            cores: per(count(cores.len()), count(sockets.len())),
            threads: per(self.len(), count(cores.len())),
        };
        let even = cores.iter().all(|&(package, core)| {
            let threads = self.0.iter().filter(|c| (c.package, c.core) == (package, core)).count();
            let siblings = cores.iter().filter(|c| c.0 == package).count();
            count(threads) == shape.threads && count(siblings) == shape.cores
        });
        if even { shape } else { Shape::flat(self.len()) }
    }

    pub(super) fn map(&self) -> CpuMap {
        CpuMap(self.0.iter().map(|cpu| cpu.number).collect())
    }
}

impl CpuMap {
    /// How many CPUs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The logical number of each real CPU.
    pub(crate) fn logical(&self) -> std::collections::BTreeMap<u32, u32> {
        self.0.iter().copied().zip(0..).collect()
    }

    /// The real CPUs of logical `ranges` (first, last, first, last ...), as the kernel lists them;
    /// numbers beyond the node's CPUs are left out.
    #[must_use]
    pub fn list(&self, ranges: &[u32]) -> String {
        write_list(&self.real(ranges).into_iter().collect())
    }

    /// The real CPUs of logical `ranges`, in the order of the ranges: threads of a core are
    /// neighbours. Numbers beyond the node's CPUs are left out.
    #[must_use]
    pub fn real(&self, ranges: &[u32]) -> Vec<u32> {
        let last = u32::try_from(self.0.len()).unwrap_or(u32::MAX).saturating_sub(1);
        let mut real = Vec::new();
        for &[from, to] in ranges.as_chunks::<2>().0 {
            let logical = (from..=to.min(last)).filter_map(|at| usize::try_from(at).ok());
            real.extend(logical.filter_map(|at| self.0.get(at)));
        }
        real
    }
}

/// How many CPUs a list of the kernel names.
pub(crate) fn count_cpus(list: &str) -> usize {
    parse_list(list).len()
}

/// Writes CPU numbers as the kernel lists them: `0-3,8`.
pub(crate) fn cpu_list(cpus: &[u32]) -> String {
    write_list(&cpus.iter().copied().collect())
}

/// Where a CPU sits by `/sys`, else by `/proc/cpuinfo`, else on a core of its own.
fn locate(number: u32, cpuinfo: &str) -> Cpu {
    let read = |file: &str| {
        let path = format!("/sys/devices/system/cpu/cpu{number}/topology/{file}");
        fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    let by_info = |key: &str| field_of(cpuinfo, number, key);
    Cpu {
        // Some machines say -1 for "one socket".
        package: read("physical_package_id").or_else(|| by_info("physical id")).unwrap_or(0),
        core: read("core_id").or_else(|| by_info("core id")).unwrap_or(number),
        number,
    }
}

/// A number from the paragraph of one CPU in `/proc/cpuinfo`.
fn field_of(cpuinfo: &str, number: u32, key: &str) -> Option<u32> {
    let value = |paragraph: &str, key: &str| {
        paragraph.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == key).then(|| value.trim().parse().ok())?
        })
    };
    let mut paragraphs = cpuinfo.split("\n\n");
    let own = paragraphs.find(|paragraph| value(paragraph, "processor") == Some(number))?;
    value(own, key)
}

/// Reads `0-3,8`; what is no number is skipped.
fn parse_list(text: &str) -> BTreeSet<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let last: u32 = last.trim().parse().ok()?;
        Some(first.trim().parse::<u32>().ok()?..=last.min(MAX_CPUS))
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

/// Writes `0-3,8`.
fn write_list(numbers: &BTreeSet<u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let mut text = String::new();
    for (first, last) in runs {
        let comma = if text.is_empty() { "" } else { "," };
        let written = if first == last {
            write!(text, "{comma}{first}")
        } else {
            write!(text, "{comma}{first}-{last}")
        };
        written.expect("writing to a String cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topology(cpus: &[(u32, u32, u32)]) -> Topology {
        let mut all: Vec<Cpu> =
            cpus.iter().map(|&(package, core, number)| Cpu { package, core, number }).collect();
        all.sort_unstable();
        Topology(all)
    }

    #[test]
    fn threads_of_a_core_are_neighbours() {
        // Two cores of two threads, as many machines number them.
        let both = topology(&[(0, 0, 0), (0, 1, 1), (0, 0, 2), (0, 1, 3)]);
        assert_eq!(both.shape(), Shape { sockets: 1, cores: 2, threads: 2 });
        assert_eq!(both.map(), CpuMap(vec![0, 2, 1, 3]));
        assert_eq!(both.map().list(&[0, 1]), "0,2");
        assert_eq!(both.map().real(&[2, 9, 0, 1]), [1, 3, 0, 2]);
        assert_eq!(both.map().list(&[0, 0, 2, 9]), "0-1,3");
        assert_eq!(both.map().list(&[7, 9]), "");
        assert_eq!(both.first(2).shape(), Shape { sockets: 1, cores: 1, threads: 2 });
    }

    #[test]
    fn an_uneven_machine_is_flat() {
        let uneven = topology(&[(0, 0, 0), (0, 0, 1), (0, 1, 2)]);
        assert_eq!(uneven.shape(), Shape::flat(3));
        let two = topology(&[(0, 0, 0), (1, 0, 1)]);
        assert_eq!(two.shape(), Shape { sockets: 2, cores: 1, threads: 1 });
    }

    #[test]
    fn cpuinfo_is_read_by_paragraph() {
        let text =
            "processor\t: 0\nphysical id\t: 0\ncore id\t: 4\n\nprocessor\t: 1\ncore id\t: 5\n";
        assert_eq!(field_of(text, 1, "core id"), Some(5));
        assert_eq!(field_of(text, 1, "physical id"), None);
        assert_eq!(field_of(text, 2, "core id"), None);
    }

    proptest! {
        #[test]
        fn lists_are_read_as_they_are_written(numbers in prop::collection::btree_set(0_u32..300, 0..40)) {
            prop_assert_eq!(parse_list(&write_list(&numbers)), numbers);
        }

        #[test]
        fn no_list_is_too_wild(text in "[0-9, x-]{0,20}") {
            parse_list(&text);
        }
    }
}
