/* Modules that stay as they are; see kept.h. */
#include "pipeline/model/kept.h"

#include <stdio.h>
#include <string.h>

#include "io/json.h"
#include "pipeline/model/tensors.h"

static size_t place(const snrq_model *m, int64_t layer, int module)
{
    return (size_t)(layer * snrq_model_max_modules(m) + module);
}

static snrq_status mark(snrq_model *m, int64_t layer, int module)
{
    if (m->kept == NULL)
        SNRQ_TRY(snrq_allocate(place(m, m->config.layers, 0), 1, "list of kept modules", &m->kept));
    m->kept[place(m, layer, module)] = true;
    return SNRQ_OK;
}

snrq_status snrq_model_keep(snrq_model *m, int64_t layer, int module)
{
    char name[200], tensor[256];
    snrq_module_name(layer, snrq_model_family(m, layer)->module[module].name, name, sizeof name);
    snrq_weight_name(m, layer, module, tensor, sizeof tensor);
    const snrq_tensor *t = snrq_model_tensor(m, tensor);
    if (t != NULL && snrq_model_is_fp8(t))
        return snrq_fail(SNRQ_USAGE,
                         "%s is of type %s and cannot be kept; give it 8 bits, or convert the "
                         "checkpoint to BF16",
                         name, t->dtype);
    return mark(m, layer, module);
}

bool snrq_model_keeps(const snrq_model *m, int64_t layer, int module)
{
    return m->kept != NULL && m->kept[place(m, layer, module)];
}

int snrq_model_stored_index(const snrq_model *m, int64_t layer, int module)
{
    int index = 0;
    for (int i = 0; i < module; i++) index += !snrq_model_keeps(m, layer, i);
    return index;
}

int snrq_model_stored_modules(const snrq_model *m, int64_t layer)
{
    return snrq_model_stored_index(m, layer, snrq_model_family(m, layer)->modules);
}

json_t *snrq_model_kept_names(const snrq_model *m)
{
    char name[200];
    json_t *list = m->kept != NULL ? json_array() : NULL;
    for (int64_t layer = 0; list != NULL && layer < m->config.layers; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        for (int i = 0; i < f->modules; i++) {
            if (!snrq_model_keeps(m, layer, i)) continue;
            snrq_module_name(layer, f->module[i].name, name, sizeof name);
            json_array_append_new(list, json_string(name));
        }
    }
    return list;
}

static snrq_status mark_named(snrq_model *m, const char *wanted)
{
    char name[200], shown[SNRQ_SHOWN];
    for (int64_t layer = 0; layer < m->config.layers; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        for (int i = 0; i < f->modules; i++) {
            snrq_module_name(layer, f->module[i].name, name, sizeof name);
            if (strcmp(name, wanted) == 0) return mark(m, layer, i);
        }
    }
    return snrq_fail(SNRQ_BAD_DATA, "%s/snrq.json: \"kept\" names \"%s\", which is no module",
                     m->path, snrq_shown(wanted, shown));
}

snrq_status snrq_model_adopt_kept(snrq_model *m, const json_t *configuration)
{
    size_t i;
    const json_t *name, *list = json_object_get(configuration, "kept");
    json_array_foreach((json_t *)list, i, name)
    {
        const char *text = json_string_value(name);
        SNRQ_TRY(mark_named(m, text != NULL ? text : ""));
    }
    return SNRQ_OK;
}
