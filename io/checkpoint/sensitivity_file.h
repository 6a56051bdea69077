/* What the outputs of every module are worth, in parallel HDF5; `snrq sensitivity` writes it.
 *
 * Layout:
 *
 *   /       attributes: format = "snrq-sensitivity", format_version, tokens (that were summed
 *           over), length (of the windows that they are), seed (of the drawn labels), tile_rows =
 *           64, model (fingerprint of the model, snrq_model_fingerprint())
 *   ids     i32 [tokens / length, length]: the tokens
 *   NAME    f32 [ceil(rows / 64), 64, 64], one for each module, named as in the checkpoint without
 *           ".weight": tile t holds, for rows 64 t + i and 64 t + j of the weight, the mean over
 *           the tokens of g_i g_j, where g is the gradient of a token's outputs. Rows that do not
 *           exist in the last tile are 0.
 *   squares/NAME   f32 [tokens / length, length], one for each module that all tokens go through,
 *           which experts are not: sum over all rows of g_i^2 of every token
 *
 * The bytes do not depend on the number of ranks: see io/hdf5/writer.h.
 */
#ifndef SNRQ_SENSITIVITY_FILE_H
#define SNRQ_SENSITIVITY_FILE_H

#include "mpi/collective.h"

enum { SNRQ_SENSITIVITY_ROWS = 64, SNRQ_SENSITIVITY_TILE = 64 * 64 };

/* What the file belongs to. Same on all ranks. */
typedef struct snrq_sensitivity_facts {
    int64_t tokens, length, seed;
    char model[33]; /* 32 hex digits */
} snrq_sensitivity_facts;

/* Tiles of a module of so many rows. */
static inline int64_t snrq_sensitivity_tiles(int64_t rows)
{
    return (rows + SNRQ_SENSITIVITY_ROWS - 1) / SNRQ_SENSITIVITY_ROWS;
}

/* ---- writing ---- */

typedef struct snrq_sensitivity_module {
    char name[128]; /* "model.layers.0.self_attn.q_proj" */
    int64_t rows;
    bool all_tokens; /* go through it: it has squares */
} snrq_sensitivity_module;

typedef struct snrq_sensitivity_writer snrq_sensitivity_writer;

/* Lays out a file at `path` (borrowed) for the modules (copied), whose tiles follow in any order.
 * SNRQ_CANNOT_WRITE if there is no room. Collective; agreed. */
snrq_status snrq_sensitivity_create(const snrq_context *context, const char *path,
                                    const snrq_sensitivity_facts *facts,
                                    const snrq_sensitivity_module *modules, int count,
                                    snrq_sensitivity_writer **out);

/* Writes some tiles of module `index`, [tiles, 64, 64]. Every tile is written once, by one rank.
 * Not collective, not agreed. */
snrq_status snrq_sensitivity_put(snrq_sensitivity_writer *writer, int index, snrq_range tiles,
                                 const float *data);

/* Writes the tokens of some windows, [windows, length]. As above. */
snrq_status snrq_sensitivity_put_ids(snrq_sensitivity_writer *writer, snrq_range windows,
                                     const int32_t *ids);

/* Writes the squares of some windows, [windows, length], of a module that has them. As above. */
snrq_status snrq_sensitivity_put_squares(snrq_sensitivity_writer *writer, int index,
                                         snrq_range windows, const float *data);

/* `status`: this rank's outcome. Agrees, makes durable, reads back; frees, sets *writer to NULL. If
 * anything failed, nothing is left at the path. Collective; agreed. */
snrq_status snrq_sensitivity_finish(snrq_sensitivity_writer **writer, snrq_status status);

/* Bytes of what is stored of these modules. */
int64_t snrq_sensitivity_bytes(const snrq_sensitivity_module *modules, int count, int64_t tokens);

/* ---- reading ---- */

typedef struct snrq_sensitivity_file snrq_sensitivity_file;

/* SNRQ_BAD_DATA if it is no such file, of another version, or damaged. Not collective, as the
 * following. Close with snrq_sensitivity_close(). */
snrq_status snrq_sensitivity_open(const char *path, snrq_sensitivity_file **out);
void snrq_sensitivity_close(snrq_sensitivity_file **file);

/* Borrowed. */
const snrq_sensitivity_facts *snrq_sensitivity_facts_of(const snrq_sensitivity_file *file);

/* Reads tiles of the module `name` of so many rows into out [tiles, 64, 64]. SNRQ_BAD_DATA if it is
 * not there or has another number of tiles, or if a tile is none of a Gram matrix: not finite, not
 * symmetric, with a negative diagonal, or with rows beyond the last. */
snrq_status snrq_sensitivity_read(const snrq_sensitivity_file *file, const char *name, int64_t rows,
                                  snrq_range tiles, float *out);

/* Reads all tokens into out [tokens]. */
snrq_status snrq_sensitivity_read_ids(const snrq_sensitivity_file *file, int32_t *out);

/* Reads the squares of all tokens of the module `name` into out [tokens]. SNRQ_BAD_DATA if they are
 * not there, or one is negative or not finite. */
snrq_status snrq_sensitivity_read_squares(const snrq_sensitivity_file *file, const char *name,
                                          float *out);

#endif
