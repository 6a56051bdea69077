/* Finding and naming numerical trouble; see trouble.h. */
#include "pipeline/rounding/trouble.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "mpi/collective.h"

const char *snrq_trouble_name(snrq_trouble_kind kind)
{
    static const char *const names[] = {"dead_inputs", "few_tokens",    "raised_damping",
                                        "zero_rows",   "constant_rows", "lost_groups"};
    _Static_assert(sizeof names / sizeof names[0] == SNRQ_TROUBLES, "a name for every kind");
    return names[kind];
}

void snrq_trouble_text(const snrq_trouble *t, snrq_dtype scale_type, char *out, size_t size)
{
    char what[256] = "";
    long long count = t->count, of = t->of, first = t->first;
    switch (t->kind) {
    case SNRQ_DEAD_INPUTS:
        snprintf(what, sizeof what,
                 "%lld of %lld inputs are zero on every calibration token, the first is column "
                 "%lld: their weights become zero",
                 count, of, first);
        break;
    case SNRQ_FEW_TOKENS:
        snprintf(
            what, sizeof what,
            "%lld calibration tokens for %lld inputs (a token in several windows counts once): "
            "H has not full rank, damping alone makes it definite; take more --sequences, a "
            "larger --length or a longer text",
            count, of);
        break;
    case SNRQ_RAISED_DAMPING:
        snprintf(what, sizeof what, "H was not positive definite; damping raised to %g",
                 t->damping);
        break;
    case SNRQ_ZERO_ROWS:
        snprintf(what, sizeof what,
                 "%lld of %lld rows are zero, the first is row %lld: they stay "
                 "zero",
                 count, of, first);
        break;
    case SNRQ_CONSTANT_ROWS:
        snprintf(what, sizeof what,
                 "%lld of %lld rows hold one and the same weight throughout, the first is row "
                 "%lld: they are rounded as others",
                 count, of, first);
        break;
    case SNRQ_LOST_GROUPS:
        snprintf(what, sizeof what,
                 "%lld of %lld groups are too small for %s scales, the first is in row %lld: their "
                 "weights become zero; --scale-type bf16 or f32 keeps them",
                 count, of, snrq_dtype_name(scale_type), first);
        break;
    case SNRQ_TROUBLES:
        break;
    }
    snprintf(out, size, "%s: %s", t->where, what);
}

snrq_status snrq_trouble_refuse(const snrq_trouble_list *list, snrq_dtype scale_type)
{
    char text[512], more[32] = "";
    if (list->count == 0) return SNRQ_OK;
    snrq_trouble_text(&list->trouble[0], scale_type, text, sizeof text);
    if (list->count > 1) snprintf(more, sizeof more, " and of %d more", list->count - 1);
    return snrq_fail(SNRQ_BAD_DATA, "%s (stopped because of this%s by --strict)", text, more);
}

/* ---- finding it ---- */

enum { ROW_KINDS = SNRQ_TROUBLES - SNRQ_ZERO_ROWS };

/* Trouble of one kind in the rows of a module: how often, and the first such row of the module. */
typedef struct tally {
    int64_t *count; /* [modules][ROW_KINDS] */
    double *first;  /* the same; its negative, so that MAX finds it */
} tally;

static snrq_status tally_create(int modules, tally *out)
{
    size_t items = (size_t)modules * ROW_KINDS;
    SNRQ_TRY(snrq_allocate(items, sizeof *out->count, "counts of trouble", &out->count));
    SNRQ_TRY(snrq_allocate(items, sizeof *out->first, "counts of trouble", &out->first));
    for (size_t i = 0; i < items; i++) out->first[i] = -DBL_MAX;
    return SNRQ_OK;
}

static void tally_row(tally *t, int module, int64_t row, snrq_trouble_kind kind, int64_t count)
{
    int at = module * ROW_KINDS + (int)(kind - SNRQ_ZERO_ROWS);
    if (count == 0) return;
    t->count[at] += count;
    t->first[at] = fmax(t->first[at], -(double)row);
}

/* Are the weights [n] of live inputs all the same? `value` is one of them. */
static bool is_constant(const snrq_statistics *s, const float *weights, float *value)
{
    bool same = true, any = false;
    for (int64_t k = 0; k < s->columns && same; k++) {
        if (s->dead[k]) continue;
        same = !any || weights[k] == *value;
        *value = weights[k];
        any = true;
    }
    return same && s->columns - s->dead_inputs > 1;
}

/* Groups of a row that are not zero, but whose scale would be stored as zero, so that the grid is
 * the one of a group of zeros: of scale 1. No other grid of scale 1 is fitted to such small values.
 */
static int64_t count_lost_groups(const snrq_rows *rows, int64_t row)
{
    const snrq_groups *g = rows->groups;
    int64_t lost = 0;
    for (int64_t i = 0; i < g->count; i++) {
        float most = 0.0f;
        if (rows->scales[row * g->count + i] != 1.0f) continue;
        for (int64_t k = g->first[i]; k < g->first[i + 1]; k++)
            most = fmaxf(most, fabsf(rows->target[row * rows->columns + g->members[k]]));
        lost += most > 0.0f && most < 0.5f;
    }
    return lost;
}

static snrq_status tally_rows(const snrq_context *c, const snrq_statistics *s,
                              const snrq_stack *stack, const snrq_target_parts *target,
                              const snrq_rows *rows, tally *t)
{
    int module = 0;
    for (int64_t r = target->range.begin; r < target->range.end; r++) {
        int64_t local = r - target->range.begin;
        float value = 0.0f;
        while (r >= stack->first[module + 1]) module++;
        int64_t row = r - stack->first[module];
        if (is_constant(s, target->w + local * s->columns, &value))
            tally_row(t, module, row, value == 0.0f ? SNRQ_ZERO_ROWS : SNRQ_CONSTANT_ROWS, 1);
        tally_row(t, module, row, SNRQ_LOST_GROUPS, count_lost_groups(rows, local));
    }
    SNRQ_TRY(snrq_sum_int64(c, t->count, stack->count * ROW_KINDS));
    return snrq_max_double(c, t->first, stack->count * ROW_KINDS);
}

static snrq_trouble *add(snrq_trouble_list *list, snrq_trouble_kind kind, const snrq_stack *stack,
                         int first, int count)
{
    snrq_trouble *t = &list->trouble[list->count++];
    *t = (snrq_trouble){.kind = kind, .first_module = first, .modules = count};
    snprintf(t->where, sizeof t->where, "%s",
             count == stack->count ? stack->together : stack->names[first]);
    return t;
}

/* What concerns the input, and so all modules. */
static void find_in_input(const snrq_rule *rule, const snrq_statistics *s, const snrq_stack *stack,
                          const snrq_target_parts *target, snrq_trouble_list *list)
{
    int64_t live = s->columns - s->dead_inputs;
    if (s->dead_inputs > 0) {
        snrq_trouble *t = add(list, SNRQ_DEAD_INPUTS, stack, 0, stack->count);
        t->count = s->dead_inputs;
        t->of = t->first = s->columns;
        for (int64_t k = 0; k < s->columns; k++)
            if (s->dead[k] && s->order[k] < t->first) t->first = s->order[k];
    }
    /* rtn does not look at H */
    if (s->tokens > 0 && s->tokens < live && rule->method != SNRQ_RTN) {
        snrq_trouble *t = add(list, SNRQ_FEW_TOKENS, stack, 0, stack->count);
        t->count = s->tokens;
        t->of = live;
    }
    if (target->factor.attempts > 1)
        add(list, SNRQ_RAISED_DAMPING, stack, 0, stack->count)->damping = target->factor.damping;
}

static void find_in_rows(const snrq_stack *stack, const snrq_rows *rows, const tally *found,
                         snrq_trouble_list *list)
{
    for (int i = 0; i < stack->count * ROW_KINDS; i++) {
        int m = i / ROW_KINDS;
        if (found->count[i] == 0) continue;
        snrq_trouble *t =
            add(list, (snrq_trouble_kind)(SNRQ_ZERO_ROWS + i % ROW_KINDS), stack, m, 1);
        t->count = found->count[i];
        t->of = stack->first[m + 1] - stack->first[m];
        if (t->kind == SNRQ_LOST_GROUPS) t->of *= rows->groups->count;
        t->first = (int64_t)-found->first[i];
    }
}

snrq_status snrq_trouble_find(const snrq_context *c, const snrq_rule *rule,
                              const snrq_statistics *s, const snrq_stack *stack,
                              const snrq_target_parts *target, const snrq_rows *rows,
                              snrq_trouble_list *out)
{
    tally found = {0};
    size_t most = SNRQ_ZERO_ROWS + ROW_KINDS * (size_t)stack->count;
    *out = (snrq_trouble_list){0};
    snrq_status status =
        snrq_allocate(most, sizeof *out->trouble, "list of trouble", &out->trouble);
    if (status == SNRQ_OK) status = tally_create(stack->count, &found);
    status = snrq_agree(c, status);
    if (status == SNRQ_OK) status = tally_rows(c, s, stack, target, rows, &found);
    if (status == SNRQ_OK) {
        find_in_input(rule, s, stack, target, out);
        find_in_rows(stack, rows, &found, out);
    }
    free(found.count);
    free(found.first);
    if (status != SNRQ_OK) snrq_trouble_free(out);
    return status;
}

snrq_status snrq_trouble_share(const snrq_context *c, const snrq_team *team, snrq_trouble_list *l)
{
    snrq_status status = SNRQ_OK;
    if (snrq_team_is_whole(c, team)) return SNRQ_OK;
    SNRQ_TRY(snrq_broadcast_from(c, team->first, &l->count, sizeof l->count));
    if (l->count == 0) return SNRQ_OK;
    if (team->context == NULL)
        status = snrq_allocate((size_t)l->count, sizeof *l->trouble, "troubles", &l->trouble);
    SNRQ_TRY(snrq_agree(c, status));
    return snrq_broadcast_from(c, team->first, l->trouble, (size_t)l->count * sizeof *l->trouble);
}

void snrq_trouble_free(snrq_trouble_list *list)
{
    free(list->trouble);
    *list = (snrq_trouble_list){0};
}
