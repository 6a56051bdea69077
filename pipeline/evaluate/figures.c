/* Means and standard errors; see figures.h. */
#include "pipeline/evaluate/figures.h"

#include <math.h>

snrq_figure snrq_figure_of(const double *samples, int64_t count)
{
    double sum = 0.0, squares = 0.0;
    for (int64_t i = 0; i < count; i++) sum += samples[i];
    double mean = sum / (double)count;
    for (int64_t i = 0; i < count; i++) squares += (samples[i] - mean) * (samples[i] - mean);
    double error = count > 1 ? sqrt(squares / (double)(count - 1) / (double)count) : NAN;
    return (snrq_figure){mean, error};
}

snrq_figure snrq_figure_exp(snrq_figure figure)
{
    double value = exp(figure.mean);
    return (snrq_figure){value, value * figure.error};
}
