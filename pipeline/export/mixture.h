/* The settings that the modules of an OUT directory have, where they do not all have the same.
 */
#ifndef SNRQ_EXPORT_MIXTURE_H
#define SNRQ_EXPORT_MIXTURE_H

#include "pipeline/export/source.h"

typedef struct snrq_export_mixture {
    snrq_module_record *module; /* [count] that are stored as codes, by block and place; owned */
    int64_t count;
    int64_t blocks;          /* of these; behind them the head, if it is asked for and quantized */
    int head;                /* its place in tables.h5 */
    snrq_export_facts *kind; /* [kinds] settings that are there, as they are written; owned */
    int kinds;
    int *kind_of; /* [count] owned */
    int usual;    /* the kind of most weights */
} snrq_export_mixture;

/* Reads them; head: that, too. fold: asymmetric codes
 * will be written as symmetric ones (snrq_export_folded_bits); SNRQ_USAGE if one cannot. Free it in
 * any case. Not collective. */
snrq_status snrq_export_mixture_read(const snrq_model *model, bool fold, bool head,
                                     snrq_export_mixture *out);
void snrq_export_mixture_free(snrq_export_mixture *mixture);

/* Calls `fits` (snrq_export_format.fits) for every kind until one does not fit: why [size] says
 * then why not, else "". */
typedef void snrq_export_fits(const snrq_model *model, const snrq_export_facts *facts, char *why,
                              size_t size);
snrq_status snrq_export_mixture_fits(const snrq_model *model, snrq_export_fits *fits, char *why,
                                     size_t size);

#endif
