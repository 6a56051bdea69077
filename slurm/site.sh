# What differs from cluster to cluster; read by everything in this folder. Edit it once, or keep a copy and name it
# in SNRQ_SITE. A variable that is set already wins.

# Modules that the program was built with, and the program.
# module load OpenMPI ScaLAPACK HDF5
: "${SNRQ:=snrq}"

# How ranks are started: mpirun, or srun where Slurm has Open MPI's plugin (`srun --mpi=list` shows it).
: "${SNRQ_LAUNCHER:=mpirun}"
: "${SNRQ_SRUN_MPI:=pmix}"

# More options of sbatch that every job needs: --account=... --partition=...
: "${SNRQ_SBATCH:=}"

# What `submit` may ask for: ranks per node, CPUs per rank, memory of a node in MB, most nodes, longest time in minutes.
: "${SNRQ_RANKS_PER_NODE:=8}"
: "${SNRQ_CPUS_PER_RANK:=4}"
: "${SNRQ_NODE_MB:=180000}"
: "${SNRQ_MOST_NODES:=64}"
: "${SNRQ_MOST_MINUTES:=1440}"

# A job that is requeued so many times without one more finished block gives up.
: "${SNRQ_MOST_RESTARTS:=3}"

# One file system driver of Open MPI needs this on parallel file systems; binding is Slurm's and the launcher's.
export OMPI_MCA_fs_ufs_lock_algorithm=3

# The speed of the compute nodes, for plans: srun snrq bench machine -o FILE measures it once. Empty: that of this host.
: "${SNRQ_MACHINE:=}"
