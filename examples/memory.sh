#!/bin/bash
# Shows: a job that takes more memory than it asked for. Expect: where the agent runs as root, the
# kernel ends the job and `sacct -j <job id>` says OUT_OF_MEMORY. Without root no memory is limited:
# then the job says so and is COMPLETED.
#   sbatch memory.sh
#SBATCH --job-name=memory
#SBATCH --mem=64M
#SBATCH --time=1
#SBATCH --output=memory-%j.out

echo "asked for $SLURM_MEM_PER_NODE MiB, taking 256 MiB"
# tail keeps what it reads until a line ends, and zeros have no line.
head -c 256M /dev/zero | tail -n 1 | wc -c
[ "${PIPESTATUS[1]}" -eq 0 ] || exit 1
echo "nothing stopped it: memory is not limited here"
