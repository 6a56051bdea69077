/* The twin of snrq_gram_reduce: the definition, in fp64; see gram.h. */
#include "mpi/algebra/gram.h"

/* x - minus at (token, column) times the token's factor, in fp32 as the fast path does. */
static float reference_item(const snrq_activations *x, const snrq_activations *minus, int64_t t,
                            int64_t column)
{
    size_t at = (size_t)(t * x->columns + column);
    float value = minus == NULL ? x->data[at] : x->data[at] - minus->data[at];
    return x->factor == NULL ? value : value * x->factor[t];
}

void snrq_gram_reference(const snrq_gram_request *r, double *out)
{
    int64_t rows = r->a->columns;
    for (int64_t l = 0; l < r->b->columns; l++)
        for (int64_t k = 0; k < rows; k++) {
            int64_t i = r->row_order == NULL ? k : r->row_order[k];
            int64_t j = r->column_order == NULL ? l : r->column_order[l];
            double sum = 0;
            for (int64_t s = 0; s < r->a->sequences; s++) {
                double part = 0;
                for (int64_t t = snrq_activations_begin(r->a, s);
                     t < snrq_activations_begin(r->a, s + 1); t++)
                    part += (double)reference_item(r->a, r->a_minus, t, i) *
                            (double)reference_item(r->b, r->b_minus, t, j);
                sum += (r->scale == NULL ? 1 : r->scale[s]) * part;
            }
            out[l * rows + k] = r->factor * sum;
        }
}
