//! `scontrol show node`: what does a node have, and in which state is it?

use penstock_proto::v1;
use penstock_vocab::expand_unique;

use crate::connect::{Client, Patience};
use crate::errors::RemoteError;
use crate::listing::{Clock, NodeRow, in_id_order};
use crate::output::{note, print_line, write_bytes};

use super::record::Record;
use super::{FAILED, Flags};

/// Prints the nodes of a hostlist, or all.
pub(super) fn show(
    client: &Client,
    hosts: Option<&str>,
    flags: Flags,
    clock: &Clock,
) -> Result<i32, RemoteError> {
    let hosts = hosts.filter(|hosts| !hosts.eq_ignore_ascii_case("ALL"));
    let request = v1::ListNodesRequest::default();
    let reply = client.call(Patience::READ, |mut rpc| {
        let request = request.clone();
        async move { rpc.list_nodes(request).await }
    })?;
    let rows: Vec<NodeRow<'_>> = reply.nodes.iter().map(NodeRow::new).collect();
    let Some(hosts) = hosts else {
        if rows.is_empty() {
            print_line("No nodes in the system");
        }
        let text: String = rows.iter().map(|row| record(row, flags, clock)).collect();
        write_bytes(text.as_bytes());
        return Ok(0);
    };
    let Ok(names) = expand_unique(hosts) else {
        print_line(&format!("Node {hosts} not found"));
        return Ok(FAILED);
    };
    let mut status = 0;
    for name in names {
        match rows.iter().find(|row| row.node.name == name) {
            Some(row) => write_bytes(record(row, flags, clock).as_bytes()),
            None => {
                print_line(&format!("Node {name} not found"));
                status = FAILED;
            }
        }
    }
    Ok(status)
}

/// Prints the names of the nodes whose host is `host`, or of all.
pub(super) fn aliases(client: &Client, host: Option<&str>) -> Result<i32, RemoteError> {
    let reply = client.call(Patience::READ, |mut rpc| async move {
        rpc.list_nodes(v1::ListNodesRequest::default()).await
    })?;
    let rows = reply.nodes.iter().map(NodeRow::new);
    let meant = rows.filter(|row| host.is_none_or(|host| row.hostname() == host));
    let names: Vec<&str> = meant.map(|row| row.node.name.as_str()).collect();
    match host {
        Some(host) if names.is_empty() => {
            note(&format!("invalid hostname {host}"));
            Ok(FAILED)
        }
        _ => {
            print_line(&names.join(" "));
            Ok(0)
        }
    }
}

fn record(row: &NodeRow<'_>, flags: Flags, clock: &Clock) -> String {
    let (info, inventory) = (row.info, row.inventory);
    let mut record = Record::new(flags.oneline);
    record.push(&format!("NodeName={} ", row.node.name));
    if !inventory.architecture.is_empty() {
        record.push(&format!("Arch={} ", inventory.architecture));
    }
    record.push(&format!("CoresPerSocket={} ", inventory.cores_per_socket));
    record.line(&format!(
        "CPUAlloc={} CPUEfctv={cpus} CPUTot={cpus} CPULoad={}",
        info.cpus_allocated,
        NodeRow::load_text(info.load_centi),
        cpus = inventory.cpus,
    ));
    let features = info.features.join(",");
    let features = or_null(&features);
    record.line(&format!("AvailableFeatures={features}"));
    record.line(&format!("ActiveFeatures={features}"));
    record.line(&format!("Gres={}", or_null(&row.gres_text())));
    if flags.details {
        record.line("GresDrain=N/A");
        if !row.gres_text().is_empty() {
            record.line(&format!("GresUsed={}", or_null(&row.gres_used_text())));
        }
    }
    record.line(&format!("NodeAddr={} NodeHostName={} ", row.address(), row.hostname()));
    record.push(&format!("Version={}", or_null(&inventory.version)));
    if !inventory.os.is_empty() {
        record.line(&format!("OS={} ", inventory.os));
    }
    push_memory_and_state(&mut record, row);
    push_times(&mut record, row, clock);
    record.line(&format!("CfgTRES={}", in_id_order(&info.cfg_tres)));
    record.line(&format!("AllocTRES={}", in_id_order(&info.alloc_tres)));
    record.line("CapWatts=n/a");
    record.line("CurrentWatts=0 AveWatts=0");
    record.line("ExtSensorsJoules=n/s ExtSensorsWatts=0 ExtSensorsTemp=n/s");
    if let Some(reason) = row.reason() {
        record.line(&format!("Reason={}", reason.text));
        if reason.since_ms != 0 {
            let user = if reason.user.is_empty() {
                reason.uid.to_string()
            } else {
                reason.user.to_owned()
            };
            record.push(&format!(" [{user}@{}]", time(clock, reason.since_ms, "Unknown")));
        }
    }
    if !row.comment().is_empty() {
        record.line(&format!("Comment={}", row.comment()));
    }
    record.finish()
}

fn push_memory_and_state(record: &mut Record, row: &NodeRow<'_>) {
    let (info, inventory) = (row.info, row.inventory);
    let free = info.free_memory_mib.map_or_else(|| "N/A".to_owned(), |mib| mib.to_string());
    record.line(&format!(
        "RealMemory={} AllocMem={} FreeMem={free} Sockets={} Boards=1",
        inventory.memory_mib, info.memory_allocated_mib, inventory.sockets
    ));
    record.line(&format!(
        "State={} ThreadsPerCore={} TmpDisk={} Weight={} Owner=N/A MCS_label=N/A",
        info.state, inventory.threads_per_core, inventory.tmp_disk_mib, info.weight
    ));
    if !info.partitions.is_empty() {
        record.line(&format!("Partitions={} ", info.partitions.join(",")));
    }
}

fn push_times(record: &mut Record, row: &NodeRow<'_>, clock: &Clock) {
    record.line(&format!(
        "BootTime={} SlurmdStartTime={}",
        time(clock, row.inventory.boot_time_ms, "None"),
        time(clock, row.inventory.agent_start_ms, "None")
    ));
    // A node that never had a job was busy last when it came.
    let busy = match row.node.last_busy_ms {
        0 => row.inventory.agent_start_ms,
        busy => busy,
    };
    record.line(&format!("LastBusyTime={}", time(clock, busy, "Unknown")));
}

fn time(clock: &Clock, ms: i64, unset: &str) -> String {
    let mut out = String::new();
    match ms {
        0 => out.push_str(unset),
        ms => clock.push(&mut out, ms),
    }
    out
}

fn or_null(text: &str) -> &str {
    if text.is_empty() { "(null)" } else { text }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use crate::listing::testing::{SUBMIT, drained, node};

    use super::*;

    fn show(info: &v1::NodeInfo, flags: Flags) -> String {
        let clock = Clock::new(TimeZone::UTC, None, SUBMIT);
        record(&NodeRow::new(info), flags, &clock)
    }

    #[test]
    fn record_is_slurms() {
        let mut info = node("n1", 4, 3000, 3);
        info.features = vec!["a".into(), "b".into()];
        info.partitions = vec!["main".into(), "a_very_long_partition".into()];
        info.load_centi = Some(17);
        info.free_memory_mib = Some(23_491);
        info.cfg_tres = "billing=4,cpu=4,mem=3000M".into();
        info.alloc_tres = "cpu=3,mem=30M".into();
        if let Some(inventory) = info.node.as_mut().and_then(|node| node.inventory.as_mut()) {
            inventory.boot_time_ms = SUBMIT - 999_000;
            inventory.agent_start_ms = SUBMIT - 7000;
        }
        assert_eq!(
            show(&info, Flags::default()),
            "\
NodeName=n1 Arch=x86_64 CoresPerSocket=1 
   CPUAlloc=3 CPUEfctv=4 CPUTot=4 CPULoad=0.17
   AvailableFeatures=a,b
   ActiveFeatures=a,b
   Gres=(null)
   NodeAddr=127.0.0.1 NodeHostName=localhost Version=22.05.8
   OS=Linux 6.1 #1 SMP 
   RealMemory=3000 AllocMem=30 FreeMem=23491 Sockets=4 Boards=1
   State=MIXED ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A
   Partitions=main,a_very_long_partition 
   BootTime=2026-11-24T07:49:08 SlurmdStartTime=2026-11-24T08:05:40
   LastBusyTime=2026-11-24T08:05:40
   CfgTRES=cpu=4,mem=3000M,billing=4
   AllocTRES=cpu=3,mem=30M
   CapWatts=n/a
   CurrentWatts=0 AveWatts=0
   ExtSensorsJoules=n/s ExtSensorsWatts=0 ExtSensorsTemp=n/s

"
        );
    }

    #[test]
    fn drained_node_tells_why_and_details_tell_of_gres() {
        let mut info = drained(node("n3", 8, 4000, 0), "bad fan in there");
        info.gres = vec![v1::GresCount { name: "gpu".into(), r#type: "h100".into(), count: 8 }];
        info.gres_used = vec![v1::GresShare {
            name: "gpu".into(),
            r#type: "h100".into(),
            ids: vec![0, 1, 5],
            ..v1::GresShare::default()
        }];
        let text = show(&info, Flags { details: true, oneline: true, ..Flags::default() });
        assert!(text.contains(" State=IDLE+DRAIN "), "{text}");
        assert!(
            text.contains(" Gres=gpu:h100:8 GresDrain=N/A GresUsed=gpu:h100:3(IDX:0-1,5) "),
            "{text}"
        );
        assert!(text.ends_with(" Reason=bad fan in there [root@2026-11-24T08:06:17]\n"), "{text}");
    }
}
