/* Contexts and error agreement; see context.h. */
#include "mpi/context.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/lone_failure.h"

enum { MESSAGE_BYTES = 2048 };

snrq_status snrq_mpi_check(int code, const char *call)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    if (code == MPI_SUCCESS) return SNRQ_OK;
    MPI_Error_string(code, text, &length);
    snrq_status status = snrq_fail(SNRQ_INTERNAL, "%s failed: %s", call, text);
    snrq_lone_failure_begin(status);
    return status;
}

/* Agrees over a communicator, whatever context it belongs to; see snrq_agree(). */
static snrq_status agree_over(MPI_Comm comm, int job_rank, snrq_status local)
{
    int rank = 0, size = 1;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    /* The lowest failing rank wins: MIN over the rank numbers of those that failed. */
    int mine = local == SNRQ_OK ? size : rank;
    int culprit = size;
    SNRQ_TRY(
        snrq_mpi_check(MPI_Allreduce(&mine, &culprit, 1, MPI_INT, MPI_MIN, comm), "MPI_Allreduce"));
    if (culprit == size) return SNRQ_OK;

    struct {
        int status, job_rank;
        char message[MESSAGE_BYTES];
    } verdict = {.status = (int)local, .job_rank = job_rank};
    strncpy(verdict.message, snrq_error_message(), MESSAGE_BYTES - 1);
    SNRQ_TRY(snrq_mpi_check(MPI_Bcast(&verdict, (int)sizeof verdict, MPI_BYTE, culprit, comm),
                            "MPI_Bcast"));
    if (size > 1 && strncmp(verdict.message, "rank ", 5) != 0)
        return snrq_fail((snrq_status)verdict.status, "rank %d: %s", verdict.job_rank,
                         verdict.message);
    return snrq_fail((snrq_status)verdict.status, "%s", verdict.message);
}

snrq_status snrq_agree_at(snrq_site site, const snrq_context *context, snrq_status local)
{
    if (context->size == 1) return local;
    SNRQ_TRY(snrq_call_check(context, site, "agrees"));
    return agree_over(context->comm, context->job_rank, local);
}

/* The steps of making a context. Each of them may fail on one rank alone. */

/* c->comm <- this rank's group of `comm`; MPI_COMM_NULL on a rank that is in none. */
static snrq_status join_group(MPI_Comm comm, int group, bool checked, snrq_context *c)
{
    int color = group >= 0 ? group : MPI_UNDEFINED, rank;
    MPI_Comm_rank(comm, &rank);
    SNRQ_TRY(snrq_mpi_check(MPI_Comm_split(comm, color, rank, &c->comm), "MPI_Comm_split"));
    if (c->comm == MPI_COMM_NULL) return SNRQ_OK;
    MPI_Comm_set_errhandler(c->comm, MPI_ERRORS_RETURN);
    MPI_Comm_rank(c->comm, &c->rank);
    MPI_Comm_size(c->comm, &c->size);
    SNRQ_TRY(snrq_call_checker_create(c->comm, checked, &c->checker));
    return snrq_allocate((size_t)c->size, sizeof *c->node_of_rank, "node map", &c->node_of_rank);
}

static snrq_status find_node(snrq_context *c)
{
    SNRQ_TRY(snrq_mpi_check(
        MPI_Comm_split_type(c->comm, MPI_COMM_TYPE_SHARED, c->rank, MPI_INFO_NULL, &c->node),
        "MPI_Comm_split_type"));
    MPI_Comm_rank(c->node, &c->node_rank);
    MPI_Comm_size(c->node, &c->node_size);
    return SNRQ_OK;
}

static snrq_status find_leaders(snrq_context *c)
{
    return snrq_mpi_check(
        MPI_Comm_split(c->comm, c->node_rank == 0 ? 0 : MPI_UNDEFINED, c->rank, &c->leaders),
        "MPI_Comm_split");
}

static snrq_status number_nodes(snrq_context *c)
{
    int place[2] = {0, 1};
    if (c->leaders != MPI_COMM_NULL) {
        MPI_Comm_rank(c->leaders, &place[0]);
        MPI_Comm_size(c->leaders, &place[1]);
    }
    SNRQ_TRY(snrq_mpi_check(MPI_Bcast(place, 2, MPI_INT, 0, c->node), "MPI_Bcast"));
    c->node_index = place[0];
    c->nodes = place[1];
    return snrq_mpi_check(
        MPI_Allgather(&c->node_index, 1, MPI_INT, c->node_of_rank, 1, MPI_INT, c->comm),
        "MPI_Allgather");
}

/* Makes the context of this rank's group of `comm`, in which this rank is called `job_rank`.
 * checked: its calls are compared, whatever the environment says. */
static snrq_status make_context(MPI_Comm comm, int job_rank, int group, bool checked,
                                snrq_context **out)
{
    snrq_status (*const steps[])(snrq_context *) = {find_node, find_leaders, number_nodes};
    snrq_context *c = NULL;
    *out = NULL;
    snrq_status status = snrq_allocate(1, sizeof *c, "context", &c);
    if (c != NULL) {
        c->comm = c->node = c->leaders = MPI_COMM_NULL;
        c->job_rank = job_rank;
    }
    status = agree_over(comm, job_rank, status);
    if (status == SNRQ_OK) status = agree_over(comm, job_rank, join_group(comm, group, checked, c));
    for (size_t i = 0; i < sizeof steps / sizeof *steps && status == SNRQ_OK; i++) {
        if (c->comm != MPI_COMM_NULL) status = steps[i](c);
        status = agree_over(comm, job_rank, status);
    }
    if (status != SNRQ_OK || c->comm == MPI_COMM_NULL)
        snrq_context_destroy(&c);
    else
        *out = c;
    return status;
}

snrq_status snrq_context_create(MPI_Comm comm, snrq_context **out)
{
    int rank = 0;
    MPI_Comm_rank(comm, &rank);
    return make_context(comm, rank, 0, false, out);
}

snrq_status snrq_context_create_alone(snrq_context **out)
{
    snrq_context *c = NULL;
    *out = NULL;
    SNRQ_TRY(snrq_allocate(1, sizeof *c, "context", &c));
    c->comm = c->node = c->leaders = MPI_COMM_NULL;
    c->size = c->node_size = c->nodes = 1;
    snrq_status status = snrq_allocate(1, sizeof *c->node_of_rank, "node map", &c->node_of_rank);
    if (status != SNRQ_OK) snrq_context_destroy(&c);
    *out = c;
    return status;
}

snrq_status snrq_context_split(const snrq_context *parent, int group, snrq_context **out)
{
    *out = NULL;
    if (parent->comm == MPI_COMM_NULL) return group < 0 ? SNRQ_OK : snrq_context_create_alone(out);
    SNRQ_TRY(snrq_call_check(parent, SNRQ_HERE, "splits into groups"));
    return make_context(parent->comm, parent->job_rank, group, parent->checker != NULL, out);
}

void snrq_context_destroy(snrq_context **context)
{
    snrq_context *c = *context;
    if (c == NULL) return;
    if (c->leaders != MPI_COMM_NULL) MPI_Comm_free(&c->leaders);
    if (c->node != MPI_COMM_NULL) MPI_Comm_free(&c->node);
    if (c->comm != MPI_COMM_NULL) MPI_Comm_free(&c->comm);
    free(c->checker);
    free(c->node_of_rank);
    free(c);
    *context = NULL;
}

void snrq_mpi_library(char *out, size_t size)
{
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = "unknown";
    int length = 0;
    if (MPI_Get_library_version(text, &length) != MPI_SUCCESS) strcpy(text, "unknown");
    snprintf(out, size, "%.*s", (int)strcspn(text, ",\n"), text);
}
