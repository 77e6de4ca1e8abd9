//! What does somebody see who starts quickstart for the first time?
//!
//! Every output shown is that of the real command, run as the user would run it.

use std::fs;
use std::os::fd::BorrowedFd;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use super::cluster::{Cluster, Starter};
use super::commands;
use super::failure::Failure;
use super::interrupt::{Interrupt, Woke};
use super::layout::{Layout, is_root};
use super::options::{Mode, Options};
use super::process::{self, Held};
use super::registry::{CONTROLLER, Registry};
use super::remote::JobView;
use super::stop;
use super::talk::Talk;
use crate::output::print_line;

/// Between two looks at the job: short enough that no state is missed, hello.sh runs for seconds.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Starts the cluster, and does with it what the mode says.
pub(super) fn start(
    layout: &Layout,
    options: &Options,
    interrupt: &Interrupt,
    talk: Talk,
) -> Result<i32, Failure> {
    let _lock = layout.lock()?;
    let mut registry = Registry::read(layout);
    registry.put_self()?;
    // A cluster that was left running on purpose is not ours to stop.
    let visitor = layout.is_detached() && registry.living(CONTROLLER).is_some();
    if !visitor {
        layout.mark_detached(false)?;
    }
    say_abilities(layout, talk);
    let nodes = options.nodes.unwrap_or_else(|| layout.known_nodes().max(1));
    let mut starter = Starter { layout, registry: &mut registry, interrupt, talk };
    let result = starter.ensure(nodes, options.claims, options.gpus.as_ref()).and_then(|cluster| {
        match options.mode {
            Mode::Detach => {
                say_link(&cluster, talk);
                detach(layout)
            }
            Mode::Exit => first_job(layout, &cluster, interrupt, talk),
            Mode::Serve | Mode::Stop | Mode::Status => {
                first_job(layout, &cluster, interrupt, talk)?;
                say_link(&cluster, talk);
                serve(layout, &registry, interrupt, talk)
            }
        }
    });
    if options.mode == Mode::Detach && result.is_ok() {
        registry.forget_self()?;
        return result;
    }
    if visitor {
        let dir = commands::quoted(layout.dir());
        talk.say(&format!(
            "the cluster goes on; to stop it: penstock quickstart --stop --dir {dir}"
        ));
        registry.forget_self()?;
        return result;
    }
    if let Err(failure) = stop::shut_down(layout, &mut registry, interrupt, talk) {
        failure.report();
        return Ok(result?.max(1));
    }
    result
}

fn say_abilities(layout: &Layout, talk: Talk) {
    talk.say(&format!("cluster \"quickstart\" in {}", layout.dir().display()));
    if !is_root() {
        talk.say(
            "not root: jobs run as you only, and memory and CPUs of a job are counted, not enforced",
        );
    }
}

/// Prints the link that opens the cluster's page, where it has one.
fn say_link(cluster: &Cluster, talk: Talk) {
    if let Some(link) = crate::web::link_at(cluster.socket.clone()) {
        talk.say(&format!(
            "in a browser, once, within five minutes (`penstock web` prints another):\n  {link}"
        ));
    }
}

fn detach(layout: &Layout) -> Result<i32, Failure> {
    layout.mark_detached(true)?;
    print_line(&commands::exports(layout).join("\n"));
    Ok(0)
}

/// Submits hello.sh and shows it from the queue to its accounting line; gives its exit status.
fn first_job(
    layout: &Layout,
    cluster: &Cluster,
    interrupt: &Interrupt,
    talk: Talk,
) -> Result<i32, Failure> {
    let submitted = show(layout, talk, &["sbatch", "hello.sh"])?;
    let id = submitted.trim().rsplit(' ').next().and_then(|word| word.parse::<u32>().ok());
    let Some(id) = id else {
        let command = "sbatch hello.sh".to_owned();
        return Err(Failure::Command { command, how: "no job id".to_owned(), words: submitted });
    };
    let job = watch(layout, cluster, id, interrupt, talk)?;
    let status = cluster.remote.exit_status(id)?;
    let output = format!("slurm-{id}.out");
    talk.say(&format!("$ cat {output}"));
    match fs::read_to_string(layout.dir().join(&output)) {
        Ok(text) => talk.say(&text),
        Err(error) => talk.warn(&format!("quickstart: warning: cannot read {output}: {error}")),
    }
    show(layout, talk, &["sacct", "-j", &id.to_string()])?;
    let completed = job.is_none_or(|job| job.is_completed());
    Ok(if completed { status } else { status.max(1) })
}

/// Shows queue and nodes as they change, until the job has ended; gives what is then known of it:
/// nothing where only the accounting has it.
fn watch(
    layout: &Layout,
    cluster: &Cluster,
    id: u32,
    interrupt: &Interrupt,
    talk: Talk,
) -> Result<Option<JobView>, Failure> {
    let mut seen = None;
    let mut shown = [String::new(), String::new()];
    loop {
        let now = (cluster.remote.job(id)?, cluster.remote.node_states()?);
        if seen.as_ref() != Some(&now) {
            for (command, shown) in ["squeue", "sinfo"].into_iter().zip(&mut shown) {
                let output = run(layout, talk, &[command])?;
                // Not every change is one that people see.
                if output != *shown {
                    talk.say(&format!("$ {command}\n{output}"));
                    *shown = output;
                }
            }
        }
        if now.0.as_ref().is_none_or(JobView::has_ended) {
            return Ok(now.0);
        }
        seen = Some(now);
        interrupt.pause(LOOK_EVERY)?;
    }
}

/// Runs a command as the user would, and shows line and output; gives the output.
fn show(layout: &Layout, talk: Talk, words: &[&str]) -> Result<String, Failure> {
    talk.say(&format!("$ {}", words.join(" ")));
    let output = run(layout, talk, words)?;
    talk.say(&output);
    Ok(output)
}

/// Runs a command as the user would, and gives its output.
fn run(layout: &Layout, talk: Talk, words: &[&str]) -> Result<String, Failure> {
    let command = words.join(" ");
    let failed =
        |how: String, words: String| Failure::Command { command: command.clone(), how, words };
    let Output { status, stdout, stderr } = Command::new(layout.bin().join(words[0]))
        .args(&words[1..])
        .current_dir(layout.dir())
        .env("PENSTOCK_CONFIG", layout.cluster_file())
        .env_remove("PENSTOCK_SOCKET")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string(), String::new()))?;
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    if !status.success() {
        return Err(failed(status.to_string(), stderr.into_owned()));
    }
    if !stderr.is_empty() {
        talk.warn(stderr.trim_end());
    }
    Ok(stdout.into_owned())
}

/// Says how to go on, and waits for Ctrl-C or for a daemon to end.
fn serve(
    layout: &Layout,
    registry: &Registry,
    interrupt: &Interrupt,
    talk: Talk,
) -> Result<i32, Failure> {
    let [config, path] = commands::exports(layout);
    let hello = commands::quoted(&layout.hello());
    talk.say(&format!(
        "\nGo on in another shell:\n  {config}\n  {path}\n  sbatch --array=1-5 {hello}\n  squeue\n  \
         sacct\nServing until Ctrl-C, which cancels the jobs and stops the cluster."
    ));
    let daemons = registry.hold_daemons();
    let log_ends: Vec<u64> =
        daemons.iter().map(|daemon| process::log_end(&layout.log(&daemon.name))).collect();
    let fds: Vec<BorrowedFd<'_>> = daemons.iter().map(Held::fd).collect();
    match interrupt.wait(&fds, None)? {
        Woke::Signal | Woke::Timeout => {
            talk.say("");
            Ok(0)
        }
        Woke::Descriptor(place) => {
            let name = daemons[place].name.clone();
            let log = layout.log(&name);
            let tail = process::log_tail(&log, log_ends[place]);
            Err(Failure::Daemon { name, what: "has ended".to_owned(), log, tail })
        }
    }
}
