//! What of the machine is allocated, idle, unhealthy, and what does it draw?

use std::collections::BTreeMap;

use penstock_proto::v1;

use super::family::{Family, float};

const BYTES_PER_MIB: f64 = 1_048_576.0;

/// Types of GPUs and profiles that are told apart.
const MOST_KINDS: usize = 64;

#[derive(Debug, Default)]
struct Counts {
    nodes: BTreeMap<String, u64>,
    connected: u64,
    /// Allocated, idle, out of service.
    cpus: [u64; 3],
    memory_mib: [u64; 3],
    gpus: BTreeMap<(String, &'static str), u64>,
    slices: BTreeMap<(String, &'static str), u64>,
    power_mw: BTreeMap<String, u64>,
    /// Percents, and of how many.
    utilization: BTreeMap<String, (u64, u64)>,
    gpu_memory_mib: BTreeMap<String, u64>,
}

const STATES: [&str; 3] = ["allocated", "idle", "unavailable"];

/// What is measured of nodes; the agent that was silent longest was so for `silent_ms`.
pub(super) fn families(nodes: &[v1::NodeInfo], silent_ms: u64) -> Vec<Family> {
    let mut counts = Counts::default();
    nodes.iter().for_each(|node| counts.add(node));
    let by_state = |sums: [u64; 3], unit: f64| {
        let value =
            |(state, sum): (&str, u64)| (vec![("state", state.to_owned())], float(sum) * unit);
        STATES.into_iter().zip(sums).map(value).collect()
    };
    let nodes = counts.nodes.iter();
    let by_type = |name: &str| vec![("type", name.to_owned())];
    vec![
        Family::gauges(
            "penstock_nodes",
            "Nodes by state.",
            nodes.map(|(state, n)| (vec![("state", state.clone())], float(*n))).collect(),
        ),
        Family::gauge(
            "penstock_agents_connected",
            "Agents that are connected.",
            float(counts.connected),
        ),
        Family::gauge(
            "penstock_agent_silence_longest_seconds",
            "How long ago the agent that has been silent longest last sent a heartbeat.",
            float(silent_ms) / 1e3,
        ),
        Family::gauges("penstock_cpus", "CPUs by state.", by_state(counts.cpus, 1.0)),
        Family::gauges(
            "penstock_memory_bytes",
            "Memory for jobs by state.",
            by_state(counts.memory_mib, BYTES_PER_MIB),
        ),
        Family::gauges(
            "penstock_gpus",
            "GPUs by type and state; unhealthy ones get no new job.",
            pairs(&counts.gpus, ["type", "state"]),
        ),
        Family::gauges(
            "penstock_mig_slices",
            "MIG slices by profile and state.",
            pairs(&counts.slices, ["profile", "state"]),
        ),
        Family::gauges(
            "penstock_gpu_power_watts",
            "What GPUs draw, by type, as last measured.",
            counts.power_mw.iter().map(|(k, mw)| (by_type(k), float(*mw) / 1e3)).collect(),
        ),
        Family::gauges(
            "penstock_gpu_utilization_ratio",
            "How busy GPUs are on average, by type, as last measured; 1: all the time.",
            counts
                .utilization
                .iter()
                .map(|(k, (sum, of))| (by_type(k), float(*sum) / float((*of).max(1)) / 1e2))
                .collect(),
        ),
        Family::gauges(
            "penstock_gpu_memory_used_bytes",
            "Memory of GPUs that is used, by type, as last measured.",
            counts
                .gpu_memory_mib
                .iter()
                .map(|(k, mib)| (by_type(k), float(*mib) * BYTES_PER_MIB))
                .collect(),
        ),
    ]
}

type Values = Vec<(Vec<(&'static str, String)>, f64)>;

fn pairs(sums: &BTreeMap<(String, &'static str), u64>, names: [&'static str; 2]) -> Values {
    let value = |((one, other), count): (&(String, &'static str), &u64)| {
        let labels = vec![(names[0], one.clone()), (names[1], (*other).to_owned())];
        (labels, float(*count))
    };
    sums.iter().map(value).collect()
}

impl Counts {
    fn add(&mut self, info: &v1::NodeInfo) {
        // The base state and the flags that take a node out of service.
        let words: Vec<&str> = info.state.split('+').collect();
        let out = words.iter().any(|word| {
            matches!(
                *word,
                "DOWN" | "DRAIN" | "FAIL" | "NOT_RESPONDING" | "POWERED_DOWN" | "UNKNOWN"
            )
        });
        let base = words.first().copied().unwrap_or_default().to_lowercase();
        let drained = words.contains(&"DRAIN") && base != "down";
        let state = if drained { "drain".to_owned() } else { base };
        *self.nodes.entry(state).or_default() += 1;
        self.connected += u64::from(!words.contains(&"NOT_RESPONDING") && words[0] != "UNKNOWN");
        let Some(inventory) = info.node.as_ref().and_then(|node| node.inventory.as_ref()) else {
            return;
        };
        let split = |total: u64, taken: u64| {
            let rest = total.saturating_sub(taken);
            if out { [taken, 0, rest] } else { [taken, rest, 0] }
        };
        let add = |sums: &mut [u64; 3], more: [u64; 3]| {
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        };
        add(&mut self.cpus, split(inventory.cpus.into(), info.cpus_allocated.into()));
        add(&mut self.memory_mib, split(inventory.memory_mib, info.memory_allocated_mib));
        for (gpu, now) in inventory.gpus.iter().zip(&info.gpus) {
            self.add_gpu(gpu, now, out);
        }
    }

    fn add_gpu(&mut self, gpu: &v1::Gpu, now: &v1::GpuInfo, node_is_out: bool) {
        let kind = self.kind(&gpu.r#type);
        let sick = !gpu.fault.is_empty() || now.state.starts_with("DRAIN");
        let state = match (sick, now.holders.is_empty()) {
            (true, _) => "unhealthy",
            (false, false) => "allocated",
            (false, true) if node_is_out => "unavailable",
            (false, true) => "idle",
        };
        // So that a sum over a state is 0, and not nothing, where none is in it.
        for known in ["allocated", "idle", "unhealthy"] {
            self.gpus.entry((kind.clone(), known)).or_default();
        }
        *self.gpus.entry((kind.clone(), state)).or_default() += 1;
        for slice in &gpu.slices {
            let held = now.holders.iter().any(|holder| holder.start == Some(slice.start));
            let state = if held { "allocated" } else { "idle" };
            if self.slices.len() < 2 * MOST_KINDS {
                *self.slices.entry((slice.profile.clone(), state)).or_default() += 1;
            }
        }
        for sample in now.samples.iter().filter(|sample| sample.gi.is_none()) {
            if let Some(power) = sample.power_mw {
                *self.power_mw.entry(kind.clone()).or_default() += u64::from(power);
            }
            if let Some(percent) = sample.utilization {
                let sum = self.utilization.entry(kind.clone()).or_default();
                sum.0 += u64::from(percent);
                sum.1 += 1;
            }
            if let Some(used) = sample.memory_used_mib {
                *self.gpu_memory_mib.entry(kind.clone()).or_default() += used;
            }
        }
    }

    /// Nodes say what their GPUs are called, and one may say anything.
    fn kind(&self, name: &str) -> String {
        let known = self.gpus.keys().any(|(known, _)| known == name);
        let more = self.gpus.len() < 4 * MOST_KINDS;
        if known || more { name.to_owned() } else { "other".to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::metrics::family;

    fn node(state: &str, gpus: Vec<(v1::Gpu, v1::GpuInfo)>) -> v1::NodeInfo {
        let (gpus, infos): (Vec<_>, Vec<_>) = gpus.into_iter().unzip();
        let inventory = v1::Inventory { cpus: 8, memory_mib: 100, gpus, ..Default::default() };
        v1::NodeInfo {
            node: Some(v1::Node { inventory: Some(inventory), ..Default::default() }),
            state: state.into(),
            cpus_allocated: 2,
            memory_allocated_mib: 10,
            gpus: infos,
            ..v1::NodeInfo::default()
        }
    }

    fn gpu(state: &str, held: bool, fault: &str) -> (v1::Gpu, v1::GpuInfo) {
        let sample =
            v1::GpuSample { power_mw: Some(1_500), utilization: Some(50), ..Default::default() };
        let holders = if held { vec![v1::GpuHolder::default()] } else { Vec::new() };
        let gpu = v1::Gpu { r#type: "h100".into(), fault: fault.into(), ..Default::default() };
        let info = v1::GpuInfo {
            state: state.into(),
            holders,
            samples: vec![sample],
            ..Default::default()
        };
        (gpu, info)
    }

    #[test]
    fn what_is_out_of_service_is_not_idle() {
        let gpus =
            vec![gpu("ALLOCATED", true, ""), gpu("IDLE", false, ""), gpu("DRAINED", false, "")];
        let nodes = [node("MIXED", gpus), node("MIXED+DRAIN", vec![gpu("IDLE", false, "")])];
        let text = family::text(families(&nodes, 2_500), false);
        for line in [
            "penstock_cpus{state=\"allocated\"} 4.0",
            "penstock_cpus{state=\"idle\"} 6.0",
            "penstock_cpus{state=\"unavailable\"} 6.0",
            "penstock_gpus{type=\"h100\",state=\"allocated\"} 1.0",
            "penstock_gpus{type=\"h100\",state=\"idle\"} 1.0",
            "penstock_gpus{type=\"h100\",state=\"unavailable\"} 1.0",
            "penstock_gpus{type=\"h100\",state=\"unhealthy\"} 1.0",
            "penstock_gpu_power_watts{type=\"h100\"} 6.0",
            "penstock_gpu_utilization_ratio{type=\"h100\"} 0.5",
            "penstock_nodes{state=\"drain\"} 1.0",
            "penstock_agent_silence_longest_seconds 2.5",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
    }
}
