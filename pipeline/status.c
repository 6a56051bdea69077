/* The status of a run; see status.h. */
#include "pipeline/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "io/checkpoint/reader.h"
#include "io/json.h"
#include "io/standard_streams.h"
#include "mpi/log.h"

typedef struct job_facts {
    snrq_output_facts output;
    json_t *status, *events; /* owned */
    snrq_lock_facts lock;
    const char *state, *error; /* borrowed; error may be NULL */
    json_int_t starts, committed, blocks;
    double last_event; /* seconds ago; -1: none */
} job_facts;

static snrq_status read_facts(const char *path, job_facts *f)
{
    SNRQ_TRY(snrq_output_read(path, &f->output));
    SNRQ_TRY(snrq_output_read_status(path, &f->status));
    SNRQ_TRY(snrq_output_read_events(path, &f->events));
    return snrq_output_read_lock(path, &f->lock);
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static double number_of(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

/* What the files say together. The lock knows best whether a run is at work; a run that left its
 * status as "running" without one was killed. */
static void conclude(job_facts *f)
{
    const char *said = text_of(f->status, "state");
    size_t i;
    const json_t *item;
    f->last_event = -1;
    json_array_foreach(f->events, i, item)
    {
        const char *kind = text_of(item, "event");
        f->starts += strcmp(kind, "start") == 0;
        f->last_event = difftime(time(NULL), (time_t)number_of(item, "time"));
        if (strcmp(kind, "end") == 0 && strcmp(text_of(item, "state"), "complete") != 0)
            f->error = text_of(item, "message");
    }
    json_array_foreach(f->output.records, i, item) f->committed +=
        json_object_get(item, "block") != NULL;
    f->blocks = json_integer_value(
        json_object_get(json_object_get(f->output.configuration, "model"), "layers"));
    if (f->output.complete)
        f->state = "complete";
    else if (f->lock.found && !f->lock.stale)
        f->state = strcmp(said, "running") == 0 ? "running" : "starting";
    else if (strcmp(said, "stopped") == 0 || strcmp(said, "failed") == 0)
        f->state = said;
    else
        f->state = "killed";
}

static snrq_status print_json(const char *path, const job_facts *f)
{
    json_t *object =
        json_pack("{s:o, s:s, s:I, s:I, s:I, s:o*}", "path", snrq_json_text(path), "state",
                  f->state, "committed", f->committed, "blocks", f->blocks, "starts", f->starts,
                  "last_error", f->error != NULL ? snrq_json_text(f->error) : NULL);
    if (object != NULL) {
        if (f->lock.found && f->lock.known)
            json_object_set_new(object, "holder",
                                json_pack("{s:s, s:s, s:I, s:I, s:b}", "host", f->lock.host, "job",
                                          f->lock.job, "pid", (json_int_t)f->lock.pid,
                                          "silent_seconds", (json_int_t)f->lock.silent, "stale",
                                          f->lock.stale));
        json_object_update_missing(object, f->status);
    }
    return snrq_json_print(object);
}

static void print_text(const char *path, const job_facts *f)
{
    bool running = strcmp(f->state, "running") == 0;
    char left[32], when[32] = "";
    double seconds_left = number_of(f->status, "seconds_left");
    printf("%s: %s", path, f->state);
    if (f->lock.found && f->lock.known)
        printf(" (process %lld on %s%s%s, last sign of life %lld s ago)", f->lock.pid, f->lock.host,
               f->lock.job[0] ? ", job " : "", f->lock.job, f->lock.silent);
    printf("\nblocks      %lld of %lld committed", (long long)f->committed, (long long)f->blocks);
    if (running)
        printf(", now block %.0f after step %s", number_of(f->status, "block") + 1,
               text_of(f->status, "stage"));
    printf("\ndone        %.1f %%\n",
           f->output.complete ? 100.0 : 100.0 * number_of(f->status, "done"));
    if (running) {
        time_t end = time(NULL) + (time_t)seconds_left;
        struct tm at;
        if (localtime_r(&end, &at) != NULL) strftime(when, sizeof when, "%Y-%m-%d %H:%M", &at);
        snrq_clock_text(seconds_left, left, sizeof left);
        printf("rate        %.3g blocks per hour\nleft        %s, until %s\n",
               number_of(f->status, "blocks_per_hour"), left, when);
    }
    if (f->last_event >= 0)
        printf("last heard  %.0f s ago in run.jsonl; started %lld time%s\n", f->last_event,
               (long long)f->starts, f->starts == 1 ? "" : "s");
    if (f->error != NULL) printf("last end    %s\n", f->error);
    if (strcmp(f->state, "killed") == 0 || strcmp(f->state, "stopped") == 0)
        puts("next        run the same command again: it goes on after the last committed block");
}

snrq_status snrq_job_status(const snrq_options *options)
{
    job_facts facts = {0};
    snrq_status status = read_facts(options->path, &facts);
    if (status == SNRQ_OK) {
        conclude(&facts);
        if (options->json)
            status = print_json(options->path, &facts);
        else {
            print_text(options->path, &facts);
            status = snrq_print_end(stdout);
        }
    }
    json_decref(facts.status);
    snrq_output_facts_free(&facts.output);
    json_decref(facts.events);
    return status;
}
