//! How does sinfo tell of a node in Slurm's JSON?

use penstock_proto::v1;

use crate::listing::{NodeRow, in_id_order};

use super::{Json, map};

/// A record for each node.
pub(crate) fn nodes<'a>(nodes: impl IntoIterator<Item = &'a v1::NodeInfo>) -> Vec<Json> {
    nodes.into_iter().map(|info| node(&NodeRow::new(info))).collect()
}

fn node(row: &NodeRow<'_>) -> Json {
    let (info, inventory) = (row.info, row.inventory);
    let status = row.status();
    let flags = status.flags.iter().map(|flag| Json::text(flag.name())).collect();
    let features = info.features.join(",");
    let idle = inventory.cpus.saturating_sub(info.cpus_allocated);
    let busy = match row.node.last_busy_ms {
        0 => inventory.agent_start_ms,
        busy => busy,
    };
    let mut entries = vec![
        ("architecture", Json::text(&inventory.architecture)),
        ("burstbuffer_network_address", Json::text("")),
        ("boards", Json::Int(1)),
        ("boot_time", Json::time(inventory.boot_time_ms)),
        ("comment", Json::text(row.comment())),
        ("cores", Json::count(inventory.cores_per_socket)),
        ("cpu_binding", Json::Int(0)),
        ("cpu_load", Json::count(info.load_centi.unwrap_or(0))),
        ("extra", Json::text("")),
        ("free_memory", row.free_memory().map_or(Json::Int(0), Json::count)),
        ("cpus", Json::count(inventory.cpus)),
        ("last_busy", Json::time(busy)),
        ("features", Json::text(&features)),
        ("active_features", Json::text(&features)),
        ("gres", Json::Text(row.gres_text())),
        ("gres_drained", Json::text("N/A")),
        ("gres_used", Json::Text(row.gres_used_text())),
        ("mcs_label", Json::text("")),
        ("name", Json::text(&row.node.name)),
        ("next_state_after_reboot", Json::text("invalid")),
        ("address", Json::text(row.address())),
        ("hostname", Json::text(row.hostname())),
        ("state", Json::Text(status.base.name().to_lowercase())),
        ("state_flags", Json::List(flags)),
        ("next_state_after_reboot_flags", Json::List(Vec::new())),
        ("operating_system", Json::text(&inventory.os)),
        ("owner", Json::Null),
        ("partitions", Json::List(info.partitions.iter().map(Json::text).collect())),
        ("port", Json::Int(0)),
        ("real_memory", Json::count(inventory.memory_mib)),
    ];
    push_reason(&mut entries, row);
    let weighted = f64::from(info.cpus_allocated);
    entries.extend([
        ("slurmd_start_time", Json::time(inventory.agent_start_ms)),
        ("sockets", Json::count(inventory.sockets)),
        ("threads", Json::count(inventory.threads_per_core)),
        ("temporary_disk", Json::count(inventory.tmp_disk_mib)),
        ("weight", Json::count(info.weight)),
        ("tres", Json::Text(in_id_order(&info.cfg_tres))),
        ("slurmd_version", Json::text(&inventory.version)),
        ("alloc_memory", Json::count(info.memory_allocated_mib)),
        ("alloc_cpus", Json::count(info.cpus_allocated)),
        ("idle_cpus", Json::count(idle)),
        (
            "tres_used",
            match info.alloc_tres.as_str() {
                "" => Json::Null,
                used => Json::Text(in_id_order(used)),
            },
        ),
        ("tres_weighted", Json::Float(weighted)),
    ]);
    map(entries)
}

fn push_reason(entries: &mut Vec<(&'static str, Json)>, row: &NodeRow<'_>) {
    let reason = row.reason();
    let user = reason.map(|reason| match reason.user {
        "" => Json::Text(reason.uid.to_string()),
        user => Json::text(user),
    });
    entries.extend([
        ("reason", Json::text(reason.map_or("", |reason| reason.text))),
        ("reason_changed_at", Json::time(reason.map_or(0, |reason| reason.since_ms))),
        ("reason_set_by_user", user.unwrap_or(Json::Null)),
    ]);
}

#[cfg(test)]
mod tests {
    use crate::listing::testing::{drained, node as example};

    use super::*;

    #[test]
    fn a_drained_node_says_by_whom() {
        let info = drained(example("n4", 4, 3000, 0), "bad fan");
        let record = node(&NodeRow::new(&info));
        assert_eq!(record.get("state"), Some(&Json::text("idle")));
        assert_eq!(record.get("state_flags"), Some(&Json::List(vec![Json::text("DRAIN")])));
        assert_eq!(record.get("reason_set_by_user"), Some(&Json::text("root")));
        assert_eq!(record.get("idle_cpus"), Some(&Json::Int(4)));
        assert_eq!(record.get("tres_used"), Some(&Json::Null));
    }
}
