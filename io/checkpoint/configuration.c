/* Comparison of configurations; see configuration.h. */
#include "io/checkpoint/configuration.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/checkpoint/manifest.h"
#include "io/json.h"

enum { SHOWN_DIFFERENCES = 3, TEXT_BYTES = 1200, KEY_BYTES = 200 };

struct differences {
    const char *run;
    int count;
    char text[TEXT_BYTES]; /* of the first ones */
};

/* A value as it is shown in a message. */
static void show(const json_t *value, char out[SNRQ_SHOWN])
{
    if (value == NULL) {
        strcpy(out, "nothing");
        return;
    }
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(15));
    snrq_shown(text != NULL ? text : "?", out);
    free(text);
}

static void add_difference(struct differences *d, const char *key, const json_t *before,
                           const json_t *now)
{
    char old[SNRQ_SHOWN], new[SNRQ_SHOWN];
    size_t used = strlen(d->text);
    if (d->count++ >= SHOWN_DIFFERENCES) return;
    show(before, old);
    show(now, new);
    snprintf(d->text + used, sizeof d->text - used, "%s%s: the %s has %s, this one %s",
             used > 0 ? "; " : "", key, d->run, old, new);
}

/* Keys that follow from others, and that earlier versions do not write: there they may be absent.
 */
static bool may_be_absent(const char *key)
{
    return strcmp(key, "calibration.distinct_positions") == 0;
}

static void compare(struct differences *d, const char *key, json_t *before, json_t *now)
{
    char inner[KEY_BYTES];
    const char *name;
    json_t *value;
    const char *dot = key[0] != '\0' ? "." : "";
    if (json_equal(before, now)) return;
    if (!json_is_object(before) || !json_is_object(now)) {
        add_difference(d, key, before, now);
        return;
    }
    json_object_foreach(before, name, value)
    {
        snprintf(inner, sizeof inner, "%s%s%s", key, dot, name);
        compare(d, inner, value, json_object_get(now, name));
    }
    json_object_foreach(now, name, value)
    {
        snprintf(inner, sizeof inner, "%s%s%s", key, dot, name);
        if (json_object_get(before, name) == NULL && !may_be_absent(inner))
            compare(d, inner, NULL, value);
    }
}

snrq_status snrq_configuration_compare(const char *path, const char *run, const json_t *before,
                                       const json_t *now)
{
    struct differences d = {.run = run};
    char *text = NULL;
    json_t *old = NULL, *new = NULL;
    /* Both as they look after a trip through a file. */
    SNRQ_TRY(snrq_canonical(now, &text));
    snrq_status status = snrq_json_parse("configuration", text, strlen(text), &new);
    free(text);
    SNRQ_TRY(status);
    status = snrq_canonical(before, &text);
    if (status == SNRQ_OK) {
        status = snrq_json_parse(path, text, strlen(text), &old);
        free(text);
    }
    if (status == SNRQ_OK) compare(&d, "", old, new);
    json_decref(old);
    json_decref(new);
    if (status != SNRQ_OK || d.count == 0) return status;
    char more[64] = "";
    if (d.count > SHOWN_DIFFERENCES)
        snprintf(more, sizeof more, "; and %d more", d.count - SHOWN_DIFFERENCES);
    return snrq_fail(SNRQ_USAGE,
                     "%s: the %s here was started differently: %s%s. Run with the same model, text "
                     "and options, or choose another directory",
                     path, run, d.text, more);
}
