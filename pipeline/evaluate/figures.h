/* Figures of samples: means, and how far they would be off by chance. */
#ifndef SNRQ_FIGURES_H
#define SNRQ_FIGURES_H

#include <stdint.h>

/* A mean and its standard error: the standard deviation of the samples (with n - 1) over sqrt(n).
 * One sample has no error: NaN. */
typedef struct snrq_figure {
    double mean, error;
} snrq_figure;

/* Added up in order: the same on any number of ranks. count >= 1. */
snrq_figure snrq_figure_of(const double *samples, int64_t count);

/* exp(mean), with the error that this has for a small error of the mean. */
snrq_figure snrq_figure_exp(snrq_figure figure);

#endif
