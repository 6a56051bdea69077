/* A table of results, written in several formats: text for a terminal, Markdown, TSV for programs,
 * LaTeX, HTML.
 *
 * A sheet is made cell by cell, row by row. What fails on the way (no memory) is remembered and
 * told when the sheet is written, so that a caller checks once. Not collective.
 */
#ifndef SNRQ_SHEET_H
#define SNRQ_SHEET_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "mpi/status.h"

typedef enum snrq_sheet_kind {
    SNRQ_SHEET_TEXT,   /* to the left */
    SNRQ_SHEET_NUMBER, /* to the right; in TSV with all its digits */
    SNRQ_SHEET_SPREAD  /* a mean with its deviation; in TSV three columns: X, X_sd, X_n */
} snrq_sheet_kind;

typedef enum snrq_sheet_format {
    SNRQ_SHEET_PLAIN,
    SNRQ_SHEET_MARKDOWN,
    SNRQ_SHEET_TSV,
    SNRQ_SHEET_LATEX,
    SNRQ_SHEET_HTML
} snrq_sheet_format;

/* A figure over repeated runs. */
typedef struct snrq_spread {
    double mean, sd; /* sd: of the sample; NaN with fewer than two values, or if unknown */
    int count;       /* values; 0: none, nothing else counts then */
} snrq_spread;

/* Adds a value to the values of a spread, which are kept as mean and sum of squares until
 * snrq_spread_close() makes the deviation of them. Start from zeros. */
void snrq_spread_add(snrq_spread *spread, double value);
void snrq_spread_close(snrq_spread *spread);

typedef struct snrq_sheet_column {
    char *name; /* owned */
    snrq_sheet_kind kind;
} snrq_sheet_column;

typedef struct snrq_sheet_cell {
    char *text; /* for people; owned */
    snrq_spread value;
} snrq_sheet_cell;

typedef struct snrq_sheet {
    char *name, *title;        /* "cost": of its file; a line above it. Owned */
    snrq_sheet_column *column; /* [columns] owned */
    int columns;
    snrq_sheet_cell *cell; /* [cells] row by row; owned */
    int64_t cells, room;
    char **note; /* [notes] lines below it; owned */
    int notes;
    bool failed; /* without memory */
} snrq_sheet;

/* name: letters, digits and "-". Both are copied. */
void snrq_sheet_create(const char *name, const char *title, snrq_sheet *out);
void snrq_sheet_free(snrq_sheet *sheet);

/* Adds a column; all of them before the first cell. The name is copied. */
void snrq_sheet_column_add(snrq_sheet *sheet, const char *name, snrq_sheet_kind kind);

/* Adds the next cell: a text (copied; it may hold anything); a number with so many digits after
 * the point (negative: so many significant ones); a spread, marked with a star if `marked`. NaN and
 * a spread without values are "-". */
void snrq_sheet_text(snrq_sheet *sheet, const char *text);
void snrq_sheet_number(snrq_sheet *sheet, double value, int digits);
void snrq_sheet_spread(snrq_sheet *sheet, const snrq_spread *spread, int digits, bool marked);

/* Adds a line below the table. */
__attribute__((format(printf, 2, 3))) void snrq_sheet_note(snrq_sheet *sheet, const char *format,
                                                           ...);

int64_t snrq_sheet_rows(const snrq_sheet *sheet);

/* Writes the sheet with its title and notes (TSV: only names and cells). SNRQ_INTERNAL if making it
 * failed. Errors of the file are the caller's to find. */
snrq_status snrq_sheet_write(const snrq_sheet *sheet, snrq_sheet_format format, FILE *file);

/* Writes text so that it means itself: in HTML, in LaTeX. Control characters become blanks. */
void snrq_html_escape(const char *text, FILE *file);
void snrq_latex_escape(const char *text, FILE *file);

#endif
