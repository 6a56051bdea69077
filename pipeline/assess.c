/* What rounding each part of a model costs; see assess.h. */
#include "pipeline/assess.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/checkpoint/reader.h"
#include "io/directory.h"
#include "io/file.h"
#include "io/json.h"
#include "io/user_output.h"
#include "mpi/collective.h"
#include "mpi/log.h"
#include "pipeline/assess/summary.h"
#include "pipeline/assess_block.h"
#include "pipeline/assess_mismatch.h"
#include "pipeline/assess_suggestion.h"
#include "pipeline/assess_uniform.h"
#include "pipeline/model/findings.h"
#include "pipeline/options/text_options.h"
#include "pipeline/phase.h"
#include "pipeline/rounding/statistics.h"
#include "pipeline/rules.h"

enum { BLOCK_LIMIT = 1 << 26, WHOLE_LIMIT = 1 << 28 };

/* ---- inputs ---- */

static snrq_windows part_of(const snrq_windows *all, int64_t first, int64_t count)
{
    snrq_windows part = {.count = count, .length = all->length, .ids = all->ids};
    part.ids += first * all->length;
    part.total_tokens = all->total_tokens;
    part.distinct = count * all->length < all->distinct ? count * all->length : all->distinct;
    return part;
}

/* Windows for H of the calibration text, and judged ones of another. */
static snrq_status make_windows_of_two(snrq_assessment *a, snrq_window_order order)
{
    SNRQ_TRY(snrq_windows_make(a->context, &order, a->model, &a->windows));
    order.texts.count = 1;
    order.texts.path = &a->options->judged_text;
    order.token_file = NULL;
    order.count = a->options->judged_windows;
    order.length = a->windows.length;
    SNRQ_TRY(snrq_windows_make(a->context, &order, a->model, &a->others));
    a->fitted = part_of(&a->windows, 0, a->windows.count);
    a->judged = part_of(&a->others, 0, a->others.count);
    return SNRQ_OK;
}

/* One draw, unless the judged windows are of a text of their own: those that H is of come first. */
static snrq_status make_windows(snrq_assessment *a)
{
    const int64_t judged = a->options->judged_windows;
    snrq_window_order order = snrq_calibration_windows(a->options);
    order.held_out = order.first_tokens = 0;
    if (a->options->judged_text != NULL) return make_windows_of_two(a, order);
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

static snrq_status describe(snrq_assessment *a)
{
    char fingerprint[33];
    const snrq_choices *c = &a->choices;
    json_t *widths = json_array(), *sizes = json_array();
    SNRQ_TRY(snrq_model_fingerprint(a->model, fingerprint));
    for (int w = 0; w < c->widths; w++) json_array_append_new(widths, json_integer(c->bits[w]));
    for (int g = 0; g < c->sizes; g++) json_array_append_new(sizes, json_integer(c->group_size[g]));
    json_t *options = snrq_options_stored(a->options);
    a->configuration =
        json_pack("{s:s, s:o, s:s, s:s, s:I, s:I, s:I, s:o, s:o, s:i}", "version", SNRQ_VERSION,
                  "options", options, "model", fingerprint, "windows", a->windows.fingerprint,
                  "fitted_windows", (json_int_t)a->fitted.count, "judged_windows",
                  (json_int_t)a->judged.count, "length", (json_int_t)a->windows.length, "widths",
                  widths, "group_sizes", sizes, "usual_bits", c->bits[c->usual]);
    json_t *formats = c->formats > 0 ? json_array() : NULL;
    for (int f = 0; f < c->formats; f++)
        json_array_append_new(formats, json_string(c->format[f]->name));
    if (formats != NULL) json_object_set_new(a->configuration, "formats", formats);
    if (a->options->judged_text != NULL)
        json_object_set_new(a->configuration, "judged", json_string(a->others.fingerprint));
    if (a->options->alone_modules != 0)
        json_object_set_new(a->configuration, "alone", json_string("modules"));
    if (a->configuration != NULL) return SNRQ_OK;
    return snrq_fail(SNRQ_INTERNAL, "no memory for the configuration");
}

/* Every module can be of every format, or of its narrow one. */
static snrq_status check_formats(const snrq_assessment *a)
{
    for (int64_t layer = 0; layer < a->model->config.layers; layer++) {
        const snrq_family *f = snrq_model_family(a->model, layer);
        for (int m = 0; m < f->modules; m++) {
            const int64_t columns = f->module[m].columns;
            const snrq_weight_format *unfit = snrq_choices_unfit(&a->choices, columns);
            if (unfit != NULL)
                return snrq_fail(SNRQ_USAGE,
                                 "%s: %s has %lld inputs, and %s has groups of %lld: leave it out "
                                 "of --formats",
                                 a->model->path, f->module[m].name, (long long)columns, unfit->name,
                                 (long long)unfit->group);
        }
    }
    return SNRQ_OK;
}

static snrq_status open_inputs(snrq_assessment *a)
{
    const snrq_options *o = a->options;
    snrq_rules rules = {0};
    SNRQ_TRY(snrq_choices_parse(o->widths_text, o->group_sizes_text, o->group_size, &a->choices));
    SNRQ_TRY(snrq_choices_add_formats(o->formats_text, &a->choices));
    SNRQ_TRY(snrq_model_open(a->context, o->path, &a->model));
    if (a->model->quantized)
        return snrq_fail(SNRQ_USAGE, "%s is quantized already; give the original checkpoint",
                         o->path);
    SNRQ_TRY(snrq_model_check(a->context, a->model, o->ignore_unused_layers, o->strict));
    SNRQ_TRY(snrq_agree(a->context, check_formats(a)));
    SNRQ_TRY(snrq_agree(a->context, snrq_rules_create(o, a->model, &rules)));
    a->rule = *snrq_rules_at(&rules, 0, 0);
    a->rule.bits = a->choices.bits[a->choices.usual];
    a->alone = a->rule;
    a->alone.alpha_mode = SNRQ_ALPHA_FIXED;
    a->alone.alpha_value = a->alone.compensate = 0.0;
    snrq_rules_free(&rules);
    SNRQ_TRY(make_windows(a));
    SNRQ_TRY(snrq_agree(a->context, describe(a)));
    return snrq_agree(a->context,
                      snrq_ropes_create(&a->model->config, a->windows.length, &a->ropes));
}

/* ---- streams ---- */

snrq_divergence snrq_assessment_divergence(const snrq_assessment *a)
{
    return (snrq_divergence){a->context, a->model, &a->ropes, &a->judged,
                             &a->before, a->after, a->watch};
}

size_t snrq_stream_bytes(const snrq_stream *s)
{
    return (size_t)((s->range.end - s->range.begin) * s->tokens * s->hidden) * sizeof *s->h;
}

/* Strengths of alpha sampled, one per sequence. */
static snrq_status sample_alphas(snrq_assessment *a, snrq_range mine)
{
    const snrq_options *o = a->options;
    if (o->alpha_mode != SNRQ_ALPHA_SAMPLED) return SNRQ_OK;
    SNRQ_TRY(snrq_allocate((size_t)(mine.end - mine.begin), sizeof *a->alphas, "sampled alphas",
                           &a->alphas));
    snrq_sampled_alphas(o->alpha_value, (uint64_t)o->seed, mine, a->alphas);
    return SNRQ_OK;
}

static snrq_status create_streams(snrq_assessment *a)
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
        status = snrq_allocate(snrq_stream_bytes(&a->before) + 1, 1, "hidden states", &a->after);
    if (status == SNRQ_OK) status = sample_alphas(a, fitted);
    SNRQ_TRY(snrq_agree(c, status));
    SNRQ_TRY(snrq_model_load_embedding(c, a->model, &embedding));
    snrq_stream_embed(&a->full, &embedding.weight, scale, &a->fitted);
    snrq_stream_embed(&a->before, &embedding.weight, scale, &a->judged);
    snrq_table_free(&embedding);
    memcpy(a->twin.h, a->full.h, snrq_stream_bytes(&a->full));
    return SNRQ_OK;
}

/* The judged windows through all of the model, and back to its beginning. */
static snrq_status run_reference(snrq_assessment *a)
{
    float *start = NULL;
    const size_t bytes = snrq_stream_bytes(&a->before);
    SNRQ_TRY(snrq_agree(a->context, snrq_allocate(bytes + 1, 1, "hidden states", &start)));
    memcpy(start, a->before.h, bytes);
    snrq_status status = SNRQ_OK;
    for (int64_t layer = 0; status == SNRQ_OK && layer < a->model->config.layers; layer++) {
        snrq_loaded_block block = {0};
        status = snrq_watch_check(a->context, a->watch);
        snrq_watch_enter(a->watch, SNRQ_PHASE_READ);
        if (status == SNRQ_OK)
            status = snrq_model_load_block(a->context, a->model, layer, &a->ropes, &block);
        snrq_watch_enter(a->watch, SNRQ_PHASE_FORWARD);
        if (status == SNRQ_OK)
            status = snrq_agree(a->context, snrq_stream_forward(&a->before, &block.block));
        snrq_loaded_block_free(&block);
    }
    memcpy(a->after, a->before.h, bytes);
    memcpy(a->before.h, start, bytes);
    free(start);
    return status;
}

/* ---- a block ---- */

/* Past a block that an earlier start assessed. */
static snrq_status skip_block(snrq_assessment *a, int64_t layer, const snrq_block *full)
{
    snrq_watch_enter(a->watch, SNRQ_PHASE_FORWARD);
    snrq_status status = snrq_stream_forward(&a->full, full);
    if (status == SNRQ_OK) status = snrq_stream_forward(&a->before, full);
    if (status == SNRQ_OK) memcpy(a->twin.h, a->full.h, snrq_stream_bytes(&a->full));
    SNRQ_TRY(snrq_agree(a->context, status));
    return snrq_assess_mismatch_skip(a, layer);
}

/* ---- files ---- */

static snrq_status block_path(const snrq_assessment *a, int64_t layer, char *out, size_t size)
{
    char name[40];
    snprintf(name, sizeof name, "assess-%05lld.json", (long long)layer);
    return snrq_path_join(a->options->output, name, out, size);
}

/* Rank 0: *out NULL if the block has not been assessed with this configuration. */
static snrq_status read_block(const snrq_assessment *a, int64_t layer, json_t **out)
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

/* Adds the configuration to what was found of a block, and writes both. */
static snrq_status write_block(const snrq_assessment *a, int64_t layer, json_t *found)
{
    char path[PATH_MAX];
    json_object_set(found, "configuration", a->configuration);
    char *text = snrq_json_dump(found, JSON_INDENT(1));
    snrq_status status = text != NULL ? block_path(a, layer, path, sizeof path)
                                      : snrq_fail(SNRQ_INTERNAL, "no memory for a block's figures");
    if (status == SNRQ_OK) status = snrq_file_replace(path, text, strlen(text));
    free(text);
    return status;
}

/* Is the block there already? All ranks go by rank 0. */
static snrq_status is_done(const snrq_assessment *a, int64_t layer, bool *done)
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

static snrq_status process_block(snrq_assessment *a, int64_t layer)
{
    snrq_loaded_block full = {0};
    json_t *found = NULL;
    bool done = false;
    SNRQ_TRY(snrq_watch_check(a->context, a->watch));
    SNRQ_TRY(is_done(a, layer, &done));
    snrq_watch_enter(a->watch, SNRQ_PHASE_READ);
    snrq_status status = snrq_model_load_block(a->context, a->model, layer, &a->ropes, &full);
    if (status == SNRQ_OK)
        status =
            done ? skip_block(a, layer, &full.block) : snrq_assess_block(a, layer, &full, &found);
    if (status == SNRQ_OK && !done)
        status =
            snrq_agree(a->context, a->context->rank == 0 ? write_block(a, layer, found) : SNRQ_OK);
    if (status == SNRQ_OK)
        snrq_note_timed(a->context, "block %lld/%lld  %s", (long long)layer + 1,
                        (long long)a->model->config.layers, done ? "assessed before" : "assessed");
    snrq_loaded_block_free(&full);
    json_decref(found);
    return status;
}

/* Is all of it there? All ranks go by rank 0. */
static snrq_status is_complete(const snrq_assessment *a, bool *complete)
{
    char path[PATH_MAX];
    json_t *file = NULL;
    int64_t there = 0;
    snrq_status status = SNRQ_OK;
    if (a->context->rank == 0) {
        status = snrq_path_join(a->options->output, "assessment.json", path, sizeof path);
        if (status == SNRQ_OK && access(path, F_OK) == 0)
            status = snrq_json_read(path, WHOLE_LIMIT, &file);
        there = json_equal(json_object_get(file, "configuration"), a->configuration);
        json_decref(file);
    }
    SNRQ_TRY(snrq_agree(a->context, status));
    SNRQ_TRY(snrq_broadcast(a->context, &there, sizeof there));
    *complete = there != 0;
    return SNRQ_OK;
}

/* Rank 0: *whole <- what assessment.json will hold of the blocks; a new reference. */
static snrq_status join_blocks(const snrq_assessment *a, json_t **whole)
{
    json_t *blocks = json_array(), *file;
    snrq_status status = SNRQ_OK;
    for (int64_t layer = 0; status == SNRQ_OK && layer < a->model->config.layers; layer++) {
        status = read_block(a, layer, &file);
        if (status != SNRQ_OK) break;
        json_object_del(file, "configuration");
        json_array_append_new(blocks, file);
    }
    *whole = json_pack("{s:s, s:O, s:O, s:o*, s:o}", "format", "snrq-assessment", "configuration",
                       a->configuration, "uniform", a->uniform, "alpha",
                       snrq_assess_alpha(a, blocks), "blocks", blocks);
    return status;
}

/* Rank 0: the recipe, then all in one file, and the text. */
static snrq_status write_whole(const snrq_assessment *a)
{
    json_t *whole = NULL, *recipe = NULL, *sizes = NULL;
    snrq_status status = join_blocks(a, &whole);
    if (status == SNRQ_OK) status = snrq_assess_suggest(a, whole, &recipe);
    if (status == SNRQ_OK) status = snrq_assess_sizes(a, recipe, &sizes);
    if (status == SNRQ_OK) {
        json_object_set(whole, "sizes", sizes);
        status = snrq_assess_write(a->options->output, whole,
                                   a->options->command == SNRQ_COMMAND_ASSESS);
    }
    if (status == SNRQ_OK) snrq_assess_tell(a, sizes);
    json_decref(sizes);
    json_decref(recipe);
    json_decref(whole);
    return status;
}

static snrq_status assess(snrq_assessment *a)
{
    SNRQ_TRY(open_inputs(a));
    SNRQ_TRY(snrq_agree(a->context,
                        a->context->rank == 0 ? snrq_directory_make(a->options->output) : SNRQ_OK));
    bool complete, begun;
    SNRQ_TRY(is_done(a, 0, &begun)); /* or refused, before any work */
    SNRQ_TRY(is_complete(a, &complete));
    if (complete) {
        snrq_note(a->context, "%s is assessed already", a->options->path);
        return SNRQ_OK;
    }
    SNRQ_TRY(create_streams(a));
    SNRQ_TRY(run_reference(a));
    SNRQ_TRY(snrq_assess_uniform(a));
    SNRQ_TRY(snrq_agree(a->context, snrq_assess_mismatch_create(a)));
    for (int64_t layer = 0; layer < a->model->config.layers; layer++)
        SNRQ_TRY(process_block(a, layer));
    return snrq_agree(a->context, a->context->rank == 0 ? write_whole(a) : SNRQ_OK);
}

/* What the user is told of a request to stop. Rank 0 looks for the files. */
static snrq_status say_stopped(const snrq_assessment *a)
{
    const int64_t layers = a->model->config.layers;
    char path[PATH_MAX];
    int64_t there = 0;
    while (a->context->rank == 0 && there < layers &&
           block_path(a, there, path, sizeof path) == SNRQ_OK && access(path, F_OK) == 0)
        there++;
    return snrq_fail(SNRQ_STOPPED,
                     "stopped: %s; %lld of %lld blocks are assessed and none is quantized, run the "
                     "same command again to go on",
                     snrq_error_message(), (long long)there, (long long)layers);
}

static snrq_status assess_for(const snrq_context *context, const snrq_options *options,
                              const snrq_watch *watch)
{
    snrq_assessment a = {.context = context, .options = options, .watch = watch};
    snrq_status status = assess(&a);
    if (status == SNRQ_STOPPED && watch != NULL) status = say_stopped(&a);
    snrq_stream_free(&a.full);
    snrq_stream_free(&a.twin);
    snrq_stream_free(&a.before);
    snrq_stream_free(&a.rounded);
    snrq_stream_free(&a.judged_rounded);
    free(a.rounded_path);
    free(a.after);
    free(a.alphas);
    snrq_ropes_free(&a.ropes);
    snrq_windows_free(&a.others);
    snrq_windows_free(&a.windows);
    json_decref(a.configuration);
    json_decref(a.uniform);
    snrq_model_close(&a.model);
    return status;
}

snrq_status snrq_assess(const snrq_context *context, const snrq_options *options)
{
    return assess_for(context, options, NULL);
}

/* Some of the run's windows, no more of the text. */
static int64_t judged_of(int64_t windows)
{
    enum { MOST = 8, SHARE = 4 };
    return windows == 0 || windows / SHARE > MOST ? MOST : windows < SHARE ? 1 : windows / SHARE;
}

snrq_status snrq_assess_for_budget(const snrq_context *context, const snrq_options *options,
                                   const snrq_watch *watch, char *path, size_t size)
{
    char directory[PATH_MAX];
    snrq_options o = {0};
    SNRQ_TRY(snrq_options_copy(options, &o));
    SNRQ_TRY(snrq_path_join(options->output, SNRQ_OWN_ASSESSMENT, directory, sizeof directory));
    o.command = SNRQ_COMMAND_QUANTIZE; /* which prints the summary, too */
    o.output = directory;
    o.widths_text = "2,3,4,8";
    o.group_sizes_text = "auto";
    o.formats_text = options->formats_text;
    o.no_uniform = true;
    o.judged_windows = judged_of(o.sequences);
    if (o.sequences > 0) o.sequences -= o.judged_windows;
    snrq_status status =
        snrq_agree(context, context->rank == 0 ? snrq_directory_make(options->output) : SNRQ_OK);
    if (status == SNRQ_OK) status = assess_for(context, &o, watch);
    if (status == SNRQ_OK) status = snrq_path_join(directory, "assessment.json", path, size);
    return status;
}
