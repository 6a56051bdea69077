/* The file of a machine, and the command that makes it; see machine.h. Trials: machine_trial.c. */
#include "pipeline/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/checkpoint/manifest.h"
#include "io/file.h"
#include "io/json.h"
#include "mpi/algebra/kernels.h"
#include "mpi/log.h"
#include "pipeline/rules.h"

static const char *const rate_names[SNRQ_RATES] = {
    "forward_dense", "forward_codes", "attention", "gram_tokens", "gram_pieces",
    "factor_cube",   "factor_rows",   "grid",      "search_rows", "search_cells"};

/* ---- JSON ---- */

json_t *snrq_machine_json(const snrq_machine *m)
{
    json_t *seconds = json_object(), *fits = json_object();
    for (int k = 0; k < SNRQ_RATES; k++)
        json_object_set_new(seconds, rate_names[k], json_real(m->seconds[k]));
    for (int f = 0; f < SNRQ_WEIGHT_FORMATS; f++)
        if (m->fits[f] > 0.0)
            json_object_set_new(fits, snrq_weight_formats[f].name, json_real(m->fits[f]));
    return json_pack("{s:s, s:o, s:o, s:f, s:i, s:i, s:i, s:i, s:f, s:f, s:b, s:f, s:f, s:s}",
                     "format", "snrq machine 1", "seconds", seconds, "fits", fits, "spread",
                     m->spread, "ranks", m->ranks, "nodes", m->nodes, "threads", m->threads,
                     "cores", m->cores, "latency", m->latency, "bandwidth", m->bandwidth,
                     "network_measured", m->network_measured, "read", m->read, "write", m->write,
                     "instructions", snrq_kernels_name());
}

static snrq_status take_number(const char *path, const json_t *object, const char *key, double low,
                               double *out)
{
    return snrq_json_number(path, object, key, low, 1e18, NULL, out);
}

static snrq_status take_count(const char *path, const json_t *object, const char *key, int *out)
{
    int64_t value = 0;
    SNRQ_TRY(snrq_json_integer(path, object, key, 1, 1 << 24, NULL, &value));
    *out = (int)value;
    return SNRQ_OK;
}

static snrq_status read_machine(const char *path, const json_t *root, snrq_machine *m)
{
    json_t *seconds = NULL;
    const char *format;
    SNRQ_TRY(snrq_json_string(path, root, "format", "", &format));
    if (strcmp(format, "snrq machine 1") != 0)
        return snrq_fail(SNRQ_BAD_DATA, "%s: is not a file of `snrq bench machine -o FILE`", path);
    SNRQ_TRY(snrq_json_object(path, root, "seconds", &seconds));
    for (int k = 0; k < SNRQ_RATES; k++)
        SNRQ_TRY(take_number(path, seconds, rate_names[k], 0.0, &m->seconds[k]));
    const json_t *fits = json_object_get(root, "fits"); /* older files have none */
    for (int f = 0; f < SNRQ_WEIGHT_FORMATS; f++)
        if (json_object_get(fits, snrq_weight_formats[f].name) != NULL)
            SNRQ_TRY(take_number(path, fits, snrq_weight_formats[f].name, 0.0, &m->fits[f]));
    SNRQ_TRY(take_count(path, root, "ranks", &m->ranks));
    SNRQ_TRY(take_count(path, root, "nodes", &m->nodes));
    SNRQ_TRY(take_count(path, root, "threads", &m->threads));
    SNRQ_TRY(take_count(path, root, "cores", &m->cores));
    SNRQ_TRY(take_number(path, root, "latency", 0.0, &m->latency));
    SNRQ_TRY(take_number(path, root, "bandwidth", 1.0, &m->bandwidth));
    SNRQ_TRY(take_number(path, root, "read", 0.0, &m->read));
    SNRQ_TRY(take_number(path, root, "write", 0.0, &m->write));
    return snrq_json_boolean(path, root, "network_measured", false, &m->network_measured);
}

snrq_status snrq_machine_read(const char *path, snrq_machine *out)
{
    json_t *root = NULL;
    *out = (snrq_machine){.spread = 1.0};
    SNRQ_TRY(snrq_json_read(path, 1 << 20, &root));
    snrq_status status = read_machine(path, root, out);
    json_decref(root);
    return status;
}

snrq_status snrq_machine_network(const char *text, snrq_machine *m)
{
    double latency, bandwidth;
    char rest;
    if (sscanf(text, "%lf,%lf%c", &latency, &bandwidth, &rest) != 2 ||
        !(latency >= 0.0 && latency < 1.0) || !(bandwidth >= 1.0 && bandwidth <= 1e18))
        return snrq_fail(SNRQ_USAGE,
                         "--network: expected seconds and bytes per second such as 2e-6,12.5e9, "
                         "found '%s'",
                         text);
    m->latency = latency;
    m->bandwidth = bandwidth;
    m->network_measured = true;
    return SNRQ_OK;
}

/* ---- the command ---- */

static void print_machine(const snrq_context *c, const snrq_machine *m)
{
    const double *s = m->seconds;
    snrq_note(c, "ranks        %d on %d node%s, %d thread%s each, %s instructions", m->ranks,
              m->nodes, m->nodes == 1 ? "" : "s", m->threads, m->threads == 1 ? "" : "s",
              snrq_kernels_name());
    snrq_note(c,
              "a rank       GFLOP/s: forward %.1f, by codes %.1f, attention %.1f, Gram %.1f, "
              "factorization %.1f",
              2e-9 / s[SNRQ_RATE_FORWARD_DENSE], 2e-9 / s[SNRQ_RATE_FORWARD_CODES],
              2e-9 / s[SNRQ_RATE_ATTENTION], 2e-9 / s[SNRQ_RATE_GRAM_TOKENS],
              2e-9 / 3.0 / s[SNRQ_RATE_FACTOR_CUBE]);
    snrq_note(c, "messages     %.1f us, %.2f GB/s%s", 1e6 * m->latency, 1e-9 * m->bandwidth,
              c->size == 1    ? " (assumed: one rank)"
              : c->nodes == 1 ? " (within the node)"
                              : "");
    snrq_note(c, "files        write %.0f MB/s, read %.0f MB/s per node", 1e-6 * m->write,
              1e-6 * m->read);
    snrq_note(c, "balance      the slowest rank, %d, takes %.2f times as long as the fastest",
              m->slowest, m->spread);
}

static snrq_status write_machine(const char *path, const snrq_machine *m)
{
    char *text = NULL;
    json_t *object = snrq_machine_json(m);
    snrq_status status = object != NULL ? snrq_canonical(object, &text)
                                        : snrq_fail(SNRQ_INTERNAL, "no memory for the machine");
    json_decref(object);
    if (status == SNRQ_OK) status = snrq_file_write(path, text, strlen(text));
    free(text);
    return status;
}

snrq_status snrq_bench(const snrq_context *c, const snrq_options *o)
{
    const double most_spread = 1.25;
    const unsigned every_format = (1u << SNRQ_WEIGHT_FORMATS) - 1;
    snrq_machine m;
    char directory[4096];
    if (strcmp(o->path, "machine") != 0)
        return snrq_fail(SNRQ_USAGE, "bench: expected machine, found '%s'", o->path);
    const snrq_rule rule = snrq_options_rule(o);
    SNRQ_TRY(snrq_machine_measure(c, &rule, every_format, SNRQ_MACHINE_COLUMNS, &m));
    snprintf(directory, sizeof directory, "%s", o->output != NULL ? o->output : ".");
    char *slash = strrchr(directory, '/');
    if (o->output == NULL || slash == NULL)
        strcpy(directory, ".");
    else
        slash[slash == directory] = '\0';
    SNRQ_TRY(snrq_machine_measure_files(c, directory, &m));
    print_machine(c, &m);
    if (o->output != NULL)
        SNRQ_TRY(snrq_agree(c, c->rank == 0 ? write_machine(o->output, &m) : SNRQ_OK));
    if (o->json && c->rank == 0) SNRQ_TRY(snrq_json_print(snrq_machine_json(&m)));
    if (m.spread > most_spread)
        return snrq_fail(
            SNRQ_BAD_DATA,
            "the machine is not even: rank %d takes %.2f times as long as the fastest "
            "one (at most %.2f is usual): other programs, another clock, or cores that "
            "ranks share (--bind-to, --cpus-per-task)",
            m.slowest, m.spread, most_spread);
    snrq_note(c, "VALID");
    return SNRQ_OK;
}
