/* Sensitivities of modules in parallel HDF5; see sensitivity_file.h. */
#include "io/checkpoint/sensitivity_file.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "io/directory.h"
#include "io/hdf5/reader.h"
#include "io/hdf5/writer.h"

enum { FORMAT_VERSION = 2, ROWS = SNRQ_SENSITIVITY_ROWS, DIMENSIONS = 3, NUMBER = sizeof(float) };
static const char format_name[] = "snrq-sensitivity", squares_name[] = "squares",
                  ids_name[] = "ids";

struct snrq_sensitivity_writer {
    snrq_hdf5_writer hdf5;
    int count;
    snrq_sensitivity_module *module; /* [count] owned */
    snrq_sensitivity_facts facts;
};

struct snrq_sensitivity_file {
    char *path;
    snrq_hdf5_object root;
    snrq_sensitivity_facts facts;
};

/* Opens the tiles of a module; its number for the hashes comes from its name. */
static snrq_status open_tiles(const snrq_hdf5_object *root, const char *name, int64_t rows,
                              snrq_hdf5_table *out)
{
    const int64_t shape[DIMENSIONS] = {snrq_sensitivity_tiles(rows), ROWS, ROWS};
    SNRQ_TRY(snrq_hdf5_open_table(root, name, SNRQ_HDF5_F32, DIMENSIONS, shape, out));
    out->index = (int64_t)XXH3_64bits(name, strlen(name));
    return SNRQ_OK;
}

static int64_t windows_of(const snrq_sensitivity_facts *f)
{
    return f->tokens / f->length;
}

/* Opens the squares of a module, in their group. */
static snrq_status open_squares(const snrq_hdf5_object *group, const char *name,
                                const snrq_sensitivity_facts *f, snrq_hdf5_table *out)
{
    const int64_t shape[] = {windows_of(f), f->length};
    SNRQ_TRY(snrq_hdf5_open_table(group, name, SNRQ_HDF5_F32, 2, shape, out));
    out->index = ~(int64_t)XXH3_64bits(name, strlen(name));
    return SNRQ_OK;
}

/* Opens the tokens. */
static snrq_status open_ids(const snrq_hdf5_object *root, const snrq_sensitivity_facts *f,
                            snrq_hdf5_table *out)
{
    const int64_t shape[] = {windows_of(f), f->length};
    SNRQ_TRY(snrq_hdf5_open_table(root, ids_name, SNRQ_HDF5_I32, 2, shape, out));
    out->index = (int64_t)XXH3_64bits(ids_name, strlen(ids_name));
    return SNRQ_OK;
}

/* ---- writing ---- */

int64_t snrq_sensitivity_bytes(const snrq_sensitivity_module *modules, int count, int64_t tokens)
{
    int64_t numbers = tokens;
    for (int i = 0; i < count; i++)
        numbers += snrq_sensitivity_tiles(modules[i].rows) * SNRQ_SENSITIVITY_TILE +
                   (modules[i].all_tokens ? tokens : 0);
    return numbers * (int64_t)sizeof(float);
}

/* What rank 0 lays out. */
struct layout {
    const snrq_sensitivity_facts *facts;
    const snrq_sensitivity_module *modules;
    int count;
};

static snrq_status lay_out_tokens(const snrq_hdf5_object *root, const struct layout *l)
{
    const int64_t shape[] = {windows_of(l->facts), l->facts->length};
    snrq_hdf5_object group;
    SNRQ_TRY(snrq_hdf5_make_table(root, ids_name, SNRQ_HDF5_I32, 2, shape));
    SNRQ_TRY(snrq_hdf5_make_group(root, squares_name, &group));
    snrq_status status = SNRQ_OK;
    for (int i = 0; status == SNRQ_OK && i < l->count; i++)
        if (l->modules[i].all_tokens)
            status = snrq_hdf5_make_table(&group, l->modules[i].name, SNRQ_HDF5_F32, 2, shape);
    snrq_hdf5_close_group(&group);
    return status;
}

static snrq_status lay_out(const snrq_hdf5_object *root, const void *source)
{
    const struct layout *l = source;
    SNRQ_TRY(snrq_hdf5_put_text(root, "format", format_name));
    SNRQ_TRY(snrq_hdf5_put_integer(root, "format_version", FORMAT_VERSION));
    SNRQ_TRY(snrq_hdf5_put_integer(root, "tokens", l->facts->tokens));
    SNRQ_TRY(snrq_hdf5_put_integer(root, "length", l->facts->length));
    SNRQ_TRY(snrq_hdf5_put_integer(root, "seed", l->facts->seed));
    SNRQ_TRY(snrq_hdf5_put_integer(root, "tile_rows", ROWS));
    SNRQ_TRY(snrq_hdf5_put_text(root, "model", l->facts->model));
    for (int i = 0; i < l->count; i++) {
        const int64_t shape[DIMENSIONS] = {snrq_sensitivity_tiles(l->modules[i].rows), ROWS, ROWS};
        SNRQ_TRY(snrq_hdf5_make_table(root, l->modules[i].name, SNRQ_HDF5_F32, DIMENSIONS, shape));
    }
    return lay_out_tokens(root, l);
}

snrq_status snrq_sensitivity_create(const snrq_context *context, const char *path,
                                    const snrq_sensitivity_facts *facts,
                                    const snrq_sensitivity_module *modules, int count,
                                    snrq_sensitivity_writer **out)
{
    const struct layout layout = {facts, modules, count};
    snrq_sensitivity_writer *w = NULL;
    *out = NULL;
    snrq_status status = snrq_allocate(1, sizeof *w, "writer of sensitivities", &w);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)count, sizeof *modules, "modules", &w->module);
    status = snrq_agree(context, status);
    if (status == SNRQ_OK) {
        memcpy(w->module, modules, (size_t)count * sizeof *modules);
        w->count = count;
        w->facts = *facts;
        status =
            snrq_hdf5_create(context, path, snrq_sensitivity_bytes(modules, count, facts->tokens),
                             lay_out, &layout, &w->hdf5);
    }
    if (status == SNRQ_OK) {
        *out = w;
        return SNRQ_OK;
    }
    if (w != NULL) free(w->module);
    free(w);
    return status;
}

/* Rows of a table that a rank has, the first of which is number `begin`. */
struct rows {
    int64_t begin, numbers; /* of 4 bytes, of a row */
    const void *data;
};

static snrq_status fill_rows(const void *source, snrq_range rows, void *out)
{
    const struct rows *r = source;
    memcpy(out, (const char *)r->data + (rows.begin - r->begin) * r->numbers * NUMBER,
           (size_t)((rows.end - rows.begin) * r->numbers * NUMBER));
    return SNRQ_OK;
}

snrq_status snrq_sensitivity_put(snrq_sensitivity_writer *w, int index, snrq_range tiles,
                                 const float *data)
{
    const snrq_sensitivity_module *m = &w->module[index];
    const struct rows source = {tiles.begin, SNRQ_SENSITIVITY_TILE, data};
    snrq_hdf5_table table = {0};
    snrq_status status = open_tiles(&w->hdf5.root, m->name, m->rows, &table);
    status = snrq_hdf5_opened(&w->hdf5, status);
    if (status == SNRQ_OK)
        status = snrq_hdf5_write_rows(&w->hdf5, &table, tiles, fill_rows, &source);
    snrq_hdf5_table_close(&table);
    return status;
}

snrq_status snrq_sensitivity_put_squares(snrq_sensitivity_writer *w, int index, snrq_range windows,
                                         const float *data)
{
    const struct rows source = {windows.begin, w->facts.length, data};
    snrq_hdf5_object group = {.id = -1};
    snrq_hdf5_table table = {0};
    snrq_status status = snrq_hdf5_open_group(&w->hdf5.root, squares_name, &group);
    if (status == SNRQ_OK) status = open_squares(&group, w->module[index].name, &w->facts, &table);
    status = snrq_hdf5_opened(&w->hdf5, status);
    if (status == SNRQ_OK)
        status = snrq_hdf5_write_rows(&w->hdf5, &table, windows, fill_rows, &source);
    snrq_hdf5_table_close(&table);
    snrq_hdf5_close_group(&group);
    return status;
}

snrq_status snrq_sensitivity_put_ids(snrq_sensitivity_writer *w, snrq_range windows,
                                     const int32_t *ids)
{
    const struct rows source = {windows.begin, w->facts.length, ids};
    snrq_hdf5_table table = {0};
    snrq_status status = snrq_hdf5_opened(&w->hdf5, open_ids(&w->hdf5.root, &w->facts, &table));
    if (status == SNRQ_OK)
        status = snrq_hdf5_write_rows(&w->hdf5, &table, windows, fill_rows, &source);
    snrq_hdf5_table_close(&table);
    return status;
}

/* Sums up the hashes of all tables of a group. */
static snrq_status hash_tables(const char *path, const snrq_hdf5_object *group, bool squares,
                               uint64_t *sum)
{
    const snrq_hdf5_kind kinds[] = {SNRQ_HDF5_F32, SNRQ_HDF5_I32};
    snrq_hdf5_kind found;
    char **names = NULL;
    int count = 0;
    snrq_status status = snrq_hdf5_names(group, INT_MAX, &names, &count);
    for (int i = 0; i < count && status == SNRQ_OK; i++) {
        const int64_t number = (int64_t)XXH3_64bits(names[i], strlen(names[i]));
        snrq_hdf5_table table = {0};
        if (!squares && strcmp(names[i], squares_name) == 0) continue;
        status = snrq_hdf5_find_table(group, names[i], kinds, 2, &found, &table);
        table.index = squares ? ~number : number;
        if (status == SNRQ_OK) status = snrq_hdf5_hash_table(path, &table, sum);
        snrq_hdf5_table_close(&table);
    }
    snrq_names_free(&names, count);
    return status;
}

/* Rank 0: sums up the hashes of all tables. */
static snrq_status read_back(const char *path, uint64_t *sum)
{
    snrq_hdf5_object root, group = {.id = -1};
    *sum = 0;
    SNRQ_TRY(snrq_hdf5_open(path, format_name, FORMAT_VERSION, &root));
    snrq_status status = hash_tables(path, &root, false, sum);
    if (status == SNRQ_OK) status = snrq_hdf5_open_group(&root, squares_name, &group);
    if (status == SNRQ_OK) status = hash_tables(path, &group, true, sum);
    snrq_hdf5_close_group(&group);
    snrq_hdf5_close_file(&root);
    return status;
}

snrq_status snrq_sensitivity_finish(snrq_sensitivity_writer **writer, snrq_status status)
{
    snrq_sensitivity_writer *w = *writer;
    status = snrq_hdf5_finish(&w->hdf5, status, read_back);
    free(w->module);
    free(w);
    *writer = NULL;
    return status;
}

/* ---- reading ---- */

static snrq_status read_facts(snrq_sensitivity_file *f)
{
    int64_t tile_rows = 0;
    SNRQ_TRY(snrq_hdf5_get_integer(&f->root, "tokens", &f->facts.tokens));
    if (!snrq_hdf5_has(&f->root, "length"))
        return snrq_fail(
            SNRQ_BAD_DATA,
            "%s: has no gradients of single tokens: it was made by an earlier version. "
            "Make it again with snrq sensitivity",
            f->path);
    SNRQ_TRY(snrq_hdf5_get_integer(&f->root, "length", &f->facts.length));
    SNRQ_TRY(snrq_hdf5_get_integer(&f->root, "seed", &f->facts.seed));
    SNRQ_TRY(snrq_hdf5_get_integer(&f->root, "tile_rows", &tile_rows));
    SNRQ_TRY(snrq_hdf5_get_text(&f->root, "model", f->facts.model, sizeof f->facts.model));
    if (tile_rows != ROWS)
        return snrq_fail(SNRQ_BAD_DATA, "%s: tile_rows is %lld, expected %d", f->path,
                         (long long)tile_rows, ROWS);
    if (f->facts.tokens < 1)
        return snrq_fail(SNRQ_BAD_DATA, "%s: tokens is %lld, expected at least 1", f->path,
                         (long long)f->facts.tokens);
    if (f->facts.length < 1 || f->facts.tokens % f->facts.length != 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: length is %lld, expected that %lld tokens are whole windows of it",
                         f->path, (long long)f->facts.length, (long long)f->facts.tokens);
    return SNRQ_OK;
}

/* Before anything is allocated for so many tokens: are there as many? */
static snrq_status check_tokens(const snrq_sensitivity_file *f)
{
    snrq_hdf5_table table = {0};
    snrq_status status = open_ids(&f->root, &f->facts, &table);
    snrq_hdf5_table_close(&table);
    return status;
}

snrq_status snrq_sensitivity_open(const char *path, snrq_sensitivity_file **out)
{
    snrq_sensitivity_file *f = NULL;
    *out = NULL;
    SNRQ_TRY(snrq_allocate(1, sizeof *f, "sensitivities", &f));
    f->root.id = -1;
    snrq_status status = snrq_allocate(strlen(path) + 1, 1, "path", &f->path);
    if (status == SNRQ_OK) {
        memcpy(f->path, path, strlen(path) + 1);
        status = snrq_hdf5_open(f->path, format_name, FORMAT_VERSION, &f->root);
    }
    if (status == SNRQ_OK) status = read_facts(f);
    if (status == SNRQ_OK) status = check_tokens(f);
    if (status == SNRQ_OK)
        *out = f;
    else
        snrq_sensitivity_close(&f);
    return status;
}

void snrq_sensitivity_close(snrq_sensitivity_file **file)
{
    if (*file == NULL) return;
    snrq_hdf5_close_file(&(*file)->root);
    free((*file)->path);
    free(*file);
    *file = NULL;
}

const snrq_sensitivity_facts *snrq_sensitivity_facts_of(const snrq_sensitivity_file *f)
{
    return &f->facts;
}

/* What is wrong with a tile of which `rows` rows exist, or NULL. */
static const char *tile_problem(const float *tile, int64_t rows)
{
    for (int64_t i = 0; i < ROWS; i++)
        for (int64_t j = 0; j <= i; j++) {
            float value = tile[i * ROWS + j], mirrored = tile[j * ROWS + i];
            if (!isfinite(value) || !isfinite(mirrored)) return "holds a number that is not finite";
            if (value != mirrored) return "is not symmetric";
            if (i >= rows && value != 0.0f) return "has rows beyond the module's last";
            if (i == j && value < 0.0f) return "has a negative square";
        }
    return NULL;
}

snrq_status snrq_sensitivity_read(const snrq_sensitivity_file *f, const char *name, int64_t rows,
                                  snrq_range tiles, float *out)
{
    snrq_hdf5_table table = {0};
    snrq_status status = open_tiles(&f->root, name, rows, &table);
    if (status == SNRQ_OK && (tiles.begin < 0 || tiles.end > table.rows))
        status = snrq_fail(SNRQ_INTERNAL, "%s: %s has no tiles %lld to %lld", f->path, name,
                           (long long)tiles.begin, (long long)tiles.end);
    if (status == SNRQ_OK && tiles.begin < tiles.end)
        status = snrq_hdf5_read_rows(f->path, &table, tiles, out);
    snrq_hdf5_table_close(&table);
    for (int64_t t = tiles.begin; status == SNRQ_OK && t < tiles.end; t++) {
        const char *problem =
            tile_problem(out + (t - tiles.begin) * SNRQ_SENSITIVITY_TILE, rows - t * ROWS);
        if (problem != NULL)
            status = snrq_fail(SNRQ_BAD_DATA, "%s: tile %lld of %s %s", f->path, (long long)t, name,
                               problem);
    }
    return status;
}

snrq_status snrq_sensitivity_read_ids(const snrq_sensitivity_file *f, int32_t *out)
{
    snrq_hdf5_table table = {0};
    snrq_status status = open_ids(&f->root, &f->facts, &table);
    if (status == SNRQ_OK)
        status = snrq_hdf5_read_rows(f->path, &table, (snrq_range){0, windows_of(&f->facts)}, out);
    snrq_hdf5_table_close(&table);
    return status;
}

/* What is wrong with squares, or NULL. */
static const char *squares_problem(const float *squares, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (!(squares[i] >= 0.0f && isfinite(squares[i])))
            return "hold a number that is negative or not finite";
    return NULL;
}

snrq_status snrq_sensitivity_read_squares(const snrq_sensitivity_file *f, const char *name,
                                          float *out)
{
    snrq_hdf5_object group = {.id = -1};
    snrq_hdf5_table table = {0};
    snrq_status status = snrq_hdf5_open_group(&f->root, squares_name, &group);
    if (status == SNRQ_OK) status = open_squares(&group, name, &f->facts, &table);
    if (status == SNRQ_OK)
        status = snrq_hdf5_read_rows(f->path, &table, (snrq_range){0, windows_of(&f->facts)}, out);
    snrq_hdf5_table_close(&table);
    snrq_hdf5_close_group(&group);
    const char *problem = status == SNRQ_OK ? squares_problem(out, f->facts.tokens) : NULL;
    if (problem != NULL)
        status = snrq_fail(SNRQ_BAD_DATA, "%s: the squares of %s %s", f->path, name, problem);
    return status;
}
