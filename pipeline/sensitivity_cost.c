/* Memory and time of the backward pass; see sensitivity_cost.h. */
#include "pipeline/sensitivity_cost.h"

#include <math.h>

#include "pipeline/model/block_backward.h"
#include "pipeline/model/label_gradient.h"
#include "pipeline/model/stream.h"
#include "pipeline/options/text_options.h"

enum { ATTENTIONS = 5, PRODUCTS = 3, HEADS = 2 };
static const double assumed_file_rate = 500e6;
static const double sum_bytes = sizeof(snrq_fixed);
static const double sent_bytes = 24.0; /* of a sum: three parts */

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

snrq_windows snrq_sensitivity_windows(const snrq_options *o, const snrq_windows *w)
{
    snrq_windows first = snrq_windows_of_text(w);
    const int64_t most = SNRQ_SENSITIVITY_TOKENS / w->length;
    const int64_t drawn =
        least(SNRQ_SENSITIVITY_TIMES * first.count, SNRQ_SENSITIVITY_DRAWN / w->length);
    if (first.count > most) first.count = most > 1 ? most : 1;
    if (snrq_calibration_windows(o).rule == SNRQ_WINDOWS_RANDOM && o->token_file == NULL &&
        drawn > first.count)
        first.count = drawn;
    return first;
}

int64_t snrq_sensitivity_at_a_time(const snrq_model *m, int64_t own, int64_t length,
                                   int64_t pass_memory)
{
    const snrq_config *c = &m->config;
    int64_t bytes = (c->layers + 1) * length * c->hidden * (int64_t)sizeof(float);
    int64_t most = pass_memory / bytes;
    return own <= most ? own : most > 1 ? most : 1;
}

/* Numbers in the tiles of a block. */
static double tiles_of(const snrq_family *f)
{
    double numbers = 0.0;
    for (int i = 0; i < f->modules; i++)
        numbers += ceil((double)f->module[i].rows / SNRQ_GRADIENT_ROWS) * SNRQ_GRADIENT_TILE;
    return numbers;
}

/* Sequences of the first rank, which has the most. */
static int64_t most_sequences(const snrq_windows *w, int ranks)
{
    return (w->count + ranks - 1) / ranks;
}

double snrq_sensitivity_rank_bytes(const snrq_model *m, const snrq_windows *w, int ranks,
                                   int64_t pass_memory)
{
    const snrq_config *c = &m->config;
    int64_t own = most_sequences(w, ranks);
    int64_t at_a_time = snrq_sensitivity_at_a_time(m, own, w->length, pass_memory);
    int64_t batch = snrq_stream_batch(at_a_time, w->length) * w->length;
    double room = snrq_label_head_bytes(c), kept = 0.0;
    for (int64_t l = 0; l < c->layers; l++) {
        const snrq_family *f = snrq_model_family(m, l);
        double sums = sum_bytes * tiles_of(f);
        room = fmax(room, sums + (double)snrq_block_backward_bytes(c, f, batch));
        kept += sums / ranks;
    }
    if (own > at_a_time) room += kept;
    return room + (double)((c->layers + 1) * at_a_time * w->length * c->hidden) * sizeof(float);
}

double snrq_sensitivity_block_work(const snrq_family *f, const snrq_windows *w)
{
    double products = 0.0;
    for (int u = 0; u < f->units; u++)
        products += f->unit[u].share * (double)f->unit[u].rows * (double)f->unit[u].columns;
    return products * (double)(w->count * w->length);
}

/* Numbers in the tiles of a model. */
static double all_tiles(const snrq_model *m)
{
    double numbers = 0.0;
    for (int64_t layer = 0; layer < m->config.layers; layer++)
        numbers += tiles_of(snrq_model_family(m, layer));
    return numbers;
}

double snrq_sensitivity_file_bytes(const snrq_model *m, int64_t tokens)
{
    double modules = 0.0;
    for (int64_t layer = 0; layer < m->config.layers; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        for (int i = 0; i < f->modules; i++) modules += f->unit[f->module[i].unit].expert < 0;
    }
    return sizeof(float) * (all_tiles(m) + (modules + 1.0) * (double)tokens);
}

static double count_passes(const snrq_model *m, const snrq_windows *w, int ranks,
                           int64_t pass_memory)
{
    const int64_t own = most_sequences(w, ranks);
    return ceil((double)own / (double)snrq_sensitivity_at_a_time(m, own, w->length, pass_memory));
}

double snrq_sensitivity_traffic(const snrq_model *m, const snrq_windows *w,
                                const snrq_layout_of_run *l, int64_t pass_memory, double *bytes)
{
    const double passes = count_passes(m, w, l->ranks, pass_memory), p = l->ranks;
    double sums = 0.0;
    for (int64_t layer = 0; layer < m->config.layers; layer++)
        sums += snrq_model_family(m, layer)->modules;
    *bytes = 2.0 * (p - 1.0) / p * passes * sent_bytes * all_tiles(m);
    return 2.0 * ceil(log2(p)) * passes * sums;
}

double snrq_sensitivity_seconds(const snrq_machine *machine, const snrq_model *m,
                                const snrq_windows *w, const snrq_layout_of_run *l,
                                int64_t pass_memory)
{
    const snrq_config *c = &m->config;
    const int64_t own = most_sequences(w, l->ranks);
    const double passes = count_passes(m, w, l->ranks, pass_memory);
    const double tokens = (double)(own * w->length), seen = 0.5 * (double)w->length;
    const double read = machine->read > 0.0 ? machine->read : assumed_file_rate;
    double products = HEADS * tokens * (double)(c->vocabulary * c->hidden), bytes = 0.0, sent;
    for (int64_t layer = 0; layer < c->layers; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        for (int u = 0; u < f->units; u++) {
            double rows = (double)f->unit[u].rows, columns = (double)f->unit[u].columns;
            double share = tokens * f->unit[u].share * rows;
            products += share * (PRODUCTS * columns + SNRQ_GRADIENT_ROWS);
            bytes += rows * columns * (double)snrq_dtype_size(c->dtype);
        }
    }
    double attention = ATTENTIONS * tokens * seen * (double)(c->layers * c->heads) *
                       (double)(c->head_dim + c->value_dim);
    double computed = machine->seconds[SNRQ_RATE_FORWARD_DENSE] * products +
                      machine->seconds[SNRQ_RATE_ATTENTION] * attention +
                      machine->seconds[SNRQ_RATE_GRAM_PIECES] * (double)own * all_tiles(m);
    const double messages = snrq_sensitivity_traffic(m, w, l, pass_memory, &sent);
    return computed * machine->threads / l->threads + sent / machine->bandwidth +
           messages * machine->latency + 2.0 * passes * bytes / read;
}
