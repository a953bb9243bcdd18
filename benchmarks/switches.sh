#!/usr/bin/env bash
# Trains the same small network with one training switch after the other and writes a table of integer accuracies.
#
#   benchmarks/switches.sh DATA OUTPUT
#
# The plain recipe is switches.toml beside this file. DATA holds cifar-10-batches-bin. OUTPUT gets one folder a run (config.toml,
# records.jsonl, model.bitpact), NAME.json with its result, and table.md, which is written again after every run. A run that has its
# result is skipped, one that was cut off goes on, so the script may be stopped and started at will.
#
# BITPACT names the program (target/release/bitpact), THREADS its threads (1), EPOCHS the epochs of a run (10), ROWS a
# pattern of runs (all), such as ROWS='*-W2A2'. Distillation needs the run plain-W4A4.
set -euo pipefail

if [ $# -ne 2 ]; then
    echo "usage: benchmarks/switches.sh DATA OUTPUT" >&2
    exit 2
fi
data=$1 output=$2
bitpact=${BITPACT:-target/release/bitpact}
threads=${THREADS:-1}
epochs=${EPOCHS:-10}
wanted=${ROWS:-*}
recipe=$(dirname "$0")/switches.toml
mkdir -p "$output"

# Name, flags, and what the table says; progressive bits are those of train() below.
rows='
plain||the plain recipe
progressive||`bits = "W8A8@3,W4A4@6,W2A2"`, or `"W8A8@3,W4A4"`
ema|--ema-decay 0.999|`ema_decay = 0.999`
bn-reestimate|--bn-reestimate 50|`bn_reestimate = 50`
adam|--optimizer adam --lr 1e-3|`optimizer = "adam"`, `lr = 1e-3`
adamw|--optimizer adamw --lr 1e-3 --weight-decay 0.05|`optimizer = "adamw"`, `lr = 1e-3`, `weight_decay = 0.05`
param-groups|--param-group *.clip_val:lr=0.01|`param_groups`: clip values at `lr = 0.01`
max-grad-norm|--max-grad-norm 1|`max_grad_norm = 1`
label-smoothing|--label-smoothing 0.1|`label_smoothing = 0.1`
cutout|--cutout 8|`cutout = 8`
mixup|--mixup 0.2|`mixup = 0.2`
distillation|--teacher TEACHER|`teacher`: the W4A4 network of the plain recipe
'

field() { sed -n "s/.*\"$1\":\([0-9.]*\).*/\1/p" "$2"; }

cell() { # NAME
    [ ! -s "$output/$1.json" ] || awk -v x="$(field top1 "$output/$1.json")" 'BEGIN { printf "%.2f %%", 100 * x }'
}

table() {
    local name flags what
    echo "| switch | W2A2 | W4A4 |"
    echo "|---|---|---|"
    while IFS='|' read -r name flags what; do
        [ -n "$name" ] || continue
        echo "| $what | $(cell "$name-W2A2") | $(cell "$name-W4A4") |"
    done <<<"$rows"
}

train() { # NAME BITS FLAGS
    local name=$1-$2 bits=$2
    local run=$output/$name
    shift 2
    # shellcheck disable=SC2254 # a pattern it is
    case $name in $wanted) ;; *) return 0 ;; esac
    [ ! -s "$run.json" ] || return 0
    case $name in
    progressive-W2A2) bits=W8A8@3,W4A4@6,W2A2 ;;
    progressive-W4A4) bits=W8A8@3,W4A4 ;;
    esac
    echo "== $name"
    if [ -e "$run/last.safetensors" ]; then
        set -- --resume "$run"
    else
        rm -rf "${run:?}"
        set -- "$recipe" --output "$run" --bits "$bits" --epochs "$epochs" "$@"
    fi
    "$bitpact" train "$@" --data "$data" --threads "$threads" --json >"$run.part"
    mv "$run.part" "$run.json"
    table >"$output/table.part"
    mv "$output/table.part" "$output/table.md"
}

for bits in W2A2 W4A4; do
    while IFS='|' read -r name flags what; do
        [ -n "$name" ] || continue
        [ "$name" != distillation ] || train plain W4A4
        read -ra flags <<<"${flags/TEACHER/$output/plain-W4A4}"
        train "$name" "$bits" "${flags[@]}"
    done <<<"$rows"
done
