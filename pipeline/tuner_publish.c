/* The files of a model that was tuned; see tuner.h. */
#include <limits.h>
#include <stdlib.h>

#include "io/file.h"
#include "pipeline/model/kept.h"
#include "pipeline/tuner.h"
#include "pipeline/unit.h"

/* A record of the manifest, of a file that was tuned. New reference. */
static json_t *tuned_record(const snrq_tuner *t, const char *name)
{
    static const char *const kept[] = {"block", "modules"};
    const json_t *before = snrq_output_record(t->job->output, name);
    json_t *details = json_pack("{s:b}", "tuned", 1);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        json_t *value = json_object_get(before, kept[i]);
        if (value != NULL) json_object_set(details, kept[i], value);
    }
    return details;
}

static snrq_status prepare_file(snrq_tuner *t, const char *name, json_t *details)
{
    snrq_status status = snrq_output_prepare(t->job->output, name, details);
    json_decref(details);
    return status;
}

/* The modules of a block as they are stored, with this rank's rows and other scales. */
static snrq_status write_block(snrq_tuner *t, int64_t layer, const char *path)
{
    const snrq_job *job = t->job;
    const snrq_family *f = snrq_model_family(job->model, layer);
    char name[32], before[PATH_MAX];
    int count = 0;
    snrq_block_file *file = NULL;
    snrq_module_rows *modules = NULL;
    snrq_block_file_name(layer, name);
    snrq_status status =
        snrq_path_join(snrq_output_directory(job->output), name, before, sizeof before);
    if (status == SNRQ_OK) status = snrq_block_file_open(before, &file);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)f->modules, sizeof *modules, "modules", &modules);
    for (int m = 0; status == SNRQ_OK && m < f->modules; m++) {
        if (snrq_model_keeps(job->model, layer, m)) continue;
        modules[count] = (snrq_module_rows){.record = *snrq_block_file_record(file, count)};
        snrq_unit_fill_rows(t->context, f, m, &t->model.block[layer].block.module[m],
                            &modules[count++]);
    }
    status = snrq_agree(t->context, status);
    if (status == SNRQ_OK) status = snrq_block_file_write(t->context, path, layer, modules, count);
    snrq_block_file_close(&file);
    free(modules);
    return status;
}

static snrq_status prepare_rest(snrq_tuner *t)
{
    const snrq_rest_changes changes = {snrq_tuned_model_norm, &t->model};
    const snrq_job *job = t->job;
    char **names = NULL;
    int count = 0;
    SNRQ_TRY(snrq_agree(t->context, snrq_model_rest_names(job->model, &names, &count)));
    snrq_status status =
        snrq_rest_file_write(t->context, snrq_output_temporary(job->output, "rest.h5"),
                             job->model->tensors, (const char *const *)names, count, &changes);
    free(names);
    if (status != SNRQ_OK) return status;
    json_t *details = tuned_record(t, "rest.h5");
    json_object_set_new(details, "tuning", snrq_tuner_record(t));
    return prepare_file(t, "rest.h5", details);
}

snrq_status snrq_tuner_publish(snrq_tuner *t)
{
    char name[32];
    snrq_timers_enter(&t->job->timers, SNRQ_PHASE_WRITE);
    SNRQ_TRY(snrq_tuned_model_copy(&t->model, SNRQ_TUNED_BEST, SNRQ_TUNED_VALUE));
    SNRQ_TRY(snrq_tuned_model_apply(&t->model));
    for (int64_t l = 0; l < t->model.blocks; l++) {
        snrq_block_file_name(l, name);
        snrq_timers_enter(&t->job->timers, SNRQ_PHASE_WRITE); /* a sign of life */
        SNRQ_TRY(write_block(t, l, snrq_output_temporary(t->job->output, name)));
        SNRQ_TRY(prepare_file(t, name, tuned_record(t, name)));
    }
    SNRQ_TRY(prepare_rest(t));
    return snrq_output_replace(t->job->output);
}
