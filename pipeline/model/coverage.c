/* How many tokens experts have, and more of them for those that have few; see coverage.h. */
#include "pipeline/model/coverage.h"

#include <stdlib.h>
#include <string.h>

#include "mpi/collective.h"

/* Scores and tokens as one number: higher scores first, then lower tokens. */
static uint64_t rank_of(float score, int64_t token)
{
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (uint64_t)bits << 32 | (UINT32_MAX - (uint64_t)token % UINT32_MAX);
}

static int descending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* What an expert may be topped up with on this rank, the best first. */
typedef struct candidates {
    int64_t count, wanted; /* wanted: of all ranks */
    uint64_t *rank;        /* [count] owned */
    uint64_t least;        /* those from this rank on are taken */
} candidates;

/* Tokens of fitted sequences that are not sent to the expert. */
static snrq_status list_candidates(const snrq_routes *r, int64_t first_token,
                                   const snrq_expert_tokens *t, int expert, int64_t fitted_tokens,
                                   candidates *out)
{
    int64_t at = t->first[expert];
    out->count = 0;
    SNRQ_TRY(snrq_allocate((size_t)fitted_tokens, sizeof *out->rank, "router scores", &out->rank));
    for (int64_t i = 0; i < fitted_tokens; i++) {
        if (at < t->first[expert + 1] && t->token[at] == i)
            at++;
        else
            out->rank[out->count++] = rank_of(r->score[i * r->experts + expert], first_token + i);
    }
    qsort(out->rank, (size_t)out->count, sizeof *out->rank, descending);
    if (out->count > out->wanted) out->count = out->wanted;
    return SNRQ_OK;
}

/* How many candidates have this rank or a higher one. */
static int64_t count_from(const candidates *c, uint64_t rank)
{
    int64_t begin = 0, end = c->count;
    while (begin < end) {
        int64_t middle = begin + (end - begin) / 2;
        if (c->rank[middle] >= rank)
            begin = middle + 1;
        else
            end = middle;
    }
    return begin;
}

/* Finds, bit by bit, the highest rank from which on there are `wanted` candidates on all ranks. */
static snrq_status agree_on_least(const snrq_context *context, int experts, candidates *c)
{
    int64_t *count = NULL;
    SNRQ_TRY(snrq_agree(context,
                        snrq_allocate((size_t)experts, sizeof *count, "router scores", &count)));
    snrq_status status = SNRQ_OK;
    for (int e = 0; e < experts; e++) c[e].least = 0;
    for (int bit = 63; status == SNRQ_OK && bit >= 0; bit--) {
        for (int e = 0; e < experts; e++)
            count[e] = count_from(&c[e], c[e].least | UINT64_C(1) << bit);
        status = snrq_sum_int64(context, count, experts);
        for (int e = 0; e < experts; e++)
            if (count[e] >= c[e].wanted) c[e].least |= UINT64_C(1) << bit;
    }
    free(count);
    return status;
}

/* The tokens that are taken, as a list of their own. */
static snrq_status list_extra(const snrq_routes *routes, int64_t first_token, const candidates *c,
                              snrq_expert_tokens *out)
{
    const int experts = (int)routes->experts;
    int64_t total = 0, at = 0;
    for (int e = 0; e < experts; e++) total += c[e].wanted > 0 ? count_from(&c[e], c[e].least) : 0;
    *out = (snrq_expert_tokens){.experts = experts};
    SNRQ_TRY(snrq_allocate((size_t)experts + 1, sizeof *out->first, "experts", &out->first));
    SNRQ_TRY(snrq_allocate((size_t)total, sizeof *out->token, "experts", &out->token));
    SNRQ_TRY(snrq_allocate((size_t)total, sizeof *out->weight, "experts", &out->weight));
    SNRQ_TRY(snrq_allocate((size_t)total, sizeof *out->counted, "experts", &out->counted));
    for (int e = 0; e < experts; e++) {
        int64_t taken = c[e].wanted > 0 ? count_from(&c[e], c[e].least) : 0;
        for (int64_t i = 0; i < taken; i++)
            out->token[at + i] = (int64_t)(UINT32_MAX - (c[e].rank[i] & UINT32_MAX)) - first_token;
        qsort(out->token + at, (size_t)taken, sizeof *out->token, ascending);
        for (int64_t i = at; i < at + taken; i++)
            out->counted[i] = routes->weight[out->token[i] * routes->experts + e];
        at += taken;
        out->first[e + 1] = at;
    }
    return SNRQ_OK;
}

/* Tokens of each expert in fitted sequences, over all ranks. */
static snrq_status count_tokens(const snrq_context *context, const snrq_expert_tokens *t,
                                int64_t fitted_tokens, int64_t *count)
{
    for (int e = 0; e < t->experts; e++)
        count[e] = snrq_token_position(t->token, t->first[e], t->first[e + 1], fitted_tokens) -
                   t->first[e];
    return snrq_sum_int64(context, count, t->experts);
}

void snrq_coverage_free(snrq_coverage *coverage)
{
    free(coverage->sent);
    *coverage = (snrq_coverage){0};
}

/* Fills in the rest from coverage->sent. */
static snrq_status describe(int64_t least, int64_t tokens, snrq_coverage *c)
{
    size_t experts = (size_t)c->experts;
    int64_t *sorted = NULL;
    SNRQ_TRY(snrq_allocate(experts, sizeof *sorted, "experts", &sorted));
    memcpy(sorted, c->sent, experts * sizeof *sorted);
    qsort(sorted, experts, sizeof *sorted, ascending);
    c->tokens = tokens;
    c->least = sorted[0];
    c->median = sorted[experts / 2];
    c->most = sorted[experts - 1];
    for (size_t e = 0; e < experts; e++) c->topped_up += sorted[e] < least;
    free(sorted);
    return SNRQ_OK;
}

snrq_status snrq_experts_top_up(const snrq_context *context, const snrq_routes *routes,
                                int64_t first_token, int64_t fitted_tokens, int64_t all_tokens,
                                int64_t least, snrq_expert_tokens *tokens, snrq_coverage *coverage)
{
    const int experts = tokens->experts;
    const int64_t asked = least;
    int64_t *count = NULL, starved = 0;
    candidates *c = NULL;
    snrq_expert_tokens extra = {0}, joined = {0};
    *coverage = (snrq_coverage){.experts = experts};
    snrq_status status = snrq_allocate((size_t)experts, sizeof *count, "experts", &count);
    coverage->sent = count;
    if (status == SNRQ_OK) status = snrq_allocate((size_t)experts, sizeof *c, "experts", &c);
    status = snrq_agree(context, status);
    if (status == SNRQ_OK) status = count_tokens(context, tokens, fitted_tokens, count);
    if (least > all_tokens) least = all_tokens;
    for (int e = 0; status == SNRQ_OK && e < experts; e++) {
        c[e].wanted = count[e] < least ? least - count[e] : 0;
        starved += c[e].wanted > 0;
    }
    if (status == SNRQ_OK && starved > 0) {
        for (int e = 0; status == SNRQ_OK && e < experts; e++)
            if (c[e].wanted > 0)
                status = list_candidates(routes, first_token, tokens, e, fitted_tokens, &c[e]);
        status = snrq_agree(context, status);
        if (status == SNRQ_OK) status = agree_on_least(context, experts, c);
        if (status == SNRQ_OK) {
            status = list_extra(routes, first_token, c, &extra);
            if (status == SNRQ_OK) status = snrq_expert_tokens_join(tokens, &extra, &joined);
            status = snrq_agree(context, status);
        }
    }
    if (status == SNRQ_OK) status = snrq_agree(context, describe(least, all_tokens, coverage));
    if (all_tokens < asked) coverage->short_of = coverage->topped_up;
    if (status == SNRQ_OK && starved > 0) {
        snrq_expert_tokens_free(tokens);
        *tokens = joined;
    }
    for (int e = 0; c != NULL && e < experts; e++) free(c[e].rank);
    snrq_expert_tokens_free(&extra);
    free(c);
    return status;
}
