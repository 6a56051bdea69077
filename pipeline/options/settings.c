/* Options in snrq.json; see settings.h. */
#include "pipeline/options/settings.h"

#include <stdio.h>
#include <string.h>

#include "pipeline/options/options.h"

/* Is a row of every module one group? */
static bool is_per_channel(const json_t *size, int64_t columns)
{
    return json_is_integer(size) && json_integer_value(size) >= (json_int_t)columns;
}

snrq_status snrq_settings_resolve(json_t *options, const json_t *calibration, int64_t columns)
{
    static const char *const measured[] = {"sequences", "length"};
    int failed = 0;
    for (size_t i = 0; i < sizeof measured / sizeof *measured; i++) {
        json_t *value = json_object_get(calibration, measured[i]);
        if (value != NULL) failed |= json_object_set(options, measured[i], value);
    }
    if (is_per_channel(json_object_get(options, "group-size"), columns))
        failed |= json_object_set_new(options, "group-size", json_string("channel"));
    return failed == 0 ? SNRQ_OK : snrq_fail(SNRQ_INTERNAL, "no memory for the options");
}

/* *out: the resolved options of an earlier run, as this version would store them; NULL if it has
 * none that are understood. New reference. */
static snrq_status resolve_before(const json_t *before, int64_t columns, json_t **out)
{
    snrq_options restored;
    const json_t *old = json_object_get(before, "options");
    *out = NULL;
    snrq_status status = json_is_object(old) ? snrq_options_restore(old, &restored) : SNRQ_USAGE;
    if (status != SNRQ_OK) return status == SNRQ_USAGE ? SNRQ_OK : status;
    *out = snrq_options_stored(&restored);
    if (*out == NULL) return snrq_fail(SNRQ_INTERNAL, "no memory for the options");
    status = snrq_settings_resolve(*out, json_object_get(before, "calibration"), columns);
    if (status != SNRQ_OK) json_decref(*out);
    if (status != SNRQ_OK) *out = NULL;
    return status;
}

snrq_status snrq_settings_adopt(json_t *now, const json_t *before, int64_t columns)
{
    json_t *options = json_object_get(now, "options"), *old = NULL;
    const char *name;
    json_t *value;
    void *next;
    int failed = 0;
    SNRQ_TRY(resolve_before(before, columns, &old));
    if (old == NULL) return SNRQ_OK;
    json_object_foreach_safe(options, next, name, value)
    {
        json_t *written = json_object_get(json_object_get(before, "options"), name);
        if (!json_equal(value, json_object_get(old, name))) continue;
        failed |= written != NULL ? json_object_set(options, name, written)
                                  : json_object_del(options, name);
    }
    json_decref(old);
    /* Was stored when results depended on it. */
    value = json_object_get(json_object_get(before, "options"), "factor-grid");
    if (value != NULL) failed |= json_object_set(options, "factor-grid", value);
    return failed == 0 ? SNRQ_OK : snrq_fail(SNRQ_INTERNAL, "no memory for the options");
}
