/* The commands around exports; see export.h. */
#include "pipeline/export.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/directory.h"
#include "io/file.h"
#include "io/lock.h"
#include "mpi/collective.h"
#include "pipeline/export/formats.h"
#include "pipeline/export/gguf.h"
#include "pipeline/export/verify.h"

enum { WHY = 512 };

static snrq_status write_gptq(const snrq_context *context, const snrq_export_settings *settings,
                              const snrq_model *model, const char *directory)
{
    return snrq_checkpoint_write(context, settings, model, directory, &snrq_gptq_format);
}

static snrq_status write_compressed(const snrq_context *context,
                                    const snrq_export_settings *settings, const snrq_model *model,
                                    const char *directory)
{
    return snrq_checkpoint_write(context, settings, model, directory, &snrq_compressed_format);
}

static snrq_status write_dense(const snrq_context *context, const snrq_export_settings *settings,
                               const snrq_model *model, const char *directory)
{
    return snrq_checkpoint_write(context, settings, model, directory, &snrq_dense_format);
}

static const snrq_export_format formats[] = {
    [SNRQ_FORMAT_GPTQ] = {"gptq", snrq_gptq_possible, write_gptq, snrq_checkpoint_is,
                          snrq_checkpoint_verify, false},
    [SNRQ_FORMAT_COMPRESSED_TENSORS] = {"compressed-tensors", snrq_compressed_possible,
                                        write_compressed, snrq_checkpoint_is,
                                        snrq_checkpoint_verify, false},
    [SNRQ_FORMAT_GGUF] = {"gguf", snrq_export_gguf_possible, snrq_export_gguf, snrq_export_gguf_is,
                          snrq_export_gguf_verify, true},
    [SNRQ_FORMAT_SAFETENSORS] = {"safetensors", snrq_dense_possible, write_dense,
                                 snrq_checkpoint_is, snrq_checkpoint_verify, false},
};
enum { FORMATS = sizeof formats / sizeof *formats };

static snrq_status check_possible(const snrq_export_format *format, const snrq_model *model)
{
    char why[WHY] = "";
    SNRQ_TRY(format->possible(model, why, WHY));
    if (why[0] == '\0') return SNRQ_OK;
    return snrq_fail(SNRQ_USAGE, "%s cannot be exported to %s: %s", model->path, format->name, why);
}

snrq_status snrq_export_table(const snrq_context *context, const char *path, json_t **out)
{
    snrq_model *model = NULL;
    *out = json_array();
    snrq_status status = snrq_model_look(context, path, &model);
    for (int i = 0; i < FORMATS && status == SNRQ_OK; i++) {
        char why[WHY] = "";
        status = formats[i].possible(model, why, WHY);
        json_array_append_new(*out, json_pack("{s:s, s:b, s:s}", "format", formats[i].name,
                                              "possible", why[0] == '\0', "why", why));
    }
    snrq_model_close(&model);
    if (status == SNRQ_OK) return SNRQ_OK;
    json_decref(*out);
    *out = NULL;
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

/* With `leftovers`, *.tmp files of an export that was killed are removed; anything else is refused.
 */
static snrq_status check_empty(const char *directory, bool leftovers)
{
    char **names = NULL, path[PATH_MAX];
    int count = 0;
    SNRQ_TRY(snrq_directory_names(directory, &names, &count));
    snrq_status status = SNRQ_OK;
    for (int i = 0; i < count && status == SNRQ_OK; i++) {
        if (is_lock(names[i])) continue;
        if (!snrq_ends_with(names[i], ".tmp") || !snrq_is_plain_file(directory, names[i]))
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
                                           .embedding_type =
                                               (snrq_embedding_type)o->embedding_type};
    snrq_lock *lock = NULL;
    bool is_new = access(o->output, F_OK) != 0;
    snrq_status status = context->rank == 0 ? check_possible(format, model) : SNRQ_OK;
    SNRQ_TRY(snrq_agree(context, status));
    if (context->rank == 0) status = claim_directory(o->output, &lock);
    status = snrq_agree(context, status);
    if (status == SNRQ_OK) status = format->write(context, &settings, model, o->output);
    snrq_lock_release(&lock);
    if (status != SNRQ_OK && context->rank == 0 && is_new) rmdir(o->output);
    snrq_barrier(context); /* the lock is gone on every rank */
    return status;
}

static snrq_status open_source(const snrq_context *context, const char *path, bool takes_dense,
                               snrq_model **out)
{
    SNRQ_TRY(snrq_model_open(context, path, out));
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
    SNRQ_TRY(open_source(context, o->path, formats[o->format].takes_dense, &model));
    snrq_status status = export_model(context, o, model);
    snrq_model_close(&model);
    return status;
}

/* On rank 0 alone, so that all ranks see the same. */
static snrq_status find_format(const snrq_context *context, const char *directory,
                               const snrq_export_format **out)
{
    int64_t found = -1;
    for (int i = 0; i < FORMATS && context->rank == 0 && found < 0; i++)
        if (formats[i].recognize(directory, formats[i].name)) found = i;
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
    SNRQ_TRY(format->verify(context, model, o->export_path, &tensors));
    if (context->rank == 0 && o->json)
        printf("{\"ok\":true,\"format\":\"%s\",\"tensors\":%lld}\n", format->name,
               (long long)tensors);
    else if (context->rank == 0)
        printf("%s: %s, %lld tensors, all equal to those of %s\n", o->export_path, format->name,
               (long long)tensors, o->path);
    fflush(stdout);
    return SNRQ_OK;
}

snrq_status snrq_export_check(const snrq_context *context, const snrq_options *o)
{
    const snrq_export_format *format = NULL;
    snrq_model *model = NULL;
    SNRQ_TRY(find_format(context, o->export_path, &format));
    SNRQ_TRY(open_source(context, o->path, format->takes_dense, &model));
    snrq_status status = check_export(context, o, format, model);
    snrq_model_close(&model);
    return status;
}
