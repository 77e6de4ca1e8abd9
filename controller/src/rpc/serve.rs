//! How are the services put up? On the controller's Unix socket for commands of its own host, and on
//! TLS for everybody else.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use penstock_proto::MAX_MESSAGE_BYTES;
use penstock_proto::v1::accounting_server::AccountingServer;
use penstock_proto::v1::agent_link_server::AgentLinkServer;
use penstock_proto::v1::cron_server::CronServer;
use penstock_proto::v1::events_server::EventsServer;
use penstock_proto::v1::penstock_server::PenstockServer;
use penstock_proto::v1::planning_server::PlanningServer;
use penstock_proto::v1::steps_server::StepsServer;
use penstock_proto::v1::web_server::WebServer;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tracing::info;

use super::agents::Agents;
use super::local::{LocalConnections, raise_file_limit};
use super::remote::spoken;
use super::service::Service;
use super::shared::Shared;
use super::timing::TimingLayer;
use crate::identity::{CaError, CallerInterceptor, HostDirectory, server_tls_config};

/// Streams on one connection: every waiting `sbatch --wait` of a host is one.
const STREAMS: u32 = 2_048;
/// Streams that clients reset before they were taken up, on one connection.
const PENDING_RESETS: usize = 4_096;
/// A dead peer is noticed after this and the same again.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Why the services can't be put up.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, or not this host's.
    #[error("can't listen on {address}; choose another [controller] listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The socket can't be made.
    #[error("can't listen on the socket {}", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another controller answers on the socket.
    #[error("another controller answers on {}; stop it first", path.display())]
    SocketInUse {
        /// Its path.
        path: PathBuf,
    },
    /// The certificate can't be used.
    #[error("the controller's certificate can't be used")]
    Certificate(#[from] CaError),
    /// Serving failed.
    #[error("serving failed")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves until `stop`; returns when every call has been answered or cut.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(shared: Arc<Shared>, stop: CancellationToken) -> Result<(), ServeError> {
    let file = shared.file();
    let address = file.controller.listen;
    let tcp = TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Listen { address, source })?;
    let unix = bind_socket(&file.controller.socket)?;
    let unix = LocalConnections::new(unix, raise_file_limit());
    let tls = server_tls_config(&shared.ca)?;
    let directory: Arc<dyn HostDirectory> = Arc::clone(&shared) as Arc<dyn HostDirectory>;
    // Each is a type of its own, so that a function cannot do it.
    macro_rules! of_users {
        ($server:ident) => {
            InterceptedService::new(
                $server::new(Service(Arc::clone(&shared)))
                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                    .max_encoding_message_size(MAX_MESSAGE_BYTES),
                CallerInterceptor::new(Arc::clone(&directory)),
            )
        };
    }
    let commands = of_users!(PenstockServer);
    let accounting = of_users!(AccountingServer);
    let planning = of_users!(PlanningServer);
    let steps = of_users!(StepsServer);
    let web = of_users!(WebServer);
    let cron = of_users!(CronServer);
    let events = of_users!(EventsServer);
    let agents = AgentLinkServer::new(Agents { shared: Arc::clone(&shared), stop: stop.clone() })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let timing = TimingLayer(Arc::clone(&shared.statistics));
    let local = Server::builder()
        .layer(timing.clone())
        .max_concurrent_streams(STREAMS)
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS))
        .add_service(commands.clone())
        .add_service(accounting.clone())
        .add_service(planning.clone())
        .add_service(steps.clone())
        .add_service(web.clone())
        .add_service(cron.clone())
        .add_service(events.clone())
        .serve_with_incoming_shutdown(unix, stop.cancelled());
    let incoming = spoken(tcp, stop.clone());
    let remote = Server::builder()
        .layer(timing)
        .tls_config(tls)?
        .max_concurrent_streams(STREAMS)
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS))
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(commands)
        .add_service(accounting)
        .add_service(planning)
        .add_service(steps)
        .add_service(web)
        .add_service(cron)
        .add_service(events)
        .add_service(agents)
        .serve_with_incoming_shutdown(incoming, stop.cancelled());
    info!(%address, socket = %file.controller.socket.display(), "the controller serves");
    tokio::try_join!(local, remote)?;
    Ok(())
}

/// Binds the commands' socket; one that nobody answers on any more is replaced.
fn bind_socket(path: &Path) -> Result<UnixListener, ServeError> {
    let wrap = |source| ServeError::Socket { path: path.to_owned(), source };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(ServeError::SocketInUse { path: path.to_owned() });
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(wrap)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(wrap(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(wrap)?;
    // Everybody may ask; who asks is known from the kernel.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(wrap)?;
    Ok(listener)
}
