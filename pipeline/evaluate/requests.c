/* Requests become passages; see requests.h. */
#include "pipeline/evaluate/requests.h"

#include <stdlib.h>
#include <string.h>

#include "io/tokenizer/text_tokens.h"

/* The tokens of a request: all but the last are computed, the last `scored` are asked for. */
typedef struct encoded {
    int32_t *ids; /* [count] owned */
    int64_t count, scored;
} encoded;

static snrq_status encode(const snrq_request_rules *r, const char *where, snrq_piece text,
                          bool special, int32_t **ids, int64_t *count)
{
    snrq_status status =
        snrq_tokenizer_encode(r->tokenizer, text.data, text.bytes, special, ids, count);
    if (status != SNRQ_OK) return snrq_fail(status, "%s: %s", where, snrq_error_message());
    status = snrq_ids_check(where, *ids, *count, r->config->vocabulary,
                            "do tokenizer.json and config.json belong to the same model?");
    if (status != SNRQ_OK) free(*ids);
    return status;
}

/* Start token, then the text. */
static snrq_status encode_alone(const snrq_request_rules *r, const char *where, snrq_piece text,
                                encoded *out)
{
    int32_t start = snrq_tokenizer_start(r->tokenizer), *ids;
    int64_t count;
    if (start < 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: a text without context is given the model's bos_token or eos_token, "
                         "but tokenizer_config.json names neither",
                         where);
    SNRQ_TRY(encode(r, where, text, false, &ids, &count));
    snrq_status status = snrq_allocate((size_t)count + 1, sizeof *out->ids, "token ids", &out->ids);
    if (status == SNRQ_OK) {
        out->ids[0] = start;
        if (count > 0) memcpy(out->ids + 1, ids, (size_t)count * sizeof *ids);
        *out = (encoded){out->ids, count + 1, count};
    }
    free(ids);
    return status;
}

static snrq_status encode_after(const snrq_request_rules *r, const char *where, snrq_piece context,
                                snrq_piece all, encoded *out)
{
    int32_t *ids;
    int64_t count;
    SNRQ_TRY(encode(r, where, context, r->special, &ids, &count));
    free(ids);
    SNRQ_TRY(encode(r, where, all, r->special, &out->ids, &out->count));
    out->scored = out->count > count ? out->count - count : 0;
    if (out->scored < out->count || out->count == 0) return SNRQ_OK;
    free(out->ids); /* nothing of the context became a token */
    *out = (encoded){0};
    return encode_alone(r, where, all, out);
}

static snrq_status encode_request(const snrq_request_rules *r, const char *where,
                                  const snrq_request *q, encoded *out)
{
    snrq_piece context = snrq_python_rstrip(snrq_string_piece(&q->context));
    snrq_string all = {0};
    if (q->context.bytes == 0)
        return encode_alone(r, where, snrq_string_piece(&q->continuation), out);
    snrq_status status = snrq_string_add(&all, snrq_string_piece(&q->context));
    if (status == SNRQ_OK) status = snrq_string_add(&all, snrq_string_piece(&q->continuation));
    if (status == SNRQ_OK) status = encode_after(r, where, context, snrq_string_piece(&all), out);
    free(all.data);
    return status;
}

/* Truncates from the left. */
static snrq_status truncate(const snrq_request_rules *r, const char *where, encoded *e)
{
    int64_t longest = r->config->max_positions, extra = e->count - (longest + 1);
    if (e->scored > longest)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: a continuation of %lld tokens is longer than the model's context of "
                         "%lld",
                         where, (long long)e->scored, (long long)longest);
    if (extra <= 0) return SNRQ_OK;
    memmove(e->ids, e->ids + extra, (size_t)(e->count - extra) * sizeof *e->ids);
    e->count -= extra;
    return SNRQ_OK;
}

/* Where longrope changes, tokens before are computed with other angles. */
static bool is_long(const snrq_request_rules *r, const encoded *e)
{
    return r->config->rope.type == SNRQ_ROPE_LONGROPE &&
           e->count - 1 > r->config->rope.original_positions;
}

/* Tokens to be computed that all have in common: 0, if they may not share any. */
static int64_t common_prefix(const snrq_request_rules *r, const encoded *e, int count)
{
    int64_t common = e[0].count - 1;
    for (int i = 1; i < count; i++) {
        int64_t most = e[i].count - 1 < common ? e[i].count - 1 : common, same = 0;
        if (is_long(r, &e[i]) != is_long(r, &e[0])) return 0;
        while (same < most && e[i].ids[same] == e[0].ids[same]) same++;
        common = same;
    }
    return common > 0 ? common : 0;
}

/* The targets of a request whose tokens after the first `prefix` lie from row `row` on. */
static snrq_status add_targets(const encoded *e, int64_t prefix, int64_t row, int64_t question,
                               snrq_passages *p)
{
    for (int64_t t = e->count - e->scored; t < e->count; t++) {
        int64_t before = t - 1;
        SNRQ_TRY(snrq_passages_add_target(p, before < prefix ? before : row + before - prefix,
                                          e->ids[t], question));
    }
    return SNRQ_OK;
}

static snrq_status add_encoded(const snrq_request_rules *r, const encoded *e, int count,
                               int64_t first, snrq_passages *p)
{
    int64_t prefix = count > 1 ? common_prefix(r, e, count) : 0, row = prefix;
    for (int i = 0; i < count; i++) {
        int64_t own = e[i].count - 1 - prefix;
        if (i == 0 || prefix == 0) {
            SNRQ_TRY(snrq_passages_begin(p));
            row = prefix;
            if (prefix > 0) SNRQ_TRY(snrq_passages_add_span(p, e[0].ids, prefix, 0));
        }
        if (own > 0) SNRQ_TRY(snrq_passages_add_span(p, e[i].ids + prefix, own, prefix));
        SNRQ_TRY(add_targets(&e[i], prefix, row, first + i, p));
        if (own > 0) row += own;
    }
    return SNRQ_OK;
}

/* Windows of at most `longest` tokens, each scored token in one of them: the first is conditioned
 * on the start token; the last is filled up with tokens before it. */
static snrq_status add_rolling(const snrq_request_rules *r, const encoded *e, int64_t question,
                               snrq_passages *p)
{
    int64_t longest = r->config->max_positions;
    for (int64_t done = 1; done < e->count;) {
        int64_t end = e->count - done < longest ? e->count : done + longest;
        int64_t begin = end - 1 > longest ? end - 1 - longest : 0;
        const encoded window = {e->ids + begin, end - begin, end - done};
        SNRQ_TRY(add_encoded(r, &window, 1, question, p));
        done = end;
    }
    return SNRQ_OK;
}

snrq_status snrq_requests_add(const snrq_request_rules *r, const char *where, const snrq_task *task,
                              const snrq_item *item, int64_t first, snrq_passages *passages)
{
    encoded e[SNRQ_MOST_CHOICES] = {{0}};
    bool rolling = task->kind == SNRQ_TASK_ROLLING;
    snrq_status status = SNRQ_OK;
    for (int i = 0; i < item->requests && status == SNRQ_OK; i++) {
        status = encode_request(r, where, &item->request[i], &e[i]);
        if (status == SNRQ_OK && !rolling) status = truncate(r, where, &e[i]);
    }
    if (status == SNRQ_OK)
        status = rolling ? add_rolling(r, &e[0], first, passages)
                         : add_encoded(r, e, item->requests, first, passages);
    for (int i = 0; i < item->requests; i++) free(e[i].ids);
    return status;
}
