//! Which certificates does this cluster believe, and who makes them?
//!
//! The CA's key and certificate lie in a folder of their own. The folder appears whole, by one
//! rename, so that a half of it is never the trace of a crash: where one file is missing,
//! somebody removed it, and making a new CA would lock every host out. That is refused.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _,
    SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use sha2::{Digest as _, Sha256};

use super::role::HostRole;
use super::tls::{key_hash, subject_public_key_info};

/// The DNS name in the controller's certificate, whatever address it is reached by.
pub const SERVER_NAME: &str = "penstock-controller";

const KEY_FILE: &str = "ca.key";
const CERTIFICATE_FILE: &str = "ca.crt";
/// Twenty years: longer than a cluster lives. Hosts are cut by revoking them, not by expiry.
const VALIDITY: Duration = Duration::from_secs(20 * 365 * 86_400);
/// Browsers take no certificate that holds longer than 825 days; this one is made at each start.
const WEB_VALIDITY: Duration = Duration::from_secs(2 * 365 * 86_400);
/// A P-256 request takes about 250 bytes, one with an RSA key of 8,192 bits about 2,000.
const MAX_REQUEST_BYTES: usize = 8 << 10;
/// Longest name of a host, as in DNS.
const MAX_HOST_NAME_BYTES: usize = 253;

/// Why the CA could not be opened or made.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// One of the two files is gone.
    #[error(
        "{present} exists and {missing} does not; a new CA would lock every host out, so none is \
         made: restore {missing} from a backup, or, to let all hosts join anew, remove the folder"
    )]
    Incomplete {
        /// The file that is there.
        present: PathBuf,
        /// The file that is not.
        missing: PathBuf,
    },
    /// The key can be read by others than its owner.
    #[error(
        "{path} has mode {mode:04o}, so others can read the CA's key; run `chmod 600 {path}`, and \
         if it was not meant, let all hosts join anew"
    )]
    Exposed {
        /// The key's file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file's content is not what it should be.
    #[error("{path} is damaged ({detail}); restore it from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A file could not be read or written.
    #[error("cannot {what} {path}")]
    Io {
        /// `read`, `write` and the like.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The cryptography library refused; this is a fault of ours.
    #[error("cannot make a certificate")]
    Crypto(#[from] rcgen::Error),
}

/// Why a request for a certificate was refused.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The host's name can't stand in a certificate.
    #[error(
        "host name {name:?} is not usable: 1 to 253 letters, digits, '-', '_' and '.' are allowed"
    )]
    HostName {
        /// The name.
        name: String,
    },
    /// Not a certificate signing request, or its own signature is false.
    #[error("the certificate request is not usable ({detail}); the host must make a new one")]
    Request {
        /// What the parser says.
        detail: String,
    },
    /// The cryptography library refused; this is a fault of ours.
    #[error("cannot sign the certificate")]
    Crypto(#[from] rcgen::Error),
}

/// A certificate for a host, and what the host is known by from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The host's certificate, PEM.
    pub certificate_pem: String,
    /// sha256 of the SubjectPublicKeyInfo in it, as [`peer_key_hash`](super::peer_key_hash)
    /// computes it for a connection.
    pub key_hash: [u8; 32],
}

/// The cluster's certificate authority.
pub struct Ca {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// Opens the CA in `dir`, or makes one where neither of its files exists.
    ///
    /// `dir` is the CA's own folder; it may be absent or empty, its parent must exist. Callers
    /// that know that the cluster had a CA use [`Ca::open`], so that a lost one is noticed.
    ///
    /// # Errors
    /// See [`CaError`]; nothing is made where one of the two files exists.
    pub fn open_or_create(dir: &Path) -> Result<Self, CaError> {
        if has(&dir.join(KEY_FILE))? || has(&dir.join(CERTIFICATE_FILE))? {
            Self::open(dir)
        } else {
            Self::create(dir)
        }
    }

    /// Opens the CA in `dir`.
    ///
    /// # Errors
    /// Where a file is missing, unreadable, damaged or readable by others, and where the key is
    /// not that of the certificate.
    pub fn open(dir: &Path) -> Result<Self, CaError> {
        let (key_path, certificate_path) = (dir.join(KEY_FILE), dir.join(CERTIFICATE_FILE));
        match (has(&key_path)?, has(&certificate_path)?) {
            (true, false) => {
                return Err(CaError::Incomplete { present: key_path, missing: certificate_path });
            }
            (false, true) => {
                return Err(CaError::Incomplete { present: certificate_path, missing: key_path });
            }
            (true, true) | (false, false) => {}
        }
        let key_pem = read(&key_path)?;
        check_mode(&key_path)?;
        let certificate_pem = read(&certificate_path)?;
        let damaged = |path: &Path, detail: String| CaError::Damaged { path: path.into(), detail };
        let key = KeyPair::from_pem(&key_pem).map_err(|err| damaged(&key_path, err.to_string()))?;
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|err| damaged(&certificate_path, err.to_string()))?;
        if subject_public_key_info(&certificate).as_deref() != Some(&*key.subject_public_key_info())
        {
            let detail = format!("it is not the certificate of the key in {}", key_path.display());
            return Err(damaged(&certificate_path, detail));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|err| damaged(&certificate_path, err.to_string()))?;
        Ok(Self { certificate, certificate_pem, issuer })
    }

    /// Makes a CA in `dir`, durably: it is on disk when this returns.
    ///
    /// # Errors
    /// Where `dir` exists and is not empty, or a file cannot be written.
    pub fn create(dir: &Path) -> Result<Self, CaError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        set_validity(&mut params);
        params.distinguished_name = distinguished_name("penstock cluster CA", "ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;

        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let fresh = dir.with_file_name(format!("{name}.new"));
        match fs::remove_dir_all(&fresh) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", &fresh, err));
            }
            Ok(()) | Err(_) => {}
        }
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&fresh)
            .map_err(|err| io_error("create", &fresh, err))?;
        write(&fresh.join(KEY_FILE), 0o600, key.serialize_pem().as_bytes())?;
        write(&fresh.join(CERTIFICATE_FILE), 0o644, certificate.pem().as_bytes())?;
        sync_dir(&fresh)?;
        fs::rename(&fresh, dir).map_err(|err| io_error("create", dir, err))?;
        sync_dir(parent_of(dir))?;
        Self::open(dir)
    }

    /// sha256 of the CA's certificate, DER: what join tokens carry. It is also what
    /// `openssl x509 -in ca.crt -noout -fingerprint -sha256` prints.
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.certificate).into()
    }

    /// The CA's certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Signs the key in `csr_der`, a PKCS #10 request, for the host `host_name`.
    ///
    /// Only the key is taken from the request: name, use and validity are ours.
    ///
    /// # Errors
    /// Where the name or the request is not usable; see [`SignError`].
    pub fn sign(
        &self,
        csr_der: &[u8],
        host_name: &str,
        role: HostRole,
    ) -> Result<Signed, SignError> {
        if !is_host_name(host_name) {
            return Err(SignError::HostName { name: host_name.chars().take(300).collect() });
        }
        if csr_der.len() > MAX_REQUEST_BYTES {
            let detail =
                format!("{} bytes, at most {MAX_REQUEST_BYTES} are allowed", csr_der.len());
            return Err(SignError::Request { detail });
        }
        let request =
            CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der))
                .map_err(|err| SignError::Request { detail: err.to_string() })?;
        let purpose = ExtendedKeyUsagePurpose::ClientAuth;
        let certificate = leaf(host_name, role.as_str(), purpose)?
            .signed_by(&request.public_key, &self.issuer)?;
        let key_hash = key_hash(certificate.der()).ok_or_else(|| SignError::Request {
            detail: "its public key cannot be read back".into(),
        })?;
        Ok(Signed { certificate_pem: certificate.pem(), key_hash })
    }

    /// Makes a key and a certificate for [`SERVER_NAME`]; they live as long as the process.
    ///
    /// Returns the chain (server, then CA, so that a joining host can check the fingerprint) and
    /// the key, both PEM.
    ///
    /// # Errors
    /// Only where the cryptography library fails.
    pub fn server_identity(&self) -> Result<(String, String), CaError> {
        let key = KeyPair::generate()?;
        let certificate = leaf(SERVER_NAME, "controller", ExtendedKeyUsagePurpose::ServerAuth)?
            .signed_by(&key, &self.issuer)?;
        Ok((format!("{}{}", certificate.pem(), self.certificate_pem), key.serialize_pem()))
    }

    /// A certificate chain and key, PEM, for HTTP under these names and this address (unless it stands
    /// for all), for two years.
    ///
    /// # Errors
    /// Where the cryptography library fails, or a name can't stand in a certificate.
    pub fn web_identity(
        &self,
        names: &[String],
        address: IpAddr,
    ) -> Result<(String, String), CaError> {
        let key = KeyPair::generate()?;
        let mut params = leaf("penstock-http", "http", ExtendedKeyUsagePurpose::ServerAuth)?;
        params.subject_alt_names.clear();
        for name in names.iter().filter(|name| is_host_name(name)) {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        let own = [address, IpAddr::from([127, 0, 0, 1])];
        let told = own.into_iter().filter(|address| !address.is_unspecified());
        params.subject_alt_names.extend(told.map(SanType::IpAddress));
        set_validity_of(&mut params, WEB_VALIDITY);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((format!("{}{}", certificate.pem(), self.certificate_pem), key.serialize_pem()))
    }
}

impl std::fmt::Debug for Ca {
    /// Never shows the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca").field("certificate", &self.certificate_pem).finish_non_exhaustive()
    }
}

fn leaf(
    name: &str,
    unit: &str,
    purpose: ExtendedKeyUsagePurpose,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    set_validity(&mut params);
    params.distinguished_name = distinguished_name(name, unit);
    params.subject_alt_names = vec![SanType::DnsName(name.try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// `unit` is for people who look at the certificate; nothing reads it.
fn distinguished_name(name: &str, unit: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::OrganizationName, "penstock");
    dn.push(DnType::OrganizationalUnitName, unit);
    dn.push(DnType::CommonName, name);
    dn
}

fn is_host_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=MAX_HOST_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed)
}

/// From long ago, so that a host whose clock runs behind can still connect.
fn set_validity(params: &mut CertificateParams) {
    set_validity_of(params, VALIDITY);
}

fn set_validity_of(params: &mut CertificateParams, validity: Duration) {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_epoch + validity;
}

fn has(path: &Path) -> Result<bool, CaError> {
    path.try_exists().map_err(|err| io_error("look for", path, err))
}

fn read(path: &Path) -> Result<String, CaError> {
    fs::read_to_string(path).map_err(|err| io_error("read", path, err))
}

fn check_mode(path: &Path) -> Result<(), CaError> {
    let metadata = fs::metadata(path).map_err(|err| io_error("read", path, err))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(CaError::Exposed { path: path.into(), mode }) }
}

fn write(path: &Path, mode: u32, content: &[u8]) -> Result<(), CaError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .map_err(|err| io_error("write", path, err))
}

fn sync_dir(path: &Path) -> Result<(), CaError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|err| io_error("write", path, err))
}

fn parent_of(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> CaError {
    CaError::Io { what, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &str) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.into()]).unwrap();
        params.serialize_request(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_ca_survives_a_restart() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("ca");
        let made = Ca::open_or_create(&dir).unwrap();
        let opened = Ca::open_or_create(&dir).unwrap();
        assert_eq!(made.fingerprint(), opened.fingerprint());
        assert_eq!(made.certificate_pem(), opened.certificate_pem());
        let mode = fs::metadata(dir.join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mode = fs::metadata(&dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn the_trace_of_a_crash_while_making_it_is_no_obstacle() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("ca");
        fs::create_dir(tmp.path().join("ca.new")).unwrap();
        fs::write(tmp.path().join("ca.new").join(KEY_FILE), "half").unwrap();
        fs::create_dir(&dir).unwrap();
        Ca::open_or_create(&dir).unwrap();
        assert!(!tmp.path().join("ca.new").exists());
    }

    #[test]
    fn half_a_ca_is_refused_and_left_alone() {
        for gone in [KEY_FILE, CERTIFICATE_FILE] {
            let tmp = tempfile::tempdir().unwrap();
            let dir = tmp.path().join("ca");
            Ca::open_or_create(&dir).unwrap();
            fs::remove_file(dir.join(gone)).unwrap();
            let err = Ca::open_or_create(&dir).unwrap_err();
            assert!(matches!(&err, CaError::Incomplete { missing, .. } if missing.ends_with(gone)));
            assert!(err.to_string().contains("restore"), "{err}");
            assert!(!dir.join(gone).exists());
        }
    }

    #[test]
    fn a_ca_with_a_wrong_file_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let (one, two) = (tmp.path().join("one"), tmp.path().join("two"));
        Ca::create(&one).unwrap();
        Ca::create(&two).unwrap();
        fs::copy(two.join(CERTIFICATE_FILE), one.join(CERTIFICATE_FILE)).unwrap();
        let err = Ca::open(&one).unwrap_err();
        assert!(err.to_string().contains("not the certificate of the key"), "{err}");
        fs::write(two.join(KEY_FILE), "rubbish").unwrap();
        assert!(matches!(Ca::open(&two).unwrap_err(), CaError::Damaged { .. }));
        fs::set_permissions(two.join(KEY_FILE), fs::Permissions::from_mode(0o640)).unwrap();
        let err = Ca::open(&two).unwrap_err();
        assert!(err.to_string().contains("mode 0640"), "{err}");
        assert!(matches!(Ca::open(&tmp.path().join("none")).unwrap_err(), CaError::Io { .. }));
        assert!(matches!(Ca::create(&one).unwrap_err(), CaError::Io { .. }));
    }

    #[test]
    fn signing_takes_the_key_and_nothing_else_from_the_request() {
        let tmp = tempfile::tempdir().unwrap();
        let ca = Ca::create(&tmp.path().join("ca")).unwrap();
        let signed = ca.sign(&request("penstock-controller"), "n1", HostRole::Compute).unwrap();
        let der = CertificateDer::from_pem_slice(signed.certificate_pem.as_bytes()).unwrap();
        assert_eq!(key_hash(&der), Some(signed.key_hash));
        let parsed = rustls::server::ParsedCertificate::try_from(&der).unwrap();
        let valid_for = |name: &'static str| {
            rustls::client::verify_server_name(&parsed, &name.try_into().unwrap()).is_ok()
        };
        assert!(valid_for("n1"));
        assert!(!valid_for("penstock-controller"));
    }

    #[test]
    fn bad_requests_and_names_are_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let ca = Ca::create(&tmp.path().join("ca")).unwrap();
        let good = request("n1");
        for name in ["", "a b", "n1\n", "é", "a/b", &"x".repeat(254)] {
            let err = ca.sign(&good, name, HostRole::Compute).unwrap_err();
            assert!(matches!(err, SignError::HostName { .. }), "{name}");
        }
        let mut forged = good.clone();
        *forged.last_mut().unwrap() ^= 1;
        for csr in [&b""[..], b"rubbish", &good[..good.len() - 9], &forged, &[0x30; 9_000]] {
            let err = ca.sign(csr, "n1", HostRole::Compute).unwrap_err();
            assert!(matches!(err, SignError::Request { .. }), "{err}");
        }
    }
}
