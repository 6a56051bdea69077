/* Files of an assessment; see summary.h. */
#include "pipeline/assess/summary.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/json.h"
#include "io/standard_streams.h"
#include "pipeline/assess/pictures.h"

/* A block, or a step of one, and what it costs at the width that ranks. */
typedef struct place {
    int64_t block;
    const json_t *step; /* NULL: all of the block */
    double kl;
} place;

/* What an assessment was made with. */
typedef struct sizes {
    size_t widths, sizes, usual; /* usual: of the widths */
    size_t formats;
} sizes;

/* The choices that the text shows: widths with --group-size, then formats. */
static size_t shown(const sizes *n)
{
    return n->widths + n->formats;
}

static size_t choice_shown(const sizes *n, size_t i)
{
    return i < n->widths ? i * n->sizes : n->widths * n->sizes + i - n->widths;
}

static double kl_of(const json_t *step, size_t choice)
{
    const json_t *list = json_object_get(step, "divergence");
    return json_number_value(json_object_get(json_array_get(list, choice), "kl"));
}

static int by_falling_kl(const void *a, const void *b)
{
    const place *x = a, *y = b;
    if (x->kl != y->kl) return x->kl < y->kl ? 1 : -1;
    return (x->block > y->block) - (x->block < y->block);
}

static sizes sizes_of(const json_t *configuration)
{
    const json_t *widths = json_object_get(configuration, "widths");
    sizes s = {json_array_size(widths),
               json_array_size(json_object_get(configuration, "group_sizes")), 0,
               json_array_size(json_object_get(configuration, "formats"))};
    const json_int_t usual = json_integer_value(json_object_get(configuration, "usual_bits"));
    while (s.usual + 1 < s.widths && json_integer_value(json_array_get(widths, s.usual)) != usual)
        s.usual++;
    return s;
}

static const char *kind_of(const char *name)
{
    int dots = 0;
    for (; *name != '\0' && dots < 3; name++) dots += *name == '.';
    return name;
}

static void print_modules(FILE *out, const json_t *unit, const sizes *n)
{
    const json_t *module, *inputs = json_object_get(unit, "inputs");
    size_t m;
    json_array_foreach(json_object_get(unit, "modules"), m, module)
    {
        const json_t *weights = json_object_get(module, "weights");
        const json_t *choices = json_object_get(module, "choices");
        fprintf(out, "    %-28s", kind_of(json_string_value(json_object_get(module, "name"))));
        for (size_t i = 0; i < shown(n); i++) {
            const json_t *one = json_array_get(choices, choice_shown(n, i));
            fprintf(out, " %6.2f /%6.2f",
                    100.0 * json_number_value(json_object_get(one, "nearest_output_error")),
                    100.0 * json_number_value(json_object_get(one, "output_error")));
        }
        fprintf(out, "  kurtosis %5.1f  inputs: dead %lld, rare %lld, outliers %lld\n",
                json_number_value(json_object_get(weights, "kurtosis")),
                (long long)json_integer_value(json_object_get(inputs, "dead")),
                (long long)json_integer_value(json_object_get(inputs, "rarely_used")),
                (long long)json_integer_value(json_object_get(inputs, "outliers")));
    }
}

/* --alone modules: of a step with several. */
static void print_alone(FILE *out, const json_t *list)
{
    const json_t *module;
    size_t m;
    if (json_array_size(list) < 2) return;
    fprintf(out, "    alone:");
    json_array_foreach((json_t *)list, m, module)
        fprintf(out, " %s %.3g", json_string_value(json_object_get(module, "name")),
                json_number_value(json_object_get(module, "kl")));
    fputc('\n', out);
}

static void print_step(FILE *out, const place *p, const sizes *n)
{
    const json_t *unit;
    size_t u;
    fprintf(out, "block %lld, %-20s", (long long)p->block,
            json_string_value(json_object_get(p->step, "name")));
    for (size_t i = 0; i < shown(n); i++)
        fprintf(out, " %14.3g", kl_of(p->step, choice_shown(n, i)));
    fputc('\n', out);
    print_alone(out, json_object_get(p->step, "modules"));
    json_array_foreach(json_object_get(p->step, "units"), u, unit) if (u < 4)
        print_modules(out, unit, n);
}

/* Growth of the mismatch, and the strengths for all modules, where there is a rounded model. */
static void print_mismatch(FILE *out, const json_t *whole)
{
    const json_t *configuration = json_object_get(whole, "configuration"), *block;
    const json_t *alpha = json_object_get(whole, "alpha");
    size_t b, told = 0;
    json_array_foreach(json_object_get(whole, "blocks"), b, block)
    {
        const json_t *mismatch = json_object_get(block, "mismatch");
        if (mismatch == NULL) continue;
        if (told++ == 0)
            fprintf(out,
                    "error of the residual stream behind each block, all rounded to %lld bits:",
                    (long long)json_integer_value(json_object_get(configuration, "usual_bits")));
        fprintf(out, " %.1f", 100.0 * json_number_value(json_object_get(mismatch, "output")));
    }
    if (told > 0) fprintf(out, " %%\n");
    if (alpha == NULL) return;
    fprintf(
        out,
        "alpha for all modules: %.3f suggested; corr %.3f, best for outputs on the judged windows "
        "%.3f, --alpha auto %.3f\n",
        json_number_value(json_object_get(alpha, "suggested")),
        json_number_value(json_object_get(alpha, "corr")),
        json_number_value(json_object_get(alpha, "held_out")),
        json_number_value(json_object_get(alpha, "auto")));
}

static void print_size(FILE *out, const char *what, const json_t *size)
{
    fprintf(out, " %s %.2f MB (%.3f)", what,
            1e-6 * json_number_value(json_object_get(size, "bytes")),
            json_number_value(json_object_get(size, "bits_per_weight")));
}

static void print_sizes(FILE *out, const json_t *all)
{
    const json_t *size;
    size_t w;
    fprintf(out, "weights in memory, and bits per weight of the modules:");
    print_size(out, "model", json_object_get(all, "model"));
    json_array_foreach(json_object_get(all, "uniform"), w, size)
    {
        char what[24];
        snprintf(what, sizeof what, "| %d bits",
                 (int)json_integer_value(json_object_get(size, "bits")));
        print_size(out, what, size);
    }
    print_size(out, "| recipe.json", json_object_get(all, "recipe"));
    fputc('\n', out);
}

static void print(FILE *out, const json_t *whole, const place *steps, size_t count)
{
    const json_t *configuration = json_object_get(whole, "configuration");
    const json_t *row;
    const sizes n = sizes_of(configuration);
    size_t i;
    fprintf(out,
            "KL(model || model with one step rounded), nats per token; below, output errors "
            "in %%: to nearest / greedily\n%-30s",
            "");
    json_array_foreach(json_object_get(configuration, "widths"), i, row)
        fprintf(out, " %9lld bits", (long long)json_integer_value(row));
    json_array_foreach(json_object_get(configuration, "formats"), i, row)
        fprintf(out, " %14s", json_string_value(row));
    fputc('\n', out);
    for (i = 0; i < count; i++) print_step(out, &steps[i], &n);
    fprintf(out, "\nblocks rounded alone, the worst first:");
    json_array_foreach(json_object_get(whole, "ranking"), i, row)
        fprintf(out, " %lld (%.3g)", (long long)json_integer_value(json_object_get(row, "block")),
                json_number_value(json_object_get(row, "kl")));
    fputc('\n', out);
    print_mismatch(out, whole);
    print_sizes(out, json_object_get(whole, "sizes"));
}

/* places [all steps], places of blocks [blocks]: by falling divergence. */
static void rank(const json_t *whole, place *steps, size_t *count, place *blocks)
{
    const json_t *block, *step;
    const sizes n = sizes_of(json_object_get(whole, "configuration"));
    size_t b, s;
    *count = 0;
    json_array_foreach(json_object_get(whole, "blocks"), b, block)
    {
        blocks[b] =
            (place){.block = (int64_t)b, .kl = json_number_value(json_object_get(block, "kl"))};
        json_array_foreach(json_object_get(block, "steps"), s, step) steps[(*count)++] =
            (place){(int64_t)b, step, kl_of(step, n.usual * n.sizes)};
    }
    qsort(steps, *count, sizeof *steps, by_falling_kl);
    qsort(blocks, b, sizeof *blocks, by_falling_kl);
}

static snrq_status put(const char *directory, const char *name, char *text)
{
    char path[PATH_MAX];
    snrq_status status = text != NULL ? snrq_path_join(directory, name, path, sizeof path)
                                      : snrq_fail(SNRQ_INTERNAL, "no memory for %s", name);
    if (status == SNRQ_OK) status = snrq_file_replace(path, text, strlen(text));
    free(text);
    return status;
}

static snrq_status write_text(const char *directory, const json_t *whole, const place *steps,
                              size_t count, bool tells)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL) return snrq_fail(SNRQ_INTERNAL, "no memory for assessment.txt");
    print(out, whole, steps, count);
    fclose(out);
    if (text != NULL && tells) fputs(text, stdout);
    SNRQ_TRY(put(directory, "assessment.txt", text));
    return snrq_print_end(stdout);
}

snrq_status snrq_assess_write(const char *directory, json_t *whole, bool tells)
{
    const json_t *blocks = json_object_get(whole, "blocks"), *block;
    size_t b, most = 0, count = 0;
    place *steps = NULL, *ranked = NULL;
    json_array_foreach((json_t *)blocks, b, block) most +=
        json_array_size(json_object_get(block, "steps"));
    snrq_status status = snrq_allocate(most, sizeof *steps, "ranking", &steps);
    if (status == SNRQ_OK)
        status = snrq_allocate(json_array_size(blocks), sizeof *ranked, "ranking", &ranked);
    if (status == SNRQ_OK) {
        rank(whole, steps, &count, ranked);
        json_t *ranking = json_array();
        for (b = 0; b < json_array_size(blocks); b++)
            json_array_append_new(
                ranking,
                json_pack("{s:I, s:f}", "block", (json_int_t)ranked[b].block, "kl", ranked[b].kl));
        json_object_set_new(whole, "ranking", ranking);
    }
    if (status == SNRQ_OK && tells) status = snrq_assess_pictures(directory, whole);
    if (status == SNRQ_OK) status = write_text(directory, whole, steps, count, tells);
    /* Last: where it is, nothing is missing. */
    if (status == SNRQ_OK)
        status = put(directory, "assessment.json", snrq_json_dump(whole, JSON_INDENT(1)));
    free(steps);
    free(ranked);
    return status;
}
