#!/bin/bash
# Shows: MPI on two nodes through PMI-2, as MPICH, Intel MPI and MVAPICH speak it: an all-reduce in C.
# Expect: "rank R of 4 on ...: sum 6" four times in mpi-<job id>.out.
#   sbatch mpi.sh                    needs mpicc of MPICH (MPICC chooses it)
#SBATCH --job-name=mpi
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=2
#SBATCH --mem=500M
#SBATCH --time=5
#SBATCH --output=mpi-%j.out

cat > "mpi-$SLURM_JOB_ID.c" <<'END'
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    int rank, size, sum;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    printf("rank %d of %d on %s: sum %d\n", rank, size, getenv("SLURMD_NODENAME"), sum);
    MPI_Finalize();
    return 0;
}
END
"${MPICC:-$(command -v mpicc.mpich || echo mpicc)}" -o "mpi-$SLURM_JOB_ID" "mpi-$SLURM_JOB_ID.c"
srun --mpi=pmi2 "./mpi-$SLURM_JOB_ID"
status=$?
rm "mpi-$SLURM_JOB_ID" "mpi-$SLURM_JOB_ID.c"
exit $status
