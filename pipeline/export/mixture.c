/* Settings of modules that differ; see mixture.h. */
#include "pipeline/export/mixture.h"

#include <stdlib.h>

#include "io/checkpoint/reader.h"

static snrq_status read_records(const snrq_model *m, snrq_export_mixture *x)
{
    snrq_output_facts output;
    snrq_status status = snrq_output_read(m->path, &output);
    if (status == SNRQ_OK) status = snrq_output_modules(&output, &x->module, &x->count);
    snrq_output_facts_free(&output);
    return status;
}

/* The head comes behind the modules. */
static snrq_status add_head(const snrq_model *m, snrq_export_mixture *x)
{
    size_t capacity = (size_t)x->count;
    x->head = snrq_rest_file_table(m->rest, "lm_head.weight");
    if (x->head < 0) return SNRQ_OK;
    SNRQ_TRY(snrq_grow((size_t)x->count + 1, sizeof *x->module, "modules", &x->module, &capacity));
    x->module[x->count++] = *snrq_block_file_record(snrq_rest_file_tables(m->rest), x->head);
    return SNRQ_OK;
}

static bool same_kind(const snrq_export_facts *a, const snrq_export_facts *b)
{
    return a->bits == b->bits && a->group_size == b->group_size && a->symmetric == b->symmetric &&
           a->permuted == b->permuted &&
           snrq_export_why_not_integers(a) == snrq_export_why_not_integers(b);
}

/* What `all` says, with the module's own settings. */
static snrq_export_facts facts_of(const snrq_export_facts *all, const snrq_module_record *r)
{
    snrq_export_facts f = *all;
    if (!all->mixed) return f;
    f.bits = r->bits;
    f.format = snrq_module_record_format(r);
    f.symmetric = r->symmetric;
    f.group_size = r->groups > 1 ? r->group_size : 0;
    f.permuted = r->permuted_groups && r->groups > 1;
    f.ragged = r->groups > 1 && r->columns % r->group_size != 0;
    return f;
}

static snrq_status fold_zeros(const snrq_model *m, const snrq_module_record *r,
                              snrq_export_facts *f)
{
    const int bits = snrq_export_folded_bits(f->bits);
    if (f->symmetric) return SNRQ_OK;
    if (bits == 0)
        return snrq_fail(SNRQ_USAGE,
                         "%s: --zero-points folded: asymmetric codes of %d bits (%s) would become "
                         "9 bits long; quantize with fewer bits or without --asymmetric",
                         m->path, f->bits, r->name);
    f->bits = bits;
    f->symmetric = true;
    return SNRQ_OK;
}

/* Finds or adds the kind of each module. */
static snrq_status sort_modules(const snrq_model *m, const snrq_export_facts *all, bool fold,
                                double *weights, snrq_export_mixture *x)
{
    for (int64_t i = 0; i < x->count; i++) {
        snrq_export_facts f = facts_of(all, &x->module[i]);
        int k = 0;
        if (fold && snrq_export_why_not_integers(&f) == NULL)
            SNRQ_TRY(fold_zeros(m, &x->module[i], &f));
        while (k < x->kinds && !same_kind(&x->kind[k], &f)) k++;
        if (k == x->kinds) x->kind[x->kinds++] = f;
        x->kind[k].ragged |= f.ragged;
        weights[k] += (double)x->module[i].rows * (double)x->module[i].columns;
        x->kind_of[i] = k;
    }
    for (int k = 1; k < x->kinds; k++)
        if (weights[k] > weights[x->usual]) x->usual = k;
    return SNRQ_OK;
}

snrq_status snrq_export_mixture_read(const snrq_model *m, bool fold, bool head,
                                     snrq_export_mixture *x)
{
    snrq_export_facts all;
    double *weights = NULL;
    *x = (snrq_export_mixture){0};
    SNRQ_TRY(snrq_export_facts_read(m, &all));
    SNRQ_TRY(read_records(m, x));
    x->blocks = x->count;
    if (head) SNRQ_TRY(add_head(m, x));
    all.mixed = all.mixed || x->count > x->blocks;
    const size_t count = (size_t)x->count;
    snrq_status status = snrq_allocate(count, sizeof *x->kind, "settings of modules", &x->kind);
    if (status == SNRQ_OK)
        status = snrq_allocate(count, sizeof *x->kind_of, "settings of modules", &x->kind_of);
    if (status == SNRQ_OK)
        status = snrq_allocate(count, sizeof *weights, "settings of modules", &weights);
    if (status == SNRQ_OK) status = sort_modules(m, &all, fold, weights, x);
    free(weights);
    return status;
}

void snrq_export_mixture_free(snrq_export_mixture *x)
{
    free(x->module);
    free(x->kind);
    free(x->kind_of);
    *x = (snrq_export_mixture){0};
}

snrq_status snrq_export_mixture_fits(const snrq_model *m, snrq_export_fits *fits, char *why,
                                     size_t size)
{
    snrq_export_mixture x;
    snrq_status status = snrq_export_mixture_read(m, false, false, &x);
    why[0] = '\0';
    for (int k = 0; status == SNRQ_OK && k < x.kinds && why[0] == '\0'; k++)
        fits(m, &x.kind[k], why, size);
    snrq_export_mixture_free(&x);
    return status;
}
