#!/usr/bin/env bash
# A native build and a portable one give the same bytes where they use the same instructions. Builds the program of the
# portable preset that has those of $SNRQ, and compares checkpoints and evaluations of the two.
# usage: check_portable.sh FOLDER GENERATOR COMPILER
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=$1 generator=$2 compiler=$3

instructions=$("$SNRQ" --version | sed -n '2s/ .*//p')
cmake --preset portable -B "$folder" -G "$generator" -DCMAKE_C_COMPILER="$compiler"
if ! [ -e "$folder/CMakeFiles/snrq-$instructions.dir" ]; then
    echo "a portable build for this kind of CPU has one program only"
    exit 77
fi
cmake --build "$folder" --parallel 2 --target "snrq-$instructions"
portable=$folder/kernels/snrq-$instructions
[ "$("$portable" --version | sed -n '2s/ .*//p')" = "$instructions" ]

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
while read -ra options; do
    for program in "$SNRQ" "$portable"; do
        rm -rf "$work/out"
        "$program" quantize tests/data/model --calibration tests/data/calibration.txt --sequences 16 --length 64 \
            -o "$work/out" "${options[@]}" 2>"$work/log" || {
            cat "$work/log" >&2
            exit 1
        }
        (cd "$work/out" && sha256sum -- *.h5 manifest.jsonl)
        "$program" evaluate "$work/out" --text tests/data/heldout.txt --sequences 8 --length 64 --json \
            --reference tests/data/model
    done >"$work/both"
    lines=$(wc -l <"$work/both")
    if ! diff <(head -n $((lines / 2)) "$work/both") <(tail -n +$((lines / 2 + 1)) "$work/both"); then
        echo "$portable differs from $SNRQ with ${options[*]}"
        exit 1
    fi
    echo "same bytes: ${options[*]}"
done <<'OPTIONS'
--method rtn --bits 4 --group-size 32 --asymmetric
--method gptq --bits 3 --group-size 64
--method gptaq --bits 3 --group-size channel
--method ksnrq --bits 2 --group-size 32 --beam 8 --refine 1 --regrid 1
OPTIONS
