//! `scontrol show partition`: who may use which nodes, for how long?

use penstock_proto::v1;
use penstock_vocab::{Walltime, compress};

use crate::connect::{Client, Patience};
use crate::errors::RemoteError;
use crate::listing::in_id_order;
use crate::output::{print_line, write_bytes};

use super::record::Record;
use super::{FAILED, Flags};

/// Prints one partition, or all that are not hidden.
pub(super) fn show(client: &Client, name: Option<&str>, flags: Flags) -> Result<i32, RemoteError> {
    let reply = client.call(Patience::READ, |mut rpc| async move {
        rpc.list_partitions(v1::ListPartitionsRequest::default()).await
    })?;
    let wanted = |partition: &&v1::PartitionInfo| match name {
        Some(name) => partition.name == name,
        None => flags.all || !partition.hidden,
    };
    let found = reply.partitions.iter().filter(wanted);
    let text: String = found.map(|partition| record(partition, flags)).collect();
    Ok(match (text.as_str(), name) {
        ("", Some(name)) => {
            print_line(&format!("Partition {name} not found"));
            FAILED
        }
        ("", None) => {
            print_line("No partitions in the system");
            0
        }
        (text, _) => {
            write_bytes(text.as_bytes());
            0
        }
    })
}

fn record(partition: &v1::PartitionInfo, flags: Flags) -> String {
    let mut record = Record::new(flags.oneline);
    let yes = |flag: bool| if flag { "YES" } else { "NO" };
    record.push(&format!("PartitionName={}", partition.name));
    record.line(&format!(
        "AllowGroups={} {} {}",
        who(&partition.allow_groups),
        let_in("Accounts", &partition.allow_accounts, &partition.deny_accounts),
        let_in("Qos", &partition.allow_qos, &partition.deny_qos)
    ));
    record.line(&format!(
        "AllocNodes=ALL Default={} QoS={}",
        yes(partition.is_default),
        if partition.qos.is_empty() { "N/A" } else { &partition.qos }
    ));
    record.line(&format!(
        "DefaultTime={} DisableRootJobs=NO ExclusiveUser={} GraceTime={} Hidden={}",
        partition.default_time_secs.map_or_else(|| "NONE".to_owned(), time),
        yes(partition.exclusive_user),
        partition.grace_secs,
        yes(partition.hidden)
    ));
    record.line(&format!(
        "MaxNodes={} MaxTime={} MinNodes={} LLN=NO MaxCPUsPerNode={}",
        limit(partition.max_nodes),
        time(partition.max_time_secs),
        partition.min_nodes,
        limit(partition.max_cpus_per_node)
    ));
    let nodes = compress(partition.nodes.iter().map(String::as_str));
    record.line(&format!("Nodes={}", if nodes.is_empty() { "(null)" } else { &nodes }));
    record.line(&format!(
        "PriorityJobFactor={} PriorityTier={} RootOnly={} ReqResv={} OverSubscribe={}",
        partition.priority_job_factor,
        partition.priority_tier,
        yes(partition.root_only),
        yes(partition.require_reservation),
        match partition.oversubscribe.as_str() {
            _ if partition.exclusive => "EXCLUSIVE",
            "" => "NO",
            word => word,
        }
    ));
    let mode = partition.preempt_mode.as_str();
    record.line(&format!(
        "OverTimeLimit=NONE PreemptMode={}",
        if mode.is_empty() { "OFF" } else { mode }
    ));
    record.line(&format!(
        "State={} TotalCPUs={} TotalNodes={} SelectTypeParameters=NONE",
        if partition.state.is_empty() { "UP" } else { &partition.state },
        partition.total_cpus,
        partition.total_nodes
    ));
    record.line("JobDefaults=(null)");
    record.line(&format!(
        "{} {}",
        memory("Def", partition.def_mem_per_cpu_mib, partition.def_mem_per_node_mib),
        memory("Max", partition.max_mem_per_cpu_mib, partition.max_mem_per_node_mib)
    ));
    record.line(&format!("TRES={}", in_id_order(&partition.tres)));
    record.finish()
}

fn who(names: &[String]) -> String {
    if names.is_empty() { "ALL".to_owned() } else { names.join(",") }
}

/// Who may come in, or else who may not.
fn let_in(whom: &str, allow: &[String], deny: &[String]) -> String {
    if allow.is_empty() && !deny.is_empty() {
        return format!("Deny{whom}={}", deny.join(","));
    }
    format!("Allow{whom}={}", who(allow))
}

fn limit(number: u32) -> String {
    if number == 0 { "UNLIMITED".to_owned() } else { number.to_string() }
}

fn time(secs: u64) -> String {
    let time = if secs == 0 { Walltime::Unlimited } else { Walltime::Limited(secs) };
    time.to_string()
}

fn memory(which: &str, per_cpu: Option<u64>, per_node: Option<u64>) -> String {
    match (per_cpu, per_node) {
        (Some(mib), _) => format!("{which}MemPerCPU={mib}"),
        (None, Some(mib)) => format!("{which}MemPerNode={mib}"),
        (None, None) => format!("{which}MemPerNode=UNLIMITED"),
    }
}

#[cfg(test)]
mod tests {
    use crate::listing::testing::partition;

    use super::*;

    #[test]
    fn record_is_slurms() {
        let mut main = partition("main", &["n1", "n2", "n3"]);
        main.is_default = true;
        main.default_time_secs = Some(3600);
        main.total_cpus = 20;
        main.total_nodes = 3;
        main.tres = "billing=20,cpu=20,mem=11000M,node=3".into();
        let text = record(&main, Flags::default());
        assert_eq!(
            text,
            "\
PartitionName=main
   AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL
   AllocNodes=ALL Default=YES QoS=N/A
   DefaultTime=01:00:00 DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO
   MaxNodes=UNLIMITED MaxTime=UNLIMITED MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED
   Nodes=n[1-3]
   PriorityJobFactor=1 PriorityTier=1 RootOnly=NO ReqResv=NO OverSubscribe=NO
   OverTimeLimit=NONE PreemptMode=OFF
   State=UP TotalCPUs=20 TotalNodes=3 SelectTypeParameters=NONE
   JobDefaults=(null)
   DefMemPerNode=UNLIMITED MaxMemPerNode=UNLIMITED
   TRES=cpu=20,mem=11000M,node=3,billing=20

"
        );
        let mut long = partition("long", &[]);
        long.deny_accounts = vec!["a1".into(), "a2".into()];
        long.qos = "part".into();
        long.preempt_mode = "REQUEUE".into();
        long.oversubscribe = "FORCE:4".into();
        long.require_reservation = true;
        long.max_time_secs = 86_400;
        long.def_mem_per_cpu_mib = Some(2000);
        let line = record(&long, Flags { oneline: true, ..Flags::default() });
        assert_eq!(line.matches('\n').count(), 1);
        assert!(
            line.starts_with("PartitionName=long AllowGroups=ALL DenyAccounts=a1,a2 AllowQos=ALL "),
            "{line}"
        );
        assert!(line.contains(" QoS=part "), "{line}");
        assert!(line.contains(" ReqResv=YES OverSubscribe=FORCE:4 "), "{line}");
        assert!(line.contains(" PreemptMode=REQUEUE "), "{line}");
        assert!(line.contains(" DefaultTime=NONE "), "{line}");
        assert!(line.contains(" MaxTime=1-00:00:00 "), "{line}");
        assert!(line.contains(" Nodes=(null) "), "{line}");
        assert!(line.contains(" DefMemPerCPU=2000 MaxMemPerNode=UNLIMITED "), "{line}");
    }
}
