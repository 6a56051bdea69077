#!/bin/sh
# Runs one test with a TMPDIR of its own, which goes at the end with all that is left in it.
#
#   own_folder.sh memory|disk COMMAND ...
#
# Two mpirun at a time must not share TMPDIR: the first that ends removes the folders of the other. The name is short,
# since sockets, whose paths have at most 107 characters, may lie below it. In memory it costs nothing to make files
# durable; where there is little memory for files, they go to the disk.
for base in /dev/shm "${TMPDIR:-/tmp}" /tmp; do
    case $1:$base in
    disk:/dev/shm | *:*[!A-Za-z0-9/._-]* | *:????????????????????????????????????????*) continue ;;
    *:/dev/shm) [ "$(df -Pk /dev/shm 2>/dev/null | awk 'END { print ($4 > 2000000) }')" = 1 ] || continue ;;
    esac
    [ ! -w "$base" ] || break
done
shift

# What tests left that were killed together with this script, some hours ago.
find "$base" -maxdepth 1 -name 'snrq-test.*' -user "$(id -u)" -mmin +240 -exec rm -rf {} + 2>/dev/null
TMPDIR=$(mktemp -d "$base/snrq-test.XXXXXX") || exit 1
export TMPDIR
unset OMPI_MCA_orte_tmpdir_base PRTE_MCA_prte_tmpdir_base # they would be taken instead
trap 'rm -rf "$TMPDIR"' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
"$@"
