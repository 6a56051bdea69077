/* The pictures of a report on a table of runs; see table_report.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/results/table_report.h"

enum {
    MOST_LINES = 14, /* of a picture by layer */
    WIDELY = 4       /* times */
};

static const char *model_of(const snrq_row_outcome *row)
{
    return json_string_value(json_object_get(row->key, "model"));
}

/* ---- quality against an option ---- */

/* How values of an option are numbers: 3; V of "fixed:V". */
typedef struct scale {
    const char *name, *option, *prefix, *axis;
    bool log;
} scale;

static const scale scales[] = {
    {"beam", "beam", "", "beam width K", true},
    {"bits", "bits", "", "bits per weight", false},
    {"group-size", "group-size", "", "columns that share a scale", true},
    {"alpha-fixed", "alpha", "fixed:", "alpha (fixed)", false},
    {"alpha-sampled", "alpha", "sampled:", "l of Beta(l, l), from which alpha is drawn", true},
    {"sequences", "sequences", "", "calibration windows", true},
    {"damp", "damp", "", "damping, as a share of mean(diag H)", true},
};
enum { SCALES = sizeof scales / sizeof *scales };

static double number_on(const scale *s, const snrq_row_outcome *row)
{
    char text[SNRQ_OPTION_TEXT], *end;
    snrq_row_option(row, s->option, text);
    size_t length = strlen(s->prefix);
    if (strncmp(text, s->prefix, length) != 0) return NAN;
    double value = strtod(text + length, &end);
    return end != text + length && *end == '\0' ? value : NAN;
}

/* Is there a series with two points? */
static bool has_line(const snrq_picture *p)
{
    for (int s = 0; s < p->count; s++)
        for (int i = 1; i < p->series[s].points; i++)
            if (p->series[s].point[i].x != p->series[s].point[0].x) return true;
    return false;
}

static int compare_points(const void *a, const void *b)
{
    const snrq_picture_point *p = a, *q = b;
    return p->x < q->x ? -1 : p->x > q->x;
}

static void sort_lines(snrq_picture *p)
{
    for (int s = 0; s < p->count; s++)
        qsort(p->series[s].point, (size_t)p->series[s].points, sizeof *p->series[s].point,
              compare_points);
}

/* Do the rows of a model (NULL: of all) differ so much that small differences need a logarithm? */
static bool spans_widely(const snrq_outcome *o, int figure, const char *model)
{
    double low = INFINITY, high = 0.0;
    for (int r = 0; r < o->rows; r++) {
        const snrq_spread *value = &o->row[r].figure[figure];
        if (value->count == 0 || o->experiment->run[o->row[r].first].full) continue;
        if (model != NULL && strcmp(model_of(&o->row[r]), model) != 0) continue;
        low = fmin(low, value->mean);
        high = fmax(high, value->mean);
    }
    return low > 0.0 && high > WIDELY * low;
}

static void draw_scale(const snrq_outcome *o, int figure, const scale *s, snrq_document *d)
{
    const snrq_table_figure *f = &o->experiment->figure[figure];
    char name[SNRQ_LABEL], title[SNRQ_LABEL], label[SNRQ_LABEL];
    snprintf(name, sizeof name, "%s-by-%s", f->name, s->name);
    snprintf(title, sizeof title, "%s against %s", f->name, s->axis);
    snrq_picture *p = snrq_document_picture(d, name, title, s->axis, f->name);
    if (p == NULL) return;
    p->log_x = s->log;
    p->exact_x = true;
    p->log_y = spans_widely(o, figure, NULL);
    for (int r = 0; r < o->rows; r++) {
        double x = number_on(s, &o->row[r]);
        if (isnan(x) || (s->log && x <= 0.0)) continue;
        snrq_picture_series_add(p, snrq_row_label(o, &o->row[r], s->option, NULL, label),
                                SNRQ_PICTURE_LINES);
        snrq_picture_spread(p, x, &o->row[r].figure[figure]);
    }
    sort_lines(p);
    if (!has_line(p)) snrq_picture_clear(p);
}

/* ---- quality against seconds ---- */

static bool is_better(const snrq_table_figure *f, double a, double b)
{
    return f->more ? a > b : a < b;
}

/* Rows are compared that are of the same size. */
static bool is_rival(const snrq_row_outcome *a, const snrq_row_outcome *b, int figure)
{
    static const char *const same[] = {"model", "bits", "group-size"};
    bool rival = b->seconds.count > 0 && b->figure[figure].count > 0;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        char x[SNRQ_OPTION_TEXT], y[SNRQ_OPTION_TEXT];
        rival &= strcmp(snrq_row_option(a, same[i], x), snrq_row_option(b, same[i], y)) == 0;
    }
    return rival;
}

/* Is another one as fast and better, or as good and faster? */
static bool is_beaten(const snrq_outcome *o, const snrq_row_outcome *a, int figure)
{
    for (int r = 0; r < o->rows; r++) {
        const snrq_row_outcome *b = &o->row[r];
        if (b == a || !is_rival(a, b, figure)) continue;
        double ours = a->figure[figure].mean, theirs = b->figure[figure].mean;
        bool better = is_better(&o->experiment->figure[figure], theirs, ours);
        if (b->seconds.mean <= a->seconds.mean && better) return true;
        if (b->seconds.mean < a->seconds.mean && theirs == ours) return true;
    }
    return false;
}

static void name_front(const snrq_outcome *o, const snrq_row_outcome *row, char out[SNRQ_LABEL])
{
    size_t used = (size_t)snprintf(out, SNRQ_LABEL, "Pareto front");
    for (int a = 0; a < o->axes; a++) {
        const char *name = o->axis[a].name;
        char text[SNRQ_OPTION_TEXT];
        if (!o->axis[a].varies || (strcmp(name, "bits") != 0 && strcmp(name, "group-size") != 0))
            continue;
        used += (size_t)snprintf(out + used, SNRQ_LABEL - used, ", %s %s", name,
                                 snrq_row_option(row, name, text));
    }
}

/* Rows of a model and of one size that no other one beats in time and quality, joined. */
static void draw_fronts(const snrq_outcome *o, int figure, const char *model, snrq_picture *p)
{
    char name[SNRQ_LABEL];
    for (int r = 0; r < o->rows; r++) {
        const snrq_row_outcome *row = &o->row[r];
        if (strcmp(model_of(row), model) != 0 || row->seconds.count == 0 ||
            row->figure[figure].count == 0 || is_beaten(o, row, figure))
            continue;
        name_front(o, row, name);
        snrq_picture_series_add(p, name, SNRQ_PICTURE_JOIN);
        snrq_picture_value(p, row->seconds.mean, row->figure[figure].mean);
    }
}

static void draw_seconds(const snrq_outcome *o, int figure, const char *model, bool only,
                         snrq_document *d)
{
    const snrq_table_figure *f = &o->experiment->figure[figure];
    char name[SNRQ_LABEL], title[SNRQ_LABEL], label[SNRQ_LABEL];
    snprintf(name, sizeof name, "%s-by-seconds%s%s", f->name, only ? "" : "-", only ? "" : model);
    snprintf(title, sizeof title, "%s against time to quantize, %s", f->name, model);
    snrq_picture *p = snrq_document_picture(d, name, title, "seconds to quantize", f->name);
    if (p == NULL) return;
    p->log_y = spans_widely(o, figure, model);
    for (int r = 0; r < o->rows; r++) {
        const snrq_row_outcome *row = &o->row[r];
        if (strcmp(model_of(row), model) != 0 || row->seconds.count == 0) continue;
        snrq_picture_series_add(p, snrq_row_label(o, row, "model", NULL, label),
                                SNRQ_PICTURE_POINTS);
        snrq_picture_spread(p, row->seconds.mean, &row->figure[figure]);
    }
    bool drawn = !snrq_picture_is_empty(p);
    if (drawn) draw_fronts(o, figure, model, p);
    sort_lines(p);
    if (!drawn) snrq_picture_clear(p);
}

/* ---- rows by layer ---- */

typedef struct layer_measure {
    const char *name, *title, *axis;
    bool log;
    double (*of_module)(const snrq_run_module *module);
    double (*of_unit)(const snrq_run_unit *unit);
} layer_measure;

static double alpha_of(const snrq_run_module *m)
{
    return m->record.alpha;
}

static double error_of(const snrq_run_module *m)
{
    return 100.0 * m->record.model_error;
}

static double mean_of(const snrq_run_unit *u)
{
    return u->mismatch_mean;
}

static double norm_of(const snrq_run_unit *u)
{
    return u->mismatch_norm;
}

static const layer_measure layer_measures[] = {
    {"mismatch-mean", "Mismatch of the inputs by layer", "mean of |Xf - X|", false, NULL, mean_of},
    {"mismatch-norm", "Mismatch of the inputs by layer, Frobenius norm", "mean of ||Xf - X||",
     false, NULL, norm_of},
    {"model-error", "Error against the full-precision model by layer",
     "mean of ||W Xf - Q X|| / ||W Xf|| in %", false, error_of, NULL},
    {"alpha", "Regularization strength by layer", "mean alpha", false, alpha_of, NULL},
};
enum { LAYER_MEASURES = sizeof layer_measures / sizeof *layer_measures };

static void add_layer(const snrq_run *run, const layer_measure *m, int64_t layer,
                      snrq_spread *spread)
{
    for (int64_t i = 0; m->of_module != NULL && i < run->modules; i++)
        if (run->module[i].layer == layer) snrq_spread_add(spread, m->of_module(&run->module[i]));
    for (int64_t i = 0; m->of_unit != NULL && i < run->units; i++)
        if (run->unit[i].layer == layer && !isnan(m->of_unit(&run->unit[i])))
            snrq_spread_add(spread, m->of_unit(&run->unit[i]));
}

/* The mean over modules and seeds of a row. */
static void draw_row(const snrq_outcome *o, const snrq_row_outcome *row, const layer_measure *m,
                     snrq_picture *p)
{
    char label[SNRQ_LABEL];
    int64_t layers = 0;
    snrq_picture_series_add(p, snrq_row_label(o, row, "model", NULL, label), SNRQ_PICTURE_LINES);
    for (int i = 0; i < row->runs; i++) {
        int64_t blocks = o->run[row->run[i]].results.blocks;
        layers = blocks > layers ? blocks : layers;
    }
    for (int64_t layer = 0; layer < layers; layer++) {
        snrq_spread spread = {0};
        for (int i = 0; i < row->runs; i++)
            add_layer(&o->run[row->run[i]].results, m, layer, &spread);
        if (spread.count > 0) snrq_picture_value(p, (double)layer, spread.mean);
    }
}

static void draw_layers(const snrq_outcome *o, const layer_measure *m, const char *model, bool only,
                        snrq_document *d)
{
    char name[SNRQ_LABEL], title[SNRQ_LABEL];
    int lines = 0;
    snprintf(name, sizeof name, "%s-by-layer%s%s", m->name, only ? "" : "-", only ? "" : model);
    snprintf(title, sizeof title, "%s, %s", m->title, model);
    for (int r = 0; r < o->rows; r++)
        lines +=
            strcmp(model_of(&o->row[r]), model) == 0 && !o->experiment->run[o->row[r].first].full;
    if (lines > MOST_LINES) return;
    snrq_picture *p = snrq_document_picture(d, name, title, "layer", m->axis);
    if (p == NULL) return;
    p->whole_x = true;
    p->log_y = m->log;
    for (int r = 0; r < o->rows; r++)
        if (strcmp(model_of(&o->row[r]), model) == 0 && !o->experiment->run[o->row[r].first].full)
            draw_row(o, &o->row[r], m, p);
}

static void draw_model(const snrq_outcome *o, const char *model, bool only, snrq_document *d)
{
    for (int f = 0; f < o->experiment->figures; f++) draw_seconds(o, f, model, only, d);
    for (int m = 0; m < LAYER_MEASURES; m++) draw_layers(o, &layer_measures[m], model, only, d);
}

void snrq_table_pictures(const snrq_outcome *o, snrq_document *d)
{
    const json_t *models = json_object_get(o->experiment->file, "models");
    const char *model;
    json_t *path;
    for (int f = 0; f < o->experiment->figures; f++)
        for (int s = 0; s < SCALES; s++) draw_scale(o, f, &scales[s], d);
    json_object_foreach((json_t *)(uintptr_t)models, model, path)
        draw_model(o, model, json_object_size(models) == 1, d);
}
