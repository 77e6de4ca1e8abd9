#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=1 --time=5 --mem=50
#SBATCH --output=sbcast.out
copy=/tmp/copy.$SLURM_JOB_ID
printf '#!/bin/sh\necho "copy on a node, $1"\n' > program
chmod 755 program
sbcast -f program $copy && echo copied
srun $copy started | sort | uniq -c
sbcast program $copy 2> again.err || echo "not over what is there"
srun --ntasks-per-node=1 rm -f $copy
