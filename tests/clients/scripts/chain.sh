#!/bin/bash
# On a login node: jobs that wait for each other.
common="-t 5 --mem=20 -o chain.%x.out"
first=$(sbatch --parsable $common -J first --wrap "sleep 0.5; echo first > chain.txt")
second=$(sbatch --parsable $common -J second --dependency=afterok:$first --wrap "echo second >> chain.txt")
third=$(sbatch --parsable $common -J third -d afterok:$first:$second --wrap "echo third >> chain.txt; exit 2")
sorry=$(sbatch $common -J sorry --dependency=afternotok:$third --wrap "echo sorry >> chain.txt" | awk '{print $NF}')
never=$(sbatch --parsable $common -J never -d afterok:$third --kill-on-invalid-dep=yes --wrap "echo never >> chain.txt")
sbatch --wait $common -J last --dependency=afterok:$(sbatch --parsable $common -J nested -d afterany:$third:$sorry --wrap true) \
    --wrap "echo last >> chain.txt; exit 7" > chain.submit
echo "waited for status $?"
sed 's/[0-9][0-9]*/N/' chain.submit
cat chain.txt
# One of a name after the other.
for n in 1 2; do
    job=$(sbatch --parsable $common -J alone --dependency=singleton --wrap "sleep 0.3; echo alone $n >> chain.txt")
done
srun -Q -t 5 --mem=20 --dependency=afterany:$job tail -n 2 chain.txt
sbatch --parsable -d afterok:1x --wrap true
echo "status $?"
sbatch --parsable -p nowhere --wrap true
echo "status $?"
