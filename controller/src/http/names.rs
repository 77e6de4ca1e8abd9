//! By which names is this port reached, and is that one of them?
//!
//! A page of somebody else may let its own name point at this address (DNS rebinding): a browser then takes
//! our answers for that page's. So names are known ones; addresses cannot be made to point anywhere.

use std::net::{IpAddr, Ipv6Addr};

use crate::config::{HttpSection, HttpTls};

/// The names that count.
#[derive(Debug, Clone)]
pub struct Names {
    known: Vec<String>,
    scheme: &'static str,
    base: String,
}

impl Names {
    /// Those of the file, this host's own and `localhost`. `port` is the one that is really listened on.
    #[must_use]
    pub fn of(http: &HttpSection, port: u16) -> Self {
        let host = nix::unistd::gethostname().unwrap_or_default();
        let host = host.to_string_lossy().to_ascii_lowercase();
        let scheme = if http.tls == HttpTls::Off { "http" } else { "https" };
        let address = http.listen.ip();
        let first = match http.names.first() {
            Some(name) => name.clone(),
            None if address.is_unspecified() && !host.is_empty() => host.clone(),
            None => in_url(address),
        };
        let mut known = http.names.clone();
        known.extend([host, "localhost".to_owned()]);
        known.retain(|name| !name.is_empty());
        Self { known, scheme, base: format!("{scheme}://{first}:{port}") }
    }

    /// What links begin with.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The names, for a certificate.
    #[must_use]
    pub fn known(&self) -> &[String] {
        &self.known
    }

    /// `http` or `https`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// Whether a request for this host and port (as its `Host` says) is for us.
    #[must_use]
    pub fn has(&self, host: &str) -> bool {
        let name = without_port(host).trim_end_matches('.').to_ascii_lowercase();
        if name.parse::<IpAddr>().is_ok() {
            return true;
        }
        if let Some(inner) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return inner.parse::<Ipv6Addr>().is_ok();
        }
        self.known.contains(&name) || name.ends_with(".localhost")
    }

    /// Whether a page of this origin is one of ours, when the request was for `host`.
    #[must_use]
    pub fn is_own(&self, origin: &str, host: &str) -> bool {
        let place = origin.strip_prefix(self.scheme).and_then(|rest| rest.strip_prefix("://"));
        place.is_some_and(|place| place.eq_ignore_ascii_case(host))
    }
}

fn in_url(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// A host without the port behind it.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            // A bare IPv6 address has colons and no port.
            if name.contains(':') && !name.ends_with(']') { host } else { name }
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(http: HttpSection) -> Names {
        Names::of(&http, 6830)
    }

    #[test]
    fn foreign_names_are_not_ours() {
        let http = HttpSection { names: vec!["hpc.example.org".into()], ..Default::default() };
        let names = names(http);
        for ours in [
            "127.0.0.1:6830",
            "127.0.0.1",
            "[::1]:6830",
            "::1",
            "localhost:6830",
            "LOCALHOST",
            "hpc.example.org",
            "HPC.example.org.:6830",
            "demo.localhost:1",
        ] {
            assert!(names.has(ours), "{ours}");
        }
        for foreign in
            ["", "evil.example", "hpc.example.org.evil.example:6830", "localhost.evil", "[x]"]
        {
            assert!(!names.has(foreign), "{foreign}");
        }
        assert_eq!(names.base(), "http://hpc.example.org:6830");
    }

    #[test]
    fn an_origin_is_ours_with_scheme_name_and_port() {
        let names = names(HttpSection::default());
        let host = "127.0.0.1:6830";
        assert!(names.is_own("http://127.0.0.1:6830", host));
        for foreign in
            ["null", "https://127.0.0.1:6830", "http://127.0.0.1:6831", "http://127.0.0.1", ""]
        {
            assert!(!names.is_own(foreign, host), "{foreign}");
        }
        assert_eq!(names.base(), "http://127.0.0.1:6830");
    }
}
