/* Values of options; see row.h. */
#include "pipeline/options/row.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Position of `value` among "a|b|c", or -1. */
static int64_t choice_index(const char *choices, const char *value)
{
    size_t length = strlen(value);
    int64_t index = 0;
    for (const char *at = choices; at != NULL; index++) {
        const char *end = strchr(at, '|');
        size_t size = end ? (size_t)(end - at) : strlen(at);
        if (size == length && memcmp(at, value, size) == 0) return index;
        at = end ? end + 1 : NULL;
    }
    return -1;
}

/* Copies the index-th of "a|b|c" to out. */
static void choice_name(const char *choices, int64_t index, char *out, size_t size)
{
    const char *at = choices;
    while (index-- > 0) at = strchr(at, '|') + 1;
    const char *end = strchr(at, '|');
    snprintf(out, size, "%.*s", end ? (int)(end - at) : (int)strlen(at), at);
}

static snrq_status parse_number(const snrq_option_row *row, const char *value, double *out)
{
    char *end = NULL;
    errno = 0;
    *out = strtod(value, &end);
    bool whole = row->kind == REAL || row->kind == SHARE || *out == floor(*out);
    if (end == value || *end != '\0' || errno != 0 || !whole ||
        !(*out >= row->low && *out <= row->high))
        return snrq_fail(SNRQ_USAGE, "--%s: expected %s from %.15g to %.15g, found '%s'", row->name,
                         row->kind == REAL || row->kind == SHARE ? "a number" : "a whole number",
                         row->low, row->high, value);
    return SNRQ_OK;
}

/* A number of bytes with an optional unit: 5GB, 500 MB, 2GiB. */
static snrq_status parse_size(const snrq_option_row *row, const char *value, int64_t *out)
{
    static const struct {
        const char *name;
        double bytes;
    } units[] = {{"", 1},      {"KB", 1e3},      {"MB", 1e6},      {"GB", 1e9},
                 {"TB", 1e12}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}};
    char *end = NULL;
    double number = strtod(value, &end);
    while (*end == ' ') end++;
    for (size_t i = 0; i < sizeof units / sizeof units[0] && end != value; i++) {
        double bytes = number * units[i].bytes;
        if (strcmp(end, units[i].name) != 0 || !(bytes >= row->low && bytes <= row->high)) continue;
        *out = (int64_t)bytes;
        return SNRQ_OK;
    }
    return snrq_fail(SNRQ_USAGE,
                     "--%s: expected a number of bytes such as 5GB, 500MB or 2GiB, found '%s'",
                     row->name, value);
}

/* "90s", "45m", "11.5h" or "[H:]MM:SS". A bare number is refused: it is minutes to Slurm, and
 * seconds to others. */
static snrq_status parse_time(const snrq_option_row *row, const char *value, double *out)
{
    char *end = NULL, rest;
    int hours = 0, minutes = 0, seconds = 0;
    double unit = 0;
    errno = 0;
    *out = strtod(value, &end);
    if (end != value && errno == 0 && end[0] != '\0' && end[1] == '\0')
        unit = end[0] == 's' ? 1 : end[0] == 'm' ? 60 : end[0] == 'h' ? 3600 : 0;
    *out *= unit;
    if (unit == 0 && sscanf(value, "%6d:%2d:%2d%c", &hours, &minutes, &seconds, &rest) != 3) {
        hours = 0;
        if (sscanf(value, "%6d:%2d%c", &minutes, &seconds, &rest) != 2) minutes = -1;
    }
    if (unit == 0) *out = hours * 3600.0 + minutes * 60.0 + seconds;
    if (hours < 0 || minutes < 0 || seconds < 0 || seconds > 59 ||
        !(*out >= row->low && *out <= row->high))
        return snrq_fail(SNRQ_USAGE,
                         "--%s: expected a time such as 90s, 45m, 11.5h or 11:30:00, found '%s'",
                         row->name, value);
    return SNRQ_OK;
}

static snrq_status add_text(const snrq_option_row *row, const char *value, snrq_options *o)
{
    const char **first = (const char **)(void *)((char *)o + row->field);
    if (o->texts.count == SNRQ_MOST_TEXTS)
        return snrq_fail(SNRQ_USAGE, "--%s: %s is text number %d: expected at most %d; join some",
                         row->name, value, o->texts.count + 1, (int)SNRQ_MOST_TEXTS);
    if (*first == NULL) *first = value;
    o->texts.path[o->texts.count++] = value;
    return SNRQ_OK;
}

snrq_status snrq_option_set(const snrq_option_row *row, const char *value, snrq_options *o)
{
    char *field = (char *)o + row->field;
    double number = 0;
    switch (row->kind) {
    case TEXT:
        *(const char **)(void *)field = value;
        return SNRQ_OK;
    case TEXTS:
        return add_text(row, value, o);
    case FLAG:
        *(bool *)(void *)field = row->low != 0;
        return SNRQ_OK;
    case SHARE:
        if (strcmp(value, "auto") == 0) {
            *(double *)(void *)field = SNRQ_AUTO;
            return SNRQ_OK;
        }
        __attribute__((fallthrough));
    case REAL:
        SNRQ_TRY(parse_number(row, value, &number));
        *(double *)(void *)field = number;
        return SNRQ_OK;
    case TIME:
        return parse_time(row, value, (double *)(void *)field);
    case GROUP:
        if (strcmp(value, "channel") == 0) {
            *(int64_t *)(void *)field = 0;
            return SNRQ_OK;
        }
        __attribute__((fallthrough));
    case COUNT:
        if (row->kind == COUNT && strcmp(value, "auto") == 0) {
            *(int64_t *)(void *)field = 0;
            return SNRQ_OK;
        }
        __attribute__((fallthrough));
    case INTEGER:
        SNRQ_TRY(parse_number(row, value, &number));
        *(int64_t *)(void *)field = (int64_t)number;
        return SNRQ_OK;
    case SIZE:
        return parse_size(row, value, (int64_t *)(void *)field);
    case CHOICE:
        number = (double)choice_index(row->choices, value);
        if (number < 0)
            return snrq_fail(SNRQ_USAGE, "--%s: expected one of %s, found '%s'", row->name,
                             row->choices, value);
        *(int64_t *)(void *)field = (int64_t)number;
        return SNRQ_OK;
    }
    return snrq_fail(SNRQ_INTERNAL, "--%s: no such kind of option", row->name);
}

bool snrq_option_has_value(const snrq_option_row *row, const snrq_options *o)
{
    const char *field = (const char *)o + row->field;
    switch (row->kind) {
    case TEXT:
    case TEXTS:
        return *(const char *const *)(const void *)field != NULL;
    case CHOICE:
        return *(const int64_t *)(const void *)field >= 0;
    case FLAG:
        return *(const bool *)(const void *)field == (row->low != 0);
    case TIME:
        return row->fallback != NULL || *(const double *)(const void *)field > 0;
    default:
        return true;
    }
}

/* The shortest of two forms that is read back as the same number. */
static void number_text(double value, const char *unit, char *out, size_t size)
{
    snprintf(out, size, "%.15g%s", value, unit);
    if (strtod(out, NULL) != value) snprintf(out, size, "%.17g%s", value, unit);
}

static const char *alpha_text(const snrq_options *o, char *room)
{
    static const char *const names[] = {[SNRQ_ALPHA_FIXED] = "fixed:",
                                        [SNRQ_ALPHA_SAMPLED] = "sampled:",
                                        [SNRQ_ALPHA_CHAINED] = "chained",
                                        [SNRQ_ALPHA_CORR] = "corr",
                                        [SNRQ_ALPHA_AUTO] = "auto"};
    size_t used = (size_t)snprintf(room, SNRQ_OPTION_VALUE, "%s", names[o->alpha_mode]);
    if (o->alpha_mode == SNRQ_ALPHA_FIXED || o->alpha_mode == SNRQ_ALPHA_SAMPLED)
        number_text(o->alpha_value, "", room + used, SNRQ_OPTION_VALUE - used);
    return room;
}

const char *snrq_option_value(const snrq_option_row *row, const snrq_options *o, char *room)
{
    const char *field = (const char *)o + row->field;
    switch (row->kind) {
    case TEXT:
        if (row->field == offsetof(snrq_options, alpha_text)) return alpha_text(o, room);
        __attribute__((fallthrough));
    case TEXTS:
        return *(const char *const *)(const void *)field;
    case FLAG:
        return "";
    case SHARE:
        if (*(const double *)(const void *)field == SNRQ_AUTO) return "auto";
        __attribute__((fallthrough));
    case REAL:
    case TIME:
        number_text(*(const double *)(const void *)field, row->kind == TIME ? "s" : "", room,
                    SNRQ_OPTION_VALUE);
        return room;
    case CHOICE:
        choice_name(row->choices, *(const int64_t *)(const void *)field, room, SNRQ_OPTION_VALUE);
        return room;
    case GROUP:
        if (*(const int64_t *)(const void *)field == 0) return "channel";
        __attribute__((fallthrough));
    case COUNT:
        if (row->kind == COUNT && *(const int64_t *)(const void *)field == 0) return "auto";
        __attribute__((fallthrough));
    case SIZE:
    case INTEGER:
        snprintf(room, SNRQ_OPTION_VALUE, "%lld", (long long)*(const int64_t *)(const void *)field);
        return room;
    }
    return "";
}

snrq_status snrq_option_alpha(const char *text, snrq_alpha_mode *mode, double *value)
{
    const snrq_option_row fixed = {.name = "alpha fixed", .kind = REAL, .low = 0, .high = 1};
    const snrq_option_row sampled = {
        .name = "alpha sampled", .kind = REAL, .low = 0.1, .high = 1000};
    *value = 0;
    if (strncmp(text, "fixed:", 6) == 0) {
        *mode = SNRQ_ALPHA_FIXED;
        return parse_number(&fixed, text + 6, value);
    }
    if (strncmp(text, "sampled:", 8) == 0) {
        *mode = SNRQ_ALPHA_SAMPLED;
        return parse_number(&sampled, text + 8, value);
    }
    *mode = SNRQ_ALPHA_AUTO;
    if (strcmp(text, "auto") == 0) return SNRQ_OK;
    *mode = strcmp(text, "chained") == 0 ? SNRQ_ALPHA_CHAINED : SNRQ_ALPHA_CORR;
    if (*mode == SNRQ_ALPHA_CORR && strcmp(text, "corr") != 0)
        return snrq_fail(SNRQ_USAGE,
                         "--alpha: expected auto, fixed:V, sampled:B, chained or corr, found '%s'",
                         text);
    return SNRQ_OK;
}
