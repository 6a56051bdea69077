#!/usr/bin/env bash
# The demo's script by itself, with a stand-in for the program: the table has one row for the model and one for each
# run with the figures of that run; a failing command ends it with that command's words and no table.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
demo=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)/demo.sh

mkdir -p "$work/bin" "$work/data/model"
for name in model/config.json model/model.safetensors model/tokenizer.json calibration.txt heldout.txt; do
    echo text >"$work/data/$name"
done

# mpirun -n 2 COMMAND...: one process will do.
cat >"$work/bin/mpirun" <<'FAKE'
#!/bin/sh
[ -d "$OMPI_MCA_orte_tmpdir_base" ] && [ "$PRTE_MCA_prte_tmpdir_base" = "$OMPI_MCA_orte_tmpdir_base" ] || exit 3
echo "$OMPI_MCA_orte_tmpdir_base" >>"$SESSIONS"
shift 2
exec "$@"
FAKE
# quantize leaves a file of BITS bytes; evaluate of the model says 10, of a checkpoint 10 + BITS.
cat >"$work/bin/snrq" <<'FAKE'
#!/bin/sh
command=$1 model=$2 words=$*
while [ $# -gt 1 ]; do
    case $1 in
    -o) out=$2 ;;
    --bits) bits=$2 ;;
    --method) method=$2 ;;
    esac
    shift
done
case $command in
quantize)
    echo "a line of progress"
    if [ "$method" = "$FAIL_METHOD" ]; then
        echo "this did not work" >&2
        exit 65
    fi
    mkdir "$out" && head -c "${bits}0000" /dev/zero >"$out/block-00000.h5" && echo "$bits" >"$out/bits" && echo "$words" >"$out/words"
    ;;
evaluate)
    bits=$(cat "$model/bits" 2>/dev/null || echo 0)
    printf '{"perplexity": %d.5, "mean_token_loss": 2.3, "tokens": 100, "kl": %de-2, "top1_agreement": 0.5}\n' \
        $((10 + bits)) "$bits"
    ;;
esac
FAKE
chmod +x "$work/bin/mpirun" "$work/bin/snrq"
export PATH="$work/bin:$PATH" SNRQ="$work/bin/snrq" SNRQ_TEST_DATA="$work/data" FAIL_METHOD=none SESSIONS="$work/sessions"

SNRQ_DEMO_DIR="$work/kept here" bash "$demo" >"$work/table" 2>"$work/progress"
cat "$work/table"
expect() {
    grep -Eq "$1" "$work/table" || {
        echo "no line like: $1"
        exit 1
    }
}
expect '^bits +method +grid +perplexity +KL +size +seconds$'
expect '^ +16 +fp +- +10\.500 +- +0\.00 MB +-$'
for row in "rtn +minmax" "snrq +minmax" "ksnrq +minmax" "ksnrq +hessian"; do
    expect "^ +3 +$row +13\.500 +0\.0300 +0\.03 MB +[0-9]+\.[0-9]$"
    expect "^ +2 +$row +12\.500 +0\.0200 +0\.02 MB +[0-9]+\.[0-9]$"
done
# Only the methods differ in rows with grid minmax; the other row has the defaults.
for run in 3-bit-rtn 2-bit-snrq 3-bit-ksnrq; do
    grep -q -- '--baseline-grid' "$work/kept here/$run/words"
done
if grep -Eq -- '--(baseline-grid|method|grid|refine|regrid)' "$work/kept here/2-bit-defaults/words"; then
    echo 'the row of the defaults has other options'
    exit 1
fi
[ -e "$work/kept here/2-bit-ksnrq/block-00000.h5" ]

if FAIL_METHOD=snrq bash "$demo" >"$work/table" 2>"$work/progress"; then
    echo "a failing command did not fail the demo"
    exit 1
fi
[ ! -s "$work/table" ]
# Each of the two demos had a folder of its own for what mpirun keeps, and removed it.
[ "$(sort -u "$work/sessions" | wc -l)" -eq 2 ]
while read -r folder; do [ ! -e "$folder" ]; done <"$work/sessions"
grep -q 'this did not work' "$work/progress"
grep -q 'exit code 65' "$work/progress"
