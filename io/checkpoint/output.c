/* Opening an output directory and committing files to it; see output.h.
 *
 * Rank 0 alone touches the directory's own files; what it decides is agreed, and its records go to
 * all ranks as text.
 */
#include "io/checkpoint/output.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "io/checkpoint/configuration.h"
#include "io/checkpoint/manifest.h"
#include "io/checkpoint/output_internal.h"
#include "io/checkpoint/reader.h"
#include "io/checkpoint/side_files.h"
#include "io/directory.h"
#include "io/file.h"
#include "io/json.h"
#include "mpi/collective.h"
#include "mpi/log.h"

/* Gives rank 0's *text to all ranks; there it is allocated. The callers free it. */
static snrq_status share_text(const snrq_context *context, char **text)
{
    int64_t length = context->rank == 0 ? (int64_t)strlen(*text) : 0;
    SNRQ_TRY(snrq_broadcast(context, &length, sizeof length));
    snrq_status status = SNRQ_OK;
    if (context->rank != 0) status = snrq_allocate((size_t)length + 1, 1, "shared text", text);
    SNRQ_TRY(snrq_agree(context, status));
    return snrq_broadcast(context, *text, (size_t)length);
}

static snrq_status own_path(const snrq_output *output, const char *name, char path[PATH_MAX])
{
    return snrq_path_join(output->directory, name, path, PATH_MAX);
}

/* Opening, on rank 0. */

/* A directory without snrq.json must be empty, but for what a run that was killed at once leaves
 * behind. */
static snrq_status check_is_ours(const char *directory)
{
    char foreign[NAME_MAX + 1];
    if (snrq_output_is(directory)) return SNRQ_OK;
    SNRQ_TRY(snrq_output_find_foreign(directory, foreign));
    if (foreign[0] == '\0') return SNRQ_OK;
    return snrq_fail(SNRQ_CANNOT_WRITE,
                     "%s: is not empty (%s) and no output of snrq: it holds no snrq.json; choose a "
                     "new or empty directory",
                     directory, foreign);
}

/* Cuts off the torn last line of the manifest. */
static snrq_status cut_manifest(const snrq_output *output, size_t used, size_t torn)
{
    char path[PATH_MAX];
    SNRQ_TRY(own_path(output, "manifest.jsonl", path));
    if (truncate(path, (off_t)used) != 0)
        return snrq_fail(SNRQ_IO_ERROR, "%s: cannot be cut: %s", path, strerror(errno));
    snrq_note_here("%s: dropped %zu bytes of an unfinished last line", path, torn);
    return snrq_file_sync(path);
}

static snrq_status write_configuration(const char *path, const json_t *configuration)
{
    char *text = NULL;
    SNRQ_TRY(snrq_output_configuration_text(configuration, &text));
    snrq_status status = snrq_file_replace(path, text, strlen(text));
    free(text);
    return status;
}

/* Brings the manifest into the state that the records say. */
static snrq_status mend_manifest(snrq_output *output, size_t used, size_t torn)
{
    bool pending = false;
    if (output->start.look) return SNRQ_OK;
    if (snrq_output_is_replacing(output->directory)) return snrq_output_finish_replacing(output);
    if (torn > 0) SNRQ_TRY(cut_manifest(output, used, torn));
    SNRQ_TRY(snrq_output_find_settled(output, &pending));
    return pending ? snrq_output_settle(output) : SNRQ_OK;
}

/* Compares snrq.json with that of this run, and reads the manifest. */
static snrq_status resume(snrq_output *output, const char *path, const json_t *configuration)
{
    json_t *before = NULL;
    size_t used = 0, torn = 0;
    SNRQ_TRY(snrq_output_advise(
        snrq_output_load_manifest(output->directory, NULL, &output->records, &used, &torn), -1, 0));
    SNRQ_TRY(snrq_output_advise(snrq_output_check_configuration(output->directory, output->records),
                                -1, 0));
    snrq_status status =
        snrq_output_load_configuration(output->directory, &before, output->configuration);
    if (status == SNRQ_OK)
        status = snrq_configuration_compare(
            path, snrq_manifest_complete(output->records) ? "finished run" : "unfinished run",
            before, configuration);
    json_decref(before);
    if (status == SNRQ_OK) status = mend_manifest(output, used, torn);
    return status == SNRQ_OK && output->start.redo ? snrq_output_redo(output) : status;
}

/* Writes snrq.json, if it is not there, and goes on from what is. */
static snrq_status start_or_resume(snrq_output *output, const json_t *configuration)
{
    char path[PATH_MAX];
    SNRQ_TRY(own_path(output, "snrq.json", path));
    if (!snrq_output_is(output->directory)) {
        if (output->start.look) {
            output->records = json_array();
            return output->records != NULL ? SNRQ_OK
                                           : snrq_fail(SNRQ_INTERNAL, "no memory for records");
        }
        SNRQ_TRY(write_configuration(path, configuration));
    }
    return resume(output, path, configuration);
}

static bool is_there(const char *directory)
{
    struct stat facts;
    return stat(directory, &facts) == 0;
}

static snrq_status open_on_rank_0(snrq_output *output, const json_t *configuration)
{
    const snrq_output_start *start = &output->start;
    char path[PATH_MAX];
    if (start->redo && !snrq_output_is(output->directory))
        return snrq_fail(SNRQ_USAGE,
                         "--redo %lld: %s holds no run of which a block could be made "
                         "again; leave --redo out",
                         (long long)start->block, output->directory);
    if (!start->look) SNRQ_TRY(snrq_directory_make(output->directory));
    if (is_there(output->directory)) SNRQ_TRY(check_is_ours(output->directory));
    SNRQ_TRY(own_path(output, "snrq.lock", path));
    SNRQ_TRY(start->look ? snrq_lock_try(path, start->force_unlock)
                         : snrq_lock_take(path, &output->lock));
    return start_or_resume(output, configuration);
}

/* What only an unfinished run needs. */
static bool is_done_with(const void *user, const char *name)
{
    (void)user;
    return strcmp(name, SNRQ_REDO_FILE) == 0 || strcmp(name, SNRQ_TUNING_FILE) == 0;
}

/* What an interrupted run left: a file that was being written (MPI-IO tries its locks on
 * NAME.tmp.locktest.N), or a data file without a record. */
static bool is_leftover(const void *user, const char *name)
{
    const snrq_output *output = user;
    bool unfinished = snrq_ends_with(name, ".tmp") || strstr(name, ".tmp.locktest.") != NULL ||
                      snrq_ends_with(name, SNRQ_NEXT_SUFFIX);
    if (unfinished && strcmp(name, "snrq.lock.tmp") != 0 &&
        snrq_is_plain_file(output->directory, name))
        return true;
    if (is_done_with(NULL, name)) return snrq_manifest_complete(output->records);
    return snrq_output_is_stray(output->directory, name, output->records);
}

/* Opening, all ranks. */

snrq_status snrq_output_share_records(snrq_output *output)
{
    const snrq_context *context = output->context;
    char *text = NULL;
    json_t *wrapped = NULL;
    snrq_status status = SNRQ_OK;
    if (context->rank == 0) {
        wrapped = json_pack("{s:O}", "records", output->records);
        status = wrapped != NULL ? snrq_canonical(wrapped, &text)
                                 : snrq_fail(SNRQ_INTERNAL, "no memory for records");
        json_decref(wrapped);
        wrapped = NULL;
    }
    status = snrq_agree(context, status);
    if (status == SNRQ_OK) status = share_text(context, &text);
    if (status == SNRQ_OK && context->rank != 0) {
        status = snrq_json_parse("records", text, strlen(text), &wrapped);
        if (status == SNRQ_OK) {
            json_decref(output->records);
            output->records = json_incref(json_object_get(wrapped, "records"));
        }
        json_decref(wrapped);
    }
    free(text);
    return snrq_agree(context, status);
}

/* The records of rank 0 on all ranks, and who holds the lock. */
static snrq_status share_start(snrq_output *output)
{
    const snrq_context *context = output->context;
    SNRQ_TRY(snrq_output_share_records(output));
    if (output->lock != NULL) snrq_lock_tell_owner(output->lock, &output->owner);
    SNRQ_TRY(snrq_broadcast(context, output->configuration, sizeof output->configuration));
    return snrq_broadcast(context, &output->owner, sizeof output->owner);
}

/* Every node must see what rank 0 wrote: the lock, which differs from every other. A network file
 * system may show it a little later. */
static snrq_status check_is_shared(const snrq_output *output)
{
    enum { ATTEMPTS = 50 };
    const struct timespec pause = {0, 100000000};
    const snrq_context *context = output->context;
    char path[PATH_MAX], expected[33] = "", found[33] = "", host[256] = "";
    uint64_t bytes;
    if (context->nodes == 1) return SNRQ_OK;
    snrq_status status = own_path(output, "snrq.lock", path);
    if (status == SNRQ_OK && context->rank == 0) status = snrq_file_hash(path, expected, &bytes);
    SNRQ_TRY(snrq_agree(context, status));
    SNRQ_TRY(snrq_broadcast(context, expected, sizeof expected));
    if (context->node_rank == 0) {
        for (int i = 0; i < ATTEMPTS && strcmp(found, expected) != 0; i++) {
            if (i > 0) nanosleep(&pause, NULL);
            if (snrq_file_hash(path, found, &bytes) != SNRQ_OK) found[0] = '\0';
        }
        gethostname(host, sizeof host - 1);
        if (strcmp(found, expected) != 0)
            status =
                snrq_fail(SNRQ_CANNOT_WRITE,
                          "%s: expected the directory that rank 0 works in, found another one on "
                          "node %s: it must be on a file system that all nodes share",
                          output->directory, host);
    }
    return snrq_agree(context, status);
}

/* Every rank checks some of the committed files. *redo: the block from which on those that are
 * damaged can be made again; INT64_MAX: none is. */
static snrq_status check_own_share(const snrq_output *output, int64_t *redo, char *message,
                                   size_t size)
{
    const size_t count = json_array_size(output->records);
    *redo = INT64_MAX;
    for (size_t i = (size_t)output->context->rank; i < count; i += (size_t)output->context->size) {
        const json_t *record = json_array_get(output->records, i);
        if (json_object_get(record, "file") == NULL) continue;
        snrq_status status = snrq_output_check_file(output->directory, record);
        int64_t block = snrq_output_redo_block(record, output->blocks);
        if (status == SNRQ_BAD_DATA && block >= 0) {
            if (block < *redo) snprintf(message, size, "%s", snrq_error_message());
            if (block < *redo) *redo = block;
        } else if (status != SNRQ_OK) {
            return snrq_output_advise(status, -1, 0);
        }
    }
    return SNRQ_OK;
}

/* The first block that is damaged is named, whatever rank found it. */
static snrq_status check_files(const snrq_output *output)
{
    char message[2048] = "";
    int64_t redo = INT64_MAX;
    SNRQ_TRY(snrq_agree(output->context, check_own_share(output, &redo, message, sizeof message)));
    double lowest = -(double)redo;
    SNRQ_TRY(snrq_max_double(output->context, &lowest, 1));
    snrq_status status = SNRQ_OK;
    if (redo != INT64_MAX && (double)redo == -lowest)
        status = snrq_output_advise(snrq_fail(SNRQ_BAD_DATA, "%s", message), redo, output->blocks);
    return snrq_agree(output->context, status);
}

static void release(snrq_output *output)
{
    snrq_lock_release(&output->lock);
    json_decref(output->records);
    json_decref(output->pending);
    json_decref(output->next);
    free(output);
}

/* Room for an output that is not open yet. The caller releases *out. */
static snrq_status create(const snrq_context *context, const char *directory,
                          const json_t *configuration, const snrq_output_start *start,
                          snrq_output **out)
{
    const size_t length = strlen(directory);
    SNRQ_TRY(snrq_allocate(1, sizeof **out, "output", out));
    snrq_output *output = *out;
    output->context = context;
    output->start = *start;
    output->blocks = snrq_output_blocks(configuration);
    output->pending = json_array();
    output->next = json_array();
    if (output->pending == NULL || output->next == NULL)
        return snrq_fail(SNRQ_INTERNAL, "no memory for records");
    if (length == 0 || length >= sizeof output->directory)
        return snrq_fail(SNRQ_USAGE,
                         "the name of the output directory is empty or longer than %zu bytes",
                         sizeof output->directory - 1);
    memcpy(output->directory, directory, length + 1);
    return SNRQ_OK;
}

snrq_status snrq_output_open_as(const snrq_context *context, const char *directory,
                                const json_t *configuration, const snrq_output_start *start,
                                snrq_output **out)
{
    snrq_output *output = NULL;
    *out = NULL;
    snrq_status status =
        snrq_agree(context, create(context, directory, configuration, start, &output));
    if (status == SNRQ_OK) {
        if (context->rank == 0) status = open_on_rank_0(output, configuration);
        status = snrq_agree(context, status);
    }
    if (status == SNRQ_OK && !start->look) status = check_is_shared(output);
    if (status == SNRQ_OK) status = share_start(output);
    if (status == SNRQ_OK) status = check_files(output);
    if (status == SNRQ_OK && !start->look) {
        if (context->rank == 0)
            status = snrq_directory_remove(output->directory, is_leftover, output);
        status = snrq_agree(context, status);
    }
    if (status == SNRQ_OK) {
        *out = output;
    } else {
        if (output != NULL) release(output);
        snrq_barrier(context); /* the lock is gone on every rank */
    }
    return status;
}

snrq_status snrq_output_open(const snrq_context *context, const char *directory,
                             const json_t *configuration, snrq_output **out)
{
    const snrq_output_start start = {.look = false};
    return snrq_output_open_as(context, directory, configuration, &start, out);
}

snrq_status snrq_output_force_unlock(const snrq_context *context, const char *directory)
{
    char path[PATH_MAX];
    snrq_status status = SNRQ_OK;
    if (context->rank == 0) status = snrq_path_join(directory, "snrq.lock", path, sizeof path);
    if (context->rank == 0 && status == SNRQ_OK) status = snrq_lock_force(path);
    return snrq_agree(context, status);
}

void snrq_output_close(snrq_output **output)
{
    if (*output == NULL) return;
    const snrq_context *context = (*output)->context;
    snrq_barrier(context); /* nobody writes here any more */
    release(*output);
    snrq_barrier(context); /* the lock is gone on every rank */
    *output = NULL;
}

const char *snrq_output_directory(const snrq_output *output)
{
    return output->directory;
}

const json_t *snrq_output_record(const snrq_output *output, const char *name)
{
    return snrq_manifest_find(output->records, name);
}

bool snrq_output_complete(const snrq_output *output)
{
    return snrq_manifest_complete(output->records);
}

const char *snrq_output_temporary(snrq_output *output, const char *name)
{
    snprintf(output->path, sizeof output->path, "%s/%.*s.tmp", output->directory, NAME_MAX, name);
    return output->path;
}

snrq_status snrq_output_check_lock(const snrq_output *output)
{
    char path[PATH_MAX];
    SNRQ_TRY(own_path(output, "snrq.lock", path));
    return snrq_lock_check_owner(path, &output->owner);
}

/* Committing. */

/* Is the manifest at hand: are these all ranks of the job? */
static bool is_whole_job(const snrq_output *output, const snrq_context *context)
{
    return context->size == output->context->size;
}

snrq_status snrq_output_make_record(const snrq_output *output, const snrq_context *context,
                                    const json_t *details, json_t **record)
{
    static const char *const own[] = {"file",   "bytes",    "xxh3", "configuration",
                                      "record", "complete", "line"};
    *record = details != NULL ? json_deep_copy(details) : json_object();
    if (*record == NULL) return snrq_fail(SNRQ_INTERNAL, "no memory for a record");
    if (!json_is_object(*record)) return snrq_fail(SNRQ_INTERNAL, "a record is no JSON object");
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (json_object_get(*record, own[i]) != NULL)
            return snrq_fail(SNRQ_INTERNAL, "a record's field %s belongs to the manifest", own[i]);
    size_t at = is_whole_job(output, context) ? json_array_size(output->records) : 0;
    json_t *number = json_integer((json_int_t)at);
    if (json_object_set_new(*record, "record", number) != 0 ||
        json_object_set_new(*record, "configuration", json_string(output->configuration)) != 0)
        return snrq_fail(SNRQ_INTERNAL, "no memory for a record");
    return SNRQ_OK;
}

/* *changed: the manifest is not what it was, though that failed. */
static snrq_status append_line(const snrq_output *output, const json_t *record, bool *changed)
{
    char path[PATH_MAX];
    char *line = NULL;
    struct stat before = {0}, after = {0};
    SNRQ_TRY(own_path(output, "manifest.jsonl", path));
    if (stat(path, &before) != 0) before.st_size = 0;
    SNRQ_TRY(snrq_manifest_line(record, &line));
    snrq_status status = snrq_file_append(path, line, strlen(line));
    if (stat(path, &after) != 0) after.st_size = 0;
    *changed = before.st_size != after.st_size;
    free(line);
    return status;
}

/* The folder of a file that is not in the directory itself. */
static snrq_status sync_folder(const snrq_output *output, const char *name)
{
    char path[PATH_MAX];
    if (strchr(name, '/') == NULL) return SNRQ_OK;
    SNRQ_TRY(own_path(output, SNRQ_CHAT_TEMPLATES, path));
    return snrq_directory_sync(path);
}

snrq_status snrq_output_describe_file(const char *path, const char *name, json_t *record)
{
    char hash[33];
    uint64_t bytes = 0;
    SNRQ_TRY(snrq_file_hash(path, hash, &bytes));
    if (json_object_set_new(record, "file", json_string(name)) != 0 ||
        json_object_set_new(record, "bytes", json_integer((json_int_t)bytes)) != 0 ||
        json_object_set_new(record, "xxh3", json_string(hash)) != 0)
        return snrq_fail(SNRQ_INTERNAL, "no memory for a record");
    return SNRQ_OK;
}

/* Rank 0 of the context: hash, rename, record. A failure takes the name back, unless the record may
 * be there. */
static snrq_status commit_file(snrq_output *output, const snrq_context *context, const char *name,
                               json_t *record)
{
    char path[PATH_MAX];
    const char *temporary = snrq_output_temporary(output, name);
    SNRQ_TRY(own_path(output, name, path));
    SNRQ_TRY(snrq_output_describe_file(temporary, name, record));
    if (rename(temporary, path) != 0)
        return snrq_fail(SNRQ_IO_ERROR, "%s: cannot be renamed: %s", temporary, strerror(errno));
    bool recorded = false;
    snrq_status status = sync_folder(output, name);
    if (status == SNRQ_OK) status = snrq_directory_sync(output->directory);
    if (status == SNRQ_OK && is_whole_job(output, context))
        status = append_line(output, record, &recorded);
    else if (status == SNRQ_OK)
        status = snrq_output_put_record(output, name, record, &recorded);
    if (status != SNRQ_OK && !recorded) (void)rename(path, temporary);
    return status;
}

/* Adds the record of rank 0 of the context (taken over there) to the records of all its ranks. */
static snrq_status share_record(snrq_output *output, const snrq_context *context, json_t *record)
{
    char *text = NULL;
    snrq_status status = SNRQ_OK;
    if (context->rank == 0) status = snrq_canonical(record, &text);
    status = snrq_agree(context, status);
    if (status == SNRQ_OK) status = share_text(context, &text);
    if (status == SNRQ_OK && context->rank != 0)
        status = snrq_json_parse("record", text, strlen(text), &record);
    free(text);
    if (status == SNRQ_OK && json_array_append(output->records, record) != 0)
        status = snrq_fail(SNRQ_INTERNAL, "no memory for a record");
    if (status == SNRQ_OK && context->rank == 0 && !is_whole_job(output, context) &&
        json_array_append(output->pending, record) != 0)
        status = snrq_fail(SNRQ_INTERNAL, "no memory for a record");
    json_decref(record);
    return snrq_agree(context, status);
}

snrq_status snrq_output_sync(snrq_output *output, const snrq_context *context, const char *name)
{
    snrq_status status = SNRQ_OK;
    if (context->node_rank == 0) status = snrq_file_sync(snrq_output_temporary(output, name));
    if (status != SNRQ_OK && output->context->nodes > 1)
        status = snrq_fail(status, "%s (the output directory must be shared by all nodes)",
                           snrq_error_message());
    return snrq_agree(context, status);
}

static snrq_status check_commit(const snrq_output *output, const snrq_context *context,
                                const char *name, const json_t *details)
{
    if (!snrq_manifest_name_is_valid(name))
        return snrq_fail(SNRQ_INTERNAL, "\"%s\" is no name for a file of the output", name);
    if (snrq_output_record(output, name) != NULL || snrq_output_complete(output))
        return snrq_fail(SNRQ_INTERNAL, "%s/%s: committed before, or after the run was complete",
                         output->directory, name);
    if (!is_whole_job(output, context) &&
        (snrq_manifest_block(details) < 0 || !snrq_ends_with(name, ".h5")))
        return snrq_fail(SNRQ_INTERNAL, "%s/%s: a group of ranks commits files of blocks only",
                         output->directory, name);
    return SNRQ_OK;
}

snrq_status snrq_output_commit(snrq_output *output, const snrq_context *context, const char *name,
                               const json_t *details)
{
    json_t *record = NULL;
    snrq_status status = check_commit(output, context, name, details);
    SNRQ_TRY(snrq_agree(context, status));
    SNRQ_TRY(snrq_output_sync(output, context, name));
    if (context->rank == 0) {
        status = snrq_output_check_lock(output);
        if (status == SNRQ_OK) status = snrq_output_make_record(output, context, details, &record);
        if (status == SNRQ_OK) status = commit_file(output, context, name, record);
    }
    status = snrq_agree(context, status);
    if (status == SNRQ_OK) return share_record(output, context, record);
    json_decref(record);
    return status;
}

snrq_status snrq_output_finish(snrq_output *output, const json_t *details)
{
    const snrq_context *context = output->context;
    json_t *record = NULL;
    bool changed = false;
    snrq_status status = SNRQ_OK;
    if (snrq_output_complete(output))
        return snrq_fail(SNRQ_INTERNAL, "%s: the run is complete already", output->directory);
    SNRQ_TRY(snrq_output_merge(output));
    if (context->rank == 0) {
        status = snrq_output_check_lock(output);
        if (status == SNRQ_OK) status = snrq_output_make_record(output, context, details, &record);
        if (status == SNRQ_OK && json_object_set_new(record, "complete", json_true()) != 0)
            status = snrq_fail(SNRQ_INTERNAL, "no memory for a record");
        if (status == SNRQ_OK) status = append_line(output, record, &changed);
        if (status == SNRQ_OK) /* if that fails, the next start does it */
            (void)snrq_directory_remove(output->directory, is_done_with, output);
    }
    status = snrq_agree(context, status);
    if (status == SNRQ_OK) return share_record(output, context, record);
    json_decref(record);
    return status;
}

/* Copies DIRECTORY/NAME of the model to NAME.tmp. */
static snrq_status copy_file(snrq_output *output, const char *model, const char *name)
{
    enum { LIMIT_BYTES = 1 << 30 };
    char path[PATH_MAX];
    char *data = NULL;
    size_t bytes = 0;
    if (strchr(name, '/') != NULL) {
        SNRQ_TRY(own_path(output, SNRQ_CHAT_TEMPLATES, path));
        SNRQ_TRY(snrq_directory_make(path));
    }
    SNRQ_TRY(snrq_path_join(model, name, path, sizeof path));
    SNRQ_TRY(snrq_file_read(path, LIMIT_BYTES, &data, &bytes));
    snrq_status status = snrq_file_replace(snrq_output_temporary(output, name), data, bytes);
    free(data);
    return status;
}

/* Rank 0: the names of the model's side files as one text, each followed by a line feed. */
static snrq_status join_names(const char *model, char **text)
{
    char **names = NULL;
    int count = 0;
    size_t bytes = 1, at = 0;
    *text = NULL;
    SNRQ_TRY(snrq_side_files(model, &names, &count));
    for (int i = 0; i < count; i++) bytes += strlen(names[i]) + 1;
    snrq_status status = snrq_allocate(bytes, 1, "names of files", text);
    for (int i = 0; i < count && status == SNRQ_OK; i++)
        at += (size_t)sprintf(*text + at, "%s\n", names[i]);
    snrq_names_free(&names, count);
    return status;
}

static snrq_status copy_and_commit(snrq_output *output, const char *model, const char *name)
{
    const snrq_context *context = output->context;
    snrq_status status = SNRQ_OK;
    if (snrq_output_record(output, name) != NULL) return SNRQ_OK;
    if (context->rank == 0) status = copy_file(output, model, name);
    SNRQ_TRY(snrq_agree(context, status));
    return snrq_output_commit(output, context, name, NULL);
}

snrq_status snrq_output_copy_model_files(snrq_output *output, const char *model)
{
    const snrq_context *context = output->context;
    char *text = NULL, *end;
    snrq_status status = SNRQ_OK;
    if (context->rank == 0) status = join_names(model, &text);
    status = snrq_agree(context, status);
    if (status == SNRQ_OK) status = share_text(context, &text);
    for (char *name = text; status == SNRQ_OK && (end = strchr(name, '\n')) != NULL;
         name = end + 1) {
        *end = '\0';
        status = copy_and_commit(output, model, name);
    }
    free(text);
    return status;
}
