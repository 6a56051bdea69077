/* Items move between groups of ranks; see transfer.h.
 *
 * An item is a header and its bytes in chunks, all from the rank that has it to the rank that gets
 * it. Both go through their items in order, so that the messages between two ranks need no numbers.
 */
#include "mpi/transfer.h"

#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 1 << 22, NAME_BYTES = 60, TAG = 0 };

typedef struct header {
    int64_t item;
    int64_t lost; /* not 0: neither this item nor any later one comes from this rank */
} header;

/* One of the two groups. */
typedef struct side {
    int size;
    int *rank;       /* [size] owned: its ranks in `both` */
    int at;          /* which of them has, or gets, the next item of this rank */
    snrq_range left; /* what this rank has to send, or to receive, still */
} side;

struct snrq_transfer {
    snrq_context *both; /* owned: the ranks of the two groups */
    char name[NAME_BYTES];
    int64_t count;
    size_t item_bytes;
    side from, to;
    header *headers;       /* [outgoing items] owned */
    MPI_Request *requests; /* [outgoing items * (1 + chunks)] owned */
    int headers_used, requests_used;
    unsigned char *unwanted; /* [CHUNK_BYTES] owned: for what is thrown away */
    bool lost;               /* a rank failed that should have sent something to this one */
};

/* What a rank means by a transfer. */
typedef struct meaning {
    int64_t count;
    uint64_t item_bytes;
    int job_rank;
    int from_rank, from_size, to_rank, to_size; /* rank -1: not in the group */
    char name[NAME_BYTES];
} meaning;

static bool takes_part(const meaning *m)
{
    return m->from_rank >= 0 || m->to_rank >= 0;
}

static snrq_status compare(const meaning *a, const meaning *b)
{
    if (a->count == b->count && a->item_bytes == b->item_bytes && strcmp(a->name, b->name) == 0)
        return SNRQ_OK;
    return snrq_fail(SNRQ_INTERNAL,
                     "the ranks mean different transfers: rank %d %lld items of %llu bytes of %s, "
                     "rank %d %lld items of %llu bytes of %s; this is a bug",
                     a->job_rank, (long long)a->count, (unsigned long long)a->item_bytes, a->name,
                     b->job_rank, (long long)b->count, (unsigned long long)b->item_bytes, b->name);
}

/* Counts the ranks of both groups and checks that all of them mean the same. The same on all ranks
 * of the parent. */
static snrq_status check_meanings(const meaning *all, int ranks, const char *name, side *from,
                                  side *to)
{
    const meaning *first = NULL;
    int from_size = 0, to_size = 0;
    for (int r = 0; r < ranks; r++) {
        if (!takes_part(&all[r])) continue;
        if (first == NULL) first = &all[r];
        SNRQ_TRY(compare(first, &all[r]));
        if (all[r].from_rank >= 0) from->size++, from_size = all[r].from_size;
        if (all[r].to_rank >= 0) to->size++, to_size = all[r].to_size;
    }
    if (from->size > 0 && to->size > 0 && from->size == from_size && to->size == to_size)
        return SNRQ_OK;
    return snrq_fail(SNRQ_INTERNAL,
                     "the transfer of %s is between groups of %d and %d ranks, of which %d and %d "
                     "take part; this is a bug",
                     first != NULL ? first->name : name, from_size, to_size, from->size, to->size);
}

/* The members of both groups, as ranks of `both`: those who take part, in order. */
static snrq_status list_ranks(const meaning *all, int ranks, side *from, side *to)
{
    SNRQ_TRY(snrq_allocate((size_t)from->size, sizeof *from->rank, "ranks", &from->rank));
    SNRQ_TRY(snrq_allocate((size_t)to->size, sizeof *to->rank, "ranks", &to->rank));
    for (int r = 0, both_rank = 0; r < ranks; r++) {
        if (all[r].from_rank >= 0) from->rank[all[r].from_rank] = both_rank;
        if (all[r].to_rank >= 0) to->rank[all[r].to_rank] = both_rank;
        both_rank += takes_part(&all[r]);
    }
    return SNRQ_OK;
}

/* What this rank needs to take part. */
static snrq_status prepare(snrq_transfer *t, const meaning *mine)
{
    size_t chunks = t->item_bytes / CHUNK_BYTES + (t->item_bytes % CHUNK_BYTES > 0);
    if (mine->from_rank >= 0) t->from.left = snrq_share(t->count, 1, t->from.size, mine->from_rank);
    if (mine->to_rank >= 0) {
        t->to.left = snrq_share(t->count, 1, t->to.size, mine->to_rank);
        SNRQ_TRY(snrq_allocate_scratch(1, CHUNK_BYTES, "unwanted items", &t->unwanted));
    }
    size_t items = (size_t)(t->from.left.end - t->from.left.begin);
    if (items > 0 && chunks + 1 > (size_t)INT_MAX / items)
        return snrq_fail(SNRQ_INTERNAL,
                         "%zu items of %zu bytes of %s are more than a rank can send", items,
                         t->item_bytes, t->name);
    SNRQ_TRY(snrq_allocate(items, sizeof *t->headers, "headers of items", &t->headers));
    return snrq_allocate(items * (chunks + 1), sizeof *t->requests, "requests of items",
                         &t->requests);
}

static void release(snrq_transfer **transfer)
{
    snrq_transfer *t = *transfer;
    if (t == NULL) return;
    snrq_context_destroy(&t->both);
    free(t->from.rank);
    free(t->to.rank);
    free(t->headers);
    free(t->requests);
    free(t->unwanted);
    free(t);
    *transfer = NULL;
}

/* all [size of the parent]: what its ranks mean. */
static snrq_status make_transfer(const snrq_context *parent, const meaning *mine, meaning *all,
                                 snrq_transfer **out)
{
    snrq_transfer *t = *out;
    SNRQ_TRY(snrq_mpi_check(MPI_Allgather(mine, (int)sizeof *mine, MPI_BYTE, all, (int)sizeof *mine,
                                          MPI_BYTE, parent->comm),
                            "MPI_Allgather"));
    SNRQ_TRY(check_meanings(all, parent->size, mine->name, &t->from, &t->to));
    SNRQ_TRY(snrq_context_split(parent, takes_part(mine) ? 0 : -1, &t->both));
    snrq_status status = list_ranks(all, parent->size, &t->from, &t->to);
    if (status == SNRQ_OK && takes_part(mine)) status = prepare(t, mine);
    SNRQ_TRY(snrq_agree(parent, status));
    if (!takes_part(mine)) release(out);
    return SNRQ_OK;
}

snrq_status snrq_transfer_create(const snrq_context *parent, const snrq_context *from,
                                 const snrq_context *to, const char *name, int64_t count,
                                 size_t item_bytes, snrq_transfer **out)
{
    meaning mine = {.job_rank = parent->job_rank,
                    .from_rank = from != NULL ? from->rank : -1,
                    .from_size = from != NULL ? from->size : 0,
                    .to_rank = to != NULL ? to->rank : -1,
                    .to_size = to != NULL ? to->size : 0,
                    .count = count,
                    .item_bytes = item_bytes};
    meaning *all = NULL;
    strncpy(mine.name, name, NAME_BYTES - 1);
    SNRQ_TRY(snrq_call_check(parent, SNRQ_HERE, "prepares a transfer"));
    snrq_status status = snrq_allocate(1, sizeof **out, "transfer", out);
    if (status == SNRQ_OK) {
        (*out)->count = count;
        (*out)->item_bytes = item_bytes;
        memcpy((*out)->name, mine.name, NAME_BYTES);
        status = snrq_allocate((size_t)parent->size, sizeof *all, "what ranks mean", &all);
    }
    status = snrq_agree(parent, status);
    if (status == SNRQ_OK) status = make_transfer(parent, &mine, all, out);
    free(all);
    if (status != SNRQ_OK) release(out);
    return status;
}

snrq_range snrq_transfer_outgoing(const snrq_transfer *t)
{
    return t->from.left;
}

snrq_range snrq_transfer_incoming(const snrq_transfer *t)
{
    return t->to.left;
}

static snrq_status check_left(const snrq_transfer *t, const char *does, snrq_range left,
                              int64_t items)
{
    if (items >= 0 && items <= left.end - left.begin) return SNRQ_OK;
    return snrq_fail(SNRQ_INTERNAL, "rank %d %s %lld items of %s, but has only %lld left",
                     t->both->job_rank, does, (long long)items, t->name,
                     (long long)(left.end - left.begin));
}

/* The rank (of `both`) on the side `s` that has, or gets, `item`. */
static int owner(side *s, int64_t count, int64_t item)
{
    while (item >= snrq_share(count, 1, s->size, s->at).end) s->at++;
    return s->rank[s->at];
}

static snrq_status send_bytes(snrq_transfer *t, const void *data, size_t bytes, int to)
{
    SNRQ_TRY(snrq_mpi_check(MPI_Isend(data, (int)bytes, MPI_BYTE, to, TAG, t->both->comm,
                                      &t->requests[t->requests_used]),
                            "MPI_Isend"));
    t->requests_used++;
    return SNRQ_OK;
}

static snrq_status send_header(snrq_transfer *t, bool lost, int to)
{
    header *h = &t->headers[t->headers_used++];
    *h = (header){.item = t->from.left.begin, .lost = lost};
    return send_bytes(t, h, sizeof *h, to);
}

/* Size of the chunk that begins at byte `at` of an item. */
static size_t chunk_bytes(const snrq_transfer *t, size_t at)
{
    return t->item_bytes - at < CHUNK_BYTES ? t->item_bytes - at : CHUNK_BYTES;
}

snrq_status snrq_transfer_send(snrq_transfer *t, int64_t items, const void *data)
{
    const unsigned char *item = data;
    SNRQ_TRY(check_left(t, "sends", t->from.left, items));
    for (; items > 0; items--, item += t->item_bytes) {
        int to = owner(&t->to, t->count, t->from.left.begin);
        SNRQ_TRY(send_header(t, false, to));
        for (size_t at = 0; at < t->item_bytes; at += CHUNK_BYTES)
            SNRQ_TRY(send_bytes(t, item + at, chunk_bytes(t, at), to));
        t->from.left.begin++;
    }
    return SNRQ_OK;
}

static snrq_status wait_for_sent(snrq_transfer *t)
{
    int requests = t->requests_used;
    t->requests_used = 0;
    return snrq_mpi_check(MPI_Waitall(requests, t->requests, MPI_STATUSES_IGNORE), "MPI_Waitall");
}

snrq_status snrq_transfer_flush(snrq_transfer *t)
{
    if (t->to.left.begin < t->to.left.end)
        return snrq_fail(SNRQ_INTERNAL,
                         "rank %d waits for what it sent of %s, but has to receive first",
                         t->both->job_rank, t->name);
    return wait_for_sent(t);
}

static snrq_status receive_bytes(const snrq_transfer *t, void *data, size_t bytes, int from)
{
    return snrq_mpi_check(
        MPI_Recv(data, (int)bytes, MPI_BYTE, from, TAG, t->both->comm, MPI_STATUS_IGNORE),
        "MPI_Recv");
}

/* The next item, or that it and all others of its rank are lost. data NULL: thrown away. */
static snrq_status receive_item(snrq_transfer *t, unsigned char *data, bool *lost)
{
    int64_t item = t->to.left.begin;
    header h;
    int from = owner(&t->from, t->count, item);
    *lost = false;
    SNRQ_TRY(receive_bytes(t, &h, sizeof h, from));
    if (h.item != item)
        return snrq_fail(SNRQ_INTERNAL, "item %lld of %s came where item %lld was expected",
                         (long long)h.item, t->name, (long long)item);
    if (h.lost != 0) {
        int64_t end = snrq_share(t->count, 1, t->from.size, t->from.at).end;
        t->to.left.begin = end < t->to.left.end ? end : t->to.left.end;
        t->lost = *lost = true;
        return SNRQ_OK;
    }
    for (size_t at = 0; at < t->item_bytes; at += CHUNK_BYTES)
        SNRQ_TRY(
            receive_bytes(t, data != NULL ? data + at : t->unwanted, chunk_bytes(t, at), from));
    t->to.left.begin++;
    return SNRQ_OK;
}

snrq_status snrq_transfer_receive(snrq_transfer *t, int64_t items, void *data)
{
    SNRQ_TRY(check_left(t, "receives", t->to.left, items));
    if (items > 0 && t->from.left.begin < t->from.left.end)
        return snrq_fail(SNRQ_INTERNAL, "rank %d receives items of %s, but has to send first",
                         t->both->job_rank, t->name);
    for (int64_t i = 0; i < items; i++) {
        bool lost = false;
        SNRQ_TRY(receive_item(t, (unsigned char *)data + (size_t)i * t->item_bytes, &lost));
        if (lost)
            return snrq_fail(SNRQ_INTERNAL, "items of %s were not sent to rank %d", t->name,
                             t->both->job_rank);
    }
    return SNRQ_OK;
}

/* What the caller did not do though nothing failed. */
static snrq_status check_all_moved(const snrq_transfer *t)
{
    if (t->from.left.begin < t->from.left.end)
        return snrq_fail(SNRQ_INTERNAL, "%s: item %lld and those up to %lld were never sent",
                         t->name, (long long)t->from.left.begin, (long long)t->from.left.end);
    if (t->to.left.begin < t->to.left.end && !t->lost)
        return snrq_fail(SNRQ_INTERNAL, "%s: item %lld and those up to %lld were never received",
                         t->name, (long long)t->to.left.begin, (long long)t->to.left.end);
    return SNRQ_OK;
}

/* Says to every rank that still waits for items of this one that they do not come; takes what is
 * still on its way to this one; then waits for what this one sent. In this order nobody hangs. */
static snrq_status leave(snrq_transfer *t)
{
    bool lost;
    while (t->from.left.begin < t->from.left.end) {
        int to = owner(&t->to, t->count, t->from.left.begin);
        SNRQ_TRY(send_header(t, true, to));
        t->from.left.begin = snrq_share(t->count, 1, t->to.size, t->to.at).end;
    }
    while (t->to.left.begin < t->to.left.end) SNRQ_TRY(receive_item(t, NULL, &lost));
    return wait_for_sent(t);
}

snrq_status snrq_transfer_end(snrq_transfer **transfer, snrq_status local)
{
    snrq_transfer *t = *transfer;
    if (t == NULL) return local;
    bool sent = t->from.left.begin == t->from.left.end;
    if (local == SNRQ_OK) local = check_all_moved(t);
    snrq_status left = leave(t);
    if (local == SNRQ_OK) local = left;
    /* The rank that did not send all of its items has failed, too, and can say why. */
    if (t->lost && sent) local = SNRQ_OK;
    local = snrq_agree(t->both, local);
    release(transfer);
    return local;
}
