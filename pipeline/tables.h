/* Quantized tables: embeddings and head, where a recipe or a preset names them (recipe.h).
 *
 * They are rounded to nearest before the blocks, and are modules of OUT/tables.h5. The quantized
 * stream starts from the rounded embeddings.
 */
#ifndef SNRQ_TABLES_H
#define SNRQ_TABLES_H

#include "pipeline/job.h"

/* Rounds, writes and commits them, unless that was done. Rows are shared by all ranks, each of
 * which depends on itself alone. Collective over the job; agreed. */
snrq_status snrq_tables_commit(snrq_job *job);

#endif
