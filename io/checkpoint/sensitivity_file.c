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

enum { FORMAT_VERSION = 1, ROWS = SNRQ_SENSITIVITY_ROWS, DIMENSIONS = 3 };
static const char format_name[] = "snrq-sensitivity";

struct snrq_sensitivity_writer {
    snrq_hdf5_writer hdf5;
    int count;
    snrq_sensitivity_module *module; /* [count] owned */
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

/* ---- writing ---- */

int64_t snrq_sensitivity_bytes(const snrq_sensitivity_module *modules, int count)
{
    int64_t tiles = 0;
    for (int i = 0; i < count; i++) tiles += snrq_sensitivity_tiles(modules[i].rows);
    return tiles * SNRQ_SENSITIVITY_TILE * (int64_t)sizeof(float);
}

/* What rank 0 lays out. */
struct layout {
    const snrq_sensitivity_facts *facts;
    const snrq_sensitivity_module *modules;
    int count;
};

static snrq_status lay_out(const snrq_hdf5_object *root, const void *source)
{
    const struct layout *l = source;
    SNRQ_TRY(snrq_hdf5_put_text(root, "format", format_name));
    SNRQ_TRY(snrq_hdf5_put_integer(root, "format_version", FORMAT_VERSION));
    SNRQ_TRY(snrq_hdf5_put_integer(root, "tokens", l->facts->tokens));
    SNRQ_TRY(snrq_hdf5_put_integer(root, "seed", l->facts->seed));
    SNRQ_TRY(snrq_hdf5_put_integer(root, "tile_rows", ROWS));
    SNRQ_TRY(snrq_hdf5_put_text(root, "model", l->facts->model));
    for (int i = 0; i < l->count; i++) {
        const int64_t shape[DIMENSIONS] = {snrq_sensitivity_tiles(l->modules[i].rows), ROWS, ROWS};
        SNRQ_TRY(snrq_hdf5_make_table(root, l->modules[i].name, SNRQ_HDF5_F32, DIMENSIONS, shape));
    }
    return SNRQ_OK;
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
        status = snrq_hdf5_create(context, path, snrq_sensitivity_bytes(modules, count), lay_out,
                                  &layout, &w->hdf5);
    }
    if (status == SNRQ_OK) {
        *out = w;
        return SNRQ_OK;
    }
    if (w != NULL) free(w->module);
    free(w);
    return status;
}

/* Tiles that a rank has, the first of which is number `begin`. */
struct tiles {
    int64_t begin;
    const float *data;
};

static snrq_status fill_tiles(const void *source, snrq_range rows, void *out)
{
    const struct tiles *t = source;
    memcpy(out, t->data + (rows.begin - t->begin) * SNRQ_SENSITIVITY_TILE,
           (size_t)(rows.end - rows.begin) * SNRQ_SENSITIVITY_TILE * sizeof(float));
    return SNRQ_OK;
}

snrq_status snrq_sensitivity_put(snrq_sensitivity_writer *w, int index, snrq_range tiles,
                                 const float *data)
{
    const snrq_sensitivity_module *m = &w->module[index];
    const struct tiles source = {tiles.begin, data};
    snrq_hdf5_table table = {0};
    snrq_status status = open_tiles(&w->hdf5.root, m->name, m->rows, &table);
    status = snrq_hdf5_opened(&w->hdf5, status);
    if (status == SNRQ_OK)
        status = snrq_hdf5_write_rows(&w->hdf5, &table, tiles, fill_tiles, &source);
    snrq_hdf5_table_close(&table);
    return status;
}

/* Opens a module's tiles, however many they are. */
static snrq_status find_tiles(const snrq_hdf5_object *root, const char *name, snrq_hdf5_table *out)
{
    const snrq_hdf5_kind kind = SNRQ_HDF5_F32;
    snrq_hdf5_kind found;
    SNRQ_TRY(snrq_hdf5_find_table(root, name, &kind, 1, &found, out));
    out->index = (int64_t)XXH3_64bits(name, strlen(name));
    return SNRQ_OK;
}

/* Rank 0: sums up the hashes of all tiles. */
static snrq_status read_back(const char *path, uint64_t *sum)
{
    snrq_hdf5_object root;
    char **names = NULL;
    int count = 0;
    *sum = 0;
    SNRQ_TRY(snrq_hdf5_open(path, format_name, FORMAT_VERSION, &root));
    snrq_status status = snrq_hdf5_names(&root, INT_MAX, &names, &count);
    for (int i = 0; i < count && status == SNRQ_OK; i++) {
        snrq_hdf5_table table = {0};
        status = find_tiles(&root, names[i], &table);
        if (status == SNRQ_OK) status = snrq_hdf5_hash_table(path, &table, sum);
        snrq_hdf5_table_close(&table);
    }
    snrq_names_free(&names, count);
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
    SNRQ_TRY(snrq_hdf5_get_integer(&f->root, "seed", &f->facts.seed));
    SNRQ_TRY(snrq_hdf5_get_integer(&f->root, "tile_rows", &tile_rows));
    SNRQ_TRY(snrq_hdf5_get_text(&f->root, "model", f->facts.model, sizeof f->facts.model));
    if (tile_rows != ROWS)
        return snrq_fail(SNRQ_BAD_DATA, "%s: tile_rows is %lld, expected %d", f->path,
                         (long long)tile_rows, ROWS);
    if (f->facts.tokens < 1)
        return snrq_fail(SNRQ_BAD_DATA, "%s: tokens is %lld, expected at least 1", f->path,
                         (long long)f->facts.tokens);
    return SNRQ_OK;
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
