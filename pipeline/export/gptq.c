/* GPTQ checkpoints; see formats.h.
 *
 * Symbols: K inputs, N outputs, b bits, G groups. Tensors of a module, in this order:
 *
 *   qweight  I32 [K b / 32, N]   codes; column n is the stream of the codes of row n
 *   qzeros   I32 [G, N b / 32]   zeros; row g is the stream of the zeros of group g
 *   scales   F16 [G, N]
 *   g_idx    I32 [K]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/codes.h"
#include "pipeline/export/formats.h"
#include "pipeline/model/kept.h"

enum { PACK = 32 };

static bool has_bits(int bits)
{
    return bits == 2 || bits == 3 || bits == 4 || bits == 8;
}

void snrq_gptq_fits(const snrq_model *m, const snrq_export_facts *f, char *why, size_t size)
{
    const char *no_integers = snrq_export_why_not_integers(f);
    snprintf(why, size, "%s", no_integers != NULL ? no_integers : "");
    if (no_integers != NULL) return;
    if (!has_bits(f->bits)) {
        snprintf(why, size,
                 "%d bits, it knows 2, 3, 4 and 8; quantize with --bits %d, or export "
                 "to compressed-tensors",
                 f->bits, f->bits < 7 ? 4 : 8);
        return;
    }
    for (int64_t layer = 0; layer < m->config.layers; layer++) {
        const snrq_family *family = snrq_model_family(m, layer);
        for (int i = 0; i < family->modules; i++) {
            const snrq_module_shape *s = &family->module[i];
            if (s->rows % PACK == 0 && s->columns % PACK == 0) continue;
            snprintf(why, size,
                     "%s has %lld outputs and %lld inputs, both must be multiples of %d; "
                     "export to compressed-tensors or safetensors",
                     s->name, (long long)s->rows, (long long)s->columns, PACK);
            return;
        }
    }
}

/* Zeros are stored in one of two ways in all of the checkpoint. */
static snrq_status check_mixture(const snrq_model *m, char *why, size_t size)
{
    snrq_export_mixture x;
    snrq_status status = snrq_export_mixture_read(m, false, false, &x);
    for (int k = 1; status == SNRQ_OK && k < x.kinds; k++)
        if (x.kind[k].symmetric != x.kind[0].symmetric)
            snprintf(why, size,
                     "some modules are symmetric and some are not; export to compressed-tensors, "
                     "or quantize all with or all without --asymmetric");
    snrq_export_mixture_free(&x);
    return status;
}

snrq_status snrq_gptq_possible(const snrq_model *m, char *why, size_t size)
{
    snrq_export_facts f;
    bool fit = true;
    SNRQ_TRY(snrq_export_facts_read(m, &f));
    SNRQ_TRY(snrq_export_mixture_fits(m, snrq_gptq_fits, why, size));
    if (why[0] == '\0') SNRQ_TRY(check_mixture(m, why, size));
    if (why[0] != '\0') return SNRQ_OK;
    SNRQ_TRY(snrq_export_scales_fit(m, &f, SNRQ_F16, &fit));
    if (!fit)
        snprintf(why, size,
                 "its scales are F16, which cannot hold all of these %s scales; "
                 "quantize with --scale-type f16",
                 snrq_dtype_name(f.scale_type));
    return SNRQ_OK;
}

static snrq_status settle(snrq_export_job *job, const snrq_export_settings *settings)
{
    (void)settings;
    job->type = SNRQ_F16;
    job->model_type = snrq_export_model_type(job->model, SNRQ_F16);
    return SNRQ_OK;
}

static snrq_status add(const snrq_export_job *job, const char *name, int64_t rows, int64_t columns,
                       int *first)
{
    const int bits = job->facts.bits;
    const int64_t groups = snrq_export_groups(&job->facts, columns);
    int index;
    SNRQ_TRY(snrq_export_add(job, name, "qweight", "I32", 2, snrq_packed_words(columns, bits), rows,
                             first));
    SNRQ_TRY(snrq_export_add(job, name, "qzeros", "I32", 2, groups, snrq_packed_words(rows, bits),
                             &index));
    SNRQ_TRY(snrq_export_add(job, name, "scales", "F16", 2, groups, rows, &index));
    return snrq_export_add(job, name, "g_idx", "I32", 1, columns, 0, &index);
}

/* A module on its way: columns become rows, so all of it is put together first. */
struct module {
    int64_t rows, groups;
    int bits;
    uint32_t *qweight; /* [K b / 32, N] */
    uint8_t *zeros;    /* [G, N], as they are stored */
    uint16_t *scales;  /* [G, N] */
    unsigned offset;   /* subtracted from zeros, modulo 2^b */
};

static snrq_status take_rows(void *user, const snrq_export_rows *r)
{
    struct module *m = user;
    const int64_t first = r->range.begin, count = r->range.end - first;
    const unsigned mask = (1u << m->bits) - 1;
    snrq_pack_columns(r->codes, count, r->module->record->columns, m->bits, m->qweight + first,
                      m->rows);
    for (int64_t g = 0; g < m->groups; g++)
        for (int64_t i = 0; i < count; i++) {
            unsigned zero = r->zeros[i * m->groups + g];
            m->zeros[g * m->rows + first + i] = (uint8_t)((zero - m->offset) & mask);
            m->scales[g * m->rows + first + i] = snrq_float_to_f16(r->scales[i * m->groups + g]);
        }
    return SNRQ_OK;
}

static snrq_status write_tensors(const snrq_export_job *job, const snrq_export_module *module,
                                 const struct module *m, int first)
{
    const int64_t columns = module->record->columns;
    const size_t words = (size_t)(snrq_packed_words(columns, m->bits) * m->rows);
    const size_t zero_words = (size_t)(m->groups * snrq_packed_words(m->rows, m->bits));
    uint32_t *qzeros = NULL;
    SNRQ_TRY(snrq_allocate(zero_words, sizeof *qzeros, "packed zeros", &qzeros));
    snrq_pack_rows(m->zeros, m->groups, m->rows, m->bits, qzeros);
    snrq_status status =
        snrq_shards_write(job->shards, first + 1, 0, qzeros, zero_words * sizeof *qzeros);
    free(qzeros);
    SNRQ_TRY(status);
    SNRQ_TRY(snrq_shards_write(job->shards, first, 0, m->qweight, words * sizeof *m->qweight));
    SNRQ_TRY(snrq_shards_write(job->shards, first + 2, 0, m->scales,
                               (size_t)(m->groups * m->rows) * sizeof *m->scales));
    return snrq_shards_write(job->shards, first + 3, 0, module->g_idx,
                             (size_t)columns * sizeof *module->g_idx);
}

static snrq_status write(const snrq_export_job *job, const snrq_export_module *module,
                         snrq_range range, int first)
{
    const snrq_module_record *r = module->record;
    struct module m = {.rows = r->rows,
                       .groups = r->groups,
                       .bits = job->facts.bits,
                       .offset = job->facts.symmetric ? 1 : 0};
    size_t words = (size_t)(snrq_packed_words(r->columns, m.bits) * r->rows);
    size_t groups = (size_t)(r->groups * r->rows);
    snrq_status status = snrq_allocate(words, sizeof *m.qweight, "packed codes", &m.qweight);
    if (status == SNRQ_OK) status = snrq_allocate(groups, 1, "zeros", &m.zeros);
    if (status == SNRQ_OK) status = snrq_allocate(groups, sizeof *m.scales, "scales", &m.scales);
    if (status == SNRQ_OK) status = snrq_export_module_rows(module, range, take_rows, &m);
    if (status == SNRQ_OK) status = write_tensors(job, module, &m, first);
    free(m.qweight);
    free(m.zeros);
    free(m.scales);
    return status;
}

/* A regular expression for modules [begin, end) of a unit, and for the one that engines fuse all of
 * them into, where those are all:
 * "+:^model\.layers\.3\.mlp\.(gate_proj|up_proj|gate_up_proj)$". */
static void modules_pattern(const snrq_family *f, int64_t layer, int begin, int end, char sign,
                            char *out, size_t size)
{
    const snrq_unit_shape *u = &f->unit[f->module[begin].unit];
    const bool whole = begin == u->first && end == u->end;
    const char *first = strrchr(f->module[begin].name, '.') + 1;
    char name[200];
    size_t at = (size_t)snprintf(out, size, "%c:^", sign);
    snrq_module_name(layer, f->module[begin].name, name, sizeof name);
    for (const char *c = name; c < strrchr(name, '.') + 1 && at + 2 < size; c++) {
        if (*c == '.') out[at++] = '\\';
        out[at++] = *c;
    }
    for (int m = begin; m < end && at < size; m++)
        at += (size_t)snprintf(out + at, size - at, "%c%s", m == begin ? '(' : '|',
                               strrchr(f->module[m].name, '.') + 1);
    const char *fused = !whole                            ? ""
                        : strcmp(first, "q_proj") == 0    ? "|qkv_proj"
                        : strcmp(first, "gate_proj") == 0 ? "|gate_up_proj"
                                                          : "";
    if (at < size) snprintf(out + at, size - at, "%s)$", fused);
}

/* Modules from `begin` on, up to the end of its unit, that have its kind. */
static int end_of_kind(const snrq_family *f, int begin, const int *kind_of)
{
    const int last = f->unit[f->module[begin].unit].end;
    int end = begin + 1;
    while (end < last && kind_of[end - begin] == kind_of[0]) end++;
    return end;
}

/* What differs from the usual settings, unit by unit; NULL: nothing does. */
static json_t *describe_others(const snrq_export_job *job)
{
    const snrq_model *m = job->model;
    const snrq_export_mixture *x = job->mixture;
    json_t *others = json_object();
    int64_t next = 0;
    char pattern[400];
    for (int64_t layer = 0; layer < m->config.layers; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        for (int begin = 0, end; begin < f->modules; begin = end) {
            const bool kept = snrq_model_keeps(m, layer, begin);
            const int kind = kept ? -1 : x->kind_of[next];
            end = kept ? f->unit[f->module[begin].unit].end
                       : end_of_kind(f, begin, x->kind_of + next);
            if (!kept) next += end - begin;
            if (kind == x->usual) continue;
            modules_pattern(f, layer, begin, end, kept ? '-' : '+', pattern, sizeof pattern);
            const snrq_export_facts *k = kept ? NULL : &x->kind[kind];
            json_object_set_new(
                others, pattern,
                kept ? json_object()
                     : json_pack("{s:i, s:I, s:b}", "bits", k->bits, "group_size",
                                 (json_int_t)(k->group_size > 0 ? k->group_size : -1), "desc_act",
                                 k->permuted && k->group_size > 0));
        }
    }
    if (json_object_size(others) > 0) return others;
    json_decref(others);
    return NULL;
}

static json_t *describe(const snrq_export_job *job, double damp)
{
    const snrq_export_facts *f = &job->facts;
    const bool permuted = f->permuted && f->group_size > 0; /* one group has no order */
    json_t *all = json_pack("{s:s, s:i, s:I, s:b, s:b, s:b, s:s, s:s, s:b, s:f, s:b, s:{s:[s]}}",
                            "quant_method", "gptq", "bits", f->bits, "group_size",
                            (json_int_t)(f->group_size > 0 ? f->group_size : -1), "desc_act",
                            permuted, "sym", f->symmetric, "lm_head", 0, "checkpoint_format",
                            f->symmetric ? "gptq" : "gptq_v2", "pack_dtype", "int32",
                            "true_sequential", 1, "damp_percent", damp, "static_groups", !permuted,
                            "meta", "quantizer", "snrq:" SNRQ_VERSION);
    json_t *others = describe_others(job);
    if (others != NULL) json_object_set_new(all, "dynamic", others);
    return all;
}

const snrq_checkpoint_layout snrq_gptq_layout = {.name = "gptq",
                                                 .whole_modules = true,
                                                 .settle = settle,
                                                 .add = add,
                                                 .write = write,
                                                 .describe = describe,
                                                 .description_file = "quantize_config.json"};
