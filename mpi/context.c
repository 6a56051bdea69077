/* Contexts and error agreement; see context.h. */
#include "mpi/context.h"

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

static snrq_status split_nodes(snrq_context *c)
{
    SNRQ_TRY(snrq_mpi_check(
        MPI_Comm_split_type(c->comm, MPI_COMM_TYPE_SHARED, c->rank, MPI_INFO_NULL, &c->node),
        "MPI_Comm_split_type"));
    MPI_Comm_rank(c->node, &c->node_rank);
    MPI_Comm_size(c->node, &c->node_size);
    SNRQ_TRY(snrq_mpi_check(
        MPI_Comm_split(c->comm, c->node_rank == 0 ? 0 : MPI_UNDEFINED, c->rank, &c->leaders),
        "MPI_Comm_split"));
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

snrq_status snrq_context_create(MPI_Comm comm, snrq_context **out)
{
    snrq_context *c = NULL;
    *out = NULL;
    SNRQ_TRY(snrq_allocate(1, sizeof *c, "context", &c));
    c->comm = c->node = c->leaders = MPI_COMM_NULL;
    snrq_status status = snrq_mpi_check(MPI_Comm_dup(comm, &c->comm), "MPI_Comm_dup");
    if (status == SNRQ_OK) {
        MPI_Comm_set_errhandler(c->comm, MPI_ERRORS_RETURN);
        MPI_Comm_rank(c->comm, &c->rank);
        MPI_Comm_size(c->comm, &c->size);
        status = snrq_call_checker_create(c->comm, &c->checker);
    }
    if (status == SNRQ_OK)
        status =
            snrq_allocate((size_t)c->size, sizeof *c->node_of_rank, "node map", &c->node_of_rank);
    if (status == SNRQ_OK) status = split_nodes(c);
    if (status != SNRQ_OK)
        snrq_context_destroy(&c);
    else
        *out = c;
    return status;
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

snrq_status snrq_agree_at(snrq_site site, const snrq_context *context, snrq_status local)
{
    SNRQ_TRY(snrq_call_check(context, site, "agrees"));
    /* The lowest failing rank wins: MIN over the rank numbers of those that failed. */
    int mine = local == SNRQ_OK ? context->size : context->rank;
    int culprit = context->size;
    SNRQ_TRY(snrq_mpi_check(MPI_Allreduce(&mine, &culprit, 1, MPI_INT, MPI_MIN, context->comm),
                            "MPI_Allreduce"));
    if (culprit == context->size) return SNRQ_OK;

    struct {
        int status;
        char message[MESSAGE_BYTES];
    } verdict = {.status = (int)local};
    strncpy(verdict.message, snrq_error_message(), MESSAGE_BYTES - 1);
    SNRQ_TRY(snrq_mpi_check(
        MPI_Bcast(&verdict, (int)sizeof verdict, MPI_BYTE, culprit, context->comm), "MPI_Bcast"));
    if (context->size > 1 && strncmp(verdict.message, "rank ", 5) != 0)
        return snrq_fail((snrq_status)verdict.status, "rank %d: %s", culprit, verdict.message);
    return snrq_fail((snrq_status)verdict.status, "%s", verdict.message);
}
