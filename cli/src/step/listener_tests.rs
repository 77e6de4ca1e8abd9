use penstock_proto::step_io::{read_frame, write_frame};
use penstock_proto::v1::step_frame::{Finished, Proof, Setup};

use super::*;

fn expected() -> Expected {
    Expected {
        job_id: 5,
        step: 0,
        nodes: vec!["n1".into(), "n2".into()],
        setup: encode_frame(Frame::Setup(Setup { umask: 0o22, ..Setup::default() })).into(),
    }
}

fn hello(node: &str) -> Hello {
    Hello {
        job_id: 5,
        step: 0,
        node: node.to_owned(),
        nonce: vec![1; 32].into(),
        version: STEP_IO_VERSION,
    }
}

/// A shepherd that knows this secret; what it is told to run, if it is let in.
fn dial(port: u16, secret: &[u8], hello: Hello) -> Option<(std::net::TcpStream, Setup)> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("connected");
    write_frame(&mut stream, Frame::Hello(hello.clone())).expect("sent");
    let Ok(Some(Frame::Challenge(challenge))) = read_frame(&mut stream) else { return None };
    let proof = proof(secret, Prover::Shepherd, &hello, &challenge.nonce);
    write_frame(&mut stream, Frame::Proof(Proof { proof })).expect("sent");
    match read_frame(&mut stream) {
        Ok(Some(Frame::Setup(setup))) => Some((stream, setup)),
        _ => None,
    }
}

#[tokio::test]
async fn a_shepherd_is_let_in_and_heard() {
    let listener = Listener::open(None).await.expect("a free port");
    assert!(listener.addresses.iter().any(|address| address == "127.0.0.1"));
    let (port, secret) = (listener.port, listener.secret.clone());
    let (_tasks, mut events) = listener.serve(expected());
    let shepherd = std::thread::spawn(move || {
        let (mut stream, setup) = dial(port, &secret, hello("n2")).expect("let in");
        write_frame(&mut stream, Frame::Finished(Finished {})).expect("sent");
        let told = read_frame(&mut stream).expect("read");
        (setup.umask, told)
    });
    let Some(Event::Connected(1, link)) = events.recv().await else { panic!("not connected") };
    link.send(encode_frame(Frame::Finished(Finished {})).into()).await.expect("open");
    let Some(Event::Frame(1, frame)) = events.recv().await else { panic!("no frame") };
    assert_eq!(*frame, Frame::Finished(Finished {}));
    assert!(matches!(events.recv().await, Some(Event::Closed(1, _))));
    let (umask, told) = shepherd.join().expect("no panic");
    assert_eq!((umask, told), (0o22, Some(Frame::Finished(Finished {}))));
}

#[tokio::test]
async fn strangers_learn_nothing() {
    let listener = Listener::open(None).await.expect("a free port");
    let (port, secret) = (listener.port, listener.secret.clone());
    let (_tasks, _events) = listener.serve(expected());
    let tried = tokio::task::spawn_blocking(move || {
        let wrong = [
            (vec![0; 32], hello("n1")),
            (secret.to_vec(), hello("n3")),
            (secret.to_vec(), Hello { job_id: 6, ..hello("n1") }),
            (secret.to_vec(), Hello { step: 1, ..hello("n1") }),
            (secret.to_vec(), Hello { version: 99, ..hello("n1") }),
        ];
        wrong.map(|(secret, hello)| dial(port, &secret, hello).is_none())
    });
    assert_eq!(tried.await.expect("no panic"), [true; 5]);
}

#[tokio::test]
async fn a_port_of_the_range_is_taken() {
    let first = Listener::open(Some((46_000, 46_999))).await.expect("a free port");
    assert!((46_000..=46_999).contains(&first.port));
    let taken = Listener::open(Some((first.port, first.port))).await;
    assert!(taken.is_err(), "it is in use");
}
