//! Where do input, output and errors of the tasks go?
//!
//! `all`, `none`, the number of a task, or a file. A file whose name differs from task to task or
//! from node to node is opened where the task runs, as the user; any other is opened here.

use std::fs::{File, OpenOptions};

use penstock_proto::v1;
use penstock_vocab::{JobId, PatternFields, StepId, expand_pattern};

use crate::allocation::Extras;
use crate::step::own_stream;
use crate::step::session::InputTo;

/// What becomes of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stream {
    /// Of all tasks, through this process.
    All,
    None,
    /// Of this task only.
    Task(u32),
    /// A file of this host.
    Here(String),
    /// Files that shepherds open.
    There(String),
}

/// All three of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Streams {
    pub(super) input: Stream,
    pub(super) output: Stream,
    pub(super) error: Stream,
    /// Errors go where output goes.
    joined: bool,
}

/// What patterns stand for.
pub(super) struct Names<'a> {
    pub(super) job_id: u32,
    pub(super) step: u32,
    pub(super) user: &'a str,
    pub(super) job_name: &'a str,
    pub(super) ntasks: u32,
}

impl Streams {
    /// As the options say; with a terminal of its own only task 0 is connected.
    pub(super) fn of(extras: &Extras, names: &Names<'_>) -> Self {
        let read = |text: &Option<String>| {
            text.as_deref().map(|text| read_stream(text, names)).unwrap_or(Stream::All)
        };
        if extras.pty {
            let task = Stream::Task(0);
            return Self { input: task.clone(), output: task.clone(), error: task, joined: false };
        }
        let output = read(&extras.output);
        let joined = extras.error.is_none() && output != Stream::All;
        Self {
            input: read(&extras.input),
            error: if joined { output.clone() } else { read(&extras.error) },
            output,
            joined,
        }
    }

    /// Tells shepherds what is theirs to open.
    pub(super) fn put_into(&self, setup: &mut v1::step_frame::Setup) {
        let theirs = |stream: &Stream| match stream {
            Stream::There(pattern) => pattern.clone(),
            Stream::None => "/dev/null".to_owned(),
            Stream::All | Stream::Task(_) | Stream::Here(_) => String::new(),
        };
        setup.stdin = match &self.input {
            Stream::There(pattern) => pattern.clone(),
            _ => String::new(),
        };
        setup.no_input = self.input == Stream::None;
        setup.input_task = match self.input {
            Stream::Task(task) => Some(task),
            _ => None,
        };
        setup.stdout = theirs(&self.output);
        setup.stderr = theirs(&self.error);
    }

    /// Which tasks get what is read here.
    pub(super) fn input_to(&self) -> InputTo {
        match self.input {
            Stream::All | Stream::Here(_) => InputTo::All,
            Stream::None | Stream::There(_) => InputTo::None,
            Stream::Task(task) => InputTo::Task(task),
        }
    }

    /// The one task whose stream is wanted.
    pub(super) fn only(stream: &Stream) -> Option<u32> {
        match stream {
            Stream::Task(task) => Some(*task),
            _ => None,
        }
    }

    /// What is read here; `None`: nothing.
    ///
    /// # Errors
    /// With a sentence, where a file cannot be opened.
    pub(super) fn open_input(&self) -> Result<Option<File>, String> {
        match &self.input {
            Stream::All | Stream::Task(_) => Ok(own_stream(&std::io::stdin())),
            Stream::None | Stream::There(_) => Ok(None),
            Stream::Here(path) => match File::open(path) {
                Ok(file) => Ok(Some(file)),
                Err(failure) => Err(could_not("stdin", &failure)),
            },
        }
    }

    /// Where output and errors are written here; `None`: nowhere.
    ///
    /// # Errors
    /// With a sentence, where a file cannot be opened.
    pub(super) fn open_output(&self, append: bool) -> Result<(Option<File>, Option<File>), String> {
        let output = open(&self.output, "stdout", append, || own_stream(&std::io::stdout()))?;
        let error = match (&self.error, &output) {
            // One file, one place to write at.
            (Stream::Here(_), Some(file)) if self.joined => file.try_clone().ok(),
            // What the tasks of one number say on standard error stays that.
            (stream, _) => open(stream, "stderr", append, || own_stream(&std::io::stderr()))?,
        };
        Ok((output, error))
    }
}

fn open(
    stream: &Stream,
    name: &str,
    append: bool,
    own: impl Fn() -> Option<File>,
) -> Result<Option<File>, String> {
    match stream {
        Stream::All | Stream::Task(_) => Ok(own()),
        Stream::None | Stream::There(_) => Ok(None),
        Stream::Here(path) => {
            let mut options = OpenOptions::new();
            options.create(true).write(true);
            if append {
                options.append(true)
            } else {
                options.truncate(true)
            };
            options.open(path).map(Some).map_err(|failure| could_not(name, &failure))
        }
    }
}

fn could_not(name: &str, failure: &std::io::Error) -> String {
    let errno = failure.raw_os_error().map(nix::errno::Errno::from_raw);
    let why = errno.map_or_else(|| failure.to_string(), |errno| errno.desc().to_owned());
    format!("Could not open {name} file: {why}")
}

fn read_stream(text: &str, names: &Names<'_>) -> Stream {
    match text.to_ascii_lowercase().as_str() {
        "" | "all" | "-" => return Stream::All,
        "none" | "/dev/null" => return Stream::None,
        _ => {}
    }
    if let Some(task) = text.parse::<u32>().ok().filter(|task| *task < names.ntasks) {
        return Stream::Task(task);
    }
    if differs(text) {
        return Stream::There(text.to_owned());
    }
    let fields = PatternFields {
        job_id: JobId(names.job_id),
        array: None,
        step: StepId::Number(names.step),
        node_name: "",
        node_index: 0,
        task: 0,
        user: names.user,
        job_name: names.job_name,
    };
    Stream::Here(expand_pattern(text, &fields))
}

/// Whether a pattern gives another name for another task or node.
fn differs(pattern: &str) -> bool {
    if pattern.contains('\\') {
        return false;
    }
    let mut letters = pattern.chars();
    while letters.by_ref().any(|letter| letter == '%') {
        if let Some('t' | 'n' | 'N') = letters.by_ref().find(|letter| !letter.is_ascii_digit()) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names<'static> {
        Names { job_id: 7, step: 1, user: "alice", job_name: "x", ntasks: 2 }
    }

    fn streams(input: &str, output: &str, error: &str) -> Streams {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let extras = Extras {
            input: given(input),
            output: given(output),
            error: given(error),
            ..Extras::default()
        };
        Streams::of(&extras, &names())
    }

    #[test]
    fn streams_are_read_as_slurm_reads_them() {
        let table = [
            ("all", Stream::All),
            ("none", Stream::None),
            ("1", Stream::Task(1)),
            ("2", Stream::Here("2".into())),
            ("o-%j.%s", Stream::Here("o-7.1".into())),
            ("o-%J", Stream::Here("o-7.1".into())),
            ("o.%4t", Stream::There("o.%4t".into())),
            ("o.%%t", Stream::Here("o.%t".into())),
            ("o.%N-%x", Stream::There("o.%N-%x".into())),
            ("o\\%t", Stream::Here("o%t".into())),
        ];
        for (text, expect) in table {
            assert_eq!(read_stream(text, &names()), expect, "{text}");
        }
    }

    #[test]
    fn errors_follow_output_unless_they_have_a_place_of_their_own() {
        let joined = streams("", "f", "");
        assert_eq!(joined.error, Stream::Here("f".into()));
        assert_eq!(streams("", "", "").error, Stream::All);
        assert_eq!(streams("", "none", "").error, Stream::None);
        assert_eq!(streams("", "f", "e").error, Stream::Here("e".into()));
        let mut setup = v1::step_frame::Setup::default();
        streams("none", "o.%t", "none").put_into(&mut setup);
        assert!(setup.no_input);
        assert_eq!((setup.stdout.as_str(), setup.stderr.as_str()), ("o.%t", "/dev/null"));
        let mut setup = v1::step_frame::Setup::default();
        streams("1", "", "").put_into(&mut setup);
        assert_eq!((setup.input_task, setup.stdout.as_str()), (Some(1), ""));
    }

    #[test]
    fn one_file_is_opened_once() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("f").to_string_lossy().into_owned();
        let (output, error) = streams("", &path, "").open_output(false).expect("opened");
        use std::io::Write as _;
        output.expect("open").write_all(b"one\n").expect("written");
        error.expect("open").write_all(b"two\n").expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "one\ntwo\n");
        let missing = streams("/no/such/i", "/no/such/o", "");
        assert_eq!(
            missing.open_output(false).expect_err("missing"),
            "Could not open stdout file: No such file or directory"
        );
        assert_eq!(
            missing.open_input().expect_err("missing"),
            "Could not open stdin file: No such file or directory"
        );
    }
}
