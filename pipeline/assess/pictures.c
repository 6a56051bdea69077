/* Pictures of an assessment; see pictures.h. */
#include "pipeline/assess/pictures.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "io/file.h"
#include "pipeline/results/document.h"

/* A figure of a unit or a module, by layer. */
typedef struct figure {
    const char *name, *title, *axis;
    const char *object, *key; /* of a unit, or of a module: an object in it, or NULL, and its key */
    bool of_unit;
} figure;

static const figure figures[] = {
    {"output-error", "Output error of modules, rounded alone", "relative output error", NULL,
     "output_error", false},
    {"kurtosis", "Kurtosis of weights", "kurtosis (3: normal)", "weights", "kurtosis", false},
    {"largest-input", "Largest input of a unit, beside the middle one", "ratio", "inputs",
     "largest_to_middle", true},
    {"dead-inputs", "Inputs that are never used", "inputs", "inputs", "dead", true},
    {"alpha-corr", "Strength by the windows that are fitted to", "alpha", "alpha", "corr", false},
    {"alpha-held-out", "Strength by the judged windows", "alpha", "alpha", "held_out", false},
};

static double value_of(const json_t *from, const figure *f)
{
    const json_t *object = f->object != NULL ? json_object_get(from, f->object) : from;
    return json_number_value(json_object_get(object, f->key));
}

/* "down_proj" */
static const char *kind_of(const json_t *module)
{
    const char *name = json_string_value(json_object_get(module, "name"));
    const char *dot = name != NULL ? strrchr(name, '.') : NULL;
    return dot != NULL ? dot + 1 : "";
}

/* Experts are many: the first unit of each step stands for them. */
static void draw_unit(snrq_picture *p, const figure *f, int64_t layer, const json_t *step)
{
    const json_t *unit = json_array_get(json_object_get(step, "units"), 0), *module;
    size_t m;
    if (f->of_unit) {
        snrq_picture_series_add(p, json_string_value(json_object_get(step, "name")),
                                SNRQ_PICTURE_LINES);
        snrq_picture_value(p, (double)layer, value_of(unit, f));
        return;
    }
    json_array_foreach(json_object_get(unit, "modules"), m, module)
    {
        snrq_picture_series_add(p, kind_of(module), SNRQ_PICTURE_LINES);
        snrq_picture_value(p, (double)layer, value_of(module, f));
    }
}

static void draw_figure(snrq_document *d, const json_t *blocks, const figure *f)
{
    const json_t *block, *step;
    size_t b, s;
    snrq_picture *p = snrq_document_picture(d, f->name, f->title, "layer", f->axis);
    if (p == NULL) return;
    p->whole_x = true;
    json_array_foreach((json_t *)blocks, b, block)
        json_array_foreach(json_object_get(block, "steps"), s, step)
            draw_unit(p, f, (int64_t)b, step);
}

/* Of a step, with the width and groups that are measured. */
static double divergence_of(const json_t *configuration, const json_t *step)
{
    const json_t *bits = json_object_get(configuration, "usual_bits");
    const json_t *size = json_array_get(json_object_get(configuration, "group_sizes"), 0), *row;
    size_t i;
    json_array_foreach(
        json_object_get(step, "divergence"), i,
        row) if (json_equal(json_object_get(row, "bits"), bits) &&
                 json_equal(json_object_get(row, "group_size"),
                            size)) return json_number_value(json_object_get(row, "kl"));
    return 0.0;
}

static void draw_divergences(snrq_document *d, const json_t *whole)
{
    const json_t *configuration = json_object_get(whole, "configuration"), *block, *step;
    size_t b, s;
    snrq_picture *p = snrq_document_picture(d, "divergence", "Divergence with this rounded alone",
                                            "layer", "KL in nats per token");
    if (p == NULL) return;
    p->whole_x = true;
    json_array_foreach(json_object_get(whole, "blocks"), b, block)
    {
        snrq_picture_series_add(p, "block", SNRQ_PICTURE_LINES);
        snrq_picture_value(p, (double)b, json_number_value(json_object_get(block, "kl")));
        json_array_foreach(json_object_get(block, "steps"), s, step)
        {
            snrq_picture_series_add(p, json_string_value(json_object_get(step, "name")),
                                    SNRQ_PICTURE_LINES);
            snrq_picture_value(p, (double)b, divergence_of(configuration, step));
        }
    }
}

/* --alone modules */
static void draw_modules(snrq_document *d, const json_t *blocks)
{
    const json_t *block, *step, *module;
    size_t b, s, m;
    snrq_picture *p =
        snrq_document_picture(d, "divergence-modules", "Divergence with one module rounded alone",
                              "layer", "KL in nats per token");
    if (p == NULL) return;
    p->whole_x = true;
    json_array_foreach((json_t *)blocks, b, block)
        json_array_foreach(json_object_get(block, "steps"), s, step)
            json_array_foreach(json_object_get(step, "modules"), m, module)
    {
        snrq_picture_series_add(p, kind_of(module), SNRQ_PICTURE_LINES);
        snrq_picture_value(p, (double)b, json_number_value(json_object_get(module, "kl")));
    }
}

/* There may be none. */
static bool is_of_strengths(const figure *f)
{
    return f->object != NULL && strcmp(f->object, "alpha") == 0;
}

/* By block, where all of the model is rounded. */
static void draw_mismatch(snrq_document *d, const json_t *blocks)
{
    const json_t *block;
    size_t b;
    snrq_picture *p = snrq_document_picture(d, "mismatch", "Error of the residual stream", "layer",
                                            "relative error");
    if (p == NULL) return;
    p->whole_x = true;
    json_array_foreach((json_t *)blocks, b, block)
    {
        const json_t *mismatch = json_object_get(block, "mismatch");
        snrq_picture_series_add(p, "as it enters the block", SNRQ_PICTURE_LINES);
        snrq_picture_value(p, (double)b, json_number_value(json_object_get(mismatch, "input")));
        snrq_picture_series_add(p, "behind it", SNRQ_PICTURE_LINES);
        snrq_picture_value(p, (double)b, json_number_value(json_object_get(mismatch, "output")));
    }
}

snrq_status snrq_assess_pictures(const char *directory, const json_t *whole)
{
    char path[PATH_MAX], why[160];
    const json_t *blocks = json_object_get(whole, "blocks");
    bool drawn;
    snrq_document d;
    SNRQ_TRY(snrq_path_join(directory, "report", path, sizeof path));
    snrq_document_create("What rounding each part costs", &d);
    draw_divergences(&d, whole);
    if (json_object_get(json_object_get(whole, "configuration"), "alone") != NULL)
        draw_modules(&d, blocks);
    if (json_object_get(json_array_get(blocks, 0), "mismatch") != NULL) draw_mismatch(&d, blocks);
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++)
        if (!is_of_strengths(&figures[i]) || json_object_get(whole, "alpha") != NULL)
            draw_figure(&d, blocks, &figures[i]);
    snrq_document_close(&d);
    snrq_status status = snrq_document_write(&d, path, &drawn, why);
    snrq_document_free(&d);
    return status;
}
