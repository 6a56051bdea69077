/* Records of modules as HDF5 attributes and as JSON; see block_record.h. */
#include "io/checkpoint/block_record.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "io/hdf5/reader.h"
#include "io/hdf5/writer.h"
#include "io/json.h"

/* How the fields of a record are stored; the name is where it belongs in each form. */
enum field_type { TEXT, INTEGER64, INTEGER, FLAG, REAL, REAL_OR_NAN, SCALE_TYPE };
static const struct field {
    enum field_type type;
    const char *name;
    size_t offset, size;
    int optional; /* where it is absent it keeps 0, false, "" */
} fields[] = {
/* SPARSE: optional, and "" or 0 is not written: where there is no such thing, the bytes are those
 * of older versions. */
#define SPARSE 2
#define FIELD(type, name, optional)                                                                \
    {                                                                                              \
        type, #name, offsetof(snrq_module_record, name),                                           \
            sizeof(((snrq_module_record *)NULL)->name), optional                                   \
    }
    FIELD(INTEGER64, rows, false),
    FIELD(INTEGER64, columns, false),
    FIELD(INTEGER, bits, false),
    FIELD(INTEGER64, group_size, false),
    FIELD(INTEGER64, groups, false),
    FIELD(FLAG, symmetric, false),
    FIELD(FLAG, permuted_groups, false),
    FIELD(SCALE_TYPE, scale_type, false),
    FIELD(TEXT, format, SPARSE),
    FIELD(REAL, tensor_scale, SPARSE),
    FIELD(TEXT, method, false),
    FIELD(TEXT, grid, false),
    FIELD(TEXT, order, true),
    FIELD(INTEGER, beam, false),
    FIELD(INTEGER, refine, false),
    FIELD(INTEGER, regrid, false),
    FIELD(TEXT, alpha_rule, true),
    FIELD(REAL, alpha, false),
    FIELD(REAL_OR_NAN, alpha_next, false),
    FIELD(REAL, damp, true),
    FIELD(REAL, damping, false),
    FIELD(INTEGER, damping_attempts, false),
    FIELD(REAL, shrink, true),
    FIELD(REAL, compensation, true),
    FIELD(INTEGER64, tokens, true),
    FIELD(INTEGER64, tokens_sent, true),
    FIELD(INTEGER64, dead_inputs, false),
    FIELD(REAL, objective, false),
    FIELD(REAL, predicted_loss, SPARSE),
    FIELD(REAL, output_error, false),
    FIELD(REAL, model_error, false),
    FIELD(REAL, held_out_error, true),
    FIELD(REAL, clipped, false),
    FIELD(REAL, largest_activation, true),
#undef FIELD
};
enum { FIELDS = sizeof fields / sizeof *fields };

static bool text_is_plain(const char *text, size_t size)
{
    size_t length = strnlen(text, size);
    if (length == size) return false;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7f) return false;
    return true;
}

const snrq_weight_format *snrq_module_record_format(const snrq_module_record *r)
{
    return snrq_weight_format_find(r->format);
}

bool snrq_module_record_has_minima(const snrq_module_record *r)
{
    const snrq_weight_format *f = snrq_module_record_format(r);
    return f != NULL && f->minimum.present;
}

const float *snrq_module_record_levels(const snrq_module_record *r)
{
    const snrq_weight_format *f = snrq_module_record_format(r);
    return f != NULL ? f->levels : NULL;
}

/* Is the grid that of the format? */
static const char *format_problem(const snrq_module_record *r)
{
    const snrq_weight_format *f = snrq_module_record_format(r);
    if (r->format[0] == '\0') return NULL;
    if (f == NULL) return "the format is unknown";
    const int64_t group = r->columns < f->group ? r->columns : f->group; /* rows may be shorter */
    if (r->bits != f->bits || r->group_size != group || r->columns % f->super_block != 0 ||
        r->symmetric != snrq_weight_format_symmetric(f) || r->permuted_groups ||
        r->scale_type != snrq_weight_format_scale_type(f))
        return "bits, groups and scales are not those of the format";
    if (f->scale.tensor != (r->tensor_scale > 0.0)) return "tensor_scale is not that of the format";
    return NULL;
}

const char *snrq_module_record_problem(const snrq_module_record *r)
{
    if (!text_is_plain(r->name, sizeof r->name) || !snrq_hdf5_name_is_valid(r->name))
        return "the name cannot be used";
    if (r->rows < 1 || r->columns < 1 || r->columns > INT32_MAX ||
        r->rows > (INT64_C(1) << 50) / r->columns)
        return "rows and columns are out of range";
    if (r->bits < 2 || r->bits > 8) return "bits must be 2 to 8";
    if (r->group_size < 1 || r->groups != (r->columns - 1) / r->group_size + 1)
        return "groups must be columns / group_size, rounded up";
    if (r->scale_type != SNRQ_F32 && r->scale_type != SNRQ_F16 && r->scale_type != SNRQ_BF16)
        return "scale_type is unknown";
    if (r->dead_inputs < 0 || r->dead_inputs > r->columns) return "dead_inputs is out of range";
    if (r->beam < 0 || r->refine < 0 || r->regrid < 0 || r->damping_attempts < 0)
        return "beam, refine, regrid and damping_attempts must not be negative";
    for (int i = 0; i < FIELDS; i++) {
        const char *value = (const char *)r + fields[i].offset;
        bool is_real = fields[i].type == REAL || fields[i].type == REAL_OR_NAN;
        double real = is_real ? *(const double *)(const void *)value : 0;
        if (!isfinite(real) && !(isnan(real) && fields[i].type == REAL_OR_NAN))
            return "a measure is not finite";
        if (fields[i].type == TEXT && !text_is_plain(value, fields[i].size))
            return "a text is not printable";
    }
    return format_problem(r);
}

/* A field of a record, seen as what it is. */
typedef union place {
    void *at;
    char *text;
    int64_t *integer64;
    int *integer;
    bool *flag;
    double *real;
    snrq_dtype *type;
} place;

static place place_of(const struct field *f, const snrq_module_record *r)
{
    return (place){.at = (char *)r + f->offset};
}

static snrq_status bad_scale_type(const char *where, const char *text)
{
    return snrq_fail(SNRQ_BAD_DATA, "%s: scale_type is \"%s\", expected F32, F16 or BF16", where,
                     text);
}

static snrq_status check(const char *where, const snrq_module_record *r)
{
    const char *problem = snrq_module_record_problem(r);
    return problem == NULL ? SNRQ_OK
                           : snrq_fail(SNRQ_BAD_DATA, "%s: %s: %s", where, r->name, problem);
}

/* Copies a name that came from a file of any kind. */
static snrq_status take_name(const char *where, const char *name, snrq_module_record *r)
{
    size_t length = strlen(name);
    if (length >= sizeof r->name)
        return snrq_fail(SNRQ_BAD_DATA, "%s: module name of %zu bytes is too long", where, length);
    memcpy(r->name, name, length + 1);
    return SNRQ_OK;
}

/* As attributes. */

static bool is_left_out(const struct field *f, const snrq_module_record *r)
{
    const place from = place_of(f, r);
    if (f->optional != SPARSE) return false;
    return f->type == TEXT ? from.text[0] == '\0' : *from.real == 0.0;
}

static snrq_status put_field(const snrq_hdf5_object *group, const struct field *f,
                             const snrq_module_record *r)
{
    place from = place_of(f, r);
    switch (f->type) {
    case TEXT:
        return snrq_hdf5_put_text(group, f->name, from.text);
    case FLAG:
        return snrq_hdf5_put_flag(group, f->name, *from.flag);
    case SCALE_TYPE:
        return snrq_hdf5_put_text(group, f->name, snrq_dtype_name(*from.type));
    case INTEGER:
        return snrq_hdf5_put_integer(group, f->name, *from.integer);
    case INTEGER64:
        return snrq_hdf5_put_integer(group, f->name, *from.integer64);
    case REAL:
    case REAL_OR_NAN:
        break;
    }
    /* One NaN, so that the file has one form. */
    return snrq_hdf5_put_real(group, f->name, isnan(*from.real) ? (double)NAN : *from.real);
}

snrq_status snrq_module_record_put(const snrq_hdf5_object *group, const snrq_module_record *record)
{
    for (int i = 0; i < FIELDS; i++)
        if (!is_left_out(&fields[i], record)) SNRQ_TRY(put_field(group, &fields[i], record));
    return SNRQ_OK;
}

static snrq_status get_field(const snrq_hdf5_object *group, const struct field *f,
                             snrq_module_record *r)
{
    place to = place_of(f, r);
    char text[8], where[PATH_MAX + SNRQ_HDF5_MAX_NAME];
    int64_t number;
    if (f->optional && !snrq_hdf5_has(group, f->name)) return SNRQ_OK;
    switch (f->type) {
    case TEXT:
        return snrq_hdf5_get_text(group, f->name, to.text, f->size);
    case FLAG:
        return snrq_hdf5_get_flag(group, f->name, to.flag);
    case REAL:
    case REAL_OR_NAN:
        return snrq_hdf5_get_real(group, f->name, to.real);
    case INTEGER64:
        return snrq_hdf5_get_integer(group, f->name, to.integer64);
    case INTEGER:
        SNRQ_TRY(snrq_hdf5_get_integer(group, f->name, &number));
        *to.integer = number >= INT_MIN && number <= INT_MAX ? (int)number : -1;
        return SNRQ_OK;
    case SCALE_TYPE:
        break;
    }
    SNRQ_TRY(snrq_hdf5_get_text(group, f->name, text, sizeof text));
    if (snrq_dtype_find(text, to.type)) return SNRQ_OK;
    snprintf(where, sizeof where, "%s: %s", group->path, group->name);
    return bad_scale_type(where, text);
}

snrq_status snrq_module_record_get(const snrq_hdf5_object *group, snrq_module_record *record)
{
    *record = (snrq_module_record){0};
    SNRQ_TRY(take_name(group->path, group->name, record));
    for (int i = 0; i < FIELDS; i++) SNRQ_TRY(get_field(group, &fields[i], record));
    return check(group->path, record);
}

/* As JSON. */

static json_t *field_json(const struct field *f, const snrq_module_record *r)
{
    place from = place_of(f, r);
    switch (f->type) {
    case TEXT:
        return json_string(from.text);
    case FLAG:
        return json_boolean(*from.flag);
    case SCALE_TYPE:
        return json_string(snrq_dtype_name(*from.type));
    case INTEGER:
        return json_integer(*from.integer);
    case INTEGER64:
        return json_integer(*from.integer64);
    case REAL:
    case REAL_OR_NAN:
        break;
    }
    return f->type == REAL_OR_NAN && isnan(*from.real) ? json_null() : json_real(*from.real);
}

json_t *snrq_module_record_json(const snrq_module_record *r)
{
    json_t *object = json_pack("{s:s}", "name", r->name);
    for (int i = 0; i < FIELDS && object != NULL; i++)
        if (!is_left_out(&fields[i], r) &&
            json_object_set_new(object, fields[i].name, field_json(&fields[i], r)) != 0) {
            json_decref(object);
            object = NULL;
        }
    return object;
}

static snrq_status text_from_json(const char *where, const json_t *object, const struct field *f,
                                  char *out)
{
    const char *text;
    SNRQ_TRY(snrq_json_string(where, object, f->name, f->optional ? "" : NULL, &text));
    size_t length = strlen(text);
    if (length >= f->size)
        return snrq_fail(SNRQ_BAD_DATA, "%s: key \"%s\": expected at most %zu bytes, found %zu",
                         where, f->name, f->size - 1, length);
    memcpy(out, text, length + 1);
    return SNRQ_OK;
}

static snrq_status field_from_json(const char *where, const json_t *object, const struct field *f,
                                   snrq_module_record *r)
{
    static const int64_t no_integer = 0;
    static const double no_real = 0, not_a_number = (double)NAN;
    place to = place_of(f, r);
    const char *text;
    int64_t number;
    switch (f->type) {
    case TEXT:
        return text_from_json(where, object, f, to.text);
    case FLAG:
        return snrq_json_boolean(where, object, f->name, false, to.flag);
    case REAL:
    case REAL_OR_NAN:
        return snrq_json_number(where, object, f->name, -DBL_MAX, DBL_MAX,
                                f->type == REAL_OR_NAN ? &not_a_number
                                : f->optional          ? &no_real
                                                       : NULL,
                                to.real);
    case INTEGER64:
        return snrq_json_integer(where, object, f->name, INT64_MIN, INT64_MAX,
                                 f->optional ? &no_integer : NULL, to.integer64);
    case INTEGER:
        SNRQ_TRY(snrq_json_integer(where, object, f->name, INT_MIN, INT_MAX,
                                   f->optional ? &no_integer : NULL, &number));
        *to.integer = (int)number;
        return SNRQ_OK;
    case SCALE_TYPE:
        break;
    }
    SNRQ_TRY(snrq_json_string(where, object, f->name, NULL, &text));
    return snrq_dtype_find(text, to.type) ? SNRQ_OK : bad_scale_type(where, text);
}

snrq_status snrq_module_record_from_json(const char *where, const json_t *object,
                                         snrq_module_record *record)
{
    const char *name;
    *record = (snrq_module_record){0};
    SNRQ_TRY(snrq_json_string(where, object, "name", NULL, &name));
    SNRQ_TRY(take_name(where, name, record));
    for (int i = 0; i < FIELDS; i++) SNRQ_TRY(field_from_json(where, object, &fields[i], record));
    return check(where, record);
}
