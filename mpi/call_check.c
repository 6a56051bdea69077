/* Comparing collective calls; see call_check.h. */
#include "mpi/call_check.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/context.h"

enum { TEXT_BYTES = 192 };

/* What a rank is about to do. */
typedef struct call {
    int job_rank;
    char text[TEXT_BYTES];
} call;

struct snrq_call_checker {
    int64_t calls;     /* that were the same on all ranks */
    bool differed;     /* once; the ranks are out of step since then */
    call first, other; /* the calls that did: that of rank 0 of the context, and another rank's */
};

snrq_status snrq_call_checker_create(MPI_Comm comm, bool wanted, snrq_call_checker **out)
{
    const char *wish = getenv("SNRQ_CHECK_COLLECTIVES");
    bool wished = wish != NULL && *wish != '\0' && strcmp(wish, "0") != 0;
    int mine = wanted || wished, any = 0;
    *out = NULL;
    SNRQ_TRY(
        snrq_mpi_check(MPI_Allreduce(&mine, &any, 1, MPI_INT, MPI_MAX, comm), "MPI_Allreduce"));
    return any ? snrq_allocate(1, sizeof **out, "checker of calls", out) : SNRQ_OK;
}

/* text [TEXT_BYTES], zeros behind its end. */
static snrq_status is_same(const snrq_context *c, const char *text, bool *same)
{
    unsigned char mine[2 * TEXT_BYTES], most[2 * TEXT_BYTES];
    for (int i = 0; i < TEXT_BYTES; i++) {
        mine[i] = (unsigned char)text[i];
        mine[TEXT_BYTES + i] = (unsigned char)~mine[i];
    }
    SNRQ_TRY(snrq_mpi_check(
        MPI_Allreduce(mine, most, 2 * TEXT_BYTES, MPI_UNSIGNED_CHAR, MPI_MAX, c->comm),
        "MPI_Allreduce"));
    *same = true; /* where the largest is the smallest */
    for (int i = 0; i < TEXT_BYTES; i++)
        *same = *same && most[i] == (unsigned char)~most[TEXT_BYTES + i];
    return SNRQ_OK;
}

/* Finds the lowest rank that calls something else than rank 0 of the context, and both calls. */
static snrq_status find_difference(const snrq_context *c, const char *text, snrq_call_checker *k)
{
    call own = {.job_rank = c->job_rank};
    strcpy(own.text, text);
    k->first = k->other = own;
    SNRQ_TRY(
        snrq_mpi_check(MPI_Bcast(&k->first, (int)sizeof own, MPI_BYTE, 0, c->comm), "MPI_Bcast"));
    int mine = strcmp(k->first.text, text) != 0 ? c->rank : c->size, other = 0;
    SNRQ_TRY(snrq_mpi_check(MPI_Allreduce(&mine, &other, 1, MPI_INT, MPI_MIN, c->comm),
                            "MPI_Allreduce"));
    return snrq_mpi_check(MPI_Bcast(&k->other, (int)sizeof own, MPI_BYTE, other, c->comm),
                          "MPI_Bcast");
}

static snrq_status complain(const snrq_call_checker *k)
{
    return snrq_fail(SNRQ_INTERNAL,
                     "the ranks make different collective calls after %lld that were the same: "
                     "rank %d %s, rank %d %s; this is a bug",
                     (long long)k->calls, k->first.job_rank, k->first.text, k->other.job_rank,
                     k->other.text);
}

snrq_status snrq_call_check(const snrq_context *c, snrq_site site, const char *format, ...)
{
    snrq_call_checker *k = c->checker;
    char text[TEXT_BYTES] = "";
    bool same = true;
    if (k == NULL || c->size == 1) return SNRQ_OK;
    if (k->differed) return complain(k);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    size_t length = strlen(text);
    snprintf(text + length, sizeof text - length, " in %s (line %d)", site.function, site.line);
    SNRQ_TRY(is_same(c, text, &same));
    k->calls += same;
    if (same) return SNRQ_OK;
    k->differed = true;
    SNRQ_TRY(find_difference(c, text, k));
    return complain(k);
}
