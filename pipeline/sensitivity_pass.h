/* One backward pass of a full-precision model over windows, and the file of what it says of the
 * outputs of every module (sensitivity_file.h).
 *
 * Some sequences at a time go forward through all blocks, whose inputs are kept, then back from the
 * gradient of drawn labels (label_gradient.h), block by block (block_backward.h). Every rank has
 * sequences of its own; sums over them are in fixed point, so that the file's bytes do not depend
 * on the number of ranks, or on how many sequences are taken at a time.
 */
#ifndef SNRQ_SENSITIVITY_PASS_H
#define SNRQ_SENSITIVITY_PASS_H

#include "io/tokenizer/windows.h"
#include "mpi/context.h"
#include "pipeline/model/model.h"

/* A block forward, and as many times that back: computed again, then twice as many products. */
enum { SNRQ_SENSITIVITY_FORWARD_PARTS = 1, SNRQ_SENSITIVITY_BACK_PARTS = 3 };

/* What is done: sequences of pass number `pass` of `passes` went through a block. */
typedef struct snrq_sensitivity_step {
    bool back; /* else forward */
    int64_t block, pass, passes;
} snrq_sensitivity_step;

typedef struct snrq_sensitivity_order {
    const char *path;    /* of the file to write; borrowed */
    uint64_t seed;       /* of the labels */
    int64_t pass_memory; /* bytes of block inputs that a rank keeps */
    /* Called after each block, on all ranks; what is agreed and not SNRQ_OK ends the pass. */
    snrq_status (*listen)(void *user, const snrq_sensitivity_step *step);
    void *user;
} snrq_sensitivity_order;

typedef struct snrq_sensitivity_outcome {
    int modules;
    int64_t tokens, bytes;
    double loss; /* mean of the drawn labels' */
} snrq_sensitivity_outcome;

/* Writes the file; nothing is left at its path after a failure. windows: all are texts to predict
 * (none of single tokens, none held out). Collective; agreed. */
snrq_status snrq_sensitivity_pass(const snrq_context *context, const snrq_sensitivity_order *order,
                                  const snrq_model *model, const snrq_windows *windows,
                                  snrq_sensitivity_outcome *out);

#endif
