/* Internal to the search: the beams of one row between and within column panels. See search.h for
 * the symbols. */
#ifndef SNRQ_BEAM_H
#define SNRQ_BEAM_H

#include "pipeline/search.h"

/* The survivors of one row, cheapest first, after the columns >= position were decided. Their codes
 * are kept where they may differ, in columns [position, settled); from `settled` on all agree. */
typedef struct snrq_beam_row {
    int width, count; /* K, and how many survive now (1 before the first column) */
    int64_t columns, position, settled, capacity;
    double *costs;   /* [K] owned */
    uint8_t *recent; /* [K][capacity] codes of columns position, position + 1, ...; owned */
    uint8_t *common; /* [columns] codes of the settled columns; owned */
} snrq_beam_row;

snrq_status snrq_beam_row_create(int beam, int64_t columns, snrq_beam_row *out);
void snrq_beam_row_free(snrq_beam_row *row);

/* Scratch of one thread. */
typedef struct snrq_beam_scratch {
    float *y, *y_next;          /* [K][SNRQ_BLOCK] */
    double *costs, *costs_next; /* [K] */
    struct snrq_candidate *next;
    int32_t *parents; /* [SNRQ_BLOCK][K] */
    uint8_t *codes;   /* [SNRQ_BLOCK][K] */
    uint8_t *traced;  /* [K][SNRQ_BLOCK] */
    int32_t *roots;   /* [K] */
} snrq_beam_scratch;

snrq_status snrq_beam_scratch_create(int beam, snrq_beam_scratch *out);
void snrq_beam_scratch_free(snrq_beam_scratch *scratch);

/* Carries the beams of row `row` through a panel. y [SNRQ_BLOCK] is the value to round of the first
 * beam, with all decided columns brought in; errors [columns] (R - Q of the first beam) is brought
 * up to date. */
snrq_status snrq_beam_panel(const snrq_rows *rows, int64_t row, const snrq_panel *panel,
                            const float *y, float *errors, snrq_beam_row *beam,
                            snrq_beam_scratch *scratch);

/* After the last panel: replaces codes [columns] and *cost (the greedy result) if the best beam is
 * cheaper. */
void snrq_beam_finish(const snrq_beam_row *beam, uint8_t *codes, double *cost);

#endif
