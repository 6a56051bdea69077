/* Windows as published programs draw them; see sampling.h. */
#include "io/tokenizer/sampling.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer/python_random.h"
#include "io/tokenizer/text_tokens.h"

/* Documents are further apart than windows are long, where starts of all of them are compared. */
static const int64_t document_stride = (int64_t)1 << 36;

typedef struct sampler {
    const snrq_sampling_source *source;
    snrq_sampling_rule rule;
    int64_t length;
    snrq_python_random random;
    int64_t *tokens; /* [documents] how many each has, plus one; 0: not counted yet */
} sampler;

static snrq_status tokenize(const sampler *s, int64_t document, int32_t **ids, int64_t *count)
{
    char where[4200];
    size_t bytes;
    const char *text = snrq_documents_text(s->source->documents, document, &bytes);
    snprintf(where, sizeof where, "%s: document %" PRId64, s->source->name, document + 1);
    SNRQ_TRY(snrq_document_tokens(where, text, bytes, s->source->tokenizer, s->source->vocabulary,
                                  ids, count));
    s->tokens[document] = *count + 1;
    return SNRQ_OK;
}

static bool too_short(const sampler *s, int64_t document)
{
    return s->tokens[document] > 0 && s->tokens[document] - 1 < s->length;
}

/* After many draws in vain: is any document long enough? */
static snrq_status find_any(const sampler *s)
{
    int64_t longest = 0, count;
    int32_t *ids;
    for (int64_t d = 0; d < s->source->documents->count; d++) {
        if (s->tokens[d] == 0) {
            SNRQ_TRY(tokenize(s, d, &ids, &count));
            free(ids);
        }
        if (s->tokens[d] - 1 >= s->length) return SNRQ_OK;
        if (s->tokens[d] - 1 > longest) longest = s->tokens[d] - 1;
    }
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: the longest of its %" PRId64 " documents has %" PRId64
                     " tokens, but one window is %" PRId64
                     ": give longer documents or a shorter --length",
                     s->source->name, s->source->documents->count, longest, s->length);
}

/* Draws documents until one is long enough. */
static snrq_status draw_document(sampler *s, snrq_window_place *place, int32_t **ids,
                                 int64_t *count)
{
    int64_t documents = s->source->documents->count;
    *ids = NULL;
    for (place->rejected = 0;; place->rejected++) {
        if (place->rejected == documents) SNRQ_TRY(find_any(s));
        place->document = snrq_python_random_up_to(&s->random, documents - 1);
        if (too_short(s, place->document)) continue;
        SNRQ_TRY(tokenize(s, place->document, ids, count));
        if (*count >= s->length) return SNRQ_OK;
        free(*ids);
        *ids = NULL;
    }
}

static snrq_status draw_start(sampler *s, int64_t window, int64_t count, snrq_window_place *place)
{
    int64_t last = count - s->length - (s->rule == SNRQ_SAMPLING_GPTQ);
    place->start = 0;
    if (last < 0)
        return snrq_fail(
            SNRQ_BAD_DATA,
            "%s: document %" PRId64 ", drawn for window %" PRId64 ", has exactly the %" PRId64
            " tokens of a window: here the GPTQ code ends with a ValueError, so this seed has no "
            "windows; c4-snrq does without this, or take another --seed or --length",
            s->source->name, place->document + 1, window + 1, count);
    if (last > 0 || s->rule == SNRQ_SAMPLING_GPTQ)
        place->start = snrq_python_random_up_to(&s->random, last);
    return SNRQ_OK;
}

static snrq_status draw_window(sampler *s, int64_t window, snrq_windows *out)
{
    snrq_window_place *place = &out->place[window];
    int32_t *ids;
    int64_t count = 0;
    SNRQ_TRY(draw_document(s, place, &ids, &count));
    snrq_status status = draw_start(s, window, count, place);
    if (status == SNRQ_OK)
        memcpy(out->ids + window * s->length, ids + place->start, (size_t)s->length * sizeof *ids);
    free(ids);
    return status;
}

static snrq_status count_distinct(snrq_windows *out)
{
    int64_t *starts;
    SNRQ_TRY(snrq_allocate((size_t)out->count, sizeof *starts, "starts of windows", &starts));
    for (int64_t w = 0; w < out->count; w++)
        starts[w] = out->place[w].document * document_stride + out->place[w].start;
    out->distinct = snrq_windows_distinct(starts, out->count, out->length);
    free(starts);
    return SNRQ_OK;
}

static snrq_status draw_all(sampler *s, snrq_windows *out)
{
    size_t documents = (size_t)s->source->documents->count;
    SNRQ_TRY(snrq_allocate((size_t)out->count, sizeof *out->place, "places", &out->place));
    SNRQ_TRY(snrq_allocate(documents, sizeof *s->tokens, "token counts", &s->tokens));
    for (int64_t w = 0; w < out->count; w++) SNRQ_TRY(draw_window(s, w, out));
    return count_distinct(out);
}

snrq_status snrq_sampling_documents(const snrq_sampling_source *source, snrq_sampling_rule rule,
                                    int64_t count, int64_t length, uint64_t seed, snrq_windows *out)
{
    sampler s = {.source = source, .rule = rule, .length = length};
    snrq_python_random_seed(&s.random, seed);
    SNRQ_TRY(snrq_windows_create(source->name, INT64_MAX, count, length, out));
    out->total_tokens = 0;
    snrq_status status = draw_all(&s, out);
    free(s.tokens);
    if (status != SNRQ_OK) {
        snrq_windows_free(out);
        return status;
    }
    snrq_windows_finish(out);
    return SNRQ_OK;
}

snrq_status snrq_sampling_text(const char *source, const int32_t *ids, int64_t total, int64_t count,
                               int64_t length, uint64_t seed, snrq_windows *out)
{
    snrq_python_random random;
    int64_t *starts;
    *out = (snrq_windows){0};
    if (length > 0 && total == length)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: exactly the %" PRId64
                         " tokens of a window: the rule for WikiText-2 has no start in it; give a "
                         "longer text or a shorter window",
                         source, total);
    SNRQ_TRY(snrq_windows_create(source, total, count, length, out));
    snrq_status status = snrq_allocate((size_t)count, sizeof *starts, "starts of windows", &starts);
    if (status != SNRQ_OK) {
        snrq_windows_free(out);
        return status;
    }
    snrq_python_random_seed(&random, seed);
    for (int64_t w = 0; w < count; w++) {
        starts[w] = snrq_python_random_up_to(&random, total - length - 1);
        memcpy(out->ids + w * length, ids + starts[w], (size_t)length * sizeof *ids);
    }
    out->distinct = snrq_windows_distinct(starts, count, length);
    free(starts);
    snrq_windows_finish(out);
    return SNRQ_OK;
}
