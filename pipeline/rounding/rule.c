/* What follows from a rule; see rule.h. */
#include "pipeline/rounding/rule.h"

#include <stdio.h>

static bool strength_is_zero(const snrq_rule *r)
{
    return r->alpha_mode == SNRQ_ALPHA_FIXED && r->alpha_value == 0.0;
}

bool snrq_rule_shifts_target(const snrq_rule *r)
{
    return (r->method == SNRQ_SNRQ || r->method == SNRQ_KSNRQ) && !strength_is_zero(r);
}

bool snrq_method_has_strength(snrq_method method)
{
    return method == SNRQ_GPTAQ || method == SNRQ_SNRQ || method == SNRQ_KSNRQ;
}

bool snrq_rule_needs_d(const snrq_rule *r)
{
    return snrq_method_has_strength(r->method) && !strength_is_zero(r);
}

bool snrq_rule_needs_e(const snrq_rule *r)
{
    return snrq_rule_shifts_target(r) && r->alpha_mode == SNRQ_ALPHA_CORR;
}

bool snrq_method_regrids(snrq_method method)
{
    return method == SNRQ_LDLQ || method == SNRQ_SNRQ || method == SNRQ_KSNRQ;
}

bool snrq_rule_compensates(const snrq_rule *r)
{
    bool known = r->alpha_mode == SNRQ_ALPHA_FIXED || r->alpha_mode == SNRQ_ALPHA_AUTO;
    return snrq_rule_shifts_target(r) && known && r->compensate != 0.0;
}

bool snrq_rule_couples_rows(const snrq_rule *r)
{
    return r->weighs_outputs &&
           (r->method == SNRQ_LDLQ || r->method == SNRQ_SNRQ || r->method == SNRQ_KSNRQ);
}

int64_t snrq_rule_group_columns(const snrq_rule *r, int64_t columns)
{
    return r->group_size > 0 && r->group_size < columns ? r->group_size : columns;
}

int64_t snrq_rule_groups(const snrq_rule *r, int64_t columns)
{
    int64_t size = snrq_rule_group_columns(r, columns);
    return (columns + size - 1) / size;
}

void snrq_rule_set_format(snrq_rule *r, const snrq_weight_format *f)
{
    r->format = f;
    if (f == NULL) return;
    r->bits = f->bits;
    r->group_size = f->group;
    r->symmetric = snrq_weight_format_symmetric(f);
    r->permuted_groups = r->either_sign = false;
    r->scale_type = snrq_weight_format_scale_type(f);
    if (f->shared_rows > 0) r->regrid = 0; /* not a row's own scales */
}

bool snrq_rule_has_minima(const snrq_rule *r)
{
    return r->format != NULL && r->format->minimum.present;
}

bool snrq_rule_shares_statistics(const snrq_rule *a, const snrq_rule *b)
{
    if (a->keep || b->keep) return a->keep && b->keep;
    return a->method == b->method && a->natural_order == b->natural_order &&
           a->alpha_mode == b->alpha_mode && a->alpha_value == b->alpha_value &&
           a->damp == b->damp && a->weighs_outputs == b->weighs_outputs && a->shrink == b->shrink &&
           a->compensate == b->compensate && a->weighted_tokens == b->weighted_tokens &&
           a->inputs == b->inputs && a->residual_inputs == b->residual_inputs;
}

bool snrq_rule_equals(const snrq_rule *a, const snrq_rule *b)
{
    if (a->keep || b->keep) return a->keep && b->keep;
    return snrq_rule_shares_statistics(a, b) && a->format == b->format && a->bits == b->bits &&
           a->group_size == b->group_size && a->symmetric == b->symmetric &&
           a->permuted_groups == b->permuted_groups && a->scale_type == b->scale_type &&
           a->grid == b->grid && a->either_sign == b->either_sign && a->beam == b->beam &&
           a->refine == b->refine && a->regrid == b->regrid;
}

const char *snrq_method_name(snrq_method method)
{
    static const char *const names[] = {"rtn", "ldlq", "gptq", "gptaq", "snrq", "ksnrq"};
    _Static_assert(sizeof names / sizeof names[0] == SNRQ_METHODS, "a name for every method");
    return names[method];
}

const char *snrq_quant_grid_name(snrq_quant_grid_kind kind)
{
    static const char *const names[] = {"minmax", "mse", "hessian"};
    _Static_assert(sizeof names / sizeof names[0] == SNRQ_QUANT_GRID_KINDS, "one for every kind");
    return names[kind];
}

const char *snrq_order_name(bool natural)
{
    return natural ? "natural" : "diagonal";
}

void snrq_rule_alpha_text(const snrq_rule *r, char *out, size_t size)
{
    switch (r->alpha_mode) {
    case SNRQ_ALPHA_FIXED:
        snprintf(out, size, "fixed:%.15g", r->alpha_value);
        return;
    case SNRQ_ALPHA_SAMPLED:
        snprintf(out, size, "sampled:%.15g", r->alpha_value);
        return;
    case SNRQ_ALPHA_CHAINED:
        snprintf(out, size, "chained");
        return;
    case SNRQ_ALPHA_CORR:
        snprintf(out, size, "corr");
        return;
    case SNRQ_ALPHA_AUTO:
        snprintf(out, size, "auto");
        return;
    }
}
