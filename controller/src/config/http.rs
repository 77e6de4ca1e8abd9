//! Where does the file want HTTP served, and under which rules?
//!
//! Without `[http]` there is none. What leaves this machine is encrypted: an address that is not
//! loopback takes TLS, and `tls = "off"` with it is a mistake.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use toml::de::DeTable;

use super::file::{YEAR_SECS, table};
use super::problem::Problems;
use super::section::{Placed, Section};

/// `[http]`: the page, REST and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSection {
    /// Address and port. Default: `127.0.0.1:6830`, loopback only.
    pub listen: SocketAddr,
    /// How it is encrypted. Default: by the cluster's CA, but not at all on loopback.
    pub tls: HttpTls,
    /// Names by which browsers and scripts reach it, beside addresses, `localhost` and the host's own
    /// name. Requests for other names are refused, so that no foreign page can pass itself off as this
    /// one by a name that resolves to it. Default: none.
    pub names: Vec<String>,
    /// Whether `/metrics` is there for everybody who reaches the port. Default: false.
    pub open_metrics: bool,
    /// How long a browser stays signed in, seconds. 60..=604,800, default 28,800 (8 hours).
    pub session_secs: u32,
    /// Longest life of an access token, seconds. 60..=one year, default 30 days.
    pub token_secs: u32,
    /// Most connections at once; one more waits for another to end. 16..=65,536, default 1,024.
    pub connections: u32,
}

/// How HTTP is encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpTls {
    /// Not at all; on loopback only.
    Off,
    /// With a certificate that the cluster's own CA makes at each start.
    Ca,
    /// With a given certificate.
    Files {
        /// The certificate and its chain, PEM.
        certificate: PathBuf,
        /// Its key, PEM.
        key: PathBuf,
    },
}

impl Default for HttpSection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 6830)),
            tls: HttpTls::Off,
            names: Vec::new(),
            open_metrics: false,
            session_secs: 8 * 3600,
            token_secs: 30 * 86_400,
            connections: 1_024,
        }
    }
}

/// Reads `[http]`; `None`: there is none.
pub(super) fn read(document: &DeTable<'_>, problems: &mut Problems<'_>) -> Option<HttpSection> {
    let (found, at) = table(document, "http", problems)?;
    let mut http = HttpSection::default();
    let mut section = Section::new("[http]", found, at, problems);
    let listen = section.parsed("listen", "\"127.0.0.1:6830\"", |text| {
        text.parse::<SocketAddr>().map_err(|_| {
            format!("{text:?} is no address with a port; write 127.0.0.1:6830 or 0.0.0.0:6830")
        })
    });
    if let Some(listen) = listen {
        http.listen = listen.value;
    }
    http.tls = read_tls(&mut section, http.listen);
    if let Some(names) = section.strings("names", "[\"cluster.example.org\"]") {
        http.names = read_names(&mut section, names.value);
    }
    if let Some(open) = section.boolean("open_metrics") {
        http.open_metrics = open.value;
    }
    let mut set = |key, range, place: &mut u32| {
        if let Some(number) = section.number(key, range) {
            *place = number.value;
        }
    };
    set("session_secs", 60..=604_800, &mut http.session_secs);
    set("token_secs", 60..=YEAR_SECS, &mut http.token_secs);
    set("connections", 16..=65_536, &mut http.connections);
    section.finish();
    Some(http)
}

fn read_names(section: &mut Section<'_, '_, '_>, given: Vec<Placed<String>>) -> Vec<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let mut names = Vec::new();
    for name in given {
        if (1..=253).contains(&name.value.len()) && name.value.bytes().all(allowed) {
            names.push(name.value.to_ascii_lowercase());
        } else {
            let message = format!(
                "[http] names: {:?} is no name of a host; write it without scheme and port",
                name.value
            );
            section.problems.error(&name.at, message);
        }
    }
    names
}

fn read_tls(section: &mut Section<'_, '_, '_>, listen: SocketAddr) -> HttpTls {
    let word = section.parsed("tls", "\"ca\"", |text| match text {
        "ca" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{text:?} is not known; write \"ca\" or \"off\"")),
    });
    let certificate = section.path("certificate", "\"/etc/penstock/http.pem\"");
    let key = section.path("key", "\"/etc/penstock/http.key\"");
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            if let Some(word) = word {
                let message = "[http] has tls beside certificate and key; leave tls out";
                section.problems.error(&word.at, message);
            }
            return HttpTls::Files { certificate: certificate.value, key: key.value };
        }
        (Some(one), None) | (None, Some(one)) => {
            let message = "[http] certificate and key belong together; give both";
            section.problems.error(&one.at, message);
        }
        (None, None) => {}
    }
    let by_ca = word.as_ref().map_or_else(|| !listen.ip().is_loopback(), |word| word.value);
    if let Some(word) = word.filter(|word| !word.value && !listen.ip().is_loopback()) {
        let message = format!(
            "[http] tls is off and listen is {listen}: sign-ins would cross the network in the clear; \
             write tls = \"ca\", or listen on 127.0.0.1"
        );
        section.problems.error(&word.at, message);
    }
    if by_ca { HttpTls::Ca } else { HttpTls::Off }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::ClusterFile;

    fn read(http: &str) -> Result<Option<HttpSection>, String> {
        let text = format!("[[partition]]\nname = \"main\"\n{http}");
        let file = ClusterFile::parse(Path::new("c.toml"), &text);
        file.map(|file| file.http).map_err(|error| error.to_string())
    }

    #[test]
    fn it_is_off_until_the_file_has_it_and_plain_on_loopback_only() {
        assert_eq!(read(""), Ok(None));
        assert_eq!(read("[http]\n"), Ok(Some(HttpSection::default())));
        let tls = |text: &str| read(&format!("[http]\n{text}")).map(|http| http.unwrap().tls);
        assert_eq!(tls("listen = \"0.0.0.0:1\"\n"), Ok(HttpTls::Ca));
        assert_eq!(tls("tls = \"ca\"\n"), Ok(HttpTls::Ca));
        let files = HttpTls::Files { certificate: "/c".into(), key: "/k".into() };
        assert_eq!(tls("certificate = \"/c\"\nkey = \"/k\"\n"), Ok(files));
    }

    #[test]
    fn mistakes_are_named() {
        let table = [
            ("listen = \"0.0.0.0:1\"\ntls = \"off\"\n", "in the clear"),
            ("tls = \"on\"\n", "\"on\" is not known"),
            ("certificate = \"/c\"\n", "belong together"),
            ("certificate = \"/c\"\nkey = \"/k\"\ntls = \"ca\"\n", "leave tls out"),
            ("names = [\"http://x\"]\n", "no name of a host"),
            ("listen = \"6830\"\n", "no address with a port"),
            ("session_secs = 1\n", "session_secs"),
            ("listem = \"127.0.0.1:1\"\n", "did you mean \"listen\""),
        ];
        for (text, expect) in table {
            let error = read(&format!("[http]\n{text}")).unwrap_err();
            assert!(error.contains(expect), "{text}: {error}");
        }
    }
}
