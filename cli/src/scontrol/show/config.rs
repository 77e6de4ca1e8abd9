//! `scontrol show config`: how is the cluster configured?

use std::fmt::Write as _;

use penstock_proto::v1;

use crate::connect::{Client, Patience};
use crate::errors::RemoteError;
use crate::listing::Clock;
use crate::output::write_bytes;

/// Prints every entry and whether the controller is there.
pub(super) fn show(client: &Client, clock: &Clock) -> Result<i32, RemoteError> {
    let reply = client.call(Patience::READ, |mut rpc| async move {
        rpc.show_config(v1::ShowConfigRequest {}).await
    })?;
    write_bytes(text(&reply, clock).as_bytes());
    Ok(0)
}

fn text(reply: &v1::ShowConfigReply, clock: &Clock) -> String {
    let mut out = "Configuration data as of ".to_owned();
    clock.push(&mut out, clock.now_ms());
    out.push('\n');
    for entry in &reply.entries {
        writeln!(out, "{:<23} = {}", entry.key, entry.value)
            .expect("writing to a String cannot fail");
    }
    writeln!(out, "\nSlurmctld(primary) at {} is UP", reply.controller_host)
        .expect("writing to a String cannot fail");
    out
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    #[test]
    fn entries_are_laid_out_as_slurm_does() {
        let entry =
            |key: &str, value: &str| v1::ConfigEntry { key: key.into(), value: value.into() };
        let reply = v1::ShowConfigReply {
            entries: vec![
                entry("MinJobAge", "300 sec"),
                entry("AccountingStorageBackupHost", "(null)"),
            ],
            controller_host: "vm".into(),
        };
        let clock = Clock::new(TimeZone::UTC, None, crate::listing::testing::SUBMIT);
        assert_eq!(
            text(&reply, &clock),
            "\
Configuration data as of 2026-11-24T08:05:47
MinJobAge               = 300 sec
AccountingStorageBackupHost = (null)

Slurmctld(primary) at vm is UP
"
        );
    }
}
