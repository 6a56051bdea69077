/* Records of modules as HDF5 attributes; see block_record.h. */
#include "io/checkpoint/block_record.h"

#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "io/codes.h"

/* How the fields of a record are stored as attributes. */
enum field_type { TEXT, INTEGER64, INTEGER, FLAG, REAL, REAL_OR_NAN, SCALE_TYPE };
static const struct field {
    enum field_type type;
    const char *name;
    size_t offset, size;
} fields[] = {
#define PLACE(name)                                                                                \
#name, offsetof(snrq_module_record, name), sizeof(((snrq_module_record *)NULL)->name)
    {INTEGER64, PLACE(rows)},
    {INTEGER64, PLACE(columns)},
    {INTEGER, PLACE(bits)},
    {INTEGER64, PLACE(group_size)},
    {INTEGER64, PLACE(groups)},
    {FLAG, PLACE(symmetric)},
    {FLAG, PLACE(permuted_groups)},
    {SCALE_TYPE, PLACE(scale_type)},
    {TEXT, PLACE(method)},
    {TEXT, PLACE(grid)},
    {INTEGER, PLACE(beam)},
    {INTEGER, PLACE(refine)},
    {INTEGER, PLACE(regrid)},
    {REAL, PLACE(alpha)},
    {REAL_OR_NAN, PLACE(alpha_next)},
    {REAL, PLACE(damping)},
    {INTEGER, PLACE(damping_attempts)},
    {INTEGER64, PLACE(dead_inputs)},
    {REAL, PLACE(objective)},
    {REAL, PLACE(output_error)},
    {REAL, PLACE(model_error)},
    {REAL, PLACE(clipped)},
#undef PLACE
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

const char *snrq_block_record_problem(const snrq_module_record *r)
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
        double real = 0;
        if (fields[i].type == REAL || fields[i].type == REAL_OR_NAN)
            memcpy(&real, value, sizeof real);
        if (!isfinite(real) && !(isnan(real) && fields[i].type == REAL_OR_NAN))
            return "a measure is not finite";
        if (fields[i].type == TEXT && !text_is_plain(value, fields[i].size))
            return "method or grid is not printable text";
    }
    return NULL;
}

static snrq_hdf5_kind scale_kind(snrq_dtype type)
{
    return type == SNRQ_F16 ? SNRQ_HDF5_F16 : type == SNRQ_BF16 ? SNRQ_HDF5_BF16 : SNRQ_HDF5_F32;
}

int snrq_block_table_shape(const snrq_module_record *r, int which, snrq_hdf5_kind *kind,
                           int64_t shape[2])
{
    shape[0] = r->rows;
    switch (which) {
    case SNRQ_CODES:
        *kind = SNRQ_HDF5_U8;
        shape[1] = snrq_packed_bytes(r->columns, r->bits);
        return 2;
    case SNRQ_SCALES:
    case SNRQ_ZEROS:
        *kind = which == SNRQ_SCALES ? scale_kind(r->scale_type) : SNRQ_HDF5_U8;
        shape[1] = r->groups;
        return 2;
    default:
        *kind = SNRQ_HDF5_I32;
        shape[0] = r->columns;
        return 1;
    }
}

static snrq_status put_field(const snrq_hdf5_object *group, const struct field *f,
                             const snrq_module_record *r)
{
    const char *at = (const char *)r + f->offset;
    int64_t number = 0;
    int small = 0;
    double real = 0;
    switch (f->type) {
    case TEXT:
        return snrq_hdf5_put_text(group, f->name, at);
    case FLAG:
        return snrq_hdf5_put_flag(group, f->name, *(const bool *)at);
    case SCALE_TYPE:
        return snrq_hdf5_put_text(group, f->name, snrq_dtype_name(r->scale_type));
    case INTEGER:
        memcpy(&small, at, sizeof small);
        return snrq_hdf5_put_integer(group, f->name, small);
    case INTEGER64:
        memcpy(&number, at, sizeof number);
        return snrq_hdf5_put_integer(group, f->name, number);
    case REAL:
    case REAL_OR_NAN:
        break;
    }
    memcpy(&real, at, sizeof real);
    if (isnan(real)) real = NAN; /* one NaN, so that the file has one form */
    return snrq_hdf5_put_real(group, f->name, real);
}

snrq_status snrq_block_record_put(const snrq_hdf5_object *group, const snrq_module_record *record)
{
    for (int i = 0; i < FIELDS; i++) SNRQ_TRY(put_field(group, &fields[i], record));
    return SNRQ_OK;
}

static snrq_status get_field(const snrq_hdf5_object *group, const struct field *f,
                             snrq_module_record *r)
{
    char *at = (char *)r + f->offset;
    char text[8];
    int64_t number;
    switch (f->type) {
    case TEXT:
        return snrq_hdf5_get_text(group, f->name, at, f->size);
    case FLAG:
        return snrq_hdf5_get_flag(group, f->name, (bool *)at);
    case REAL:
    case REAL_OR_NAN:
        return snrq_hdf5_get_real(group, f->name, (double *)at);
    case INTEGER64:
        return snrq_hdf5_get_integer(group, f->name, (int64_t *)at);
    case INTEGER:
        SNRQ_TRY(snrq_hdf5_get_integer(group, f->name, &number));
        *(int *)at = number >= INT_MIN && number <= INT_MAX ? (int)number : -1;
        return SNRQ_OK;
    case SCALE_TYPE:
        break;
    }
    SNRQ_TRY(snrq_hdf5_get_text(group, f->name, text, sizeof text));
    for (int type = SNRQ_F32; type <= SNRQ_BF16; type++)
        if (strcmp(text, snrq_dtype_name((snrq_dtype)type)) == 0) {
            r->scale_type = (snrq_dtype)type;
            return SNRQ_OK;
        }
    return snrq_fail(SNRQ_BAD_DATA, "%s: %s: scale_type is \"%s\", expected F32, F16 or BF16",
                     group->path, group->name, text);
}

snrq_status snrq_block_record_get(const snrq_hdf5_object *group, snrq_module_record *record)
{
    size_t length = strlen(group->name);
    *record = (snrq_module_record){0};
    if (length >= sizeof record->name)
        return snrq_fail(SNRQ_BAD_DATA, "%s: module name of %zu bytes is too long", group->path,
                         length);
    memcpy(record->name, group->name, length);
    for (int i = 0; i < FIELDS; i++) SNRQ_TRY(get_field(group, &fields[i], record));
    const char *problem = snrq_block_record_problem(record);
    if (problem == NULL) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA, "%s: %s: %s", group->path, group->name, problem);
}
