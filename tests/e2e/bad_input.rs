//! Do the daemons live on and serve, whatever is sent to them?

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use penstock_proto::v1;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::harness::{
    Cluster, Options, PATIENCE, as_nobody, block_on, root_and_other_user, rpc_at, wait_until,
};

/// The first bytes of every HTTP/2 connection.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame of HTTP/2: length, type, flags, stream.
fn frame(length: u32, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// What no daemon should ever get.
fn rubbish() -> Vec<(&'static str, Vec<u8>)> {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut bytes = vec![0_u8; 100_000];
    random.fill(&mut bytes[..]);
    let with_preface = |frames: &[Vec<u8>]| [PREFACE, &frames.concat()].concat();
    let settings = frame(0, 4, 0, 0, &[]);
    let flood = vec![frame(8, 6, 0, 0, &[0; 8]); 20_000];
    vec![
        ("random bytes", bytes.clone()),
        ("nothing", Vec::new()),
        ("HTTP/1", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("half a preface", PREFACE[..10].to_vec()),
        ("random frames", with_preface(&[bytes[..4_000].to_vec()])),
        (
            "a frame of 16 MiB",
            with_preface(&[settings.clone(), frame(0xff_ffff, 0, 0, 1, &[0; 64])]),
        ),
        (
            "headers that are none",
            with_preface(&[settings.clone(), frame(64, 1, 4, 1, &[0xff; 64])]),
        ),
        ("data on no stream", with_preface(&[settings.clone(), frame(4, 0, 0, 9, &[0; 4])])),
        ("a flood of pings", with_preface(&[settings, flood.concat()])),
        ("the begin of a TLS handshake", [&[22_u8, 3, 1, 0, 200, 1][..], &bytes[..100]].concat()),
    ]
}

fn send_rubbish(what: &str, mut stream: impl Read + Write) {
    for (name, bytes) in rubbish() {
        if name != what {
            continue;
        }
        // The daemon may hang up at any byte; whether it is well afterwards is what counts.
        stream.write_all(&bytes).ok();
        stream.flush().ok();
        let mut answer = [0; 4_096];
        while stream.read(&mut answer).is_ok_and(|got| got == answer.len()) {}
    }
}

fn unix(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    stream.set_write_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    stream
}

fn tcp(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    stream.set_write_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    stream
}

/// Both daemons live, are the same as before, and do their work.
#[track_caller]
fn assert_well(cluster: &mut Cluster, what: &str) {
    assert!(cluster.controller.as_mut().is_some_and(|daemon| daemon.lives()), "{what}");
    assert!(cluster.agent(0).lives(), "{what}");
    let ran = cluster.serves();
    assert_eq!(ran.code, 0, "after {what}: {ran}");
    let ran = cluster.via("n1", "squeue").run();
    assert_eq!(ran.code, 0, "after {what}: {ran}");
}

#[test]
fn rubbish_on_any_socket_harms_nobody() {
    let mut cluster = Cluster::start(Options::one_node(2));
    for (name, _) in rubbish() {
        send_rubbish(name, unix(&cluster.socket()));
        send_rubbish(name, unix(&cluster.gate("n1")));
        send_rubbish(name, tcp(&cluster.address()));
        assert_well(&mut cluster, name);
    }
    assert_eq!(cluster.registrations("n1"), 1, "the agent kept its stream");
    let id = cluster.wrap("-W", "true").id();
    assert_eq!(cluster.job(id).state(), "COMPLETED");
}

#[test]
fn clients_that_connect_and_hang_hold_nobody_up() {
    let mut cluster = Cluster::start(Options::one_node(2));
    let silent: Vec<UnixStream> = (0..100).map(|_| unix(&cluster.socket())).collect();
    let gate: Vec<UnixStream> =
        (0..100).map_while(|_| UnixStream::connect(cluster.gate("n1")).ok()).collect();
    let remote: Vec<TcpStream> = (0..100).map(|_| tcp(&cluster.address())).collect();
    assert_well(&mut cluster, "300 silent clients");
    let id = cluster.wrap("-W", "true").id();
    assert_eq!(cluster.job(id).state(), "COMPLETED");
    drop((silent, gate, remote));
    assert_well(&mut cluster, "300 clients that left");
}

#[test]
fn requests_beyond_the_limits_are_refused() {
    let mut cluster = Cluster::start(Options::one_node(2));
    let huge = v1::SubmitJobRequest {
        script: [b"#!/bin/sh\n".to_vec(), vec![b' '; 20 << 20]].concat().into(),
        ..v1::SubmitJobRequest::default()
    };
    let large = v1::SubmitJobRequest {
        script: [b"#!/bin/sh\n".to_vec(), vec![b' '; 5 << 20]].concat().into(),
        ..huge.clone()
    };
    let deep = v1::SubmitJobRequest {
        spec: Some(v1::JobSpec { name: "x".repeat(1 << 20), ..v1::JobSpec::default() }),
        script: b"#!/bin/sh\n".to_vec().into(),
        ..huge.clone()
    };
    for socket in [cluster.socket(), cluster.gate("n1")] {
        for request in [&huge, &large, &deep] {
            let answer = block_on(async {
                rpc_at(&socket).await.submit_job(request.clone()).await.map(|_| ())
            });
            answer.expect_err("too large");
        }
    }
    let many = v1::SubmitJobsRequest {
        specs: vec![v1::JobSpec::default(); 1_001],
        script: b"#!/bin/sh\n".to_vec().into(),
        ..v1::SubmitJobsRequest::default()
    };
    block_on(async { rpc_at(&cluster.socket()).await.submit_jobs(many).await.map(|_| ()) })
        .expect_err("too many");
    assert_well(&mut cluster, "large requests");
    let text = format!("#!/bin/sh\n{}", "# x\n".repeat(2 << 20));
    let ran = cluster.cmd("sbatch").stdin(text).fails();
    assert!(!ran.err.is_empty(), "{ran}");
    for words in
        ["-n 4294967295", "-N 1-4294967295", "--mem 99999999T", "-a 0-4294967295", "-t 99999999999"]
    {
        let ran = cluster.wrap(words, "true").run();
        assert!([0, 1, 255].contains(&ran.code), "{ran}");
    }
    assert_well(&mut cluster, "absurd numbers");
}

#[test]
fn a_second_agent_in_the_same_folder_is_refused() {
    let cluster = Cluster::start(Options::one_node(2));
    let mut second = cluster.spawn_agent(&cluster.bin("penstock"), "n1");
    assert!(!second.ended().success());
    let log = cluster.agent_log("n1");
    assert!(log.contains("another agent runs with state_dir"), "{log}");
    assert_eq!(cluster.via("n1", "squeue").run().code, 0, "the first still serves");
    assert_eq!(cluster.registrations("n1"), 1);
}

#[test]
fn two_agents_with_one_identity_take_turns_and_it_is_said() {
    let mut cluster = Cluster::start(Options::one_node(2));
    let twin = cluster.dir().join("twin");
    fs::create_dir_all(twin.join("state").join("identity")).expect("new");
    for name in ["agent.toml", "state/identity/host.key", "state/identity/membership.pem"] {
        fs::copy(cluster.dir().join("n1").join(name), twin.join(name)).expect("there");
    }
    let mut second = cluster.spawn_agent(&cluster.bin("penstock"), "twin");
    let log = cluster.dir().join("controller.log");
    wait_until("the controller says that one took the other's place", PATIENCE, || {
        fs::read_to_string(&log).unwrap_or_default().contains("a newer stream took its place")
    });
    second.kill();
    cluster.await_node("n1", &["IDLE"]);
    let id = cluster.wrap("-W", "true").id();
    assert_eq!(cluster.job(id).state(), "COMPLETED");
    assert!(cluster.agent(0).lives());
}

#[test]
fn one_user_cannot_take_all_connections_of_the_controller() {
    if !root_and_other_user() {
        return;
    }
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("known");
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit");
    }
    if hard < 4_096 {
        println!("skipped: this process may open {hard} files only");
        return;
    }
    let mut cluster = Cluster::start(Options::one_node(2));
    let held = as_nobody({
        let socket = cluster.socket();
        move || {
            let connections: Vec<UnixStream> = (0..1_100).map(|_| unix(&socket)).collect();
            let last = connections.last().expect("some");
            last.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            let read = (&*last).read(&mut [0; 1]);
            assert!(matches!(read, Ok(0) | Err(_)), "the last is hung up");
            connections
        }
    });
    assert_well(&mut cluster, "a user with very many connections");
    cluster.cmd("squeue").by_nobody().env("PENSTOCK_SOCKET", cluster.gate("n1")).ok();
    drop(held);
    wait_until("the user is served again", PATIENCE, || {
        cluster.cmd("squeue").by_nobody().run().code == 0
    });
}
