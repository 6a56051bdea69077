/* Letters between ranks; see mail.h. */
#include "mpi/mail.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mpi/collective.h"

/* A letter that may not have been received yet. */
typedef struct sent_letter {
    MPI_Request request;
    char *text; /* owned */
} sent_letter;

struct snrq_mail {
    const snrq_context *context;
    MPI_Comm comm;  /* owned: of letters alone */
    int64_t *count; /* [ranks] owned: letters sent to each */
    int64_t taken;
    sent_letter *sent; /* [sent_count] owned */
    size_t sent_count, sent_room;
};

snrq_status snrq_mail_create(const snrq_context *context, snrq_mail **out)
{
    snrq_status status = snrq_allocate(1, sizeof **out, "mail", out);
    if (status == SNRQ_OK) {
        (*out)->context = context;
        (*out)->comm = MPI_COMM_NULL;
        status =
            snrq_allocate((size_t)context->size, sizeof *(*out)->count, "mail", &(*out)->count);
    }
    status = snrq_agree(context, status);
    if (status == SNRQ_OK)
        status = snrq_agree(
            context, snrq_mpi_check(MPI_Comm_dup(context->comm, &(*out)->comm), "MPI_Comm_dup"));
    if (status != SNRQ_OK) snrq_mail_free(out);
    return status;
}

/* Frees the letters that have been received. */
static snrq_status sweep(snrq_mail *m)
{
    size_t kept = 0;
    snrq_status status = SNRQ_OK;
    for (size_t i = 0; i < m->sent_count; i++) {
        int received = 0;
        if (status == SNRQ_OK)
            status = snrq_mpi_check(MPI_Test(&m->sent[i].request, &received, MPI_STATUS_IGNORE),
                                    "MPI_Test");
        if (received)
            free(m->sent[i].text);
        else
            m->sent[kept++] = m->sent[i];
    }
    m->sent_count = kept;
    return status;
}

snrq_status snrq_mail_send(snrq_mail *m, int to, int kind, const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = NULL;
    SNRQ_TRY(sweep(m));
    if (bytes > INT_MAX) return snrq_fail(SNRQ_INTERNAL, "a letter of %zu bytes", bytes);
    SNRQ_TRY(snrq_grow(m->sent_count + 1, sizeof *m->sent, "letters", &m->sent, &m->sent_room));
    SNRQ_TRY(snrq_copy_text(text, "letter", &copy));
    sent_letter *letter = &m->sent[m->sent_count];
    letter->text = copy;
    snrq_status status = snrq_mpi_check(
        MPI_Isend(copy, (int)bytes, MPI_CHAR, to, kind, m->comm, &letter->request), "MPI_Isend");
    if (status != SNRQ_OK) {
        free(copy);
        return status;
    }
    m->sent_count++;
    m->count[to]++;
    return SNRQ_OK;
}

/* Receives the letter that `facts` tells of. */
static snrq_status receive(snrq_mail *m, MPI_Message *message, const MPI_Status *facts,
                           snrq_letter *letter)
{
    int bytes = 0;
    SNRQ_TRY(snrq_mpi_check(MPI_Get_count(facts, MPI_CHAR, &bytes), "MPI_Get_count"));
    *letter = (snrq_letter){.from = facts->MPI_SOURCE, .kind = facts->MPI_TAG};
    SNRQ_TRY(snrq_allocate((size_t)bytes + 1, 1, "letter", &letter->text));
    m->taken++;
    return snrq_mpi_check(MPI_Mrecv(letter->text, bytes, MPI_CHAR, message, MPI_STATUS_IGNORE),
                          "MPI_Mrecv");
}

snrq_status snrq_mail_take(snrq_mail *m, snrq_letter *letter, bool *found)
{
    MPI_Message message;
    MPI_Status facts;
    int there = 0;
    *found = false;
    SNRQ_TRY(
        snrq_mpi_check(MPI_Improbe(MPI_ANY_SOURCE, MPI_ANY_TAG, m->comm, &there, &message, &facts),
                       "MPI_Improbe"));
    if (!there) return SNRQ_OK;
    SNRQ_TRY(receive(m, &message, &facts, letter));
    *found = true;
    return SNRQ_OK;
}

/* Handles the letters that are there. */
static snrq_status handle_all(snrq_mail *m, snrq_mail_handler *handle, void *user)
{
    snrq_letter letter;
    bool found = true;
    while (found) {
        SNRQ_TRY(snrq_mail_take(m, &letter, &found));
        if (!found) continue;
        handle(user, &letter);
        free(letter.text);
    }
    return SNRQ_OK;
}

/* Others may work for hours still: look now and then, and leave them the cores. */
static snrq_status wait_for_all(snrq_mail *m, snrq_mail_handler *handle, void *user)
{
    const struct timespec nap = {0, 5000000};
    MPI_Request request;
    int all = 0;
    SNRQ_TRY(snrq_mpi_check(MPI_Ibarrier(m->comm, &request), "MPI_Ibarrier"));
    for (;;) {
        SNRQ_TRY(handle_all(m, handle, user));
        SNRQ_TRY(snrq_mpi_check(MPI_Test(&request, &all, MPI_STATUS_IGNORE), "MPI_Test"));
        if (all) return SNRQ_OK;
        handle(user, NULL);
        nanosleep(&nap, NULL);
    }
}

snrq_status snrq_mail_finish(snrq_mail *m, snrq_mail_handler *handle, void *user)
{
    SNRQ_TRY(wait_for_all(m, handle, user));
    SNRQ_TRY(snrq_sum_int64(m->context, m->count, m->context->size));
    while (m->taken < m->count[m->context->rank]) SNRQ_TRY(handle_all(m, handle, user));
    while (m->sent_count > 0) SNRQ_TRY(sweep(m));
    return SNRQ_OK;
}

void snrq_mail_free(snrq_mail **mail)
{
    snrq_mail *m = *mail;
    if (m == NULL) return;
    sweep(m);
    for (size_t i = 0; i < m->sent_count; i++) MPI_Request_free(&m->sent[i].request);
    if (m->sent_count == 0) free(m->sent); /* else MPI may still read what they hold */
    if (m->comm != MPI_COMM_NULL) MPI_Comm_free(&m->comm);
    free(m->count);
    free(m);
    *mail = NULL;
}
