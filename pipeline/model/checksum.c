/* Checksums of tensors; see checksum.h. */
#include "pipeline/model/checksum.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "io/file.h"
#include "mpi/collective.h"
#include "pipeline/model/findings.h"
#include "pipeline/model/tensors.h"

/* Hash of a piece, as it is hashed again. */
typedef struct piece_hash {
    int64_t half[2]; /* the canonical form's bytes */
} piece_hash;

/* What is read of a model: the tensors, all their pieces, and all their bytes. */
struct work {
    const snrq_model *model;
    const snrq_tensor **tensors; /* [count] */
    size_t count, pieces;
    uint64_t bytes;
};

static size_t pieces_of(const snrq_tensor *t)
{
    return (size_t)((t->bytes + SNRQ_CHECKSUM_PIECE - 1) / SNRQ_CHECKSUM_PIECE);
}

static snrq_status list_tensors(const snrq_model *m, struct work *w)
{
    int64_t all = snrq_safetensors_count(m->tensors);
    *w = (struct work){.model = m};
    SNRQ_TRY(snrq_allocate((size_t)all, sizeof *w->tensors, "list of tensors", &w->tensors));
    for (int64_t i = 0; i < all; i++) {
        const snrq_tensor *t = snrq_safetensors_at(m->tensors, i);
        if (snrq_model_tensor_use(m, t) != SNRQ_TENSOR_READ) continue;
        w->tensors[w->count++] = t;
        w->pieces += pieces_of(t);
        w->bytes += t->bytes;
    }
    return SNRQ_OK;
}

/* Hashes the pieces that begin in this rank's share of the bytes. */
static snrq_status hash_share(const snrq_context *context, const struct work *w, piece_hash *hashes)
{
    snrq_range mine = snrq_share((int64_t)w->bytes, 1, context->size, context->rank);
    unsigned char *buffer = NULL;
    int64_t at = 0;
    size_t piece = 0;
    SNRQ_TRY(snrq_allocate_scratch(SNRQ_CHECKSUM_PIECE, 1, "piece of a tensor", &buffer));
    snrq_status status = SNRQ_OK;
    for (size_t i = 0; i < w->count && status == SNRQ_OK; i++) {
        const snrq_tensor *t = w->tensors[i];
        for (uint64_t begin = 0; begin < t->bytes && status == SNRQ_OK; piece++) {
            uint64_t left = t->bytes - begin;
            uint64_t bytes = left < SNRQ_CHECKSUM_PIECE ? left : SNRQ_CHECKSUM_PIECE;
            if (at >= mine.begin && at < mine.end) {
                XXH128_canonical_t canonical;
                status = snrq_model_read(w->model, t, begin, bytes, buffer);
                XXH128_canonicalFromHash(&canonical, XXH3_128bits(buffer, (size_t)bytes));
                memcpy(&hashes[piece], &canonical, sizeof canonical);
            }
            at += (int64_t)bytes;
            begin += bytes;
        }
    }
    free(buffer);
    return status;
}

static snrq_status describe(const struct work *w, const piece_hash *hashes, json_t **out)
{
    *out = json_object();
    for (size_t i = 0, piece = 0; i < w->count; i++) {
        char text[33];
        size_t pieces = pieces_of(w->tensors[i]);
        snrq_hash(hashes + piece, pieces * sizeof *hashes, text);
        piece += pieces;
        if (json_object_set_new(*out, w->tensors[i]->name, json_string(text)) == 0) continue;
        json_decref(*out);
        *out = NULL;
        return snrq_fail(SNRQ_INTERNAL, "no memory for the checksums of the tensors");
    }
    return SNRQ_OK;
}

snrq_status snrq_model_checksums(const snrq_context *context, const snrq_model *m, json_t **out)
{
    struct work w;
    piece_hash *hashes = NULL;
    _Static_assert(sizeof *hashes == sizeof(XXH128_canonical_t), "a hash has 16 bytes");
    *out = NULL;
    snrq_status status = list_tensors(m, &w);
    if (status == SNRQ_OK) status = snrq_allocate(w.pieces, sizeof *hashes, "checksums", &hashes);
    if (status == SNRQ_OK) status = hash_share(context, &w, hashes);
    status = snrq_agree(context, status);
    /* Every piece is one rank's, and zero on the others. */
    if (status == SNRQ_OK) status = snrq_sum_int64(context, hashes->half, 2 * (int64_t)w.pieces);
    if (status == SNRQ_OK) status = snrq_agree(context, describe(&w, hashes, out));
    free(hashes);
    free(w.tensors);
    return status;
}
