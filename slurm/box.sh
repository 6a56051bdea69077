#!/bin/bash
# A Slurm cluster of this machine's own, for tests: controller, nodes and munge with all their state in one folder,
# without systemd, control groups or anything outside that folder. Needs root, for nodes of different names.
#
#   slurm/box.sh start DIR [NODES [CPUS]]   one node called as the host, or several: box1, box2, ...
#   slurm/box.sh kill-node DIR NODE         SIGKILL to a node's daemon and everything it runs
#   slurm/box.sh start-node DIR NODE
#   slurm/box.sh stop DIR
#
# Afterwards `export SLURM_CONF=DIR/slurm.conf` makes sbatch and the others use it. DIR must be short (it holds a
# socket) and readable for all. Ports: SNRQ_BOX_PORT (7817) and above.
set -euo pipefail

[ $# -ge 2 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 64; }
verb=$1 box=$2
port=${SNRQ_BOX_PORT:-7817}
host=$(hostname -s)
export SLURM_CONF=$box/slurm.conf

missing() {
    local tool
    for tool in munged slurmctld slurmd sbatch unshare; do
        command -v $tool >/dev/null || { echo "$tool is missing (Debian: slurm-wlm munge)" >&2; exit 77; }
    done
    [ "$(id -u)" -eq 0 ] || { echo "only root can start nodes" >&2; exit 77; }
}

node_names() {
    local i
    if [ "$1" -eq 1 ]; then echo "$host"; return; fi
    for ((i = 1; i <= $1; i++)); do echo "box$i"; done
}

# configure NODES CPUS
configure() {
    local name number=0 megabytes
    megabytes=$(awk -v n="$1" '/^MemTotal/ { printf "%d", $2 / 1024 * 0.8 / n }' /proc/meminfo)
    cat <<CONF
ClusterName=box
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$box/munge.socket
CredType=cred/munge
StateSaveLocation=$box/state
SlurmdSpoolDir=$box/%n.spool
TmpFS=$box/%n.tmp
SlurmctldPidFile=$box/slurmctld.pid
SlurmdPidFile=$box/%n.pid
SlurmctldLogFile=$box/slurmctld.log
SlurmdLogFile=$box/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=500
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=10
BatchStartTimeout=10
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MinJobAge=3600
CONF
    for name in $(node_names "$1"); do
        number=$((number + 1))
        echo "NodeName=$name NodeAddr=127.0.0.1 NodeHostname=$name Port=$((port + number)) CPUs=$2 RealMemory=$megabytes"
    done
    echo "PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10 GraceTime=10"
    echo "PartitionName=urgent Nodes=ALL MaxTime=INFINITE DefaultTime=10 PriorityTier=2"
}

# Each of several nodes has a host name of its own, by which MPI tells nodes apart.
start_node() {
    # As after a reboot: what steps left there (PMIx) would keep a step of the same number from starting.
    rm -rf "${box:?}/$1.spool" "${box:?}/$1.tmp"
    mkdir -p "$box/$1.spool" "$box/$1.tmp"
    if [ "$1" = "$host" ]; then
        slurmd -N "$1"
    else
        unshare --uts sh -c 'hostname "$0" && exec slurmd -N "$0"' "$1"
    fi
}

# Ends the process of a pid file, and waits for it.
end() {
    local pid i
    pid=$(cat "$1" 2>/dev/null) || return 0
    kill "-${2:-TERM}" "$pid" 2>/dev/null || true
    for ((i = 0; i < 100; i++)); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    rm -f "$1"
}

# Everything that runs on a node: what shares its daemon's host name.
processes_of() {
    local name space
    name=$(readlink "/proc/$1/ns/uts")
    for space in /proc/[0-9]*/ns/uts; do
        [ "$(readlink "$space" 2>/dev/null)" != "$name" ] || echo "$space" | cut -d/ -f3
    done
}

case $verb in
    start)
        missing
        nodes=${3:-1} cpus=${4:-2}
        mkdir -p "$box/state"
        chmod 755 "$box"
        configure "$nodes" "$cpus" >"$SLURM_CONF"
        # Later versions want control groups unless they are told otherwise, in a word that earlier ones do not know.
        printf '%s\n' 23.11 "$(slurmd -V | cut -d' ' -f2)" | sort -V -C && echo CgroupPlugin=disabled >"$box/cgroup.conf"
        (umask 077 && dd if=/dev/urandom of="$box/munge.key" bs=1024 count=1 2>/dev/null)
        munged --force --key-file="$box/munge.key" --socket="$box/munge.socket" --pid-file="$box/munged.pid" \
            --log-file="$box/munged.log" --seed-file="$box/munge.seed" 2>"$box/munged.err" || {
            cat "$box/munged.err" >&2
            exit 1
        }
        slurmctld -c
        for name in $(node_names "$nodes"); do start_node "$name"; done
        for ((i = 0; i < 150; i++)); do
            idle=$(sinfo -h -N -p all -o %T 2>/dev/null | grep -cx idle || true)
            [ "$idle" -eq "$nodes" ] && exit 0
            sleep 0.1
        done
        echo "the nodes did not become idle; see $box/*.log" >&2
        exit 1
        ;;
    kill-node)
        [ "$3" != "$host" ] || { echo "only a node with a name of its own can be killed" >&2; exit 64; }
        # shellcheck disable=SC2046
        kill -KILL $(processes_of "$(cat "$box/$3.pid")") 2>/dev/null || true
        rm -f "$box/$3.pid"
        ;;
    start-node) start_node "$3" ;;
    stop)
        [ -e "$SLURM_CONF" ] || exit 0
        timeout 5 scancel --user=root 2>/dev/null || true
        for ((i = 0; i < 50; i++)); do
            [ -n "$(timeout 5 squeue -h -t R,CG 2>/dev/null)" ] || break
            sleep 0.1
        done
        for file in "$box"/*.pid; do
            case $file in
                */slurmctld.pid | */munged.pid | "$box/*.pid") ;;
                *) end "$file" ;;
            esac
        done
        end "$box/slurmctld.pid"
        end "$box/munged.pid"
        ;;
    *)
        echo "expected start, kill-node, start-node or stop, found '$verb'" >&2
        exit 64
        ;;
esac
