//! How is HTTP put up?
//!
//! HTTP/1.1 and 2 on one port, with TLS as the file says, on a thread and runtime of its own: what browsers
//! ask is never in the way of commands. Connections are counted, heads and handshakes have deadlines, and
//! silent connections end.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::auth::Access;
use super::names::Names;
use super::shapes::Shapes;
use super::steady::Steady;
use super::traffic::Traffic;
use super::web::Web;
use super::{guard, metrics, page, rest, slurmrest, traffic};
use crate::config::{HttpSection, HttpTls};
use crate::identity::{Ca, CaError};
use crate::rpc::Shared;

/// A TLS handshake, and the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// How long nothing may move on a connection. Streams of events send a comment more often than that.
const SILENCE: Duration = Duration::from_secs(60);
/// A dead HTTP/2 peer is noticed after this and the same again.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Streams on one HTTP/2 connection.
const STREAMS: u32 = 128;
/// Largest head of an HTTP/2 request, bytes.
const HEAD_BYTES: u32 = 32 << 10;
/// Largest head of an HTTP/1 request, bytes.
const BUFFER_BYTES: usize = 64 << 10;
/// Listings that are made at once; more wait, so that a thousand browsers do not take all memory.
const LISTINGS: usize = 16;
/// How long answers under way may take once the controller ends.
const FAREWELL: Duration = Duration::from_secs(3);

/// Why HTTP can't be put up.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is taken, or not this host's.
    #[error("can't listen on {address} for HTTP; choose another [http] listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate of our own.
    #[error("the certificate for HTTP can't be made")]
    Ca(#[from] CaError),
    /// A given certificate or key.
    #[error("{} can't be used for HTTP: {detail}", path.display())]
    Certificate {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// TLS itself.
    #[error("TLS for HTTP can't be set up")]
    Tls(#[from] rustls::Error),
}

/// A port that is taken, and how it is encrypted.
pub struct Listening {
    listener: StdListener,
    tls: Option<TlsAcceptor>,
    address: SocketAddr,
    names: Names,
    connections: usize,
}

impl Listening {
    /// By which names it is reached.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }
}

/// Takes the port of `[http]`.
///
/// # Errors
/// See [`HttpError`].
pub fn bind(http: &HttpSection, ca: &Ca) -> Result<Listening, HttpError> {
    let listen = |source| HttpError::Listen { address: http.listen, source };
    let listener = StdListener::bind(http.listen).map_err(listen)?;
    listener.set_nonblocking(true).map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let names = Names::of(http, address.port());
    let identity = match &http.tls {
        HttpTls::Off => None,
        HttpTls::Ca => {
            let (chain, key) = ca.web_identity(names.known(), http.listen.ip())?;
            let from = |detail| HttpError::Certificate { path: "the CA".into(), detail };
            Some(read_pem(chain.as_bytes(), key.as_bytes(), from, from)?)
        }
        HttpTls::Files { certificate, key } => Some(read_files(certificate, key)?),
    };
    let tls = identity.map(|(chain, key)| acceptor(chain, key)).transpose()?;
    let connections = usize::try_from(http.connections).unwrap_or(usize::MAX);
    Ok(Listening { listener, tls, address, names, connections })
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read_files(certificate: &PathBuf, key: &PathBuf) -> Result<Identity, HttpError> {
    let wrong = |path: &PathBuf| {
        let path = path.clone();
        move |detail: String| HttpError::Certificate { path, detail }
    };
    let read = |path: &PathBuf| std::fs::read(path).map_err(|error| wrong(path)(error.to_string()));
    read_pem(&read(certificate)?, &read(key)?, wrong(certificate), wrong(key))
}

fn read_pem(
    chain: &[u8],
    key: &[u8],
    bad_chain: impl FnOnce(String) -> HttpError + Clone,
    bad_key: impl FnOnce(String) -> HttpError,
) -> Result<Identity, HttpError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let certificates = certificates.map_err(|error| bad_chain.clone()(error.to_string()))?;
    if certificates.is_empty() {
        return Err(bad_chain("it has no certificate in PEM".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| bad_key(error.to_string()))?;
    Ok((certificates, key))
}

fn acceptor(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves on a thread of its own until `stop`.
///
/// # Errors
/// If the system gives no thread or runtime.
pub fn spawn(
    listening: Listening,
    shared: Arc<Shared>,
    access: Arc<Access>,
    shapes: Shapes,
    stop: CancellationToken,
) -> io::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(LISTINGS)
        .build()?;
    std::thread::Builder::new().name("http".into()).spawn(move || {
        let port = listening.address.port();
        let web = Web::new(shared, access, listening.names.clone(), shapes, port, stop.clone());
        runtime.block_on(accept(listening, web, stop));
        runtime.shutdown_timeout(FAREWELL);
    })
}

/// All routes.
fn router(web: &Arc<Web>) -> Router {
    let state = || axum::middleware::from_fn_with_state(Arc::clone(web), guard::signed_in);
    let known = Router::new()
        .merge(rest::routes())
        .merge(slurmrest::routes())
        .merge(page::signed_in_routes())
        .route_layer(state());
    let metrics = match web.shared.file().http.as_ref().is_some_and(|http| http.open_metrics) {
        true => metrics::routes(),
        false => metrics::routes().route_layer(state()),
    };
    known
        .merge(metrics)
        .merge(page::open_routes())
        .fallback(page::file)
        .method_not_allowed_fallback(page::wrong_method)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(web), guard::only_for_us))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(web), page::headers))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(web), traffic::count))
        .with_state(Arc::clone(web))
}

async fn accept(listening: Listening, web: Arc<Web>, stop: CancellationToken) {
    let listener = match TcpListener::from_std(listening.listener) {
        Ok(listener) => listener,
        Err(error) => {
            warn!(%error, "HTTP can't be served");
            return;
        }
    };
    info!(address = %listening.address, base = web.names.base(), "HTTP is served");
    let places = Arc::new(Semaphore::new(listening.connections));
    let router = router(&web);
    let tasks = TaskTracker::new();
    let following = Arc::clone(&web);
    tasks.spawn(async move {
        let shared = &following.shared;
        following.events.follow(shared.writer.watch(), &shared.clock, &following.stop).await;
    });
    loop {
        // Taken before the connection: who comes when all are taken waits in the kernel's queue.
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = stop.cancelled() => break,
        };
        let Ok(place) = place else { break };
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let stream = match stream {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Files may have run out; a moment later one may be free.
                debug!(%error, "a connection was not taken");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (router, tls, stop) = (router.clone(), listening.tls.clone(), stop.clone());
        let web = Arc::clone(&web);
        tasks.spawn(async move {
            let _place = place;
            let _counted = Traffic::connected(&web);
            serve_one(stream, tls, router, stop).await;
        });
    }
    tasks.close();
    if tokio::time::timeout(FAREWELL, tasks.wait()).await.is_err() {
        debug!("some HTTP connections did not end in time");
    }
}

async fn serve_one(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "a connection was gone at once");
        return;
    }
    let stream = Steady::new(stream, SILENCE);
    let Some(tls) = tls else {
        return talk(stream, router, stop).await;
    };
    match tokio::time::timeout(HEAD, tls.accept(stream)).await {
        Ok(Ok(stream)) => talk(stream, router, stop).await,
        Ok(Err(error)) => debug!(%error, "a TLS handshake failed"),
        Err(_) => debug!("a TLS handshake took too long"),
    }
}

async fn talk<S>(stream: S, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_BYTES);
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        debug!(%error, "an HTTP connection broke off");
    }
}
