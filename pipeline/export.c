/* The commands around exports; see export.h. */
#include "pipeline/export.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/directory.h"
#include "io/file.h"
#include "io/json.h"
#include "io/lock.h"
#include "io/staging.h"
#include "io/standard_streams.h"
#include "io/user_output.h"
#include "mpi/collective.h"
#include "mpi/log.h"
#include "pipeline/export/engines.h"
#include "pipeline/export/formats.h"
#include "pipeline/export/gguf.h"
#include "pipeline/export/verify.h"
#include "pipeline/model/findings.h"

enum { WHY = 512 };

static const snrq_export_format formats[] = {
    [SNRQ_FORMAT_GPTQ] = {"gptq", snrq_gptq_possible, .fits = snrq_gptq_fits, .f16_scales = true,
                          .layout = &snrq_gptq_layout},
    [SNRQ_FORMAT_COMPRESSED_TENSORS] = {"compressed-tensors", snrq_compressed_possible,
                                        .fits = snrq_compressed_fits,
                                        .layout = &snrq_compressed_layout},
    [SNRQ_FORMAT_GGUF] = {"gguf", snrq_export_gguf_possible, .fits = snrq_export_gguf_fits,
                          .f16_scales = true, .check_side_files = snrq_export_gguf_check_side_files,
                          .note_side_files = snrq_export_gguf_note_side_files,
                          .write = snrq_export_gguf, .recognize = snrq_export_gguf_is,
                          .verify = snrq_export_gguf_verify, .takes_dense = true},
    [SNRQ_FORMAT_SAFETENSORS] = {"safetensors", snrq_dense_possible, .layout = &snrq_dense_layout},
    [SNRQ_FORMAT_FP8] = {"fp8", snrq_fp8_possible, .fits = snrq_fp8_fits,
                         .layout = &snrq_fp8_layout},
};
_Static_assert(sizeof formats / sizeof *formats == SNRQ_FORMATS, "a row for every choice");

const snrq_export_format *snrq_export_format_of(snrq_format_choice choice)
{
    return &formats[choice];
}

bool snrq_export_format_is(const snrq_export_format *format, const char *directory)
{
    return format->layout != NULL ? snrq_checkpoint_is(directory, format->name)
                                  : format->recognize(directory);
}

static snrq_status write_export(const snrq_context *context, const snrq_export_settings *settings,
                                const snrq_export_format *format, const snrq_model *model,
                                const char *directory)
{
    if (format->layout != NULL)
        return snrq_checkpoint_write(context, settings, model, directory, format->layout);
    return format->write(context, settings, model, directory);
}

static snrq_status compare_export(const snrq_context *context, const snrq_options *options,
                                  const snrq_export_format *format, const snrq_model *model,
                                  int64_t *tensors)
{
    if (format->layout != NULL)
        return snrq_checkpoint_verify(context, model, options->export_path, tensors);
    return format->verify(context, model, options->export_path, tensors);
}

static snrq_status check_possible(const snrq_export_format *format, const snrq_model *model)
{
    char why[WHY] = "";
    SNRQ_TRY(format->possible(model, why, WHY));
    if (why[0] == '\0')
        return format->check_side_files != NULL ? format->check_side_files(model) : SNRQ_OK;
    return snrq_fail(SNRQ_USAGE, "%s cannot be exported to %s: %s", model->path, format->name, why);
}

/* Is this status about the files, rather than about reading them? */
static bool is_verdict(snrq_status status)
{
    return status == SNRQ_BAD_DATA || status == SNRQ_USAGE || status == SNRQ_NO_INPUT;
}

/* why [WHY]: where it is "" so far, it becomes what the format cannot hold beside the weights. */
static snrq_status look_at_side_files(const snrq_export_format *format, const snrq_model *model,
                                      char *why)
{
    if (why[0] != '\0' || format->check_side_files == NULL) return SNRQ_OK;
    snrq_status status = format->check_side_files(model);
    if (!is_verdict(status)) return status;
    snprintf(why, WHY, "%s", snrq_error_message());
    return SNRQ_OK;
}

snrq_status snrq_export_note_side_files(const snrq_model *model)
{
    for (int i = 0; i < SNRQ_FORMATS; i++) {
        char why[WHY] = "";
        SNRQ_TRY(look_at_side_files(&formats[i], model, why));
        if (why[0] != '\0')
            snrq_note_here("%s: an export to %s cannot hold this tokenizer, see the plan; `snrq "
                           "export --tokenizer DIR` takes another one",
                           model->path, formats[i].name);
        else if (formats[i].note_side_files != NULL)
            formats[i].note_side_files(model);
    }
    return SNRQ_OK;
}

snrq_status snrq_export_table(const char *path, json_t **out)
{
    snrq_model *model = NULL;
    *out = json_array();
    snrq_status status = snrq_model_look(path, &model);
    for (int i = 0; i < SNRQ_FORMATS && status == SNRQ_OK; i++) {
        char why[WHY] = "";
        status = formats[i].possible(model, why, WHY);
        if (status == SNRQ_OK) status = look_at_side_files(&formats[i], model, why);
        json_array_append_new(*out,
                              json_pack("{s:s, s:b, s:o}", "format", formats[i].name, "possible",
                                        why[0] == '\0', "why", snrq_json_text(why)));
    }
    snrq_model_close(&model);
    if (status == SNRQ_OK) return SNRQ_OK;
    json_decref(*out);
    *out = NULL;
    return status;
}

/* "", or on what an export of scales of this type depends. */
static const char *condition(const snrq_export_format *format, snrq_dtype type)
{
    if (type == SNRQ_F16 || (format->fits == NULL) || (type == SNRQ_BF16 && !format->f16_scales))
        return "";
    return format->f16_scales ? "if F16 can hold all scales" : "if F16 or BF16 can hold all scales";
}

snrq_status snrq_export_forecast(const snrq_model *model, const snrq_export_facts *planned,
                                 json_t **out)
{
    snrq_status status = SNRQ_OK;
    *out = json_array();
    for (int i = 0; i < SNRQ_FORMATS && status == SNRQ_OK; i++) {
        char why[WHY] = "";
        if (formats[i].fits != NULL) formats[i].fits(model, planned, why, WHY);
        status = look_at_side_files(&formats[i], model, why);
        const bool possible = why[0] == '\0';
        json_array_append_new(
            *out,
            json_pack(
                "{s:s, s:b, s:o}", "format", formats[i].name, "possible", possible, "why",
                snrq_json_text(possible ? condition(&formats[i], planned->scale_type) : why)));
    }
    if (status == SNRQ_OK && json_array_size(*out) != SNRQ_FORMATS)
        status = snrq_fail(SNRQ_INTERNAL, "no memory for the table of exports");
    if (status == SNRQ_OK) return SNRQ_OK;
    json_decref(*out);
    *out = NULL;
    return status;
}

/* why [WHY] <- "", or why the engine loads no such modules in that format, which it reads. */
static void find_why(const snrq_model *model, const snrq_export_facts *planned, int64_t engine,
                     const snrq_export_format *format, char *why)
{
    const snrq_engine_trouble *t;
    int at = 0;
    why[0] = '\0';
    format->fits(model, planned, why, WHY);
    while (why[0] == '\0' &&
           (t = snrq_engine_trouble_next(engine, format->name, planned, &at)) != NULL)
        if (t->fatal)
            snprintf(why, WHY, "%s: %s %s; %s", t->exports, t->versions, t->happens, t->instead);
}

/* Is it a format of quantized modules that the engine reads? */
static bool reads(int64_t engine, const snrq_export_format *format)
{
    return format->fits != NULL && snrq_engine_reads((snrq_engine)engine, format->name);
}

const char *snrq_export_read_name(int64_t engine, snrq_format_choice format)
{
    return reads(engine, &formats[format]) ? formats[format].name : NULL;
}

bool snrq_export_loads(const snrq_model *model, const snrq_export_facts *planned, int64_t engine,
                       snrq_format_choice format)
{
    char why[WHY];
    if (!reads(engine, &formats[format])) return false;
    find_why(model, planned, engine, &formats[format], why);
    return why[0] == '\0';
}

snrq_status snrq_export_check_planned(const snrq_model *model, const snrq_export_facts *planned,
                                      int64_t engine)
{
    const char *name = snrq_engine_name((snrq_engine)engine);
    char first[2 * WHY] = "";
    for (int i = 0; i < SNRQ_FORMATS; i++) {
        char why[WHY];
        if (!reads(engine, &formats[i])) continue;
        find_why(model, planned, engine, &formats[i], why);
        if (why[0] == '\0') return SNRQ_OK;
        if (first[0] == '\0') snprintf(first, sizeof first, "%s: %s", formats[i].name, why);
    }
    return snrq_fail(SNRQ_USAGE, "--for %s: no format that it reads holds modules with %d bits: %s",
                     name, planned->bits, first);
}

static int count_fitting(const snrq_model *model, const snrq_export_facts *planned)
{
    int count = 0;
    for (int i = 0; i < SNRQ_FORMATS; i++) {
        char why[WHY] = "";
        if (formats[i].fits != NULL) formats[i].fits(model, planned, why, WHY);
        count += why[0] == '\0';
    }
    return count;
}

int64_t snrq_export_better_group(const snrq_model *model, const snrq_export_facts *planned)
{
    const int64_t size = planned->group_size;
    int64_t best = 0;
    int most = count_fitting(model, planned);
    if (size == 0 || most == SNRQ_FORMATS) return 0;
    /* Smaller ones first where two are as near. */
    for (int64_t distance = 1; distance < snrq_model_max_columns(model); distance++)
        for (int side = -1; side <= 1; side += 2) {
            snrq_export_facts other = *planned;
            if (size + side * distance < 1) continue;
            snrq_export_facts_set_group(&other, model, size + side * distance);
            const int count = other.group_size > 0 ? count_fitting(model, &other) : 0;
            if (count <= most) continue;
            most = count;
            best = size + side * distance;
        }
    return best;
}

/* Engines. */

static snrq_status refuse_for(const snrq_model *model, const snrq_engine_trouble *t)
{
    return snrq_fail(SNRQ_USAGE, "%s cannot be exported to %s for %s: %s: %s %s; %s", model->path,
                     t->format, snrq_engine_name(t->engine), t->exports, t->versions, t->happens,
                     t->instead);
}

/* Of one kind of modules: refuses what --for cannot load; tells of what other engines, or all, have
 * trouble with. */
static snrq_status check_kind(const snrq_options *o, const snrq_model *model,
                              const snrq_export_facts *facts)
{
    const char *format = formats[o->format].name;
    const snrq_engine_trouble *t;
    int at = 0;
    while ((t = snrq_engine_trouble_next(o->engine, format, facts, &at)) != NULL) {
        if (o->engine >= 0 && t->fatal) return refuse_for(model, t);
        snrq_note_here("%s: %s: %s %s; %s", snrq_engine_name(t->engine), t->exports, t->versions,
                       t->happens, t->instead);
    }
    return SNRQ_OK;
}

static snrq_status check_engines(const snrq_options *o, const snrq_model *model)
{
    const snrq_export_format *format = &formats[o->format];
    snrq_export_mixture mixture;
    if (o->engine >= 0 && !snrq_engine_reads((snrq_engine)o->engine, format->name))
        return snrq_fail(SNRQ_USAGE, "--for %s: it is given %s; it reads: %s",
                         snrq_engine_name((snrq_engine)o->engine), format->name,
                         snrq_engine_formats((snrq_engine)o->engine));
    if (format->layout == NULL || format->layout->describe == NULL) return SNRQ_OK;
    snrq_status status = snrq_export_mixture_read(model, o->fold_zeros != 0, false, &mixture);
    for (int k = 0; status == SNRQ_OK && k < mixture.kinds; k++)
        status = check_kind(o, model, &mixture.kind[k]);
    snrq_export_mixture_free(&mixture);
    return status;
}

/* The directory, on rank 0. */

/* The lock, and what those leave that were killed while they took it, but for snrq.lock.*.tmp,
 * which is a leftover as others. */
static bool is_lock(const char *name)
{
    return strncmp(name, "snrq.lock", 9) == 0 &&
           (strcmp(name, "snrq.lock.tmp") == 0 || !snrq_ends_with(name, ".tmp"));
}

/* What an export that was killed leaves. */
static bool is_leftover(const char *directory, const char *name)
{
    bool is_own = snrq_ends_with(name, SNRQ_STAGING_SUFFIX) ||
                  (strncmp(name, "snrq.lock.", 10) == 0 && snrq_ends_with(name, ".tmp"));
    return is_own && snrq_is_plain_file(directory, name);
}

/* With `leftovers`, those of an export that was killed are removed; anything else is refused. */
static snrq_status check_empty(const char *directory, bool leftovers)
{
    char **names = NULL, path[PATH_MAX];
    int count = 0;
    SNRQ_TRY(snrq_directory_names(directory, &names, &count));
    snrq_status status = SNRQ_OK;
    for (int i = 0; i < count && status == SNRQ_OK; i++) {
        if (is_lock(names[i])) continue;
        if (!is_leftover(directory, names[i]))
            status = snrq_fail(SNRQ_CANNOT_WRITE,
                               "%s: is not empty (%s); choose a new or empty directory", directory,
                               names[i]);
        else if (leftovers)
            status = snrq_path_join(directory, names[i], path, sizeof path);
        if (status == SNRQ_OK && leftovers && unlink(path) != 0)
            status = snrq_fail(SNRQ_CANNOT_WRITE, "%s: an unfinished file cannot be removed", path);
    }
    snrq_names_free(&names, count);
    return status;
}

/* The lock is taken only where there is nothing else. */
static snrq_status claim_directory(const char *directory, snrq_lock **lock)
{
    char path[PATH_MAX];
    SNRQ_TRY(snrq_directory_make(directory));
    SNRQ_TRY(check_empty(directory, false));
    SNRQ_TRY(snrq_path_join(directory, "snrq.lock", path, sizeof path));
    SNRQ_TRY(snrq_lock_take(path, lock));
    return check_empty(directory, true);
}

static snrq_status export_model(const snrq_context *context, const snrq_options *o,
                                const snrq_model *model)
{
    const snrq_export_format *format = &formats[o->format];
    const snrq_export_settings settings = {.max_shard_bytes = o->max_shard_bytes,
                                           .float32 = o->export_float32 != 0,
                                           .embedding_type = (snrq_embedding_type)o->embedding_type,
                                           .fold_zeros = o->fold_zeros != 0,
                                           .coded_head = o->coded_head != 0};
    snrq_lock *lock = NULL;
    bool is_new = access(o->output, F_OK) != 0;
    snrq_status status = context->rank == 0 ? check_possible(format, model) : SNRQ_OK;
    if (status == SNRQ_OK && context->rank == 0) status = check_engines(o, model);
    SNRQ_TRY(snrq_agree(context, status));
    if (context->rank == 0) status = claim_directory(o->output, &lock);
    status = snrq_agree(context, status);
    if (status == SNRQ_OK) status = write_export(context, &settings, format, model, o->output);
    snrq_lock_release(&lock);
    if (status != SNRQ_OK && context->rank == 0 && is_new) rmdir(o->output);
    snrq_barrier(context); /* the lock is gone on every rank */
    return status;
}

/* --tokenizer DIR, on rank 0: without a tokenizer there it would be a mistake. */
static snrq_status check_tokenizer(const snrq_options *o)
{
    char path[PATH_MAX];
    if (o->tokenizer == NULL) return SNRQ_OK;
    SNRQ_TRY(snrq_path_join(o->tokenizer, "tokenizer.json", path, sizeof path));
    if (access(path, R_OK) == 0) return SNRQ_OK;
    return snrq_fail(SNRQ_NO_INPUT,
                     "--tokenizer %s: expected a directory with a tokenizer.json, found none",
                     o->tokenizer);
}

static snrq_status open_source(const snrq_context *context, const snrq_options *o, bool takes_dense,
                               snrq_model **out)
{
    const char *path = o->path;
    SNRQ_TRY(snrq_agree(context, context->rank == 0 ? check_tokenizer(o) : SNRQ_OK));
    SNRQ_TRY(snrq_model_open(context, path, out));
    (*out)->side_path = o->tokenizer;
    if ((*out)->quantized || takes_dense) return SNRQ_OK;
    snrq_model_close(out);
    return snrq_fail(SNRQ_USAGE,
                     "%s: a model that is not quantized; expected an output directory of `snrq "
                     "quantize` (only gguf takes others)",
                     path);
}

snrq_status snrq_export(const snrq_context *context, const snrq_options *o)
{
    snrq_model *model = NULL;
    SNRQ_TRY(
        snrq_agree(context, context->rank == 0 ? snrq_user_directory_check(o->output) : SNRQ_OK));
    SNRQ_TRY(open_source(context, o, formats[o->format].takes_dense, &model));
    snrq_status status = snrq_model_check(context, model, o->ignore_unused_layers, false);
    if (status == SNRQ_OK) status = export_model(context, o, model);
    snrq_model_close(&model);
    if (status != SNRQ_OK) return status;
    return snrq_agree(context, context->rank == 0 ? snrq_print_end(stdout) : SNRQ_OK);
}

/* On rank 0 alone, so that all ranks see the same. */
static snrq_status find_format(const snrq_context *context, const char *directory,
                               const snrq_export_format **out)
{
    int64_t found = -1;
    for (int i = 0; i < SNRQ_FORMATS && context->rank == 0 && found < 0; i++)
        if (snrq_export_format_is(&formats[i], directory)) found = i;
    SNRQ_TRY(snrq_broadcast(context, &found, sizeof found));
    if (found < 0)
        return snrq_fail(SNRQ_NO_INPUT,
                         "%s: holds no export: neither model.gguf nor a config.json that can be "
                         "read, without quantization_config or with a quant_method known here",
                         directory);
    *out = &formats[found];
    return SNRQ_OK;
}

static snrq_status check_export(const snrq_context *context, const snrq_options *o,
                                const snrq_export_format *format, const snrq_model *model)
{
    int64_t tensors = 0;
    SNRQ_TRY(compare_export(context, o, format, model, &tensors));
    if (context->rank != 0) return snrq_agree(context, SNRQ_OK);
    if (o->json)
        printf("{\"ok\":true,\"format\":\"%s\",\"tensors\":%lld}\n", format->name,
               (long long)tensors);
    else
        printf("%s: %s, %lld tensors, all equal to those of %s\n", o->export_path, format->name,
               (long long)tensors, o->path);
    return snrq_agree(context, snrq_print_end(stdout));
}

snrq_status snrq_export_check(const snrq_context *context, const snrq_options *o)
{
    const snrq_export_format *format = NULL;
    snrq_model *model = NULL;
    SNRQ_TRY(find_format(context, o->export_path, &format));
    SNRQ_TRY(open_source(context, o, format->takes_dense, &model));
    snrq_status status = check_export(context, o, format, model);
    snrq_model_close(&model);
    return status;
}
