/* Back through a quantized block and the head: gradients of scales and norms, of the block's input,
 * and of KL, against differences of the forward pass. What dense blocks of all families give is
 * compared in tests/end_to_end/test_sensitivity.py. */
#include "pipeline/model/block_backward.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/model/label_gradient.h"
#include "tests/snrq_test.h"

enum {
    SEQUENCES = 3,
    TOKENS = 37,
    ROWS = SEQUENCES * TOKENS,
    HIDDEN = 48,
    MIDDLE = 80,
    GROUP = 16
};
enum { MOST_MODULES = 64, VECTORS = 128 };

/* A block with random codes and scales. */
typedef struct subject {
    snrq_config config;
    snrq_family family;
    snrq_ropes ropes;
    snrq_block block;
    snrq_weight module[MOST_MODULES];
    float *scales[MOST_MODULES];
    const float *vector[VECTORS];
    float h[ROWS * HIDDEN], along[ROWS * HIDDEN]; /* input; the loss is <along, output> */
} subject;

static uint64_t state;

/* Uniform in [-1, 1). */
static double number(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 11) * 0x1p-52 - 1.0;
}

static void *room(size_t count, size_t size)
{
    void *data = calloc(count, size);
    if (data == NULL) abort();
    return data;
}

static void make_module(subject *s, int m)
{
    int64_t rows = s->family.module[m].rows, columns = s->family.module[m].columns;
    int64_t groups = (columns + GROUP - 1) / GROUP;
    uint8_t *codes = room((size_t)(rows * columns), 1), *zeros = room((size_t)(rows * groups), 1);
    int32_t *g_idx = room((size_t)columns, sizeof *g_idx);
    s->scales[m] = room((size_t)(rows * groups), sizeof(float));
    for (int64_t i = 0; i < rows * columns; i++) codes[i] = (uint8_t)(8.0 + 7.9 * number());
    for (int64_t i = 0; i < rows * groups; i++) {
        zeros[i] = (uint8_t)(8.0 + 3.0 * number());
        s->scales[m][i] = (float)((0.25 + 0.1 * number()) / sqrt((double)columns));
    }
    for (int64_t c = 0; c < columns; c++) g_idx[c] = (int32_t)(c * 5 % groups);
    s->module[m] = (snrq_weight){.rows = rows,
                                 .columns = columns,
                                 .codes = codes,
                                 .scales = s->scales[m],
                                 .zeros = zeros,
                                 .g_idx = g_idx,
                                 .groups = groups};
}

/* PLAIN: norms before attention and MLP; NORMED: also of each head, and behind both. */
typedef enum kind { PLAIN, NORMED, EXPERTS } kind;

static void make(kind of, subject *s)
{
    const bool experts = of == EXPERTS;
    memset(s, 0, sizeof *s);
    state = 7;
    s->config = (snrq_config){.vocabulary = 50,
                              .hidden = HIDDEN,
                              .intermediate = MIDDLE,
                              .layers = 1,
                              .heads = 4,
                              .kv_heads = 2,
                              .head_dim = 12,
                              .value_dim = 12,
                              .residual_scale = 0.8,
                              .attention_scale = 0.3,
                              .logit_scale = 1.0,
                              .max_positions = 64,
                              .rms_norm_eps = 1e-5,
                              .rope = {.theta = 100.0, .dimensions = 12, .attention_factor = 1.0}};
    if (of == NORMED) {
        s->config.head_norms = SNRQ_NORM_OF_EACH_HEAD;
        s->config.norms = SNRQ_NORMS_AROUND;
    }
    if (experts) {
        s->config.residual_scale = 1.0;
        s->config.experts = (snrq_experts_config){.count = 4,
                                                  .chosen = 2,
                                                  .intermediate = 32,
                                                  .groups = 1,
                                                  .chosen_groups = 1,
                                                  .normalized = true,
                                                  .scale = 1.0};
        s->config.layer[0] = SNRQ_LAYER_EXPERTS;
    }
    CU_ASSERT_EQUAL_FATAL(snrq_family_create(&s->config, experts, &s->family), SNRQ_OK);
    CU_ASSERT_EQUAL_FATAL(snrq_ropes_create(&s->config, TOKENS, &s->ropes), SNRQ_OK);
    for (int m = 0; m < s->family.modules; m++) make_module(s, m);
    for (int v = 0; v < s->family.vectors; v++) {
        int64_t count = s->family.vector[v].count;
        float *data = count > 0 ? room((size_t)count, sizeof *data) : NULL;
        for (int64_t i = 0; i < count; i++)
            data[i] = (float)(v == SNRQ_ROUTER ? number() : 1.0 + 0.3 * number());
        s->vector[v] = data;
    }
    s->block = (snrq_block){&s->config, &s->family, &s->ropes.whole, 0, s->module, s->vector};
    for (int i = 0; i < ROWS * HIDDEN; i++) {
        s->h[i] = (float)number();
        s->along[i] = (float)number();
    }
}

static void drop(subject *s)
{
    for (int m = 0; m < s->family.modules; m++) {
        free((void *)s->module[m].codes);
        free((void *)s->module[m].zeros);
        free((void *)s->module[m].g_idx);
        free(s->scales[m]);
    }
    for (int v = 0; v < s->family.vectors; v++) free((void *)s->vector[v]);
    snrq_ropes_free(&s->ropes);
    snrq_family_free(&s->family);
}

static double loss(const subject *s, const float *input)
{
    static float h[ROWS * HIDDEN];
    snrq_unit_arrays x, y;
    snrq_span span[SEQUENCES];
    const snrq_layout layout = {ROWS, SEQUENCES, span};
    double sum = 0.0;
    memcpy(h, input, sizeof h);
    snrq_spans_fill(SEQUENCES, TOKENS, span);
    CU_ASSERT_EQUAL(snrq_unit_arrays_create(&s->family, 0, s->family.steps, ROWS, true, &x),
                    SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_unit_arrays_create(&s->family, 0, s->family.steps, ROWS, false, &y),
                    SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_block_forward(&s->block, &layout, h, &x, &y), SNRQ_OK);
    for (int i = 0; i < ROWS * HIDDEN; i++) sum += (double)h[i] * (double)s->along[i];
    snrq_unit_arrays_free(&x);
    snrq_unit_arrays_free(&y);
    return sum;
}

/* Are a slope and a difference of losses equal, up to fp32? */
static void close_enough(double slope, double difference, double size)
{
    bool good = fabs(slope - difference) <= 2e-3 * size + 1e-6;
    if (!good) fprintf(stderr, "slope %g, difference %g\n", slope, difference);
    CU_ASSERT_TRUE(good);
}

/* Moves numbers of the block along a random direction, and back; sum: their gradients. */
static void check_numbers(subject *s, float *numbers, int64_t count, const snrq_fixed *sum)
{
    const double step = 2e-3;
    float *before = room((size_t)count, sizeof *before), *move = room((size_t)count, sizeof *move);
    double slope = 0.0, size = 0.0, losses[2];
    memcpy(before, numbers, (size_t)count * sizeof *before);
    for (int64_t i = 0; i < count; i++) {
        double g = snrq_fixed_value(sum[i]);
        move[i] = (float)(number() * (double)before[i]);
        slope += g * (double)move[i];
        size += g * g * (double)move[i] * (double)move[i];
    }
    for (int k = 0; k < 2; k++) {
        for (int64_t i = 0; i < count; i++)
            numbers[i] = before[i] + (float)((k == 0 ? step : -step) * (double)move[i]);
        losses[k] = loss(s, s->h);
    }
    memcpy(numbers, before, (size_t)count * sizeof *before);
    CU_ASSERT_TRUE(size > 0.0);
    close_enough(slope, (losses[0] - losses[1]) / (2.0 * step), fabs(slope) + sqrt(size));
    free(before);
    free(move);
}

static void check_input(const subject *s, const float *g)
{
    static float moved[ROWS * HIDDEN], move[ROWS * HIDDEN];
    const double step = 2e-3;
    double slope = 0.0, size = 0.0, losses[2];
    for (int i = 0; i < ROWS * HIDDEN; i++) {
        move[i] = (float)number();
        slope += (double)g[i] * (double)move[i];
        size += pow((double)g[i] * (double)move[i], 2.0);
    }
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < ROWS * HIDDEN; i++)
            moved[i] = s->h[i] + (float)((k == 0 ? step : -step) * (double)move[i]);
        losses[k] = loss(s, moved);
    }
    close_enough(slope, (losses[0] - losses[1]) / (2.0 * step), fabs(slope) + sqrt(size));
}

static void check_block(kind of)
{
    static subject s;
    static float g[ROWS * HIDDEN];
    snrq_parameter_gradient all;
    make(of, &s);
    CU_ASSERT_EQUAL_FATAL(snrq_parameter_gradient_create(&s.block, &all), SNRQ_OK);
    const snrq_gradient_sums sums = {.parameters = &all};
    memcpy(g, s.along, sizeof g);
    CU_ASSERT_EQUAL(snrq_block_backward(&s.block, SEQUENCES, TOKENS, s.h, g, &sums), SNRQ_OK);
    if (of != EXPERTS) check_input(&s, g); /* with them, a step may change who is chosen */
    for (int m = 0; m < s.family.modules; m++)
        check_numbers(&s, s.scales[m], s.module[m].rows * s.module[m].groups,
                      all.sum + all.first[m]);
    for (int v = 0; v < SNRQ_ROUTER; v++)
        if (s.vector[v] != NULL)
            check_numbers(&s, (float *)s.vector[v], s.family.vector[v].count,
                          all.sum + all.norm[v]);
    snrq_parameter_gradient_free(&all);
    drop(&s);
}

static void a_dense_block_agrees_with_differences(void)
{
    check_block(PLAIN);
}

static void norms_of_heads_and_behind_agree_with_differences(void)
{
    check_block(NORMED);
}

static void a_block_with_experts_agrees_with_differences(void)
{
    check_block(EXPERTS);
}

/* All sequences on 1 and 3 threads, and one after the other. */
static void bits_depend_on_neither_threads_nor_batch(void)
{
    static subject s;
    static float first[ROWS * HIDDEN], g[ROWS * HIDDEN];
    const int threads = omp_get_max_threads();
    make(NORMED, &s);
    snrq_parameter_gradient all, others[2];
    CU_ASSERT_EQUAL_FATAL(snrq_parameter_gradient_create(&s.block, &all), SNRQ_OK);
    omp_set_num_threads(1);
    memcpy(first, s.along, sizeof first);
    const snrq_gradient_sums sums = {.parameters = &all};
    CU_ASSERT_EQUAL(snrq_block_backward(&s.block, SEQUENCES, TOKENS, s.h, first, &sums), SNRQ_OK);
    omp_set_num_threads(3);
    for (int k = 0; k < 2; k++) {
        int count = k == 0 ? SEQUENCES : 1, floats = count * TOKENS * HIDDEN;
        CU_ASSERT_EQUAL_FATAL(snrq_parameter_gradient_create(&s.block, &others[k]), SNRQ_OK);
        const snrq_gradient_sums of = {.parameters = &others[k]};
        memcpy(g, s.along, sizeof g);
        for (int i = 0; i < ROWS * HIDDEN; i += floats)
            CU_ASSERT_EQUAL(snrq_block_backward(&s.block, count, TOKENS, s.h + i, g + i, &of),
                            SNRQ_OK);
        CU_ASSERT_EQUAL(memcmp(g, first, sizeof g), 0);
        CU_ASSERT_EQUAL(memcmp(all.sum, others[k].sum, (size_t)all.count * sizeof *all.sum), 0);
        snrq_parameter_gradient_free(&others[k]);
    }
    omp_set_num_threads(threads);
    snrq_parameter_gradient_free(&all);
    drop(&s);
}

/* ---- the head ---- */

enum { WORDS = 50, POSITIONS = 20 };

/* KL of all positions, in fp64; logits capped at 3. */
static double kl_of(const float *head, const float *full_norm, const float *norm, const float *full,
                    const double *h)
{
    double sum = 0.0;
    for (int t = 0; t < POSITIONS; t++) {
        double logit[2][WORDS], total[2] = {0.0, 0.0}, squares[2] = {0.0, 0.0};
        for (int i = 0; i < HIDDEN; i++) {
            squares[0] += pow((double)full[t * HIDDEN + i], 2.0);
            squares[1] += pow(h[t * HIDDEN + i], 2.0);
        }
        for (int v = 0; v < WORDS; v++) {
            double z[2] = {0.0, 0.0};
            for (int i = 0; i < HIDDEN; i++) {
                double w = (double)head[v * HIDDEN + i];
                z[0] += w * (double)full_norm[i] * (double)full[t * HIDDEN + i];
                z[1] += w * (double)norm[i] * h[t * HIDDEN + i];
            }
            for (int k = 0; k < 2; k++) {
                double scaled = 0.5 * z[k] / sqrt(squares[k] / HIDDEN + 1e-5);
                logit[k][v] = 3.0 * tanh(scaled / 3.0);
                total[k] += exp(logit[k][v]);
            }
        }
        for (int v = 0; v < WORDS; v++)
            sum += exp(logit[0][v]) / total[0] *
                   (logit[0][v] - log(total[0]) - logit[1][v] + log(total[1]));
    }
    return sum;
}

static void kl_agrees_with_differences(void)
{
    static float weight[WORDS * HIDDEN], norms[2][HIDDEN], normed[POSITIONS * HIDDEN];
    static float logits[POSITIONS * WORDS], full[POSITIONS * HIDDEN], g[POSITIONS * HIDDEN];
    static double h[POSITIONS * HIDDEN];
    static snrq_fixed norm_sum[HIDDEN];
    const snrq_config config = {.vocabulary = WORDS,
                                .hidden = HIDDEN,
                                .logit_scale = 0.5,
                                .logit_cap = 3.0,
                                .rms_norm_eps = 1e-5};
    state = 3;
    for (int i = 0; i < WORDS * HIDDEN; i++) weight[i] = (float)number();
    for (int i = 0; i < 2 * HIDDEN; i++)
        norms[i / HIDDEN][i % HIDDEN] = (float)(1.0 + 0.5 * number());
    for (int i = 0; i < POSITIONS * HIDDEN; i++) {
        full[i] = (float)number();
        g[i] = full[i] + (float)(0.3 * number());
        h[i] = (double)g[i];
    }
    snrq_label_head head = {.config = &config,
                            .table = {.weight = {.rows = WORDS,
                                                 .columns = HIDDEN,
                                                 .dtype = SNRQ_F32,
                                                 .dense = (const unsigned char *)weight}},
                            .norm = norms[1],
                            .rows = 7,
                            .normed = normed,
                            .logits = logits};
    double kl = 0.0, expected = kl_of(weight, norms[0], norms[1], full, h);
    CU_ASSERT_EQUAL(snrq_kl_gradient(&head, norms[0], POSITIONS, full, g, &kl, norm_sum), SNRQ_OK);
    CU_ASSERT_DOUBLE_EQUAL(kl, expected, 1e-5 * expected);
    for (int i = 0; i < HIDDEN; i += 5) {
        const float step = 1e-3f, before = norms[1][i];
        norms[1][i] = before + step;
        double more = kl_of(weight, norms[0], norms[1], full, h), up = (double)norms[1][i];
        norms[1][i] = before - step;
        double less = kl_of(weight, norms[0], norms[1], full, h), down = (double)norms[1][i];
        norms[1][i] = before;
        CU_ASSERT_DOUBLE_EQUAL(snrq_fixed_value(norm_sum[i]), (more - less) / (up - down), 1e-4);
    }
    for (int i = 0; i < POSITIONS * HIDDEN; i += 31) {
        const double step = 1e-5, before = h[i];
        h[i] = before + step;
        double more = kl_of(weight, norms[0], norms[1], full, h);
        h[i] = before - step;
        double less = kl_of(weight, norms[0], norms[1], full, h);
        h[i] = before;
        CU_ASSERT_DOUBLE_EQUAL((double)g[i], (more - less) / (2.0 * step), 1e-5);
    }
}

int main(void)
{
    const snrq_test tests[] = {SNRQ_TEST(a_dense_block_agrees_with_differences),
                               SNRQ_TEST(norms_of_heads_and_behind_agree_with_differences),
                               SNRQ_TEST(a_block_with_experts_agrees_with_differences),
                               SNRQ_TEST(bits_depend_on_neither_threads_nor_batch),
                               SNRQ_TEST(kl_agrees_with_differences)};
    return snrq_run_tests("block_backward", tests, sizeof tests / sizeof *tests, 1);
}
