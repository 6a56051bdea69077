/* Side files of an export; see side.h. */
#include "pipeline/export/side.h"

#include <stdlib.h>
#include <string.h>

#include "io/checkpoint/side_files.h"
#include "io/directory.h"

static snrq_status add(const char *name, const char *from, snrq_export_side *out)
{
    SNRQ_TRY(snrq_copy_text(name, "name of a file", &out->names[out->count]));
    out->from[out->count++] = from;
    return SNRQ_OK;
}

snrq_status snrq_export_side_open(const snrq_model *m, snrq_export_side *out)
{
    static const char generation[] = "generation_config.json";
    const char *side = snrq_model_side_path(m);
    char **names = NULL, **own = NULL;
    int count = 0, own_count = 0;
    *out = (snrq_export_side){0};
    snrq_status status = snrq_side_files(side, &names, &count);
    if (status == SNRQ_OK) status = snrq_side_files(m->path, &own, &own_count);
    size_t most = (size_t)count + 1;
    if (status == SNRQ_OK) status = snrq_allocate(most, sizeof *out->names, "names", &out->names);
    if (status == SNRQ_OK) status = snrq_allocate(most, sizeof *out->from, "names", &out->from);
    for (int i = 0; i < count && status == SNRQ_OK; i++)
        if (strcmp(names[i], "config.json") != 0) status = add(names[i], side, out);
    for (int i = 0; i < own_count && status == SNRQ_OK; i++)
        if (strcmp(own[i], generation) == 0 && !snrq_export_side_has(out, generation))
            status = add(generation, m->path, out);
    snrq_names_free(&names, count);
    snrq_names_free(&own, own_count);
    return status;
}

void snrq_export_side_close(snrq_export_side *side)
{
    if (side->names != NULL) snrq_names_free(&side->names, side->count);
    free(side->from);
    *side = (snrq_export_side){0};
}

bool snrq_export_side_has(const snrq_export_side *side, const char *name)
{
    for (int i = 0; i < side->count; i++)
        if (strcmp(side->names[i], name) == 0) return true;
    return false;
}
