//! Is HTTP only for whom it is meant, and does it do what commands do?

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use crate::harness::{AgentOptions, Cluster, Options, root_and_other_user};

/// A cluster whose controller serves HTTP.
struct Site {
    cluster: Cluster,
    port: u16,
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    /// A header's value.
    fn header(&self, name: &str) -> Option<&str> {
        let of = |line: &'_ str| {
            let (key, _) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(())
        };
        let line = self.head.lines().find(|line| of(line).is_some())?;
        line.split_once(": ").map(|(_, value)| value)
    }

    fn is(&self, status: u16, text: &str) -> &Self {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.body.contains(text), "{text}: {self:?}");
        self
    }
}

impl Site {
    fn start(agents: Vec<AgentOptions>) -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        let sections = format!("[http]\nlisten = \"127.0.0.1:{port}\"\n");
        let cluster = Cluster::start(Options { agents, sections, ..Options::default() });
        Self { cluster, port }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        stream
    }

    /// Sends these bytes and reads until the end.
    fn raw(&self, text: &[u8]) -> Answer {
        let mut stream = self.connect();
        // Who is refused early may find the connection closed while it still sends.
        stream.write_all(text).ok();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).ok();
        let all = String::from_utf8_lossy(&all).into_owned();
        let (head, body) = all.split_once("\r\n\r\n").unwrap_or((&all, ""));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut text = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\nContent-Length: \
             {}\r\n",
            self.port,
            body.len()
        );
        if !body.is_empty() {
            text.push_str("Content-Type: application/json\r\n");
        }
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.push_str(body);
        self.raw(text.as_bytes())
    }

    fn get(&self, path: &str, token: &str) -> Answer {
        self.ask("GET", path, &[("X-SLURM-USER-TOKEN", token)], "")
    }

    /// A token for root or another user.
    fn token(&self, words: &str, by_nobody: bool) -> String {
        let cmd = self.cluster.cmd("scontrol").words(&format!("token {words}"));
        let out = if by_nobody { cmd.by_nobody().ok() } else { cmd.ok() };
        out.trim().strip_prefix("SLURM_JWT=").expect("Slurm's form").to_owned()
    }
}

#[test]
fn nobody_gets_in_without_a_sign_in() {
    let site = Site::start(Vec::new());
    site.ask("GET", "/health", &[], "").is(200, "ok");
    for path in ["/api/v1/jobs", "/metrics", "/slurm/v0.0.40/jobs", "/api/v1/events", "/", "/x"] {
        let answer = site.ask("GET", path, &[], "");
        answer.is(401, "penstock web");
        assert!(answer.header("content-security-policy").is_some_and(|csp| csp.contains("'none'")));
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    let token = site.token("lifespan=60", false);
    site.get("/api/v1/ping", &token).is(200, "\"cluster\":\"test\"");
    // Changed, cut, of another kind, twice, expired before it is looked at.
    let mut changed = token.clone();
    changed.insert(60, 'A');
    for bad in [changed.as_str(), &token[..token.len() - 9], "x", "a.b.c"] {
        site.get("/api/v1/ping", bad).is(401, "scontrol token");
    }
    let two = [("X-SLURM-USER-TOKEN", token.as_str()), ("Authorization", "Bearer x")];
    site.ask("GET", "/api/v1/ping", &two, "").is(401, "different tokens");
    let other = [("X-SLURM-USER-TOKEN", token.as_str()), ("X-SLURM-USER-NAME", "mallory")];
    site.ask("GET", "/api/v1/ping", &other, "").is(401, "another user's");
    // By a name that somebody else made point here.
    let foreign = format!(
        "GET /api/v1/ping HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\
         X-SLURM-USER-TOKEN: {token}\r\n\r\n"
    );
    site.raw(foreign.as_bytes()).is(421, "names");
    // Paths are names of routes and files of the binary, never of the disk.
    for path in ["/../etc/passwd", "/%2e%2e/etc/passwd", "/style.css/../../x", "//etc/passwd"] {
        let answer = site.get(path, &token);
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
    }
    site.get("/style.css", &token).is(200, "color-scheme");
    site.cluster.cmd("scontrol").words("token revoke=all").ok();
    site.get("/api/v1/ping", &token).is(401, "revoked");
}

#[test]
fn a_link_signs_one_browser_in_once() {
    let site = Site::start(vec![AgentOptions::node("n1", 1)]);
    let link = site.cluster.penstock("web").ok();
    let path = link.trim().strip_prefix(&site.origin()).expect("its own address").to_owned();
    let first = site.ask("GET", &path, &[], "");
    first.is(200, "Signed in");
    let cookie = first.header("set-cookie").expect("a session").to_owned();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
    site.ask("GET", &path, &[], "").is(403, "used up");
    let cookie = cookie.split(';').next().expect("a pair");
    let own = site.origin();
    site.ask("GET", "/api/v1/ping", &[("Cookie", cookie)], "").is(200, "\"admin\":true");
    let submit =
        r##"{"script": "#!/bin/sh\ntrue\n", "job": {"name": "<script>alert(1)</script>"}}"##;
    let with = |origin: Option<&str>| {
        let mut headers = vec![("Cookie", cookie)];
        headers.extend(origin.map(|origin| ("Origin", origin)));
        site.ask("POST", "/api/v1/jobs", &headers, submit)
    };
    for foreign in [None, Some("https://evil.example"), Some("null"), Some("http://127.0.0.1:1")] {
        with(foreign).is(403, "page of this controller");
    }
    with(Some(&own)).is(201, "\"id\":");
    // Text in a name stays text.
    let listed = site.ask("GET", "/api/v1/jobs?all=true", &[("Cookie", cookie)], "");
    listed.is(200, "<script>alert(1)</script>");
    assert_eq!(listed.header("content-type"), Some("application/json"));
    assert_eq!(listed.header("x-content-type-options"), Some("nosniff"));
    let out = [("Cookie", cookie), ("Origin", own.as_str())];
    assert_eq!(site.ask("POST", "/logout", &out, "").status, 204);
    site.ask("GET", "/api/v1/ping", &[("Cookie", cookie)], "").is(401, "not signed in");
}

#[test]
fn a_script_does_by_rest_what_commands_do() {
    let site = Site::start(vec![AgentOptions::node("n1", 4)]);
    let token = site.token("", false);
    let auth = [("Authorization", format!("Bearer {token}"))];
    let auth: Vec<(&str, &str)> = auth.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let work = site.cluster.work().display().to_string();
    let body = format!(
        r##"{{"script": "#!/bin/sh\necho $GREETING\nsleep 300\n", "environment": {{"GREETING": "hi"}},
            "job": {{"name": "r", "work_dir": "{work}", "stdout": "r.out", "memory": "50M"}}}}"##
    );
    let keyed: Vec<_> = auth.iter().copied().chain([("Idempotency-Key", "k1")]).collect();
    let first = site.ask("POST", "/api/v1/jobs", &keyed, &body);
    first.is(201, "\"id\":1");
    assert_eq!(first.header("location"), Some("/api/v1/jobs/1"));
    site.ask("POST", "/api/v1/jobs", &keyed, &body).is(201, "\"id\":1");
    site.cluster.await_state(1, "RUNNING");
    site.cluster.await_text("r.out", "hi");
    assert_eq!(site.cluster.squeue("-h -o %i,%j"), "1,r\n");
    // An answer that the client has is not sent again.
    let listed = site.ask("GET", "/api/v1/partitions", &auth, "");
    let tag = listed.is(200, "\"main\"").header("etag").expect("a tag").to_owned();
    let again: Vec<_> = auth.iter().copied().chain([("If-None-Match", tag.as_str())]).collect();
    assert_eq!(site.ask("GET", "/api/v1/partitions", &again, "").status, 304);
    // slurmrestd's shape is that of the command.
    let rest = site.ask("GET", "/slurm/v0.0.40/job/1", &auth, "");
    rest.is(200, "\"job_state\": [");
    site.ask("GET", "/slurm/v0.0.40/job/77", &auth, "").is(404, "\"error_number\":2017");
    let held = site.ask("POST", "/api/v1/jobs/77/hold", &auth, "");
    held.is(404, "\"kind\":\"InvalidJobId\"");
    let update = r#"{"comment": "by rest"}"#;
    assert_eq!(site.ask("PATCH", "/api/v1/jobs/1", &auth, update).status, 204);
    assert!(site.cluster.scontrol("show job 1").contains("Comment=by rest"));
    let drain = r#"{"action": "drain", "reason": "by rest"}"#;
    assert_eq!(site.ask("PATCH", "/api/v1/nodes/n1", &auth, drain).status, 204);
    site.cluster.await_node("n1", &["MIXED+DRAIN"]);
    assert_eq!(site.ask("DELETE", "/api/v1/jobs/1", &auth, "").status, 204);
    assert_eq!(site.cluster.await_end(1).state(), "CANCELLED");
    site.ask("GET", "/metrics", &auth, "")
        .is(200, "penstock_jobs_ended_total{outcome=\"cancelled\"} 1");
}

#[test]
fn everybody_does_only_what_is_theirs() {
    if !root_and_other_user() {
        return;
    }
    let site = Site::start(vec![AgentOptions::node("n1", 2)]);
    let roots = site.cluster.wrap("", "sleep 300").id();
    let token = site.token("", true);
    let ask = |method: &str, path: &str, body: &str| {
        site.ask(method, path, &[("X-SLURM-USER-TOKEN", token.as_str())], body)
    };
    ask("GET", "/api/v1/ping", "").is(200, "\"admin\":false");
    ask("DELETE", &format!("/api/v1/jobs/{roots}"), "").is(403, "AccessDenied");
    ask("GET", &format!("/api/v1/jobs/{roots}/script"), "").is(403, "");
    ask("PATCH", "/api/v1/nodes/n1", r#"{"action": "down", "reason": "x"}"#).is(403, "");
    ask("POST", &format!("/api/v1/jobs/{roots}/suspend"), "").is(403, "");
    site.cluster.cmd("scontrol").words("token username=root").by_nobody().fails();
    // A token that may only look.
    let looks = site.token("readonly username=nobody", false);
    let submit = r##"{"script": "#!/bin/sh\ntrue\n"}"##;
    let read_only = [("X-SLURM-USER-TOKEN", looks.as_str())];
    site.ask("POST", "/api/v1/jobs", &read_only, submit).is(403, "look and change nothing");
    let what_if = r#"{"submit": {"ntasks": 1}}"#;
    site.ask("POST", "/api/v1/what-if", &read_only, what_if).is(200, "rows");
    site.cluster.cmd("scancel").arg(roots.to_string()).ok();
}

#[test]
fn what_is_too_large_or_too_slow_is_refused_and_hurts_nobody() {
    let site = Site::start(Vec::new());
    let token = site.token("", false);
    let auth = [("X-SLURM-USER-TOKEN", token.as_str())];
    let large = format!(r#"{{"script": "{}"}}"#, "x".repeat(10 << 20));
    site.ask("POST", "/api/v1/jobs", &auth, &large).is(413, "MiB");
    for bad in ["{", "[]", r#"{"script": 1}"#, r#"{"script": "x", "more": 1}"#, "\u{0}"] {
        site.ask("POST", "/api/v1/jobs", &auth, bad).is(400, "not understood");
    }
    let form = format!(
        "POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\
         Content-Type: text/plain\r\nX-SLURM-USER-TOKEN: {token}\r\n\r\n{{}}"
    );
    site.raw(form.as_bytes()).is(415, "application/json");
    for query in ["limit=0", "limit=x", "after=z9", "nonsense=1", "limit=99999999999999999999999"] {
        site.get(&format!("/api/v1/jobs?{query}"), &token).is(400, "");
    }
    // Half a head each, and more than there are places: they end by themselves, and others get in.
    let silent: Vec<_> = (0..1_100)
        .filter_map(|_| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, site.port)).ok()?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost:").ok().map(|()| stream)
        })
        .collect();
    site.get("/api/v1/ping", &token).is(200, "\"cluster\"");
    drop(silent);
}

#[test]
fn what_happens_is_heard_and_a_break_costs_nothing() {
    let site = Site::start(vec![AgentOptions::node("n1", 2)]);
    let token = site.token("", false);
    let open = |last: Option<&str>| {
        let mut stream = site.connect();
        let resumed = last.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        let text = format!(
            "GET /api/v1/events?kind=job HTTP/1.1\r\nHost: localhost\r\nX-SLURM-USER-TOKEN: \
             {token}\r\n{resumed}\r\n"
        );
        stream.write_all(text.as_bytes()).expect("sent");
        stream
    };
    // Reads until the text has come; what came before it too.
    let hear = |stream: &mut TcpStream, text: &str| {
        let mut all = String::new();
        let mut part = [0; 4096];
        while !all.contains(text) {
            let count = stream.read(&mut part).expect("within a minute");
            assert_ne!(count, 0, "the stream ended before {text}: {all}");
            all.push_str(&String::from_utf8_lossy(&part[..count]));
        }
        all
    };
    let mut first = open(None);
    hear(&mut first, "text/event-stream");
    let id = site.cluster.wrap("-J one", "true").id();
    let heard = hear(&mut first, "\"state\":\"COMPLETED\"");
    assert!(heard.contains(&format!("\"id\":{id}")), "{heard}");
    let last = heard.lines().rev().find_map(|line| line.strip_prefix("id: ")).expect("numbered");
    drop(first);
    site.cluster.wrap("-J two", "true").id();
    let mut second = open(Some(last));
    let heard = hear(&mut second, "\"name\":\"two\"");
    assert!(!heard.contains("\"name\":\"one\"") && !heard.contains("reset"), "{heard}");
    let mut third = open(Some("1-1"));
    hear(&mut third, "event: reset");
    // The stream ends with the sign-in; a new one is refused at once.
    site.cluster.cmd("scontrol").words("token revoke=all").ok();
    site.get("/api/v1/events", &token).is(401, "revoked");
}
