/* Widths, sizes of groups and formats; see choices.h. */
#include "pipeline/assess/choices.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { USUAL_BITS = 3 };

static bool parse_widths(const char *text, snrq_choices *out)
{
    for (const char *at = text; out->widths < SNRQ_MOST_WIDTHS; at += 2) {
        int last = out->widths > 0 ? out->bits[out->widths - 1] : 1;
        if (at[0] < '2' || at[0] > '8' || at[0] - '0' <= last) return false;
        out->bits[out->widths++] = at[0] - '0';
        if (at[1] == '\0') return true;
        if (at[1] != ',') return false;
    }
    return false;
}

static bool add_size(snrq_choices *out, int64_t size)
{
    for (int i = 0; i < out->sizes; i++)
        if (out->group_size[i] == size) return true;
    if (out->sizes == SNRQ_MOST_SIZES) return false;
    out->group_size[out->sizes++] = size;
    return true;
}

static bool parse_sizes(const char *text, snrq_choices *out)
{
    static const char whole[] = "channel";
    for (const char *at = text;; at++) {
        char *end = (char *)at + sizeof whole - 1;
        long long size = 0;
        errno = 0;
        if (strncmp(at, whole, sizeof whole - 1) != 0) {
            size = strtoll(at, &end, 10);
            if (at[0] < '1' || at[0] > '9' || errno != 0 || size > 1 << 20) return false;
        }
        if (!add_size(out, size)) return false;
        at = end;
        if (*at == '\0') return true;
        if (*at != ',') return false;
    }
}

snrq_status snrq_choices_parse(const char *widths, const char *group_sizes, int64_t group_size,
                               snrq_choices *out)
{
    *out = (snrq_choices){.sizes = 1, .group_size = {group_size}};
    if (!parse_widths(widths, out))
        return snrq_fail(SNRQ_USAGE, "--widths: expected 2 to 8, growing, as in 2,3,4,8; found %s",
                         widths);
    while (out->usual + 1 < out->widths && out->bits[out->usual] < USUAL_BITS) out->usual++;
    if (strcmp(group_sizes, "auto") == 0) {
        if (group_size == 0) return SNRQ_OK;
        add_size(out, 2 * group_size);
        add_size(out, 0);
        return SNRQ_OK;
    }
    if (parse_sizes(group_sizes, out)) return SNRQ_OK;
    return snrq_fail(SNRQ_USAGE,
                     "--group-sizes: expected auto, or up to %d sizes as in 64,128,channel, "
                     "--group-size among them; found %s",
                     (int)SNRQ_MOST_SIZES, group_sizes);
}

/* The name of this length. */
static const snrq_weight_format *find_format(const char *name, size_t length)
{
    for (int i = 0; i < SNRQ_WEIGHT_FORMATS; i++) {
        const snrq_weight_format *f = &snrq_weight_formats[i];
        if (strlen(f->name) == length && strncmp(f->name, name, length) == 0) return f;
    }
    return NULL;
}

static bool add_format(const snrq_weight_format *format, snrq_choices *out)
{
    for (int i = 0; i < out->formats; i++)
        if (out->format[i] == format) return false;
    if (format != NULL) out->format[out->formats++] = format;
    return format != NULL;
}

snrq_status snrq_choices_add_formats(const char *text, snrq_choices *out)
{
    for (const char *at = text; at != NULL; at = strchr(at, ',')) {
        at += at != text;
        if (!add_format(find_format(at, strcspn(at, ",")), out))
            return snrq_fail(SNRQ_USAGE,
                             "--formats: expected names of --format, each once, as in "
                             "q3_k,q4_k,q6_k; found %s",
                             text);
    }
    return SNRQ_OK;
}

int snrq_choices_count(const snrq_choices *c)
{
    return c->widths * c->sizes + c->formats;
}

void snrq_choice_set(const snrq_choices *c, int choice, int64_t columns, snrq_rule *rule)
{
    const int integers = c->widths * c->sizes;
    if (choice >= integers) {
        snrq_rule_set_format(rule, snrq_weight_format_for(c->format[choice - integers], columns));
        return;
    }
    rule->bits = c->bits[choice / c->sizes];
    rule->group_size = c->group_size[choice % c->sizes];
}

json_t *snrq_choice_describe(const snrq_choices *c, int choice)
{
    const int integers = c->widths * c->sizes;
    if (choice < integers)
        return json_pack("{s:i, s:I}", "bits", c->bits[choice / c->sizes], "group_size",
                         (json_int_t)c->group_size[choice % c->sizes]);
    const snrq_weight_format *f = c->format[choice - integers];
    return json_pack("{s:i, s:I, s:s}", "bits", f->bits, "group_size", (json_int_t)f->group,
                     "format", f->name);
}

const snrq_weight_format *snrq_choices_unfit(const snrq_choices *c, int64_t columns)
{
    for (int i = 0; i < c->formats; i++)
        if (snrq_weight_format_for(c->format[i], columns) == NULL) return c->format[i];
    return NULL;
}

bool snrq_group_size_fits(int64_t size, int64_t usual, int64_t columns)
{
    return size == usual || size == 0 || columns % size == 0;
}
