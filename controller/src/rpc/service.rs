//! The service that commands call: each method is one line into the module that does it.

use std::pin::Pin;
use std::sync::Arc;

use penstock_proto::v1;
use penstock_proto::v1::penstock_server::Penstock;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::shared::Shared;
use super::{admin, jobs, reads};

/// The service.
#[derive(Clone)]
pub(crate) struct Service(pub(super) Arc<Shared>);

impl Service {
    /// The service for calls that are made within this process; each must carry its caller.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }
}

type Answer<T> = Result<Response<T>, Status>;
type Chunks<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Penstock for Service {
    type ListJobsStream = Chunks<v1::ListJobsReply>;
    type ListAccountingStream = Chunks<v1::ListAccountingReply>;

    async fn submit_job(&self, r: Request<v1::SubmitJobRequest>) -> Answer<v1::SubmitJobReply> {
        jobs::submit_job(&self.0, r).await
    }

    async fn submit_jobs(&self, r: Request<v1::SubmitJobsRequest>) -> Answer<v1::SubmitJobsReply> {
        jobs::submit_jobs(&self.0, r).await
    }

    async fn cancel_jobs(&self, r: Request<v1::CancelJobsRequest>) -> Answer<v1::CancelJobsReply> {
        jobs::cancel_jobs(&self.0, r).await
    }

    async fn control_jobs(
        &self,
        r: Request<v1::ControlJobsRequest>,
    ) -> Answer<v1::ControlJobsReply> {
        jobs::control_jobs(&self.0, r).await
    }

    async fn update_job(&self, r: Request<v1::UpdateJobRequest>) -> Answer<v1::UpdateJobReply> {
        jobs::update_job(&self.0, r).await
    }

    async fn update_node(&self, r: Request<v1::UpdateNodeRequest>) -> Answer<v1::UpdateNodeReply> {
        jobs::update_node(&self.0, r).await
    }

    async fn list_jobs(&self, r: Request<v1::ListJobsRequest>) -> Answer<Self::ListJobsStream> {
        reads::list_jobs(&self.0, r)
    }

    async fn list_accounting(
        &self,
        r: Request<v1::ListAccountingRequest>,
    ) -> Answer<Self::ListAccountingStream> {
        reads::list_accounting(&self.0, r)
    }

    async fn list_nodes(&self, r: Request<v1::ListNodesRequest>) -> Answer<v1::ListNodesReply> {
        reads::list_nodes(&self.0, r).await
    }

    async fn list_partitions(
        &self,
        r: Request<v1::ListPartitionsRequest>,
    ) -> Answer<v1::ListPartitionsReply> {
        reads::list_partitions(&self.0, r)
    }

    async fn show_config(&self, r: Request<v1::ShowConfigRequest>) -> Answer<v1::ShowConfigReply> {
        reads::show_config(&self.0, r)
    }

    async fn ping(&self, r: Request<v1::PingRequest>) -> Answer<v1::PingReply> {
        reads::ping(&self.0, r)
    }

    async fn reconfigure(
        &self,
        r: Request<v1::ReconfigureRequest>,
    ) -> Answer<v1::ReconfigureReply> {
        admin::reconfigure(&self.0, r).await
    }

    async fn get_batch_script(
        &self,
        r: Request<v1::GetBatchScriptRequest>,
    ) -> Answer<v1::GetBatchScriptReply> {
        reads::get_batch_script(&self.0, r).await
    }

    async fn wait_job(&self, r: Request<v1::WaitJobRequest>) -> Answer<v1::WaitJobReply> {
        reads::wait_job(&self.0, r).await
    }

    async fn create_token(
        &self,
        r: Request<v1::CreateTokenRequest>,
    ) -> Answer<v1::CreateTokenReply> {
        admin::create_token(&self.0, r).await
    }

    async fn list_hosts(&self, r: Request<v1::ListHostsRequest>) -> Answer<v1::ListHostsReply> {
        admin::list_hosts(&self.0, r)
    }

    async fn reset_host(&self, r: Request<v1::ResetHostRequest>) -> Answer<v1::ResetHostReply> {
        admin::reset_host(&self.0, r).await
    }

    async fn revoke_host(&self, r: Request<v1::RevokeHostRequest>) -> Answer<v1::RevokeHostReply> {
        admin::revoke_host(&self.0, r).await
    }
}
