#!/bin/bash
# On a login node: scripts that are written where they are submitted.
for size in 10 20; do
    name="run_$size"
    sbatch <<EOT | sed 's/[0-9][0-9]*/N/'
#!/bin/bash
#SBATCH --job-name=$name
#SBATCH --output=$name.out
#SBATCH -t 5 --mem=50

echo "size $size as \$SLURM_JOB_NAME"
EOT
done
sbatch --wait -o quoted.out -t 5 --mem=50 <<'EOT' | sed 's/[0-9][0-9]*/N/'
#!/bin/sh
echo "quoted: $0 in $SLURM_JOB_NUM_NODES" | sed 's#/.*/##; s/job[0-9]*/jobN/'
EOT
printf '#!/bin/sh\necho through $1 and $2\n' > small.sh
sbatch -W -o small.out -t 5 --mem=50 small.sh "one word" two > /dev/null
printf 'echo no shebang\n' | sbatch -t 5
echo "status $?"
cat run_10.out run_20.out quoted.out small.out
