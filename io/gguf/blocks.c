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
 * Formats that are a type of GGUF (mpi/algebra/weight_format.h) have codes that are its quants, and
 * scales and minima that are taken apart into d, dmin and integers.
 *
 * s has 11 significant bits and the integers are small: every product and difference is
 * exact in binary32, so a reader's value is s (c - z) whatever the order of its operations. */
#include "io/gguf/blocks.h"

#include <math.h>
#include <string.h>
#include <strings.h>

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
    {SNRQ_GGUF_Q4_1, "Q4_1", 32, sizeof(snrq_q4_1)},
    {SNRQ_GGUF_Q5_1, "Q5_1", 32, sizeof(snrq_q5_1)},
    {SNRQ_GGUF_Q5_0, "Q5_0", 32, sizeof(snrq_q5_0)},
    {SNRQ_GGUF_Q8_0, "Q8_0", 32, sizeof(snrq_q8_0)},
    {SNRQ_GGUF_Q2_K, "Q2_K", 256, sizeof(snrq_q2_k)},
    {SNRQ_GGUF_Q3_K, "Q3_K", 256, sizeof(snrq_q3_k)},
    {SNRQ_GGUF_Q4_K, "Q4_K", 256, sizeof(snrq_q4_k)},
    {SNRQ_GGUF_Q5_K, "Q5_K", 256, sizeof(snrq_q5_k)},
    {SNRQ_GGUF_Q6_K, "Q6_K", 256, sizeof(snrq_q6_k)},
    {SNRQ_GGUF_IQ4_NL, "IQ4_NL", 32, sizeof(snrq_iq4_nl)},
    {SNRQ_GGUF_IQ4_XS, "IQ4_XS", 256, sizeof(snrq_iq4_xs)},
    {SNRQ_GGUF_MXFP4, "MXFP4", 32, sizeof(snrq_mxfp4)},
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

/* One GGUF block: quants, what scales and minima are multiples of as binary16, and the integers. */
typedef struct gguf_block {
    uint8_t q[SNRQ_GGUF_MAX_BLOCK];
    uint16_t d, dmin;
    int scale[16], minimum[16];
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

static void put_q4_1(const gguf_block *b, void *out)
{
    snrq_q4_1 stored = {.d = b->d, .m = b->dmin};
    put_nibbles(b->q, stored.quants);
    memcpy(out, &stored, sizeof stored);
}

static void put_fifth(const uint8_t *q, uint8_t out[4])
{
    memset(out, 0, 4);
    for (int j = 0; j < 32; j++) out[j / 8] |= (uint8_t)((q[j] >> 4 & 1) << j % 8);
}

static void put_q5_0(const gguf_block *b, void *out)
{
    snrq_q5_0 stored = {.d = b->d};
    put_nibbles(b->q, stored.quants);
    put_fifth(b->q, stored.fifth);
    memcpy(out, &stored, sizeof stored);
}

static void put_q5_1(const gguf_block *b, void *out)
{
    snrq_q5_1 stored = {.d = b->d, .m = b->dmin};
    put_nibbles(b->q, stored.quants);
    put_fifth(b->q, stored.fifth);
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
    snrq_q2_k stored = {.d = b->d, .dmin = b->dmin};
    for (int s = 0; s < 16; s++) stored.scales[s] = (uint8_t)(b->scale[s] | b->minimum[s] << 4);
    put_pairs(b->q, stored.quants);
    memcpy(out, &stored, sizeof stored);
}

static void put_q3_k(const gguf_block *b, void *out)
{
    snrq_q3_k stored = {.d = b->d};
    for (int i = 0; i < 256; i++) stored.third[i % 32] |= (uint8_t)((b->q[i] >> 2 & 1) << i / 32);
    put_pairs(b->q, stored.quants);
    for (int s = 0; s < 16; s++) {
        int scale = b->scale[s] + 32;
        stored.scales[s % 8] |= (uint8_t)((scale & 15) << (s < 8 ? 0 : 4));
        stored.scales[8 + s % 4] |= (uint8_t)(scale >> 4 << 2 * (s / 4));
    }
    memcpy(out, &stored, sizeof stored);
}

/* Eight scales and minima of 6 bits. */
static void put_sixes(const gguf_block *b, uint8_t out[12])
{
    memset(out, 0, 12);
    for (int s = 0; s < 4; s++) {
        out[s] = (uint8_t)b->scale[s];
        out[s + 4] = (uint8_t)b->minimum[s];
    }
    for (int s = 4; s < 8; s++) {
        out[s + 4] = (uint8_t)((b->scale[s] & 15) | (b->minimum[s] & 15) << 4);
        out[s - 4] |= (uint8_t)(b->scale[s] >> 4 << 6);
        out[s] |= (uint8_t)(b->minimum[s] >> 4 << 6);
    }
}

/* The lower four bits of 256 quants. */
static void put_halves(const uint8_t *q, uint8_t out[128])
{
    memset(out, 0, 128);
    for (int i = 0; i < 256; i++)
        out[32 * (i / 64) + i % 32] |= (uint8_t)((q[i] & 15) << (i % 64 < 32 ? 0 : 4));
}

static void put_q4_k(const gguf_block *b, void *out)
{
    snrq_q4_k stored = {.d = b->d, .dmin = b->dmin};
    put_sixes(b, stored.scales);
    put_halves(b->q, stored.quants);
    memcpy(out, &stored, sizeof stored);
}

static void put_q5_k(const gguf_block *b, void *out)
{
    snrq_q5_k stored = {.d = b->d, .dmin = b->dmin};
    put_sixes(b, stored.scales);
    for (int i = 0; i < 256; i++) stored.fifth[i % 32] |= (uint8_t)((b->q[i] >> 4 & 1) << i / 32);
    put_halves(b->q, stored.quants);
    memcpy(out, &stored, sizeof stored);
}

static void put_q6_k(const gguf_block *b, void *out)
{
    snrq_q6_k stored = {.d = b->d};
    for (int i = 0; i < 256; i++) {
        int half = i / 128, quarter = i % 128 / 32, l = i % 32;
        stored.low[64 * half + 32 * (quarter % 2) + l] |=
            (uint8_t)((b->q[i] & 15) << (quarter < 2 ? 0 : 4));
        stored.high[32 * half + l] |= (uint8_t)(b->q[i] >> 4 << 2 * quarter);
    }
    for (int s = 0; s < 16; s++) stored.scales[s] = (int8_t)b->scale[s];
    memcpy(out, &stored, sizeof stored);
}

static void put_iq4_nl(const gguf_block *b, void *out)
{
    snrq_iq4_nl stored = {.d = b->d};
    put_nibbles(b->q, stored.quants);
    memcpy(out, &stored, sizeof stored);
}

static void put_iq4_xs(const gguf_block *b, void *out)
{
    snrq_iq4_xs stored = {.d = b->d};
    for (int s = 0; s < 8; s++) {
        int scale = b->scale[s] + 32;
        stored.low[s / 2] |= (uint8_t)((scale & 15) << 4 * (s % 2));
        stored.high |= (uint16_t)(scale >> 4 << 2 * s);
        put_nibbles(b->q + 32 * s, stored.quants + 16 * s);
    }
    memcpy(out, &stored, sizeof stored);
}

/* Codes of levels in ascending order, 7 being zero, to signs and magnitudes. */
static void put_mxfp4(const gguf_block *b, void *out)
{
    snrq_mxfp4 stored = {.exponent = (uint8_t)b->scale[0]};
    uint8_t q[32];
    for (int j = 0; j < 32; j++) q[j] = (uint8_t)(b->q[j] < 7 ? 15 - b->q[j] : b->q[j] - 7);
    put_nibbles(q, stored.quants);
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
    {SNRQ_GGUF_Q4_K, true, 0, 0, 15, put_q4_k},     {SNRQ_GGUF_Q4_1, true, 0, 0, 15, put_q4_1},
    {SNRQ_GGUF_Q5_1, true, 0, 0, 31, put_q5_1},     {SNRQ_GGUF_Q5_K, true, 0, 0, 31, put_q5_k},
    {SNRQ_GGUF_Q6_K, true, 0, 0, 63, put_q6_k},     {SNRQ_GGUF_IQ4_NL, true, 0, 0, 15, put_iq4_nl},
    {SNRQ_GGUF_IQ4_XS, true, 0, 0, 15, put_iq4_xs}, {SNRQ_GGUF_MXFP4, true, 0, 0, 14, put_mxfp4},
};
enum { ENCODERS = sizeof encoders / sizeof encoders[0] };

static snrq_status fill_gguf_block(const struct encoder *e, const uint8_t *codes, int64_t count,
                                   float scale, uint8_t zero, gguf_block *b)
{
    b->d = b->dmin = snrq_float_to_f16(scale);
    for (int s = 0; s < 16; s++) {
        b->scale[s] = 1;
        b->minimum[s] = zero;
    }
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

static const struct encoder *find_encoder(snrq_gguf_type type)
{
    const struct encoder *e = encoders;
    while (e < encoders + ENCODERS && e->type != type) e++;
    return e < encoders + ENCODERS ? e : NULL;
}

snrq_status snrq_gguf_encode_codes(snrq_gguf_type type, const snrq_gguf_grid *grid,
                                   const uint8_t *codes, const float *scales, const uint8_t *zeros,
                                   void *out)
{
    const struct type_row *t = find_type(type);
    const struct encoder *e = find_encoder(type);
    if (e == NULL || !gguf_blocks_fit(grid, t->weights))
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

snrq_status snrq_gguf_type_of(const snrq_weight_format *f, snrq_gguf_type *out)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcasecmp(types[i].name, f->name) == 0) {
            *out = types[i].type;
            return SNRQ_OK;
        }
    return snrq_fail(SNRQ_USAGE, "GGUF has no type for %s", f->name);
}

/* Scales, or minima, of a block: binary16 and integers. `sign`: -1 where the type adds minima. */
static snrq_status take_apart(const snrq_weight_format *f, const snrq_stored_numbers *set,
                              const float *values, float sign, uint16_t *shared, int *integers)
{
    float number = sign * values[0];
    if (set->power) { /* the integer is the exponent of E8M0 */
        int exponent;
        float fraction = frexpf(number, &exponent);
        *integers = exponent + 126;
        if (fraction == 0.5f && *integers >= 0 && *integers < 255) return SNRQ_OK;
        return snrq_fail(SNRQ_INTERNAL, "%s: %.9g is no power of 2", f->name, (double)number);
    }
    if (set->shared &&
        !snrq_multiples_find(set, f->super_block / f->group, values, &number, integers))
        return snrq_fail(SNRQ_INTERNAL, "%s: numbers of a block from %.9g on are no multiples",
                         f->name, (double)values[0]);
    *shared = snrq_float_to_f16(number);
    if (snrq_f16_to_float(*shared) == number) return SNRQ_OK;
    return snrq_fail(SNRQ_INTERNAL, "%s: %.9g is not a binary16 number", f->name, (double)number);
}

snrq_status snrq_gguf_encode_format(const snrq_weight_format *f, int64_t columns,
                                    const uint8_t *codes, const float *scales, const float *minima,
                                    void *out)
{
    snrq_gguf_type type = SNRQ_GGUF_F32;
    SNRQ_TRY(snrq_gguf_type_of(f, &type));
    const struct encoder *e = find_encoder(type);
    const int64_t step = f->super_block / f->group;
    unsigned char *to = out;
    if (columns % f->super_block != 0)
        return snrq_fail(SNRQ_INTERNAL, "%s does not hold rows of %lld columns", f->name,
                         (long long)columns);
    for (int64_t at = 0; at < columns; at += f->super_block, to += find_type(type)->bytes) {
        gguf_block b = {.d = 0};
        const int64_t g = at / f->super_block * step;
        SNRQ_TRY(take_apart(f, &f->scale, scales + g, 1.0f, &b.d, b.scale));
        if (f->minimum.present)
            SNRQ_TRY(take_apart(f, &f->minimum, minima + g, f->minimum.shared ? 1.0f : -1.0f,
                                &b.dmin, b.minimum));
        memcpy(b.q, codes + at, (size_t)f->super_block);
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
