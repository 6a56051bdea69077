/* A picture of results: series of points, as a script for gnuplot and as a table.
 *
 * Series differ by colour, brightness, dashes and points, so that they can be told apart in grey.
 * What fails on the way (no memory) is remembered and told when the picture is written. Not
 * collective.
 */
#ifndef SNRQ_PICTURE_H
#define SNRQ_PICTURE_H

#include "pipeline/results/sheet.h"

typedef enum snrq_picture_style {
    SNRQ_PICTURE_LINES,  /* points joined in order */
    SNRQ_PICTURE_POINTS, /* each for itself */
    SNRQ_PICTURE_JOIN,   /* a thin line without points of its own */
    SNRQ_PICTURE_BARS    /* one for each named place of the first axis: x = 0, 1, ... */
} snrq_picture_style;

typedef struct snrq_picture_point {
    double x;
    snrq_spread y;
} snrq_picture_point;

typedef struct snrq_picture_series {
    char *name; /* owned */
    snrq_picture_style style;
    snrq_picture_point *point; /* [points] owned */
    int points;
} snrq_picture_series;

typedef struct snrq_picture {
    char *name, *title;          /* "alpha": of its files; owned */
    char *x, *y;                 /* what the axes show, with units; owned */
    bool log_x, log_y;           /* logarithmic axes */
    bool whole_x;                /* the first axis counts something: no fractions */
    bool exact_x;                /* marks on the first axis only where points are */
    snrq_picture_series *series; /* [count] owned */
    int count;
    char **place; /* [places] names along the first axis, for bars; owned */
    int places;
    bool failed;
} snrq_picture;

/* Texts are copied. */
void snrq_picture_create(const char *name, const char *title, const char *x, const char *y,
                         snrq_picture *out);
void snrq_picture_free(snrq_picture *picture);

/* Adds a series, to which the points that follow belong, or goes on with the one of this name. */
void snrq_picture_series_add(snrq_picture *picture, const char *name, snrq_picture_style style);
/* A value that is NaN is no point. */
void snrq_picture_value(snrq_picture *picture, double x, double y);
void snrq_picture_spread(snrq_picture *picture, double x, const snrq_spread *y);
/* A bar of the series, at a place of its own with this name. */
void snrq_picture_bar(snrq_picture *picture, const char *place, double y);

bool snrq_picture_is_empty(const snrq_picture *picture);
/* Takes all points out again: it is not worth a picture. */
void snrq_picture_clear(snrq_picture *picture);

/* The numbers in it as a sheet of the same name: of lines, a column for each series. */
void snrq_picture_sheet(const snrq_picture *picture, snrq_sheet *out);

/* Writes a script that makes NAME.svg in the current directory. SNRQ_INTERNAL if making the picture
 * failed. Errors of the file are the caller's to find. */
snrq_status snrq_picture_script(const snrq_picture *picture, FILE *file);

#endif
