//! How does a connection to the controller come about?

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use super::SERVER_NAME;
use super::verify::{PinnedCa, WrongCa};

/// Name look-up, TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After a failed attempt the next ones fail at once for this long. Calls that queued up behind
/// the attempt would otherwise each wait for one of their own, in turn.
const FAILURE_HOLDS: Duration = Duration::from_millis(250);
/// A dead peer is noticed after interval + timeout, also when no call is on its way.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Why there is no connection to the controller.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum DialError {
    /// No such host, nobody listens, no route.
    #[error("cannot connect to {address}")]
    Tcp {
        /// The controller's address, as configured.
        address: Arc<str>,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// One of the two did not accept the other's certificate, or it is no TLS server.
    #[error("no secure connection to {address}")]
    Tls {
        /// The controller's address, as configured.
        address: Arc<str>,
        /// What failed in the handshake.
        source: Arc<io::Error>,
    },
    /// No answer in time.
    #[error("no answer from {address} within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout {
        /// The controller's address, as configured.
        address: Arc<str>,
    },
}

impl DialError {
    /// The CA that the controller showed, where it was not the one asked for.
    pub(crate) fn wrong_ca(&self) -> Option<&WrongCa> {
        let Self::Tls { source, .. } = self else { return None };
        match source.get_ref()?.downcast_ref::<rustls::Error>()? {
            rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => {
                other.0.downcast_ref()
            }
            _ => None,
        }
    }
}

/// Connects to one controller; clones share what is known of the last failure.
#[derive(Clone)]
pub(super) struct Dialer {
    address: Arc<str>,
    tls: TlsConnector,
    failure: Arc<Mutex<Option<(Instant, DialError)>>>,
}

impl Dialer {
    /// `address` is `host:port`.
    pub(super) fn new(address: &str, tls: ClientConfig) -> Self {
        let tls = TlsConnector::from(Arc::new(tls));
        Self { address: address.into(), tls, failure: Arc::default() }
    }

    pub(super) async fn dial(&self) -> Result<TlsStream<TcpStream>, DialError> {
        if let Some(failure) = self.recent_failure() {
            return Err(failure);
        }
        let address = Arc::clone(&self.address);
        let result = timeout(CONNECT_TIMEOUT, self.attempt())
            .await
            .unwrap_or(Err(DialError::Timeout { address }));
        let failure = result.as_ref().err().map(|err| (Instant::now(), err.clone()));
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        result
    }

    async fn attempt(&self) -> Result<TlsStream<TcpStream>, DialError> {
        let tcp_error = |source: io::Error| DialError::Tcp {
            address: Arc::clone(&self.address),
            source: Arc::new(source),
        };
        let stream = TcpStream::connect(&*self.address).await.map_err(tcp_error)?;
        stream.set_nodelay(true).map_err(tcp_error)?;
        let name = ServerName::try_from(SERVER_NAME).expect("the constant is a DNS name");
        self.tls.connect(name, stream).await.map_err(|source| DialError::Tls {
            address: Arc::clone(&self.address),
            source: Arc::new(source),
        })
    }

    fn recent_failure(&self) -> Option<DialError> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().filter(|(at, _)| at.elapsed() < FAILURE_HOLDS).map(|(_, err)| err.clone())
    }
}

impl tower::Service<http::Uri> for Dialer {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    /// Always dials the configured address; the URI only carries the server's name.
    fn call(&mut self, _uri: http::Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move { dialer.dial().await.map(TokioIo::new) })
    }
}

/// How much a peer may send ahead of its reader.
#[derive(Debug, Clone, Copy)]
pub(super) struct Windows {
    /// Bytes on one call.
    pub(super) stream: u32,
    /// Bytes on all calls of the connection together.
    pub(super) connection: u32,
}

/// Settings of a connection to the controller; the URI names it, the connector finds it.
pub(super) fn endpoint(windows: Windows) -> Endpoint {
    Endpoint::from_static("http://penstock-controller")
        .origin(http::Uri::from_static("https://penstock-controller"))
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(windows.stream)
        .initial_connection_window_size(windows.connection)
}

/// A channel that connects when it is first used, and again whenever the connection was lost.
pub(super) fn lazy_channel(dialer: Dialer, windows: Windows) -> Channel {
    endpoint(windows).connect_with_connector_lazy(dialer)
}

/// TLS that believes whoever shows the CA with this fingerprint, and proves nothing itself.
pub(super) fn pinned_config(fingerprint: [u8; 32]) -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    let verifier = PinnedCa::new(fingerprint, provider.signature_verification_algorithms);
    let config = builder(provider)
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    finish(config)
}

/// TLS that believes servers of this CA and proves the host's own key.
pub(super) fn mutual_config(
    ca: &CertificateDer<'static>,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone())?;
    let config = builder(Arc::new(ring::default_provider()))
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)?;
    Ok(finish(config))
}

fn builder(
    provider: Arc<CryptoProvider>,
) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring speaks TLS 1.3")
}

/// Connections are few and long, so that remembered sessions would only take memory.
fn finish(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    config
}
