//! `scontrol show reservation` and `show licenses`: what is kept for whom?

use std::collections::HashSet;

use penstock_proto::v1;
use penstock_vocab::{compress, elapsed_long};

use crate::connect::{Client, Patience};
use crate::errors::RemoteError;
use crate::listing::Clock;
use crate::output::{print_line, write_bytes};

use super::record::Record;
use super::{FAILED, Flags};

fn ask(client: &Client) -> Result<v1::ListReservationsReply, RemoteError> {
    client.planning(Patience::READ, |mut rpc| async move {
        rpc.list_reservations(v1::ListReservationsRequest {}).await
    })
}

/// Prints one reservation, or all.
pub(super) fn show(
    client: &Client,
    name: Option<&str>,
    flags: Flags,
    clock: &Clock,
) -> Result<i32, RemoteError> {
    let reply = ask(client)?;
    let found: Vec<&v1::Reservation> = reply
        .reservations
        .iter()
        .filter(|reservation| name.is_none_or(|name| reservation.name == name))
        .collect();
    if found.is_empty() {
        return Ok(match name {
            Some(name) => {
                print_line(&format!("Reservation {name} not found"));
                FAILED
            }
            None => {
                print_line("No reservations in the system");
                0
            }
        });
    }
    let nodes = client.call(Patience::READ, |mut rpc| async move {
        rpc.list_nodes(v1::ListNodesRequest::default()).await
    })?;
    let text: String = found
        .into_iter()
        .map(|reservation| record(reservation, &nodes.nodes, reply.now_ms, flags, clock))
        .collect();
    write_bytes(text.as_bytes());
    Ok(0)
}

/// Prints one licence, or all.
pub(super) fn licenses(
    client: &Client,
    name: Option<&str>,
    flags: Flags,
) -> Result<i32, RemoteError> {
    let reply = ask(client)?;
    if reply.licenses.is_empty() {
        print_line("No licenses configured in Slurm.");
        return Ok(0);
    }
    let wanted = reply.licenses.iter().filter(|license| name.is_none_or(|n| license.name == n));
    let text: String = wanted.map(|license| license_record(license, flags)).collect();
    write_bytes(text.as_bytes());
    Ok(0)
}

fn license_record(license: &v1::LicenseInfo, flags: Flags) -> String {
    let between = if flags.oneline { " " } else { "\n    " };
    let free = license.total.saturating_sub(license.used).saturating_sub(license.reserved);
    format!(
        "LicenseName={}{between}Total={} Used={} Free={free} Reserved={} Remote=no\n",
        license.name, license.total, license.used, license.reserved
    )
}

fn record(
    reservation: &v1::Reservation,
    nodes: &[v1::NodeInfo],
    now_ms: i64,
    flags: Flags,
    clock: &Clock,
) -> String {
    let mut record = Record::new(flags.oneline);
    let time = |ms: i64| {
        let mut out = String::new();
        clock.push(&mut out, ms);
        out
    };
    let (start, end) = (reservation.start_ms, reservation.end_ms);
    let secs = u64::try_from(end.saturating_sub(start) / 1000).unwrap_or(0);
    record.push(&format!(
        "ReservationName={} StartTime={} EndTime={} Duration={}",
        reservation.name,
        time(start),
        time(end),
        elapsed_long(secs)
    ));
    let inside: HashSet<&str> = reservation.nodes.iter().map(String::as_str).collect();
    let inventories = nodes.iter().filter_map(|info| {
        let node = info.node.as_ref()?;
        inside.contains(node.name.as_str()).then_some(node.inventory.as_ref()?)
    });
    let (mut cores, mut cpus) = (0_u64, 0_u64);
    for inventory in inventories {
        cpus += u64::from(inventory.cpus);
        cores += u64::from(inventory.sockets) * u64::from(inventory.cores_per_socket);
    }
    record.line(&format!(
        "Nodes={} NodeCnt={} CoreCnt={cores} Features={} PartitionName={} Flags={}",
        or_null(&compress(reservation.nodes.iter().map(String::as_str))),
        reservation.nodes.len(),
        or_null(&reservation.features),
        or_null(&reservation.partition),
        flag_list(reservation, nodes.len())
    ));
    let tres = if cpus == 0 { "(null)".to_owned() } else { format!("cpu={cpus}") };
    record.line(&format!("TRES={tres}"));
    let active = start <= now_ms && now_ms < end;
    record.line(&format!(
        "Users={} Groups=(null) Accounts={} Licenses={} State={} BurstBuffer=(null) Watts=n/a",
        or_null(&who(&reservation.users, reservation.deny)),
        or_null(&who(&reservation.accounts, reservation.deny)),
        or_null(&license_list(reservation)),
        if active { "ACTIVE" } else { "INACTIVE" }
    ));
    record.line("MaxStartDelay=(null)");
    if !reservation.comment.is_empty() {
        record.line(&format!("Comment={}", reservation.comment));
    }
    record.finish()
}

fn or_null(text: &str) -> &str {
    if text.is_empty() { "(null)" } else { text }
}

fn who(names: &[String], deny: bool) -> String {
    let mark = if deny { "-" } else { "" };
    names.iter().map(|name| format!("{mark}{name}")).collect::<Vec<_>>().join(",")
}

fn license_list(reservation: &v1::Reservation) -> String {
    let entry = |amount: &v1::TresAmount| {
        let name = amount.kind.strip_prefix("license/").unwrap_or(&amount.kind);
        format!("{name}:{}", amount.count)
    };
    reservation.licenses.iter().map(entry).collect::<Vec<_>>().join(",")
}

/// Switches in Slurm's order, with those that follow from the nodes.
fn flag_list(reservation: &v1::Reservation, all_nodes: usize) -> String {
    const ORDER: [&str; 15] = [
        "MAINT",
        "FLEX",
        "OVERLAP",
        "IGNORE_JOBS",
        "DAILY",
        "WEEKDAY",
        "WEEKEND",
        "WEEKLY",
        "SPEC_NODES",
        "ALL_NODES",
        "ANY_NODES",
        "STATIC",
        "PART_NODES",
        "PURGE_COMP",
        "NO_HOLD_JOBS_AFTER_END",
    ];
    let count = reservation.nodes.len();
    let by_name = reservation.node_count.is_none() && count > 0;
    let has = |flag: &str| match flag {
        "SPEC_NODES" => by_name,
        "ALL_NODES" => by_name && count == all_nodes,
        flag => reservation.flags.iter().any(|known| known == flag),
    };
    let known = ORDER.into_iter().filter(|flag| has(flag)).map(|flag| {
        match (flag, reservation.purge_after_secs) {
            ("PURGE_COMP", Some(secs)) => format!("PURGE_COMP={}", elapsed_long(secs)),
            (flag, _) => flag.to_owned(),
        }
    });
    let newer = reservation.flags.iter().filter(|flag| !ORDER.contains(&flag.as_str())).cloned();
    known.chain(newer).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use crate::listing::testing::{SUBMIT, node};

    use super::*;

    fn show(reservation: &v1::Reservation, flags: Flags) -> String {
        let nodes: Vec<v1::NodeInfo> =
            ["n1", "n2", "n3", "n4"].into_iter().map(|name| node(name, 4, 3000, 0)).collect();
        let clock = Clock::new(TimeZone::UTC, None, SUBMIT);
        record(reservation, &nodes, SUBMIT, flags, &clock)
    }

    #[test]
    fn records_are_slurms() {
        let maint = v1::Reservation {
            name: "maint".into(),
            start_ms: SUBMIT,
            end_ms: SUBMIT + 3_600_000,
            nodes: ["n1", "n2", "n3", "n4"].map(str::to_owned).to_vec(),
            users: vec!["root".into()],
            flags: vec!["IGNORE_JOBS".into(), "MAINT".into()],
            ..v1::Reservation::default()
        };
        assert_eq!(
            show(&maint, Flags::default()),
            "\
ReservationName=maint StartTime=2026-11-24T08:05:47 EndTime=2026-11-24T09:05:47 Duration=01:00:00
   Nodes=n[1-4] NodeCnt=4 CoreCnt=16 Features=(null) PartitionName=(null) Flags=MAINT,IGNORE_JOBS,SPEC_NODES,ALL_NODES
   TRES=cpu=16
   Users=root Groups=(null) Accounts=(null) Licenses=(null) State=ACTIVE BurstBuffer=(null) Watts=n/a
   MaxStartDelay=(null)

"
        );
        let counted = v1::Reservation {
            name: "cnt".into(),
            start_ms: SUBMIT + 1000,
            end_ms: SUBMIT + 601_000,
            nodes: vec!["n1".into()],
            node_count: Some(1),
            users: vec!["root".into(), "bin".into()],
            deny: true,
            flags: vec!["FLEX".into(), "PURGE_COMP".into()],
            purge_after_secs: Some(60),
            licenses: vec![v1::TresAmount { kind: "license/matlab".into(), count: 3 }],
            ..v1::Reservation::default()
        };
        let line = show(&counted, Flags { oneline: true, ..Flags::default() });
        assert!(
            line.contains(" Flags=FLEX,PURGE_COMP=00:01:00 TRES=cpu=4 Users=-root,-bin "),
            "{line}"
        );
        assert!(line.contains(" Licenses=matlab:3 State=INACTIVE "), "{line}");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn licenses_are_told_as_slurm_tells_them() {
        let license = v1::LicenseInfo { name: "matlab".into(), total: 10, used: 3, reserved: 2 };
        assert_eq!(
            license_record(&license, Flags::default()),
            "LicenseName=matlab\n    Total=10 Used=3 Free=5 Reserved=2 Remote=no\n"
        );
        assert_eq!(
            license_record(&license, Flags { oneline: true, ..Flags::default() }),
            "LicenseName=matlab Total=10 Used=3 Free=5 Reserved=2 Remote=no\n"
        );
    }
}
