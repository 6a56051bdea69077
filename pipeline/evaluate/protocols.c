/* The protocols of perplexity; see protocols.h. */
#include "pipeline/evaluate/protocols.h"

#include <stdio.h>
#include <string.h>

#include "io/json.h"

/* The first one is taken where none is named. */
static const snrq_protocol table[] = {
    {"consecutive", SNRQ_WINDOWS_CONSECUTIVE, 0, 0},
    {"wikitext2", SNRQ_WINDOWS_WIKITEXT2, 0, 0},
    {"c4", SNRQ_WINDOWS_C4, 256, 0},
    {"c4-snrq", SNRQ_WINDOWS_C4_SNRQ, 256, 0},
    {"c4-new", SNRQ_WINDOWS_C4_NEW, 0, 256},
};
enum { PROTOCOLS = sizeof table / sizeof *table };

static snrq_status find(const char *name, size_t length, const snrq_protocol **out)
{
    char shown[SNRQ_SHOWN], names[128] = "";
    for (int i = 0; i < PROTOCOLS; i++) {
        size_t used = strlen(names);
        if (strlen(table[i].name) == length && memcmp(table[i].name, name, length) == 0) {
            *out = &table[i];
            return SNRQ_OK;
        }
        snprintf(names + used, sizeof names - used, "%s%s", i > 0 ? ", " : "", table[i].name);
    }
    return snrq_fail(SNRQ_USAGE, "--protocol: expected some of %s, separated by commas; found '%s'",
                     names, snrq_shown(name, shown));
}

static snrq_status parse_names(const char *names, const snrq_window_order *windows,
                               snrq_perplexity_order *orders, int *count)
{
    const char *at = names != NULL ? names : table[0].name;
    *count = 0;
    for (;;) {
        size_t length = strcspn(at, ",");
        snrq_perplexity_order *order = &orders[*count];
        if (*count == SNRQ_MOST_PROTOCOLS)
            return snrq_fail(SNRQ_USAGE, "--protocol: more than %d of them",
                             (int)SNRQ_MOST_PROTOCOLS);
        SNRQ_TRY(find(at, length, &order->protocol));
        order->windows = *windows;
        order->windows.rule = order->protocol->rule;
        order->windows.most = order->protocol->most;
        if (windows->count == 0) order->windows.count = order->protocol->count;
        ++*count;
        if (at[length] == '\0') return SNRQ_OK;
        at += length + 1;
    }
}

snrq_status snrq_protocols_parse(const char *names, const snrq_window_order *windows,
                                 snrq_perplexity_order *orders, int *count)
{
    int texts = windows->texts.count;
    SNRQ_TRY(parse_names(names, windows, orders, count));
    if (*count > 1 && texts > 1 && texts != *count)
        return snrq_fail(SNRQ_USAGE,
                         "--protocol names %d protocols, and there are %d texts: give one --text "
                         "for all of them, or one for each, in the same order",
                         *count, texts);
    for (int i = 0; i < *count; i++) {
        snrq_window_order *w = &orders[i].windows;
        if (*count > 1 && texts > 1) {
            w->texts.path += i;
            w->texts.count = 1;
        }
        if (w->token_file != NULL)
            snprintf(orders[i].source, sizeof orders[i].source, "%s", w->token_file);
        else
            snrq_texts_name(&w->texts, orders[i].source, sizeof orders[i].source);
    }
    return SNRQ_OK;
}
