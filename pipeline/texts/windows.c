/* Token windows by a rule; see windows.h. */
#include "pipeline/texts/windows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer/sampling.h"
#include "io/tokenizer/token_file.h"
#include "mpi/collective.h"
#include "mpi/log.h"

enum { LONGEST_DEFAULT = 2048, C4_NEW_DOCUMENTS = 1100 };

static snrq_status window_length(const snrq_context *context, const snrq_window_order *o,
                                 const snrq_config *c, int64_t *length)
{
    *length = o->length > 0
                  ? o->length
                  : (c->max_positions < LONGEST_DEFAULT ? c->max_positions : LONGEST_DEFAULT);
    if (*length > c->max_positions && !o->beyond_context)
        return snrq_fail(SNRQ_USAGE, "--length %lld: the model's context is %lld tokens",
                         (long long)*length, (long long)c->max_positions);
    if (*length < 2)
        return snrq_fail(SNRQ_USAGE, "--length %lld: a window needs at least 2 tokens",
                         (long long)*length);
    if (*length > c->max_positions)
        snrq_note(context,
                  "note: windows of %lld tokens are longer than the model's context of %lld: "
                  "positions beyond it are computed all the same, but were not trained",
                  (long long)*length, (long long)c->max_positions);
    return SNRQ_OK;
}

/* What windows are made from. */
typedef struct source {
    const snrq_context *context;
    const snrq_window_order *order;
    int64_t vocabulary, length;
    char name[4200];
    snrq_tokenizer *tokenizer; /* owned */
} source;

static snrq_status consecutive(const source *s, const int32_t *ids, int64_t total,
                               snrq_windows *out)
{
    const snrq_window_order *o = s->order;
    int64_t count = o->count;
    if (count == 0 && o->most > 0 && total / s->length > o->most) count = o->most;
    return snrq_windows_consecutive(s->name, ids, total, count, s->length, out);
}

static snrq_status from_tokens(const source *s, snrq_windows *out)
{
    const snrq_window_order *o = s->order;
    snrq_tokens t = {0};
    snrq_status status =
        o->token_file != NULL
            ? snrq_token_file(o->token_file, s->vocabulary, &t.ids, &t.count)
            : snrq_texts_read(s->context, &o->texts, s->tokenizer, s->vocabulary, &t);
    if (status == SNRQ_OK && o->token_file == NULL && o->rule == SNRQ_WINDOWS_RANDOM)
        status = snrq_windows_random(s->name, t.ids, t.count, o->count, s->length, o->seed, out);
    else if (status == SNRQ_OK)
        status = consecutive(s, t.ids, t.count, out);
    if (status == SNRQ_OK && o->held_out > 0) {
        int64_t most = (out->count - 1) / SNRQ_WINDOWS_PER_ADDED + 1;
        status =
            snrq_windows_hold_out(t.ids, t.count, o->held_out < most ? o->held_out : most, out);
    }
    snrq_tokens_free(&t);
    return status;
}

/* The first `count` documents with `between` between them; the caller frees *text. */
static snrq_status join(const snrq_documents *d, int64_t count, const char *between, char **text,
                        size_t *bytes)
{
    size_t gap = strlen(between), size;
    *bytes = 0;
    SNRQ_TRY(snrq_allocate(d->used + (size_t)count * gap + 1, 1, "joined documents", text));
    for (int64_t i = 0; i < count; i++) {
        const char *document = snrq_documents_text(d, i, &size);
        if (i > 0) memcpy(*text + *bytes, between, gap);
        if (i > 0) *bytes += gap;
        if (size > 0) memcpy(*text + *bytes, document, size);
        *bytes += size;
    }
    return SNRQ_OK;
}

static snrq_status from_joined(const source *s, const snrq_documents *d, snrq_windows *out)
{
    const snrq_window_order *o = s->order;
    bool c4 = o->rule == SNRQ_WINDOWS_C4_NEW;
    char *text = NULL;
    int32_t *ids = NULL;
    size_t bytes;
    int64_t total, count = c4 && d->count > C4_NEW_DOCUMENTS ? C4_NEW_DOCUMENTS : d->count;
    snrq_status status = join(d, count, c4 ? " " : "\n\n", &text, &bytes);
    if (status == SNRQ_OK)
        status =
            snrq_document_tokens(s->name, text, bytes, s->tokenizer, s->vocabulary, &ids, &total);
    free(text);
    if (status == SNRQ_OK)
        status = o->rule == SNRQ_WINDOWS_WIKITEXT2_DRAWN
                     ? snrq_sampling_text(s->name, ids, total, o->count, s->length, o->seed, out)
                     : consecutive(s, ids, total, out);
    free(ids);
    return status;
}

static snrq_status from_documents(const source *s, snrq_windows *out)
{
    const snrq_window_order *o = s->order;
    snrq_documents d;
    const snrq_sampling_source drawn = {s->name, &d, s->tokenizer, s->vocabulary};
    snrq_status status = snrq_texts_hold(s->context, &o->texts, &d);
    if (status != SNRQ_OK)
        ;
    else if (o->rule == SNRQ_WINDOWS_C4)
        status =
            snrq_sampling_documents(&drawn, SNRQ_SAMPLING_GPTQ, o->count, s->length, o->seed, out);
    else if (o->rule == SNRQ_WINDOWS_C4_SNRQ)
        status =
            snrq_sampling_documents(&drawn, SNRQ_SAMPLING_SNRQ, o->count, s->length, o->seed, out);
    else
        status = from_joined(s, &d, out);
    snrq_documents_free(&d);
    return status;
}

static snrq_status open_tokenizer(const snrq_model *m, snrq_tokenizer **out)
{
    snrq_status status = snrq_tokenizer_read(m->path, out);
    if (status == SNRQ_OK) return SNRQ_OK;
    return snrq_fail(status,
                     "%s; instead of a text, give its token ids, made by the model's own "
                     "software: --token-file FILE (little-endian int32, or .npy)",
                     snrq_error_message());
}

static snrq_status read_windows(const snrq_context *context, const snrq_window_order *o,
                                const snrq_model *m, int64_t length, snrq_windows *out)
{
    source s = {context, o, m->config.vocabulary, length, "", NULL};
    if (o->token_file != NULL) {
        snprintf(s.name, sizeof s.name, "%s", o->token_file);
        return from_tokens(&s, out);
    }
    snrq_texts_name(&o->texts, s.name, sizeof s.name);
    SNRQ_TRY(open_tokenizer(m, &s.tokenizer));
    bool each = o->rule == SNRQ_WINDOWS_RANDOM || o->rule == SNRQ_WINDOWS_CONSECUTIVE;
    snrq_status status = each ? from_tokens(&s, out) : from_documents(&s, out);
    snrq_tokenizer_destroy(&s.tokenizer);
    return status;
}

/* What rank 0 has, all ranks get. */
static snrq_status share_windows(const snrq_context *c, snrq_windows *w)
{
    snrq_windows of_0 = *w;
    SNRQ_TRY(snrq_broadcast(c, &of_0, sizeof of_0));
    snrq_status status = SNRQ_OK;
    if (c->rank != 0) {
        bool places = of_0.place != NULL;
        *w = of_0;
        w->ids = NULL;
        w->start = NULL;
        w->place = NULL;
        status = snrq_allocate((size_t)(w->count * w->length), sizeof *w->ids, "windows", &w->ids);
        if (status == SNRQ_OK && places)
            status = snrq_allocate((size_t)w->count, sizeof *w->place, "places", &w->place);
    }
    SNRQ_TRY(snrq_agree(c, status));
    SNRQ_TRY(snrq_broadcast(c, w->ids, (size_t)(w->count * w->length) * sizeof *w->ids));
    if (w->place == NULL) return SNRQ_OK;
    return snrq_broadcast(c, w->place, (size_t)w->count * sizeof *w->place);
}

snrq_status snrq_windows_make(const snrq_context *context, const snrq_window_order *order,
                              const snrq_model *model, snrq_windows *out)
{
    int64_t length = 0;
    *out = (snrq_windows){0};
    SNRQ_TRY(window_length(context, order, &model->config, &length));
    snrq_status status =
        context->rank == 0 ? read_windows(context, order, model, length, out) : SNRQ_OK;
    int64_t most = (out->count - out->held_out) / SNRQ_WINDOWS_PER_ADDED;
    if (status == SNRQ_OK && context->rank == 0)
        status = snrq_windows_add_first_tokens(
            order->first_tokens < most ? order->first_tokens : most, order->seed, out);
    status = snrq_agree(context, status);
    if (status == SNRQ_OK) status = share_windows(context, out);
    if (status != SNRQ_OK) snrq_windows_free(out);
    return status;
}
