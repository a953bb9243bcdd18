#!/bin/sh
# One row per training switch alone against the plain recipe: MLPerf Tiny's ResNet-8 on CIFAR-10, 10 epochs, seed 1, W4A4, and W2A2 for
# the switches that aim at low bits. Writes OUTPUT/table.md: top-1 of the integer networks on the 10,000 test images.
#
#   benchmarks/switches.sh DATA OUTPUT [FLAGS]
#
# DATA holds CIFAR-10's binary files. FLAGS go to every run, such as `--threads 1`, or `--limit-train 512 --limit-test 200` for a look at
# whether all of it works. BITPACT names the program (default: bitpact). Runs that are done are not done again; one that was stopped goes on.
set -eu
if [ $# -lt 2 ]; then
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
data=$1 output=$2
shift 2
bitpact=${BITPACT:-bitpact}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$output"

# train NAME FLAGS: the run NAME, from its beginning or from where it stopped.
train() {
    run=$output/$1
    shift
    if [ -e "$run/last.safetensors" ]; then
        "$bitpact" train --resume "$run" --data "$data" "$@" > "$run.txt" 2>> "$run.log"
    else
        "$bitpact" train "$here/switches.toml" --data "$data" --output "$run" "$@" > "$run.txt" 2>> "$run.log"
    fi
}

# top1 NAME: per cent, from the last epoch's record.
top1() {
    sed -n 's/.*"integer_top1":\([0-9.eE-]*\).*/\1/p' "$output/$1/records.jsonl" | tail -n 1 | awk '{ printf "%.2f", 100 * $1 }'
}

# row NAME WHAT FLAGS: a line of the table; without W2A2 where WHAT begins with a dash.
row() {
    name=$1 what=$2
    shift 2
    low=yes
    case $what in -*) low=no what=${what#-} ;; esac
    train "$name-W4A4" "$@" --bits "${bits4:-W4A4}"
    cell=-
    if [ $low = yes ]; then
        train "$name-W2A2" "$@" --bits "${bits2:-W2A2}"
        cell=$(top1 "$name-W2A2")
    fi
    echo "| $what | $(top1 "$name-W4A4") | $cell |" >> "$output/table.tmp"
}

{
    echo "| switch | W4A4 | W2A2 |"
    echo "|---|---|---|"
} > "$output/table.tmp"
train teacher "$@" --bits float
row plain "plain recipe" "$@"
row bn-reestimate '`bn_reestimate = 50`' "$@" --bn-reestimate 50
row ema '`ema_decay = 0.999`' "$@" --ema-decay 0.999
row label-smoothing '-`label_smoothing = 0.1`' "$@" --label-smoothing 0.1
row adam '`optimizer = "adam"`, `lr = 1e-3`' "$@" --optimizer adam --lr 1e-3
row adamw '`optimizer = "adamw"`, `lr = 1e-3`, `weight_decay = 0.05`' "$@" --optimizer adamw --lr 1e-3 --weight-decay 0.05
row max-grad-norm '-`max_grad_norm = 1`' "$@" --max-grad-norm 1
row param-groups '-`param_groups`: clip values at `lr = 0.01`' "$@" --param-group '*.clip_val:lr=0.01'
row cutout '-`cutout = 8`' "$@" --cutout 8
bits4='W8A8@3,W4A4' bits2='W8A8@3,W4A4@6,W2A2'
row progressive '`bits = "W8A8@3,W4A4"`, `"W8A8@3,W4A4@6,W2A2"`' "$@"
unset bits4 bits2
row distillation '`teacher`: the float network of the same recipe' "$@" --teacher "$output/teacher"
row mixup '-`mixup = 0.2`' "$@" --mixup 0.2
mv "$output/table.tmp" "$output/table.md"
cat "$output/table.md"
