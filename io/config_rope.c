/* The rope settings of config.json; see config_rope.h.
 *
 * Source: transformers' modeling_rope_utils. The settings are an object, rope_scaling or (since
 * version 5) rope_parameters, whose type decides which of its other keys matter. rope_theta,
 * partial_rotary_factor and original_max_position_embeddings may also stand beside it.
 */
#include "io/config_rope.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "io/json.h"

static const char *const type_names[] = {"default", "linear", "llama3", "longrope", "yarn"};

const char *snrq_rope_type_name(snrq_rope_type type)
{
    return type_names[type];
}

/* The object of settings: NULL if there is none, or it is null; *name is its key. */
static snrq_status find_object(const char *path, const json_t *root, const char **name,
                               const json_t **out)
{
    static const char *const names[] = {"rope_scaling", "rope_parameters"};
    *out = NULL;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const json_t *object = json_object_get(root, names[i]);
        if (object == NULL || json_is_null(object)) continue;
        if (!json_is_object(object))
            return snrq_fail(SNRQ_BAD_DATA, "%s: key \"%s\": expected an object or null, found %s",
                             path, names[i], snrq_json_kind(object));
        if (*out != NULL && !json_equal((json_t *)*out, (json_t *)object))
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: \"rope_scaling\" and \"rope_parameters\" are both there and "
                             "differ; expected one of them",
                             path);
        *name = names[i];
        *out = object;
    }
    return SNRQ_OK;
}

/* What would need another forward pass. */
static snrq_status check_object(const char *where, const json_t *object, snrq_rope_type type)
{
    static const char *const strange[] = {"mscale", "mscale_all_dim", "short_mscale", "long_mscale",
                                          "mrope_section"};
    const char *key;
    json_t *value;
    char shown[SNRQ_SHOWN];
    json_object_foreach((json_t *)object, key, value)
    {
        if (json_is_object(value))
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: separate settings per kind of layer (\"%s\") are not supported",
                             where, snrq_shown(key, shown));
    }
    for (size_t i = 0; i < sizeof strange / sizeof strange[0]; i++) {
        value = json_object_get(object, strange[i]);
        if (value == NULL || json_is_null(value) || (type == SNRQ_ROPE_YARN && i < 2)) continue;
        return snrq_fail(SNRQ_BAD_DATA, "%s: key \"%s\" is not supported; expected none", where,
                         strange[i]);
    }
    return SNRQ_OK;
}

static snrq_status read_type(const char *path, const char *where, const json_t *object,
                             const snrq_architecture *a, snrq_rope_type *out)
{
    const char *older, *type;
    SNRQ_TRY(snrq_json_string(where, object, "type", "default", &older));
    SNRQ_TRY(snrq_json_string(where, object, "rope_type", older, &type));
    if (a->older_longrope && (strcmp(type, "su") == 0 || strcmp(type, "yarn") == 0))
        type = type_names[SNRQ_ROPE_LONGROPE];
    for (size_t i = 0; i < sizeof type_names / sizeof type_names[0]; i++)
        if (strcmp(type, type_names[i]) == 0) {
            *out = (snrq_rope_type)i;
            return SNRQ_OK;
        }
    return snrq_config_refuse(path, "rope type", type, "default, linear, llama3, longrope, yarn");
}

static snrq_status read_factors(const char *where, const json_t *object, const char *key,
                                int64_t count, double *out)
{
    json_t *list;
    SNRQ_TRY(snrq_json_array(where, object, key, &list));
    if (json_array_size(list) != (size_t)count)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: key \"%s\": expected %" PRId64
                         " factors (half of the dimensions of a head that turn), found %zu",
                         where, key, count, json_array_size(list));
    for (size_t i = 0; i < (size_t)count; i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_number(value))
            return snrq_fail(SNRQ_BAD_DATA, "%s: %s[%zu]: expected a number, found %s", where, key,
                             i, snrq_json_kind(value));
        out[i] = json_number_value(value);
        if (!(out[i] >= 1e-6 && out[i] <= 1e9))
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: %s[%zu]: expected a number from 1e-6 to 1e9, found %g", where,
                             key, i, out[i]);
    }
    return SNRQ_OK;
}

/* The context before its extension: beside the object, in it, or what the architecture says. */
static snrq_status read_original(const char *path, const json_t *root, const char *where,
                                 const json_t *object, const snrq_architecture *a, snrq_config *c)
{
    static const char key[] = "original_max_position_embeddings";
    int64_t otherwise = a->original_positions > 0 ? a->original_positions : c->max_positions;
    SNRQ_TRY(snrq_json_integer(where, object, key, 2, INT32_MAX, &otherwise, &otherwise));
    return snrq_json_integer(path, root, key, 2, INT32_MAX, &otherwise,
                             &c->rope.original_positions);
}

static snrq_status read_llama3(const char *where, const json_t *object, snrq_rope_config *rope)
{
    SNRQ_TRY(
        snrq_json_number(where, object, "low_freq_factor", 1e-6, 1e6, NULL, &rope->low_frequency));
    SNRQ_TRY(snrq_json_number(where, object, "high_freq_factor", 1e-6, 1e6, NULL,
                              &rope->high_frequency));
    if (rope->high_frequency <= rope->low_frequency)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: high_freq_factor is %g, expected more than low_freq_factor %g", where,
                         rope->high_frequency, rope->low_frequency);
    return SNRQ_OK;
}

/* How much the logarithm of the stretch adds to cos and sin. */
static double yarn_scale(double factor, double weight)
{
    return factor > 1.0 ? 0.1 * weight * log(factor) + 1.0 : 1.0;
}

static snrq_status read_yarn(const char *where, const json_t *object, const snrq_config *c,
                             snrq_rope_config *rope)
{
    const double fast = 32.0, slow = 1.0, none = 0.0;
    const double stretch = (double)c->max_positions / (double)rope->original_positions;
    double scale = 0.0, suggested;
    SNRQ_TRY(snrq_json_number(where, object, "factor", 1e-3, 1e9, &stretch, &rope->factor));
    SNRQ_TRY(snrq_json_number(where, object, "beta_fast", 1e-6, 1e9, &fast, &rope->beta_fast));
    SNRQ_TRY(snrq_json_number(where, object, "beta_slow", 1e-6, 1e9, &slow, &rope->beta_slow));
    SNRQ_TRY(snrq_json_boolean(where, object, "truncate", true, &rope->truncate));
    SNRQ_TRY(snrq_json_number(where, object, "mscale", 0.0, 1e6, &none, &scale));
    SNRQ_TRY(
        snrq_json_number(where, object, "mscale_all_dim", 0.0, 1e6, &none, &rope->all_dimensions));
    suggested = yarn_scale(rope->factor, 1.0);
    if (scale > 0.0 && rope->all_dimensions > 0.0)
        suggested =
            yarn_scale(rope->factor, scale) / yarn_scale(rope->factor, rope->all_dimensions);
    return snrq_json_number(where, object, "attention_factor", 1e-3, 1e3, &suggested,
                            &rope->attention_factor);
}

static snrq_status read_longrope(const char *where, const json_t *object, snrq_config *c)
{
    snrq_rope_config *rope = &c->rope;
    int64_t count = rope->dimensions / 2;
    double original = (double)rope->original_positions;
    double stretch = (double)c->max_positions / original, suggested = 1.0;
    if (count > SNRQ_MAX_ROPE_FACTORS)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: longrope with %" PRId64 " factors; expected at most %d", where, count,
                         (int)SNRQ_MAX_ROPE_FACTORS);
    SNRQ_TRY(read_factors(where, object, "short_factor", count, rope->short_factor));
    SNRQ_TRY(read_factors(where, object, "long_factor", count, rope->long_factor));
    SNRQ_TRY(snrq_json_number(where, object, "factor", 1e-3, 1e9, &stretch, &stretch));
    if (stretch > 1.0) suggested = sqrt(1.0 + log(stretch) / log(original));
    return snrq_json_number(where, object, "attention_factor", 1e-3, 1e3, &suggested,
                            &rope->attention_factor);
}

/* How much of a head turns. */
static snrq_status read_dimensions(const char *path, const json_t *root, const char *where,
                                   const json_t *object, const snrq_architecture *a, snrq_config *c)
{
    static const char key[] = "partial_rotary_factor";
    double share = 1.0;
    SNRQ_TRY(snrq_json_number(path, root, key, 0.0, 1.0, &share, &share));
    SNRQ_TRY(snrq_json_number(where, object, key, 0.0, 1.0, &share, &share));
    if (share < 1.0 && !a->partial_rope)
        return snrq_fail(SNRQ_BAD_DATA, "%s: %s %g is not supported for %s (supported: 1)", path,
                         key, share, a->name);
    if (c->latent.keys > 0) {
        c->rope.first = c->latent.unturned;
        c->rope.dimensions = c->latent.turned;
        return SNRQ_OK;
    }
    c->rope.dimensions = (int64_t)((double)c->head_dim * share);
    if (c->rope.dimensions < 2 || c->rope.dimensions % 2 != 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: %s %g of head_dim %" PRId64 " makes %" PRId64
                         " dimensions; expected an even number from 2 (RoPE turns pairs)",
                         path, key, share, c->head_dim, c->rope.dimensions);
    return SNRQ_OK;
}

/* The settings of `object`; NULL: none. */
static snrq_status read_settings(const char *path, const json_t *root, const char *where,
                                 const json_t *object, const snrq_architecture *a, snrq_config *c)
{
    snrq_rope_config *rope = &c->rope;
    SNRQ_TRY(read_dimensions(path, root, where, object, a, c));
    if (object == NULL) return SNRQ_OK;
    SNRQ_TRY(read_type(path, where, object, a, &rope->type));
    SNRQ_TRY(check_object(where, object, rope->type));
    SNRQ_TRY(snrq_json_number(where, object, "rope_theta", 1e-3, 1e18, &rope->theta, &rope->theta));
    if (rope->type == SNRQ_ROPE_LINEAR || rope->type == SNRQ_ROPE_LLAMA3)
        SNRQ_TRY(snrq_json_number(where, object, "factor", 1e-3, 1e9, NULL, &rope->factor));
    if (rope->type >= SNRQ_ROPE_LLAMA3) SNRQ_TRY(read_original(path, root, where, object, a, c));
    if (rope->type == SNRQ_ROPE_LLAMA3) return read_llama3(where, object, rope);
    if (rope->type == SNRQ_ROPE_LONGROPE) return read_longrope(where, object, c);
    if (rope->type == SNRQ_ROPE_YARN) return read_yarn(where, object, c, rope);
    return SNRQ_OK;
}

/* Layers with a window turn by another base, and are not stretched. `object`: settings of their
 * own, or NULL. */
static snrq_status read_local(const char *path, const json_t *root, const char *where,
                              const json_t *object, const snrq_architecture *a, snrq_config *c)
{
    snrq_rope_config *rope = &c->local_rope;
    snrq_rope_type type = SNRQ_ROPE_DEFAULT;
    const double theta = a->local_theta;
    *rope = (snrq_rope_config){.dimensions = c->rope.dimensions, .attention_factor = 1.0};
    SNRQ_TRY(
        snrq_json_number(path, root, "rope_local_base_freq", 1e-3, 1e18, &theta, &rope->theta));
    if (object == NULL) return SNRQ_OK;
    SNRQ_TRY(read_type(path, where, object, a, &type));
    if (type != SNRQ_ROPE_DEFAULT)
        return snrq_config_refuse(path, "rope type of sliding_attention", type_names[type],
                                  "default");
    return snrq_json_number(where, object, "rope_theta", 1e-3, 1e18, &rope->theta, &rope->theta);
}

/* The settings of a kind of layer in `object`, or NULL. */
static const json_t *settings_of(const json_t *object, const char *kind)
{
    const json_t *found = json_object_get(object, kind);
    return json_is_object(found) ? found : NULL;
}

snrq_status snrq_config_read_rope(const char *path, const json_t *root, const snrq_architecture *a,
                                  snrq_config *c)
{
    const double theta = a->theta > 0.0 ? a->theta : 10000.0;
    const char *name = "rope_parameters";
    const json_t *object = NULL, *local = NULL;
    char where[PATH_MAX + 64];
    c->rope.attention_factor = 1.0;
    SNRQ_TRY(find_object(path, root, &name, &object));
    SNRQ_TRY(snrq_json_number(path, root, "rope_theta", 1e-3, 1e18, &theta, &c->rope.theta));
    snprintf(where, sizeof where, "%s: %s", path, name);
    if (a->local_theta > 0.0) {
        local = settings_of(object, "sliding_attention");
        if (local != NULL || settings_of(object, "full_attention") != NULL)
            object = settings_of(object, "full_attention");
    }
    SNRQ_TRY(read_settings(path, root, where, object, a, c));
    return a->local_theta > 0.0 ? read_local(path, root, where, local, a, c) : SNRQ_OK;
}
