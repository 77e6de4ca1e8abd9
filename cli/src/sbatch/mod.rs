//! `sbatch`: how does a script become a job in the queue?
//!
//! The command line is read first, since it says where the script is; then the script's directives,
//! the environment and the command line are read over each other, the later ones winning.

mod directives;
pub(crate) mod environment;
mod gpus;
mod help;
mod manner;
pub(crate) mod request;
pub(crate) mod script;
pub(crate) mod spec;
mod submit;
pub(crate) mod table;

use std::path::PathBuf;

pub(crate) use request::parse_licenses;
pub(crate) use spec::limit_secs;
pub(crate) use submit::{refusal_lines, test_only};

use penstock_vocab::parse_array_spec;

use crate::errors::error;
use crate::options::{Given, Operands, Parsed, Takes, UsageError, parse};
use crate::output::{note, print_line, write_bytes};

use self::directives::directive_words;
use self::request::{Ask, BadValue, Request, Source};
use self::script::{Script, ScriptError, from_file, from_stdin, wrapped};
use self::spec::Submitter;
use self::submit::Submitted;
use self::table::{ENVIRONMENT, Key, TABLE};

const PROGRAM: &str = "sbatch";

/// Exit status of a bad option or a bad value.
const BAD_OPTION: i32 = 255;

/// Exit status of everything else that fails.
const FAILED: i32 = 1;

/// Its options, for completion.
pub(crate) fn options() -> Vec<crate::options::Name> {
    crate::options::names(table::TABLE)
}

/// Runs sbatch; returns its exit status.
pub(crate) fn run(_program: &str, args: Vec<String>) -> i32 {
    let status = match prepare(&args) {
        Ok(Job::Asked(ask)) => {
            answer(ask);
            return 0;
        }
        Ok(Job::Submit(request, script, arguments)) => send(&args, &request, script, &arguments),
        Err(stop) => stop.report(),
    };
    match std::env::var("SLURM_EXIT_ERROR").ok().and_then(|text| text.trim().parse().ok()) {
        Some(chosen) if status.failed => chosen,
        _ => status.code,
    }
}

/// How sbatch ends; a waited job's own status is no failure of sbatch.
struct Ended {
    code: i32,
    failed: bool,
}

/// What the command line comes to.
enum Job {
    /// `--help` and the like.
    Asked(Ask),
    /// A job and its script's arguments.
    Submit(Box<Request>, Script, Vec<String>),
}

/// Why nothing is sent.
#[derive(Debug)]
enum Stop {
    Usage(UsageError),
    Value(BadValue),
    Script(ScriptError),
}

impl Stop {
    fn report(self) -> Ended {
        let (lines, code) = match self {
            Self::Usage(usage) => {
                usage.report(PROGRAM);
                (Vec::new(), BAD_OPTION)
            }
            Self::Value(value) => (value.0, BAD_OPTION),
            Self::Script(script) => (script.0, FAILED),
        };
        for line in &lines {
            error(PROGRAM, line);
        }
        Ended { code, failed: true }
    }
}

impl From<UsageError> for Stop {
    fn from(error: UsageError) -> Self {
        Self::Usage(error)
    }
}

impl From<BadValue> for Stop {
    fn from(error: BadValue) -> Self {
        Self::Value(error)
    }
}

impl From<ScriptError> for Stop {
    fn from(error: ScriptError) -> Self {
        Self::Script(error)
    }
}

fn answer(ask: Ask) {
    match ask {
        Ask::Help => write_bytes(help::HELP.as_bytes()),
        Ask::Usage => write_bytes(help::USAGE.as_bytes()),
        Ask::Version => print_line(crate::dispatch::SLURM_VERSION),
    }
}

/// Where a script comes from: the value of `--wrap` and the operands give it.
type Load = fn(Option<&str>, Vec<String>) -> Result<(Script, Vec<String>), ScriptError>;

/// The job that `sbatch ARGS` would submit; without a script, one that does nothing.
///
/// # Errors
/// With the exit status, once the reason is printed.
pub(crate) fn spec_of(args: &[String]) -> Result<penstock_proto::v1::JobSpec, i32> {
    let load: Load = |wrap, operands| match (wrap, operands.is_empty()) {
        (None, true) => Ok((wrapped("true"), Vec::new())),
        _ => load_script(wrap, operands),
    };
    match prepare_from(args, load) {
        Ok(Job::Submit(request, script, arguments)) => {
            let submitter = Submitter::of_this_process(submit_line(args)).map_err(|text| {
                error(PROGRAM, &text);
                FAILED
            })?;
            Ok(spec::job_spec(&request, &script, &arguments, &submitter))
        }
        Ok(Job::Asked(ask)) => {
            answer(ask);
            Err(0)
        }
        Err(stop) => Err(stop.report().code),
    }
}

/// Reads everything that says what the job is.
fn prepare(args: &[String]) -> Result<Job, Stop> {
    prepare_from(args, load_script)
}

fn prepare_from(args: &[String], load: Load) -> Result<Job, Stop> {
    let Parsed { given, operands } = parse(TABLE, Operands::EndOptions, args)?;
    // Alone first: an error of the command line comes before one of the script.
    let mut alone = Request::default();
    apply_all(&mut alone, &given, Source::CommandLine)?;
    if let Some(ask) = alone.ask {
        return Ok(Job::Asked(ask));
    }
    let (script, arguments) = load(alone.wrap.as_deref(), operands)?;
    let mut request = Request::default();
    apply_directives(&mut request, &script.text)?;
    apply_environment(&mut request, &|name| std::env::var(name).ok())?;
    apply_all(&mut request, &given, Source::CommandLine)?;
    if request.wrap.is_some() && alone.wrap.is_none() {
        let line = "--wrap is for the command line, not for a batch script".to_owned();
        return Err(BadValue(vec![line]).into());
    }
    check_array(&request.array)?;
    check_licenses(&request.licenses)?;
    check_times(&request)?;
    fit_nodes_to_tasks(PROGRAM, &mut request);
    Ok(Job::Submit(Box::new(request), script, arguments))
}

/// A wrong array is told as the controller would tell it.
fn check_array(array: &str) -> Result<(), ScriptError> {
    if array.is_empty() {
        return Ok(());
    }
    match parse_array_spec(array) {
        Ok(_) => Ok(()),
        Err(error) => Err(ScriptError(vec![
            error.to_string(),
            "Batch job submission failed: Invalid job array specification".to_owned(),
        ])),
    }
}

pub(crate) fn check_licenses(licenses: &str) -> Result<(), ScriptError> {
    if licenses.is_empty() {
        return Ok(());
    }
    parse_licenses(licenses).map(|_| ()).map_err(|why| {
        let line = "Batch job submission failed: Invalid license specification";
        ScriptError(vec![why, line.to_owned()])
    })
}

/// A limit cannot be cut down to more than it is.
pub(crate) fn check_times(request: &Request) -> Result<(), ScriptError> {
    let secs = |limit: Option<penstock_vocab::Walltime>| limit.and_then(|limit| limit.as_secs());
    match (secs(request.time_min), secs(request.time)) {
        (Some(least), Some(limit)) if least > limit => Err(ScriptError(vec![
            "Batch job submission failed: Invalid time-min specification (exceeds job's time or \
             other limits)"
                .to_owned(),
        ])),
        _ => Ok(()),
    }
}

fn load_script(
    wrap: Option<&str>,
    operands: Vec<String>,
) -> Result<(Script, Vec<String>), ScriptError> {
    let mut operands = operands.into_iter();
    match (wrap, operands.next()) {
        (Some(_), Some(_)) => {
            let line = "Script arguments not permitted with --wrap option".to_owned();
            Err(ScriptError(vec![line]))
        }
        (Some(command), None) => Ok((wrapped(command), Vec::new())),
        (None, Some(name)) => {
            let cwd = std::env::current_dir().unwrap_or_default();
            let path = std::env::var_os("PATH").unwrap_or_default();
            let search: Vec<PathBuf> = std::env::split_paths(&path).collect();
            Ok((from_file(&name, &cwd, &search)?, operands.collect()))
        }
        (None, None) => Ok((from_stdin()?, Vec::new())),
    }
}

fn apply_all(request: &mut Request, given: &[Given<Key>], source: Source) -> Result<(), BadValue> {
    given.iter().try_for_each(|option| request.apply(option, source))
}

fn apply_directives(request: &mut Request, script: &[u8]) -> Result<(), Stop> {
    let words = directive_words(script).map_err(|error| ScriptError(vec![error.to_string()]))?;
    let parsed = parse(TABLE, Operands::EndOptions, &words)?;
    apply_all(request, &parsed.given, Source::Script)?;
    match parsed.operands.first() {
        None => Ok(()),
        Some(word) => {
            let line = format!("Invalid directive found in batch script: {word}");
            Err(ScriptError(vec![line]).into())
        }
    }
}

fn apply_environment(
    request: &mut Request,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(), BadValue> {
    for (variable, key) in ENVIRONMENT {
        let Some(text) = env(variable) else { continue };
        let takes = TABLE.iter().find(|option| option.key == *key).map(|option| option.takes);
        let value = match takes {
            // As many as --debug levels.
            _ if *key == Key::Verbose => {
                request.verbose += text.trim().parse::<u32>().unwrap_or(1);
                continue;
            }
            Some(Takes::Nothing) if is_true(&text) => None,
            Some(Takes::Maybe) if is_true(&text) => Some(text).filter(|text| !is_flag(text)),
            Some(Takes::Value) => Some(text),
            _ => continue,
        };
        let given = Given { key: *key, value };
        request.apply(&given, Source::Environment).map_err(|BadValue(mut lines)| {
            lines.insert(0, format!("in the environment variable {variable}:"));
            BadValue(lines)
        })?;
    }
    Ok(())
}

/// A flag variable is true when empty, `yes` or a number other than 0; a word is a value.
pub(crate) fn is_true(text: &str) -> bool {
    !matches!(text.trim().to_ascii_lowercase().as_str(), "0" | "no")
}

pub(crate) fn is_flag(text: &str) -> bool {
    let word = text.trim();
    word.is_empty() || word.eq_ignore_ascii_case("yes") || word.bytes().all(|b| b.is_ascii_digit())
}

/// More nodes than tasks would leave nodes idle; Slurm takes fewer nodes and says so.
pub(crate) fn fit_nodes_to_tasks(program: &str, request: &mut Request) {
    let (Some((min, max)), Some(tasks)) = (request.nodes, request.ntasks) else { return };
    if tasks >= min {
        return;
    }
    if !request.quiet {
        note(&format!(
            "{program}: Warning: can't run {tasks} processes on {min} nodes, setting nnodes to {tasks}"
        ));
    }
    // A range keeps its end unless that is all it was.
    request.nodes = Some((tasks, if min == max { tasks } else { max }));
}

fn send(args: &[String], request: &Request, script: Script, arguments: &[String]) -> Ended {
    if request.verbose > 0 {
        tell_options(PROGRAM, request);
    }
    let submitter = match Submitter::of_this_process(submit_line(args)) {
        Ok(submitter) => submitter,
        Err(text) => {
            error(PROGRAM, &text);
            return Ended { code: FAILED, failed: true };
        }
    };
    if request.test_only {
        let spec = spec::job_spec(request, &script, arguments, &submitter);
        let code = submit::test_only(PROGRAM, spec);
        return Ended { code, failed: code != 0 };
    }
    let message = spec::submit_request(request, script, arguments, &submitter);
    match submit::submit(request, &message) {
        Submitted::Ended(code) => Ended { code, failed: false },
        Submitted::Failed => Ended { code: FAILED, failed: true },
    }
}

fn submit_line(args: &[String]) -> String {
    let words: Vec<&str> =
        std::iter::once(PROGRAM).chain(args.iter().map(String::as_str)).collect();
    words.join(" ")
}

/// What `-v` shows, in Slurm's layout.
pub(crate) fn tell_options(program: &str, request: &Request) {
    note(&format!("{program}: defined options"));
    let rule = "-".repeat(20);
    note(&format!("{program}: {rule} {rule}"));
    for (name, value) in &request.told {
        note(&format!("{program}: {name:<20}: {value}"));
    }
    note(&format!("{program}: {rule} {rule}"));
    note(&format!("{program}: end of defined options"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[&str]) -> Vec<String> {
        line.iter().map(|&word| word.to_owned()).collect()
    }

    fn stopped(args: &[&str]) -> (String, i32) {
        let stop = match prepare(&words(args)) {
            Err(stop) => stop,
            Ok(_) => panic!("{args:?} must be refused"),
        };
        let text = match &stop {
            Stop::Usage(usage) => usage.to_string(),
            Stop::Value(BadValue(lines)) | Stop::Script(ScriptError(lines)) => lines.join("\n"),
        };
        (text, stop.report().code)
    }

    #[test]
    fn refusals_have_slurms_exit_codes() {
        let table: &[(&[&str], &str, i32)] = &[
            (&["--foo"], "unrecognized option '--foo'", 255),
            (&["-1"], "invalid option -- '1'", 255),
            (
                &["--mail-user=a b", "--wrap=x"],
                "mail cannot be sent to \"a b\": give a user's name or an address a@b.c\n\
                 Invalid --mail-user specification",
                255,
            ),
            (&["--wrap=x", "arg"], "Script arguments not permitted with --wrap option", 1),
            (&["/no/such/script"], "Unable to open file /no/such/script", 1),
            (
                &["--wrap=x", "-a", "3-1"],
                "array specification: range \"3-1\" runs backwards\n\
                 Batch job submission failed: Invalid job array specification",
                1,
            ),
            (
                &["--wrap=x", "-L", "matlab:x"],
                "license \"matlab:x\" is not understood; give NAME or NAME:COUNT\n\
                 Batch job submission failed: Invalid license specification",
                1,
            ),
            (
                &["--wrap=x", "--time-min=10", "-t", "5"],
                "Batch job submission failed: Invalid time-min specification (exceeds job's time \
                 or other limits)",
                1,
            ),
            (&["--switches=foo"], "Invalid numeric value \"foo\" for --switches.", 255),
            (&["--contiguous", "--wrap=x"], "--contiguous is not built yet", 255),
            // The command line is looked at before the script.
            (&["-n0", "/no/such/script"], "Invalid numeric value \"0\" for --ntasks.", 255),
        ];
        for (args, text, code) in table {
            assert_eq!(stopped(args), ((*text).to_owned(), *code), "{args:?}");
        }
    }

    fn from_script(script: &str, env: &[(&str, &str)], args: &[&str]) -> Result<Request, Stop> {
        let mut request = Request::default();
        apply_directives(&mut request, script.as_bytes())?;
        let find =
            |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned());
        apply_environment(&mut request, &find)?;
        let parsed = parse(TABLE, Operands::EndOptions, &words(args))?;
        apply_all(&mut request, &parsed.given, Source::CommandLine)?;
        Ok(request)
    }

    #[test]
    fn the_command_line_wins_over_the_environment_and_that_over_the_script() {
        let script = "#!/bin/sh\n#SBATCH -J script -p script\n#SBATCH -A script\n";
        let env = [("SBATCH_JOB_NAME", "env"), ("SBATCH_PARTITION", "env")];
        let request = from_script(script, &env, &["-J", "line"]).expect("valid");
        assert_eq!(request.job_name.as_deref(), Some("line"));
        assert_eq!(request.partitions, ["env"]);
        assert_eq!(request.account, "script");
    }

    #[test]
    fn flag_variables_are_true_when_empty_yes_or_a_number() {
        for (text, expect) in [("", true), ("yes", true), ("1", true), ("0", false), ("no", false)]
        {
            let env = [("SBATCH_EXCLUSIVE", text), ("SBATCH_WAIT", text)];
            let request = from_script("#!/bin/sh\n", &env, &[]).expect("valid");
            assert_eq!((request.exclusive, request.wait), (expect, expect), "{text:?}");
        }
        let env = [("SBATCH_EXCLUSIVE", "user"), ("SBATCH_RESERVATION", "r")];
        let request = from_script("#!/bin/sh\n", &env, &[]).expect("valid");
        assert_eq!((request.exclusive, request.exclusive_user), (false, true));
        assert_eq!(request.reservation, "r");
        let env = [("SBATCH_HINT", "h")];
        match from_script("#!/bin/sh\n", &env, &[]) {
            Err(Stop::Value(BadValue(lines))) => {
                assert_eq!(lines[0], "in the environment variable SBATCH_HINT:");
                assert_eq!(lines[1], "--hint is not built yet");
            }
            other => panic!("unexpected: {other:?}"),
        }
    }

    #[test]
    fn text_that_is_no_option_is_an_invalid_directive() {
        match from_script("#!/bin/sh\n#SBATCH -n 1 foo\n", &[], &[]) {
            Err(Stop::Script(ScriptError(lines))) => {
                assert_eq!(lines, ["Invalid directive found in batch script: foo"]);
            }
            other => panic!("unexpected: {other:?}"),
        }
    }

    #[test]
    fn fewer_tasks_than_nodes_take_fewer_nodes() {
        for (nodes, tasks, expect) in
            [((40, 40), 3, (3, 3)), ((4, 8), 3, (3, 8)), ((2, 2), 3, (2, 2))]
        {
            let mut request = Request {
                nodes: Some(nodes),
                ntasks: Some(tasks),
                quiet: true,
                ..Request::default()
            };
            fit_nodes_to_tasks(PROGRAM, &mut request);
            assert_eq!(request.nodes, Some(expect));
        }
    }
}
