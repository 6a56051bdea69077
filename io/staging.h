/* Files that appear in a directory together: written as NAME.snrq.tmp, renamed when all are
 * durable.
 *
 * Rank 0 keeps the list. The order of the list is the order in which names appear, so what makes
 * readers believe in a directory (an index, a configuration) comes last. Until then a reader sees
 * nothing, and a failure takes everything back.
 */
#ifndef SNRQ_STAGING_H
#define SNRQ_STAGING_H

#include <limits.h>

#include "mpi/context.h"

/* What unfinished names end with: nobody else's do, so that what a killed run left can be removed.
 */
#define SNRQ_STAGING_SUFFIX ".snrq.tmp"

typedef struct snrq_staging snrq_staging;

/* For files in `directory`, which exists and is nobody else's. Not collective, but for all ranks.
 */
snrq_status snrq_staging_create(const snrq_context *context, const char *directory,
                                snrq_staging **out);

/* NAME may be FOLDER/FILE; the folder must be there, and vanishes with what was not published. */

/* Adds NAME; path [PATH_MAX] becomes that of NAME.snrq.tmp, for the caller to write and make
 * durable. Same calls on all ranks. */
snrq_status snrq_staging_add(snrq_staging *staging, const char *name, char path[PATH_MAX]);

/* Adds NAME with this content, which rank 0 writes and makes durable; does nothing on other ranks.
 * Not agreed. */
snrq_status snrq_staging_put(snrq_staging *staging, const char *name, const void *data,
                             size_t bytes);

/* Gives all files their names. Collective; agreed. */
snrq_status snrq_staging_publish(snrq_staging *staging);

/* Removes what was not published, frees, sets *staging to NULL (nothing is done for NULL). Not
 * collective, but no rank may be writing any more. */
void snrq_staging_destroy(snrq_staging **staging);

#endif
