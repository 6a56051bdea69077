/* The router beside the definition, one expert after the other; and whose tokens experts read. */
#include "pipeline/model/router.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/snrq_test.h"

enum { EXPERTS = 12, TOKENS = 40 };

static uint32_t state = 7;

static float next_number(void)
{
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / (float)(1 << 23) - 1.0f;
}

static bool in_best_groups(const snrq_experts_config *e, const double *score, int expert)
{
    int members = EXPERTS / (int)e->groups, better = 0;
    double sums[EXPERTS];
    for (int g = 0; g < e->groups; g++) {
        sums[g] = -INFINITY; /* of all pairs */
        for (int i = 0; i < members; i++)
            for (int j = 0; j < i; j++)
                sums[g] = fmax(sums[g], score[g * members + i] + score[g * members + j]);
    }
    for (int g = 0; g < e->groups; g++)
        better += sums[g] > sums[expert / members] ||
                  (sums[g] == sums[expert / members] && g < expert / members);
    return better < e->chosen_groups;
}

/* Is an expert chosen: are fewer than `chosen` better? */
static bool is_chosen(const snrq_experts_config *e, const double *score, int expert)
{
    int better = 0;
    if (!in_best_groups(e, score, expert)) return false;
    for (int i = 0; i < EXPERTS; i++)
        better += in_best_groups(e, score, i) &&
                  (score[i] > score[expert] || (score[i] == score[expert] && i < expert));
    return better < e->chosen;
}

static void check_token(const snrq_experts_config *e, const float *logits, const float *bias)
{
    double value[EXPERTS], score[EXPERTS], all = 0.0, sum = 0.0;
    int32_t expert[EXPERTS];
    float weight[EXPERTS], rank[EXPERTS];
    int at = 0;
    for (int i = 0; i < EXPERTS; i++) all += exp((double)logits[i]);
    for (int i = 0; i < EXPERTS; i++) {
        double logit = (double)logits[i];
        value[i] = e->sigmoid ? 1.0 / (1.0 + exp(-logit)) : exp(logit) / all;
        score[i] = e->sigmoid ? (double)(float)value[i] + (double)bias[i] : logit;
        score[i] = (double)(float)score[i];
    }
    for (int i = 0; i < EXPERTS; i++) sum += is_chosen(e, score, i) ? value[i] : 0.0;
    snrq_choose_experts(e, logits, e->sigmoid ? bias : NULL, expert, weight, rank);
    for (int i = 0; i < EXPERTS; i++) {
        if (!is_chosen(e, score, i)) continue;
        double expected = value[i] / (e->normalized ? sum : 1.0) * e->scale;
        CU_ASSERT_EQUAL(expert[at], i);
        CU_ASSERT_DOUBLE_EQUAL(weight[i], expected, 1e-6);
        at++;
    }
    CU_ASSERT_EQUAL(at, e->chosen);
}

static void experts_are_chosen_as_defined(void)
{
    static const snrq_experts_config KINDS[] = {
        {.count = EXPERTS,
         .chosen = 2,
         .groups = 1,
         .chosen_groups = 1,
         .normalized = true,
         .scale = 1.0},
        {.count = EXPERTS, .chosen = 5, .groups = 1, .chosen_groups = 1, .scale = 1.0},
        {.count = EXPERTS,
         .chosen = 3,
         .groups = 4,
         .chosen_groups = 2,
         .sigmoid = true,
         .scale = 2.5},
        {.count = EXPERTS,
         .chosen = 6,
         .groups = 3,
         .chosen_groups = 2,
         .sigmoid = true,
         .normalized = true,
         .scale = 1.5},
    };
    for (size_t k = 0; k < sizeof KINDS / sizeof *KINDS; k++)
        for (int t = 0; t < 200; t++) {
            float logits[EXPERTS], bias[EXPERTS];
            for (int i = 0; i < EXPERTS; i++) {
                logits[i] = 3.0f * next_number();
                bias[i] = 0.2f * next_number();
            }
            if (t % 4 == 0) logits[7] = logits[2]; /* a tie */
            if (t % 4 == 0) bias[7] = bias[2];
            check_token(&KINDS[k], logits, bias);
        }
}

/* Weight of an expert that a token is not sent to. */
static float would_be(int token, int expert)
{
    return 0.001f * (float)(token + TOKENS * expert + 1);
}

/* Tokens and weights of random routes. */
static void make_tokens(snrq_expert_tokens *out, float *sent)
{
    int32_t expert[TOKENS * 2];
    float weight[TOKENS * EXPERTS];
    memset(sent, 0, TOKENS * EXPERTS * sizeof *sent);
    for (int t = 0; t < TOKENS; t++) {
        int first = (int)(state >> 8) % (EXPERTS / 2);
        float p = 0.5f + 0.25f * next_number();
        expert[2 * t] = first;
        expert[2 * t + 1] = EXPERTS / 2 + (int)(state >> 8) % (EXPERTS / 2);
        for (int e = 0; e < EXPERTS; e++) weight[t * EXPERTS + e] = would_be(t, e);
        sent[t * EXPERTS + expert[2 * t]] = weight[t * EXPERTS + expert[2 * t]] = p;
        sent[t * EXPERTS + expert[2 * t + 1]] = weight[t * EXPERTS + expert[2 * t + 1]] = 1.0f - p;
    }
    const snrq_routes routes = {TOKENS, 2, EXPERTS, expert, weight, NULL};
    CU_ASSERT_EQUAL(snrq_expert_tokens_create(&routes, out), SNRQ_OK);
}

/* Each token that has a weight is there, in order; what only `other` has, with weight 0. */
static void check_tokens(const snrq_expert_tokens *t, const float *sent, const float *other)
{
    for (int e = 0; e < EXPERTS; e++) {
        int64_t at = t->first[e];
        for (int i = 0; i < TOKENS; i++) {
            float mine = sent[i * EXPERTS + e], theirs = other != NULL ? other[i * EXPERTS + e] : 0;
            if (mine == 0.0f && theirs == 0.0f) continue;
            CU_ASSERT_FATAL(at < t->first[e + 1]);
            CU_ASSERT_EQUAL(t->token[at], i);
            CU_ASSERT_EQUAL(t->weight[at], mine);
            CU_ASSERT_EQUAL(t->counted[at], mine > 0.0f ? mine : theirs);
            at++;
        }
        CU_ASSERT_EQUAL(at, t->first[e + 1]);
    }
}

static void each_expert_has_its_tokens(void)
{
    float sent[TOKENS * EXPERTS], other[TOKENS * EXPERTS];
    snrq_expert_tokens a = {0}, b = {0}, both = {0};
    make_tokens(&a, sent);
    make_tokens(&b, other);
    check_tokens(&a, sent, NULL);
    CU_ASSERT_EQUAL(snrq_expert_tokens_join(&a, &b, &both), SNRQ_OK);
    check_tokens(&both, sent, other);
    snrq_expert_tokens_free(&a);
    snrq_expert_tokens_free(&b);
    snrq_expert_tokens_free(&both);
}

int main(void)
{
    static const snrq_test tests[] = {
        SNRQ_TEST(experts_are_chosen_as_defined),
        SNRQ_TEST(each_expert_has_its_tokens),
    };
    return snrq_run_tests("router", tests, sizeof tests / sizeof *tests, 1);
}
