//! How does what was asked for become a job without a script?

use penstock_proto::v1;

use super::options::Order;
use crate::sbatch::script::Script;
use crate::sbatch::spec::Submitter;

/// Each name once, where it stood first.
pub(crate) fn once(names: &[String]) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    names.iter().filter(|name| seen.insert(name.as_str())).cloned().collect()
}

/// The job; `name` is what it is called unless it was given a name.
pub(crate) fn job_spec(order: &Order, name: &str, submitter: &Submitter) -> v1::JobSpec {
    let script = Script { text: Vec::new(), path: String::new(), default_name: name.to_owned() };
    let spec = crate::sbatch::spec::job_spec(&order.request, &script, &[], submitter);
    let extras = &order.extras;
    let mut spec = v1::JobSpec {
        allocation: true,
        required_nodes: once(&order.request.nodelist),
        unheld: extras.no_shell,
        script_arguments: Vec::new(),
        // Files belong to steps.
        stdin: String::new(),
        stdout: String::new(),
        stderr: String::new(),
        // It cannot be started again without its holder.
        requeue: Some(false),
        immediate_secs: extras.immediate,
        distribution: extras.distribution.clone(),
        no_kill: extras.no_kill,
        ..spec
    };
    if extras.distribution.starts_with("arbitrary") {
        // Every node has room for the tasks of the one that is named most often.
        let named = &order.request.nodelist;
        let times = |name| named.iter().filter(|other| *other == name).count();
        let most = named.iter().map(times).max().unwrap_or(1);
        let nodes = u32::try_from(spec.required_nodes.len()).unwrap_or(u32::MAX);
        (spec.nodes_min, spec.nodes_max, spec.ntasks) = (nodes, nodes, None);
        spec.ntasks_per_node = Some(u32::try_from(most).unwrap_or(u32::MAX));
    }
    if extras.overcommit {
        crate::sbatch::spec::overcommit(&mut spec);
    }
    spec
}
