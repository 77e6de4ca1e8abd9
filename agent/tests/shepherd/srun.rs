//! What srun is to a shepherd: somebody who listens, proves that it knows the secret, and speaks frames.

use std::collections::BTreeMap;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use penstock_proto::step_io::{
    FrameBuffer, Prover, STEP_SECRET_BYTES, is_proof, proof, read_frame, write_frame,
};
use penstock_proto::v1;
use penstock_proto::v1::step_frame::{Challenge, Frame, InputData, Setup, TaskSignal};

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Secret of all steps here.
pub(crate) const SECRET: [u8; STEP_SECRET_BYTES] = [7; STEP_SECRET_BYTES];

/// One who listens.
pub(crate) struct Srun {
    listener: TcpListener,
}

impl Srun {
    pub(crate) fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    pub(crate) fn port(&self) -> u32 {
        self.listener.local_addr().unwrap().port().into()
    }

    /// The next shepherd that calls, after both have proven who they are.
    pub(crate) fn answer(&self) -> Call {
        let (mut stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let Some(Frame::Hello(hello)) = read_frame(&mut stream).unwrap() else {
            panic!("no hello")
        };
        let nonce = b"a nonce of thirty-two bytes or so".to_vec();
        let mine = proof(&SECRET, Prover::Srun, &hello, &nonce);
        let challenge = Challenge { nonce: nonce.clone().into(), proof: mine };
        write_frame(&mut stream, Frame::Challenge(challenge)).unwrap();
        let Some(Frame::Proof(theirs)) = read_frame(&mut stream).unwrap() else {
            panic!("no proof")
        };
        assert!(is_proof(&SECRET, Prover::Shepherd, &hello, &nonce, &theirs.proof));
        Call { stream, hello, heard: Heard::default(), frames: FrameBuffer::default() }
    }

    /// Whether the next shepherd that calls proves that it knows the secret, once this side has.
    pub(crate) fn is_answered_with_proof(&self) -> bool {
        let (mut stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let Some(Frame::Hello(hello)) = read_frame(&mut stream).unwrap() else {
            panic!("no hello")
        };
        let (nonce, proof) = (vec![1; 32].into(), proof(&SECRET, Prover::Srun, &hello, &[1; 32]));
        write_frame(&mut stream, Frame::Challenge(Challenge { nonce, proof })).unwrap();
        matches!(read_frame(&mut stream), Ok(Some(_)))
    }

    /// Answers, and says what to run.
    pub(crate) fn run(&self, setup: Setup) -> Call {
        let mut call = self.answer();
        call.say(Frame::Setup(setup));
        call
    }
}

/// Everything that came over one connection.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) pids: Option<Vec<u32>>,
    pub(crate) error: String,
    pub(crate) stdout: BTreeMap<u32, Vec<u8>>,
    pub(crate) stderr: BTreeMap<u32, Vec<u8>>,
    pub(crate) ended: usize,
    pub(crate) exits: BTreeMap<u32, i32>,
    pub(crate) credit: u64,
    pub(crate) notes: Vec<String>,
    pub(crate) out_of_memory: bool,
    pub(crate) finished: bool,
    /// What a node's tasks put before a fence of PMI.
    pub(crate) fence: Option<bytes::Bytes>,
}

impl Heard {
    /// What a task said, as text.
    pub(crate) fn said(&self, task: u32) -> String {
        String::from_utf8_lossy(self.stdout.get(&task).map_or(&[], Vec::as_slice)).into_owned()
    }

    pub(crate) fn complained(&self, task: u32) -> String {
        String::from_utf8_lossy(self.stderr.get(&task).map_or(&[], Vec::as_slice)).into_owned()
    }

    fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Started(started) => {
                self.error = started.error;
                self.pids = Some(started.pids);
            }
            Frame::Output(output) => {
                let all = if output.stderr { &mut self.stderr } else { &mut self.stdout };
                all.entry(output.task).or_default().extend_from_slice(&output.data);
                self.ended += usize::from(output.end);
            }
            Frame::Exited(exited) => {
                self.out_of_memory |= exited.out_of_memory;
                self.exits.insert(exited.task, exited.wait_status);
            }
            Frame::Credit(credit) => self.credit += u64::from(credit.bytes),
            Frame::Note(note) => self.notes.push(note.text),
            Frame::Finished(_) => self.finished = true,
            Frame::Pmi(message) if message.kind == penstock_proto::pmi::FENCE => {
                self.fence = Some(message.body);
            }
            other => panic!("no frame of a shepherd: {other:?}"),
        }
    }
}

/// One connection.
pub(crate) struct Call {
    pub(crate) stream: TcpStream,
    pub(crate) hello: v1::step_frame::Hello,
    pub(crate) heard: Heard,
    frames: FrameBuffer,
}

impl Call {
    pub(crate) fn say(&mut self, frame: Frame) {
        write_frame(&mut self.stream, frame).unwrap();
    }

    pub(crate) fn input(&mut self, task: Option<u32>, data: &str, end: bool) {
        let data = data.as_bytes().to_vec().into();
        self.say(Frame::Input(InputData { task, data, end }));
    }

    pub(crate) fn signal(&mut self, signal: u32, task: Option<u32>) {
        self.say(Frame::Signal(TaskSignal { signal, task }));
    }

    /// Hears more until `wanted` holds.
    pub(crate) fn until(&mut self, what: &str, wanted: impl Fn(&Heard) -> bool) {
        let began = Instant::now();
        let mut buffer = [0; 64 << 10];
        while !wanted(&self.heard) {
            assert!(began.elapsed() < PATIENCE, "waited in vain for {what}: {:?}", self.heard);
            match io::Read::read(&mut self.stream, &mut buffer) {
                Ok(0) => panic!("the shepherd hung up before {what}: {:?}", self.heard),
                Ok(length) => self.frames.push(&buffer[..length]),
                Err(error) => panic!("{error} while waiting for {what}: {:?}", self.heard),
            }
            while let Some(frame) = self.frames.next_frame().unwrap() {
                self.heard.take(frame);
            }
        }
    }

    /// Hears everything to the end.
    pub(crate) fn finish(mut self) -> Heard {
        self.until("the end", |heard| heard.finished);
        self.heard
    }
}

/// What to run: `script` by the shell in every task.
pub(crate) fn shell(script: &str) -> Setup {
    let argv = ["/bin/sh", "-c", script].map(|word| word.as_bytes().to_vec().into()).to_vec();
    Setup {
        argv,
        environment: b"PATH=/usr/bin:/bin\0FOO=bar\0".as_slice().into(),
        work_dir: "/".to_owned(),
        umask: 0o022,
        ..Setup::default()
    }
}
