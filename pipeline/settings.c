/* Options in snrq.json; see settings.h. */
#include "pipeline/settings.h"

#include <stdio.h>
#include <string.h>

#include "mpi/algebra/matrix.h"
#include "pipeline/options.h"

enum { MANY_RANKS = 1 << 20 };

/* Is a row of every module one group? */
static bool is_per_channel(const json_t *size, const snrq_family *f)
{
    return json_is_integer(size) && json_integer_value(size) >= (json_int_t)f->max_columns;
}

/* Is this grid that of every module, on any number of ranks? */
static bool is_chosen_grid(const char *text, const snrq_family *f)
{
    int rows = 0, columns = 0;
    if (text == NULL || strcmp(text, "1x1") != 0) return false;
    snrq_process_grid_shape(f->max_columns, MANY_RANKS, &rows, &columns);
    return rows == 1 && columns == 1;
}

snrq_status snrq_settings_resolve(json_t *options, const json_t *calibration, const snrq_family *f)
{
    static const char *const measured[] = {"sequences", "length"};
    int failed = 0;
    for (size_t i = 0; i < sizeof measured / sizeof *measured; i++) {
        json_t *value = json_object_get(calibration, measured[i]);
        if (value != NULL) failed |= json_object_set(options, measured[i], value);
    }
    if (is_per_channel(json_object_get(options, "group-size"), f))
        failed |= json_object_set_new(options, "group-size", json_string("channel"));
    if (is_chosen_grid(json_string_value(json_object_get(options, "factor-grid")), f))
        failed |= json_object_set_new(options, "factor-grid", json_null());
    return failed == 0 ? SNRQ_OK : snrq_fail(SNRQ_INTERNAL, "no memory for the options");
}

/* *out: the resolved options of an earlier run, as this version would store them; NULL if it has
 * none that are understood. New reference. */
static snrq_status resolve_before(const json_t *before, const snrq_family *f, json_t **out)
{
    snrq_options restored;
    const json_t *old = json_object_get(before, "options");
    *out = NULL;
    snrq_status status = json_is_object(old) ? snrq_options_restore(old, &restored) : SNRQ_USAGE;
    if (status != SNRQ_OK) return status == SNRQ_USAGE ? SNRQ_OK : status;
    *out = snrq_options_stored(&restored);
    if (*out == NULL) return snrq_fail(SNRQ_INTERNAL, "no memory for the options");
    status = snrq_settings_resolve(*out, json_object_get(before, "calibration"), f);
    if (status != SNRQ_OK) json_decref(*out);
    if (status != SNRQ_OK) *out = NULL;
    return status;
}

snrq_status snrq_settings_adopt(json_t *now, const json_t *before, const snrq_family *f)
{
    json_t *options = json_object_get(now, "options"), *old = NULL;
    const char *name;
    json_t *value;
    void *next;
    int failed = 0;
    SNRQ_TRY(resolve_before(before, f, &old));
    if (old == NULL) return SNRQ_OK;
    json_object_foreach_safe(options, next, name, value)
    {
        json_t *written = json_object_get(json_object_get(before, "options"), name);
        if (!json_equal(value, json_object_get(old, name))) continue;
        failed |= written != NULL ? json_object_set(options, name, written)
                                  : json_object_del(options, name);
    }
    json_decref(old);
    return failed == 0 ? SNRQ_OK : snrq_fail(SNRQ_INTERNAL, "no memory for the options");
}
