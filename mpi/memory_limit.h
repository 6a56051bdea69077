/* How much memory the processes of a job may use on this node. */
#ifndef SNRQ_MEMORY_LIMIT_H
#define SNRQ_MEMORY_LIMIT_H

/* The least of: the node's memory, the limits of the control groups (v1 and v2) this process is in,
 * and what Slurm was asked for (SLURM_MEM_PER_NODE, SLURM_MEM_PER_CPU). In bytes; 0 if nothing is
 * known. *source says which one it is (borrowed, constant). `root` is put in front of /proc and
 * /sys: "" but in tests. Not collective. */
double snrq_memory_limit(const char *root, const char **source);

#endif
