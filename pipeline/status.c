/* The status of a run; see status.h. */
#include "pipeline/status.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "io/checkpoint/reader.h"
#include "io/file.h"
#include "io/json.h"
#include "io/standard_streams.h"
#include "mpi/log.h"

typedef enum run_state {
    NOT_STARTED,
    STARTING,
    RUNNING,
    STOPPED,
    FAILED,
    HUNG,
    KILLED,
    COMPLETE,
    DAMAGED
} run_state;

/* Exit codes are those of the run where it has one. */
static const struct state_row {
    const char *name;
    snrq_status code;
    const char *next;
} states[] = {
    [NOT_STARTED] = {"not started", SNRQ_STOPPED, "run snrq quantize with this directory"},
    [STARTING] = {"starting", SNRQ_BUSY, "wait; it reads the model and what was done before"},
    [RUNNING] = {"running", SNRQ_BUSY, "wait, or make the file snrq.halt in it to stop the run"},
    [STOPPED] = {"stopped", SNRQ_STOPPED,
                 "run the same command again: it goes on after the last committed block"},
    [FAILED] = {"failed", SNRQ_INTERNAL,
                "mend what the last error names, then run the same command again: it goes on after "
                "the last committed block"},
    [HUNG] = {"hung", SNRQ_HUNG,
              "run the same command again: it goes on after the last committed block; if it hangs "
              "again, see the page on operations"},
    [KILLED] = {"killed", SNRQ_STOPPED,
                "look in the job's log for the reason (memory, time, a lost node), then run the "
                "same command again: it goes on after the last committed block"},
    [COMPLETE] = {"complete", SNRQ_OK, "nothing to do; snrq verify reads and checks all files"},
    [DAMAGED] = {"damaged", SNRQ_BAD_DATA, "put the file back, or start in another directory"},
};

typedef struct job_facts {
    const char *path;
    snrq_output_facts output;
    json_t *status, *events, *damage; /* owned; damage: an array of {"file", "problem"} */
    snrq_lock_facts lock;
    run_state state;
    snrq_status code;
    const char *error; /* how the last run ended, or NULL. Borrowed */
    const json_t *end; /* the last event, if that is an end, or NULL. Borrowed */
    int64_t starts, committed, blocks, redo;
    double last_event; /* seconds ago; -1: none */
    double done;       /* share of the work */
    char next[512];
} job_facts;

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static double number_of(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

/* ---- reading ---- */

static void add_damage(void *user, const char *file, const char *problem)
{
    job_facts *f = user;
    json_array_append_new(f->damage, json_pack("{s:o, s:o}", "file", snrq_json_text(file),
                                               "problem", snrq_json_text(problem)));
}

/* A directory that this user can look into. */
static snrq_status check_directory(const char *path)
{
    struct stat facts;
    if (stat(path, &facts) != 0 && errno == ENOENT)
        return snrq_fail(SNRQ_NO_INPUT,
                         "%s: there is no such directory; expected the OUT of a snrq quantize",
                         path);
    if (stat(path, &facts) == 0 && !S_ISDIR(facts.st_mode))
        return snrq_fail(SNRQ_NO_INPUT,
                         "%s: expected a directory, the OUT of a snrq quantize, found a file",
                         path);
    if (faccessat(AT_FDCWD, path, R_OK | X_OK, AT_EACCESS) == 0) return SNRQ_OK;
    return snrq_fail(snrq_open_status(errno),
                     "%s: %s; the user who started the run can read it, or allow it (chmod)", path,
                     strerror(errno));
}

/* What a run that began here left; a damaged record or configuration is damage, not a failure. */
static snrq_status read_output(job_facts *f, bool hashes)
{
    char name[NAME_MAX + 1];
    if (!snrq_output_is(f->path)) {
        SNRQ_TRY(snrq_output_find_foreign(f->path, name));
        if (name[0] == '\0') return SNRQ_OK;
        return snrq_fail(
            SNRQ_NO_INPUT,
            "%s: no output of snrq: it holds no snrq.json, but %s; expected the OUT of "
            "a snrq quantize",
            f->path, name);
    }
    snrq_status status = snrq_output_read(f->path, &f->output);
    if (status == SNRQ_BAD_DATA) {
        bool is_manifest = f->output.configuration != NULL && f->output.records == NULL;
        const char *file = is_manifest ? "manifest.jsonl" : "snrq.json";
        add_damage(f, file, snrq_error_message());
        return SNRQ_OK;
    }
    if (status == SNRQ_OK)
        status = snrq_output_check(&f->output, f->status, hashes, add_damage, f, &f->redo);
    return status == SNRQ_BAD_DATA ? SNRQ_OK : status;
}

static snrq_status read_facts(const snrq_options *options, job_facts *f)
{
    SNRQ_TRY(check_directory(f->path));
    f->damage = json_array();
    /* A run that ends writes the manifest first, then the status, and releases the lock last. */
    SNRQ_TRY(snrq_output_read_lock(f->path, &f->lock));
    SNRQ_TRY(snrq_output_read_status(f->path, &f->status));
    SNRQ_TRY(snrq_output_read_events(f->path, &f->events));
    return read_output(f, options->full);
}

/* ---- what it means ---- */

static void count(job_facts *f)
{
    size_t i;
    const json_t *item;
    f->last_event = -1;
    json_array_foreach(f->events, i, item)
    {
        const char *kind = text_of(item, "event");
        f->starts += strcmp(kind, "start") == 0;
        f->last_event = difftime(time(NULL), (time_t)number_of(item, "time"));
        if (strcmp(kind, "end") == 0)
            f->end = item;
        else if (strcmp(kind, "start") == 0)
            f->end = NULL;
        if (strcmp(kind, "end") == 0 && strcmp(text_of(item, "state"), "complete") != 0)
            f->error = text_of(item, "message");
    }
    json_array_foreach(f->output.records, i, item) f->committed +=
        json_object_get(item, "block") != NULL;
    f->blocks = json_integer_value(
        json_object_get(json_object_get(f->output.configuration, "model"), "layers"));
    if (f->blocks == 0) f->blocks = json_integer_value(json_object_get(f->status, "blocks"));
}

/* Did the run that took the lock say how it ended? Clocks of several hosts differ a little. */
static bool lock_has_ended(const job_facts *f)
{
    return f->end != NULL && number_of(f->end, "time") + 1.0 >= (double)f->lock.started;
}

/* A run that ended as complete, of which records are gone, was killed while it made blocks again.
 */
static run_state state_of_end(const json_t *end)
{
    const char *state = text_of(end, "state");
    if (strcmp(state, "hung") == 0) return HUNG;
    if (strcmp(state, "complete") == 0) return KILLED;
    return strcmp(state, "stopped") == 0 ? STOPPED : FAILED;
}

/* The lock knows best whether a run is at work; one that left without an end was killed. */
static run_state find_state(const job_facts *f)
{
    const char *said = text_of(f->status, "state");
    bool held = f->lock.found && !f->lock.stale;
    bool damaged = json_array_size(f->damage) > 0;
    if (held && !f->output.complete && !lock_has_ended(f))
        return strcmp(said, "running") == 0 || strcmp(said, "tuning") == 0 ? RUNNING : STARTING;
    if (damaged) return DAMAGED;
    if (f->output.complete) return COMPLETE;
    if (f->lock.found && !lock_has_ended(f)) return KILLED;
    if (f->end != NULL) return state_of_end(f->end);
    return f->starts > 0 || f->committed > 0 ? KILLED : NOT_STARTED;
}

static void advise(job_facts *f)
{
    const char *halt = "";
    struct stat facts;
    char path[PATH_MAX];
    if (f->state == STOPPED && snrq_path_join(f->path, "snrq.halt", path, sizeof path) == SNRQ_OK &&
        stat(path, &facts) == 0)
        halt = "delete snrq.halt in it, then ";
    if (f->state == DAMAGED && f->redo >= 0)
        snprintf(f->next, sizeof f->next,
                 "run the same command with --redo %lld: it makes again what is damaged, and the "
                 "blocks after it",
                 (long long)f->redo);
    else
        snprintf(f->next, sizeof f->next, "%s%s", halt, states[f->state].next);
}

static void conclude(job_facts *f)
{
    count(f);
    f->state = find_state(f);
    f->code = states[f->state].code;
    if (f->state == FAILED && number_of(f->end, "exit_code") > 0)
        f->code = (snrq_status)number_of(f->end, "exit_code");
    if (f->state == COMPLETE) f->error = NULL;
    f->done = f->blocks > 0 ? (double)f->committed / (double)f->blocks : 0.0;
    if (f->state == RUNNING && number_of(f->status, "done") > f->done)
        f->done = number_of(f->status, "done");
    advise(f);
}

/* ---- telling ---- */

static json_t *holder_json(const snrq_lock_facts *lock)
{
    if (!lock->found || !lock->known) return NULL;
    return json_pack("{s:s, s:s, s:I, s:I, s:b}", "host", lock->host, "job", lock->job, "pid",
                     (json_int_t)lock->pid, "silent_seconds", (json_int_t)lock->silent, "stale",
                     lock->stale);
}

static snrq_status print_json(const job_facts *f)
{
    json_t *object =
        json_pack("{s:o, s:s, s:i, s:I, s:I, s:f, s:I, s:o*, s:o*, s:O, s:s}", "path",
                  snrq_json_text(f->path), "state", states[f->state].name, "exit_code",
                  (int)f->code, "committed", (json_int_t)f->committed, "blocks",
                  (json_int_t)f->blocks, "done", f->done, "starts", (json_int_t)f->starts,
                  "last_error", f->error != NULL ? snrq_json_text(f->error) : NULL, "holder",
                  holder_json(&f->lock), "damage", f->damage, "next", f->next);
    if (object != NULL && f->redo >= 0)
        json_object_set_new(object, "redo", json_integer((json_int_t)f->redo));
    if (object != NULL && f->last_event >= 0)
        json_object_set_new(object, "last_event_seconds", json_real(f->last_event));
    /* Block, step and rate are of the run that is at work. */
    if (object != NULL && f->state == RUNNING) json_object_update_missing(object, f->status);
    return snrq_json_print(object);
}

static bool is_tuning(const job_facts *f)
{
    return f->state == RUNNING && json_object_get(f->status, "tuning") != NULL;
}

static void print_tuning(const job_facts *f)
{
    const json_t *tuning = json_object_get(f->status, "tuning");
    printf("tuning      epoch %.0f of %.0f, KL on held-out windows %.4f, the best after epoch "
           "%.0f\n",
           number_of(tuning, "epoch"), number_of(tuning, "epochs"),
           number_of(tuning, "held_out_kl"), number_of(tuning, "best"));
}

static void print_rate(const job_facts *f)
{
    char left[32], when[32] = "";
    const json_t *of = is_tuning(f) ? json_object_get(f->status, "tuning") : f->status;
    double seconds = number_of(of, "seconds_left");
    time_t end = time(NULL) + (time_t)seconds;
    struct tm at;
    if (localtime_r(&end, &at) != NULL) strftime(when, sizeof when, "%Y-%m-%d %H:%M", &at);
    snrq_clock_text(seconds, left, sizeof left);
    if (!is_tuning(f))
        printf("rate        %.3g blocks per hour\n", number_of(f->status, "blocks_per_hour"));
    printf("left        %s, until %s\n", left, when);
}

/* A layer group: blocks are counted from 1, as in the other lines. */
static void print_group(const job_facts *f, int index, const json_t *group)
{
    double first = number_of(group, "first"), end = number_of(group, "end");
    printf("group %-5d blocks %.0f to %.0f: %.0f of %.0f committed", index + 1, first + 1, end,
           number_of(group, "committed"), end - first);
    if (f->state == RUNNING && json_object_get(group, "stage") != NULL)
        printf(", now block %.0f after step %s", number_of(group, "block") + 1,
               text_of(group, "stage"));
    putchar('\n');
}

static void print_text(const job_facts *f)
{
    size_t i;
    const json_t *item;
    printf("%s: %s", f->path, states[f->state].name);
    if (f->lock.found && f->lock.known)
        printf(" (process %lld on %s%s%s, last sign of life %lld s ago)", f->lock.pid, f->lock.host,
               f->lock.job[0] ? ", job " : "", f->lock.job, f->lock.silent);
    if (f->blocks > 0)
        printf("\nblocks      %lld of %lld committed", (long long)f->committed,
               (long long)f->blocks);
    if (f->state == RUNNING && json_object_get(f->status, "stage") != NULL)
        printf(", now block %.0f after step %s", number_of(f->status, "block") + 1,
               text_of(f->status, "stage"));
    printf("\ndone        %.1f %%\n", 100.0 * f->done);
    json_array_foreach(json_object_get(f->status, "groups"), i, item) print_group(f, (int)i, item);
    if (is_tuning(f)) print_tuning(f);
    if (f->state == RUNNING) print_rate(f);
    if (f->last_event >= 0)
        printf("last heard  %.0f s ago in run.jsonl; started %lld time%s\n", f->last_event,
               (long long)f->starts, f->starts == 1 ? "" : "s");
    if (f->error != NULL) printf("last end    %s\n", f->error);
    json_array_foreach(f->damage, i, item) printf("damaged     %s\n", text_of(item, "problem"));
    printf("next        %s\n", f->next);
}

snrq_status snrq_job_status(const snrq_options *options)
{
    job_facts facts = {.path = options->path, .redo = -1};
    snrq_status status = read_facts(options, &facts);
    if (status == SNRQ_OK) {
        conclude(&facts);
        if (options->json)
            status = print_json(&facts);
        else
            print_text(&facts);
        if (status == SNRQ_OK) status = snrq_print_end(stdout);
        if (status == SNRQ_OK && facts.code != SNRQ_OK) status = snrq_fail(facts.code, "%s", "");
    }
    json_decref(facts.status);
    json_decref(facts.damage);
    snrq_output_facts_free(&facts.output);
    json_decref(facts.events);
    return status;
}
