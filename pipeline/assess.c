/* What rounding each part of a model costs; see assess.h. */
#include "pipeline/assess.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/directory.h"
#include "io/file.h"
#include "io/json.h"
#include "io/user_output.h"
#include "mpi/collective.h"
#include "mpi/log.h"
#include "pipeline/assess_divergence.h"
#include "pipeline/assess_summary.h"
#include "pipeline/model/expert_stream.h"
#include "pipeline/model/findings.h"
#include "pipeline/quantize.h"
#include "pipeline/rules.h"
#include "pipeline/text_options.h"

enum { BLOCK_LIMIT = 1 << 26 };

typedef struct assessment {
    const snrq_context *context;
    const snrq_options *options;
    snrq_widths widths;
    snrq_rule rule;
    snrq_model *model;           /* owned, as the following */
    json_t *configuration;       /* what decides the figures */
    snrq_windows windows;        /* those that H is of, then those that divergences are of */
    snrq_windows fitted, judged; /* views of them */
    snrq_ropes ropes;
    snrq_stream full, twin; /* of the fitted windows; both the same: nothing is rounded before */
    snrq_stream before;     /* of the judged ones, as they enter the block */
    float *after;           /* their h behind the last block */
    json_t *uniform;        /* [{"bits", "kl"}]: all modules rounded with one width */
} assessment;

/* A block on its way. */
typedef struct block_work {
    int64_t layer;
    snrq_loaded_block full;
    snrq_loaded_block quantized[SNRQ_MOST_WIDTHS];
    snrq_coverage coverage;
    json_t *steps; /* a list with what was found of each */
} block_work;

/* ---- inputs ---- */

static snrq_windows part_of(const snrq_windows *all, int64_t first, int64_t count)
{
    snrq_windows part = {.count = count, .length = all->length, .ids = all->ids};
    part.ids += first * all->length;
    part.total_tokens = all->total_tokens;
    part.distinct = count * all->length < all->distinct ? count * all->length : all->distinct;
    return part;
}

/* One draw: the windows that H is of come first. */
static snrq_status make_windows(assessment *a)
{
    const int64_t judged = a->options->judged_windows;
    snrq_window_order order = snrq_calibration_windows(a->options);
    order.held_out = order.first_tokens = 0;
    if (order.count > 0) order.count += judged;
    SNRQ_TRY(snrq_windows_make(a->context, &order, a->model, &a->windows));
    const int64_t fitted = a->windows.count - judged;
    if (fitted < 1)
        return snrq_fail(SNRQ_USAGE,
                         "assess: %lld windows in all, and %lld of them are for --judged-windows: "
                         "none is left for H",
                         (long long)a->windows.count, (long long)judged);
    a->fitted = part_of(&a->windows, 0, fitted);
    a->judged = part_of(&a->windows, fitted, judged);
    return SNRQ_OK;
}

static snrq_status describe(assessment *a)
{
    char fingerprint[33];
    json_t *widths = json_array();
    SNRQ_TRY(snrq_model_fingerprint(a->model, fingerprint));
    for (int w = 0; w < a->widths.count; w++)
        json_array_append_new(widths, json_integer(a->widths.bits[w]));
    json_t *options = snrq_options_stored(a->options);
    a->configuration = json_pack(
        "{s:s, s:o, s:s, s:s, s:I, s:I, s:I, s:o}", "version", SNRQ_VERSION, "options", options,
        "model", fingerprint, "windows", a->windows.fingerprint, "fitted_windows",
        (json_int_t)a->fitted.count, "judged_windows", (json_int_t)a->judged.count, "length",
        (json_int_t)a->windows.length, "widths", widths);
    if (a->configuration != NULL) return SNRQ_OK;
    return snrq_fail(SNRQ_INTERNAL, "no memory for the configuration");
}

static snrq_status open_inputs(assessment *a)
{
    const snrq_options *o = a->options;
    snrq_rules rules = {0};
    if (!snrq_widths_parse(o->widths_text, &a->widths))
        return snrq_fail(SNRQ_USAGE, "--widths: expected 2 to 8, growing, as in 2,3,4,8; found %s",
                         o->widths_text);
    SNRQ_TRY(snrq_model_open(a->context, o->path, &a->model));
    if (a->model->quantized)
        return snrq_fail(SNRQ_USAGE, "%s is quantized already; give the original checkpoint",
                         o->path);
    SNRQ_TRY(snrq_model_check(a->context, a->model, o->ignore_unused_layers, o->strict));
    SNRQ_TRY(snrq_agree(a->context, snrq_rules_create(o, a->model, &rules)));
    a->rule = *snrq_rules_at(&rules, 0, 0);
    a->rule.alpha_mode = SNRQ_ALPHA_FIXED;
    a->rule.alpha_value = a->rule.compensate = 0.0;
    snrq_rules_free(&rules);
    SNRQ_TRY(make_windows(a));
    SNRQ_TRY(snrq_agree(a->context, describe(a)));
    return snrq_agree(a->context,
                      snrq_ropes_create(&a->model->config, a->windows.length, &a->ropes));
}

/* ---- streams ---- */

static size_t bytes_of(const snrq_stream *s)
{
    return (size_t)((s->range.end - s->range.begin) * s->tokens * s->hidden) * sizeof *s->h;
}

static snrq_status create_streams(assessment *a)
{
    const snrq_context *c = a->context;
    const int64_t hidden = a->model->config.hidden;
    const double scale = a->model->config.embedding_scale;
    const snrq_range fitted = snrq_stream_share(c, &a->fitted);
    snrq_table embedding;
    snrq_status status = snrq_stream_create(fitted, &a->fitted, hidden, &a->full);
    if (status == SNRQ_OK) status = snrq_stream_create(fitted, &a->fitted, hidden, &a->twin);
    if (status == SNRQ_OK)
        status =
            snrq_stream_create(snrq_stream_share(c, &a->judged), &a->judged, hidden, &a->before);
    if (status == SNRQ_OK)
        status = snrq_allocate(bytes_of(&a->before) + 1, 1, "hidden states", &a->after);
    SNRQ_TRY(snrq_agree(c, status));
    SNRQ_TRY(snrq_model_load_embedding(c, a->model, &embedding));
    snrq_stream_embed(&a->full, &embedding.weight, scale, &a->fitted);
    snrq_stream_embed(&a->before, &embedding.weight, scale, &a->judged);
    snrq_table_free(&embedding);
    memcpy(a->twin.h, a->full.h, bytes_of(&a->full));
    return SNRQ_OK;
}

/* The judged windows through all of the model, and back to its beginning. */
static snrq_status run_reference(assessment *a)
{
    float *start = NULL;
    const size_t bytes = bytes_of(&a->before);
    SNRQ_TRY(snrq_agree(a->context, snrq_allocate(bytes + 1, 1, "hidden states", &start)));
    memcpy(start, a->before.h, bytes);
    snrq_status status = SNRQ_OK;
    for (int64_t layer = 0; status == SNRQ_OK && layer < a->model->config.layers; layer++) {
        snrq_loaded_block block = {0};
        status = snrq_model_load_block(a->context, a->model, layer, &a->ropes, &block);
        if (status == SNRQ_OK)
            status = snrq_agree(a->context, snrq_stream_forward(&a->before, &block.block));
        snrq_loaded_block_free(&block);
    }
    memcpy(a->after, a->before.h, bytes);
    memcpy(a->before.h, start, bytes);
    free(start);
    return status;
}

/* ---- all of the model with one width ---- */

/* The options of such a run: those of the assessment, and what is its own. */
static snrq_status uniform_options(const assessment *a, int bits, const char *output,
                                   snrq_options *out)
{
    const snrq_options *o = a->options;
    json_t *stored = snrq_options_stored(o);
    json_object_set_new(stored, "bits", json_integer(bits));
    snrq_status status = snrq_options_restore(stored, out);
    json_decref(stored);
    out->path = o->path;
    out->output = output;
    out->token_file = o->token_file;
    out->calibration = o->calibration;
    out->texts = o->texts;
    out->text_key = o->text_key;
    out->sequences = a->fitted.count;
    out->first_tokens = bits == 2 && snrq_method_has_strength((snrq_method)o->method);
    out->held_out = 0;
    out->strict = o->strict;
    out->ignore_unused_layers = o->ignore_unused_layers;
    out->factor_rows = o->factor_rows;
    out->factor_columns = o->factor_columns;
    return status;
}

static snrq_status try_uniform(assessment *a, int bits)
{
    const snrq_divergence of = {a->context, a->model, &a->ropes, &a->judged, &a->before, a->after};
    char name[32], path[PATH_MAX];
    double kl = 0.0;
    snrq_options o;
    snprintf(name, sizeof name, "uniform-%d", bits);
    SNRQ_TRY(snrq_path_join(a->options->output, name, path, sizeof path));
    SNRQ_TRY(uniform_options(a, bits, path, &o));
    SNRQ_TRY(snrq_quantize(a->context, &o));
    SNRQ_TRY(snrq_divergence_of_output(&of, path, &kl));
    json_array_append_new(a->uniform, json_pack("{s:i, s:f}", "bits", bits, "kl", kl));
    return SNRQ_OK;
}

/* Wider ones cost next to nothing, and nothing is learned from them. */
static snrq_status try_all_uniform(assessment *a)
{
    enum { WIDEST = 4 };
    a->uniform = json_array();
    for (int w = 0; w < a->widths.count && !a->options->no_uniform; w++)
        if (a->widths.bits[w] <= WIDEST) SNRQ_TRY(try_uniform(a, a->widths.bits[w]));
    return SNRQ_OK;
}

/* ---- a block ---- */

static snrq_status gather(assessment *a, const snrq_unit_tokens *read, snrq_statistics *out)
{
    const snrq_unit_input input = {.x = &read->x,
                                   .xf = &read->xf,
                                   .sequences_global = a->fitted.count,
                                   .distinct_global = a->fitted.distinct,
                                   .residual_scale = a->model->config.residual_scale};
    const snrq_process_shape shape = {a->options->factor_rows, a->options->factor_columns};
    const snrq_team all = snrq_team_of_all(a->context);
    return snrq_statistics_gather(a->context, &all, &a->rule, shape, &input, out);
}

static snrq_status assess_unit(assessment *a, block_work *b, int step, int unit, json_t *found)
{
    const snrq_family *f = b->full.block.family;
    const snrq_assess_unit of = {a->context,   &a->widths, &a->rule, &b->full,
                                 b->quantized, b->layer,   unit};
    snrq_unit_tokens read = {0};
    snrq_statistics statistics = {0};
    json_t *modules = NULL, *inputs = NULL;
    snrq_status status = snrq_agree(
        a->context, snrq_streams_tokens(&a->twin, &a->full, f, step, unit - f->step[step].first,
                                        a->rule.weighted_tokens, &read));
    if (status == SNRQ_OK) status = gather(a, &read, &statistics);
    snrq_unit_tokens_free(&read);
    if (status == SNRQ_OK) status = snrq_assess_widths(&of, &statistics, &modules, &inputs);
    snrq_statistics_free(&statistics);
    json_array_append_new(found, json_pack("{s:o?, s:o?}", "inputs", inputs, "modules", modules));
    return status;
}

static snrq_status route(assessment *a, block_work *b, int step)
{
    const snrq_family *f = b->full.block.family;
    const int64_t asked = a->options->expert_tokens;
    if (f->step[step].kind != SNRQ_STEP_EXPERTS_ACTIVATION) return SNRQ_OK;
    return snrq_streams_route(a->context, a->fitted.count,
                              asked == 0 ? f->unit[f->step[step].first].columns : asked, &a->twin,
                              &b->full.block, &a->full, &b->full.block, &b->coverage);
}

static snrq_status advance(assessment *a, block_work *b, int step)
{
    int first, end;
    double *measures = NULL;
    snrq_step_modules(b->full.block.family, step, &first, &end);
    snrq_status status =
        snrq_allocate(SNRQ_MEASURES * (size_t)(end - first) * (size_t)a->fitted.count,
                      sizeof *measures, "measures", &measures);
    if (status == SNRQ_OK)
        status = snrq_streams_advance(&a->twin, &b->full.block, &a->full, &b->full.block, step,
                                      a->fitted.count, measures);
    free(measures);
    return snrq_agree(a->context, status);
}

static snrq_status assess_step(assessment *a, block_work *b, int step)
{
    const snrq_step *s = &b->full.block.family->step[step];
    json_t *units = json_array();
    snrq_status status = route(a, b, step);
    for (int u = s->first; status == SNRQ_OK && u < s->end; u++)
        status = assess_unit(a, b, step, u, units);
    if (status == SNRQ_OK) status = advance(a, b, step);
    json_array_append_new(b->steps, json_pack("{s:s, s:o}", "name", s->name, "units", units));
    return status;
}

/* Adds the divergences to what was found. */
static snrq_status judge(assessment *a, block_work *b)
{
    const snrq_divergence of = {a->context, a->model, &a->ropes, &a->judged, &a->before, a->after};
    const int steps = b->full.block.family->steps, widths = a->widths.count;
    double *kl = NULL;
    SNRQ_TRY(snrq_agree(a->context,
                        snrq_allocate((size_t)(steps * widths), sizeof *kl, "divergences", &kl)));
    snrq_status status = snrq_divergence_measure(&of, b->layer, &b->full, b->quantized, widths, kl);
    for (int s = 0; status == SNRQ_OK && s < steps; s++) {
        json_t *list = json_array();
        for (int w = 0; w < widths; w++)
            json_array_append_new(
                list, json_pack("{s:i, s:f}", "bits", a->widths.bits[w], "kl", kl[s * widths + w]));
        json_object_set_new(json_array_get(b->steps, (size_t)s), "divergence", list);
    }
    free(kl);
    return status;
}

static snrq_status create_quantized(assessment *a, block_work *b)
{
    const snrq_family *f = b->full.block.family;
    snrq_unit_groups *groups = NULL;
    snrq_status status = snrq_allocate((size_t)f->units, sizeof *groups, "groups", &groups);
    for (int u = 0; status == SNRQ_OK && u < f->units; u++)
        groups[u].count = snrq_rule_groups(&a->rule, f->unit[u].columns);
    status = snrq_agree(a->context, status);
    for (int w = 0; status == SNRQ_OK && w < a->widths.count; w++)
        status = snrq_quantized_block_create(a->context, a->model, b->layer, groups, &a->ropes,
                                             &b->quantized[w]);
    free(groups);
    return status;
}

static snrq_status assess_block(assessment *a, block_work *b)
{
    const snrq_family *f = b->full.block.family;
    SNRQ_TRY(create_quantized(a, b));
    snrq_status status = snrq_stream_begin(&a->full, &b->full.block);
    if (status == SNRQ_OK) status = snrq_stream_begin(&a->twin, &b->full.block);
    SNRQ_TRY(snrq_agree(a->context, status));
    for (int s = 0; s < f->steps; s++) SNRQ_TRY(assess_step(a, b, s));
    SNRQ_TRY(judge(a, b));
    return snrq_agree(a->context, snrq_stream_forward(&a->before, &b->full.block));
}

/* Past a block that an earlier start assessed. */
static snrq_status skip_block(assessment *a, const block_work *b)
{
    snrq_status status = snrq_stream_forward(&a->full, &b->full.block);
    if (status == SNRQ_OK) status = snrq_stream_forward(&a->before, &b->full.block);
    if (status == SNRQ_OK) memcpy(a->twin.h, a->full.h, bytes_of(&a->full));
    return snrq_agree(a->context, status);
}

/* ---- files ---- */

static snrq_status block_path(const assessment *a, int64_t layer, char *out, size_t size)
{
    char name[40];
    snprintf(name, sizeof name, "assess-%05lld.json", (long long)layer);
    return snrq_path_join(a->options->output, name, out, size);
}

/* Rank 0: *out NULL if the block has not been assessed with this configuration. */
static snrq_status read_block(const assessment *a, int64_t layer, json_t **out)
{
    char path[PATH_MAX];
    json_t *file = NULL;
    *out = NULL;
    SNRQ_TRY(block_path(a, layer, path, sizeof path));
    if (access(path, F_OK) != 0) return SNRQ_OK;
    SNRQ_TRY(snrq_json_read(path, BLOCK_LIMIT, &file));
    if (json_equal(json_object_get(file, "configuration"), a->configuration)) {
        *out = file;
        return SNRQ_OK;
    }
    json_decref(file);
    return snrq_fail(SNRQ_USAGE,
                     "%s: was made with other options, texts or another model; use another "
                     "directory",
                     path);
}

static snrq_status write_block(const assessment *a, const block_work *b)
{
    char path[PATH_MAX];
    json_t *file = json_pack("{s:O, s:I, s:O}", "configuration", a->configuration, "block",
                             (json_int_t)b->layer, "steps", b->steps);
    char *text = snrq_json_dump(file, JSON_INDENT(1));
    snrq_status status = text != NULL ? block_path(a, b->layer, path, sizeof path)
                                      : snrq_fail(SNRQ_INTERNAL, "no memory for a block's figures");
    if (status == SNRQ_OK) status = snrq_file_replace(path, text, strlen(text));
    free(text);
    json_decref(file);
    return status;
}

/* Is the block there already? All ranks go by rank 0. */
static snrq_status is_done(const assessment *a, int64_t layer, bool *done)
{
    json_t *file = NULL;
    int64_t there = 0;
    snrq_status status = a->context->rank == 0 ? read_block(a, layer, &file) : SNRQ_OK;
    there = file != NULL;
    json_decref(file);
    SNRQ_TRY(snrq_agree(a->context, status));
    SNRQ_TRY(snrq_broadcast(a->context, &there, sizeof there));
    *done = there != 0;
    return SNRQ_OK;
}

static snrq_status process_block(assessment *a, int64_t layer)
{
    block_work b = {.layer = layer, .steps = json_array()};
    bool done = false;
    SNRQ_TRY(is_done(a, layer, &done));
    snrq_status status = snrq_model_load_block(a->context, a->model, layer, &a->ropes, &b.full);
    if (status == SNRQ_OK) status = done ? skip_block(a, &b) : assess_block(a, &b);
    if (status == SNRQ_OK && !done)
        status = snrq_agree(a->context, a->context->rank == 0 ? write_block(a, &b) : SNRQ_OK);
    if (status == SNRQ_OK)
        snrq_note_timed(a->context, "block %lld/%lld  %s", (long long)layer + 1,
                        (long long)a->model->config.layers, done ? "assessed before" : "assessed");
    for (int w = 0; w < a->widths.count; w++) snrq_loaded_block_free(&b.quantized[w]);
    snrq_loaded_block_free(&b.full);
    snrq_coverage_free(&b.coverage);
    json_decref(b.steps);
    return status;
}

/* Rank 0: all blocks in one file, and the text. */
static snrq_status write_whole(const assessment *a)
{
    json_t *blocks = json_array(), *file;
    snrq_status status = SNRQ_OK;
    for (int64_t layer = 0; status == SNRQ_OK && layer < a->model->config.layers; layer++) {
        status = read_block(a, layer, &file);
        if (status != SNRQ_OK) break;
        json_object_del(file, "configuration");
        json_array_append_new(blocks, file);
    }
    json_t *whole = json_pack("{s:s, s:O, s:O, s:o}", "format", "snrq-assessment", "configuration",
                              a->configuration, "uniform", a->uniform, "blocks", blocks);
    if (status == SNRQ_OK) status = snrq_assess_write(a->options->output, whole);
    json_decref(whole);
    return status;
}

static snrq_status assess(assessment *a)
{
    SNRQ_TRY(open_inputs(a));
    SNRQ_TRY(snrq_agree(a->context,
                        a->context->rank == 0 ? snrq_directory_make(a->options->output) : SNRQ_OK));
    bool begun;
    SNRQ_TRY(is_done(a, 0, &begun)); /* or refused, before any work */
    SNRQ_TRY(create_streams(a));
    SNRQ_TRY(run_reference(a));
    SNRQ_TRY(try_all_uniform(a));
    for (int64_t layer = 0; layer < a->model->config.layers; layer++)
        SNRQ_TRY(process_block(a, layer));
    return snrq_agree(a->context, a->context->rank == 0 ? write_whole(a) : SNRQ_OK);
}

snrq_status snrq_assess(const snrq_context *context, const snrq_options *options)
{
    assessment a = {.context = context, .options = options};
    snrq_status status = assess(&a);
    snrq_stream_free(&a.full);
    snrq_stream_free(&a.twin);
    snrq_stream_free(&a.before);
    free(a.after);
    snrq_ropes_free(&a.ropes);
    snrq_windows_free(&a.windows);
    json_decref(a.configuration);
    json_decref(a.uniform);
    snrq_model_close(&a.model);
    return status;
}
