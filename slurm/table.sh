# One run of a table: quantizes, then evaluates, what is missing of it. Read by `reproduce` and reproduce.sbatch, after
# job.sh.
#
# `snrq runs` made ROOT/runs.tsv and a folder for every run. A run leaves there:
#   out/             the quantized model
#   EVALUATION.json  the answer of an evaluation, whole or not at all
#   failed           a line that says what failed last; gone when all is there

# read_run ROOT NUMBER: sets name, model, kind, evaluations and folder to those of a line of runs.tsv.
read_run() {
    local line
    line=$(sed -n "$2p" "$1/runs.tsv")
    IFS=$'\t' read -r name model kind evaluations <<<"$line"
    [ -n "$kind" ] || fail 65 "$1/runs.tsv: has no line $2"
    folder=$1/$name
}

# note_failure WHAT: after run_ranks.
note_failure() {
    echo "$1, exit code $code" >"$folder/failed"
    say "$name: $1 failed with exit code $code"
}

# Ends with code 0 if the run's model is complete.
quantize_run() {
    local state=0
    # Ranks whose starter was killed go on for a while.
    while "$SNRQ" status "$folder/out" >/dev/null 2>&1 || state=$?; [ $state -eq 69 ]; do
        say "$name: a run is at work there: waiting for its end"
        sleep 2
        state=0
    done
    code=0
    [ $state -ne 0 ] || return 0
    run_ranks quantize "$model" --options "$folder/quantize.options" -o "$folder/out"
    [ "$code" -eq 0 ] || note_failure quantize
}

# evaluate_run EVALUATION: sets code.
evaluate_run() {
    local subject=$folder/out part=$folder/.$1.$$.part
    [ "$kind" = quantize ] || subject=$model
    code=0
    [ ! -s "$folder/$1.json" ] || return 0
    run_ranks evaluate "$subject" --options "$folder/$1.options" --json >"$part"
    if [ "$code" -eq 0 ] && grep '^{' "$part" | tail -n 1 >"$part.json" && [ -s "$part.json" ]; then
        mv "$part.json" "$folder/$1.json"
    else
        note_failure "evaluate $1"
    fi
    rm -f "$part" "$part.json"
}

# Evaluates what was not evaluated yet; sets code to that of the first failure.
evaluate_runs() {
    local evaluation first=0
    rm -f "$folder"/.*.part "$folder"/.*.part.json
    for evaluation in ${evaluations//,/ }; do
        evaluate_run "$evaluation"
        [ $first -ne 0 ] || first=$code
        [ -z "$cancelled" ] || break
    done
    code=$first
    [ $code -ne 0 ] || [ -n "$cancelled" ] || rm -f "$folder/failed"
}
