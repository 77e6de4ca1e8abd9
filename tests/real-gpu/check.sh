#!/bin/bash
# Does Penstock tell the truth of real GPUs? See README.md beside this file. Changes no setting of any GPU.
set -u

penstock= load=
while [ $# -gt 0 ]; do
    case $1 in
    --penstock) penstock=${2:?--penstock needs a file}; shift 2 ;;
    --load) load=${2:?--load needs a command}; shift 2 ;;
    -h | --help) sed -n 2p "$0"; echo "check.sh --penstock FILE [--load COMMAND]"; exit 0 ;;
    *) echo "check.sh: unknown word $1; check.sh --help tells what there is" >&2; exit 2 ;;
    esac
done

here=$(cd "$(dirname "$0")" && pwd)
failed=0
ok() { echo "ok    $*"; }
skip() { echo "SKIP  $*"; }
fail() { echo "FAIL  $*"; failed=1; }
refuse() { echo "check.sh: $*" >&2; exit 2; }

[ -n "$penstock" ] || refuse "give the binary: --penstock target/release/penstock"
penstock=$(realpath "$penstock") && [ -x "$penstock" ] || refuse "$penstock is no program"
command -v nvidia-smi > /dev/null || refuse "there is no nvidia-smi here: this needs a real NVIDIA GPU and its driver"
smi() { nvidia-smi --format=csv,noheader,nounits "$@"; }
uuids=$(smi --query-gpu=uuid 2> /dev/null) && [ -n "$uuids" ] || refuse "nvidia-smi finds no GPU"

busy=$(smi --query-compute-apps=gpu_uuid)
free=
for uuid in $uuids; do
    case $busy in *"$uuid"*) ;; *) free=$uuid; break ;; esac
done
if [ -z "$free" ]; then
    echo "check.sh: every GPU of this machine is in use; nothing is checked" >&2
    exit 77
fi

dir=$(mktemp -d /tmp/penstock-real-gpu.XXXXXX)
work=$dir/work
mkdir "$work"
stop() {
    "$penstock" quickstart --stop --dir "$dir/cluster" > /dev/null 2>&1
    rm -rf "$dir"
}
trap stop EXIT
cd "$work" || exit 2
eval "$("$penstock" quickstart --dir "$dir/cluster" --detach)" || refuse "the quickstart did not start"

wait_for() { # SECONDS COMMAND...
    local end=$((SECONDS + $1)); shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.5
    done
}
number_of() { smi -i "$1" --query-gpu="$2" | tr -d ' '; }

# Inventory.
listed=$("$penstock" gpus -l -H)
for uuid in $uuids; do
    case $listed in
    *"$uuid"*) ok "inventory: $uuid" ;;
    *) fail "inventory: $uuid is not in penstock gpus: $listed" ;;
    esac
done
count=$(printf '%s\n' "$uuids" | wc -l)
seen=$(sinfo -h -o %G | grep -oE 'gpu:[^,(]*:[0-9]+' | awk -F: '{ sum += $NF } END { print sum + 0 }')
if [ "$(number_of "$free" mig.mode.current)" = Enabled ]; then
    skip "inventory: count (MIG is on; slices are counted)"
elif [ "$seen" = "$count" ]; then
    ok "inventory: $count GPUs"
else
    fail "inventory: nvidia-smi has $count GPUs, sinfo $seen"
fi

# A job sees exactly its GPU. It is asked for the free one by keeping the others drained here, in the
# quickstart alone.
index=0
for uuid in $uuids; do
    if [ "$uuid" != "$free" ]; then
        scontrol drain "$(hostname -s)" --gpu=$index reason=others > /dev/null 2>&1 ||
            scontrol drain node1 --gpu=$index reason=others
    fi
    index=$((index + 1))
done
sbatch -W -o sees.out --gres=gpu:1 -t 5 --wrap 'echo "$CUDA_VISIBLE_DEVICES"; nvidia-smi -L
for file in /dev/nvidia[0-9]*; do (: < "$file") 2> /dev/null && echo "opened $file"; done' > /dev/null
case $(head -1 sees.out) in
"$free") ok "one GPU: CUDA_VISIBLE_DEVICES is $free" ;;
*) fail "one GPU: CUDA_VISIBLE_DEVICES is $(head -1 sees.out), and not $free" ;;
esac
if [ "$(id -u)" != 0 ]; then
    skip "one GPU: isolation needs root"
else
    minor=$(nvidia-smi -q -i "$free" | awk '/Minor Number/ { print $NF }')
    opened=$(grep '^opened' sees.out)
    if [ "$opened" = "opened /dev/nvidia$minor" ]; then
        ok "one GPU: no other device file can be opened"
    else
        fail "one GPU: of /dev/nvidia* the job opened: $opened"
    fi
fi

# Utilisation and energy under load.
if [ -z "$load" ] && command -v nvcc > /dev/null; then
    nvcc -O2 -o burn "$here/burn.cu" && load=$work/burn
fi
if [ -z "$load" ]; then
    skip "utilisation, energy, killed job: no nvcc and no --load"
    exit $failed
fi
job=$(sbatch --parsable --gres=gpu:1 -t 10 -o load.out --wrap "exec $load")
has_process() { [ -n "$(smi -i "$free" --query-compute-apps=pid)" ]; }
if ! wait_for 60 has_process; then
    fail "load: no process came to the GPU: $(cat load.out 2> /dev/null)"
    exit 1
fi
sum=0 watts=0 times=20 began=$SECONDS
for _ in $(seq $times); do
    sum=$((sum + $(number_of "$free" utilization.gpu)))
    power=$(number_of "$free" power.draw)
    watts=$(awk "BEGIN { print $watts + ${power/\[*\]/0} }")
    sleep 1
done
took=$((SECONDS - began))
theirs=$((sum / times))
tell() { "$penstock" gpus -l -H | grep "$free"; }
ours=$(tell | grep -oE '[0-9]+%' | head -1 | tr -d %)
if [ -n "$ours" ] && [ $((ours > theirs ? ours - theirs : theirs - ours)) -le 10 ]; then
    ok "utilisation: $ours %, nvidia-smi $theirs %"
else
    fail "utilisation: ${ours:-unknown}, nvidia-smi $theirs %: $(tell)"
fi

# Killed: nothing is left.
scancel "$job"
is_clean() { [ -z "$(smi -i "$free" --query-compute-apps=pid)" ]; }
if wait_for 30 is_clean; then ok "killed job: no process is left"; else fail "killed job: a process is left"; fi
has_ended() { [ -z "$(squeue -h -j "$job" 2> /dev/null)" ]; }
wait_for 60 has_ended || fail "killed job: it does not end"

# Energy: what seff says of the job against mean power times its time.
joules=$(seff "$job" | grep -i energy | grep -oE '[0-9.]+ ?k?J' | head -1)
expect=$(awk "BEGIN { print $watts / $times * $took }")
if [ -z "$joules" ]; then
    fail "energy: seff tells none: $(seff "$job")"
else
    value=$(awk -v t="$joules" 'BEGIN { v = t + 0; if (t ~ /kJ/) v *= 1000; print v }')
    if awk "BEGIN { exit !($value > 0.85 * $expect) }"; then
        ok "energy: $joules, at least the $expect J of the $took s that were watched"
    else
        fail "energy: $joules, and $expect J were seen in $took s alone"
    fi
fi
exit $failed
