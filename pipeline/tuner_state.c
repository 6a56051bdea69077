/* Where tuning is, for a run that resumes; see tuner.h. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/checkpoint/manifest.h"
#include "io/checkpoint/tuning_file.h"
#include "io/file.h"
#include "io/json.h"
#include "mpi/log.h"
#include "pipeline/tuner.h"

json_t *snrq_tuner_record(const snrq_tuner *t)
{
    return json_pack("{s:I, s:I, s:O}", "epochs", (json_int_t)t->epoch, "best", (json_int_t)t->best,
                     "kl", t->history);
}

int64_t snrq_tuner_begun(const snrq_tuner *t, int64_t *worse)
{
    double best = 0.0;
    int64_t begun = 0, count = 0;
    for (size_t e = 0; e < json_array_size(t->history); e++) {
        const json_t *entry = json_array_get(t->history, e);
        const double found = json_number_value(json_object_get(entry, "held_out"));
        if (e == 0 || found < best) {
            best = found;
            continue;
        }
        begun = (int64_t)e;
        count++;
    }
    if (worse != NULL) *worse = count;
    return begun;
}

/* What the state of a run that resumes must belong to: the records of all files. */
static snrq_status fingerprint(const snrq_tuner *t, char out[33])
{
    json_t *list = json_array();
    char name[32] = "rest.h5";
    for (int64_t l = -1; l < t->model.blocks; l++) {
        if (l >= 0) snrq_block_file_name(l, name);
        const json_t *hash = json_object_get(snrq_output_record(t->job->output, name), "xxh3");
        json_array_append(list, (json_t *)hash);
    }
    json_t *all = json_pack("{s:o}", "files", list);
    snrq_status status = all != NULL ? snrq_fingerprint(all, out)
                                     : snrq_fail(SNRQ_INTERNAL, "no memory for records");
    json_decref(all);
    return status;
}

snrq_status snrq_tuner_put(snrq_tuner *t)
{
    const char *path = snrq_output_temporary(t->job->output, SNRQ_TUNING_FILE);
    snrq_tuning_facts facts = {.epoch = t->epoch, .best = t->best, .rows = t->model.rows};
    json_t *record = snrq_tuner_record(t);
    char *history = NULL;
    snrq_status status = snrq_canonical(record, &history);
    if (status == SNRQ_OK) status = fingerprint(t, facts.records);
    json_decref(record);
    facts.history = history;
    status = snrq_agree(t->context, status);
    if (status == SNRQ_OK)
        status = snrq_tuning_file_write(t->context, path, &facts, t->model.of[0]);
    if (status == SNRQ_OK) status = snrq_output_put_tuning(t->job->output);
    free(history);
    return status;
}

/* What was recorded, which must be of as many epochs. */
static snrq_status read_history(snrq_tuner *t, const char *path, const snrq_tuning_facts *facts)
{
    json_t *record = NULL;
    SNRQ_TRY(snrq_json_parse(path, facts->history, strlen(facts->history), &record));
    json_t *history = json_incref(json_object_get(record, "kl"));
    json_decref(record);
    const json_t *best = json_array_get(history, (size_t)facts->best);
    if (facts->epoch < 0 || facts->epoch > t->epochs || facts->best < 0 ||
        (int64_t)json_array_size(history) != facts->epoch + 1 || best == NULL) {
        json_decref(history);
        return snrq_fail(SNRQ_BAD_DATA, "%s: its records are not those of its epochs", path);
    }
    json_decref(t->history);
    t->history = history;
    t->epoch = facts->epoch;
    t->best = facts->best;
    t->best_kl = json_number_value(json_object_get(best, "held_out"));
    return SNRQ_OK;
}

static snrq_status read_state(snrq_tuner *t, const char *path)
{
    snrq_tuning_facts facts = {.rows = t->model.rows};
    char *history = NULL;
    float *numbers = t->model.of[0];
    snrq_status status = fingerprint(t, facts.records);
    if (status == SNRQ_OK)
        status = snrq_tuning_file_read(t->context, path, &facts, &history, numbers);
    status = snrq_agree(t->context, status);
    if (status == SNRQ_OK) status = snrq_node_memory_sync(t->context, t->model.memory);
    if (status == SNRQ_OK && t->context->node_rank == 0)
        status = snrq_tuning_file_check(path, t->model.rows, numbers);
    status = snrq_agree(t->context, status);
    if (status == SNRQ_OK) status = snrq_agree(t->context, read_history(t, path, &facts));
    free(history);
    SNRQ_TRY(status);
    const int64_t begun = snrq_tuner_begun(t, NULL);
    for (int64_t k = begun * t->batches; k < t->epoch * t->batches; k++)
        snrq_adam_advance(&t->adam);
    return snrq_tuned_model_apply(&t->model);
}

snrq_status snrq_tuner_resume(snrq_tuner *t, bool *resumed)
{
    char path[PATH_MAX];
    int64_t there = 0;
    *resumed = false;
    snrq_status status =
        snrq_path_join(snrq_output_directory(t->job->output), SNRQ_TUNING_FILE, path, sizeof path);
    if (status == SNRQ_OK && t->context->rank == 0) there = access(path, F_OK) == 0;
    SNRQ_TRY(snrq_agree(t->context, status));
    SNRQ_TRY(snrq_broadcast(t->context, &there, sizeof there));
    if (!there) return SNRQ_OK;
    status = read_state(t, path);
    if (status == SNRQ_BAD_DATA) {
        snrq_note_timed(t->context, "note: %s; tuning begins again", snrq_error_message());
        return snrq_tuned_model_reset(&t->model);
    }
    *resumed = status == SNRQ_OK;
    if (*resumed)
        snrq_note_timed(t->context, "tuning goes on after epoch %lld of %lld", (long long)t->epoch,
                        (long long)t->epochs);
    return status;
}
