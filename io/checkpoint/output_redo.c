/* Making blocks of an output again; see snrq_output_start in output.h.
 *
 * What is to be made again leaves the manifest first, which is replaced at once: from then on these
 * files have no record, and opening the directory removes them. A file says from which block on
 * that was done. While it is there, the same command goes on instead of beginning again; it goes
 * when the run is complete. A kill between any two of these steps leaves a run that can be resumed.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "io/checkpoint/manifest.h"
#include "io/checkpoint/output_internal.h"
#include "io/checkpoint/reader.h"
#include "io/directory.h"
#include "io/file.h"
#include "io/json.h"
#include "mpi/log.h"

int64_t snrq_output_blocks(const json_t *configuration)
{
    const json_t *layers = json_object_get(json_object_get(configuration, "model"), "layers");
    return json_is_integer(layers) && json_integer_value(layers) > 0
               ? (int64_t)json_integer_value(layers)
               : 0;
}

/* Was this file tuned? Then it depends on all blocks. */
static bool is_tuned(const json_t *record)
{
    return json_is_true(json_object_get(record, "tuned"));
}

int64_t snrq_output_redo_block(const json_t *record, int64_t blocks)
{
    int64_t block = snrq_manifest_block(record);
    if (is_tuned(record)) return 0;
    if (block >= 0) return block;
    return blocks > 0 ? blocks : -1;
}

snrq_status snrq_output_advise(snrq_status status, int64_t block, int64_t blocks)
{
    if (status == SNRQ_OK) return SNRQ_OK;
    if (block < 0)
        return snrq_fail(status, "%s; put the file back, or start again in another directory",
                         snrq_error_message());
    if (block == blocks)
        return snrq_fail(status,
                         "%s; the same snrq quantize command with --redo %lld makes it again (and "
                         "no block)",
                         snrq_error_message(), (long long)block);
    return snrq_fail(status,
                     "%s; the same snrq quantize command with --redo %lld makes block %lld and "
                     "those after it again",
                     snrq_error_message(), (long long)block, (long long)block);
}

/* The record of a block's file; NULL: it is not committed. */
static const json_t *find_block(const json_t *records, int64_t block)
{
    size_t i;
    const json_t *record;
    json_array_foreach((json_t *)records, i, record)
    {
        if (snrq_manifest_block(record) == block) return record;
    }
    return NULL;
}

/* The block from which on the last run made blocks again, or -1. A file that says nothing is none.
 */
static int64_t begun_at(const snrq_output *output)
{
    enum { LIMIT = 4096 };
    char path[PATH_MAX];
    json_t *object = NULL;
    int64_t block = -1;
    if (!snrq_is_plain_file(output->directory, SNRQ_REDO_FILE)) return -1;
    if (snrq_path_join(output->directory, SNRQ_REDO_FILE, path, sizeof path) != SNRQ_OK ||
        snrq_json_read(path, LIMIT, &object) != SNRQ_OK)
        return -1;
    if (snrq_json_integer(path, object, "block", 0, INT64_MAX, NULL, &block) != SNRQ_OK) block = -1;
    json_decref(object);
    return block;
}

static snrq_status check_block(const snrq_output *output)
{
    const int64_t block = output->start.block, blocks = output->blocks;
    int64_t committed = 0;
    if (blocks > 0 && block > blocks)
        return snrq_fail(SNRQ_USAGE,
                         "--redo %lld: expected a block from 0 to %lld, or %lld for none but "
                         "damaged files of no block",
                         (long long)block, (long long)blocks - 1, (long long)blocks);
    while (find_block(output->records, committed) != NULL) committed++;
    if (block <= committed || find_block(output->records, block) != NULL) return SNRQ_OK;
    return snrq_fail(SNRQ_USAGE,
                     "--redo %lld: no run has made block %lld of %s yet, %lld block%s committed; "
                     "leave --redo out to go on",
                     (long long)block, (long long)block, output->directory, (long long)committed,
                     committed == 1 ? " is" : "s are");
}

/* Is this file to be made again? */
static snrq_status is_dropped(const snrq_output *output, const json_t *record, bool *out)
{
    const int64_t block = snrq_manifest_block(record);
    *out = is_tuned(record);
    if (*out) return SNRQ_OK;
    *out = block >= 0 ? block >= output->start.block : json_object_get(record, "file") == NULL;
    if (block >= 0 || *out) return SNRQ_OK;
    snrq_status status = snrq_output_check_file(output->directory, record);
    *out = status == SNRQ_BAD_DATA;
    return *out ? SNRQ_OK : status;
}

/* The records that stay, numbered anew. The caller releases *kept. */
static snrq_status keep_records(const snrq_output *output, json_t **kept)
{
    snrq_status status = SNRQ_OK;
    bool changed;
    *kept = json_array();
    for (size_t i = 0; i < json_array_size(output->records) && status == SNRQ_OK; i++) {
        json_t *record = json_array_get(output->records, i);
        bool dropped = false;
        status = is_dropped(output, record, &dropped);
        if (status == SNRQ_OK && !dropped && json_array_append(*kept, record) != 0)
            status = snrq_fail(SNRQ_INTERNAL, "no memory for records");
    }
    if (status == SNRQ_OK) status = snrq_manifest_sort(*kept, &changed);
    if (status != SNRQ_OK) json_decref(*kept);
    if (status != SNRQ_OK) *kept = NULL;
    return status;
}

static snrq_status remove_own(const snrq_output *output, const char *name)
{
    char path[PATH_MAX];
    SNRQ_TRY(snrq_path_join(output->directory, name, path, sizeof path));
    if (unlink(path) == 0 || errno == ENOENT) return SNRQ_OK;
    return snrq_fail(SNRQ_IO_ERROR, "%s: cannot be removed: %s", path, strerror(errno));
}

/* The status goes before the manifest, because it may say that the run is complete. */
static snrq_status replace_manifest(const snrq_output *output)
{
    char path[PATH_MAX], text[64];
    snprintf(text, sizeof text, "{\"block\":%lld}\n", (long long)output->start.block);
    SNRQ_TRY(snrq_path_join(output->directory, SNRQ_REDO_FILE, path, sizeof path));
    SNRQ_TRY(remove_own(output, SNRQ_REDO_FILE));
    SNRQ_TRY(remove_own(output, "status.json"));
    SNRQ_TRY(snrq_output_settle(output));
    return snrq_file_replace(path, text, strlen(text));
}

/* Was this begun before, and is what was made since then good as far as the first block of it? */
static bool goes_on(const snrq_output *output)
{
    const json_t *first = find_block(output->records, output->start.block);
    return !snrq_manifest_complete(output->records) && begun_at(output) == output->start.block &&
           (first == NULL || snrq_output_check_file(output->directory, first) == SNRQ_OK);
}

snrq_status snrq_output_redo(snrq_output *output)
{
    json_t *kept = NULL;
    if (goes_on(output)) {
        snrq_note_here("--redo %lld was begun before: it goes on", (long long)output->start.block);
        return SNRQ_OK;
    }
    SNRQ_TRY(check_block(output));
    SNRQ_TRY(keep_records(output, &kept));
    size_t dropped = json_array_size(output->records) - json_array_size(kept);
    json_decref(output->records);
    output->records = kept;
    if (output->start.look) return SNRQ_OK;
    snrq_note_here("--redo %lld: %zu records leave the manifest of %s",
                   (long long)output->start.block, dropped, output->directory);
    return replace_manifest(output);
}
