//! Calls for ways into HTTP: links for browsers, tokens for scripts.

use std::sync::Arc;

use penstock_proto::v1;
use penstock_proto::v1::web_server::Web;
use tonic::{Request, Response, Status};
use tracing::info;

use super::service::Service;
use super::shared::Shared;
use crate::http::auth::{Access, Who};
use crate::identity::{Action, Caller, caller_of};
use crate::writer::chain;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Web for Service {
    async fn create_web_link(
        &self,
        r: Request<v1::CreateWebLinkRequest>,
    ) -> Answer<v1::CreateWebLinkReply> {
        create_web_link(&self.0, &r)
    }

    async fn create_access_token(
        &self,
        r: Request<v1::CreateAccessTokenRequest>,
    ) -> Answer<v1::CreateAccessTokenReply> {
        create_access_token(&self.0, r)
    }

    async fn revoke_access(
        &self,
        r: Request<v1::RevokeAccessRequest>,
    ) -> Answer<v1::RevokeAccessReply> {
        revoke_access(&self.0, r).await
    }
}

fn access(shared: &Shared) -> Result<&Arc<Access>, Status> {
    shared.access.as_ref().ok_or_else(|| {
        Status::failed_precondition(
            "this controller serves no HTTP; an admin can turn it on with a section [http] in the \
             cluster file",
        )
    })
}

/// The caller as somebody who is let in. Who may not act as itself here may not over HTTP either.
fn itself(shared: &Shared, caller: &Caller, read_only: bool) -> Result<Who, Status> {
    shared.allow(caller, Action::SubmitAs { uid: caller.uid })?;
    let user = shared.users.user_or(caller.uid, "").into();
    Ok(Who { caller: caller.clone(), user, read_only })
}

fn create_web_link(
    shared: &Shared,
    request: &Request<v1::CreateWebLinkRequest>,
) -> Answer<v1::CreateWebLinkReply> {
    let access = access(shared)?;
    let who = itself(shared, caller_of(request)?, request.get_ref().read_only)?;
    let Some((url, expires)) = access.link(who, shared.clock.now()) else {
        return Err(Status::resource_exhausted("too many links are open; try again in minutes"));
    };
    Ok(Response::new(v1::CreateWebLinkReply { url, expires_ms: expires.0 }))
}

/// A user by name, with its own group.
fn named(name: &str) -> Result<(u32, u32), Status> {
    let found = uzers::get_user_by_name(name);
    let ids = found.map(|user| (user.uid(), user.primary_group_id()));
    ids.ok_or_else(|| Status::not_found(format!("the controller's host knows no user {name:?}")))
}

fn create_access_token(
    shared: &Shared,
    request: Request<v1::CreateAccessTokenRequest>,
) -> Answer<v1::CreateAccessTokenReply> {
    let access = access(shared)?;
    let caller = caller_of(&request)?.clone();
    let message = request.into_inner();
    let own = message.user_name.is_empty()
        || shared.users.user(caller.uid).is_some_and(|name| name == message.user_name);
    let who = if own {
        itself(shared, &caller, message.read_only)?
    } else {
        shared.allow(&caller, Action::AdminAct { what: "make tokens for other users" })?;
        let (uid, gid) = named(&message.user_name)?;
        let caller = Caller { uid, gid, via: caller.via.clone() };
        Who { caller, user: message.user_name.into(), read_only: message.read_only }
    };
    let made = access
        .token(&who, message.lifespan_secs, shared.clock.now())
        .map_err(Status::invalid_argument)?;
    info!(
        by = caller.uid, uid = who.caller.uid, id = made.id, via = %caller.via,
        "an access token was made"
    );
    Ok(Response::new(v1::CreateAccessTokenReply {
        token: made.token,
        id: made.id,
        expires_ms: made.expires.0,
    }))
}

async fn revoke_access(
    shared: &Arc<Shared>,
    request: Request<v1::RevokeAccessRequest>,
) -> Answer<v1::RevokeAccessReply> {
    let access = Arc::clone(access(shared)?);
    let caller = caller_of(&request)?.clone();
    let message = request.into_inner();
    let own = message.user_name.is_empty()
        || shared.users.user(caller.uid).is_some_and(|name| name == message.user_name);
    let uid = if own {
        shared.allow(&caller, Action::SubmitAs { uid: caller.uid })?;
        caller.uid
    } else {
        shared.allow(&caller, Action::AdminAct { what: "revoke tokens of other users" })?;
        shared.users.uid(&message.user_name).ok_or_else(|| {
            let name = &message.user_name;
            Status::not_found(format!("the controller's host knows no user {name:?}"))
        })?
    };
    let plain = |byte: u8| byte.is_ascii_hexdigit();
    if message.token_id.len() > 64 || !message.token_id.bytes().all(plain) {
        let text = format!("{:?} is no token's id", message.token_id);
        return Err(Status::invalid_argument(text));
    }
    let now = shared.clock.now();
    let revoked =
        tokio::task::spawn_blocking(move || access.revoke(uid, &message.token_id, now)).await;
    let ended = match revoked {
        Ok(Ok(ended)) => ended,
        Ok(Err(error)) => return Err(Status::internal(chain(&error))),
        Err(_) => return Err(Status::internal("revoking broke off; this is a bug")),
    };
    info!(by = caller.uid, uid, "access was revoked");
    Ok(Response::new(v1::RevokeAccessReply { sessions: u32::try_from(ended).unwrap_or(u32::MAX) }))
}
