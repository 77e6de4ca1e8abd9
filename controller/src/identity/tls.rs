//! How does the controller prove itself on TCP, and by what does it know its peer?

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;
use sha2::{Digest as _, Sha256};
use tonic::Extensions;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use super::ca::{Ca, CaError};

/// Longest handshake; a peer that stalls in it holds a socket, nothing else.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The server side of the agents' connections: our certificate and CA, and the peer's certificate
/// checked where it presents one.
///
/// A peer without a certificate gets through the handshake, since joining needs that; every call
/// but `Join` must then refuse it, which [`CallerInterceptor`](super::CallerInterceptor) and
/// [`host_of`](super::host_of) do.
///
/// # Errors
/// Only where the cryptography library fails.
pub fn server_tls_config(ca: &Ca) -> Result<ServerTlsConfig, CaError> {
    let (chain, key) = ca.server_identity()?;
    Ok(ServerTlsConfig::new()
        .identity(Identity::from_pem(chain, key))
        .client_ca_root(Certificate::from_pem(ca.certificate_pem()))
        .client_auth_optional(true)
        .timeout(HANDSHAKE_TIMEOUT))
}

/// Hash of the key that the peer of a call proved in the TLS handshake; `None` where there was no
/// TLS or no certificate. `extensions` are those of the request.
pub fn peer_key_hash(extensions: &Extensions) -> Option<[u8; 32]> {
    let certificates = extensions.get::<TlsConnectInfo<TcpConnectInfo>>()?.peer_certs()?;
    key_hash(certificates.first()?)
}

/// sha256 of the SubjectPublicKeyInfo of a certificate; `None` where it is no certificate.
pub fn key_hash(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    subject_public_key_info(certificate).map(|key| Sha256::digest(key).into())
}

pub(super) fn subject_public_key_info(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    Some(parsed.subject_public_key_info().as_ref().to_vec())
}
