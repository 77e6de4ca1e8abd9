//! Who is behind this call?
//!
//! On the controller's own Unix socket the kernel says it. On TLS the peer is a host, known by
//! the key it proved in the handshake, and the host says which of its users called. Anything else
//! is nobody. The headers count on TLS only: over the local socket they are ignored, since there
//! everybody could set them.

use std::fmt;
use std::sync::Arc;

use penstock_proto::{GID_HEADER, UID_HEADER};
use tonic::metadata::MetadataMap;
use tonic::service::Interceptor;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Extensions, Request, Status};

use super::role::HostRole;
use super::tls::peer_key_hash;

/// How texts name the controller's own host.
pub const CONTROLLER_HOST: &str = "the controller's host";

/// The id that POSIX keeps for "no change" and "nobody"; no process has it.
const NO_ID: u32 = u32::MAX;

/// A host of the cluster, as the records know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostIdentity {
    /// The name bound to its key.
    pub name: Arc<str>,
    /// What its token made it.
    pub role: HostRole,
    /// Cut off by an admin.
    pub revoked: bool,
}

/// The hosts that have joined, as of now.
pub trait HostDirectory: Send + Sync {
    /// The host whose key has this hash; see [`peer_key_hash`]. Asked at every call.
    fn by_key(&self, key_hash: &[u8; 32]) -> Option<HostIdentity>;
}

/// The way that a call came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// The controller's own Unix socket.
    ControllerSocket,
    /// The daemon of a host, on its mutual-TLS connection.
    Host {
        /// The host's name.
        name: Arc<str>,
        /// The host's role.
        role: HostRole,
    },
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ControllerSocket => f.write_str(CONTROLLER_HOST),
            Self::Host { name, role } => write!(f, "{role} host {name}"),
        }
    }
}

/// Who calls, and through what; what that allows is [`authorize`](super::authorize)'s business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Effective user id of the calling process.
    pub uid: u32,
    /// Effective group id of the calling process.
    pub gid: u32,
    /// The way that the call came.
    pub via: Via,
}

/// Puts a [`Caller`] into the extensions of each request, or refuses it with `UNAUTHENTICATED`.
///
/// Wrap the `Penstock` service in it; handlers then ask [`caller_of`].
#[derive(Clone)]
pub struct CallerInterceptor {
    directory: Arc<dyn HostDirectory>,
}

impl CallerInterceptor {
    /// `directory` is asked at every call on TLS.
    pub fn new(directory: Arc<dyn HostDirectory>) -> Self {
        Self { directory }
    }
}

impl fmt::Debug for CallerInterceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerInterceptor").finish_non_exhaustive()
    }
}

impl Interceptor for CallerInterceptor {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let local = request.extensions().get::<UdsConnectInfo>();
        let caller = match local {
            Some(info) => local_caller(info)?,
            None => {
                let host = host_of(request.extensions(), &*self.directory)?;
                forwarded_caller(host, request.metadata())?
            }
        };
        request.extensions_mut().insert(caller);
        Ok(request)
    }
}

/// The caller of a request that went through [`CallerInterceptor`].
///
/// # Errors
/// `INTERNAL` where it did not: the service was put up without it.
pub fn caller_of<T>(request: &Request<T>) -> Result<&Caller, Status> {
    request
        .extensions()
        .get()
        .ok_or_else(|| Status::internal("the service was put up without its caller check"))
}

/// The host at the other end of a call's connection. `extensions` are those of the request.
///
/// # Errors
/// `UNAUTHENTICATED` where no known, unrevoked host proved its key.
pub fn host_of(
    extensions: &Extensions,
    directory: &dyn HostDirectory,
) -> Result<HostIdentity, Status> {
    known_host(peer_key_hash(extensions), directory)
}

fn known_host(
    key_hash: Option<[u8; 32]>,
    directory: &dyn HostDirectory,
) -> Result<HostIdentity, Status> {
    let Some(key_hash) = key_hash else {
        return Err(Status::unauthenticated(
            "no client certificate: this host has not joined the cluster; an admin can make a \
             join token for it",
        ));
    };
    match directory.by_key(&key_hash) {
        Some(host) if host.revoked => Err(Status::unauthenticated(format!(
            "host {} has been revoked; an admin can reset it and make a new join token",
            host.name
        ))),
        Some(host) => Ok(host),
        None => Err(Status::unauthenticated(
            "no host of this cluster has the key of this certificate; if the host was reset, it \
             must join again with a new token",
        )),
    }
}

fn local_caller(info: &UdsConnectInfo) -> Result<Caller, Status> {
    let peer = info
        .peer_cred
        .ok_or_else(|| Status::unauthenticated("the kernel does not say who called"))?;
    Ok(Caller { uid: peer.uid(), gid: peer.gid(), via: Via::ControllerSocket })
}

fn forwarded_caller(host: HostIdentity, metadata: &MetadataMap) -> Result<Caller, Status> {
    Ok(Caller {
        uid: stated_id(&host, metadata, UID_HEADER)?,
        gid: stated_id(&host, metadata, GID_HEADER)?,
        via: Via::Host { name: host.name, role: host.role },
    })
}

/// Exactly one value, plain decimal: two would leave open which is believed.
fn stated_id(
    host: &HostIdentity,
    metadata: &MetadataMap,
    header: &'static str,
) -> Result<u32, Status> {
    let mut values = metadata.get_all(header).iter();
    let id = match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().and_then(parse_id),
        (None, _) | (Some(_), Some(_)) => None,
    };
    id.ok_or_else(|| {
        Status::unauthenticated(format!(
            "host {} does not say for whom it calls: header {header} must be there once, with a \
             decimal id; calls go through the socket of the host's agent",
            host.name
        ))
    })
}

fn parse_id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id != NO_ID)
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic::metadata::MetadataValue;
    use tonic::transport::server::Connected as _;

    use super::*;

    struct OneHost;

    impl HostDirectory for OneHost {
        fn by_key(&self, key_hash: &[u8; 32]) -> Option<HostIdentity> {
            let revoked = match key_hash[0] {
                1 => false,
                2 => true,
                _ => return None,
            };
            Some(HostIdentity { name: "n1".into(), role: HostRole::Compute, revoked })
        }
    }

    fn metadata(pairs: &[(&'static str, &str)]) -> MetadataMap {
        let mut map = MetadataMap::new();
        for (name, value) in pairs {
            map.append(*name, MetadataValue::try_from(*value).unwrap());
        }
        map
    }

    #[test]
    fn only_a_known_unrevoked_host_is_believed() {
        assert_eq!(&*known_host(Some([1; 32]), &OneHost).unwrap().name, "n1");
        let cases = [
            (None, "no client certificate"),
            (Some([2; 32]), "revoked"),
            (Some([3; 32]), "no host"),
        ];
        for (key, text) in cases {
            let err = known_host(key, &OneHost).unwrap_err();
            assert_eq!(err.code(), Code::Unauthenticated);
            assert!(err.message().contains(text), "{err}");
        }
    }

    #[test]
    fn a_host_must_say_for_whom_it_calls() {
        let host = known_host(Some([1; 32]), &OneHost).unwrap();
        let whole = metadata(&[(UID_HEADER, "1000"), (GID_HEADER, "100")]);
        let caller = forwarded_caller(host.clone(), &whole).unwrap();
        let via = Via::Host { name: "n1".into(), role: HostRole::Compute };
        assert_eq!(caller, Caller { uid: 1000, gid: 100, via });

        let bad: [&[(&'static str, &str)]; 8] = [
            &[],
            &[(UID_HEADER, "1000")],
            &[(GID_HEADER, "100")],
            &[(UID_HEADER, "1000"), (UID_HEADER, "0"), (GID_HEADER, "100")],
            &[(UID_HEADER, "-1"), (GID_HEADER, "100")],
            &[(UID_HEADER, "+1"), (GID_HEADER, "100")],
            &[(UID_HEADER, "4294967295"), (GID_HEADER, "100")],
            &[(UID_HEADER, "1000"), (GID_HEADER, "")],
        ];
        for pairs in bad {
            let err = forwarded_caller(host.clone(), &metadata(pairs)).unwrap_err();
            assert_eq!(err.code(), Code::Unauthenticated, "{pairs:?}");
            assert!(err.message().contains("n1"), "{err}");
        }
    }

    #[tokio::test]
    async fn over_the_local_socket_the_kernel_counts_and_headers_do_not() {
        let (ours, _theirs) = tokio::net::UnixStream::pair().unwrap();
        let mut request = Request::new(());
        *request.metadata_mut() = metadata(&[(UID_HEADER, "4242"), (GID_HEADER, "4242")]);
        request.extensions_mut().insert(ours.connect_info());
        let request = CallerInterceptor::new(Arc::new(OneHost)).call(request).unwrap();
        let caller = caller_of(&request).unwrap();
        assert_eq!(caller.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(caller.gid, nix::unistd::getegid().as_raw());
        assert_eq!(caller.via, Via::ControllerSocket);
    }

    #[test]
    fn a_connection_of_no_known_kind_is_nobody() {
        let mut request = Request::new(());
        *request.metadata_mut() = metadata(&[(UID_HEADER, "0"), (GID_HEADER, "0")]);
        let err = CallerInterceptor::new(Arc::new(OneHost)).call(request).unwrap_err();
        assert_eq!(err.code(), Code::Unauthenticated);
        assert_eq!(caller_of(&Request::new(())).unwrap_err().code(), Code::Internal);
    }
}
