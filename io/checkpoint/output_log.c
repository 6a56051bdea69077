/* Events and status of a run; see output.h. Logs never stop a run: the first failure is a warning.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "io/checkpoint/output_internal.h"
#include "io/checkpoint/reader.h"
#include "io/file.h"
#include "io/json.h"
#include "mpi/log.h"

static void warn_once(snrq_output *output, const char *what)
{
    if (output->warned) return;
    output->warned = true;
    snrq_note_here("warning: %s: %s (said once; the run goes on)", what, snrq_error_message());
}

/* `object` as one line, "time" (seconds since 1970) first. The caller frees *line. */
static snrq_status make_line(const json_t *object, char **line)
{
    struct timespec now = {0, 0};
    *line = NULL;
    clock_gettime(CLOCK_REALTIME, &now);
    double seconds = (double)now.tv_sec + (double)(now.tv_nsec / 1000000) / 1e3;
    json_t *copy = json_pack("{s:f}", "time", seconds);
    char *body = NULL;
    if (copy != NULL && json_object_update_missing(copy, (json_t *)object) == 0)
        body = json_dumps(copy, JSON_COMPACT | JSON_REAL_PRECISION(17));
    json_decref(copy);
    if (body == NULL) return snrq_fail(SNRQ_INTERNAL, "no memory for a log line");
    snrq_status status = snrq_allocate(strlen(body) + 2, 1, "log line", line);
    if (status == SNRQ_OK) sprintf(*line, "%s\n", body);
    free(body);
    return status;
}

/* Writes a line with the given function. */
static void put(snrq_output *output, const char *name, const json_t *object,
                snrq_status (*write)(const char *, const void *, size_t))
{
    char path[PATH_MAX], before[2048];
    char *line = NULL;
    if (output->context->rank != 0) return;
    snprintf(before, sizeof before, "%s", snrq_error_message());
    snrq_status status = snrq_path_join(output->directory, name, path, sizeof path);
    if (status == SNRQ_OK) status = make_line(object, &line);
    if (status == SNRQ_OK) status = write(path, line, strlen(line));
    free(line);
    if (status == SNRQ_OK) return;
    warn_once(output, "a log cannot be written");
    (void)snrq_fail(status, "%s", before); /* the error that is told of is not that of a log */
}

/* Replaces DIRECTORY/status.json under a temporary name that no other process has. */
static snrq_status replace_status(const char *directory, int number, const json_t *status)
{
    char path[PATH_MAX], temporary[PATH_MAX], name[64];
    char *line = NULL;
    snprintf(name, sizeof name, "status.json.%d.tmp", number);
    SNRQ_TRY(snrq_path_join(directory, "status.json", path, sizeof path));
    SNRQ_TRY(snrq_path_join(directory, name, temporary, sizeof temporary));
    SNRQ_TRY(make_line(status, &line));
    snrq_status written = snrq_file_write(temporary, line, strlen(line));
    if (written == SNRQ_OK && rename(temporary, path) != 0)
        written = snrq_fail(SNRQ_IO_ERROR, "%s: cannot be renamed", temporary);
    if (written != SNRQ_OK) (void)remove(temporary);
    free(line);
    return written;
}

void snrq_output_hung(const char *directory, int number, const char *message)
{
    char path[PATH_MAX];
    char *line = NULL;
    json_t *status = NULL;
    json_t *event =
        json_pack("{s:s, s:s, s:i, s:i, s:o}", "event", "end", "state", "hung", "exit_code",
                  (int)SNRQ_HUNG, "rank", number, "message", snrq_json_text(message));
    if (event != NULL && make_line(event, &line) == SNRQ_OK &&
        snrq_path_join(directory, "run.jsonl", path, sizeof path) == SNRQ_OK)
        (void)snrq_file_append(path, line, strlen(line));
    free(line);
    if (event != NULL && snrq_output_read_status(directory, &status) == SNRQ_OK &&
        json_object_del(event, "event") == 0 && json_object_update(status, event) == 0) {
        json_object_del(status, "time"); /* the line gets its own */
        (void)replace_status(directory, number, status);
    }
    json_decref(event);
    json_decref(status);
}

void snrq_output_event(snrq_output *output, const json_t *event)
{
    put(output, "run.jsonl", event, snrq_file_append);
}

void snrq_output_status(snrq_output *output, const json_t *status)
{
    put(output, "status.json", status, snrq_file_replace);
}
