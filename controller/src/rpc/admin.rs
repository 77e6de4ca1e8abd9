//! Calls that only admins make.

use std::sync::Arc;

use penstock_core::{Command, Reply};
use penstock_proto::v1;
use tonic::{Request, Response, Status};
use tracing::info;

use super::jobs::unexpected;
use super::shared::{Shared, core_role, role_of};
use super::status::failed;
use crate::config::ClusterFile;
use crate::identity::{Action, NewToken, caller_of};
use crate::settings::core_config;
use crate::writer::chain;

/// Validity of a token where none is stated: a day.
const TOKEN_SECS: u32 = 86_400;

pub(super) async fn reconfigure(
    shared: &Shared,
    request: Request<v1::ReconfigureRequest>,
) -> Result<Response<v1::ReconfigureReply>, Status> {
    let caller = caller_of(&request)?;
    shared.allow(caller, Action::AdminAct { what: "reconfigure the cluster" })?;
    let changes = reread(shared).await?;
    Ok(Response::new(v1::ReconfigureReply { changes }))
}

/// Reads the cluster file again and puts it in force; tells what changed.
///
/// # Errors
/// With the file's mistakes; then the old file stays in force.
pub(super) async fn reread(shared: &Shared) -> Result<Vec<String>, Status> {
    let new = ClusterFile::read(&shared.file_path)
        .map_err(|error| Status::failed_precondition(chain(&error)))?;
    let old = shared.file();
    let changes = differences(&old, &new);
    shared
        .writer
        .execute(Command::Configure(Arc::new(core_config(&new))))
        .await
        .map_err(|error| failed(&error))?;
    shared.site.want_ends(new.hooks.controller_epilog.is_some());
    shared.set_file(new);
    shared.judge.reload();
    info!(changes = changes.len(), "the cluster file was read again");
    Ok(changes)
}

fn differences(old: &ClusterFile, new: &ClusterFile) -> Vec<String> {
    let mut changes = Vec::new();
    if old.controller.listen != new.controller.listen
        || old.controller.socket != new.controller.socket
        || old.controller.state_dir != new.controller.state_dir
    {
        changes.push(
            "[controller] listen, socket and state_dir take effect at the next restart".to_owned(),
        );
    }
    if old.http != new.http {
        changes.push("[http] takes effect at the next restart".to_owned());
    }
    let parts = [
        ("[cluster]", old.cluster != new.cluster),
        ("[controller] admins", old.controller.admins != new.controller.admins),
        ("[policy]", old.policy != new.policy),
        ("[[partition]]", old.partitions != new.partitions),
        ("[[node]]", old.nodes != new.nodes),
        ("[gpu_health]", old.gpu_health != new.gpu_health),
        ("[mig]", old.mig != new.mig),
        ("[hooks]", old.hooks != new.hooks),
        ("[mail]", old.mail != new.mail),
        ("[[idle_reclaim]]", old.idle != new.idle),
        ("[health_check]", old.health_check != new.health_check),
    ];
    let (was, is) = (&old.scheduling, &new.scheduling);
    let scheduling = [
        ("[priority]", was.weights != is.weights),
        ("[backfill]", was.backfill != is.backfill),
        ("[fairshare]", was.fairshare != is.fairshare),
        ("[preemption]", was.preemption != is.preemption),
        ("[placement]", was.packing != is.packing),
        ("[accounting]", was.enforce != is.enforce),
        ("[cost]", was.cost != is.cost),
        ("[licenses]", was.licenses != is.licenses),
        ("[[switch]]", was.topology.switches != is.topology.switches),
        ("[[block]]", was.topology.blocks != is.topology.blocks),
    ];
    changes.extend(
        parts
            .iter()
            .chain(&scheduling)
            .filter(|(_, changed)| *changed)
            .map(|(what, _)| format!("{what} changed")),
    );
    changes
}

pub(super) async fn create_token(
    shared: &Shared,
    request: Request<v1::CreateTokenRequest>,
) -> Result<Response<v1::CreateTokenReply>, Status> {
    let caller = caller_of(&request)?.clone();
    let authority = shared.allow(&caller, Action::AdminAct { what: "create join tokens" })?;
    let message = request.into_inner();
    let role = core_role(message.role())
        .ok_or_else(|| Status::invalid_argument("a token's role is compute, login or admin"))?;
    let token = NewToken::generate(&mut rand::rng(), shared.ca.fingerprint());
    let valid = if message.valid_secs == 0 { TOKEN_SECS } else { message.valid_secs };
    // Not remembered: the secret is not kept, so a repeated request gets a token of its own.
    let command = Command::CreateToken {
        caller: shared.core_caller(&caller, authority, &[])?,
        id: token.id.as_str().into(),
        secret_hash: token.secret_hash(),
        role,
        uses: message.uses.max(1),
        valid_secs: u64::from(valid),
    };
    match shared.writer.execute(command).await {
        Ok(Reply::Done) => {
            let expires = shared.snapshot().cluster.token(&token.id).map_or(0, |t| t.expires.0);
            Ok(Response::new(v1::CreateTokenReply {
                token: token.to_string(),
                expires_ms: expires,
            }))
        }
        Ok(_) => Err(unexpected()),
        Err(error) => Err(failed(&error)),
    }
}

pub(super) fn list_hosts(
    shared: &Shared,
    request: Request<v1::ListHostsRequest>,
) -> Result<Response<v1::ListHostsReply>, Status> {
    shared.allow(caller_of(&request)?, Action::AdminAct { what: "list hosts" })?;
    let snapshot = shared.snapshot();
    let hosts = snapshot
        .cluster
        .hosts()
        .map(|host| {
            let link = shared.links.view(&host.name);
            v1::HostInfo {
                host: Some(v1::Host {
                    name: host.name.to_string(),
                    role: role_of(host.role).to_wire().into(),
                    key_hash: host.key_hash.to_vec().into(),
                    joined_ms: host.joined.0,
                    revoked: host.revoked,
                    token_id: host.token_id.to_string(),
                }),
                connected: link.is_some(),
                last_seen_ms: link.as_ref().map_or(0, |link| link.last_seen.0),
                address: link.map(|link| link.address).unwrap_or_default(),
            }
        })
        .collect();
    let now = shared.clock.now();
    let tokens = snapshot
        .cluster
        .tokens()
        .filter(|token| token.expires > now)
        .map(|token| v1::JoinToken {
            id: token.id.to_string(),
            secret_hash: bytes::Bytes::new(),
            role: role_of(token.role).to_wire().into(),
            expires_ms: token.expires.0,
            uses_left: token.uses_left,
            created_ms: token.created.0,
            created_by_uid: token.created_by.0,
        })
        .collect();
    Ok(Response::new(v1::ListHostsReply { hosts, tokens }))
}

pub(super) async fn reset_host(
    shared: &Shared,
    request: Request<v1::ResetHostRequest>,
) -> Result<Response<v1::ResetHostReply>, Status> {
    let caller = caller_of(&request)?.clone();
    let authority = shared.allow(&caller, Action::AdminAct { what: "reset hosts" })?;
    let message = request.into_inner();
    let core = shared.core_caller(&caller, authority, &message.request_id)?;
    let command = Command::ResetHost(core, message.name.into());
    shared.writer.execute(command).await.map_err(|error| failed(&error))?;
    Ok(Response::new(v1::ResetHostReply {}))
}

pub(super) async fn revoke_host(
    shared: &Shared,
    request: Request<v1::RevokeHostRequest>,
) -> Result<Response<v1::RevokeHostReply>, Status> {
    let caller = caller_of(&request)?.clone();
    let authority = shared.allow(&caller, Action::AdminAct { what: "revoke hosts" })?;
    let message = request.into_inner();
    let core = shared.core_caller(&caller, authority, &message.request_id)?;
    let command = Command::RevokeHost(core, message.name.into());
    shared.writer.execute(command).await.map_err(|error| failed(&error))?;
    Ok(Response::new(v1::RevokeHostReply {}))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const FILE: &str = "[[partition]]\nname = \"main\"\n";

    fn read(more: &str) -> ClusterFile {
        ClusterFile::parse(Path::new("c.toml"), &format!("{FILE}{more}")).unwrap()
    }

    #[test]
    fn each_section_that_changed_is_named() {
        let table = [
            ("[policy]\nheartbeat_secs = 6\n", "[policy]"),
            ("[priority]\nage = 7\n", "[priority]"),
            ("[backfill]\ndepth = 7\n", "[backfill]"),
            ("[fairshare]\nreset = \"daily\"\n", "[fairshare]"),
            ("[preemption]\nby = \"qos\"\n", "[preemption]"),
            ("[placement]\ngpus = \"best_fit\"\n", "[placement]"),
            ("[accounting]\nenforce = \"strict\"\n", "[accounting]"),
            ("[cost]\nper_hour = \"cpu=0.02\"\n", "[cost]"),
            ("[licenses]\nmatlab = 7\n", "[licenses]"),
            ("[[switch]]\nname = \"s\"\nnodes = \"n1\"\n", "[[switch]]"),
            ("[[block]]\nname = \"b\"\nnodes = \"n1\"\n", "[[block]]"),
            ("[[partition]]\nname = \"b\"\n", "[[partition]]"),
        ];
        let old = read("");
        assert_eq!(differences(&old, &old), Vec::<String>::new());
        for (more, section) in table {
            let changes = differences(&old, &read(more));
            assert!(changes.contains(&format!("{section} changed")), "{more}: {changes:?}");
            assert_eq!(changes.len(), 1, "{more}: {changes:?}");
        }
    }
}
