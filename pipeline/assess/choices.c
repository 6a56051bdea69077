/* Widths and sizes of groups; see choices.h. */
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

bool snrq_group_size_fits(int64_t size, int64_t usual, int64_t columns)
{
    return size == usual || size == 0 || columns % size == 0;
}
