/* GGUF blocks: against a twin that places single bits, and by the values that readers see. */
#include "io/gguf/blocks.h"

#include <math.h>
#include <string.h>

#include "io/gguf/values.h"
#include "mpi/algebra/dtype.h"
#include "tests/unit/test_files.h"

enum { COLUMNS = 512, ROW_BYTES = COLUMNS * 4 };

static void set_bits(uint8_t *block, int byte, int bit, int count, int value)
{
    for (int k = 0; k < count; k++)
        if (value >> k & 1) block[byte + (bit + k) / 8] |= (uint8_t)(1 << (bit + k) % 8);
}

/* Quant q of weight i. */
static void place_quant(snrq_gguf_type type, uint8_t *block, int i, int q)
{
    int pair = 32 * (i / 128) + i % 32, pair_bit = i % 128 / 32 * 2;
    switch (type) {
    case SNRQ_GGUF_Q4_0:
        set_bits(block, 2 + i % 16, i / 16 * 4, 4, q);
        break;
    case SNRQ_GGUF_Q5_0:
        set_bits(block, 6 + i % 16, i / 16 * 4, 4, q);
        set_bits(block, 2, i, 1, q >> 4);
        break;
    case SNRQ_GGUF_Q8_0:
        set_bits(block, 2 + i, 0, 8, q & 255);
        break;
    case SNRQ_GGUF_Q2_K:
        set_bits(block, 16 + pair, pair_bit, 2, q);
        break;
    case SNRQ_GGUF_Q3_K:
        set_bits(block, 32 + pair, pair_bit, 2, q);
        set_bits(block, i % 32, i / 32, 1, q >> 2);
        break;
    case SNRQ_GGUF_Q4_K:
        set_bits(block, 16 + 32 * (i / 64) + i % 32, i % 64 / 32 * 4, 4, q);
        break;
    default:
        CU_FAIL("no such type here");
    }
}

/* Scales of sub-blocks, which are all the same. */
static void place_scales(snrq_gguf_type type, uint8_t *block, int zero)
{
    for (int s = 0; s < 16 && type == SNRQ_GGUF_Q2_K; s++) {
        set_bits(block, s, 0, 4, 1);
        set_bits(block, s, 4, 4, zero);
    }
    for (int s = 0; s < 16 && type == SNRQ_GGUF_Q3_K; s++) {
        set_bits(block, 96 + s % 8, s / 8 * 4, 4, 33);
        set_bits(block, 104 + s % 4, s / 4 * 2, 2, 33 >> 4);
    }
    for (int s = 0; s < 8 && type == SNRQ_GGUF_Q4_K; s++) {
        set_bits(block, s < 4 ? 4 + s : 8 + s, 0, s < 4 ? 6 : 4, 1);
        set_bits(block, s < 4 ? 8 + s : 8 + s, s < 4 ? 0 : 4, s < 4 ? 6 : 4, zero);
    }
}

/* Where the halves d and dmin lie; -1: no dmin. */
static void places_of_halves(snrq_gguf_type type, int *d, int *dmin)
{
    *d = type == SNRQ_GGUF_Q2_K ? 80 : type == SNRQ_GGUF_Q3_K ? 108 : 0;
    *dmin = type == SNRQ_GGUF_Q2_K ? 82 : type == SNRQ_GGUF_Q4_K ? 2 : -1;
}

static int offset_of(snrq_gguf_type type)
{
    return type == SNRQ_GGUF_Q4_0   ? 8
           : type == SNRQ_GGUF_Q5_0 ? 16
           : type == SNRQ_GGUF_Q3_K ? 4
                                    : 0;
}

static void encode_reference(snrq_gguf_type type, const snrq_gguf_grid *g, const uint8_t *codes,
                             const float *scales, const uint8_t *zeros, uint8_t *out)
{
    int weights = (int)snrq_gguf_block_weights(type), d, dmin;
    size_t bytes = snrq_gguf_row_bytes(type, weights);
    bool raw = type == SNRQ_GGUF_Q2_K || type == SNRQ_GGUF_Q4_K;
    places_of_halves(type, &d, &dmin);
    memset(out, 0, snrq_gguf_row_bytes(type, g->columns));
    for (int64_t at = 0; at < g->columns; at += weights, out += bytes) {
        int64_t group = at / g->group;
        set_bits(out, d, 0, 16, snrq_float_to_f16(scales[group]));
        if (dmin >= 0) set_bits(out, dmin, 0, 16, snrq_float_to_f16(scales[group]));
        place_scales(type, out, zeros[group]);
        for (int i = 0; i < weights; i++) {
            int q = codes[at + i] - (raw ? 0 : zeros[group]) + offset_of(type);
            place_quant(type, out, i, q);
        }
    }
}

typedef struct grid_row {
    int bits;
    bool symmetric;
    int group; /* of COLUMNS columns */
    snrq_gguf_type type;
} grid_row;

static const grid_row grids[] = {
    {2, true, 32, SNRQ_GGUF_Q4_0},   {2, false, 512, SNRQ_GGUF_Q2_K},
    {2, true, 256, SNRQ_GGUF_Q2_K},  {3, true, 64, SNRQ_GGUF_Q4_0},
    {3, false, 256, SNRQ_GGUF_Q4_0}, {3, true, 256, SNRQ_GGUF_Q3_K},
    {3, true, 512, SNRQ_GGUF_Q3_K},  {4, true, 32, SNRQ_GGUF_Q4_0},
    {4, true, 512, SNRQ_GGUF_Q4_0},  {4, false, 128, SNRQ_GGUF_Q5_0},
    {4, false, 256, SNRQ_GGUF_Q4_K}, {5, true, 96, SNRQ_GGUF_Q5_0},
    {5, false, 32, SNRQ_GGUF_Q8_0},  {6, true, 64, SNRQ_GGUF_Q8_0},
    {7, false, 64, SNRQ_GGUF_Q8_0},  {8, true, 32, SNRQ_GGUF_Q8_0},
};
enum { GRIDS = sizeof grids / sizeof grids[0] };

/* A row with all sorts of scales, and codes at the ends of the range among them. */
static void random_row(const snrq_gguf_grid *g, uint64_t *state, uint8_t *codes, float *scales,
                       uint8_t *zeros)
{
    int top = (1 << g->bits) - 1;
    for (int64_t i = 0; i < g->columns; i++)
        codes[i] = (uint8_t)(i % 7 == 0   ? 0
                             : i % 5 == 0 ? top
                                          : (int)(test_random(state) >> 40) & top);
    for (int64_t i = 0; i * g->group < g->columns; i++) {
        uint16_t half = (uint16_t)(test_random(state) >> 48);
        scales[i] = snrq_f16_to_float((half & 0x7c00) == 0x7c00 ? 1 : half);
        zeros[i] =
            (uint8_t)(g->symmetric ? 1 << (g->bits - 1) : (int)(test_random(state) >> 40) & top);
    }
}

static void types_are_as_expected(void)
{
    for (int i = 0; i < GRIDS; i++) {
        const snrq_gguf_grid g = {grids[i].bits, grids[i].symmetric, COLUMNS, grids[i].group};
        snrq_gguf_type type = SNRQ_GGUF_F32;
        CU_ASSERT_TRUE(snrq_gguf_type_for(&g, &type));
        CU_ASSERT_EQUAL(type, grids[i].type);
    }
}

static void what_no_type_holds_is_refused(void)
{
    const snrq_gguf_grid impossible[] = {{4, true, 512, 16},
                                         {4, true, 512, 48},
                                         {4, true, 500, 500},
                                         {8, false, 512, 32},
                                         {8, false, 512, 512}};
    snrq_gguf_type type;
    for (size_t i = 0; i < sizeof impossible / sizeof impossible[0]; i++)
        CU_ASSERT_FALSE(snrq_gguf_type_for(&impossible[i], &type));
}

static void bytes_are_those_of_the_twin(void)
{
    uint64_t state = 11;
    uint8_t codes[COLUMNS], zeros[COLUMNS], found[ROW_BYTES], expected[ROW_BYTES];
    float scales[COLUMNS];
    int wrong = 0;
    for (int i = 0; i < GRIDS; i++)
        for (int k = 0; k < 200; k++) {
            const snrq_gguf_grid g = {grids[i].bits, grids[i].symmetric, COLUMNS, grids[i].group};
            random_row(&g, &state, codes, scales, zeros);
            encode_reference(grids[i].type, &g, codes, scales, zeros, expected);
            if (!assert_ok(snrq_gguf_encode_codes(grids[i].type, &g, codes, scales, zeros, found)))
                return;
            wrong += memcmp(found, expected, snrq_gguf_row_bytes(grids[i].type, COLUMNS)) != 0;
        }
    CU_ASSERT_EQUAL(wrong, 0);
}

static void values_are_scale_times_level(void)
{
    uint64_t state = 12;
    uint8_t codes[COLUMNS], zeros[COLUMNS], row[ROW_BYTES];
    float scales[COLUMNS];
    int wrong = 0;
    for (int i = 0; i < GRIDS; i++) {
        const snrq_gguf_value *v = &snrq_gguf_values[snrq_gguf_value_kind(grids[i].type)];
        for (int k = 0; k < 200; k++) {
            const snrq_gguf_grid g = {grids[i].bits, grids[i].symmetric, COLUMNS, grids[i].group};
            random_row(&g, &state, codes, scales, zeros);
            snrq_gguf_encode_codes(grids[i].type, &g, codes, scales, zeros, row);
            for (int c = 0; c < COLUMNS; c++) {
                int group = c / grids[i].group;
                float expected = scales[group] * (float)(codes[c] - zeros[group]);
                wrong += v->value(row + c / v->weights * v->bytes, c % v->weights) != expected;
            }
        }
    }
    CU_ASSERT_EQUAL(wrong, 0);
}

/* Every format of the table: what the reader sees is what was optimized, bit for bit. */
static void formats_are_read_as_they_are(void)
{
    uint64_t state = 14;
    uint8_t codes[COLUMNS], row[ROW_BYTES];
    float scales[COLUMNS / 16], minima[COLUMNS / 16];
    for (int i = 0; i < SNRQ_WEIGHT_FORMATS; i++) {
        const snrq_weight_format *f = &snrq_weight_formats[i];
        snrq_gguf_type type = SNRQ_GGUF_F32;
        if (f->scale.tensor || f->shared_rows > 0) {
            CU_ASSERT_EQUAL(snrq_gguf_type_of(f, &type), SNRQ_USAGE);
            continue;
        }
        if (!assert_ok(snrq_gguf_type_of(f, &type))) return;
        const snrq_gguf_value *v = &snrq_gguf_values[snrq_gguf_value_kind(type)];
        int64_t step = f->super_block / f->group;
        int wrong = 0;
        CU_ASSERT_DOUBLE_EQUAL(8.0 * v->bytes / v->weights, f->weight_bits, 1e-12);
        for (int n = 0; n < 300; n++) {
            float d = 0, dmin = 0;
            for (int k = 0; k < COLUMNS; k++)
                codes[k] = (uint8_t)((test_random(&state) >> 33) % (uint64_t)(f->top + 1));
            for (int64_t g = 0; g < COLUMNS / f->group; g++) {
                if (g % step == 0) {
                    d = snrq_f16_to_float((uint16_t)(1 + (test_random(&state) >> 48) % 0x7bff));
                    dmin = snrq_f16_to_float((uint16_t)((test_random(&state) >> 48) % 0x7c00));
                }
                int span = f->scale.highest - f->scale.lowest + 1, integer = 0;
                while (f->scale.shared && integer == 0)
                    integer = f->scale.lowest + (int)((test_random(&state) >> 33) % (uint64_t)span);
                scales[g] = f->scale.shared ? d * (float)integer : n % 2 == 0 ? d : -d;
                if (f->scale.power)
                    scales[g] = ldexpf(1, (int)((test_random(&state) >> 33) % 250) - 124);
                minima[g] = !f->minimum.present ? 0.0f
                            : f->minimum.shared ? dmin * (float)((test_random(&state) >> 33) % 16)
                            : n % 3 == 0        ? -dmin
                                                : dmin;
            }
            if (!assert_ok(snrq_gguf_encode_format(f, COLUMNS, codes, scales, minima, row))) return;
            for (int k = 0; k < COLUMNS; k++) {
                float expected =
                    snrq_code_value(f->levels, scales[k / f->group], snrq_weight_format_zero(f),
                                    minima[k / f->group], codes[k]);
                float found = v->value(row + k / v->weights * v->bytes, k % v->weights);
                wrong += found != expected;
            }
        }
        if (wrong > 0) fprintf(stderr, "%s: %d\n", f->name, wrong);
        CU_ASSERT_EQUAL(wrong, 0);
    }
    scales[0] = 1.0f;
    scales[1] = 0.3f; /* no multiples */
    const snrq_weight_format *k = snrq_weight_format_find("q4_k");
    for (int g = 2; g < 16; g++) scales[g] = 1.0f;
    assert_failed(snrq_gguf_encode_format(k, 256, codes, scales, minima, row), SNRQ_INTERNAL,
                  "multiples");
    assert_failed(snrq_gguf_encode_format(k, 128, codes, scales, minima, row), SNRQ_INTERNAL,
                  "128");
}

static void values_outside_of_a_type_are_refused(void)
{
    uint8_t codes[32] = {255}, row[64];
    const uint8_t zero = 8;
    const float scale = 1, fine = 1.0f + 0x1p-12f;
    const snrq_gguf_grid g = {4, true, 32, 32};
    assert_failed(snrq_gguf_encode_codes(SNRQ_GGUF_Q4_0, &g, codes, &scale, &zero, row),
                  SNRQ_INTERNAL, "code 255");
    codes[0] = 3;
    assert_failed(snrq_gguf_encode_codes(SNRQ_GGUF_Q4_0, &g, codes, &fine, &zero, row),
                  SNRQ_INTERNAL, "binary16");
    assert_failed(snrq_gguf_encode_codes(SNRQ_GGUF_Q4_K, &g, codes, &scale, &zero, row),
                  SNRQ_INTERNAL, "Q4_K");
}

static void floats_are_kept_or_rounded(void)
{
    const snrq_gguf_value *v = &snrq_gguf_values[snrq_gguf_value_kind(SNRQ_GGUF_Q8_0)];
    uint64_t state = 13;
    float values[32], kept;
    uint8_t row[128];
    int wrong = 0;
    for (int k = 0; k < 1000; k++) {
        float largest = 0;
        for (int i = 0; i < 32; i++) {
            values[i] = ldexpf((float)(int64_t)test_random(&state), -63 - k % 18);
            largest = fmaxf(largest, fabsf(values[i]));
        }
        if (!assert_ok(snrq_gguf_encode_floats(SNRQ_GGUF_Q8_0, values, 32, row))) return;
        /* Half a step of at most largest / 127 and what binary16 adds to it. */
        float bound = largest / 127 * (0.5f + 0x1p-10f) + 0x1p-25f;
        for (int i = 0; i < 32; i++) wrong += !(fabsf(v->value(row, i) - values[i]) <= bound);
        snrq_gguf_encode_floats(SNRQ_GGUF_F32, values, 32, row);
        wrong += memcmp(row, values, sizeof values) != 0;
    }
    CU_ASSERT_EQUAL(wrong, 0);
    kept = 0.3f;
    snrq_gguf_encode_floats(SNRQ_GGUF_F16, &kept, 1, row);
    CU_ASSERT_EQUAL(row[0] + 256 * row[1], 0x34cd);
    snrq_gguf_encode_floats(SNRQ_GGUF_BF16, &kept, 1, row);
    CU_ASSERT_EQUAL(row[0] + 256 * row[1], 0x3e9a);
    kept = 70000;
    assert_failed(snrq_gguf_encode_floats(SNRQ_GGUF_F16, &kept, 1, row), SNRQ_BAD_DATA, "70000");
    values[5] = NAN;
    assert_failed(snrq_gguf_encode_floats(SNRQ_GGUF_Q8_0, values, 32, row), SNRQ_BAD_DATA, "nan");
}

int main(void)
{
    const snrq_test tests[] = {
        SNRQ_TEST(types_are_as_expected),        SNRQ_TEST(what_no_type_holds_is_refused),
        SNRQ_TEST(bytes_are_those_of_the_twin),  SNRQ_TEST(values_are_scale_times_level),
        SNRQ_TEST(formats_are_read_as_they_are), SNRQ_TEST(values_outside_of_a_type_are_refused),
        SNRQ_TEST(floats_are_kept_or_rounded),
    };
    return snrq_run_tests("gguf_blocks", tests, sizeof tests / sizeof *tests, 1);
}
