#!/bin/bash
# Interactive work, with script(1) as the terminal.
stty_of() { script -qec "stty cols 91 rows 33; $1" /dev/null < /dev/null | tr -d '\r' | sed 's/\^[@D]//'; }
stty_of "srun -Q -t 5 --mem=50 --pty bash -c 'test -t 0 && test -t 1 && echo terminal; stty size; exit 6' 2> /dev/null; echo status \$?" \
    | grep -v '^$'
stty_of "srun -Q -t 5 --mem=50 bash -c 'test -t 1 || echo no terminal'"
