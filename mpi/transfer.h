/* A set of items moves from one group of ranks to another.
 *
 * The items - the sequences of a stream of activations - are `count` times `item_bytes` bytes. Each
 * of the two groups has dealt them over its ranks by snrq_share(count, 1, size, rank). The groups
 * are contexts with any numbers of ranks: they may be disjoint, overlap, or be the same.
 *
 *     snrq_transfer_create(job, from, to, "stream", count, bytes, &transfer)   all ranks of job
 *     snrq_transfer_send(transfer, items, data), as often as it takes          ranks of from
 *     snrq_transfer_receive(transfer, items, data), as often as it takes       ranks of to
 *     snrq_transfer_end(&transfer, status)                                     ranks of either
 *
 * Sending never waits, so that groups overlap: what one group sends is taken by the other one when
 * it gets there. Receiving waits for the ranks that have the items, and for nobody else. A rank of
 * both groups sends all of its items before it receives the first, so that no rank ever waits for
 * one that waits for it. A rank that fails in between ends the transfer at once, and nobody hangs:
 * what it does not send is announced as lost, what it does not receive is thrown away.
 *
 * Beside the items that the caller holds, a rank needs a few bytes per item and 4 MiB.
 */
#ifndef SNRQ_TRANSFER_H
#define SNRQ_TRANSFER_H

#include "mpi/collective.h"

typedef struct snrq_transfer snrq_transfer;

/* Prepares a transfer. from: the group that has the items, NULL on ranks that are not in it; to:
 * the group that gets them, likewise; all ranks of both are ranks of `parent`. name: what is
 * moved, for messages and to be compared. On ranks of neither group *out is NULL, and name, count
 * and item_bytes do not matter. SNRQ_INTERNAL if two ranks do not mean the same, or if a group has
 * no ranks. Collective over the parent; agreed. The caller ends it. */
snrq_status snrq_transfer_create(const snrq_context *parent, const snrq_context *from,
                                 const snrq_context *to, const char *name, int64_t count,
                                 size_t item_bytes, snrq_transfer **out);

/* What this rank still has to send and to receive: items [begin, end). */
snrq_range snrq_transfer_outgoing(const snrq_transfer *transfer);
snrq_range snrq_transfer_incoming(const snrq_transfer *transfer);

/* Sends the next `items` items: data [items][item_bytes]. Does not wait; data must stay as it is
 * until snrq_transfer_flush() or snrq_transfer_end(). SNRQ_INTERNAL if there are not so many left.
 * Not collective. */
snrq_status snrq_transfer_send(snrq_transfer *transfer, int64_t items, const void *data);

/* Waits until what was sent has been received, so that its memory can be used again. SNRQ_INTERNAL
 * on a rank that has still to receive. Not collective. */
snrq_status snrq_transfer_flush(snrq_transfer *transfer);

/* Waits for the next `items` items: data [items][item_bytes]. SNRQ_INTERNAL if there are not so
 * many left, if this rank has still to send, or if a rank that should have sent them failed; what
 * that rank said is heard in snrq_transfer_end(). Not collective. */
snrq_status snrq_transfer_receive(snrq_transfer *transfer, int64_t items, void *data);

/* Waits until all that was sent has been received, agrees on how it went (`local`: of this rank)
 * and frees; *transfer becomes NULL. A rank without error that did not send or receive all of its
 * items is SNRQ_INTERNAL. Returns `local` if *transfer is NULL already. Collective over the ranks
 * of both groups; agreed. */
snrq_status snrq_transfer_end(snrq_transfer **transfer, snrq_status local);

#endif
