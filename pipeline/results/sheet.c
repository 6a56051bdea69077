/* Making a sheet; see sheet.h. Its formats: sheet_formats.c. */
#include "pipeline/results/sheet.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { FIGURE = 64 }; /* bytes of a number as text */

void snrq_spread_add(snrq_spread *s, double value)
{
    /* Welford's update: sd holds the sum of squared deviations so far. */
    double before = value - s->mean;
    s->count++;
    s->mean += before / s->count;
    s->sd += before * (value - s->mean);
}

void snrq_spread_close(snrq_spread *s)
{
    s->sd = s->count > 1 ? sqrt(s->sd / (s->count - 1)) : NAN;
}

void snrq_sheet_create(const char *name, const char *title, snrq_sheet *s)
{
    *s = (snrq_sheet){.name = strdup(name), .title = strdup(title)};
    s->failed = s->name == NULL || s->title == NULL;
}

void snrq_sheet_free(snrq_sheet *s)
{
    for (int c = 0; c < s->columns; c++) free(s->column[c].name);
    for (int64_t i = 0; i < s->cells; i++) free(s->cell[i].text);
    for (int n = 0; n < s->notes; n++) free(s->note[n]);
    free(s->column);
    free(s->cell);
    free(s->note);
    free(s->name);
    free(s->title);
    *s = (snrq_sheet){0};
}

void snrq_sheet_column_add(snrq_sheet *s, const char *name, snrq_sheet_kind kind)
{
    snrq_sheet_column *more = realloc(s->column, ((size_t)s->columns + 1) * sizeof *more);
    char *copy = strdup(name);
    if (more != NULL) s->column = more;
    if (more == NULL || copy == NULL) {
        free(copy);
        s->failed = true;
        return;
    }
    s->column[s->columns++] = (snrq_sheet_column){copy, kind};
}

/* text is taken over. */
static void add_cell(snrq_sheet *s, char *text, snrq_spread value)
{
    if (s->cells == s->room) {
        int64_t room = s->room > 0 ? 2 * s->room : 64;
        snrq_sheet_cell *more = realloc(s->cell, (size_t)room * sizeof *more);
        if (more != NULL) s->room = room;
        if (more != NULL) s->cell = more;
    }
    if (text == NULL || s->cells == s->room) {
        free(text);
        s->failed = true;
        return;
    }
    s->cell[s->cells++] = (snrq_sheet_cell){text, value};
}

void snrq_sheet_text(snrq_sheet *s, const char *text)
{
    add_cell(s, strdup(text), (snrq_spread){0});
}

/* Plain figures: no exponent where a few more digits do without. */
static void print_figure(double value, int digits, char out[FIGURE])
{
    if (digits < 0)
        snprintf(out, FIGURE, "%.*g", -digits, value);
    else if (fabs(value) < 1e15)
        snprintf(out, FIGURE, "%.*f", digits, value);
    else
        snprintf(out, FIGURE, "%.6g", value);
}

void snrq_sheet_number(snrq_sheet *s, double value, int digits)
{
    char text[FIGURE] = "-";
    bool there = !isnan(value);
    if (there) print_figure(value, digits, text);
    add_cell(s, strdup(text), (snrq_spread){.mean = value, .sd = NAN, .count = there});
}

void snrq_sheet_spread(snrq_sheet *s, const snrq_spread *spread, int digits, bool marked)
{
    char mean[FIGURE] = "-", sd[FIGURE] = "", text[2 * FIGURE + 16];
    bool has_sd = spread->count > 0 && !isnan(spread->sd);
    if (spread->count > 0) print_figure(spread->mean, digits, mean);
    if (has_sd) print_figure(spread->sd, digits, sd);
    snprintf(text, sizeof text, "%s%s%s%s", mean, has_sd ? " ± " : "", sd, marked ? " *" : "");
    add_cell(s, strdup(text), *spread);
}

void snrq_sheet_note(snrq_sheet *s, const char *format, ...)
{
    char *text = NULL, **more = realloc(s->note, ((size_t)s->notes + 1) * sizeof *more);
    size_t bytes = 0;
    FILE *f = open_memstream(&text, &bytes);
    va_list values;
    if (more != NULL) s->note = more;
    if (f != NULL) {
        va_start(values, format);
        vfprintf(f, format, values);
        va_end(values);
        if (fclose(f) != 0) s->failed = true;
    }
    if (more == NULL || text == NULL) {
        free(text);
        s->failed = true;
        return;
    }
    s->note[s->notes++] = text;
}

int64_t snrq_sheet_rows(const snrq_sheet *s)
{
    return s->columns > 0 ? s->cells / s->columns : 0;
}
