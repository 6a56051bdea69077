/* What outputs are worth, from a file; see row_grams.h. */
#include "pipeline/row_grams.h"

#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "pipeline/rounding/row_feedback.h"

enum { ROWS = SNRQ_TILE_ROWS };
_Static_assert((int)ROWS == (int)SNRQ_SENSITIVITY_ROWS, "tiles of the file are those of a search");

/* The squares of a module's tokens. */
static snrq_status check_squares(const snrq_row_grams *g, const char *name)
{
    const int64_t tokens = snrq_sensitivity_facts_of(g->file)->tokens;
    float *values = NULL;
    SNRQ_TRY(snrq_allocate((size_t)tokens, sizeof *values, "squares of gradients", &values));
    snrq_status status = snrq_sensitivity_read_squares(g->file, name, values);
    free(values);
    return status;
}

/* Every tile of a module. */
static snrq_status check_module(const snrq_row_grams *g, const char *path, const char *name,
                                int64_t rows)
{
    const int64_t tiles = snrq_sensitivity_tiles(rows);
    const int64_t tokens = snrq_sensitivity_facts_of(g->file)->tokens;
    snrq_tile_feedback feedback;
    float *values = NULL;
    SNRQ_TRY(snrq_allocate((size_t)tiles * SNRQ_SENSITIVITY_TILE, sizeof *values, "sensitivities",
                           &values));
    snrq_status status = snrq_sensitivity_read(g->file, name, rows, (snrq_range){0, tiles}, values);
    for (int64_t t = 0; status == SNRQ_OK && t < tiles; t++) {
        status = snrq_tile_feedback_create(values + t * SNRQ_SENSITIVITY_TILE, tokens, &feedback);
        if (status != SNRQ_OK)
            status = snrq_fail(status, "%s: tile %lld of %s is %s", path, (long long)t, name,
                               snrq_error_message());
    }
    free(values);
    return status;
}

/* This rank's share of the modules. */
static snrq_status check_modules(const snrq_context *context, const snrq_row_grams *g,
                                 const char *path, const snrq_model *model)
{
    int64_t number = 0;
    for (int64_t layer = 0; layer < model->config.layers; layer++) {
        const snrq_family *f = snrq_model_family(model, layer);
        for (int m = 0; m < f->modules; m++) {
            char name[SNRQ_MODULES_NAME];
            if (number++ % context->size != context->rank) continue;
            snrq_module_name(layer, f->module[m].name, name, sizeof name);
            SNRQ_TRY(check_module(g, path, name, f->module[m].rows));
            if (f->unit[f->module[m].unit].expert < 0) SNRQ_TRY(check_squares(g, name));
        }
    }
    return SNRQ_OK;
}

static snrq_status check_model(const snrq_row_grams *g, const char *path, const snrq_model *model)
{
    char fingerprint[33];
    const snrq_sensitivity_facts *facts = snrq_sensitivity_facts_of(g->file);
    SNRQ_TRY(snrq_model_fingerprint(model, fingerprint));
    if (strcmp(fingerprint, facts->model) == 0) return SNRQ_OK;
    return snrq_fail(SNRQ_USAGE,
                     "%s is of another model: it has the fingerprint %s, this model %s. Make one "
                     "with snrq sensitivity",
                     path, facts->model, fingerprint);
}

snrq_status snrq_row_grams_open(const snrq_context *context, const char *path,
                                const snrq_model *model, snrq_row_grams *out)
{
    uint64_t bytes;
    *out = (snrq_row_grams){0};
    snrq_status status = SNRQ_OK;
    if (context->rank == 0) status = snrq_file_hash(path, out->hash, &bytes);
    SNRQ_TRY(snrq_agree(context, status));
    SNRQ_TRY(snrq_broadcast(context, out->hash, sizeof out->hash));
    SNRQ_TRY(snrq_agree(context, snrq_sensitivity_open(path, &out->file)));
    SNRQ_TRY(snrq_agree(context, check_model(out, path, model)));
    return snrq_agree(context, check_modules(context, out, path, model));
}

void snrq_row_grams_close(snrq_row_grams *g)
{
    snrq_sensitivity_close(&g->file);
}

/* The part of a tile of the file, rows [first, first + ROWS) of the stack, that lies in a tile of
 * the stack, which begins with row `row`. */
static void copy_tile(const float *from, int64_t first, int64_t end, int64_t row, float *to)
{
    for (int64_t i = first; i < end; i++)
        for (int64_t j = first; j < end; j++)
            if (i >= row && i < row + ROWS && j >= row && j < row + ROWS)
                to[(i - row) * ROWS + j - row] = from[(i - first) * ROWS + j - first];
}

/* The rows [mine.begin, mine.end) of a module that has the rows [begin, end) of the stack. */
static snrq_status read_module(const snrq_row_grams *g, const char *name, int64_t begin,
                               int64_t end, snrq_range mine, float *out)
{
    const int64_t from = mine.begin > begin ? mine.begin : begin;
    const int64_t to = mine.end < end ? mine.end : end;
    if (from >= to) return SNRQ_OK;
    const snrq_range tiles = {(from - begin) / ROWS, (to - begin + ROWS - 1) / ROWS};
    float *values = NULL;
    SNRQ_TRY(snrq_allocate((size_t)((tiles.end - tiles.begin) * SNRQ_SENSITIVITY_TILE),
                           sizeof *values, "sensitivities", &values));
    snrq_status status = snrq_sensitivity_read(g->file, name, end - begin, tiles, values);
    for (int64_t t = tiles.begin; status == SNRQ_OK && t < tiles.end; t++) {
        const int64_t first = begin + t * ROWS, last = first + ROWS < end ? first + ROWS : end;
        const float *tile = values + (t - tiles.begin) * SNRQ_SENSITIVITY_TILE;
        for (int64_t row = mine.begin; row < mine.end; row += ROWS)
            if (row < last && first < row + ROWS)
                copy_tile(tile, first, last, row,
                          out + (row - mine.begin) / ROWS * SNRQ_SENSITIVITY_TILE);
    }
    free(values);
    return status;
}

snrq_status snrq_row_grams_read(const snrq_row_grams *g, snrq_range mine, double share,
                                snrq_stack *stack, float **out)
{
    const int64_t tiles = (mine.end - mine.begin + ROWS - 1) / ROWS;
    *out = NULL;
    if (g->file == NULL) return SNRQ_OK;
    SNRQ_TRY(
        snrq_allocate((size_t)(tiles * SNRQ_SENSITIVITY_TILE), sizeof **out, "sensitivities", out));
    for (int m = 0; m < stack->count; m++)
        SNRQ_TRY(read_module(g, stack->names[m], stack->first[m], stack->first[m + 1], mine, *out));
    stack->row_grams = *out;
    stack->row_gram_tokens = (int64_t)(share * (double)snrq_sensitivity_facts_of(g->file)->tokens);
    return SNRQ_OK;
}
