//! What does `sbatch --help` say?

/// The short form, for `--usage`.
pub(crate) const USAGE: &str = "\
Usage: sbatch [-A account] [-a indexes] [-b time] [-C features] [-c ncpus] [-D dir]
              [-d type:jobid[:jobid]] [-e file] [-G [type:]count] [-H] [-i file] [-J name] [-L list]
              [-N minnodes[-maxnodes]] [-n ntasks] [-o file] [-p partition] [-Q] [-q qos]
              [-t time] [-v] [-W] [-w hosts] [-x hosts] [--comment=text]
              [--deadline=time] [--exclusive[=user]]
              [--export=ALL|NONE|list] [--gpus-per-node=[type:]count] [--gres=list]
              [--kill-on-invalid-dep=yes|no] [--mem=size] [--mem-per-cpu=size] [--nice[=value]]
              [--no-requeue] [--ntasks-per-node=n] [--open-mode=append|truncate] [--parsable]
              [--priority=value] [--propagate=ALL|NONE] [--requeue] [--reservation=name]
              [--signal=[B:]name[@secs]] [--switches=n[@time]] [--test-only] [--time-min=limit]
              [--wrap=command] [script [args...]]
";

/// The long form.
pub(crate) const HELP: &str = "\
Usage: sbatch [OPTIONS...] [script [args...]]
Without a script, it is read from standard input. Lines '#SBATCH OPTIONS' at its head count too;
SBATCH_* variables win over them, and the command line wins over both.

Options:
  -A, --account=name          charge the job to this account
      --acctg-freq=[task=]secs  how often what the job uses is measured; 0: at its start and its
                              end only
  -a, --array=indexes         job array, e.g. 0-15, 1,3,5-7, 0-15:4, 0-99%5 (5 at a time)
  -b, --begin=time            start no earlier: 16:00, tomorrow, 2030-01-20T12:34, now+1hour
  -C, --constraint=features   nodes must have these features: a&b, a|b, a*2,
                              [a*2&b*4]
  -c, --cpus-per-task=n       CPUs of each task
  -D, --chdir=dir             working directory of the job
  -d, --dependency=list       wait for other jobs, e.g. afterok:12:13,afterany:14_3
  -m, --distribution=how      where tasks of its steps go: block, cyclic, plane=n
  -e, --error=file            file of standard error (default: that of standard output)
  -G, --gpus=[type:]n         GPUs over the whole job
  -H, --hold                  submit in held state
  -i, --input=file            file of standard input (default: /dev/null)
  -J, --job-name=name         name of the job
  -k, --no-kill[=off]         go on where a node other than the first fails
  -L, --licenses=name[:n],... licenses that the job holds while it runs
  -N, --nodes=min[-max]       number of nodes
  -n, --ntasks=n              number of tasks
  -o, --output=file           file of standard output (default: slurm-%j.out or slurm-%A_%a.out)
  -p, --partition=list        partitions in order of preference
  -Q, --quiet                 print nothing but errors
  -q, --qos=name              quality of service
  -t, --time=limit            time limit: minutes, m:s, h:m:s, d-h, d-h:m, d-h:m:s
  -v, --verbose               print the options as they were understood
  -W, --wait                  wait for the end of the job and exit with its code
  -w, --nodelist=hosts        nodes that the job must have (a file if there is a '/' in it)
  -x, --exclude=hosts         nodes that the job must not have (likewise)
      --comment=text          free text
      --container=bundle      run the script in this OCI bundle, by the node's crun or runc
      --container-image=name  run it in this image, by the node's Apptainer or enroot
  -O, --overcommit            more tasks than CPUs: one CPU of each node for all tasks there
      --wckey=word            a word by which listings sort jobs
      --idempotency-key=text  the same text within ten minutes is the same job, submitted once
      --deadline=time         cancel the job once it cannot end by then
      --exclusive[=user]      whole nodes, or nodes shared with jobs of the same user only
  -s, --oversubscribe         (or --share) share CPUs with other jobs, where the partition lets jobs do so
      --export=ALL|NONE|NIL|[ALL,]names
                              which variables of this environment the job gets
      --get-user-env[=...]    accepted: the environment of this process is what travels, and
                              no login shell is run on the node
      --gpus-per-node=[type:]n  GPUs on each node
      --gpus-per-socket=[type:]n  GPUs on each of --sockets-per-node sockets
      --gpus-per-task=[type:]n  GPUs of each task
      --cpus-per-gpu=n        CPUs for each GPU
      --mem-per-gpu=size      memory for each GPU
      --gpu-bind=...          which GPUs tasks of its steps use
      --idle-ok=reason        why idle GPUs are no mistake
      --sockets-per-node=n    sockets of each node that give GPUs
      --gres=list             other resources on each node: name[:type][:count],...
      --ignore-pbs            accepted: #PBS lines are never read
      --kill-on-invalid-dep=yes|no
                              cancel the job once its dependency can no longer be met
      --mail-type=types       mail at these events: BEGIN, END, FAIL, REQUEUE, ALL,
                              TIME_LIMIT, TIME_LIMIT_90/80/50, ARRAY_TASKS ...
      --mail-user=user        to whom; default is the user
      --mem=size[K|M|G|T]     memory on each node; 0: all of it
      --mem-per-cpu=size[K|M|G|T]
                              memory for each CPU
      --nice[=n]              lower the priority by n (default 100)
      --no-requeue            never start the job a second time
      --ntasks-per-node=n     tasks on each node
      --open-mode=append|truncate
                              how output files are opened
      --parsable              print nothing but the id of the job
      --priority=n            set the priority (administrators)
      --propagate[=ALL|NONE|names]
                              which limits of this process (ulimit -S) go with the job
      --requeue               start the job again after a node has failed
      --reservation=name      run in this reservation
      --signal=[B:]name[@secs]
                              signal so long before the time limit; B: to the script only
      --switches=n[@time]     at most so many leaf switches, for which to wait so long
      --test-only             submit nothing; tell when and where the job would start
      --time-min=limit        the time limit may be cut down to this to start sooner
      --wait-all-nodes=0|1    accepted: scripts start once all nodes are there
      --wrap=command          run this command instead of a script

  -h, --help                  this text
      --usage                 the short form
  -V, --version               version of Slurm whose commands these are

Every other option of Slurm's sbatch is refused by its name; none is ignored.
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sbatch::table::{Key, TABLE};

    #[test]
    fn help_names_every_option_that_is_built() {
        let synonyms = ["tasks", "tasks-per-node"];
        for option in TABLE {
            let named = HELP.contains(&format!("--{}", option.long));
            let built = !matches!(option.key, Key::Unbuilt(_));
            assert!(named || !built || synonyms.contains(&option.long), "--{}", option.long);
        }
    }
}
