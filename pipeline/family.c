/* The tables of the families; see family.h. */
#include "pipeline/family.h"

#include <string.h>

static void add(snrq_family *f, const char *name, snrq_stage stage, int64_t rows, int64_t columns)
{
    f->module[f->modules++] = (snrq_module_shape){name, stage, rows, columns};
}

void snrq_family_describe(const snrq_config *c, snrq_family *f)
{
    int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    memset(f, 0, sizeof *f);
    add(f, "self_attn.q_proj", SNRQ_STAGE_QKV, q, c->hidden);
    add(f, "self_attn.k_proj", SNRQ_STAGE_QKV, kv, c->hidden);
    add(f, "self_attn.v_proj", SNRQ_STAGE_QKV, kv, c->hidden);
    add(f, "self_attn.o_proj", SNRQ_STAGE_O, c->hidden, q);
    add(f, "mlp.gate_proj", SNRQ_STAGE_GATE_UP, c->intermediate, c->hidden);
    add(f, "mlp.up_proj", SNRQ_STAGE_GATE_UP, c->intermediate, c->hidden);
    add(f, "mlp.down_proj", SNRQ_STAGE_DOWN, c->hidden, c->intermediate);
    f->stage_name[SNRQ_STAGE_QKV] = "q,k,v";
    f->stage_name[SNRQ_STAGE_O] = "o";
    f->stage_name[SNRQ_STAGE_GATE_UP] = "gate,up";
    f->stage_name[SNRQ_STAGE_DOWN] = "down";
    for (int i = 0; i < f->modules; i++) {
        const snrq_module_shape *m = &f->module[i];
        for (int s = (int)m->stage + 1; s <= SNRQ_STAGES; s++) f->first[s] = i + 1;
        f->stage_rows[m->stage] += m->rows;
        f->stage_columns[m->stage] = m->columns;
    }
    for (int s = 0; s < SNRQ_STAGES; s++) {
        if (f->stage_rows[s] > f->max_rows) f->max_rows = f->stage_rows[s];
        if (f->stage_columns[s] > f->max_columns) f->max_columns = f->stage_columns[s];
    }
}
