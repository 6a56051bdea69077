#!/usr/bin/env bash
# The demo: quantizes the bundled model at 3 and 2 bits with three methods and prints one table. The methods have the same
# grid, so that only they differ; a last row has the defaults.
# Started by ./bootstrap.sh demo, which builds the program first. By hand:
#   SNRQ=build/demo/snrq tests/end_to_end/demo.sh
# The checkpoints go to a temporary folder, or to SNRQ_DEMO_DIR (which must not exist yet) and stay there.
# Progress and errors go to stderr, the table to stdout.
set -euo pipefail
export LC_ALL=C

source_dir=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
data=${SNRQ_TEST_DATA:-$source_dir/tests/data}
model=$data/model
snrq=${SNRQ:-snrq}
ranks=2

# Two ranks share the machine.
OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((($(nproc) + ranks - 1) / ranks))}
export OMP_NUM_THREADS OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-1}

fail() {
    echo "demo: $*" >&2
    exit 1
}

for need in "$model/config.json" "$model/model.safetensors" "$model/tokenizer.json" "$data/calibration.txt" \
    "$data/heldout.txt"; do
    [ -s "$need" ] || fail "$need is missing"
done
command -v "$snrq" >/dev/null || fail "there is no program '$snrq'; ./bootstrap.sh demo builds it"

# Two mpiruns at once must not share the folder of their sessions: the first that ends removes it.
sessions=$(mktemp -d)
trap 'rm -rf "$sessions"' EXIT
export OMPI_MCA_orte_tmpdir_base=$sessions PRTE_MCA_prte_tmpdir_base=$sessions # Open MPI 4 and 5

if [ -n "${SNRQ_DEMO_DIR:-}" ]; then
    work=$SNRQ_DEMO_DIR
    [ ! -e "$work" ] || fail "$work (SNRQ_DEMO_DIR) exists; remove it or name another folder"
    mkdir -p -- "$work"
    work=$(CDPATH='' cd -- "$work" && pwd)
else
    work=$(mktemp -d)
    trap 'rm -rf "$work" "$sessions"' EXIT
fi

# run COMMAND...: its stdout goes to $work/stdout; a failure ends the demo with everything it said.
run() {
    local status=0
    "$@" </dev/null >"$work/stdout" 2>"$work/stderr" || status=$?
    if [ $status -ne 0 ]; then
        {
            printf '\ndemo: this command failed with exit code %d:\n ' $status
            printf ' %q' "$@"
            printf '\n\n'
            cat "$work/stdout" "$work/stderr"
        } >&2
        exit 1
    fi
}

# number KEY: its value in the JSON object that the last command printed.
number() {
    local value
    value=$(sed -n 's/.*"'"$1"'": *\(-\{0,1\}[0-9][-+.0-9eE]*\).*/\1/p' "$work/stdout" | head -n 1)
    [ -n "$value" ] || fail "no number \"$1\" in the output of evaluate: $(cat "$work/stdout")"
    echo "$value"
}

bytes() { cat "$@" | wc -c; }

# row BITS METHOD GRID PERPLEXITY KL BYTES SECONDS: one line of the table; "-" stays as it is.
row() {
    awk -v bits="$1" -v method="$2" -v grid="$3" -v perplexity="$4" -v kl="$5" -v bytes="$6" -v seconds="$7" 'BEGIN {
        printf "%4s  %-6s  %-7s  %10.3f  %7s  %5.2f MB  %7s\n", bits, method, grid, perplexity,
               kl == "-" ? "-" : sprintf("%.4f", kl), bytes / 1e6, seconds == "-" ? "-" : sprintf("%.1f", seconds)
    }' >>"$work/table"
}

evaluate() { run mpirun -n $ranks "$snrq" evaluate "$@" --text "$data/heldout.txt" --length 256 --json; }

begin=$EPOCHREALTIME
echo "evaluating the model itself" >&2
evaluate "$model"
perplexity=$(number perplexity)
row 16 fp - "$perplexity" - "$(bytes "$model"/*.safetensors)" -

for bits in 3 2; do
    for method in rtn snrq ksnrq defaults; do
        echo "quantizing to $bits bits with $method" >&2
        out=$work/$bits-bit-$method
        grid=minmax
        options=(--method "$method" --baseline-grid)
        [ $method != defaults ] || { method=ksnrq grid=hessian options=(); }
        start=$EPOCHREALTIME
        run mpirun -n $ranks "$snrq" quantize "$model" --calibration "$data/calibration.txt" -o "$out" \
            --bits $bits --group-size 64 --sequences 64 --length 256 --seed 0 "${options[@]}"
        seconds=$(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }')
        evaluate "$out" --reference "$model"
        perplexity=$(number perplexity)
        kl=$(number kl)
        row $bits $method $grid "$perplexity" "$kl" "$(bytes "$out"/*.h5)" "$seconds"
    done
done

printf '\n%4s  %-6s  %-7s  %10s  %7s  %8s  %7s\n' bits method grid perplexity KL size seconds
cat "$work/table"
echo
echo "Rows with grid minmax differ in the method alone (--baseline-grid: no refinement, the same damping)."
echo "Rows with grid hessian are the defaults: ksnrq, with scales fitted to the data and refinement."
awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { printf "\nAll of it took %.0f s.\n", b - a }'
if [ -n "${SNRQ_DEMO_DIR:-}" ]; then
    rm -f "$work/stdout" "$work/stderr" "$work/table"
    echo "The checkpoints are in $work."
fi
