/* Attention against its twin, and the same bits for any batch and any number of threads. */
#include "pipeline/model/attention.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "tests/snrq_test.h"

typedef struct problem {
    int64_t heads, kv_heads, head_dim, dimensions, sequences, tokens, window;
    bool norms;
    int64_t value_dim; /* 0: as head_dim */
    double cap, clip;
    bool together, pairs; /* norms of all heads as one; neighbours turn together */
} problem;

/* Groups that do and do not divide a block of 96 queries, sizes around whole strips, windows. */
static const problem PROBLEMS[] = {
    {.heads = 1, .kv_heads = 1, .head_dim = 2, .dimensions = 2, .sequences = 1, .tokens = 1},
    {.heads = 6, .kv_heads = 2, .head_dim = 32, .dimensions = 32, .sequences = 2, .tokens = 70},
    {.heads = 4,
     .kv_heads = 4,
     .head_dim = 24,
     .dimensions = 24,
     .sequences = 1,
     .tokens = 97,
     .norms = true},
    {.heads = 7, .kv_heads = 1, .head_dim = 40, .dimensions = 20, .sequences = 1, .tokens = 50},
    {.heads = 8, .kv_heads = 2, .head_dim = 64, .dimensions = 64, .sequences = 1, .tokens = 410},
    {.heads = 6,
     .kv_heads = 2,
     .head_dim = 16,
     .dimensions = 16,
     .sequences = 2,
     .tokens = 130,
     .window = 33,
     .norms = true},
    {.heads = 3,
     .kv_heads = 1,
     .head_dim = 96,
     .dimensions = 96,
     .sequences = 1,
     .tokens = 65,
     .window = 1},
    {.heads = 100,
     .kv_heads = 1,
     .head_dim = 8,
     .dimensions = 8,
     .sequences = 1,
     .tokens = 14,
     .window = 5},
    {.heads = 4,
     .kv_heads = 4,
     .head_dim = 24,
     .dimensions = 8,
     .sequences = 2,
     .tokens = 70,
     .value_dim = 40,
     .pairs = true},
    {.heads = 4,
     .kv_heads = 2,
     .head_dim = 24,
     .dimensions = 24,
     .sequences = 1,
     .tokens = 80,
     .window = 9,
     .norms = true,
     .value_dim = 10,
     .cap = 2.0,
     .clip = 1.5,
     .together = true},
};
enum { COUNT = sizeof PROBLEMS / sizeof *PROBLEMS };

typedef struct inputs {
    snrq_config config;
    snrq_ropes ropes;
    snrq_attention_settings settings;
    float norm[128];
    size_t in_floats, out_floats;
    float *qkv, *out, *expected;
} inputs;

static void create(const problem *p, inputs *in)
{
    memset(in, 0, sizeof *in);
    in->config =
        (snrq_config){.heads = p->heads,
                      .kv_heads = p->kv_heads,
                      .head_dim = p->head_dim,
                      .value_dim = p->value_dim > 0 ? p->value_dim : p->head_dim,
                      .attention_scale = 1.0 / sqrt((double)p->head_dim),
                      .attention_cap = p->cap,
                      .qkv_clip = p->clip,
                      .head_norms = p->together ? SNRQ_NORM_OF_ALL_HEADS : SNRQ_NORM_OF_EACH_HEAD,
                      .rms_norm_eps = 1e-6,
                      .rope = {.theta = 1e4,
                               .first = p->pairs ? p->head_dim - p->dimensions : 0,
                               .pairs = p->pairs,
                               .dimensions = p->dimensions,
                               .attention_factor = 1.0}};
    CU_ASSERT_EQUAL_FATAL(snrq_ropes_create(&in->config, p->tokens, &in->ropes), SNRQ_OK);
    for (int i = 0; i < 128; i++) in->norm[i] = 1.0f + 0.01f * (float)i;
    in->settings = (snrq_attention_settings){.config = &in->config,
                                             .rope = &in->ropes.whole,
                                             .query_norm = p->norms ? in->norm : NULL,
                                             .key_norm = p->norms ? in->norm : NULL,
                                             .window = p->window};
    size_t tokens = (size_t)(p->sequences * p->tokens);
    in->in_floats = tokens * (size_t)snrq_attention_width(&in->config);
    in->out_floats = tokens * (size_t)(p->heads * in->config.value_dim);
    in->qkv = malloc(in->in_floats * sizeof(float));
    in->out = malloc(in->out_floats * sizeof(float));
    in->expected = malloc(in->out_floats * sizeof(float));
    for (size_t i = 0; i < in->in_floats; i++)
        in->qkv[i] = (float)(2.0 * sin(0.7 * (double)i) + cos((double)(i % 911)));
}

static void destroy(inputs *in)
{
    snrq_ropes_free(&in->ropes);
    free(in->qkv);
    free(in->out);
    free(in->expected);
}

/* Scores reach some tens; an error of 1e-6 of one changes its weight by some 1e-5. */
static void agrees_with_its_twin(void)
{
    for (int i = 0; i < COUNT; i++) {
        const problem *p = &PROBLEMS[i];
        inputs in;
        create(p, &in);
        snrq_attention_reference(&in.settings, in.qkv, p->sequences, p->tokens, in.expected);
        CU_ASSERT_EQUAL(snrq_attention(&in.settings, in.qkv, p->sequences, p->tokens, in.out),
                        SNRQ_OK);
        for (size_t k = 0; k < in.out_floats; k++)
            CU_ASSERT(fabsf(in.out[k] - in.expected[k]) <= 1e-4f);
        destroy(&in);
    }
}

/* Both sequences at once on 1, 2 and 3 threads, and one after the other. */
static void bits_depend_on_neither_threads_nor_batch(void)
{
    const problem *p = &PROBLEMS[5];
    int threads = omp_get_max_threads();
    for (int n = 1; n <= 4; n++) {
        inputs in;
        create(p, &in);
        size_t bytes = in.out_floats * sizeof(float);
        omp_set_num_threads(1);
        CU_ASSERT_EQUAL(snrq_attention(&in.settings, in.qkv, 2, p->tokens, in.expected), SNRQ_OK);
        inputs again;
        create(p, &again);
        omp_set_num_threads(n < 4 ? n : 1);
        if (n < 4)
            CU_ASSERT_EQUAL(snrq_attention(&again.settings, again.qkv, 2, p->tokens, in.out),
                            SNRQ_OK);
        for (int s = 0; n == 4 && s < 2; s++)
            CU_ASSERT_EQUAL(snrq_attention(&again.settings,
                                           again.qkv + (size_t)s * in.in_floats / 2, 1, p->tokens,
                                           in.out + (size_t)s * in.out_floats / 2),
                            SNRQ_OK);
        CU_ASSERT_EQUAL(memcmp(in.out, in.expected, bytes), 0);
        destroy(&again);
        destroy(&in);
    }
    omp_set_num_threads(threads);
}

/* Rows of a batch: 40 tokens that all texts begin with, then what three of them go on with; row[t]
 * is where token t of a text lies. */
enum { PREFIX = 40, BRANCHES = 3 };
static const int64_t BRANCH_TOKENS[BRANCHES] = {1, 57, 30};

static void gather(const inputs *in, const int64_t *row, int64_t tokens, size_t width, float *out)
{
    for (int64_t t = 0; t < tokens; t++)
        memcpy(out + (size_t)t * width, in->qkv + (size_t)row[t] * width, width * sizeof *out);
}

/* Results of spans with a common beginning beside those of the whole texts. */
static float compare_spans(const problem *p)
{
    inputs in, whole;
    create(p, &whole);
    size_t width = (size_t)((p->heads + 2 * p->kv_heads) * p->head_dim);
    size_t out_width = (size_t)(p->heads * p->head_dim);
    snrq_span span[BRANCHES + 1] = {{.first = 0, .tokens = PREFIX}};
    int64_t rows = PREFIX, row[PREFIX + 64];
    float worst = 0.0f;
    for (int b = 0; b < BRANCHES; b++) {
        span[b + 1] = (snrq_span){
            .first = rows, .tokens = BRANCH_TOKENS[b], .prefix_first = 0, .prefix_tokens = PREFIX};
        rows += BRANCH_TOKENS[b];
    }
    const snrq_layout layout = {rows, BRANCHES + 1, span};
    for (int b = 0; b < BRANCHES; b++) {
        int64_t tokens = PREFIX + BRANCH_TOKENS[b];
        for (int64_t t = 0; t < tokens; t++)
            row[t] = t < PREFIX ? t : span[b + 1].first + t - PREFIX;
        create(p, &in);
        gather(&in, row, tokens, width, whole.qkv);
        CU_ASSERT_EQUAL(snrq_attention(&whole.settings, whole.qkv, 1, tokens, whole.expected),
                        SNRQ_OK);
        CU_ASSERT_EQUAL(snrq_attention_spans(&in.settings, in.qkv, &layout, in.out), SNRQ_OK);
        for (int64_t t = 0; t < tokens; t++)
            for (size_t i = 0; i < out_width; i++)
                worst = fmaxf(worst, fabsf(in.out[(size_t)row[t] * out_width + i] -
                                           whole.expected[(size_t)t * out_width + i]));
        destroy(&in);
    }
    destroy(&whole);
    return worst;
}

/* Without a window the bits are the same; with one, sums are cut elsewhere. */
static void spans_with_a_common_beginning_are_as_whole_texts(void)
{
    CU_ASSERT_EQUAL(compare_spans(&(problem){.heads = 6,
                                             .kv_heads = 2,
                                             .head_dim = 32,
                                             .dimensions = 32,
                                             .sequences = 1,
                                             .tokens = 410}),
                    0.0f);
    CU_ASSERT_EQUAL(compare_spans(&(problem){.heads = 4,
                                             .kv_heads = 4,
                                             .head_dim = 24,
                                             .dimensions = 24,
                                             .sequences = 1,
                                             .tokens = 410,
                                             .norms = true}),
                    0.0f);
    CU_ASSERT(compare_spans(&(problem){.heads = 6,
                                       .kv_heads = 2,
                                       .head_dim = 16,
                                       .dimensions = 16,
                                       .sequences = 1,
                                       .tokens = 410,
                                       .window = 33,
                                       .norms = true}) <= 1e-4f);
    CU_ASSERT(compare_spans(&(problem){.heads = 3,
                                       .kv_heads = 1,
                                       .head_dim = 96,
                                       .dimensions = 96,
                                       .sequences = 1,
                                       .tokens = 410,
                                       .window = 1}) <= 1e-4f);
}

int main(void)
{
    static const snrq_test tests[] = {SNRQ_TEST(agrees_with_its_twin),
                                      SNRQ_TEST(bits_depend_on_neither_threads_nor_batch),
                                      SNRQ_TEST(spans_with_a_common_beginning_are_as_whole_texts)};
    return snrq_run_tests("attention", tests, sizeof tests / sizeof *tests, 1);
}
