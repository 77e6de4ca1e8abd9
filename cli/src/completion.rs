//! `penstock completion bash|zsh|fish`: what can be typed next?
//!
//! The scripts are made from the tables by which the commands read their options, so that no option is
//! forgotten. Names of partitions and nodes and ids of jobs are asked for when they are wanted.

use clap::ValueEnum;

use crate::allocation::table::{Command as Allocation, table};
use crate::options::{Name, Takes};

/// A shell that can complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// Bourne again.
    Bash,
    /// Z; it reads the script of bash.
    Zsh,
    /// Friendly interactive.
    Fish,
}

/// A command of Slurm's with its options and, where it has them, the words that come first.
struct Command {
    name: &'static str,
    options: Vec<Name>,
    words: Vec<&'static str>,
}

/// Every command that has options.
fn commands() -> Vec<Command> {
    let plain = |name, options| Command { name, options, words: Vec::new() };
    let allocation = |command| crate::options::names(&table(command));
    vec![
        plain("sacct", crate::sacct::options()),
        plain("sacctmgr", crate::sacctmgr::options()),
        plain("salloc", allocation(Allocation::Salloc)),
        plain("sattach", crate::sattach::options()),
        plain("sbatch", crate::sbatch::options()),
        plain("sbcast", crate::sbcast::options()),
        plain("scancel", crate::scancel::options()),
        Command {
            name: "scontrol",
            options: crate::scontrol::options(),
            words: crate::scontrol::verbs().collect(),
        },
        plain("scrontab", crate::scrontab::options()),
        plain("sdiag", crate::sdiag::options()),
        plain("sinfo", crate::sinfo::options()),
        plain("sprio", crate::sprio::options()),
        plain("squeue", crate::squeue::options()),
        plain("sreport", crate::sreport::options()),
        plain("srun", allocation(Allocation::Srun)),
        plain("sshare", crate::sshare::options()),
        plain("sstat", crate::sstat::options()),
    ]
}

/// What stands where a value is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    Partitions,
    Nodes,
    Jobs,
    Other,
}

impl Values {
    fn of(option: &Name) -> Self {
        match option.long {
            "partition" | "partitions" => Self::Partitions,
            "nodelist" | "nodes" | "exclude" if option.short != Some('N') => Self::Nodes,
            "jobs" | "job" | "jobid" => Self::Jobs,
            _ => Self::Other,
        }
    }

    /// The command line that lists them.
    const fn command(self) -> &'static str {
        match self {
            Self::Partitions => "sinfo -h -a -o %R",
            Self::Nodes => "sinfo -h -N -o %N",
            Self::Jobs => "squeue -h -o %A",
            Self::Other => "",
        }
    }
}

/// The script for a shell; `own` are penstock's subcommands with what they are for.
pub(crate) fn script(shell: Shell, own: &[(String, String)]) -> String {
    match shell {
        Shell::Bash => bash(own),
        Shell::Zsh => format!(
            "#compdef penstock\nautoload -Uz +X compinit bashcompinit && compinit && bashcompinit\n{}",
            bash(own)
        ),
        Shell::Fish => fish(own),
    }
}

fn bash(own: &[(String, String)]) -> String {
    let commands = commands();
    let mut out = "# Source this file: penstock completion bash > /etc/bash_completion.d/penstock\n\
        _penstock_slurm() {\n    \
        local command=$1 word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words=\n    \
        if [ \"$word\" = = ]; then word=; elif [ \"$before\" = = ]; then before=${COMP_WORDS[COMP_CWORD-2]}; fi\n    \
        case ${command##*/},$before in\n"
        .to_owned();
    for command in &commands {
        for kind in [Values::Partitions, Values::Nodes, Values::Jobs] {
            let patterns = patterns(command, kind);
            if !patterns.is_empty() {
                out.push_str(&format!(
                    "    {})\n        words=$({} 2>/dev/null | sort -u) ;;\n",
                    patterns.join("|"),
                    kind.command()
                ));
            }
        }
    }
    for command in &commands {
        let mut words: Vec<String> = command.words.iter().map(|word| (*word).to_owned()).collect();
        words.extend(command.options.iter().map(|option| format!("--{}", option.long)));
        out.push_str(&format!("    {},*) words='{}' ;;\n", command.name, words.join(" ")));
    }
    out.push_str(
        "    esac\n    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n}\n\
         _penstock() {\n    local word=${COMP_WORDS[COMP_CWORD]}\n    \
         if [ \"$COMP_CWORD\" -gt 1 ]; then\n        case ${COMP_WORDS[1]} in\n",
    );
    let names: Vec<&str> = commands.iter().map(|command| command.name).collect();
    out.push_str(&format!(
        "        {}) _penstock_slurm \"${{COMP_WORDS[1]}}\" ;;\n        esac\n        return\n    fi\n    \
         COMPREPLY=($(compgen -W '{} {}' -- \"$word\"))\n}}\n",
        names.join("|"),
        own.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" "),
        names.join(" ")
    ));
    out.push_str(&format!(
        "complete -o default -F _penstock_slurm {}\ncomplete -o default -F _penstock penstock\n",
        names.join(" ")
    ));
    out
}

/// `squeue,-p` and `squeue,--partition`: words behind which such a value comes.
fn patterns(command: &Command, kind: Values) -> Vec<String> {
    let meant = command.options.iter().filter(|option| Values::of(option) == kind);
    let mut patterns: Vec<String> = Vec::new();
    for option in meant.filter(|option| option.takes != Takes::Nothing) {
        // As far as people type it.
        let long = if kind == Values::Partitions { "part*" } else { option.long };
        patterns.push(format!("{},--{long}", command.name));
        patterns.extend(option.short.map(|letter| format!("{},-{letter}", command.name)));
    }
    if kind == Values::Jobs && command.name == "scancel" {
        patterns.push("scancel,scancel".to_owned());
    }
    patterns
}

fn fish(own: &[(String, String)]) -> String {
    let mut out =
        "# penstock completion fish > ~/.config/fish/completions/penstock.fish\n".to_owned();
    for command in commands() {
        let name = command.name;
        for word in &command.words {
            out.push_str(&format!("complete -c {name} -n __fish_use_subcommand -f -a {word}\n"));
        }
        for option in &command.options {
            out.push_str(&format!("complete -c {name} -l {}", option.long));
            if let Some(letter) = option.short {
                out.push_str(&format!(" -s {letter}"));
            }
            match (option.takes, Values::of(option)) {
                (Takes::Nothing, _) => {}
                (Takes::Value, Values::Other) => out.push_str(" -r"),
                (Takes::Maybe, Values::Other) => {}
                (_, values) => out.push_str(&format!(" -x -a '({})'", values.command())),
            }
            out.push('\n');
        }
    }
    for (name, about) in own {
        let about = about.replace('\'', "\\'");
        out.push_str(&format!(
            "complete -c penstock -n __fish_use_subcommand -f -a {name} -d '{about}'\n"
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::process::Command as Process;

    use super::*;

    fn own() -> Vec<(String, String)> {
        vec![("quickstart".to_owned(), "Try a cluster".to_owned())]
    }

    /// What bash offers for a line whose last word is begun.
    fn offers(line: &[&str]) -> Vec<String> {
        let words: Vec<String> = line.iter().map(|word| format!("'{word}'")).collect();
        let text = format!(
            "{}\nsinfo() {{ printf 'main\\nlong\\n'; }}\nCOMP_WORDS=({})\nCOMP_CWORD={}\n\
             if [ {} = penstock ]; then _penstock; else _penstock_slurm {}; fi\n\
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            bash(&own()),
            words.join(" "),
            line.len() - 1,
            line[0],
            line[0]
        );
        let done = Process::new("bash").arg("-c").arg(text).output().expect("bash runs");
        assert!(done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).lines().map(str::to_owned).collect()
    }

    #[test]
    fn bash_offers_options_verbs_and_names() {
        assert_eq!(offers(&["squeue", "--part"]), ["--partitions"]);
        assert_eq!(offers(&["srun", "--multi"]), ["--multi-prog"]);
        assert_eq!(offers(&["salloc", "--no-sh"]), ["--no-shell"]);
        assert_eq!(offers(&["sinfo", "-p", "ma"]), ["main"]);
        assert_eq!(offers(&["squeue", "--partition", "=", "lo"]), ["long"]);
        assert_eq!(offers(&["scontrol", "wait"]), ["wait_job"]);
        assert_eq!(offers(&["penstock", "quick"]), ["quickstart"]);
        assert_eq!(offers(&["penstock", "sinfo", "--summ"]), ["--summarize"]);
    }

    #[test]
    fn every_option_is_in_every_script() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = script(shell, &own());
            for command in commands() {
                for option in command.options {
                    assert!(
                        text.contains(option.long),
                        "{shell:?} {} {}",
                        command.name,
                        option.long
                    );
                }
            }
            assert!(text.contains("quickstart"));
        }
    }
}
