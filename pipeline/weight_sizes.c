/* Bytes of weights; see weight_sizes.h. */
#include "pipeline/weight_sizes.h"

#include <stdlib.h>

#include "pipeline/model/tensors.h"
#include "pipeline/rules.h"

double snrq_module_stored_bytes(const snrq_rule *rule, const snrq_module_shape *s, int bits,
                                int64_t group_size)
{
    snrq_rule r = *rule;
    r.group_size = group_size;
    int64_t groups = snrq_rule_groups(&r, s->columns);
    return (double)s->rows * ((double)((s->columns * bits + 7) / 8) +
                              (double)groups * (1.0 + (double)snrq_dtype_size(r.scale_type)));
}

double snrq_module_weights(const snrq_model *m)
{
    double weights = 0.0;
    for (int64_t layer = 0; layer < m->config.layers; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        for (int i = 0; i < f->modules; i++)
            weights += (double)f->module[i].rows * (double)f->module[i].columns;
    }
    return weights;
}

double snrq_uniform_bytes(const snrq_options *o, const snrq_model *m, int bits)
{
    const snrq_rule rule = snrq_options_rule(o);
    double bytes = 0.0;
    for (int64_t layer = 0; layer < m->config.layers; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        for (int i = 0; i < f->modules; i++)
            bytes += snrq_module_stored_bytes(&rule, &f->module[i], bits, o->group_size);
    }
    return bytes;
}

snrq_status snrq_rest_bytes(const snrq_model *m, double *out)
{
    char **names = NULL;
    int count = 0;
    *out = 0.0;
    SNRQ_TRY(snrq_model_rest_names(m, &names, &count));
    for (int i = 0; i < count; i++) {
        const snrq_tensor *t = snrq_model_tensor(m, names[i]);
        if (t != NULL) *out += (double)t->bytes;
    }
    free(names);
    return SNRQ_OK;
}

snrq_status snrq_module_bytes(const snrq_model *m, double *out)
{
    char name[160];
    *out = 0.0;
    for (int64_t layer = 0; layer < m->config.layers; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        for (int i = 0; i < f->modules; i++) {
            const snrq_tensor *t;
            snrq_weight_name(m, layer, i, name, sizeof name);
            SNRQ_TRY(
                snrq_model_expect_weight(m, name, f->module[i].rows, f->module[i].columns, &t));
            *out += (double)t->bytes;
        }
    }
    return SNRQ_OK;
}
