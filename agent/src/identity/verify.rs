//! Is the controller at the other end that of the token?

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use sha2::{Digest as _, Sha256};

use super::hex;

/// The controller's certificates do not contain the CA that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the CA there has the fingerprint {}, the token names {}; take a token of this controller, or \
     correct the address",
    hex(seen),
    hex(expected)
)]
pub(crate) struct WrongCa {
    /// The fingerprint in the token.
    pub(crate) expected: [u8; 32],
    /// That of the last certificate which the controller showed.
    pub(crate) seen: [u8; 32],
}

/// Believes a server that shows a CA with a known fingerprint, and a certificate of that CA for
/// the name asked for.
#[derive(Debug)]
pub(super) struct PinnedCa {
    fingerprint: [u8; 32],
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinnedCa {
    pub(super) fn new(fingerprint: [u8; 32], algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self { fingerprint, algorithms }
    }
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = |shown: &&CertificateDer<'_>| fingerprint(shown) == self.fingerprint;
        let Some(ca) = intermediates.iter().find(pinned) else {
            let last = intermediates.last().unwrap_or(end_entity);
            let wrong = WrongCa { expected: self.fingerprint, seen: fingerprint(last) };
            return Err(CertificateError::Other(OtherError(Arc::new(wrong))).into());
        };
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let server = ParsedCertificate::try_from(end_entity)?;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &server,
            &roots,
            &[],
            now,
            self.algorithms.all,
        )?;
        rustls::client::verify_server_name(&server, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate).into()
}
