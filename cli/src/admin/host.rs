//! `penstock host`: which hosts belong to the cluster, and who is put out or let in anew?

use std::fmt::Write as _;

use clap::Subcommand;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use penstock_proto::v1;

use crate::admin::call;
use crate::connect::{Patience, request_id};
use crate::output::{note, write_bytes};

/// Looks after hosts.
#[derive(Debug, Subcommand)]
pub(crate) enum Host {
    /// List hosts, and the tokens that are still good
    List,
    /// Forget a host's key, so that a new machine may join under its name
    Reset {
        /// Its name
        name: String,
    },
    /// Cut a host off at once, for good
    Revoke {
        /// Its name
        name: String,
    },
}

impl Host {
    pub(crate) fn run(self) -> i32 {
        let done = match self {
            Self::List => list(),
            Self::Reset { name } => reset(name),
            Self::Revoke { name } => revoke(name),
        };
        done.err().unwrap_or(0)
    }
}

fn list() -> Result<(), i32> {
    let reply =
        call(
            Patience::READ,
            |mut rpc| async move { rpc.list_hosts(v1::ListHostsRequest {}).await },
        )?;
    write_bytes(table(&reply, &TimeZone::system()).as_bytes());
    Ok(())
}

fn reset(name: String) -> Result<(), i32> {
    let request = v1::ResetHostRequest { request_id: request_id(), name };
    call(Patience::CHANGE, |mut rpc| {
        let request = request.clone();
        async move { rpc.reset_host(request).await }
    })?;
    note(&format!("{} may join again; it needs a token", request.name));
    Ok(())
}

fn revoke(name: String) -> Result<(), i32> {
    let request = v1::RevokeHostRequest { request_id: request_id(), name };
    call(Patience::CHANGE, |mut rpc| {
        let request = request.clone();
        async move { rpc.revoke_host(request).await }
    })?;
    note(&format!("{} is cut off; `penstock host reset` lets a new one join", request.name));
    Ok(())
}

/// Hosts, and below them the tokens.
fn table(reply: &v1::ListHostsReply, zone: &TimeZone) -> String {
    let mut rows = vec![["HOST", "ROLE", "STATE", "ADDRESS", "LAST SEEN"].map(str::to_owned)];
    for info in &reply.hosts {
        let host = info.host.clone().unwrap_or_default();
        let state = match (host.revoked, info.connected) {
            (true, _) => "revoked",
            (false, true) => "connected",
            (false, false) => "away",
        };
        rows.push([
            host.name.clone(),
            role(host.role()).to_owned(),
            state.to_owned(),
            info.address.clone(),
            time(info.last_seen_ms, zone),
        ]);
    }
    let mut text = aligned(&rows);
    if !reply.tokens.is_empty() {
        let mut rows = vec![["TOKEN", "ROLE", "USES LEFT", "EXPIRES"].map(str::to_owned)];
        rows.extend(reply.tokens.iter().map(|token| {
            [
                token.id.clone(),
                role(token.role()).to_owned(),
                token.uses_left.to_string(),
                time(token.expires_ms, zone),
            ]
        }));
        text.push('\n');
        text.push_str(&aligned(&rows));
    }
    text
}

fn role(role: v1::HostRole) -> &'static str {
    match role {
        v1::HostRole::Unspecified => "?",
        v1::HostRole::Compute => "compute",
        v1::HostRole::Login => "login",
        v1::HostRole::Admin => "admin",
    }
}

fn time(ms: i64, zone: &TimeZone) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) if ms > 0 => time.to_zoned_datetime(zone.clone()).strftime("%FT%T").to_string(),
        _ => "never".to_owned(),
    }
}

/// Columns as wide as their longest word, two blanks apart.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (word, width) in row.iter().zip(widths) {
            write!(line, "{word:<width$}  ").expect("a string takes all");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_tokens_stand_in_columns() {
        let host = |name: &str, revoked| v1::Host {
            name: name.into(),
            role: v1::HostRole::Compute.into(),
            revoked,
            ..v1::Host::default()
        };
        let info = |host, connected, last_seen_ms| v1::HostInfo {
            host: Some(host),
            connected,
            last_seen_ms,
            address: "127.0.0.2".into(),
        };
        let token = v1::JoinToken {
            id: "t1".into(),
            role: v1::HostRole::Login.into(),
            uses_left: 2,
            expires_ms: 1_700_000_000_000,
            ..v1::JoinToken::default()
        };
        let reply = v1::ListHostsReply {
            hosts: vec![
                info(host("n1", false), true, 1_700_000_000_000),
                info(host("node22", true), false, 0),
            ],
            tokens: vec![token],
        };
        let expect = "\
HOST    ROLE     STATE      ADDRESS    LAST SEEN
n1      compute  connected  127.0.0.2  2023-11-14T22:13:20
node22  compute  revoked    127.0.0.2  never

TOKEN  ROLE   USES LEFT  EXPIRES
t1     login  2          2023-11-14T22:13:20
";
        assert_eq!(table(&reply, &TimeZone::UTC), expect);
    }
}
