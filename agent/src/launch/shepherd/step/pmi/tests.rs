use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use penstock_proto::v1;

use super::*;

/// A step of two tasks on each of `nodes` nodes, seen from the first.
fn facts(nodes: u32) -> Facts {
    let step_nodes = (1..=nodes).map(|node| format!("n{node}")).collect();
    let launch = v1::LaunchStep {
        step_nodes,
        step_tasks: vec![2; usize::try_from(nodes).expect("few")],
        ..v1::LaunchStep::default()
    };
    Facts::for_tests(launch, vec![0, 1])
}

struct Task(UnixStream);

impl Task {
    fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
    }

    fn two(&mut self, text: &str) {
        self.say(&format!("{:6}{text}", text.len()));
    }

    fn hear(&mut self) -> String {
        let mut buffer = [0; 4096];
        let length = self.0.read(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    fn hears_nothing(&mut self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let nothing = self.0.read(&mut [0; 16]).is_err();
        self.0.set_nonblocking(false).unwrap();
        nothing
    }
}

fn tasks(server: &mut Server) -> [Task; 2] {
    [0, 1].map(|rank| Task(server.add(rank).unwrap().into()))
}

#[test]
fn a_program_of_pmi_2_finds_its_place_and_its_fellows() {
    let mut server = Server::new(&facts(1));
    let [mut a, mut b] = tasks(&mut server);
    a.say("cmd=init pmi_version=2 pmi_subversion=0\n");
    assert!(server.work().is_empty());
    assert_eq!(a.hear(), "cmd=response_to_init pmi_version=2 pmi_subversion=0 rc=0\n");
    let ask = |task: &mut Task, server: &mut Server, text: &str| {
        task.two(text);
        assert!(server.work().is_empty(), "{text}");
        task.hear()
    };
    let init = ask(&mut a, &mut server, "cmd=fullinit;pmijobid=7.3;pmirank=0;threaded=FALSE;");
    assert!(init.ends_with(
        "cmd=fullinit-response;rc=0;pmi-version=2;pmi-subversion=0;rank=0;size=2;appnum=0;\
         debugged=FALSE;pmiverbose=FALSE;"
    ));
    let map = ask(&mut a, &mut server, "cmd=info-getjobattr;key=PMI_process_mapping;");
    assert!(map.ends_with("rc=0;found=TRUE;value=(vector,(0,1,2));"), "{map}");
    let id = ask(&mut a, &mut server, "cmd=job-getid;thrid=17;");
    assert_eq!(id, "    47cmd=job-getid-response;thrid=17;rc=0;jobid=7.3;");
    let put = ask(&mut a, &mut server, "cmd=kvs-put;key=card;value=tcp;;host a;");
    assert!(put.contains("cmd=kvs-put-response;rc=0;"), "{put}");
    let none = ask(&mut a, &mut server, "cmd=kvs-get;jobid=7.3;srcid=-1;key=other;");
    assert!(none.ends_with("rc=0;found=FALSE;"), "{none}");
    a.two("cmd=kvs-fence;");
    assert!(server.work().is_empty());
    assert!(a.hears_nothing(), "the other is not there");
    b.say("cmd=init pmi_version=2 pmi_subversion=0\n");
    b.two("cmd=kvs-fence;");
    assert!(server.work().is_empty());
    assert!(a.hear().ends_with("cmd=kvs-fence-response;rc=0;"));
    assert!(b.hear().ends_with("cmd=kvs-fence-response;rc=0;"));
    let got = ask(&mut b, &mut server, "cmd=kvs-get;jobid=7.3;srcid=0;key=card;");
    assert!(got.ends_with("found=TRUE;value=tcp;;host a;"), "{got}");
    let spawn = ask(&mut b, &mut server, "cmd=spawn;ncmds=1;");
    assert!(spawn.contains("cmd=spawn-response;rc=1;"), "{spawn}");
    let end = ask(&mut b, &mut server, "cmd=finalize;");
    assert!(end.ends_with("cmd=finalize-response;rc=0;"), "{end}");
}

#[test]
fn a_program_of_pmi_1_does_too() {
    let mut server = Server::new(&facts(1));
    let [mut a, mut b] = tasks(&mut server);
    for (ask, answer) in [
        (
            "init pmi_version=1 pmi_subversion=1",
            "response_to_init pmi_version=1 pmi_subversion=1 rc=0",
        ),
        ("get_maxes", "maxes rc=0 kvsname_max=256 keylen_max=256 vallen_max=1024"),
        ("get_my_kvsname", "my_kvsname rc=0 kvsname=7.3"),
        ("get_universe_size", "universe_size rc=0 size=2"),
        ("put kvsname=7.3 key=P0 value=here", "put_result rc=0 msg=success"),
        ("get kvsname=7.3 key=P1", "get_result rc=-1 msg=key_P1_not_found value=unknown"),
    ] {
        a.say(&format!("cmd={ask}\n"));
        assert!(server.work().is_empty());
        assert_eq!(a.hear(), format!("cmd={answer}\n"));
    }
    a.say("cmd=barrier_in\n");
    b.say("cmd=barrier_in\ncmd=get kvsname=7.3 key=P0\n");
    assert!(server.work().is_empty());
    assert_eq!(a.hear(), "cmd=barrier_out rc=0\n");
    assert_eq!(b.hear(), "cmd=get_result rc=0 msg=success value=here\ncmd=barrier_out rc=0\n");
    a.say("mcmd=spawn\nnprocs=1\nendcmd\ncmd=finalize\n");
    assert!(server.work().is_empty());
    let said = a.hear();
    assert!(said.starts_with("cmd=spawn_result rc=1") && said.ends_with("cmd=finalize_ack rc=0\n"));
}

#[test]
fn at_a_fence_of_several_nodes_srun_is_asked_and_those_that_ended_are_not_waited_for() {
    let mut server = Server::new(&facts(2));
    let [mut a, b] = tasks(&mut server);
    a.say("cmd=init pmi_version=2 pmi_subversion=0\n");
    a.two("cmd=kvs-put;key=k;value=v;");
    a.two("cmd=kvs-fence;");
    assert!(server.work().is_empty());
    a.hear();
    drop(b);
    let body = encode([("k", "v")]);
    assert_eq!(server.work(), [Happened::Fence(body.clone())]);
    assert_eq!(server.work(), [], "once");
    assert!(a.hears_nothing());
    let union = [body, encode([("far", "away")])].concat();
    server.answer_fence(union.into()).unwrap();
    assert!(a.hear().ends_with("cmd=kvs-fence-response;rc=0;"));
    a.two("cmd=kvs-get;key=far;");
    assert!(server.work().is_empty());
    assert!(a.hear().ends_with("found=TRUE;value=away;"));
    a.two("cmd=kvs-fence;");
    assert_eq!(server.work(), [Happened::Fence(Bytes::new())]);
    assert!(server.answer_fence(Bytes::from_static(b"broken")).is_err());
}

#[test]
fn values_of_a_node_are_waited_for_where_that_is_wanted() {
    let mut server = Server::new(&facts(1));
    let [mut a, mut b] = tasks(&mut server);
    for task in [&mut a, &mut b] {
        task.say("cmd=init pmi_version=2 pmi_subversion=0\n");
    }
    server.work();
    a.hear();
    b.hear();
    a.two("cmd=info-getnodeattr;key=port;wait=TRUE;");
    b.two("cmd=info-getnodeattr;key=port;wait=FALSE;");
    server.work();
    assert!(a.hears_nothing());
    assert!(b.hear().ends_with("rc=0;found=FALSE;"));
    b.two("cmd=info-putnodeattr;key=port;value=9;");
    server.work();
    assert!(b.hear().ends_with("cmd=info-putnodeattr-response;rc=0;"));
    assert!(a.hear().ends_with("rc=0;found=TRUE;value=9;"));
}

#[test]
fn an_abort_is_told_and_nonsense_costs_the_socket() {
    let mut server = Server::new(&facts(1));
    let [mut a, mut b] = tasks(&mut server);
    a.say("cmd=abort exitcode=3\n");
    let abort = Happened::Abort { rank: 0, code: 3, message: String::new() };
    assert_eq!(server.work(), [abort]);
    b.say("cmd=init pmi_version=2 pmi_subversion=0\nnonsense");
    assert!(server.work().is_empty());
    assert_eq!(b.hear(), "", "it was hung up on");
    let too_long = "v".repeat(MAX_VALUE + 1);
    a.say(&format!("cmd=put key=k value={}\n", &too_long[..60_000]));
    server.work();
    assert_eq!(a.hear(), "cmd=put_result rc=0 msg=success\n");
}
