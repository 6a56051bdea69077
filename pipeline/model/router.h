/* The router of a mixture of experts: which experts a token is sent to, and with what weights.
 *
 * Source: the models' own forward passes (transformers). logits = x W_r^T, fp32; then
 *
 *     softmax    scores are the softmax of all logits; the best `chosen` are taken, and divided by
 *                their sum where `normalized` says so (Mixtral always, Qwen3-MoE, OLMoE by config)
 *     sigmoid    scores are sigmoids (DeepSeek-V3). The choice is by score + bias: the best
 *                `chosen_groups` of `groups` groups of neighbouring experts, by the sum of the two
 *                best of each, then the best `chosen` experts in these. Weights are the scores
 *                without bias, divided by their sum where `normalized`, times `scale`
 *
 * Ties go to the lower index. A token's experts depend on nothing but its x.
 */
#ifndef SNRQ_ROUTER_H
#define SNRQ_ROUTER_H

#include "io/config.h"

/* Of `count` experts: expert [chosen] in ascending order; weight [count], of those that are not
 * chosen what it would be; score [count]: what they are ranked by, so that who is not chosen can be
 * asked next. `bias` [count] or NULL. Not collective. */
void snrq_choose_experts(const snrq_experts_config *experts, const float *logits, const float *bias,
                         int32_t *expert, float *weight, float *score);

/* The gradient of a token's logits [count], from that of the weights of the experts that were
 * chosen, expert [chosen] and g_weight [count], which is read there only. Who is chosen is a
 * constant. */
void snrq_choose_experts_backward(const snrq_experts_config *experts, const float *logits,
                                  const int32_t *expert, const float *g_weight, float *g_logits);

/* The experts of some tokens. */
typedef struct snrq_routes {
    int64_t tokens, chosen, experts;
    int32_t *expert; /* [tokens, chosen] owned */
    float *weight;   /* [tokens, experts] owned */
    float *score;    /* [tokens, experts] owned */
} snrq_routes;

/* Routes of x [tokens, hidden]; router [count, hidden]. SNRQ_INTERNAL without memory. */
snrq_status snrq_routes_create(const snrq_config *config, const float *router, const float *bias,
                               int64_t tokens, const float *x, snrq_routes *out);
void snrq_routes_free(snrq_routes *routes);

/* Which tokens each expert reads, expert by expert, in ascending order. */
typedef struct snrq_expert_tokens {
    int experts;
    int64_t *first; /* [experts + 1] owned */
    int64_t *token; /* [first[experts]] owned */
    float *weight;  /* the same: of the expert's output; 0: the token is not sent there. Owned */
    float *counted; /* the same: the router's weight, also of those that are not sent. Owned */
} snrq_expert_tokens;

/* The tokens that are sent to each expert. SNRQ_INTERNAL without memory. */
snrq_status snrq_expert_tokens_create(const snrq_routes *routes, snrq_expert_tokens *out);
/* Those of a, with their weights, and those of b that are not among them, with weight 0. */
snrq_status snrq_expert_tokens_join(const snrq_expert_tokens *a, const snrq_expert_tokens *b,
                                    snrq_expert_tokens *out);
void snrq_expert_tokens_free(snrq_expert_tokens *tokens);

/* First place in [begin, end) of an ascending list of tokens with `token` or a later one. */
int64_t snrq_token_position(const int64_t *list, int64_t begin, int64_t end, int64_t token);

#endif
