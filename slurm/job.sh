# What the batch scripts share; read by them, not run.
#
# A job ends in one of three ways: it is complete (exit code 0); it is requeued, because it stopped at a safe point
# when its time was nearly up (75) or was killed from outside; or it failed, for a reason that another start would find
# again. A signal reaches this shell, not the ranks: it is handed on, and the ranks stop at the end of the stage they
# are in.

# Until there are ranks to hand them on to, signals are remembered.
asked= cancelled=
trap 'asked=yes' USR1 USR2
trap 'asked=yes cancelled=yes' TERM

say() { echo "$(date -Is): $*"; }

fail() {
    local code=$1
    shift
    echo "$*" >&2
    exit "$code"
}

# Settings, program, threads; says what was set.
prepare() {
    # shellcheck source=slurm/site.sh
    . "${SNRQ_SITE:-$here/site.sh}"
    command -v "$SNRQ" >/dev/null ||
        fail 66 "there is no program '$SNRQ' on this node; set SNRQ to its full path in $here/site.sh"
    # One thread for each CPU of a rank; BLAS itself stays on one.
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}} OPENBLAS_NUM_THREADS=1
    export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
    # srun asks for it again (since Slurm 22.05 it does not take it from sbatch).
    export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
    case $SNRQ_LAUNCHER in
        mpirun) launch=(mpirun --map-by "slot:PE=${SLURM_CPUS_PER_TASK:-1}" --bind-to "${SNRQ_BIND:-core}") ;;
        srun) launch=(srun "--mpi=$SNRQ_SRUN_MPI" "--cpu-bind=${SNRQ_BIND:-cores}" --kill-on-bad-exit=1) ;;
        *) fail 64 "SNRQ_LAUNCHER: expected mpirun or srun, found '$SNRQ_LAUNCHER'" ;;
    esac
    [ "${SNRQ_BIND:-}" != none ] || [ "$SNRQ_LAUNCHER" != mpirun ] || launch=(mpirun --bind-to none)
    say "job $SLURM_JOB_ID, start ${SLURM_RESTART_COUNT:-0}, on $SLURM_JOB_NODELIST, ranks per node $SLURM_TASKS_PER_NODE"
    say "$OMP_NUM_THREADS threads per rank, started by: ${launch[*]}"
}

# Starts the program on all ranks, hands signals on, and sets `code` to how it ended.
run_ranks() {
    local pid
    # Two mpiruns of a user on a node must not share the folder of their sessions: the first that ends removes it. That
    # of this job's last start may not have ended. On other nodes, mpirun makes a folder of this name.
    local sessions
    sessions=$(mktemp -d "${TMPDIR:-/tmp}/snrq.${SLURM_JOB_ID:-$$}.XXXXXX") || fail 73 "no folder can be made in ${TMPDIR:-/tmp}"
    export OMPI_MCA_orte_tmpdir_base=$sessions PRTE_MCA_prte_tmpdir_base=$sessions # Open MPI 4 and 5
    "${launch[@]}" "$SNRQ" "$@" &
    pid=$!
    trap 'say "asked to stop: the ranks end at the next safe point"; kill -USR1 $pid 2>/dev/null' USR1 USR2
    # Sent by scancel, and when a time limit was reached without a warning: not a reason to come back.
    trap 'cancelled=yes; say "cancelled"; kill -USR1 $pid 2>/dev/null' TERM
    [ -z "$asked" ] || kill -USR1 $pid
    # A trap ends a wait, but not the program that is waited for.
    code=0
    wait $pid || code=$?
    while kill -0 $pid 2>/dev/null; do
        code=0
        wait $pid || code=$?
    done
    trap 'asked=yes' USR1 USR2
    trap 'asked=yes cancelled=yes' TERM
    rmdir "$sessions" 2>/dev/null || :
    say "exit code $code"
}

# Ends the job if it is complete, or failed by a mistake that stays: comes back otherwise.
conclude() {
    case $code in
        0 | 6[0-9] | 73 | 74) [ "$code" -eq 0 ] || exit "$code" ;;
        # 75, 76, killed ranks (137, 139, 143), lost nodes (which MPI may report as an internal error), and 1: mpirun
        # could not start the ranks, or lost them. check_progress sees to it that this comes to an end.
        *) requeue "$1" ;;
    esac
}

# Blocks that are finished in OUT.
finished_blocks() { grep -c '"block":' "$1/manifest.jsonl" 2>/dev/null || true; }

# Gives up if this job was requeued too often and no block was finished in between. OUT/slurm.restarts holds the number
# of finished blocks and the starts since it last changed.
check_progress() {
    local out=$1 finished before=-1 starts=0
    # A job whose ranks never started leaves no OUT to count in.
    [ -d "$out" ] || [ "${SLURM_RESTART_COUNT:-0}" -lt "$SNRQ_MOST_RESTARTS" ] ||
        fail 70 "$out: was not even made in ${SLURM_RESTART_COUNT} restarts: see above why the ranks did not start"
    [ -d "$out" ] || return 0
    finished=$(finished_blocks "$out")
    [ "${SLURM_RESTART_COUNT:-0}" -eq 0 ] || { read -r before starts <"$out/slurm.restarts"; } 2>/dev/null || true
    if [ "${finished:-0}" -eq "${before:--1}" ]; then starts=$((starts + 1)); else starts=0; fi
    echo "${finished:-0} $starts" >"$out/slurm.restarts"
    [ "$starts" -lt "$SNRQ_MOST_RESTARTS" ] ||
        fail 70 "$out: no block was finished in $starts restarts: a block needs more time than the job has; ask for a" \
            "longer --time or more nodes"
}

# Comes back, unless somebody wants the run to rest.
requeue() {
    local out=$1
    [ -z "$cancelled" ] || exit "$code"
    if [ -e "$out/snrq.halt" ]; then
        say "$out/snrq.halt exists: not requeued; delete it and submit the job again"
        exit "$code"
    fi
    say "requeued"
    scontrol requeue "$SLURM_JOB_ID"
    sleep 30 # until Slurm ends this script
    exit "$code"
}
