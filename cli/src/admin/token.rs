//! `penstock token`: with what does a host join the cluster?

use clap::{Subcommand, ValueEnum};
use penstock_proto::v1;

use crate::admin::call;
use crate::connect::{Patience, request_id};
use crate::output::{note, print_line};

/// Longest life of a token: a year.
const MAX_VALID_SECS: u32 = 366 * 86_400;

/// Makes tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token; it is shown this once
    Create {
        /// What hosts that join with it may do
        #[arg(long, value_enum, default_value_t = Role::Compute)]
        role: Role,
        /// How many hosts may join with it
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,
        /// How long: 90s, 30m, 1h, 2d
        #[arg(long, default_value = "1h", value_parser = parse_lifetime)]
        valid: u32,
    },
}

/// The role of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Runs jobs
    Compute,
    /// Submits for its users, runs nothing
    Login,
    /// As login, and administers the cluster
    Admin,
}

impl Role {
    fn to_wire(self) -> v1::HostRole {
        match self {
            Self::Compute => v1::HostRole::Compute,
            Self::Login => v1::HostRole::Login,
            Self::Admin => v1::HostRole::Admin,
        }
    }
}

impl Token {
    pub(crate) fn run(self) -> i32 {
        let Self::Create { role, uses, valid } = self;
        let request = v1::CreateTokenRequest {
            request_id: request_id(),
            role: role.to_wire().into(),
            uses,
            valid_secs: valid,
        };
        let reply = call(Patience::CHANGE, |mut rpc| {
            let request = request.clone();
            async move { rpc.create_token(request).await }
        });
        match reply {
            Ok(reply) => {
                print_line(&reply.token);
                if let Ok(end) = jiff::Timestamp::from_millisecond(reply.expires_ms) {
                    let end = end.to_zoned_datetime(jiff::tz::TimeZone::system());
                    note(&format!("good for {uses} hosts until {}", end.strftime("%F %T %Z")));
                }
                0
            }
            Err(status) => status,
        }
    }
}

/// Seconds of `90s`, `30m`, `1h`, `2d`, or of a bare number of seconds.
fn parse_lifetime(text: &str) -> Result<u32, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit: u32 = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err("give a number with s, m, h or d, such as 1h".to_owned()),
    };
    let secs = number.parse::<u32>().ok().and_then(|number| number.checked_mul(unit));
    secs.filter(|secs| (1..=MAX_VALID_SECS).contains(secs))
        .ok_or_else(|| format!("give 1s to {}d", MAX_VALID_SECS / 86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_read() {
        let table = [
            ("90", Some(90)),
            ("90s", Some(90)),
            ("30m", Some(1_800)),
            ("1h", Some(3_600)),
            ("2d", Some(172_800)),
            ("0", None),
            ("", None),
            ("h", None),
            ("1w", None),
            ("-1h", None),
            ("400d", None),
            ("99999999999h", None),
        ];
        for (text, expect) in table {
            assert_eq!(parse_lifetime(text).ok(), expect, "{text}");
        }
    }
}
