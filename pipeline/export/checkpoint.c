/* Transformers directories; see checkpoint.h. */
#include "pipeline/export/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/checkpoint/output.h"
#include "io/checkpoint/reader.h"
#include "io/checkpoint/side_files.h"
#include "io/directory.h"
#include "io/file.h"
#include "io/json.h"
#include "io/pieces.h"
#include "mpi/log.h"
#include "mpi/timers.h"
#include "pipeline/export/side.h"
#include "pipeline/model/kept.h"

enum { UNIT_ROWS = 32, UNIT_BYTES = 64 << 20, COPY_BYTES = 16 << 20, JSON_LIMIT = 1 << 24 };

/* A piece of work: rows of a module, or of a tensor that is copied. */
typedef struct unit {
    int64_t layer;             /* -1: the head */
    int module;                /* in its block, or in tables.h5; -1: a copied tensor */
    int64_t record;            /* its place in the mixture */
    const snrq_tensor *tensor; /* borrowed from the model */
    int first;                 /* number of the (first) tensor written */
    snrq_range rows;
    int rank; /* who does it */
} unit;

typedef struct work {
    const snrq_context *context;
    const snrq_checkpoint_layout *layout;
    snrq_export_job job;
    snrq_export_mixture mixture;
    int64_t next; /* module of the mixture */
    unit *units;  /* [count] */
    int64_t count;
    size_t capacity;
    uint64_t *load; /* [ranks] bytes dealt out */
} work;

int64_t snrq_export_groups(const snrq_export_facts *f, int64_t columns)
{
    return f->group_size == 0 ? 1 : (columns + f->group_size - 1) / f->group_size;
}

snrq_dtype snrq_export_model_type(const snrq_model *model, snrq_dtype scales)
{
    return model->config.dtype == SNRQ_F32 ? SNRQ_F32 : scales;
}

void snrq_export_narrow(snrq_dtype type, const float *values, size_t count, void *out)
{
    uint16_t *halves = out;
    if (type == SNRQ_F32) memcpy(out, values, count * sizeof *values);
    for (size_t i = 0; type == SNRQ_F16 && i < count; i++) halves[i] = snrq_float_to_f16(values[i]);
    for (size_t i = 0; type == SNRQ_BF16 && i < count; i++)
        halves[i] = snrq_float_to_bf16(values[i]);
}

snrq_status snrq_export_add(const snrq_export_job *job, const char *module, const char *tensor,
                            const char *dtype, int dimensions, int64_t first, int64_t second,
                            int *index)
{
    char name[256];
    const int64_t shape[2] = {first, second};
    snprintf(name, sizeof name, "%s.%s", module, tensor);
    return snrq_shards_add(job->shards, name, dtype, dimensions, shape, index);
}

/* Gives a piece of `bytes` bytes to the rank that has least. */
static snrq_status deal(work *w, unit piece, uint64_t bytes)
{
    SNRQ_TRY(
        snrq_grow((size_t)w->count + 1, sizeof *w->units, "list of work", &w->units, &w->capacity));
    for (int r = 1; r < w->context->size; r++)
        if (w->load[r] < w->load[piece.rank]) piece.rank = r;
    w->load[piece.rank] += bytes;
    w->units[w->count++] = piece;
    return SNRQ_OK;
}

/* Deals out `rows` rows in pieces. */
static snrq_status deal_rows(work *w, unit piece, int64_t rows, uint64_t row_bytes, bool whole)
{
    snrq_pieces p =
        snrq_pieces_of((snrq_range){0, rows}, row_bytes, UNIT_BYTES, whole ? rows : UNIT_ROWS);
    while (snrq_pieces_next(&p)) {
        piece.rows = p.piece;
        SNRQ_TRY(deal(w, piece, (uint64_t)(p.piece.end - p.piece.begin) * row_bytes));
    }
    return SNRQ_OK;
}

/* The job with the settings of one module. */
static snrq_export_job job_of(const work *w, int64_t record)
{
    snrq_export_job own = w->job;
    own.facts = w->mixture.kind[w->mixture.kind_of[record]];
    return own;
}

static snrq_status add_module(work *w, int64_t layer, int index)
{
    const snrq_module_shape *s = &snrq_model_family(w->job.model, layer)->module[index];
    unit piece = {.layer = layer, .module = index, .record = w->next};
    char name[256];
    if (snrq_model_keeps(w->job.model, layer, index)) return SNRQ_OK; /* copied as it is */
    snrq_module_name(layer, s->name, name, sizeof name);
    const snrq_export_job own = job_of(w, w->next++);
    SNRQ_TRY(w->layout->add(&own, name, s->rows, s->columns, &piece.first));
    return deal_rows(w, piece, s->rows, (uint64_t)s->columns, w->layout->whole_modules);
}

static snrq_status add_copy(work *w, const char *name)
{
    const snrq_tensor *t = snrq_rest_file_find(w->job.model->rest, name);
    unit piece = {.module = -1, .tensor = t};
    if (t == NULL) return snrq_fail(SNRQ_BAD_DATA, "%s: no tensor %s", w->job.model->path, name);
    SNRQ_TRY(snrq_shards_add(w->job.shards, name, t->dtype, t->dimensions, t->shape, &piece.first));
    return deal_rows(w, piece, t->shape[0], t->bytes / (uint64_t)t->shape[0], false);
}

/* The head as codes. */
static snrq_status add_head(work *w)
{
    const int64_t record = w->mixture.blocks;
    const snrq_module_record *r = &w->mixture.module[record];
    const snrq_export_job own = job_of(w, record);
    unit piece = {.layer = -1, .module = w->mixture.head, .record = record};
    SNRQ_TRY(w->layout->add(&own, r->name, r->rows, r->columns, &piece.first));
    return deal_rows(w, piece, r->rows, (uint64_t)r->columns, w->layout->whole_modules);
}

static bool is_of_layer(const char *name, int64_t layer)
{
    char start[64];
    snrq_module_name(layer, "", start, sizeof start);
    return strncmp(name, start, strlen(start)) == 0;
}

/* All tensors in the order in which a model uses them: embedding, blocks, last norm, head. */
static snrq_status add_tensors(work *w, char *const *names, int count)
{
    const snrq_model *m = w->job.model;
    int next = 0; /* blocks come in order */
    while (next < count && !is_of_layer(names[next], 0)) next++;
    const int outside = next;
    SNRQ_TRY(add_copy(w, names[0]));
    for (int64_t layer = 0; layer < m->config.layers; layer++) {
        const int modules = snrq_model_family(m, layer)->modules;
        for (int i = 0; i < modules; i++) SNRQ_TRY(add_module(w, layer, i));
        for (; next < count && is_of_layer(names[next], layer); next++)
            SNRQ_TRY(add_copy(w, names[next]));
    }
    const bool head = w->mixture.count > w->mixture.blocks; /* the last of those outside */
    for (int i = 1; i < outside - head; i++) SNRQ_TRY(add_copy(w, names[i]));
    if (head) SNRQ_TRY(add_head(w));
    return SNRQ_OK;
}

static snrq_status plan(work *w, const snrq_export_settings *settings)
{
    char **names = NULL;
    int count = 0;
    SNRQ_TRY(snrq_export_mixture_read(w->job.model, settings->fold_zeros, settings->coded_head,
                                      &w->mixture));
    w->job.mixture = &w->mixture;
    w->job.facts = w->mixture.kind[w->mixture.usual];
    SNRQ_TRY(w->layout->settle(&w->job, settings));
    SNRQ_TRY(snrq_shards_create(w->context, settings->max_shard_bytes, &w->job.shards));
    SNRQ_TRY(snrq_allocate((size_t)w->context->size, sizeof *w->load, "loads", &w->load));
    SNRQ_TRY(snrq_model_rest_names(w->job.model, &names, &count));
    snrq_status status = add_tensors(w, names, count);
    free(names);
    return status;
}

/* Writing. */

/* A reader that casts this tensor to the type that config.json will name must not get infinities.
 */
static snrq_status check_range(const work *w, const unit *u, const unsigned char *data,
                               uint64_t bytes)
{
    const snrq_dtype stored = w->job.model->config.dtype;
    enum { SOME = 1024 };
    float values[SOME];
    size_t size = (size_t)u->tensor->element_bits / 8;
    if (w->job.model_type != SNRQ_F16 || stored == SNRQ_F16 || strcmp(u->tensor->dtype, "F16") == 0)
        return SNRQ_OK;
    snrq_dtype type = size == 4 ? SNRQ_F32 : SNRQ_BF16;
    for (uint64_t at = 0; at < bytes; at += SOME * size) {
        size_t count = (bytes - at < SOME * size ? (size_t)(bytes - at) : SOME * size) / size;
        snrq_widen(type, data + at, count, values);
        for (size_t i = 0; i < count; i++)
            if (isfinite(values[i]) && !isfinite(snrq_round_to(SNRQ_F16, values[i])))
                return snrq_fail(SNRQ_BAD_DATA,
                                 "%s holds %g, too large for float16, which engines would cast it "
                                 "to because the scales are F16; quantize with --scale-type bf16 "
                                 "and export to compressed-tensors",
                                 u->tensor->name, (double)values[i]);
    }
    return SNRQ_OK;
}

static snrq_status copy_rows(const work *w, const unit *u)
{
    uint64_t row_bytes = u->tensor->bytes / (uint64_t)u->tensor->shape[0];
    snrq_pieces p = snrq_pieces_of(u->rows, row_bytes, COPY_BYTES, 1);
    unsigned char *data = NULL;
    SNRQ_TRY(snrq_allocate((size_t)p.most, row_bytes, "rows to copy", &data));
    snrq_status status = SNRQ_OK;
    while (status == SNRQ_OK && snrq_pieces_next(&p)) {
        uint64_t at = (uint64_t)p.piece.begin * row_bytes;
        uint64_t bytes = (uint64_t)(p.piece.end - p.piece.begin) * row_bytes;
        status = snrq_rest_file_read(w->job.model->rest, u->tensor, at, bytes, data);
        if (status == SNRQ_OK) status = check_range(w, u, data, bytes);
        if (status == SNRQ_OK)
            status = snrq_shards_write(w->job.shards, u->first, at, data, (size_t)bytes);
    }
    free(data);
    return status;
}

/* Of the manifest and of the file. */
static bool same_settings(const snrq_module_record *a, const snrq_module_record *b)
{
    return a->bits == b->bits && a->symmetric == b->symmetric && a->groups == b->groups &&
           a->group_size == b->group_size && a->permuted_groups == b->permuted_groups &&
           a->scale_type == b->scale_type;
}

static snrq_status write_rows(const work *w, const unit *u)
{
    snrq_export_module module;
    const snrq_export_job own = job_of(w, u->record);
    SNRQ_TRY(snrq_export_module_open(w->job.model, u->layer, u->module, &module));
    snrq_status status = SNRQ_OK;
    if (!same_settings(&w->mixture.module[u->record], module.record))
        status = snrq_fail(SNRQ_BAD_DATA, "%s: %s is not what the manifest says",
                           w->job.model->path, module.record->name);
    if (own.facts.symmetric && !module.record->symmetric) module.folded_bits = own.facts.bits;
    if (status == SNRQ_OK) status = w->layout->write(&own, &module, u->rows, u->first);
    snrq_export_module_close(&module);
    return status;
}

static snrq_status write_own_units(const work *w)
{
    for (int64_t i = 0; i < w->count; i++) {
        const unit *u = &w->units[i];
        if (u->rank == w->context->rank)
            SNRQ_TRY(u->module < 0 ? copy_rows(w, u) : write_rows(w, u));
    }
    return SNRQ_OK;
}

/* The small files. */

static snrq_status put_json(snrq_staging *staging, const char *name, const json_t *value)
{
    char *text = snrq_json_dump(value, JSON_INDENT(2));
    if (text == NULL) return snrq_fail(SNRQ_INTERNAL, "%s cannot be composed: no memory", name);
    snrq_status status = snrq_staging_put(staging, name, text, strlen(text));
    free(text);
    return status;
}

static snrq_status copy_file(const char *from, const char *name, const char *directory,
                             snrq_staging *staging)
{
    enum { LIMIT = 1 << 30 };
    char path[PATH_MAX], *data = NULL;
    size_t bytes = 0;
    if (strchr(name, '/') != NULL) {
        SNRQ_TRY(snrq_path_join(directory, SNRQ_CHAT_TEMPLATES, path, sizeof path));
        SNRQ_TRY(snrq_directory_make(path));
    }
    SNRQ_TRY(snrq_path_join(from, name, path, sizeof path));
    SNRQ_TRY(snrq_file_read(path, LIMIT, &data, &bytes));
    snrq_status status = snrq_staging_put(staging, name, data, bytes);
    free(data);
    return status;
}

static snrq_status copy_side_files(const snrq_model *m, const char *directory,
                                   snrq_staging *staging)
{
    snrq_export_side side = {0};
    snrq_status status = snrq_export_side_open(m, &side);
    for (int i = 0; i < side.count && status == SNRQ_OK; i++)
        status = copy_file(side.from[i], side.names[i], directory, staging);
    snrq_export_side_close(&side);
    return status;
}

static const char *torch_name(snrq_dtype type)
{
    return type == SNRQ_F32 ? "float32" : type == SNRQ_F16 ? "float16" : "bfloat16";
}

/* The settings of rope as transformers 4 reads them, beside those of transformers 5. */
static void add_older_rope(json_t *config)
{
    json_t *rope = json_object_get(config, "rope_parameters");
    json_t *theta = json_object_get(rope, "rope_theta");
    const char *type = json_string_value(json_object_get(rope, "rope_type"));
    if (theta == NULL || json_object_get(config, "rope_theta") != NULL) return;
    json_object_set(config, "rope_theta", theta);
    if (type != NULL && strcmp(type, "default") != 0) json_object_set(config, "rope_scaling", rope);
}

/* config.json as it was, with the type that the numbers need and what the format adds. Without
 * auto_map: it names files with code that are not here, and transformers has the model itself. */
static snrq_status put_config(const work *w, const json_t *description, snrq_staging *staging)
{
    char path[PATH_MAX];
    json_t *config = NULL;
    SNRQ_TRY(snrq_path_join(w->job.model->path, "config.json", path, sizeof path));
    SNRQ_TRY(snrq_json_read(path, JSON_LIMIT, &config));
    bool newer = json_object_get(config, "dtype") != NULL; /* transformers 5 */
    json_object_del(config, "auto_map");
    add_older_rope(config);
    if (newer) json_object_set_new(config, "dtype", json_string(torch_name(w->job.model_type)));
    if (!newer || json_object_get(config, "torch_dtype") != NULL)
        json_object_set_new(config, "torch_dtype", json_string(torch_name(w->job.model_type)));
    json_object_del(config, "quantization_config"); /* of a source in FP8 */
    if (description != NULL) json_object_set(config, "quantization_config", (json_t *)description);
    snrq_status status = put_json(staging, "config.json", config);
    json_decref(config);
    return status;
}

/* --damp of the run, for readers that show it. */
static snrq_status damping_of(const snrq_model *m, double *damp)
{
    snrq_output_facts facts;
    snrq_status status = snrq_output_read(m->path, &facts);
    const json_t *options = json_object_get(facts.configuration, "options");
    *damp = json_number_value(json_object_get(options, "damp"));
    snrq_output_facts_free(&facts);
    return status;
}

/* Rank 0. The tokenizer's files, then what makes a directory a checkpoint. */
static snrq_status put_small_files(const work *w, const char *directory, snrq_staging *staging)
{
    json_t *description = NULL;
    double damp = 0.0;
    snrq_status status = SNRQ_OK;
    if (w->layout->describe != NULL) status = damping_of(w->job.model, &damp);
    if (w->layout->describe != NULL && status == SNRQ_OK)
        description = w->layout->describe(&w->job, damp);
    if (w->layout->describe != NULL && status == SNRQ_OK && description == NULL)
        status = snrq_fail(SNRQ_INTERNAL, "no memory for the quantization_config");
    if (status == SNRQ_OK) status = copy_side_files(w->job.model, directory, staging);
    if (status == SNRQ_OK && w->layout->description_file != NULL)
        status = put_json(staging, w->layout->description_file, description);
    if (status == SNRQ_OK) status = put_config(w, description, staging);
    if (status == SNRQ_OK) status = snrq_shards_put_index(w->job.shards);
    json_decref(description);
    return status;
}

static snrq_status write_directory(work *w, const char *directory, snrq_staging *staging)
{
    const snrq_context *c = w->context;
    SNRQ_TRY(snrq_shards_begin(w->job.shards, staging));
    SNRQ_TRY(snrq_agree(c, write_own_units(w)));
    SNRQ_TRY(snrq_shards_finish(w->job.shards));
    SNRQ_TRY(snrq_agree(c, c->rank == 0 ? put_small_files(w, directory, staging) : SNRQ_OK));
    return snrq_staging_publish(staging);
}

/* Engines compute in the type that config.json names. */
static void warn_of_range(const work *w, const char *directory)
{
    const double safe = 65504.0 / 2; /* float16 ends at 65504 */
    const double largest = w->job.facts.largest_activation;
    if (w->job.model_type != SNRQ_F16 || largest <= safe) return;
    snrq_note(
        w->context,
        "%s: config.json names float16, which ends at 65504, and activations of %.4g were seen "
        "in the calibration: run it in bfloat16 (many engines: --dtype bfloat16), or quantize "
        "with --scale-type bf16 and export to compressed-tensors",
        directory, largest);
}

static void report(const work *w, const char *directory, double seconds)
{
    double bytes = (double)snrq_shards_bytes(w->job.shards);
    snrq_note(w->context, "%s: %s, %.1f MB in %d file(s), %.1f s, %.0f MB/s", directory,
              w->layout->name, bytes / 1e6, snrq_shards_files(w->job.shards), seconds,
              bytes / 1e6 / (seconds > 0 ? seconds : 1));
    if (w->job.model_type != w->job.model->config.dtype)
        snrq_note(w->context,
                  "config.json names %s instead of %s: engines cast to that type, and these %s "
                  "need it",
                  torch_name(w->job.model_type), torch_name(w->job.model->config.dtype),
                  w->layout->describe != NULL ? "scales" : "weights");
    warn_of_range(w, directory);
}

snrq_status snrq_checkpoint_write(const snrq_context *context, const snrq_export_settings *settings,
                                  const snrq_model *model, const char *directory,
                                  const snrq_checkpoint_layout *layout)
{
    work w = {.context = context, .layout = layout, .job = {.model = model}};
    snrq_staging *staging = NULL;
    double started = snrq_now();
    snrq_status status = plan(&w, settings);
    if (status == SNRQ_OK) status = snrq_staging_create(context, directory, &staging);
    status = snrq_agree(context, status);
    if (status == SNRQ_OK) status = write_directory(&w, directory, staging);
    snrq_staging_destroy(&staging);
    if (status == SNRQ_OK) report(&w, directory, snrq_now() - started);
    snrq_export_mixture_free(&w.mixture);
    snrq_shards_destroy(&w.job.shards);
    free(w.units);
    free(w.load);
    return status;
}
