//! May this caller do that?
//!
//! Pure rules over a [`Caller`], an [`Action`] and three facts of the cluster:
//!
//! | through | uid | may |
//! | --- | --- | --- |
//! | controller's socket, admin host | 0, the controller's own, the admin list | everything |
//! | controller's socket, admin host | any other | act on what is its own, read listings |
//! | login host | any, 0 too | act on what is its own, read listings |
//! | compute host | one with a job there | act on what is its own, read listings |
//! | compute host | any other | read listings |
//! | compute host | 0 | also drain and resume the node of that name |
//!
//! Uid 0 has no other meaning: root of a login host is an ordinary user.

use std::sync::Arc;

use penstock_proto::v1;
use prost::Message as _;
use tonic::{Code, Status};

use super::caller::{CONTROLLER_HOST, Caller, Via};
use super::role::HostRole;

/// What a caller wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'a> {
    /// Read what all users may read: jobs, nodes, partitions, configuration.
    ReadListing,
    /// Read what only the owner may read: a job's script and environment.
    ReadOwn {
        /// The job's owner.
        owner_uid: u32,
    },
    /// Submit a job that runs as `uid`.
    SubmitAs {
        /// Whom the job runs as.
        uid: u32,
    },
    /// Change, signal, hold, requeue or end a job.
    WriteJob {
        /// The job's owner.
        owner_uid: u32,
    },
    /// Drain or resume one node, and nothing else about it.
    DrainOrResumeNode {
        /// The node.
        node: &'a str,
    },
    /// Change accounts, users or QOS: admins, and whom the accounts themselves let; never from hosts
    /// that may not forward admin acts, since a stolen one could act as any of them.
    WriteAccounts,
    /// Anything that only admins do.
    AdminAct {
        /// Completes "to ...", for the refusal: `make join tokens`.
        what: &'a str,
    },
}

/// What the rules need to know of the cluster, as of now.
pub trait Facts {
    /// The uid that the controller runs as.
    fn controller_uid(&self) -> u32;
    /// Whether the cluster file's admin list has this uid.
    fn is_listed_admin(&self, uid: u32) -> bool;
    /// Whether a job of this uid holds resources on the host (running, suspended, completing).
    fn has_job_on(&self, uid: u32, host: &str) -> bool;
}

/// In what capacity the caller may do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// As an admin: other users' jobs and admins' options are allowed.
    Admin,
    /// As the user that it is.
    User,
    /// As root of the node itself: drain and resume, nothing more.
    NodeRoot,
}

/// Why a caller may not do it. The text is for people, the way out included.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// An admin act by somebody who is none, from a host that may forward such acts.
    #[error(
        "uid {uid} may not {what}: that is for root, the controller's own user and the users in \
         `admins` of the cluster file"
    )]
    NotAdmin {
        /// The caller.
        uid: u32,
        /// The act.
        what: String,
    },
    /// An admin act from a host that may not forward any.
    #[error(
        "{role} host {host} may not {what}, whoever asks: run it on the controller's host or on \
         one that joined with the admin role"
    )]
    NotAdminHost {
        /// The host.
        host: Arc<str>,
        /// Its role.
        role: HostRole,
        /// The act.
        what: String,
    },
    /// A compute host speaks for a user who runs nothing there.
    #[error(
        "uid {uid} has no job on compute host {host}, which may speak only for users who have: \
         run it on a login host, or from inside a job"
    )]
    NoJobThere {
        /// The caller, as the host says.
        uid: u32,
        /// The host.
        host: Arc<str>,
    },
    /// Somebody else's job, or a job for somebody else.
    #[error("uid {uid} may not {what} uid {owner_uid}: only that user and admins on {way} may")]
    NotOwner {
        /// The caller.
        uid: u32,
        /// Whose it is.
        owner_uid: u32,
        /// Completes "may not ... uid N".
        what: &'static str,
        /// Where admins would have to do it.
        way: &'static str,
    },
    /// Root of a compute host wants to drain or resume another node.
    #[error(
        "root of compute host {host} may drain and resume node {host}, not node {node}: run it on \
         the controller's host"
    )]
    OtherNode {
        /// The host.
        host: Arc<str>,
        /// The node it wants to change.
        node: String,
    },
}

impl Denied {
    /// The refusal as it travels in status details and in per-item results.
    pub fn to_refusal(&self) -> v1::Refusal {
        v1::Refusal {
            kind: "AccessDenied".into(),
            slurm_text: "Access/permission denied".into(),
            detail: self.to_string(),
        }
    }
}

impl From<Denied> for Status {
    /// `PERMISSION_DENIED` with the text, and the refusal in the details.
    fn from(denied: Denied) -> Self {
        let details = denied.to_refusal().encode_to_vec();
        Self::with_details(Code::PermissionDenied, denied.to_string(), details.into())
    }
}

/// Says whether `caller` may do `action`, and in what capacity.
///
/// # Errors
/// The reason, where it may not.
pub fn authorize(
    caller: &Caller,
    action: Action<'_>,
    facts: &dyn Facts,
) -> Result<Authority, Denied> {
    match &caller.via {
        Via::ControllerSocket | Via::Host { role: HostRole::Admin, .. } => {
            if is_admin(caller.uid, facts) { Ok(Authority::Admin) } else { user(caller, action) }
        }
        Via::Host { role: HostRole::Login, .. } => user(caller, action),
        Via::Host { role: HostRole::Compute, name } => compute(caller, name, action, facts),
    }
}

fn is_admin(uid: u32, facts: &dyn Facts) -> bool {
    uid == 0 || uid == facts.controller_uid() || facts.is_listed_admin(uid)
}

fn compute(
    caller: &Caller,
    host: &Arc<str>,
    action: Action<'_>,
    facts: &dyn Facts,
) -> Result<Authority, Denied> {
    match action {
        Action::ReadListing => Ok(Authority::User),
        Action::DrainOrResumeNode { node } if caller.uid == 0 => {
            if node == &**host {
                Ok(Authority::NodeRoot)
            } else {
                Err(Denied::OtherNode { host: Arc::clone(host), node: node.to_owned() })
            }
        }
        Action::DrainOrResumeNode { .. } | Action::AdminAct { .. } | Action::WriteAccounts => {
            user(caller, action)
        }
        Action::ReadOwn { .. } | Action::SubmitAs { .. } | Action::WriteJob { .. } => {
            if facts.has_job_on(caller.uid, host) {
                user(caller, action)
            } else {
                Err(Denied::NoJobThere { uid: caller.uid, host: Arc::clone(host) })
            }
        }
    }
}

/// The rules for an ordinary user; where the call came from only shapes the text.
fn user(caller: &Caller, action: Action<'_>) -> Result<Authority, Denied> {
    let own = |owner_uid: u32, what: &'static str| {
        if owner_uid == caller.uid {
            Ok(Authority::User)
        } else {
            let way = CONTROLLER_HOST;
            Err(Denied::NotOwner { uid: caller.uid, owner_uid, what, way })
        }
    };
    match action {
        Action::ReadListing => Ok(Authority::User),
        Action::ReadOwn { owner_uid } => own(owner_uid, "read the script of a job of"),
        Action::WriteJob { owner_uid } => own(owner_uid, "change a job of"),
        Action::SubmitAs { uid } => own(uid, "submit a job for"),
        Action::DrainOrResumeNode { node } => {
            Err(not_admin(caller, format!("drain or resume node {node}")))
        }
        Action::WriteAccounts => match &caller.via {
            Via::ControllerSocket | Via::Host { role: HostRole::Admin, .. } => Ok(Authority::User),
            Via::Host { .. } => Err(not_admin(caller, "change accounts".to_owned())),
        },
        Action::AdminAct { what } => Err(not_admin(caller, what.to_owned())),
    }
}

fn not_admin(caller: &Caller, what: String) -> Denied {
    match &caller.via {
        Via::ControllerSocket | Via::Host { role: HostRole::Admin, .. } => {
            Denied::NotAdmin { uid: caller.uid, what }
        }
        Via::Host { name, role: role @ (HostRole::Login | HostRole::Compute) } => {
            Denied::NotAdminHost { host: Arc::clone(name), role: *role, what }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTROLLER: u32 = 900;
    const LISTED: u32 = 901;
    const ALICE: u32 = 1000;
    const BOB: u32 = 1001;

    /// Alice and root each have a job on n1; nobody has one on n2.
    struct Small;

    impl Facts for Small {
        fn controller_uid(&self) -> u32 {
            CONTROLLER
        }
        fn is_listed_admin(&self, uid: u32) -> bool {
            uid == LISTED
        }
        fn has_job_on(&self, uid: u32, host: &str) -> bool {
            host == "n1" && [ALICE, 0].contains(&uid)
        }
    }

    fn on(role: HostRole, name: &str) -> Via {
        Via::Host { name: name.into(), role }
    }

    fn socket() -> Via {
        Via::ControllerSocket
    }

    fn admin_host() -> Via {
        on(HostRole::Admin, "head")
    }

    fn login() -> Via {
        on(HostRole::Login, "login1")
    }

    fn n1() -> Via {
        on(HostRole::Compute, "n1")
    }

    fn n2() -> Via {
        on(HostRole::Compute, "n2")
    }

    /// One word for each outcome, so that tables are short.
    fn outcome(via: Via, uid: u32, action: Action<'_>) -> &'static str {
        match authorize(&Caller { uid, gid: uid, via }, action, &Small) {
            Ok(Authority::Admin) => "admin",
            Ok(Authority::User) => "user",
            Ok(Authority::NodeRoot) => "node root",
            Err(Denied::NotAdmin { .. }) => "not admin",
            Err(Denied::NotAdminHost { .. }) => "not an admin's host",
            Err(Denied::NoJobThere { .. }) => "no job there",
            Err(Denied::NotOwner { .. }) => "not owner",
            Err(Denied::OtherNode { .. }) => "other node",
        }
    }

    const LIST: Action<'static> = Action::ReadListing;
    const ADMIN: Action<'static> = Action::AdminAct { what: "make join tokens" };
    const DRAIN_N1: Action<'static> = Action::DrainOrResumeNode { node: "n1" };
    const DRAIN_N2: Action<'static> = Action::DrainOrResumeNode { node: "n2" };

    fn read(owner_uid: u32) -> Action<'static> {
        Action::ReadOwn { owner_uid }
    }

    fn write(owner_uid: u32) -> Action<'static> {
        Action::WriteJob { owner_uid }
    }

    fn submit(uid: u32) -> Action<'static> {
        Action::SubmitAs { uid }
    }

    #[test]
    fn admins_may_do_everything_where_admin_acts_are_taken() {
        let all = [LIST, ADMIN, DRAIN_N1, DRAIN_N2, read(ALICE), write(BOB), submit(BOB)];
        for via in [socket(), admin_host()] {
            for uid in [0, CONTROLLER, LISTED] {
                for action in all {
                    assert_eq!(outcome(via.clone(), uid, action), "admin", "{uid} {action:?}");
                }
            }
        }
    }

    #[test]
    fn everybody_else_there_is_an_ordinary_user() {
        for via in [socket(), admin_host()] {
            let cases = [
                (LIST, "user"),
                (read(ALICE), "user"),
                (read(BOB), "not owner"),
                (write(ALICE), "user"),
                (write(BOB), "not owner"),
                (write(0), "not owner"),
                (submit(ALICE), "user"),
                (submit(BOB), "not owner"),
                (submit(0), "not owner"),
                (DRAIN_N1, "not admin"),
                (ADMIN, "not admin"),
            ];
            for (action, expect) in cases {
                assert_eq!(outcome(via.clone(), ALICE, action), expect, "{via} {action:?}");
            }
        }
    }

    #[test]
    fn a_login_host_speaks_for_any_user_and_never_for_admins() {
        for uid in [ALICE, BOB, 0, CONTROLLER, LISTED] {
            let other = if uid == BOB { ALICE } else { BOB };
            let cases = [
                (LIST, "user"),
                (read(uid), "user"),
                (read(other), "not owner"),
                (write(uid), "user"),
                (write(other), "not owner"),
                (submit(uid), "user"),
                (submit(other), "not owner"),
                (DRAIN_N1, "not an admin's host"),
                (Action::DrainOrResumeNode { node: "login1" }, "not an admin's host"),
                (ADMIN, "not an admin's host"),
            ];
            for (action, expect) in cases {
                assert_eq!(outcome(login(), uid, action), expect, "{uid} {action:?}");
            }
        }
    }

    #[test]
    fn a_compute_host_writes_only_for_users_with_a_job_there() {
        let cases = [
            (n1(), ALICE, LIST, "user"),
            (n1(), ALICE, submit(ALICE), "user"),
            (n1(), ALICE, write(ALICE), "user"),
            (n1(), ALICE, read(ALICE), "user"),
            (n1(), ALICE, write(BOB), "not owner"),
            (n1(), ALICE, read(BOB), "not owner"),
            (n1(), ALICE, submit(BOB), "not owner"),
            (n1(), BOB, LIST, "user"),
            (n1(), BOB, submit(BOB), "no job there"),
            (n1(), BOB, write(BOB), "no job there"),
            (n1(), BOB, read(BOB), "no job there"),
            (n1(), BOB, write(ALICE), "no job there"),
            (n2(), ALICE, LIST, "user"),
            (n2(), ALICE, submit(ALICE), "no job there"),
            (n2(), ALICE, write(ALICE), "no job there"),
            (n2(), 0, submit(0), "no job there"),
            (n1(), 0, submit(0), "user"),
            (n1(), 0, write(ALICE), "not owner"),
            (n2(), 0, write(ALICE), "no job there"),
            (n2(), LISTED, write(ALICE), "no job there"),
            (n2(), CONTROLLER, submit(ALICE), "no job there"),
        ];
        for (via, uid, action, expect) in cases {
            assert_eq!(outcome(via.clone(), uid, action), expect, "{via} {uid} {action:?}");
        }
    }

    #[test]
    fn root_of_a_compute_host_drains_its_own_node_and_nothing_else() {
        let cases = [
            (n1(), 0, DRAIN_N1, "node root"),
            (n1(), 0, DRAIN_N2, "other node"),
            (n1(), 0, Action::DrainOrResumeNode { node: "N1" }, "other node"),
            (n1(), 0, Action::DrainOrResumeNode { node: "" }, "other node"),
            (n1(), 0, ADMIN, "not an admin's host"),
            (n1(), ALICE, DRAIN_N1, "not an admin's host"),
            (n1(), LISTED, DRAIN_N1, "not an admin's host"),
            (n1(), CONTROLLER, ADMIN, "not an admin's host"),
            (n2(), 0, DRAIN_N2, "node root"),
            (on(HostRole::Login, "n1"), 0, DRAIN_N1, "not an admin's host"),
        ];
        for (via, uid, action, expect) in cases {
            assert_eq!(outcome(via.clone(), uid, action), expect, "{via} {uid} {action:?}");
        }
    }

    #[test]
    fn a_denial_says_why_and_what_to_do() {
        let text = |via, uid, action| {
            let caller = Caller { uid, gid: uid, via };
            authorize(&caller, action, &Small).unwrap_err().to_string()
        };
        assert_eq!(
            text(login(), 0, ADMIN),
            "login host login1 may not make join tokens, whoever asks: run it on the controller's \
             host or on one that joined with the admin role"
        );
        assert_eq!(
            text(socket(), ALICE, DRAIN_N1),
            "uid 1000 may not drain or resume node n1: that is for root, the controller's own \
             user and the users in `admins` of the cluster file"
        );
        assert_eq!(
            text(n1(), BOB, submit(BOB)),
            "uid 1001 has no job on compute host n1, which may speak only for users who have: run \
             it on a login host, or from inside a job"
        );
        assert_eq!(
            text(login(), ALICE, write(BOB)),
            "uid 1000 may not change a job of uid 1001: only that user and admins on the \
             controller's host may"
        );
    }

    #[test]
    fn a_denial_travels_as_permission_denied_with_slurms_text() {
        let caller = Caller { uid: ALICE, gid: ALICE, via: login() };
        let denied = authorize(&caller, write(BOB), &Small).unwrap_err();
        let status = Status::from(denied.clone());
        assert_eq!(status.code(), Code::PermissionDenied);
        let refusal = v1::Refusal::decode(status.details()).unwrap();
        assert_eq!(refusal.slurm_text, "Access/permission denied");
        assert_eq!(refusal.detail, denied.to_string());
    }
}
