/* Items that move between groups of ranks: what arrives, and that nobody hangs. */
#include "mpi/transfer.h"

#include <stdbool.h>
#include <string.h>

#include "tests/ranks/rank_test.h"

static unsigned char byte_of(int64_t item, size_t at)
{
    return (unsigned char)((uint64_t)item * 131 + at * 7 + at / 251 + 1);
}

static void fill(unsigned char *data, snrq_range items, size_t item_bytes)
{
    for (int64_t i = items.begin; i < items.end; i++)
        for (size_t at = 0; at < item_bytes; at++)
            data[(size_t)(i - items.begin) * item_bytes + at] = byte_of(i, at);
}

static int64_t count_wrong(const unsigned char *data, snrq_range items, size_t item_bytes)
{
    int64_t wrong = 0;
    for (int64_t i = items.begin; i < items.end; i++)
        for (size_t at = 0; at < item_bytes; at++)
            wrong += data[(size_t)(i - items.begin) * item_bytes + at] != byte_of(i, at);
    return wrong;
}

/* The two groups, as bits of what a rank is: 1: it sends, 2: it receives. */
typedef struct groups {
    snrq_context *from, *to;
} groups;

static groups split(int what)
{
    groups g;
    CU_ASSERT_EQUAL(snrq_context_split(rank_test_world, what & 1 ? 0 : -1, &g.from), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_context_split(rank_test_world, what & 2 ? 0 : -1, &g.to), SNRQ_OK);
    return g;
}

static void join(groups *g)
{
    snrq_context_destroy(&g->from);
    snrq_context_destroy(&g->to);
}

static snrq_range share_in(const snrq_context *c, int64_t count)
{
    return c == NULL ? (snrq_range){0, 0} : snrq_share(count, 1, c->size, c->rank);
}

static void *room_for(snrq_range items, size_t item_bytes)
{
    return calloc((size_t)(items.end - items.begin) * item_bytes + 1, 1);
}

/* Moves all items, `piece` of them at a time, from memory that is used again where that is allowed,
 * and compares what arrives. */
static void move(const groups *g, int64_t count, size_t item_bytes, int64_t piece)
{
    snrq_transfer *t = NULL;
    snrq_range out = share_in(g->from, count), in = share_in(g->to, count);
    unsigned char *sent = room_for(out, item_bytes), *received = room_for(in, item_bytes);
    snrq_status status =
        snrq_transfer_create(rank_test_world, g->from, g->to, "items", count, item_bytes, &t);
    CU_ASSERT_EQUAL(status, SNRQ_OK);
    CU_ASSERT_EQUAL(t == NULL, g->from == NULL && g->to == NULL);
    fill(sent, out, item_bytes);
    for (int64_t i = out.begin; i < out.end && status == SNRQ_OK; i += piece) {
        int64_t items = out.end - i < piece ? out.end - i : piece;
        unsigned char *data = sent + (size_t)(i - out.begin) * item_bytes;
        CU_ASSERT_EQUAL(snrq_transfer_outgoing(t).begin, i);
        CU_ASSERT_EQUAL(snrq_transfer_send(t, items, data), SNRQ_OK);
        if (g->to != NULL) continue;
        CU_ASSERT_EQUAL(snrq_transfer_flush(t), SNRQ_OK);
        memset(data, 0, (size_t)items * item_bytes);
    }
    for (int64_t i = in.begin; i < in.end && status == SNRQ_OK; i += piece) {
        int64_t items = in.end - i < piece ? in.end - i : piece;
        CU_ASSERT_EQUAL(snrq_transfer_incoming(t).begin, i);
        CU_ASSERT_EQUAL(
            snrq_transfer_receive(t, items, received + (size_t)(i - in.begin) * item_bytes),
            SNRQ_OK);
    }
    CU_ASSERT_EQUAL(snrq_transfer_end(&t, SNRQ_OK), SNRQ_OK);
    CU_ASSERT_PTR_NULL(t);
    CU_ASSERT_EQUAL(count_wrong(received, in, item_bytes), 0);
    free(sent);
    free(received);
}

/* Every rank of the job sends, receives, does both or neither: all ways in which both groups have a
 * rank. */
static void every_rank_gets_its_items(void)
{
    const snrq_context *w = rank_test_world;
    const int64_t counts[] = {0, 1, 3, 11};
    for (int way = 0; way < 1 << 2 * w->size; way++) {
        int any = 0;
        for (int r = 0; r < w->size; r++) any |= way >> 2 * r & 3;
        if (any != 3) continue;
        groups g = split(way >> 2 * w->rank & 3);
        for (int k = 0; k < 4; k++) move(&g, counts[k], 100, 1 + k);
        join(&g);
    }
}

/* The first half sends to the last one; with one rank, to itself. */
static groups halves(void)
{
    const snrq_context *w = rank_test_world;
    if (w->size == 1) return split(3);
    return split(w->rank < w->size / 2 ? 1 : 2);
}

static void items_of_any_size_arrive(void)
{
    const size_t sizes[] = {0, 1, 5000, 100000, (1 << 22) - 1, 1 << 22, (1 << 22) + 1, 9000001};
    groups g = halves(), all = split(3);
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        move(&g, 5, sizes[k], 2);
        move(&all, 5, sizes[k], 100);
    }
    join(&g);
    join(&all);
}

/* Through all ranks in a chain, and back: several transfers at once. */
static void transfers_do_not_meet(void)
{
    const snrq_context *w = rank_test_world;
    enum { COUNT = 4, BYTES = 200000 };
    snrq_transfer *up[8] = {NULL}, *down[8] = {NULL};
    snrq_context *alone = NULL;
    snrq_range all = {0, COUNT};
    unsigned char *sent = room_for(all, BYTES), *received = room_for(all, BYTES);
    CU_ASSERT_EQUAL(snrq_context_split(w, w->rank, &alone), SNRQ_OK);
    for (int r = 0; r + 1 < w->size; r++) {
        const snrq_context *low = w->rank == r ? alone : NULL;
        const snrq_context *high = w->rank == r + 1 ? alone : NULL;
        CU_ASSERT_EQUAL(snrq_transfer_create(w, low, high, "up", COUNT, BYTES, &up[r]), SNRQ_OK);
        CU_ASSERT_EQUAL(snrq_transfer_create(w, high, low, "down", COUNT, BYTES, &down[r]),
                        SNRQ_OK);
    }
    fill(sent, all, BYTES);
    /* Rank r sends what it has to its neighbours before anybody receives. */
    for (int i = 0; i < COUNT; i++) {
        const unsigned char *item = sent + (size_t)i * BYTES;
        if (w->rank + 1 < w->size)
            CU_ASSERT_EQUAL(snrq_transfer_send(up[w->rank], 1, item), SNRQ_OK);
        if (w->rank > 0) CU_ASSERT_EQUAL(snrq_transfer_send(down[w->rank - 1], 1, item), SNRQ_OK);
    }
    if (w->rank > 0) {
        CU_ASSERT_EQUAL(snrq_transfer_receive(up[w->rank - 1], COUNT, received), SNRQ_OK);
        CU_ASSERT_EQUAL(count_wrong(received, all, BYTES), 0);
    }
    memset(received, 0, COUNT * BYTES);
    if (w->rank + 1 < w->size) {
        CU_ASSERT_EQUAL(snrq_transfer_receive(down[w->rank], COUNT, received), SNRQ_OK);
        CU_ASSERT_EQUAL(count_wrong(received, all, BYTES), 0);
    }
    for (int r = 0; r + 1 < w->size; r++) {
        CU_ASSERT_EQUAL(snrq_transfer_end(&up[r], SNRQ_OK), SNRQ_OK);
        CU_ASSERT_EQUAL(snrq_transfer_end(&down[r], SNRQ_OK), SNRQ_OK);
    }
    snrq_context_destroy(&alone);
    free(sent);
    free(received);
}

/* Items go to a group that is not there yet: the first one is not held up. */
static void sending_does_not_wait(void)
{
    const snrq_context *w = rank_test_world;
    enum { BYTES = 5000000 };
    groups g = halves();
    snrq_transfer *t = NULL;
    snrq_range out = share_in(g.from, 6), in = share_in(g.to, 6);
    unsigned char *sent = room_for(out, BYTES), *received = room_for(in, BYTES);
    CU_ASSERT_EQUAL(snrq_transfer_create(w, g.from, g.to, "items", 6, BYTES, &t), SNRQ_OK);
    fill(sent, out, BYTES);
    CU_ASSERT_EQUAL(snrq_transfer_send(t, out.end - out.begin, sent), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_barrier(w), SNRQ_OK); /* all is sent, and nothing was received */
    CU_ASSERT_EQUAL(snrq_transfer_receive(t, in.end - in.begin, received), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_transfer_end(&t, SNRQ_OK), SNRQ_OK);
    CU_ASSERT_EQUAL(count_wrong(received, in, BYTES), 0);
    join(&g);
    free(sent);
    free(received);
}

static void both_sides_must_mean_the_same(void)
{
    const snrq_context *w = rank_test_world;
    groups g = halves();
    bool sends = g.from != NULL;
    for (int k = 0; k < 3 && w->size > 1; k++) {
        snrq_transfer *t = NULL;
        char expected[200];
        snprintf(expected, sizeof expected,
                 "rank 0 %d items of %d bytes of %s, rank %d 4 items of 8 bytes of stream",
                 k == 0 ? 5 : 4, k == 1 ? 9 : 8, k == 2 ? "weights" : "stream", w->size / 2);
        CU_ASSERT_EQUAL(snrq_transfer_create(w, g.from, g.to,
                                             k == 2 && sends ? "weights" : "stream",
                                             k == 0 && sends ? 5 : 4, k == 1 && sends ? 9 : 8, &t),
                        SNRQ_INTERNAL);
        CU_ASSERT_PTR_NULL(t);
        CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), expected));
    }
    move(&g, 4, 8, 1);
    join(&g);
}

static void groups_without_ranks_are_refused(void)
{
    const snrq_context *w = rank_test_world;
    snrq_transfer *t = NULL;
    CU_ASSERT_EQUAL(snrq_transfer_create(w, w, NULL, "items", 4, 8, &t), SNRQ_INTERNAL);
    CU_ASSERT_EQUAL(snrq_transfer_create(w, NULL, w, "items", 4, 8, &t), SNRQ_INTERNAL);
    CU_ASSERT_EQUAL(snrq_transfer_create(w, NULL, NULL, "items", 4, 8, &t), SNRQ_INTERNAL);
    CU_ASSERT_PTR_NULL(t);
    if (w->size == 1) return;
    /* Ranks that the parent does not have. */
    snrq_context *pair = NULL;
    CU_ASSERT_EQUAL(snrq_context_split(w, w->rank < w->size - 1 ? 0 : 1, &pair), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_transfer_create(pair, w, pair, "items", 4, 8, &t), SNRQ_INTERNAL);
    CU_ASSERT_PTR_NULL(t);
    snrq_context_destroy(&pair);
}

/* One rank of a side fails after `items` of its items, the others do all they can. */
static void fail_after(int64_t items, bool sender)
{
    const snrq_context *w = rank_test_world;
    enum { COUNT = 9, BYTES = 300000 };
    groups g = w->size == 1 ? split(3) : split(w->rank % 2 == 0 ? 1 : 2);
    snrq_transfer *t = NULL;
    snrq_range out = share_in(g.from, COUNT), in = share_in(g.to, COUNT);
    unsigned char *sent = room_for(out, BYTES), *received = room_for(in, BYTES);
    const snrq_context *mine = sender ? g.from : g.to;
    bool fails = mine != NULL && mine->rank == mine->size - 1;
    snrq_status status = snrq_transfer_create(w, g.from, g.to, "items", COUNT, BYTES, &t);
    CU_ASSERT_EQUAL(status, SNRQ_OK);
    int64_t sending = out.end - out.begin, receiving = in.end - in.begin;
    if (sender && fails && items < sending) sending = items;
    if (!sender && fails && items < receiving) receiving = items;
    fill(sent, out, BYTES);
    status = snrq_transfer_send(t, sending, sent);
    if (status == SNRQ_OK && !(sender && fails))
        status = snrq_transfer_receive(t, receiving, received);
    if (!sender || fails) CU_ASSERT_EQUAL(status, SNRQ_OK);
    if (status != SNRQ_OK)
        CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), "items of items were not sent to"));
    if (fails) status = snrq_fail(SNRQ_NO_INPUT, "the disk is gone");
    CU_ASSERT_EQUAL(snrq_transfer_end(&t, status), SNRQ_NO_INPUT);
    CU_ASSERT_PTR_NULL(t);
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), "the disk is gone"));
    join(&g);
    free(sent);
    free(received);
}

static void a_rank_that_fails_leaves_nobody_waiting(void)
{
    for (int64_t items = 0; items <= 4; items++) {
        fail_after(items, true);
        fail_after(items, false);
    }
}

static void what_was_not_moved_is_missed(void)
{
    const snrq_context *w = rank_test_world;
    groups g = halves();
    unsigned char data[40] = {0};
    for (int k = 0; k < 2; k++) {
        snrq_transfer *t = NULL;
        CU_ASSERT_EQUAL(snrq_transfer_create(w, g.from, g.to, "items", 5, 8, &t), SNRQ_OK);
        snrq_range out = snrq_transfer_outgoing(t);
        if (k == 1) CU_ASSERT_EQUAL(snrq_transfer_send(t, out.end - out.begin, data), SNRQ_OK);
        CU_ASSERT_EQUAL(snrq_transfer_end(&t, SNRQ_OK), SNRQ_INTERNAL);
        CU_ASSERT_PTR_NOT_NULL(
            strstr(snrq_error_message(), k == 0 ? "were never sent" : "were never received"));
    }
    join(&g);
}

static void calls_that_could_hang_are_refused(void)
{
    const snrq_context *w = rank_test_world;
    groups g = split(3);
    snrq_transfer *t = NULL;
    unsigned char data[8 * 8] = {0};
    CU_ASSERT_EQUAL(snrq_transfer_create(w, g.from, g.to, "items", 2 * w->size, 8, &t), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_transfer_send(t, 1, data), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_transfer_receive(t, 1, data), SNRQ_INTERNAL);
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), "has to send first"));
    CU_ASSERT_EQUAL(snrq_transfer_flush(t), SNRQ_INTERNAL);
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), "has to receive first"));
    CU_ASSERT_EQUAL(snrq_transfer_send(t, 2, data), SNRQ_INTERNAL);
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), "sends 2 items of items, but has only 1"));
    CU_ASSERT_EQUAL(snrq_transfer_send(t, 1, data), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_transfer_receive(t, 3, data), SNRQ_INTERNAL);
    CU_ASSERT_EQUAL(snrq_transfer_receive(t, 2, data + 16), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_transfer_end(&t, SNRQ_OK), SNRQ_OK);
    join(&g);
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {
        SNRQ_TEST(every_rank_gets_its_items),
        SNRQ_TEST(items_of_any_size_arrive),
        SNRQ_TEST(transfers_do_not_meet),
        SNRQ_TEST(sending_does_not_wait),
        SNRQ_TEST(both_sides_must_mean_the_same),
        SNRQ_TEST(groups_without_ranks_are_refused),
        SNRQ_TEST(a_rank_that_fails_leaves_nobody_waiting),
        SNRQ_TEST(what_was_not_moved_is_missed),
        SNRQ_TEST(calls_that_could_hang_are_refused),
    };
    return rank_test_main(argc, argv, "transfer", tests, sizeof tests / sizeof *tests);
}
