/* The router; see router.h. */
#include "pipeline/model/router.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/model/linear.h"

/* Marks the `count` largest of the `total` values that are not below -FLT_MAX. */
static void mark_largest(const float *value, int64_t total, int64_t count, bool *marked)
{
    memset(marked, 0, (size_t)total * sizeof *marked);
    for (int64_t k = 0; k < count; k++) {
        int64_t best = -1;
        for (int64_t i = 0; i < total; i++)
            if (!marked[i] && (best < 0 || value[i] > value[best])) best = i;
        marked[best] = true;
    }
}

/* Sum of the two best of a group. */
static float group_score(const float *score, int64_t count)
{
    float best = -FLT_MAX, second = -FLT_MAX;
    for (int64_t i = 0; i < count; i++) {
        if (score[i] > best) {
            second = best;
            best = score[i];
        } else if (score[i] > second)
            second = score[i];
    }
    return best + second;
}

/* Scores of experts outside the best groups are as low as can be. */
static void leave_groups_out(const snrq_experts_config *e, float *score)
{
    int64_t members = e->count / e->groups;
    float of_group[SNRQ_MAX_EXPERTS];
    bool marked[SNRQ_MAX_EXPERTS];
    for (int64_t g = 0; g < e->groups; g++) of_group[g] = group_score(score + g * members, members);
    mark_largest(of_group, e->groups, e->chosen_groups, marked);
    for (int64_t i = 0; i < e->count; i++)
        if (!marked[i / members]) score[i] = -FLT_MAX;
}

void snrq_choose_experts(const snrq_experts_config *e, const float *logits, const float *bias,
                         int32_t *expert, float *weight, float *score)
{
    double value[SNRQ_MAX_EXPERTS], sum = 0.0, largest = -INFINITY;
    bool marked[SNRQ_MAX_EXPERTS];
    int64_t taken = 0;
    for (int64_t i = 0; i < e->count; i++) largest = fmax(largest, (double)logits[i]);
    for (int64_t i = 0; i < e->count; i++) {
        double logit = (double)logits[i];
        value[i] = e->sigmoid ? 1.0 / (1.0 + exp(-logit)) : exp(logit - largest);
        sum += value[i];
        score[i] = e->sigmoid ? (float)value[i] + (bias != NULL ? bias[i] : 0.0f) : logits[i];
    }
    if (e->groups > 1) leave_groups_out(e, score);
    mark_largest(score, e->count, e->chosen, marked);
    if (e->normalized) {
        sum = 0.0;
        for (int64_t i = 0; i < e->count; i++) sum += marked[i] ? value[i] : 0.0;
        if (e->sigmoid) sum += 1e-20;
    } else if (e->sigmoid)
        sum = 1.0;
    for (int64_t i = 0; i < e->count; i++) {
        weight[i] = (float)(value[i] / sum * e->scale);
        if (marked[i]) expert[taken++] = (int32_t)i;
    }
}

/* With values v, of which S is the sum that weights w = scale v / S are divided by, over what S
 * goes:
 *
 *     dv_j = scale / S (dw_j - the sum of dw_i v_i / S over the chosen),  or scale dw_j without S
 *     softmax, v = exp(l)    dl_j = v_j dv_j
 *     sigmoid                dl_j = v_j (1 - v_j) dv_j
 */
void snrq_choose_experts_backward(const snrq_experts_config *e, const float *logits,
                                  const int32_t *expert, const float *g_weight, float *g_logits)
{
    double value[SNRQ_MAX_EXPERTS], g[SNRQ_MAX_EXPERTS], sum = 0.0, along = 0.0;
    double largest = -INFINITY;
    bool chosen[SNRQ_MAX_EXPERTS] = {false};
    const bool divided = e->normalized || !e->sigmoid;
    for (int64_t k = 0; k < e->chosen; k++) chosen[expert[k]] = true;
    for (int64_t i = 0; i < e->count; i++) largest = fmax(largest, (double)logits[i]);
    for (int64_t i = 0; i < e->count; i++) {
        double logit = (double)logits[i];
        value[i] = e->sigmoid ? 1.0 / (1.0 + exp(-logit)) : exp(logit - largest);
        g[i] = chosen[i] ? (double)g_weight[i] : 0.0;
        if (!e->normalized || chosen[i]) sum += value[i];
    }
    if (!divided) sum = 1.0;
    for (int64_t i = 0; divided && i < e->count; i++) along += g[i] * value[i] / sum;
    for (int64_t i = 0; i < e->count; i++) {
        bool counts = chosen[i] || (divided && !e->normalized);
        double slope = e->sigmoid ? value[i] * (1.0 - value[i]) : value[i];
        g_logits[i] = counts ? (float)(slope * e->scale / sum * (g[i] - along)) : 0.0f;
    }
}

snrq_status snrq_routes_create(const snrq_config *c, const float *router, const float *bias,
                               int64_t tokens, const float *x, snrq_routes *out)
{
    const snrq_experts_config *e = &c->experts;
    const snrq_weight weight = {.rows = e->count,
                                .columns = c->hidden,
                                .dtype = SNRQ_F32,
                                .dense = (const unsigned char *)router};
    size_t chosen = (size_t)(tokens * e->chosen), all = (size_t)(tokens * e->count);
    float *logits = NULL;
    *out = (snrq_routes){.tokens = tokens, .chosen = e->chosen, .experts = e->count};
    snrq_status status = snrq_allocate(chosen, sizeof *out->expert, "routes", &out->expert);
    if (status == SNRQ_OK)
        status = snrq_allocate_scratch(all, sizeof *out->weight, "routes", &out->weight);
    if (status == SNRQ_OK)
        status = snrq_allocate_scratch(all, sizeof *out->score, "routes", &out->score);
    if (status == SNRQ_OK) status = snrq_allocate_scratch(all, sizeof *logits, "router", &logits);
    if (status == SNRQ_OK) status = snrq_linear_apply(&weight, 1, x, tokens, logits, e->count);
#pragma omp parallel for schedule(static) if (status == SNRQ_OK)
    for (int64_t t = 0; t < tokens; t++)
        if (status == SNRQ_OK)
            snrq_choose_experts(e, logits + t * e->count, bias, out->expert + t * e->chosen,
                                out->weight + t * e->count, out->score + t * e->count);
    free(logits);
    if (status != SNRQ_OK) snrq_routes_free(out);
    return status;
}

void snrq_routes_free(snrq_routes *r)
{
    free(r->expert);
    free(r->weight);
    free(r->score);
    *r = (snrq_routes){0};
}

static snrq_status allocate_tokens(int experts, int64_t most, snrq_expert_tokens *out)
{
    *out = (snrq_expert_tokens){.experts = experts};
    snrq_status status =
        snrq_allocate((size_t)experts + 1, sizeof *out->first, "tokens of experts", &out->first);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)most, sizeof *out->token, "tokens of experts", &out->token);
    if (status == SNRQ_OK)
        status =
            snrq_allocate((size_t)most, sizeof *out->weight, "tokens of experts", &out->weight);
    if (status == SNRQ_OK)
        status =
            snrq_allocate((size_t)most, sizeof *out->counted, "tokens of experts", &out->counted);
    if (status != SNRQ_OK) snrq_expert_tokens_free(out);
    return status;
}

snrq_status snrq_expert_tokens_create(const snrq_routes *r, snrq_expert_tokens *out)
{
    int64_t count = r->tokens * r->chosen;
    SNRQ_TRY(allocate_tokens((int)r->experts, count, out));
    for (int64_t i = 0; i < count; i++) out->first[r->expert[i] + 1]++;
    for (int e = 0; e < out->experts; e++) out->first[e + 1] += out->first[e];
    /* Filled from the front; first[e] is where the next one goes, and moves on to first[e + 1]. */
    for (int64_t i = 0; i < count; i++) {
        int64_t at = out->first[r->expert[i]]++;
        out->token[at] = i / r->chosen;
        out->weight[at] = out->counted[at] = r->weight[i / r->chosen * r->experts + r->expert[i]];
    }
    for (int e = out->experts; e > 0; e--) out->first[e] = out->first[e - 1];
    out->first[0] = 0;
    return SNRQ_OK;
}

snrq_status snrq_expert_tokens_join(const snrq_expert_tokens *a, const snrq_expert_tokens *b,
                                    snrq_expert_tokens *out)
{
    SNRQ_TRY(allocate_tokens(a->experts, a->first[a->experts] + b->first[b->experts], out));
    int64_t at = 0;
    for (int e = 0; e < a->experts; e++) {
        int64_t i = a->first[e], j = b->first[e];
        while (i < a->first[e + 1] || j < b->first[e + 1]) {
            bool from_a =
                j == b->first[e + 1] || (i < a->first[e + 1] && a->token[i] <= b->token[j]);
            if (from_a && j < b->first[e + 1] && a->token[i] == b->token[j]) j++;
            out->weight[at] = from_a ? a->weight[i] : 0.0f;
            out->counted[at] = from_a ? a->counted[i] : b->counted[j];
            out->token[at++] = from_a ? a->token[i++] : b->token[j++];
        }
        out->first[e + 1] = at;
    }
    return SNRQ_OK;
}

void snrq_expert_tokens_free(snrq_expert_tokens *t)
{
    free(t->first);
    free(t->token);
    free(t->weight);
    free(t->counted);
    *t = (snrq_expert_tokens){0};
}

int64_t snrq_token_position(const int64_t *list, int64_t begin, int64_t end, int64_t token)
{
    while (begin < end) {
        int64_t middle = begin + (end - begin) / 2;
        if (list[middle] < token)
            begin = middle + 1;
        else
            end = middle;
    }
    return begin;
}
