/* What an export starts from: the settings of an OUT directory, and its codes, scales and zeros in
 * pieces of bounded size.
 */
#ifndef SNRQ_EXPORT_SOURCE_H
#define SNRQ_EXPORT_SOURCE_H

#include "io/checkpoint/block_file.h"
#include "pipeline/model/model.h"

/* What all quantized modules have in common. */
/* Engines do not treat all experts alike. */
typedef enum snrq_expert_kind {
    SNRQ_NO_EXPERTS,
    SNRQ_MIXTRAL_EXPERTS,
    SNRQ_DEEPSEEK_EXPERTS,
    SNRQ_OTHER_EXPERTS
} snrq_expert_kind;

typedef struct snrq_export_facts {
    int bits;
    int64_t group_size; /* 0: one group per row, in every module */
    bool symmetric, permuted;
    const snrq_weight_format *format; /* or NULL: integers */
    bool mixed; /* modules differ in this or in what is above or in scale_type: those are of one */
    bool fused; /* gate and up are one module */
    snrq_expert_kind experts;
    bool ragged; /* some module's last group is shorter than the others */
    snrq_dtype scale_type;
    double largest_activation; /* seen in the calibration; 0: unknown */
} snrq_export_facts;

/* Reads them from the manifest's records of all modules. SNRQ_BAD_DATA names what does not fit.
 * `model` may be one that was only looked at. Not collective. */
snrq_status snrq_export_facts_read(const snrq_model *model, snrq_export_facts *out);

/* What they will be of a model that is not quantized yet. group_size 0: one group per row. */
snrq_export_facts snrq_export_facts_planned(const snrq_model *model, int bits, int64_t group_size,
                                            bool symmetric, bool permuted, snrq_dtype scale_type);
/* The same for another size of groups. */
void snrq_export_facts_set_group(snrq_export_facts *facts, const snrq_model *model,
                                 int64_t group_size);

/* Why formats of integers times a scale cannot hold the weights, or NULL. */
const char *snrq_export_why_not_integers(const snrq_export_facts *facts);

/* Bits of symmetric codes that contain the zeros of asymmetric ones: those that most readers take.
 * 0: there are none of up to 8 bits. */
int snrq_export_folded_bits(int bits);

/* Can `type` hold every scale exactly? Looks at the scales, unless the stored type says so; of a
 * model that was only looked at, all files are checked first. Not collective. */
snrq_status snrq_export_scales_fit(const snrq_model *model, const snrq_export_facts *facts,
                                   snrq_dtype type, bool *fit);

/* The largest multiple of `unit` up to `most` that divides the inputs of every module, or 0. */
int64_t snrq_export_nearest_group(const snrq_model *model, int64_t unit, int64_t most);

/* The file of a block, which stays open as long as the same one is asked for. Zeroed: none. */
typedef struct snrq_export_block {
    snrq_block_file *file; /* owned */
    int64_t layer;
} snrq_export_block;

snrq_status snrq_export_block_open(const snrq_model *model, int64_t layer,
                                   snrq_export_block *block);
void snrq_export_block_close(snrq_export_block *block);

/* One module, open for reading. */
typedef struct snrq_export_module {
    const snrq_block_file *file; /* `own`, or borrowed */
    snrq_block_file *own;        /* owned, or NULL */
    int index;                   /* in its file */
    const snrq_module_record *record;
    int32_t *g_idx; /* [columns] owned */
    /* 0, or: hand out symmetric codes of so many bits for the same weights, code - zero + 2^(bits
     * - 1), and zeros of 2^(bits - 1). More bits than the stored ones. */
    int folded_bits;
} snrq_export_module;

/* layer -1: embeddings or head, by their place in tables.h5. The model outlives it. */
snrq_status snrq_export_module_open(const snrq_model *model, int64_t layer, int index,
                                    snrq_export_module *out);
void snrq_export_module_close(snrq_export_module *module);

/* Some rows of a module. */
typedef struct snrq_export_rows {
    const snrq_export_module *module;
    snrq_range range;
    const uint8_t *codes; /* [rows of the range, columns] */
    const float *scales;  /* [rows of the range, groups] */
    const uint8_t *zeros; /* [rows of the range, groups] */
    const float *minima;  /* [rows of the range, groups]; 0 where there are none */
} snrq_export_rows;

/* The weight in row i of them, column c. */
static inline float snrq_export_value(const snrq_export_rows *r, int64_t i, int64_t c)
{
    const snrq_module_record *record = r->module->record;
    int64_t g = i * record->groups + r->module->g_idx[c];
    return snrq_code_value(snrq_module_record_levels(record), r->scales[g], r->zeros[g],
                           r->minima[g], r->codes[i * record->columns + c]);
}

/* Calls `each` for all rows of `range`, some at a time (up to 16 MB, a multiple of 32 but for the
 * last ones), in order. Stops at the first failure. Not collective. */
typedef snrq_status snrq_export_each(void *user, const snrq_export_rows *rows);
snrq_status snrq_export_module_rows(const snrq_export_module *module, snrq_range range,
                                    snrq_export_each *each, void *user);

#endif
