/* Activations kept between blocks; see keeper.h. */
#include "pipeline/keeper.h"

#include <limits.h>

#include "io/checkpoint/activation_file.h"
#include "io/checkpoint/block_file.h"
#include "io/checkpoint/manifest.h"
#include "io/file.h"
#include "io/json.h"
#include "mpi/log.h"
#include "mpi/timers.h"

/* What the file after `block` must say of itself. */
static snrq_status make_facts(const snrq_keeper *k, int64_t block, const snrq_stream *stream,
                              snrq_activation_facts *facts)
{
    char name[32];
    snrq_block_file_name(block, name);
    const json_t *record = snrq_output_record(k->output, name);
    *facts = (snrq_activation_facts){
        .block = block, .windows = k->windows, .tokens = stream->tokens, .hidden = stream->hidden};
    if (record == NULL) return snrq_fail(SNRQ_INTERNAL, "%s has no record", name);
    /* Its number depends on how fast the groups of ranks are. */
    json_t *content = json_copy((json_t *)record);
    if (content == NULL) return snrq_fail(SNRQ_INTERNAL, "no memory for a record");
    json_object_del(content, "record");
    snrq_status status = snrq_fingerprint(content, facts->record);
    json_decref(content);
    return status;
}

/* One line of run.jsonl. */
static void log_event(const snrq_keeper *k, const char *what, int64_t block, double seconds,
                      const char *why)
{
    json_t *event = json_pack("{s:s, s:s, s:I, s:f, s:o*}", "event", "activations", "what", what,
                              "block", (json_int_t)block, "seconds", seconds, "why",
                              why != NULL ? snrq_json_text(why) : NULL);
    snrq_progress_event(k->progress, k->output, event);
}

static snrq_status write_file(const snrq_keeper *k, int64_t block, const snrq_stream *quantized,
                              const snrq_stream *full)
{
    char name[40];
    snrq_activation_facts facts;
    snrq_output_kept_name(block, name);
    SNRQ_TRY(snrq_agree(k->context, make_facts(k, block, full, &facts)));
    SNRQ_TRY(snrq_activation_file_write(k->context, snrq_output_temporary(k->output, name), &facts,
                                        full->range, quantized->h, full->h));
    return snrq_output_keep(k->output, k->context, k->blocks, block);
}

void snrq_keeper_write(snrq_keeper *k, int64_t block, const snrq_stream *quantized,
                       const snrq_stream *full)
{
    double started = snrq_now();
    if (!k->on) return;
    if (write_file(k, block, quantized, full) == SNRQ_OK) {
        log_event(k, "kept", block, snrq_now() - started, NULL);
        return;
    }
    snrq_note_timed(
        k->context,
        "warning: activations cannot be kept: %s (said once; the run goes on without, and "
        "replays its blocks if it has to resume)",
        snrq_error_message());
    log_event(k, "not kept", block, snrq_now() - started, snrq_error_message());
    k->on = false;
    snrq_output_drop_kept(k->output, k->context, k->blocks);
}

static snrq_status read_file(const snrq_keeper *k, int64_t block, snrq_stream *quantized,
                             snrq_stream *full)
{
    char name[40], path[PATH_MAX];
    snrq_activation_facts facts;
    snrq_output_kept_name(block, name);
    SNRQ_TRY(make_facts(k, block, full, &facts));
    SNRQ_TRY(snrq_path_join(snrq_output_directory(k->output), name, path, sizeof path));
    return snrq_activation_file_read(path, &facts, full->range, quantized->h, full->h);
}

snrq_status snrq_keeper_read(const snrq_keeper *k, int64_t committed, snrq_stream *quantized,
                             snrq_stream *full, int64_t *next)
{
    int64_t block = -1;
    double started = snrq_now();
    *next = k->blocks.begin;
    snrq_range done = {k->blocks.begin, committed};
    SNRQ_TRY(snrq_output_kept(k->output, k->context, done, &block));
    if (block < 0) return SNRQ_OK;
    if (snrq_agree(k->context, read_file(k, block, quantized, full)) == SNRQ_OK) {
        log_event(k, "read", block, snrq_now() - started, NULL);
        *next = block + 1;
        return SNRQ_OK;
    }
    snrq_note_timed(k->context,
                    "note: activations cannot be read: %s; the committed blocks are replayed",
                    snrq_error_message());
    log_event(k, "not read", block, snrq_now() - started, snrq_error_message());
    return SNRQ_OK;
}
