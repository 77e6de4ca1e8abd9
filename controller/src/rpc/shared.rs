//! What do all calls share?

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use penstock_core::command::Caller as CoreCaller;
use penstock_core::model::RequestId;
use penstock_core::scheduler::Plan;
use penstock_proto::v1;
use penstock_vocab::{GroupId, NodeName, Timestamp, UserId};
use tokio::sync::watch;
use tonic::Status;

use super::forecasts::Forecasts;
use super::users::Users;
use crate::clock::Clock;
use crate::config::ClusterFile;
use crate::events::Events;
use crate::gpus::Gpus;
use crate::http::auth::Access;
use crate::identity::{
    Action, Authority, Ca, Caller, Facts, HostDirectory, HostIdentity, HostRole, authorize,
};
use crate::judge::Judge;
use crate::links::Links;
use crate::settings::admin_uids;
use crate::site::SiteDesk;
use crate::statistics::Statistics;
use crate::steps::StepDesk;
use crate::store::{BlobSource, History};
use crate::usage::UsageDesk;
use crate::writer::{Snapshot, Writer};

/// Everything that calls need.
pub struct Shared {
    /// The way to the cluster.
    pub writer: Writer,
    /// The newest plan.
    pub plans: watch::Receiver<Arc<Plan>>,
    /// What is counted.
    pub statistics: Arc<Statistics>,
    /// What changes.
    pub events: Arc<Events>,
    /// Agents.
    pub links: Arc<Links>,
    /// Who waits for steps, and what is known of them.
    pub steps: Arc<StepDesk>,
    /// What the site runs and says as jobs come and go.
    pub site: Arc<SiteDesk>,
    /// The site's judge of submissions.
    pub judge: Judge,
    /// Ended jobs.
    pub history: History,
    /// Scripts and environments.
    pub blobs: Arc<dyn BlobSource>,
    /// The clock.
    pub clock: Arc<Clock>,
    /// The certificate authority.
    pub ca: Ca,
    /// Links and tokens for HTTP, where it is served.
    pub access: Option<Arc<Access>>,
    /// The store's id.
    pub store_id: Vec<u8>,
    /// The cluster file.
    pub file_path: PathBuf,
    /// When the daemon started.
    pub started: Timestamp,
    /// Names of users and groups.
    pub users: Users,
    /// What GPUs are doing.
    pub gpus: Gpus,
    /// What parts of running jobs use.
    pub usage: UsageDesk,
    /// Whose turn it is to ask what would happen.
    pub forecasts: Forecasts,
    file: Mutex<Arc<ClusterFile>>,
    admins: Mutex<Arc<[u32]>>,
    own_uid: u32,
}

/// What a [`Shared`] is made from.
pub struct SharedParts {
    /// See [`Shared::writer`].
    pub writer: Writer,
    /// See [`Shared::plans`].
    pub plans: watch::Receiver<Arc<Plan>>,
    /// See [`Shared::statistics`].
    pub statistics: Arc<Statistics>,
    /// See [`Shared::events`].
    pub events: Arc<Events>,
    /// See [`Shared::links`].
    pub links: Arc<Links>,
    /// See [`Shared::steps`].
    pub steps: Arc<StepDesk>,
    /// See [`Shared::site`].
    pub site: Arc<SiteDesk>,
    /// See [`Shared::history`].
    pub history: History,
    /// See [`Shared::blobs`].
    pub blobs: Arc<dyn BlobSource>,
    /// See [`Shared::clock`].
    pub clock: Arc<Clock>,
    /// See [`Shared::ca`].
    pub ca: Ca,
    /// See [`Shared::access`].
    pub access: Option<Arc<Access>>,
    /// See [`Shared::store_id`].
    pub store_id: Vec<u8>,
    /// See [`Shared::file_path`].
    pub file_path: PathBuf,
    /// The file as it was read.
    pub file: ClusterFile,
}

impl Shared {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: SharedParts) -> Self {
        let admins = admin_uids(&parts.file).into();
        let started = parts.clock.now();
        Self {
            writer: parts.writer,
            plans: parts.plans,
            statistics: parts.statistics,
            events: parts.events,
            links: parts.links,
            steps: parts.steps,
            site: parts.site,
            judge: Judge::default(),
            history: parts.history,
            blobs: parts.blobs,
            clock: parts.clock,
            ca: parts.ca,
            access: parts.access,
            store_id: parts.store_id,
            file_path: parts.file_path,
            started,
            users: Users::default(),
            gpus: Gpus::default(),
            usage: UsageDesk::default(),
            forecasts: Forecasts::default(),
            file: Mutex::new(Arc::new(parts.file)),
            admins: Mutex::new(admins),
            own_uid: nix::unistd::geteuid().as_raw(),
        }
    }

    /// The cluster file in force.
    pub fn file(&self) -> Arc<ClusterFile> {
        Arc::clone(&self.file.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another cluster file in force.
    pub fn set_file(&self, file: ClusterFile) {
        *self.admins.lock().unwrap_or_else(PoisonError::into_inner) = admin_uids(&file).into();
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(file);
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.writer.snapshot()
    }

    /// The newest plan.
    pub fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plans.borrow())
    }

    /// Whether a caller may do this, and as what.
    ///
    /// # Errors
    /// PERMISSION_DENIED with the reason.
    pub fn allow(&self, caller: &Caller, action: Action<'_>) -> Result<Authority, Status> {
        Ok(authorize(caller, action, self)?)
    }

    /// The caller as the core knows callers.
    pub fn core_caller(
        &self,
        caller: &Caller,
        authority: Authority,
        request_id: &[u8],
    ) -> Result<CoreCaller, Status> {
        Ok(CoreCaller {
            uid: UserId(caller.uid),
            gid: GroupId(caller.gid),
            admin: matches!(authority, Authority::Admin | Authority::NodeRoot),
            request: request_id_of(request_id)?,
        })
    }
}

fn request_id_of(bytes: &[u8]) -> Result<Option<RequestId>, Status> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let id: [u8; 16] = bytes.try_into().map_err(|_| {
        Status::invalid_argument(format!("a request id has 16 bytes, not {}", bytes.len()))
    })?;
    Ok(Some(RequestId(u128::from_be_bytes(id))))
}

impl Facts for Shared {
    fn controller_uid(&self) -> u32 {
        self.own_uid
    }

    fn is_listed_admin(&self, uid: u32) -> bool {
        self.admins.lock().unwrap_or_else(PoisonError::into_inner).contains(&uid)
    }

    fn has_job_on(&self, uid: u32, host: &str) -> bool {
        NodeName::new(host).is_ok_and(|node| self.snapshot().cluster.has_job_on(UserId(uid), &node))
    }
}

impl HostDirectory for Shared {
    fn by_key(&self, key_hash: &[u8; 32]) -> Option<HostIdentity> {
        let snapshot = self.snapshot();
        let host = snapshot.cluster.host_by_key(key_hash)?;
        let role = role_of(host.role);
        Some(HostIdentity { name: (*host.name).into(), role, revoked: host.revoked })
    }
}

/// The edge's word for a role of the core.
pub(crate) fn role_of(role: penstock_core::model::HostRole) -> HostRole {
    match role {
        penstock_core::model::HostRole::Compute => HostRole::Compute,
        penstock_core::model::HostRole::Login => HostRole::Login,
        penstock_core::model::HostRole::Admin => HostRole::Admin,
    }
}

/// The core's word for a role on the wire.
pub(super) fn core_role(role: v1::HostRole) -> Option<penstock_core::model::HostRole> {
    Some(match HostRole::from_wire(role)? {
        HostRole::Compute => penstock_core::model::HostRole::Compute,
        HostRole::Login => penstock_core::model::HostRole::Login,
        HostRole::Admin => penstock_core::model::HostRole::Admin,
    })
}
