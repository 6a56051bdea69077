/* What the layers of a model have: windows, and whether heads turn; see config_families.h. */
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "io/config_families.h"
#include "io/json.h"

static const char sliding[] = "sliding_attention", whole[] = "full_attention";

/* The kinds of attention by layer, where they are given. `decides`: a list decides, and
 * not the other keys. */
static snrq_status read_layer_types(const char *path, const json_t *root, bool decides,
                                    snrq_config *c)
{
    char shown[SNRQ_SHOWN];
    json_t *list = json_object_get(root, "layer_types");
    if (list == NULL || json_is_null(list)) return SNRQ_OK;
    SNRQ_TRY(snrq_json_array(path, root, "layer_types", &list));
    if (json_array_size(list) != (size_t)c->layers)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: key \"layer_types\": expected num_hidden_layers %" PRId64
                         " entries, found %zu",
                         path, c->layers, json_array_size(list));
    for (int64_t i = 0; i < c->layers; i++) {
        const char *type = json_string_value(json_array_get(list, (size_t)i));
        bool slides = type != NULL && strcmp(type, sliding) == 0;
        bool known = slides || (type != NULL && strcmp(type, whole) == 0);
        bool expected = snrq_config_window(c, i) > 0;
        if (known && (slides == expected || (decides && c->window > 0)))
            snrq_config_mark(c, i, SNRQ_LAYER_WINDOW, slides);
        else
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: layer_types[%" PRId64 "] is \"%s\"; supported is \"%s\" there, "
                             "as the other keys have it",
                             path, i, type != NULL ? snrq_shown(type, shown) : "no string",
                             expected ? sliding : whole);
    }
    return SNRQ_OK;
}

/* Layers whose heads do not turn: a list of 0 and 1, where 1 means that they do, or every N-th. */
static snrq_status read_turning(const char *path, const json_t *root, snrq_config *c)
{
    static const char key[] = "no_rope_layers";
    const int64_t usual = 4;
    int64_t interval = usual;
    json_t *list = json_object_get(root, key);
    SNRQ_TRY(
        snrq_json_integer(path, root, "no_rope_layer_interval", 1, INT32_MAX, &usual, &interval));
    for (int64_t i = 0; i < c->layers; i++)
        snrq_config_mark(c, i, SNRQ_LAYER_NO_ROPE, (i + 1) % interval == 0);
    if (list == NULL || json_is_null(list)) return SNRQ_OK;
    SNRQ_TRY(snrq_json_array(path, root, key, &list));
    if (json_array_size(list) != (size_t)c->layers)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: key \"%s\": expected num_hidden_layers %" PRId64
                         " entries, found %zu",
                         path, key, c->layers, json_array_size(list));
    for (int64_t i = 0; i < c->layers; i++) {
        const json_t *turns = json_array_get(list, (size_t)i);
        if (!json_is_integer(turns) || json_integer_value(turns) < 0 ||
            json_integer_value(turns) > 1)
            return snrq_fail(SNRQ_BAD_DATA, "%s: %s[%" PRId64 "]: expected 0 or 1, found %s", path,
                             key, i, snrq_json_kind(turns));
        snrq_config_mark(c, i, SNRQ_LAYER_NO_ROPE, json_integer_value(turns) == 0);
    }
    return SNRQ_OK;
}

/* The sliding window, if a layer may have one. */
static snrq_status read_width(const char *path, const json_t *root, const snrq_architecture *a,
                              snrq_config *c)
{
    const int64_t otherwise = snrq_config_assumed(root, "sliding_window", a->window, 0);
    const bool switched = a->windows == SNRQ_WINDOW_IF_USED || a->windows == SNRQ_WINDOW_UPPER ||
                          a->windows == SNRQ_WINDOW_WITHOUT_ROPE;
    bool used = true;
    int64_t window = 0;
    SNRQ_TRY(snrq_json_integer(path, root, "sliding_window", 1, INT32_MAX, &otherwise, &window));
    if (switched) SNRQ_TRY(snrq_json_boolean(path, root, "use_sliding_window", false, &used));
    if (a->windows == SNRQ_NO_WINDOW && window > 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: sliding_window %" PRId64 " is not supported for %s (supported: null)",
                         path, window, a->name);
    c->window = used ? window : 0;
    return SNRQ_OK;
}

static snrq_status read_windows(const char *path, const json_t *root, const snrq_architecture *a,
                                snrq_config *c)
{
    const int64_t usual_layers = 28;
    int64_t first = 0, period = a->window_period > 0 ? a->window_period : 1;
    SNRQ_TRY(read_width(path, root, a, c));
    if (a->windows == SNRQ_WINDOW_UPPER)
        SNRQ_TRY(snrq_json_integer(path, root, "max_window_layers", 0, INT32_MAX, &usual_layers,
                                   &first));
    /* Only Gemma 3 has a key for it; Gemma 2 alternates. */
    if (a->window_period > 2) {
        SNRQ_TRY(snrq_json_integer(path, root, "_sliding_window_pattern", 1, INT32_MAX, &period,
                                   &period));
        SNRQ_TRY(snrq_json_integer(path, root, "sliding_window_pattern", 1, INT32_MAX, &period,
                                   &period));
    }
    for (int64_t i = 0; i < c->layers; i++) {
        bool there = i >= first;
        if (a->windows == SNRQ_WINDOW_BUT_EVERY_NTH) there = (i + 1) % period != 0;
        if (a->windows == SNRQ_WINDOW_WITHOUT_ROPE)
            there = snrq_config_layer(c, i, SNRQ_LAYER_NO_ROPE);
        snrq_config_mark(c, i, SNRQ_LAYER_WINDOW, c->window > 0 && there);
    }
    SNRQ_TRY(read_layer_types(path, root, a->windows >= SNRQ_WINDOW_UPPER, c));
    for (int64_t i = 0; i < c->layers && a->local_theta > 0.0; i++)
        snrq_config_mark(c, i, SNRQ_LAYER_LOCAL, snrq_config_layer(c, i, SNRQ_LAYER_WINDOW));
    return SNRQ_OK;
}

snrq_status snrq_config_read_layers(const char *path, const json_t *root,
                                    const snrq_architecture *a, snrq_config *c)
{
    if (a->turns_in_part) SNRQ_TRY(read_turning(path, root, c));
    return read_windows(path, root, a, c);
}

int64_t snrq_config_window(const snrq_config *c, int64_t layer)
{
    return snrq_config_layer(c, layer, SNRQ_LAYER_WINDOW) ? c->window : 0;
}

int64_t snrq_config_layers_with(const snrq_config *c, int flag)
{
    int64_t count = 0;
    for (int64_t i = 0; i < c->layers; i++) count += snrq_config_layer(c, i, flag);
    return count;
}
