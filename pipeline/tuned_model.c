/* Scales and norms in memory, and Adam; see tuned_model.h. */
#include "pipeline/tuned_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/checkpoint/tuning_file.h"
#include "pipeline/model/tensors.h"

static const double mean_decay = 0.9, square_decay = 0.99, least_root = 1e-12;

int64_t snrq_tuned_count(const snrq_tuned_model *m)
{
    return m->first[m->blocks + 1];
}

/* ---- norms ---- */

/* Weights of norms of a block are those of the checkpoint, or one more. */
static float offset_of(const snrq_tuned_model *m)
{
    return m->model->config.norms_less_one ? 1.0f : 0.0f;
}

/* The type a tensor is stored in. */
static snrq_dtype type_of(const snrq_tuned_model *m, const char *name)
{
    snrq_dtype type = SNRQ_F32;
    const snrq_tensor *t = snrq_model_tensor(m->model, name);
    if (t != NULL) (void)snrq_dtype_find(t->dtype, &type);
    return type;
}

static snrq_dtype norm_type(const snrq_tuned_model *m, int64_t layer, int norm)
{
    char name[256];
    snrq_module_name(layer, snrq_model_family(m->model, layer)->vector[norm].name, name,
                     sizeof name);
    return type_of(m, name);
}

/* out <- values, as the checkpoint can hold them. */
static void store_norm(const snrq_tuned_model *m, snrq_dtype type, const float *values,
                       int64_t count, float *out)
{
    const float offset = offset_of(m);
    for (int64_t i = 0; i < count; i++) out[i] = offset + snrq_round_to(type, values[i] - offset);
}

/* ---- loading ---- */

static snrq_status allocate_all(snrq_tuned_model *m)
{
    size_t blocks = (size_t)m->blocks, hidden = (size_t)m->model->config.hidden;
    SNRQ_TRY(snrq_allocate(blocks, sizeof *m->block, "blocks", &m->block));
    SNRQ_TRY(snrq_allocate(blocks, sizeof *m->gradient, "gradients", &m->gradient));
    SNRQ_TRY(snrq_allocate(blocks + 2, sizeof *m->first, "blocks", &m->first));
    return snrq_allocate(hidden, sizeof *m->norm_gradient, "gradients", &m->norm_gradient);
}

static snrq_status load_blocks(snrq_tuned_model *m, const char *directory, const snrq_ropes *ropes)
{
    for (int64_t l = 0; l < m->blocks; l++) {
        SNRQ_TRY(
            snrq_quantized_block_load(m->context, m->model, directory, l, ropes, &m->block[l]));
        SNRQ_TRY(snrq_agree(m->context,
                            snrq_parameter_gradient_create(&m->block[l].block, &m->gradient[l])));
        m->first[l + 1] = m->first[l] + m->gradient[l].count;
    }
    m->first[m->blocks + 1] = m->first[m->blocks] + m->model->config.hidden;
    return SNRQ_OK;
}

/* Of `count` numbers, those that this rank works on for its node. */
static snrq_range share_of_node(const snrq_tuned_model *m, int64_t count)
{
    return snrq_share(count, 1, m->context->node_size, m->context->node_rank);
}

/* Values of a block <- what it holds. */
static void take_values(const snrq_tuned_model *m, int64_t layer)
{
    const snrq_parameter_gradient *g = &m->gradient[layer];
    const snrq_block *b = &m->block[layer].block;
    float *to = m->of[SNRQ_TUNED_VALUE] + m->first[layer];
    for (int i = 0; i < b->family->modules; i++)
        if (b->module[i].groups > 0)
            memcpy(to + g->first[i], b->module[i].scales,
                   (size_t)(g->first[i + 1] - g->first[i]) * sizeof *to);
    for (int v = 0; v < SNRQ_ROUTER; v++)
        if (b->vector[v] != NULL)
            memcpy(to + g->norm[v], b->vector[v], (size_t)b->family->vector[v].count * sizeof *to);
}

snrq_status snrq_tuned_model_reset(snrq_tuned_model *m)
{
    if (m->context->node_rank == 0) {
        memset(m->memory->data, 0, m->memory->bytes);
        for (int64_t l = 0; l < m->blocks; l++) take_values(m, l);
        memcpy(m->of[SNRQ_TUNED_VALUE] + m->first[m->blocks], m->head.norm,
               (size_t)m->model->config.hidden * sizeof(float));
    }
    SNRQ_TRY(snrq_node_memory_sync(m->context, m->memory));
    return snrq_tuned_model_copy(m, SNRQ_TUNED_VALUE, SNRQ_TUNED_BEST);
}

static snrq_status make_arrays(snrq_tuned_model *m)
{
    const int64_t rows = (snrq_tuned_count(m) + SNRQ_TUNING_ROW - 1) / SNRQ_TUNING_ROW;
    m->rows = SNRQ_TUNED_ARRAYS * rows;
    SNRQ_TRY(snrq_node_memory_create(
        m->context, (size_t)(m->rows * SNRQ_TUNING_ROW) * sizeof(float), &m->memory));
    for (int64_t i = 0; i < SNRQ_TUNED_ARRAYS; i++)
        m->of[i] = (float *)(void *)m->memory->data + i * rows * SNRQ_TUNING_ROW;
    return snrq_tuned_model_reset(m);
}

snrq_status snrq_tuned_model_load(const snrq_context *context, const snrq_model *model,
                                  const snrq_rules *rules, const char *directory,
                                  const snrq_ropes *ropes, snrq_tuned_model *out)
{
    *out = (snrq_tuned_model){
        .context = context, .model = model, .rules = rules, .blocks = model->config.layers};
    SNRQ_TRY(snrq_agree(context, allocate_all(out)));
    SNRQ_TRY(load_blocks(out, directory, ropes));
    SNRQ_TRY(snrq_label_head_load(context, model, &out->head));
    return make_arrays(out);
}

void snrq_tuned_model_free(snrq_tuned_model *m)
{
    snrq_node_memory_destroy(&m->memory);
    snrq_label_head_free(&m->head);
    for (int64_t l = 0; l < m->blocks && m->block != NULL; l++)
        snrq_loaded_block_free(&m->block[l]);
    for (int64_t l = 0; l < m->blocks && m->gradient != NULL; l++)
        snrq_parameter_gradient_free(&m->gradient[l]);
    free(m->block);
    free(m->gradient);
    free(m->norm_gradient);
    free(m->first);
    *m = (snrq_tuned_model){0};
}

/* ---- stored values ---- */

/* The view is const for the forward pass; the memory behind it is filled here. */
static void apply_scales(const snrq_tuned_model *m, int64_t layer)
{
    const snrq_parameter_gradient *g = &m->gradient[layer];
    const snrq_block *b = &m->block[layer].block;
    for (int i = 0; i < b->family->modules; i++) {
        const float *values = m->of[SNRQ_TUNED_VALUE] + m->first[layer] + g->first[i];
        const snrq_dtype type = snrq_rules_at(m->rules, layer, i)->scale_type;
        snrq_range mine = share_of_node(m, g->first[i + 1] - g->first[i]);
        float *scales = (float *)b->module[i].scales;
        for (int64_t k = mine.begin; k < mine.end; k++) {
            float rounded = snrq_round_to(type, values[k]);
            if (isfinite(rounded) && rounded != 0.0f) scales[k] = rounded;
        }
    }
}

/* Every rank has norms of its own. */
static void apply_norms(const snrq_tuned_model *m, int64_t layer)
{
    const snrq_parameter_gradient *g = &m->gradient[layer];
    const snrq_block *b = &m->block[layer].block;
    for (int v = 0; v < SNRQ_ROUTER; v++)
        if (b->vector[v] != NULL)
            store_norm(m, norm_type(m, layer, v),
                       m->of[SNRQ_TUNED_VALUE] + m->first[layer] + g->norm[v],
                       b->family->vector[v].count, (float *)b->vector[v]);
}

snrq_status snrq_tuned_model_apply(snrq_tuned_model *m)
{
    for (int64_t l = 0; l < m->blocks; l++) {
        apply_scales(m, l);
        apply_norms(m, l);
        SNRQ_TRY(snrq_node_memory_sync(m->context, m->block[l].memory));
    }
    store_norm(m, type_of(m, snrq_final_norm_name), m->of[SNRQ_TUNED_VALUE] + m->first[m->blocks],
               m->model->config.hidden, m->head.norm);
    return SNRQ_OK;
}

snrq_status snrq_tuned_model_copy(snrq_tuned_model *m, int from, int to)
{
    snrq_range mine = share_of_node(m, snrq_tuned_count(m));
    memcpy(m->of[to] + mine.begin, m->of[from] + mine.begin,
           (size_t)(mine.end - mine.begin) * sizeof(float));
    return snrq_node_memory_sync(m->context, m->memory);
}

snrq_status snrq_tuned_model_go_back(snrq_tuned_model *m)
{
    snrq_range mine = share_of_node(m, snrq_tuned_count(m));
    const size_t bytes = (size_t)(mine.end - mine.begin) * sizeof(float);
    memset(m->of[SNRQ_TUNED_MEAN] + mine.begin, 0, bytes);
    memset(m->of[SNRQ_TUNED_SQUARE] + mine.begin, 0, bytes);
    SNRQ_TRY(snrq_tuned_model_copy(m, SNRQ_TUNED_BEST, SNRQ_TUNED_VALUE));
    return snrq_tuned_model_apply(m);
}

/* Where among the parameters the norm begins that a tensor is; -1: it is none. */
static int64_t find_norm(const snrq_tuned_model *m, const char *name, int64_t *count)
{
    char own[256];
    *count = m->model->config.hidden;
    if (strcmp(name, snrq_final_norm_name) == 0) return m->first[m->blocks];
    for (int64_t l = 0; l < m->blocks; l++) {
        const snrq_block *b = &m->block[l].block;
        for (int v = 0; v < SNRQ_ROUTER; v++) {
            if (b->vector[v] == NULL) continue;
            snrq_module_name(l, b->family->vector[v].name, own, sizeof own);
            *count = b->family->vector[v].count;
            if (strcmp(name, own) == 0) return m->first[l] + m->gradient[l].norm[v];
        }
    }
    return -1;
}

bool snrq_tuned_model_norm(const void *user, const char *name, float *out)
{
    const snrq_tuned_model *m = user;
    const float offset = offset_of(m);
    int64_t count, at = find_norm(m, name, &count);
    for (int64_t i = 0; at >= 0 && i < count; i++)
        out[i] = snrq_round_to(type_of(m, name), m->of[SNRQ_TUNED_VALUE][at + i] - offset);
    return at >= 0;
}

/* ---- Adam ---- */

/* Parameters [at, at + count), of which this rank changes its share; sum: of their gradients. */
static void adam(const snrq_tuned_model *m, const snrq_adam *a, int64_t at, int64_t count,
                 const snrq_fixed *sum)
{
    const double mean_part = 1.0 / (1.0 - a->mean_left), part = 1.0 / (1.0 - a->square_left);
    snrq_range mine = share_of_node(m, count);
    float *value = m->of[SNRQ_TUNED_VALUE] + at, *mean = m->of[SNRQ_TUNED_MEAN] + at;
    float *square = m->of[SNRQ_TUNED_SQUARE] + at;
    for (int64_t i = mine.begin; i < mine.end; i++) {
        double slope = snrq_fixed_value(sum[i]) / a->tokens * fabs((double)value[i]);
        mean[i] = (float)(mean_decay * (double)mean[i] + (1.0 - mean_decay) * slope);
        square[i] =
            (float)(square_decay * (double)square[i] + (1.0 - square_decay) * slope * slope);
        double root = sqrt(part * (double)square[i]) + least_root;
        value[i] = (float)((double)value[i] * (1.0 - a->rate * mean_part * (double)mean[i] / root));
    }
}

snrq_status snrq_tuned_model_step(snrq_tuned_model *m, const snrq_adam *a)
{
    for (int64_t l = 0; l <= m->blocks; l++) {
        snrq_fixed *sum = l < m->blocks ? m->gradient[l].sum : m->norm_gradient;
        int64_t count = m->first[l + 1] - m->first[l];
        SNRQ_TRY(snrq_fixed_sum(m->context, sum, count));
        adam(m, a, m->first[l], count, sum);
        memset(sum, 0, (size_t)count * sizeof *sum);
    }
    SNRQ_TRY(snrq_node_memory_sync(m->context, m->memory));
    return snrq_tuned_model_apply(m);
}

void snrq_adam_advance(snrq_adam *a)
{
    a->mean_left *= mean_decay;
    a->square_left *= square_decay;
}
