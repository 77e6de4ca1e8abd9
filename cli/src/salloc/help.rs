//! What does `salloc --help` say?

/// The short form, for `--usage`.
pub(super) const USAGE: &str = "\
Usage: salloc [-N numnodes|[min nodes]-[max nodes]] [-n num-processors] [-c ncpus] [-t minutes]
              [-p partition] [-A account] [-q qos] [-J name] [-D path] [-C features] [-w hosts]
              [-x hosts] [-I[sec]] [-K[signal]] [-k] [-O] [-m dist] [-G [type:]count] [-L list]
              [--gres=list] [--mem=size] [--mem-per-cpu=size] [--exclusive[=user]] [--no-shell]
              [--begin=time] [--deadline=time] [--reservation=name] [--bell] [command [args...]]
";

/// The long form.
pub(super) const HELP: &str = "\
Usage: salloc [OPTIONS...] [command [args...]]
Gets a job, runs a command in it on this host (default: your shell), and gives it back. SALLOC_*
variables stand for options; the command line wins over them.

sbatch's options say what the job is to have: -A, -b, -C, -c, -D, -d, -G, -J, -L, -N, -n, -p, -q,
-t, -w, -x, --comment, --deadline, --exclusive, --gpus-per-node, --gres, --hold, --mem,
--mem-per-cpu, --nice, --ntasks-per-node, --reservation, --signal, --switches, --time-min.

And those that only salloc and srun have:
  -I, --immediate[=secs]      fail where there is no room at once, or within so many seconds
  -K, --kill-command[=signal] end the command when the job ends (default: SIGTERM)
  -k, --no-kill               keep the job where a node fails
  -m, --distribution=type     block, cyclic, plane=n, arbitrary
  -O, --overcommit            more tasks than CPUs
      --bell, --no-bell       ring the terminal's bell when the job has its nodes
      --cpus-per-gpu=n, --mem-per-gpu=size, --gpus-per-task=[type:]n, --gpus-per-socket=[type:]n,
      --gpu-bind=type         GPUs and what goes with them
      --no-shell              run nothing; the job stays until it is cancelled or its time is over
      --sockets-per-node=n        with --gpus-per-socket

  -Q, --quiet                 no words about the job
  -v, --verbose               tell the options as they were understood
  -V, --version               tell the version
  -h, --help                  this help
      --usage                 a shorter one
";
