//! Who may be a host of the cluster, and what may a host say?

use std::fs;

use penstock_proto::v1;
use penstock_proto::v1::agent_link_client::AgentLinkClient;
use penstock_proto::v1::penstock_client::PenstockClient;
use penstock_proto::{GID_HEADER, UID_HEADER};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request};

use crate::harness::{
    AgentOptions, Cluster, Options, PATIENCE, block_on, held_request, is_root, root_and_other_user,
    wait_until,
};

/// Starts an agent that is not in the options, with this token; it is one too many or will not join.
fn start_extra(cluster: &Cluster, name: &str, token: &str) -> crate::harness::Daemon {
    cluster.write_agent(&AgentOptions::node(name, 2), token);
    cluster.spawn_agent(&cluster.bin("penstock"), name)
}

fn await_log(cluster: &Cluster, name: &str, text: &str) {
    wait_until(format!("the agent {name} says {text:?}"), PATIENCE, || {
        cluster.agent_log(name).contains(text)
    });
}

#[test]
fn a_token_of_another_cluster_lets_nobody_in() {
    let ours = Cluster::start(Options::controller_only());
    let theirs = Cluster::start(Options::controller_only());
    let mut agent = start_extra(&ours, "n1", &theirs.token("compute"));
    await_log(&ours, "n1", "is not the one that made the token");
    assert_eq!(ours.node_state("n1"), "");
    agent.kill();
}

#[test]
fn a_token_is_good_for_its_uses_its_time_and_its_secret() {
    let cluster = Cluster::start(Options::controller_only());
    let token = cluster.token("compute");
    let mut first = start_extra(&cluster, "n1", &token);
    cluster.await_node("n1", &["IDLE"]);
    let mut second = start_extra(&cluster, "n2", &token);
    await_log(&cluster, "n2", "the join token is not valid");

    let short = cluster.penstock("token create --valid 1s").ok();
    let id = short.split('.').nth(1).expect("pst1.ID.SECRET.CA").to_owned();
    wait_until("the token is not listed any more", PATIENCE, || {
        !cluster.penstock("host list").ok().contains(&id)
    });
    let mut third = start_extra(&cluster, "n3", short.trim());
    await_log(&cluster, "n3", "the join token is not valid");

    let whole = cluster.token("compute");
    let mut parts: Vec<String> = whole.split('.').map(str::to_owned).collect();
    parts[2] = "0".repeat(parts[2].len());
    let mut fourth = start_extra(&cluster, "n4", &parts.join("."));
    await_log(&cluster, "n4", "the join token is not valid");
    for agent in [&mut first, &mut second, &mut third, &mut fourth] {
        assert!(agent.lives(), "an agent that may not join yet goes on trying");
        agent.kill();
    }
    assert_eq!(cluster.cmd("sinfo").words("-h -N -o %N").ok(), "n1\n");
}

#[test]
fn a_login_token_makes_no_node() {
    let cluster = Cluster::start(Options::controller_only());
    let mut agent = start_extra(&cluster, "n1", &cluster.token("login"));
    await_log(&cluster, "n1", "the join token made this a login host, which runs no jobs");
    wait_until("the gate answers", PATIENCE, || {
        cluster.via("n1", "scontrol").arg("ping").run().code == 0
    });
    assert_eq!(cluster.cmd("sinfo").words("-h -N -o %N").ok(), "");
    let log = cluster.agent_log("n1");
    assert_eq!(log.matches("runs no jobs").count(), 1, "it is said once:\n{log}");
    agent.kill();
}

#[test]
fn a_host_name_belongs_to_its_first_key() {
    let cluster = Cluster::start(Options::one_node(2));
    let id = cluster.wrap("", "sleep 300").id();
    cluster.await_state(id, "RUNNING");
    let token = cluster.token("compute");
    // The same name in another folder is another key.
    let dir = cluster.dir().join("imposter");
    fs::create_dir(&dir).expect("new");
    let file = fs::read_to_string(cluster.dir().join("n1").join("agent.toml")).expect("there");
    let lines = file.lines().map(|line| {
        if line.starts_with("token") { format!("token = {token:?}") } else { line.to_owned() }
    });
    fs::write(dir.join("agent.toml"), lines.collect::<Vec<_>>().join("\n")).expect("written");
    let mut imposter = cluster.spawn_agent(&cluster.bin("penstock"), "imposter");
    await_log(&cluster, "imposter", "belongs to another key");
    await_log(&cluster, "imposter", "penstock host reset n1");
    assert_eq!((cluster.node_state("n1").as_str(), cluster.job(id).state()), ("MIXED", "RUNNING"));
    imposter.kill();
}

#[test]
fn a_revoked_host_is_cut_at_once_and_may_join_anew_after_a_reset() {
    let mut cluster = Cluster::start(Options::one_node(2));
    cluster.via("n1", "scontrol").arg("ping").ok();
    cluster.penstock("host revoke n1").ok();
    cluster.await_node("n1", &["IDLE+NOT_RESPONDING", "DOWN+NOT_RESPONDING"]);
    let ran = cluster.via("n1", "squeue").fails();
    ran.says("revoked");
    await_log(&cluster, "n1", "revoked");
    assert!(cluster.penstock("host list").ok().contains("revoked"));
    let waits = cluster.wrap("", "true").id();
    cluster.kill_agent(0);
    cluster.penstock("host reset n1").ok();
    let token = cluster.token("compute");
    cluster.write_agent(&AgentOptions::node("n1", 2), &token);
    fs::remove_dir_all(cluster.dir().join("n1/state/identity")).expect("there");
    cluster.restart_agent(0, None);
    cluster.await_node("n1", &["IDLE", "MIXED"]);
    assert_eq!(cluster.await_end(waits).state(), "COMPLETED");
}

#[test]
fn hosts_speak_only_for_whom_they_may() {
    if !is_root() {
        println!("skipped: not root");
        return;
    }
    let cluster = Cluster::start(Options::nodes(2, 2).and(AgentOptions::login("login1")));
    // A compute host speaks for users with a job there, and for its own root about itself.
    let ran = cluster.via("n1", "sbatch").words("--wrap true").fails();
    ran.says("has no job on compute host n1");
    cluster.via("n1", "squeue").ok();
    let roots = cluster.wrap("-w n2", "sleep 300").id();
    cluster.await_state(roots, "RUNNING");
    cluster.via("n1", "scancel").arg(roots.to_string()).fails();
    cluster.via("n2", "sbatch").words("-H --wrap true").ok();
    let drain = |host: &str, node: &str| {
        let words = format!("update NodeName={node} State=DRAIN Reason=test");
        cluster.via(host, "scontrol").words(&words).run()
    };
    let said = drain("n1", "n2");
    assert!(said.code != 0 && said.err.contains("not node n2"), "{said}");
    // A login host speaks for all its users, and never for an admin.
    let said = drain("login1", "n1");
    assert!(said.code != 0 && said.err.contains("login host login1 may not"), "{said}");
    assert_eq!(cluster.node_state("n1"), "IDLE");
    assert_eq!(drain("n1", "n1").code, 0);
    assert_eq!(cluster.node_state("n1"), "IDLE+DRAIN");
    cluster.via("login1", "sbatch").words("-H --wrap true").ok();
    cluster.via("login1", "penstock").words("token create").fails().says("login host login1");
    if root_and_other_user() {
        let id =
            cluster.via("login1", "sbatch").words("--parsable --wrap").arg("id -u").by_nobody();
        let id = id.id();
        assert_eq!(cluster.await_end(id).get("UserId"), "nobody(65534)");
        let ran = cluster.via("login1", "scancel").arg(roots.to_string()).by_nobody().fails();
        ran.says("denied");
        // Root of a login host is an ordinary user.
        let own = cluster.via("login1", "sbatch").words("--parsable -H --wrap true").by_nobody();
        let own = own.id();
        cluster.via("login1", "scancel").arg(own.to_string()).fails().says("denied");
    }
}

/// The two certificates of a host, its own and its CA's, and its key, as a thief would take them.
fn stolen(cluster: &Cluster, host: &str) -> (String, String, String) {
    let dir = cluster.dir().join(host).join("state").join("identity");
    let membership = fs::read_to_string(dir.join("membership.pem")).expect("it has joined");
    let key = fs::read_to_string(dir.join("host.key")).expect("it has joined");
    let begin = "-----BEGIN CERTIFICATE-----";
    let parts: Vec<&str> = membership.split(begin).skip(1).collect();
    let pem = |part: &str| format!("{begin}{part}");
    (pem(parts[0]), pem(parts[1]), key)
}

/// A connection to the controller's port, with an identity or without.
async fn dial(
    cluster: &Cluster,
    ca: &str,
    identity: Option<(&str, &str)>,
) -> Result<Channel, tonic::transport::Error> {
    let tls = ClientTlsConfig::new().domain_name("penstock-controller");
    let mut tls = tls.ca_certificate(Certificate::from_pem(ca));
    if let Some((certificate, key)) = identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    let address = format!("https://{}", cluster.address());
    Endpoint::from_shared(address).expect("an address").tls_config(tls)?.connect().await
}

/// A request that says for whom it is.
fn said_by<T>(uid: u32, message: T) -> Request<T> {
    let mut request = Request::new(message);
    for name in [UID_HEADER, GID_HEADER] {
        let value = uid.to_string().parse().expect("ASCII");
        request.metadata_mut().insert(name, value);
    }
    request
}

#[test]
fn a_stolen_node_speaks_for_nobody_who_has_no_job_there() {
    let cluster = Cluster::start(Options::nodes(2, 2));
    let (certificate, ca, key) = stolen(&cluster, "n1");
    block_on(async {
        let channel = dial(&cluster, &ca, Some((&certificate, &key))).await.expect("a host");
        let mut rpc = PenstockClient::new(channel.clone());
        let reply = rpc.ping(said_by(0, v1::PingRequest {})).await.expect("a reader").into_inner();
        assert_eq!((reply.uid, reply.admin), (0, false));
        let silent = rpc.ping(v1::PingRequest {}).await.expect_err("for whom?");
        assert_eq!(silent.code(), Code::Unauthenticated, "{silent}");
        for uid in [0, 1_000, 65_534] {
            let refused = rpc.submit_job(said_by(uid, held_request(&cluster))).await;
            let refused = refused.expect_err("no job there");
            assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        }
        let drain = v1::UpdateNodeRequest {
            request_id: rand::random::<[u8; 16]>().to_vec().into(),
            nodes: "n2".to_owned(),
            action: v1::NodeAction::Drain.into(),
            reason: "mine".to_owned(),
            ..v1::UpdateNodeRequest::default()
        };
        let refused = rpc.update_node(said_by(0, drain)).await.expect_err("not its node");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        let token = v1::CreateTokenRequest { uses: 1, valid_secs: 60, ..<_>::default() };
        let refused = rpc.create_token(said_by(0, token)).await.expect_err("no admin");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");

        // Nor is it another node.
        let register = v1::Register { node: "n2".to_owned(), ..v1::Register::default() };
        let body = Some(v1::agent_message::Body::Register(register));
        let message = v1::AgentMessage { session: 0, body };
        let mut link = AgentLinkClient::new(channel);
        let refused = link.attach(tokio_stream::iter([message])).await.expect_err("not its name");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    });
    assert_eq!(cluster.node_state("n2"), "IDLE");
    assert_eq!(cluster.registrations("n2"), 1);
}

#[test]
fn without_a_key_of_this_cluster_the_port_does_nothing() {
    let ours = Cluster::start(Options::one_node(1));
    let theirs = Cluster::start(Options::one_node(1));
    let (certificate, _, key) = stolen(&theirs, "n1");
    let (_, ca, _) = stolen(&ours, "n1");
    block_on(async {
        let nameless = dial(&ours, &ca, None).await.expect("joining needs no certificate");
        let mut rpc = PenstockClient::new(nameless.clone());
        let refused = rpc.ping(said_by(0, v1::PingRequest {})).await.expect_err("nobody");
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
        let refused = rpc.submit_job(said_by(0, held_request(&ours))).await.expect_err("nobody");
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
        let mut link = AgentLinkClient::new(nameless);
        let refused = link.attach(tokio_stream::iter([])).await.expect_err("nobody");
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");

        // The handshake may break, or the first call; nothing is answered.
        if let Ok(channel) = dial(&ours, &ca, Some((&certificate, &key))).await {
            let mut rpc = PenstockClient::new(channel);
            rpc.ping(said_by(0, v1::PingRequest {})).await.expect_err("a stranger");
        }
    });
    assert_eq!(ours.squeue(""), "");
}
