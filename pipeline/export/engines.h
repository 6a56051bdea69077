/* What inference engines do with exports: which formats they read, and what they are known not to
 * load, or to load wrongly. One table in engines.c, which docs/exporting.md shows.
 */
#ifndef SNRQ_EXPORT_ENGINES_H
#define SNRQ_EXPORT_ENGINES_H

#include "pipeline/export/source.h"

/* What --for can say, in the order of the option's choices in options.c. */
typedef enum snrq_engine {
    SNRQ_ENGINE_TRANSFORMERS,
    SNRQ_ENGINE_GPTQMODEL,
    SNRQ_ENGINE_VLLM, /* on a GPU */
    SNRQ_ENGINE_VLLM_CPU,
    SNRQ_ENGINE_LLAMA_CPP,
    SNRQ_ENGINES
} snrq_engine;

/* Kinds of exports that some versions of an engine have trouble with. */
typedef struct snrq_engine_trouble {
    snrq_engine engine;
    const char *format; /* as in --format */
    bool (*concerns)(const snrq_export_facts *facts);
    const char *exports;  /* the same in words */
    const char *versions; /* of what */
    const char *happens;
    const char *instead; /* the way round: the nearest thing that works */
    bool fatal;          /* the newest version known here does not load it: --for refuses it */
} snrq_engine_trouble;

/* As in --for. */
const char *snrq_engine_name(snrq_engine engine);

/* What it reads, as in --format: "gptq, safetensors". */
const char *snrq_engine_formats(snrq_engine engine);
bool snrq_engine_reads(snrq_engine engine, const char *format);

/* Does it want modules with one input alike, and all modules of a block's experts? (--for; -1: no
 * engine) */
bool snrq_engine_fuses(int64_t engine);

/* The first row from *at on that concerns such an export, or NULL; *at moves behind it. engine -1:
 * any. `facts`: as they are written (see snrq_export_job). */
const snrq_engine_trouble *snrq_engine_trouble_next(int64_t engine, const char *format,
                                                    const snrq_export_facts *facts, int *at);

#endif
