#!/usr/bin/env bash
# Trains the same small network with one pair of quantizers after the other and writes a table of integer accuracies.
#
#   benchmarks/quantizers.sh DATA OUTPUT
#
# DATA holds cifar-10-batches-bin. OUTPUT gets one folder a row (config.toml, records.jsonl, model.bitpact), NAME.json with
# its result, and table.md, which is written again after every row. A row that has its result is skipped, one that was cut off goes
# on, so the script may be stopped and started at will. A row that fails is named in the table and does not stop the others.
#
# BITPACT names the program (target/release/bitpact), THREADS its threads (1), EPOCHS the epochs of a row (10), ROWS a
# pattern of rows (all), such as ROWS='pact-*-W2A2'.
set -euo pipefail

if [ $# -ne 2 ]; then
    echo "usage: benchmarks/quantizers.sh DATA OUTPUT" >&2
    exit 2
fi
data=$1 output=$2
bitpact=${BITPACT:-target/release/bitpact}
threads=${THREADS:-1}
epochs=${EPOCHS:-10}
wanted=${ROWS:-*}
mkdir -p "$output"

# act_quant clip_scale weight_quant weight_scale; a dash is the recipe's own value.
pairs='
pact - dorefa -
pact+ - sawb+ -
lsq - lsq -
pact - sawb -
pact+ - dorefa -
pact+ - sawb+ channel
lsq - lsq channel
pact - sawb+ -
pact - minmax -
fixed - sawb+ -
relu - sawb+ -
pact channel dorefa -
pact+ channel sawb+ -
'

row_name() { # act clip_scale weight weight_scale bits
    local act=$1 weight=$3
    [ "$2" = - ] || act=$act-$2
    [ "$4" = - ] || weight=$weight-$4
    echo "$act-$weight-$5"
}

# The hyper-parameters of the built-in recipe cifar10-resnet20.
recipe() {
    echo 'dataset = "cifar10"'
    echo 'arch = "resnet8"'
    echo "bits = \"$5\""
    echo "act_quant = \"$1\""
    [ "$2" = - ] || echo "clip_scale = \"$2\""
    echo "weight_quant = \"$3\""
    [ "$4" = - ] || echo "weight_scale = \"$4\""
    echo "epochs = $epochs"
    cat <<'END'
clip_weight_decay = 2e-4
batch_size = 128
lr = 0.1
momentum = 0.9
weight_decay = 2e-4
schedule = "step"
milestones = [0.3, 0.6]
lr_decay = 0.1
augment = { pad = 4, flip = true }
seed = 1
END
}

field() { sed -n "s/.*\"$1\":\([0-9.]*\).*/\1/p" "$2"; }

percent() { awk -v x="$1" 'BEGIN { printf "%.2f %%", 100 * x }'; }

table() {
    local bits act clip weight scale name
    echo "| activations | alpha a | weights | scale a | W4A4 | W2A2 |"
    echo "|---|---|---|---|---|---|"
    while read -r act clip weight scale; do
        [ -n "$act" ] || continue
        local cells=''
        for bits in W4A4 W2A2; do
            name=$(row_name "$act" "$clip" "$weight" "$scale" "$bits")
            if [ -s "$output/$name.json" ]; then
                cells="$cells $(percent "$(field top1 "$output/$name.json")") |"
            elif [ -e "$output/$name.failed" ]; then
                cells="$cells failed |"
            else
                cells="$cells |"
            fi
        done
        [ "$clip" != - ] || clip=layer
        if [ "$scale" = - ]; then
            [ "$weight" = minmax ] && scale=channel || scale=layer
        fi
        echo "| \`$act\` | $clip | \`$weight\` | $scale |$cells"
    done <<<"$pairs"
}

while read -r act clip weight scale; do
    [ -n "$act" ] || continue
    for bits in W2A2 W4A4; do
        name=$(row_name "$act" "$clip" "$weight" "$scale" "$bits")
        # shellcheck disable=SC2254 # a pattern it is
        case $name in $wanted) ;; *) continue ;; esac
        [ ! -s "$output/$name.json" ] || continue
        recipe "$act" "$clip" "$weight" "$scale" "$bits" >"$output/$name.toml"
        if [ -e "$output/$name/last.safetensors" ]; then
            run=(train --resume "$output/$name")
        else
            rm -rf "${output:?}/$name"
            run=(train "$output/$name.toml" --output "$output/$name")
        fi
        echo "== $name"
        rm -f "$output/$name.failed"
        if "$bitpact" "${run[@]}" --data "$data" --threads "$threads" --json >"$output/$name.part"; then
            mv "$output/$name.part" "$output/$name.json"
        else
            mv "$output/$name.part" "$output/$name.failed"
        fi
        table >"$output/table.part"
        mv "$output/table.part" "$output/table.md"
    done
done <<<"$pairs"
