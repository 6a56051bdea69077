#!/usr/bin/env bash
# Two jobs that start their ranks at the same time have a folder each for what mpirun keeps, also two starts of one job;
# two tests have a TMPDIR each. The folders are gone at the end.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
source_dir=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)

# Stands for mpirun, both versions: writes down its folder and waits for the other one.
cat >"$work/launcher" <<'FAKE'
#!/bin/sh
[ -d "$OMPI_MCA_orte_tmpdir_base" ] && [ "$PRTE_MCA_prte_tmpdir_base" = "$OMPI_MCA_orte_tmpdir_base" ] || exit 3
echo "$OMPI_MCA_orte_tmpdir_base" >"$WORK/folder-$1"
for i in 1 2 3 4 5 6 7 8 9 10; do
    [ ! -e "$WORK/folder-$2" ] || exit 0
    sleep 0.2
done
FAKE
chmod +x "$work/launcher"
export WORK=$work SLURM_JOB_ID=7 TMPDIR=$work

start() {
    bash -c '. "$0"; launch=("$WORK/launcher"); SNRQ=$1; run_ranks "$2"; exit "$code"' "$source_dir/slurm/job.sh" "$1" "$2" \
        >"$work/log-$1" 2>&1
}
start 1 2 &
start 2 1
wait $!
if cmp -s "$work/folder-1" "$work/folder-2"; then
    echo "two starts have the same folder: $(cat "$work/folder-1")"
    exit 1
fi
for k in 1 2; do
    if [ -e "$(cat "$work/folder-$k")" ]; then
        echo "$(cat "$work/folder-$k") is left"
        exit 1
    fi
done

export OMPI_MCA_orte_tmpdir_base=/common
own() { sh "$source_dir/tests/own_folder.sh" disk sh -c 'echo "$TMPDIR${OMPI_MCA_orte_tmpdir_base:-}"'; }
first=$(own)
second=$(own)
[ "$first" != "$second" ]
[ ! -e "$first" ]
case $first in "$work"/snrq-test.?????? | /tmp/snrq-test.??????) ;; *) echo "unexpected folder: $first"; exit 1 ;; esac
