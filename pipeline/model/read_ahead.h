/* Reading a block ahead of its use, while others are worked on.
 *
 * A thread asks the system for the bytes of this rank's share of the weights, which then wait in
 * the system's cache, not in memory of the process: memory that somebody needs is taken from there
 * first. Nothing depends on it but time. Errors are left to who reads the block.
 */
#ifndef SNRQ_READ_AHEAD_H
#define SNRQ_READ_AHEAD_H

#include "pipeline/model/model.h"

typedef struct snrq_read_ahead snrq_read_ahead;

/* Starts reading block `layer` of a Hugging Face directory; *out stays NULL where that cannot be
 * done. `model` is borrowed until snrq_read_ahead_stop(). Not collective. */
void snrq_read_ahead_start(const snrq_context *context, const snrq_model *model, int64_t layer,
                           snrq_read_ahead **out);

/* Ends it, complete or not, and sets *ahead to NULL. Nothing is done for NULL. Not collective. */
void snrq_read_ahead_stop(snrq_read_ahead **ahead);

#endif
