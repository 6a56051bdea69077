/* Attention against its twin, and the same bits for any batch and any number of threads. */
#include "pipeline/model/attention.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "tests/snrq_test.h"

typedef struct problem {
    int64_t heads, kv_heads, head_dim, dimensions, sequences, tokens, window;
    bool norms;
} problem;

/* Groups that do and do not divide a block of 96 queries, sizes around whole strips, windows. */
static const problem PROBLEMS[] = {
    {1, 1, 2, 2, 1, 1, 0, false},     {6, 2, 32, 32, 2, 70, 0, false},
    {4, 4, 24, 24, 1, 97, 0, true},   {7, 1, 40, 20, 1, 50, 0, false},
    {8, 2, 64, 64, 1, 410, 0, false}, {6, 2, 16, 16, 2, 130, 33, true},
    {3, 1, 96, 96, 1, 65, 1, false},  {100, 1, 8, 8, 1, 14, 5, false},
};
enum { COUNT = sizeof PROBLEMS / sizeof *PROBLEMS };

typedef struct inputs {
    snrq_config config;
    snrq_rope rope;
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
                      .rms_norm_eps = 1e-6,
                      .rope = {.theta = 1e4, .dimensions = p->dimensions, .attention_factor = 1.0}};
    CU_ASSERT_EQUAL_FATAL(snrq_rope_create(&in->config, p->tokens, &in->rope), SNRQ_OK);
    for (int i = 0; i < 128; i++) in->norm[i] = 1.0f + 0.01f * (float)i;
    in->settings = (snrq_attention_settings){.config = &in->config,
                                             .rope = &in->rope,
                                             .query_norm = p->norms ? in->norm : NULL,
                                             .key_norm = p->norms ? in->norm : NULL,
                                             .window = p->window};
    size_t tokens = (size_t)(p->sequences * p->tokens);
    in->in_floats = tokens * (size_t)((p->heads + 2 * p->kv_heads) * p->head_dim);
    in->out_floats = tokens * (size_t)(p->heads * p->head_dim);
    in->qkv = malloc(in->in_floats * sizeof(float));
    in->out = malloc(in->out_floats * sizeof(float));
    in->expected = malloc(in->out_floats * sizeof(float));
    for (size_t i = 0; i < in->in_floats; i++)
        in->qkv[i] = (float)(2.0 * sin(0.7 * (double)i) + cos((double)(i % 911)));
}

static void destroy(inputs *in)
{
    snrq_rope_free(&in->rope);
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

int main(void)
{
    static const snrq_test tests[] = {SNRQ_TEST(agrees_with_its_twin),
                                      SNRQ_TEST(bits_depend_on_neither_threads_nor_batch)};
    return snrq_run_tests("attention", tests, sizeof tests / sizeof *tests, 1);
}
