/* Pictures; see picture.h. */
#include "pipeline/results/picture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* From dark to light, and told apart by those who see few colours. */
static const char *const colours[] = {"#000000", "#0060a0", "#c04000", "#008060",
                                      "#a05090", "#3090d0", "#d09000", "#909090"};
static const int points_of[] = {7, 5, 9, 6, 4, 8, 13, 2};
enum { LOOKS = sizeof colours / sizeof *colours };

void snrq_picture_create(const char *name, const char *title, const char *x, const char *y,
                         snrq_picture *p)
{
    *p = (snrq_picture){
        .name = strdup(name), .title = strdup(title), .x = strdup(x), .y = strdup(y)};
    p->failed = p->name == NULL || p->title == NULL || p->x == NULL || p->y == NULL;
}

void snrq_picture_free(snrq_picture *p)
{
    for (int s = 0; s < p->count; s++) {
        free(p->series[s].name);
        free(p->series[s].point);
    }
    for (int i = 0; i < p->places; i++) free(p->place[i]);
    free(p->place);
    free(p->series);
    free(p->name);
    free(p->title);
    free(p->x);
    free(p->y);
    *p = (snrq_picture){0};
}

void snrq_picture_series_add(snrq_picture *p, const char *name, snrq_picture_style style)
{
    for (int s = 0; s < p->count; s++)
        if (strcmp(p->series[s].name, name) == 0) {
            const snrq_picture_series again = p->series[s];
            memmove(&p->series[s], &p->series[s + 1],
                    (size_t)(p->count - 1 - s) * sizeof *p->series);
            p->series[p->count - 1] = again;
            return;
        }
    snrq_picture_series *more = realloc(p->series, ((size_t)p->count + 1) * sizeof *more);
    char *copy = strdup(name);
    if (more != NULL) p->series = more;
    if (more == NULL || copy == NULL) {
        free(copy);
        p->failed = true;
        return;
    }
    p->series[p->count++] = (snrq_picture_series){.name = copy, .style = style};
}

void snrq_picture_spread(snrq_picture *p, double x, const snrq_spread *y)
{
    if (p->count == 0 || y->count == 0 || !isfinite(x) || !isfinite(y->mean)) return;
    snrq_picture_series *s = &p->series[p->count - 1];
    snrq_picture_point *more = realloc(s->point, ((size_t)s->points + 1) * sizeof *more);
    if (more == NULL) {
        p->failed = true;
        return;
    }
    s->point = more;
    s->point[s->points++] = (snrq_picture_point){x, *y};
}

void snrq_picture_value(snrq_picture *p, double x, double y)
{
    const snrq_spread value = {.mean = y, .sd = NAN, .count = 1};
    snrq_picture_spread(p, x, &value);
}

void snrq_picture_bar(snrq_picture *p, const char *place, double y)
{
    char **more = realloc(p->place, ((size_t)p->places + 1) * sizeof *more), *copy = strdup(place);
    if (more != NULL) p->place = more;
    if (more == NULL || copy == NULL) {
        free(copy);
        p->failed = true;
        return;
    }
    p->place[p->places++] = copy;
    snrq_picture_value(p, p->places - 1, y);
}

bool snrq_picture_is_empty(const snrq_picture *p)
{
    for (int s = 0; s < p->count; s++)
        if (p->series[s].points > 0) return false;
    return true;
}

void snrq_picture_clear(snrq_picture *p)
{
    for (int s = 0; s < p->count; s++) p->series[s].points = 0;
}

/* ---- as a table ---- */

static int compare_numbers(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* All x of the lines, in order: *out [returned], owned by the caller; NULL without memory. */
static int distinct_x(const snrq_picture *p, double **out)
{
    int count = 0, distinct = 0;
    for (int s = 0; s < p->count; s++) count += p->series[s].points;
    double *x = calloc((size_t)count + 1, sizeof *x);
    *out = x;
    if (x == NULL) return 0;
    count = 0;
    for (int s = 0; s < p->count; s++)
        for (int i = 0; i < p->series[s].points; i++) x[count++] = p->series[s].point[i].x;
    qsort(x, (size_t)count, sizeof *x, compare_numbers);
    for (int i = 0; i < count; i++)
        if (distinct == 0 || x[i] != x[distinct - 1]) x[distinct++] = x[i];
    return distinct;
}

static const snrq_spread *value_at(const snrq_picture_series *s, double x)
{
    static const snrq_spread none = {0};
    for (int i = 0; i < s->points; i++)
        if (s->point[i].x == x) return &s->point[i].y;
    return &none;
}

static void fill_by_x(const snrq_picture *p, snrq_sheet *out)
{
    double *x = NULL;
    int count = distinct_x(p, &x);
    if (x == NULL) out->failed = true;
    snrq_sheet_column_add(out, p->x, SNRQ_SHEET_NUMBER);
    for (int s = 0; s < p->count; s++)
        snrq_sheet_column_add(out, p->series[s].name, SNRQ_SHEET_SPREAD);
    for (int i = 0; i < count; i++) {
        snrq_sheet_number(out, x[i], -6);
        for (int s = 0; s < p->count; s++)
            snrq_sheet_spread(out, value_at(&p->series[s], x[i]), -5, false);
    }
    free(x);
}

static void fill_by_point(const snrq_picture *p, snrq_sheet *out)
{
    snrq_sheet_column_add(out, "series", SNRQ_SHEET_TEXT);
    snrq_sheet_column_add(out, p->x, p->places > 0 ? SNRQ_SHEET_TEXT : SNRQ_SHEET_NUMBER);
    snrq_sheet_column_add(out, p->y, SNRQ_SHEET_SPREAD);
    for (int s = 0; s < p->count; s++)
        for (int i = 0; i < p->series[s].points; i++) {
            const snrq_picture_point *point = &p->series[s].point[i];
            snrq_sheet_text(out, p->series[s].name);
            if (p->places > 0)
                snrq_sheet_text(out, p->place[(int)point->x]);
            else
                snrq_sheet_number(out, point->x, -5);
            snrq_sheet_spread(out, &point->y, -5, false);
        }
}

void snrq_picture_sheet(const snrq_picture *p, snrq_sheet *out)
{
    bool lines = true;
    snrq_sheet_create(p->name, p->title, out);
    for (int s = 0; s < p->count; s++) lines &= p->series[s].style == SNRQ_PICTURE_LINES;
    if (lines)
        fill_by_x(p, out);
    else
        fill_by_point(p, out);
    if (lines) snrq_sheet_note(out, "Values: %s.", p->y);
    out->failed |= p->failed;
}

/* ---- for gnuplot ---- */

/* In single quotes nothing is replaced; a quote is written twice. */
static void put_quoted(const char *text, FILE *f)
{
    fputc('\'', f);
    for (const char *at = text; *at != '\0'; at++) {
        if (*at == '\'') fputc('\'', f);
        fputc((unsigned char)*at < ' ' || *at == 0x7f ? ' ' : *at, f);
    }
    fputc('\'', f);
}

static void put_setting(const char *name, const char *text, FILE *f)
{
    fprintf(f, "set %s ", name);
    put_quoted(text, f);
    fputc('\n', f);
}

/* Deviations are drawn where there are any; x y low high. */
static void put_data(const snrq_picture_series *s, int number, FILE *f)
{
    fprintf(f, "$d%d << EOD\n", number);
    for (int i = 0; i < s->points; i++) {
        const snrq_spread *y = &s->point[i].y;
        double sd = isnan(y->sd) ? 0.0 : y->sd;
        fprintf(f, "%.10g %.10g %.10g %.10g\n", s->point[i].x, y->mean, y->mean - sd, y->mean + sd);
    }
    fputs("EOD\n", f);
}

static bool has_deviations(const snrq_picture_series *s)
{
    for (int i = 0; i < s->points; i++)
        if (!isnan(s->point[i].y.sd) && s->point[i].y.sd > 0.0) return true;
    return false;
}

static void put_plot(const snrq_picture_series *s, int number, FILE *f)
{
    int look = number % LOOKS, dash = 1 + number % 5, point = (number + number / LOOKS) % LOOKS;
    bool deviations = has_deviations(s);
    fprintf(f, "$d%d using ", number);
    switch (s->style) {
    case SNRQ_PICTURE_BARS:
        fprintf(f, "1:2 with boxes linecolor rgb \"%s\" fillstyle solid 0.6", "#606060");
        break;
    case SNRQ_PICTURE_LINES:
        fprintf(f,
                "1:2%s with %s linecolor rgb \"%s\" linewidth 1.5 dashtype %d pointtype %d "
                "pointsize 0.7",
                deviations ? ":3:4" : "", deviations ? "yerrorlines" : "linespoints", colours[look],
                dash, points_of[point]);
        break;
    case SNRQ_PICTURE_JOIN:
        fprintf(f, "1:2 with lines linecolor rgb \"#606060\" dashtype %d", dash);
        break;
    case SNRQ_PICTURE_POINTS:
        fprintf(f, "1:2%s with %s linecolor rgb \"%s\" pointtype %d pointsize 1",
                deviations ? ":3:4" : "", deviations ? "yerrorbars" : "points", colours[look],
                points_of[point]);
        break;
    }
    fputs(" title ", f);
    put_quoted(s->name, f);
}

static void put_places(const snrq_picture *p, FILE *f)
{
    fputs("set xtics (", f);
    for (int i = 0; i < p->places; i++) {
        if (i > 0) fputs(", ", f);
        put_quoted(p->place[i], f);
        fprintf(f, " %d", i);
    }
    fprintf(f, ")\nset xrange [-0.6:%d.6]\nset yrange [0:*]\nset boxwidth 0.7\nset key off\n",
            p->places - 1);
}

enum { MOST_MARKS = 20 };

static void put_marks(const snrq_picture *p, FILE *f)
{
    double *x = NULL;
    int count = distinct_x(p, &x);
    if (count > 0 && count <= MOST_MARKS) {
        fputs("set xtics (", f);
        for (int i = 0; i < count; i++) fprintf(f, "%s%.10g", i > 0 ? ", " : "", x[i]);
        fputs(")\n", f);
    }
    free(x);
}

/* Room at both ends, and no axis without length. */
static void put_x_range(const snrq_picture *p, FILE *f)
{
    double low = INFINITY, high = -INFINITY;
    for (int s = 0; s < p->count; s++)
        for (int i = 0; i < p->series[s].points; i++) {
            low = fmin(low, p->series[s].point[i].x);
            high = fmax(high, p->series[s].point[i].x);
        }
    if (!(low <= high)) return;
    if (p->whole_x && high - low < 16) fputs("set xtics 1\n", f);
    if (p->log_x && low > 0.0)
        fprintf(f, "set xrange [%.10g:%.10g]\n", low / 1.2, high * 1.2);
    else
        fprintf(f, "set xrange [%.10g:%.10g]\n", low - 0.04 * (high - low) - (high == low),
                high + 0.04 * (high - low) + (high == low));
}

snrq_status snrq_picture_script(const snrq_picture *p, FILE *f)
{
    if (p->failed) return snrq_fail(SNRQ_INTERNAL, "no memory for a picture of the report");
    fputs("# gnuplot makes the picture of this script; the numbers are below.\n"
          "set terminal svg size 820,460 noenhanced font 'sans-serif,13' background '#ffffff'\n",
          f);
    fprintf(f, "set output '%s.svg'\n", p->name);
    put_setting("title", p->title, f);
    put_setting("xlabel", p->x, f);
    put_setting("ylabel", p->y, f);
    fputs("set border 3\nset tics nomirror\nset grid linecolor rgb '#d8d8d8'\n"
          "set key outside right top vertical samplen 4\nset format y '%g'\n",
          f);
    if (p->places > 0)
        put_places(p, f);
    else
        put_x_range(p, f);
    if (p->log_x) fputs("set logscale x\nset format x '%g'\n", f);
    if (p->exact_x) put_marks(p, f);
    if (p->log_y) fputs("set logscale y\n", f);
    for (int s = 0; s < p->count; s++) put_data(&p->series[s], s, f);
    fputs("plot ", f);
    for (int s = 0, drawn = 0; s < p->count; s++) {
        if (p->series[s].points == 0) continue;
        if (drawn++ > 0) fputs(", \\\n     ", f);
        put_plot(&p->series[s], s, f);
    }
    fputc('\n', f);
    return SNRQ_OK;
}
