//! Whom does the job belong to on this machine?

use std::ffi::CString;
use std::io;

use nix::unistd::{Gid, Uid, User, getgrouplist, setgroups, setresgid, setresuid};

use super::LaunchError;
use crate::launch::environment::Account;

/// The user that the job runs as.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) account: Account,
    /// All groups; `None`: this process is that user already, and cannot be another.
    groups: Option<Vec<Gid>>,
}

/// Finds the user `uid` in the passwd database, and refuses where it disagrees with the job, in which
/// the user is called `claimed`: the
/// same number may be another person here.
pub(super) fn identify(uid: u32, gid: u32, claimed: &str) -> Result<Identity, LaunchError> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let user = User::from_uid(uid).map_err(|error| {
        LaunchError::node(format!("user {uid} cannot be looked up on this node: {error}"))
    })?;
    if !Uid::effective().is_root() {
        return as_this_user(uid, gid, user);
    }
    let user = user.ok_or_else(|| {
        LaunchError::node(format!("user {claimed:?} (uid {uid}) is unknown on this node"))
    })?;
    if user.name != claimed {
        return Err(LaunchError::node(format!(
            "uid {uid} is {claimed:?} in the job and {:?} on this node; give nodes the same passwd",
            user.name
        )));
    }
    let name = CString::new(user.name.as_str())
        .map_err(|_| LaunchError::node(format!("user {uid} has no usable name")))?;
    let member_of = |primary| {
        getgrouplist(&name, primary).map_err(|error| {
            LaunchError::node(format!("groups of {claimed:?} cannot be looked up: {error}"))
        })
    };
    if gid != user.gid && !member_of(user.gid)?.contains(&gid) {
        return Err(LaunchError::node(format!("{claimed:?} is not in group {gid} on this node")));
    }
    let groups = Some(member_of(gid)?);
    Ok(Identity { uid, gid, account: account(user), groups })
}

/// Without root there is only one user to be. That is no fault of the node, which is as it should be
/// for its own user's jobs: others must not be able to drain it.
fn as_this_user(uid: Uid, gid: Gid, user: Option<User>) -> Result<Identity, LaunchError> {
    let own = (Uid::effective(), Gid::effective());
    if (uid, gid) != own {
        return Err(LaunchError::job(format!(
            "the agent runs as uid {}, gid {} and not as root: it cannot run jobs of uid {uid}, \
             gid {gid}",
            own.0, own.1
        )));
    }
    Ok(Identity { uid, gid, account: user.map(account).unwrap_or_default(), groups: None })
}

fn account(user: User) -> Account {
    Account {
        name: user.name,
        home: user.dir.display().to_string(),
        shell: user.shell.display().to_string(),
    }
}

impl Identity {
    /// Makes this process the user's, for good.
    pub(super) fn assume(&self) -> io::Result<()> {
        let Some(groups) = &self.groups else { return Ok(()) };
        setgroups(groups)?;
        setresgid(self.gid, self.gid, self.gid)?;
        setresuid(self.uid, self.uid, self.uid)?;
        Ok(())
    }

    /// Whether files must be given to the user, since this process is another.
    pub(super) fn is_another(&self) -> bool {
        self.groups.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::print_stderr, reason = "what a machine lacks is said")]
    fn a_passwd_that_disagrees_is_the_nodes_fault() {
        if !Uid::effective().is_root() {
            let other = Uid::effective().as_raw() + 1;
            let error = identify(other, 0, "other").unwrap_err();
            assert!(!error.node_fault && error.text.contains("not as root"), "{}", error.text);
            eprintln!("skipped: looking up others needs root");
            return;
        }
        assert!(identify(0, 0, "root").unwrap().is_another());
        let wrong_name = identify(0, 0, "alice").unwrap_err();
        assert!(wrong_name.node_fault && wrong_name.text.contains("\"root\""));
        let no_name = identify(0, 0, "").unwrap_err();
        assert!(no_name.node_fault);
        let unknown = identify(4_000_000_000, 0, "ghost").unwrap_err();
        assert!(unknown.text.contains("unknown on this node"));
        let stranger = identify(0, 4_000_000_000, "root").unwrap_err();
        assert!(stranger.text.contains("not in group"));
    }
}
