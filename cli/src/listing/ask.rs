//! What do all listings ask of their surroundings?

use std::time::{SystemTime, UNIX_EPOCH};

use penstock_proto::v1;

use crate::connect::{Client, Patience};

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    // A clock before 1970 is a broken one; every time of a job then lies ahead.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The uid that a user name or number means on this host.
pub(crate) fn user_id(word: &str) -> Option<u32> {
    if let Some(user) = uzers::get_user_by_name(word) {
        return Some(user.uid());
    }
    word.parse().ok()
}

/// The name of the cluster; empty where the daemon does not say.
pub(crate) fn cluster_name(client: &Client) -> String {
    let answer =
        client.call(Patience::READ, |mut rpc| async move { rpc.ping(v1::PingRequest {}).await });
    answer.map(|reply| reply.cluster).unwrap_or_default()
}
