/* Weights of tokens, from a file of sensitivities; see token_weights.h. */
#include "pipeline/token_weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double most = 20.0;

snrq_status snrq_token_weights_match(const snrq_windows *windows, snrq_row_grams *grams)
{
    int32_t *ids = NULL;
    grams->weighted_tokens = 0;
    if (grams->file == NULL) return SNRQ_OK;
    const snrq_sensitivity_facts *f = snrq_sensitivity_facts_of(grams->file);
    const snrq_windows texts = snrq_windows_of_text(windows);
    if (f->length != texts.length) return SNRQ_OK;
    SNRQ_TRY(snrq_allocate((size_t)f->tokens, sizeof *ids, "tokens", &ids));
    snrq_status status = snrq_sensitivity_read_ids(grams->file, ids);
    for (int64_t at = 0; status == SNRQ_OK && at < f->tokens && at < texts.count * f->length;
         at += f->length) {
        if (memcmp(ids + at, texts.ids + at, (size_t)f->length * sizeof *ids) != 0) break;
        grams->weighted_tokens = at + f->length;
    }
    free(ids);
    return status;
}

static double mean(const double *x, int64_t count, int64_t step)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i += step) sum += x[i];
    return sum / (double)((count + step - 1) / step);
}

/* x / mean(x), if there is anything. */
static void normalize(double *x, int64_t count)
{
    const double by = mean(x, count, 1);
    for (int64_t i = 0; i < count; i++) x[i] = by > 0.0 ? x[i] / by : 1.0;
}

/* e [tokens] += q / mean(q) of a module. */
static snrq_status add_module(const snrq_row_grams *g, const char *name, float *squares, double *q,
                              double *e)
{
    const int64_t tokens = g->weighted_tokens;
    SNRQ_TRY(snrq_sensitivity_read_squares(g->file, name, squares));
    for (int64_t t = 0; t < tokens; t++) q[t] = (double)squares[t];
    normalize(q, tokens);
    for (int64_t t = 0; t < tokens; t++) e[t] += q[t];
    return SNRQ_OK;
}

/* e [weighted tokens] <- w. q: room for as many; squares: for all of the file. */
static snrq_status weigh(const snrq_row_grams *g, const snrq_family *f, int64_t layer, int unit,
                         float *squares, double *q, double *e)
{
    const int64_t tokens = g->weighted_tokens;
    for (int m = f->unit[unit].first; m < f->unit[unit].end; m++) {
        char name[SNRQ_MODULES_NAME];
        snrq_module_name(layer, f->module[m].name, name, sizeof name);
        SNRQ_TRY(add_module(g, name, squares, q, e));
    }
    for (int64_t t = 0; t < tokens; t++) e[t] = sqrt(e[t]);
    normalize(e, tokens);
    for (int64_t t = 0; t < tokens; t++) e[t] = fmin(e[t], most);
    normalize(e, tokens);
    return SNRQ_OK;
}

/* The roots of what tokens of windows `mine` weigh. w [weighted tokens]. What becomes of a first
 * token, all others attend to: a slope says little of how much they lose by a large error there. */
static void take_roots(const double *w, int64_t tokens, const snrq_windows *windows,
                       snrq_range mine, float *out)
{
    const int64_t length = windows->length, fitted = windows->count - windows->held_out;
    const snrq_range alone = {fitted - windows->first_tokens, fitted};
    const double first = fmax(mean(w, tokens, length), 1.0);
    for (int64_t s = mine.begin; s < mine.end; s++)
        for (int64_t t = 0; t < length; t++) {
            const int64_t at = s * length + t;
            const double other = s >= alone.begin && s < alone.end ? first : 1.0;
            const double found = at < tokens ? w[at] : other;
            out[(s - mine.begin) * length + t] = (float)sqrt(t == 0 ? fmax(found, 1.0) : found);
        }
}

snrq_status snrq_token_weights_read(const snrq_row_grams *g, const snrq_family *f, int64_t layer,
                                    int unit, const snrq_windows *windows, snrq_range mine,
                                    float **out)
{
    const size_t tokens = (size_t)g->weighted_tokens;
    const size_t all = tokens > 0 ? (size_t)snrq_sensitivity_facts_of(g->file)->tokens : 0;
    const size_t own = (size_t)((mine.end - mine.begin) * windows->length);
    float *squares = NULL;
    double *q = NULL, *e = NULL;
    *out = NULL;
    if (tokens == 0 || f->unit[unit].expert >= 0) return SNRQ_OK;
    snrq_status status = snrq_allocate(all, sizeof *squares, "squares of gradients", &squares);
    if (status == SNRQ_OK) status = snrq_allocate(tokens, sizeof *q, "weights of tokens", &q);
    if (status == SNRQ_OK) status = snrq_allocate(tokens, sizeof *e, "weights of tokens", &e);
    if (status == SNRQ_OK) status = snrq_allocate(own, sizeof **out, "weights of tokens", out);
    if (status == SNRQ_OK) status = weigh(g, f, layer, unit, squares, q, e);
    if (status == SNRQ_OK) take_roots(e, (int64_t)tokens, windows, mine, *out);
    free(squares);
    free(q);
    free(e);
    return status;
}
