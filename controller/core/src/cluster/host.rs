//! Which host gets which name and role?
//!
//! A name belongs to the first key that joined under it, until an admin resets it.

use std::sync::Arc;

use super::Cluster;
use crate::command::{Caller, Effect, RecordKey, Reply};
use crate::model::{Host, HostRole, JoinToken};
use crate::refusal::Refusal;

/// Longest validity of a join token, in seconds: 30 days.
const MAX_TOKEN_SECS: u64 = 30 * 86_400;
/// Longest name of a host, in bytes.
const MAX_HOST_NAME: usize = 253;

impl Cluster {
    pub(super) fn create_token(
        &mut self,
        caller: &Caller,
        id: Box<str>,
        secret_hash: [u8; 32],
        role: HostRole,
        uses: u32,
        valid_secs: u64,
    ) -> Result<Reply, Refusal> {
        if !caller.admin {
            return Err(Refusal::AccessDenied("only admins may create join tokens".into()));
        }
        self.drop_expired_tokens();
        let token = JoinToken {
            id: id.clone(),
            secret_hash,
            role,
            expires: self.now.plus_secs(valid_secs.min(MAX_TOKEN_SECS)),
            uses_left: uses.max(1),
            created: self.now,
            created_by: caller.uid,
        };
        self.tokens.insert(id.clone(), Arc::new(token));
        self.changed.push(RecordKey::Token(id));
        Ok(Reply::Done)
    }

    fn drop_expired_tokens(&mut self) {
        let old: Vec<_> = self
            .tokens
            .values()
            .filter(|token| token.expires <= self.now)
            .take(50)
            .map(|token| token.id.clone())
            .collect();
        for id in old {
            self.tokens.remove(&id);
            self.changed.push(RecordKey::Token(id));
        }
    }

    pub(super) fn join(
        &mut self,
        token_id: &str,
        secret_hash: [u8; 32],
        name: &str,
        key_hash: [u8; 32],
    ) -> Result<Reply, Refusal> {
        // The same key again, after a lost answer: the token may be used up, and is not used twice.
        if let Some(host) = self.hosts.get(name)
            && host.key_hash == key_hash
            && *host.token_id == *token_id
        {
            return if host.revoked {
                Err(Refusal::HostRevoked(name.into()))
            } else {
                Ok(Reply::Joined(host.role))
            };
        }
        let token = self.tokens.get(token_id).cloned();
        let token = token.ok_or(Refusal::InvalidToken("it is not known, or was used up"))?;
        if token.secret_hash != secret_hash {
            return Err(Refusal::InvalidToken("its secret is wrong"));
        }
        if token.expires <= self.now {
            return Err(Refusal::InvalidToken("it has expired"));
        }
        let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > MAX_HOST_NAME || !name.chars().all(letters) {
            return Err(Refusal::InvalidName(format!("{name:?} can't be a host's name").into()));
        }
        match self.hosts.get(name) {
            Some(host) if host.key_hash != key_hash => {
                return Err(Refusal::HostNameTaken(name.into()));
            }
            Some(host) if host.revoked => return Err(Refusal::HostRevoked(name.into())),
            Some(_) | None => {}
        }
        self.use_token(&token);
        let host = Host {
            name: name.into(),
            role: token.role,
            key_hash,
            joined: self.now,
            revoked: false,
            token_id: token.id.clone(),
        };
        self.put_host(host);
        Ok(Reply::Joined(token.role))
    }

    fn use_token(&mut self, token: &JoinToken) {
        self.changed.push(RecordKey::Token(token.id.clone()));
        if token.uses_left <= 1 {
            self.tokens.remove(&token.id);
        } else {
            let left = JoinToken { uses_left: token.uses_left - 1, ..token.clone() };
            self.tokens.insert(token.id.clone(), Arc::new(left));
        }
    }

    fn put_host(&mut self, host: Host) {
        self.changed.push(RecordKey::Host(host.name.clone()));
        self.hosts.insert(host.name.clone(), Arc::new(host));
    }

    pub(super) fn reset_host(&mut self, caller: &Caller, name: &str) -> Result<Reply, Refusal> {
        if !caller.admin {
            return Err(Refusal::AccessDenied("only admins may reset hosts".into()));
        }
        self.hosts.remove(name).ok_or_else(|| Refusal::InvalidHost(name.into()))?;
        self.changed.push(RecordKey::Host(name.into()));
        self.effects.push(Effect::CutHost(name.into()));
        Ok(Reply::Done)
    }

    pub(super) fn revoke_host(&mut self, caller: &Caller, name: &str) -> Result<Reply, Refusal> {
        if !caller.admin {
            return Err(Refusal::AccessDenied("only admins may revoke hosts".into()));
        }
        let host = self.hosts.get(name).ok_or_else(|| Refusal::InvalidHost(name.into()))?;
        let host = Host { revoked: true, ..(**host).clone() };
        self.put_host(host);
        self.effects.push(Effect::CutHost(name.into()));
        Ok(Reply::Done)
    }

    /// The host that holds a key.
    #[must_use]
    pub fn host_by_key(&self, key_hash: &[u8; 32]) -> Option<&Arc<Host>> {
        self.hosts.values().find(|host| host.key_hash == *key_hash)
    }
}
