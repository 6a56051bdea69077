/* Rows of weights as GGUF blocks; see blocks.h, and layout.h for where each bit lies.
 *
 * The maps, with s the scale, c the code, z the zero of a group:
 *
 *     Q4_0   d = s, q = c - z + 8       value s (c - z)
 *     Q5_0   d = s, q = c - z + 16      value s (c - z)
 *     Q8_0   d = s, q = c - z           value s (c - z)
 *     Q3_K   d = s, scales 33, q = c    value s (c - 4): z is 4
 *     Q2_K, Q4_K   d = dmin = s, scales 1, minimum z, q = c    value s c - s z
 *
 * s has 11 significant bits and the integers are small: every product and difference is
 * exact in binary32, so a reader's value is s (c - z) whatever the order of its operations. */
#include "io/gguf/blocks.h"

#include <math.h>
#include <string.h>

#include "mpi/algebra/dtype.h"

static const struct type_row {
    snrq_gguf_type type;
    const char *name;
    int64_t weights;
    size_t bytes;
} types[] = {
    {SNRQ_GGUF_F32, "F32", 1, 4},
    {SNRQ_GGUF_F16, "F16", 1, 2},
    {SNRQ_GGUF_BF16, "BF16", 1, 2},
    {SNRQ_GGUF_Q4_0, "Q4_0", 32, sizeof(snrq_q4_0)},
    {SNRQ_GGUF_Q5_0, "Q5_0", 32, sizeof(snrq_q5_0)},
    {SNRQ_GGUF_Q8_0, "Q8_0", 32, sizeof(snrq_q8_0)},
    {SNRQ_GGUF_Q2_K, "Q2_K", 256, sizeof(snrq_q2_k)},
    {SNRQ_GGUF_Q3_K, "Q3_K", 256, sizeof(snrq_q3_k)},
    {SNRQ_GGUF_Q4_K, "Q4_K", 256, sizeof(snrq_q4_k)},
};

static const struct type_row *find_type(snrq_gguf_type type)
{
    const struct type_row *row = types;
    while (row->type != type) row++;
    return row;
}

const char *snrq_gguf_type_name(snrq_gguf_type type)
{
    return find_type(type)->name;
}

int64_t snrq_gguf_block_weights(snrq_gguf_type type)
{
    return find_type(type)->weights;
}

size_t snrq_gguf_row_bytes(snrq_gguf_type type, int64_t columns)
{
    const struct type_row *row = find_type(type);
    return (size_t)(columns / row->weights) * row->bytes;
}

/* True if every GGUF block of `weights` columns has one scale. */
static bool gguf_blocks_fit(const snrq_gguf_grid *g, int64_t weights)
{
    return g->columns % weights == 0 && (g->group >= g->columns || g->group % weights == 0);
}

bool snrq_gguf_type_for(const snrq_gguf_grid *g, snrq_gguf_type *out)
{
    bool wide = gguf_blocks_fit(g, 256), possible = gguf_blocks_fit(g, 32);
    if (g->bits == 2 && wide)
        *out = SNRQ_GGUF_Q2_K;
    else if (g->bits == 3 && g->symmetric && wide)
        *out = SNRQ_GGUF_Q3_K;
    else if (g->bits <= 3 || (g->bits == 4 && g->symmetric))
        *out = SNRQ_GGUF_Q4_0;
    else if (g->bits == 4 && wide)
        *out = SNRQ_GGUF_Q4_K;
    else if (g->bits == 4 || (g->bits == 5 && g->symmetric))
        *out = SNRQ_GGUF_Q5_0;
    else if (g->bits < 8 || (g->bits == 8 && g->symmetric))
        *out = SNRQ_GGUF_Q8_0;
    else
        possible = false;
    return possible;
}

/* One GGUF block: q = level + offset of `count` weights, its scale as binary16, its zero. */
typedef struct gguf_block {
    uint8_t q[SNRQ_GGUF_MAX_BLOCK];
    uint16_t d;
    uint8_t zero;
} gguf_block;

static void put_nibbles(const uint8_t *q, uint8_t out[16])
{
    for (int j = 0; j < 16; j++) out[j] = (uint8_t)((q[j] & 15) | (q[j + 16] & 15) << 4);
}

/* The lower two bits of 256 quants. */
static void put_pairs(const uint8_t *q, uint8_t out[64])
{
    memset(out, 0, 64);
    for (int i = 0; i < 256; i++)
        out[32 * (i / 128) + i % 32] |= (uint8_t)((q[i] & 3) << (2 * (i % 128 / 32)));
}

static void put_q4_0(const gguf_block *b, void *out)
{
    snrq_q4_0 stored = {.d = b->d};
    put_nibbles(b->q, stored.quants);
    memcpy(out, &stored, sizeof stored);
}

static void put_q5_0(const gguf_block *b, void *out)
{
    snrq_q5_0 stored = {.d = b->d};
    put_nibbles(b->q, stored.quants);
    for (int j = 0; j < 32; j++) stored.fifth[j / 8] |= (uint8_t)((b->q[j] >> 4 & 1) << j % 8);
    memcpy(out, &stored, sizeof stored);
}

static void put_q8_0(const gguf_block *b, void *out)
{
    snrq_q8_0 stored = {.d = b->d};
    for (int j = 0; j < 32; j++) stored.quants[j] = (int8_t)(b->q[j] - 128);
    memcpy(out, &stored, sizeof stored);
}

static void put_q2_k(const gguf_block *b, void *out)
{
    snrq_q2_k stored = {.d = b->d, .dmin = b->d};
    memset(stored.scales, 1 | b->zero << 4, sizeof stored.scales);
    put_pairs(b->q, stored.quants);
    memcpy(out, &stored, sizeof stored);
}

static void put_q3_k(const gguf_block *b, void *out)
{
    snrq_q3_k stored = {.d = b->d};
    for (int i = 0; i < 256; i++) stored.third[i % 32] |= (uint8_t)((b->q[i] >> 2 & 1) << i / 32);
    put_pairs(b->q, stored.quants);
    /* Every scale is 33: 1 in the low bits, 2 in the upper ones. */
    memset(stored.scales, 0x11, 8);
    memset(stored.scales + 8, 0xaa, 4);
    memcpy(out, &stored, sizeof stored);
}

static void put_q4_k(const gguf_block *b, void *out)
{
    snrq_q4_k stored = {.d = b->d, .dmin = b->d};
    /* Scales 1 and minima below 16: no upper bits. */
    memset(stored.scales, 1, 4);
    memset(stored.scales + 4, b->zero, 4);
    memset(stored.scales + 8, 1 | b->zero << 4, 4);
    for (int i = 0; i < 256; i++)
        stored.quants[32 * (i / 64) + i % 32] |= (uint8_t)(b->q[i] << (i % 64 < 32 ? 0 : 4));
    memcpy(out, &stored, sizeof stored);
}

/* How a type stores levels: q = code - zero + offset, or the code itself with the zero
 * beside it. */
static const struct encoder {
    snrq_gguf_type type;
    bool raw; /* q is the code */
    int offset, low, high;
    void (*put)(const gguf_block *b, void *out);
} encoders[] = {
    {SNRQ_GGUF_Q4_0, false, 8, 0, 15, put_q4_0},    {SNRQ_GGUF_Q5_0, false, 16, 0, 31, put_q5_0},
    {SNRQ_GGUF_Q8_0, false, 128, 0, 255, put_q8_0}, /* the signed byte comes in put_q8_0 */
    {SNRQ_GGUF_Q2_K, true, 0, 0, 3, put_q2_k},      {SNRQ_GGUF_Q3_K, false, 4, 0, 7, put_q3_k},
    {SNRQ_GGUF_Q4_K, true, 0, 0, 15, put_q4_k},
};
enum { ENCODERS = sizeof encoders / sizeof encoders[0] };

static snrq_status fill_gguf_block(const struct encoder *e, const uint8_t *codes, int64_t count,
                                   float scale, uint8_t zero, gguf_block *b)
{
    b->d = snrq_float_to_f16(scale);
    b->zero = zero;
    if (snrq_f16_to_float(b->d) != scale)
        return snrq_fail(SNRQ_INTERNAL, "scale %.9g is not a binary16 number", (double)scale);
    if (e->raw && zero > e->high)
        return snrq_fail(SNRQ_INTERNAL, "zero %d has no place in %s", zero,
                         snrq_gguf_type_name(e->type));
    for (int64_t i = 0; i < count; i++) {
        int q = e->raw ? codes[i] : codes[i] - zero + e->offset;
        if (q < e->low || q > e->high)
            return snrq_fail(SNRQ_INTERNAL, "code %d with zero %d has no place in %s", codes[i],
                             zero, snrq_gguf_type_name(e->type));
        b->q[i] = (uint8_t)q;
    }
    return SNRQ_OK;
}

snrq_status snrq_gguf_encode_codes(snrq_gguf_type type, const snrq_gguf_grid *grid,
                                   const uint8_t *codes, const float *scales, const uint8_t *zeros,
                                   void *out)
{
    const struct type_row *t = find_type(type);
    const struct encoder *e = encoders;
    while (e < encoders + ENCODERS && e->type != type) e++;
    if (e == encoders + ENCODERS || !gguf_blocks_fit(grid, t->weights))
        return snrq_fail(SNRQ_INTERNAL, "%s does not hold rows of %lld columns in groups of %lld",
                         t->name, (long long)grid->columns, (long long)grid->group);
    unsigned char *to = out;
    for (int64_t at = 0; at < grid->columns; at += t->weights, to += t->bytes) {
        gguf_block b;
        int64_t group = at / grid->group;
        SNRQ_TRY(fill_gguf_block(e, codes + at, t->weights, scales[group], zeros[group], &b));
        e->put(&b, to);
    }
    return SNRQ_OK;
}

static snrq_status out_of_range(snrq_gguf_type type, double value)
{
    return snrq_fail(SNRQ_BAD_DATA, "%g is beyond the range of %s", value,
                     snrq_gguf_type_name(type));
}

/* Rounds 32 weights to multiples of a step that reaches the largest of them. */
static snrq_status round_q8_0(const float *values, void *out)
{
    snrq_q8_0 stored;
    float largest = 0;
    for (int j = 0; j < 32; j++) {
        if (!isfinite(values[j])) return out_of_range(SNRQ_GGUF_Q8_0, (double)values[j]);
        if (fabsf(values[j]) > largest) largest = fabsf(values[j]);
    }
    stored.d = snrq_float_to_f16(largest / 127);
    while (127 * snrq_f16_to_float(stored.d) < largest) stored.d++; /* the next larger number */
    float step = snrq_f16_to_float(stored.d);
    if (!isfinite(step)) return out_of_range(SNRQ_GGUF_Q8_0, (double)largest);
    for (int j = 0; j < 32; j++)
        stored.quants[j] = (int8_t)(step > 0 ? lrintf(values[j] / step) : 0);
    memcpy(out, &stored, sizeof stored);
    return SNRQ_OK;
}

snrq_status snrq_gguf_encode_floats(snrq_gguf_type type, const float *values, int64_t columns,
                                    void *out)
{
    unsigned char *to = out;
    size_t bytes = find_type(type)->bytes;
    if (type == SNRQ_GGUF_Q8_0) {
        for (int64_t i = 0; i < columns; i += 32, to += bytes) SNRQ_TRY(round_q8_0(values + i, to));
        return SNRQ_OK;
    }
    for (int64_t i = 0; i < columns; i++, to += bytes) {
        uint16_t half =
            type == SNRQ_GGUF_F16 ? snrq_float_to_f16(values[i]) : snrq_float_to_bf16(values[i]);
        float kept = type == SNRQ_GGUF_F32   ? values[i]
                     : type == SNRQ_GGUF_F16 ? snrq_f16_to_float(half)
                                             : snrq_bf16_to_float(half);
        if (!isfinite(kept)) return out_of_range(type, (double)values[i]);
        if (type == SNRQ_GGUF_F32)
            memcpy(to, &values[i], sizeof values[i]);
        else
            memcpy(to, &half, sizeof half);
    }
    return SNRQ_OK;
}
