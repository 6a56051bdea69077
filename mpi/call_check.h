/* Do all ranks make the same collective call? A check for those who look for a bug.
 *
 * Ranks that make different collective calls hang, or take each other's bytes for their own. With
 * the environment variable SNRQ_CHECK_COLLECTIVES (set to anything but 0, on any rank) every
 * collective operation of mpi/ begins with a small reduction in which the ranks compare what they
 * are about to do, and where; if they differ, all of them get the same error, which names two of
 * the calls. From then on every checked call of that context fails at once, since nobody knows
 * where the other ranks are. What it cannot see is a rank that makes no call at all: that is what
 * the watchdog is for.
 *
 * Costs one more reduction of some bytes per operation while the calls agree, three more messages
 * once they differ, and nothing when it is off.
 */
#ifndef SNRQ_CALL_CHECK_H
#define SNRQ_CALL_CHECK_H

#include <mpi.h>
#include <stdbool.h>

#include "mpi/status.h"

struct snrq_context;

/* Where a call is made. */
typedef struct snrq_site {
    const char *function;
    int line;
} snrq_site;
#define SNRQ_HERE ((snrq_site){__func__, __LINE__})

typedef struct snrq_call_checker snrq_call_checker;

/* *out <- a checker if SNRQ_CHECK_COLLECTIVES asks for one on some rank of `comm`, or `wanted`
 * does, else NULL. The caller frees it with free(). Collective over comm. */
snrq_status snrq_call_checker_create(MPI_Comm comm, bool wanted, snrq_call_checker **out);

/* Compares a call over `context`, described printf style ("broadcast of %zu bytes") with what may
 * differ between calls, and its site, with those of the other ranks. SNRQ_INTERNAL, on all ranks,
 * if they differ or have differed before. SNRQ_OK at once for a context without checker. Collective
 * over the context. */
snrq_status snrq_call_check(const struct snrq_context *context, snrq_site site, const char *format,
                            ...) __attribute__((format(printf, 3, 4)));

#endif
