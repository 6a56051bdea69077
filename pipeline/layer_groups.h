/* Layer groups: ranks that quantize a run of blocks of their own (--layer-groups).
 *
 * With S calibration sequences at most S ranks have forward work, so a larger job is divided: group
 * k of G owns a contiguous run of blocks and of ranks. Groups work at the same time. The quantized
 * stream starts anew at the first block of a group, where it is the full-precision one: so the
 * result depends on G, and on nothing else about the ranks.
 */
#ifndef SNRQ_LAYER_GROUPS_H
#define SNRQ_LAYER_GROUPS_H

#include "mpi/collective.h"

typedef struct snrq_layer_groups {
    int count;
    int64_t *first; /* [count + 1] owned: group k has blocks [first[k], first[k + 1]) */
    int mine;       /* this rank's group */
    const snrq_context *context; /* its ranks: those of the job, if there is one group */
    snrq_context *own;           /* the same where it was split from the job's, or NULL. Owned */
} snrq_layer_groups;

/* first [groups + 1] <- a division of `blocks` blocks of so much work each into as many groups: the
 * first and each next one ends where the work so far is nearest to its share. Every group has a
 * block: 1 <= groups <= blocks. Not collective. */
void snrq_layer_groups_divide(const double *work, int64_t blocks, int groups, int64_t *first);

/* Divides the blocks; for now without ranks. Not collective. The caller frees *out. */
snrq_status snrq_layer_groups_create(const double *work, int64_t blocks, int groups,
                                     snrq_layer_groups *out);

/* Divides the ranks, of which there are as many as groups or more. Collective; agreed. */
snrq_status snrq_layer_groups_split(const snrq_context *job, snrq_layer_groups *groups);
void snrq_layer_groups_free(snrq_layer_groups *groups);

/* The job's rank that is rank 0 of a group. Not collective. */
int snrq_layer_groups_leader(const snrq_layer_groups *groups, int ranks, int group);

/* The group that a block belongs to. Not collective. */
int snrq_layer_groups_of_block(const snrq_layer_groups *groups, int64_t block);

#endif
