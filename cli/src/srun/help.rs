//! What does `srun --help` say?

/// The short form, for `--usage`.
pub(crate) const USAGE: &str = "\
Usage: srun [-N nnodes] [-n ntasks] [-c ncpus] [-l] [-u] [-r n] [-W sec] [-K] [-X] [-t minutes]
            [-i in] [-o out] [-e err] [-D path] [-p partition] [-A account] [-q qos] [-J name]
            [-w hosts] [-x hosts] [-C features] [-I[sec]] [-k] [-O] [-m dist] [-G [type:]count]
            [--pty] [--exact] [--overlap] [--whole] [--jobid=id] [--mpi=type] [--multi-prog]
            [--mem=size] [--mem-per-cpu=size] [--gres=list] [--gpus-per-task=[type:]count]
            [--cpu-bind=...] [--gpu-bind=...] [--export=...] [--quit-on-interrupt] [--test-only]
            [--task-prolog=file] [--task-epilog=file] executable [args...]
";

/// The long form.
pub(crate) const HELP: &str = "\
Usage: srun [OPTIONS...] executable [args...]
Runs tasks in parallel: within the job that this runs in, or else in a job of its own. SLURM_*
variables stand for options; the command line wins over them.

Tasks and where they run:
  -n, --ntasks=n              number of tasks
  -N, --nodes=min[-max]       number of nodes
  -c, --cpus-per-task=n       CPUs of each task; nothing else is taken of the job then
      --ntasks-per-node=n     tasks on each node
  -r, --relative=n            begin at that node of the job, counted from 0
  -w, --nodelist=hosts        nodes that must be used
  -x, --exclude=hosts         nodes that must not be used
  -m, --distribution=type     block, cyclic, plane=n, arbitrary; with parts for sockets and cores
      --exact                 take no more than asked for, so that other steps have room
      --whole                 take all that the job has on the nodes
      --overlap               share CPUs with other steps
  -O, --overcommit            more tasks than CPUs
      --mem=size, --mem-per-cpu=size
                              memory of the step
      --gres=list, -G, --gpus=, --gpus-per-node=, --gpus-per-task=
                              GPUs and other resources of the step
      --cpu-bind=type         none, rank, map_cpu:list, mask_cpu:list, cores, sockets; verbose
      --gpu-bind=type         which GPUs a task sees
  -t, --time=limit            limit of the step, or of its job
  -I, --immediate[=secs]      fail where there is no room at once, or within so many seconds
      --jobid=id              a step of that job

Input and output:
  -i, --input=all|none|TASK|file
  -o, --output=all|none|TASK|file
  -e, --error=all|none|TASK|file
                              files may have %t, %n, %N, %j, %J, %s, %u, %x in their names
      --open-mode=append|truncate
  -l, --label                 begin each line with the number of its task
  -u, --unbuffered            do not wait for whole lines
      --pty                   task 0 gets a terminal

How it goes on and ends:
  -K, --kill-on-bad-exit[=0|1]  end all tasks when one fails
  -W, --wait=secs             end the others so long after the first end; 0: never
  -k, --no-kill               go on where a node fails
  -X, --disable-status        one Ctrl-C goes to the tasks at once
      --quit-on-interrupt     one Ctrl-C ends the step

Programs:
      --multi-prog            the executable is a file of lines 'RANKS PROGRAM ARGS'
      --mpi=none|pmi2|pmix|torch|list
                              torch: MASTER_ADDR, RANK and their like are set
      --export=ALL|NONE|[ALL,]names
                              which variables the tasks get
  -D, --chdir=dir             where they run
      --task-prolog=file, --task-epilog=file
                              run before and after each task, as the user

      --acctg-freq=[task=]secs  how often what the step uses is measured; 0: at its start and end only

Jobs of its own know sbatch's options too: -A, -b, -C, -d, -H, -J, -L, -p, -q, --comment,
--deadline, --exclusive, --mem, --nice, --reservation, --switches, --time-min ...

      --test-only             tell when it would start, and start nothing
  -Q, --quiet                 no words about the job
  -v, --verbose               tell the options as they were understood
  -V, --version               tell the version
  -h, --help                  this help
      --usage                 a shorter one

The exit status is the highest of the tasks; 128 and the signal's number where one ended a task.
";
