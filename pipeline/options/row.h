/* A row of the table of options (options.c), and its value: from text, to text. Private to
 * options.c and what tests it. */
#ifndef SNRQ_OPTION_ROW_H
#define SNRQ_OPTION_ROW_H

#include "pipeline/options/options.h"

/* Where the value goes: char *, char * and texts, int64_t, double, int64_t (index), bool, int64_t,
 * int64_t (bytes), double (seconds), double ("auto" is SNRQ_AUTO), int64_t ("auto" is 0). TEXTS may
 * be given several times: the field has the first, and snrq_options.texts all of them. The names
 * are short because the table is full of them. */
typedef enum snrq_option_kind {
    TEXT,
    TEXTS,
    INTEGER,
    REAL,
    CHOICE,
    FLAG,
    GROUP,
    SIZE,
    TIME,
    SHARE,
    COUNT
} snrq_option_kind;

typedef struct snrq_option_row {
    const char *name;
    char letter; /* short form, or 0 */
    snrq_option_kind kind;
    size_t field;         /* offset in snrq_options */
    const char *fallback; /* default, as it would be typed; NULL: none */
    double low, high;     /* numbers: inclusive bounds. FLAG: low is the value it sets */
    const char *choices;  /* CHOICE: "a|b|c", in the order of the enum */
    unsigned commands;    /* which commands take it */
    bool stored;          /* decides the result: part of the stored configuration. With a
                             false here a run resumes with another value, and OUT mixes two */
    const char *unit;     /* placeholder in --help */
    const char *help;
} snrq_option_row;

/* Reads `value` (borrowed by `out` if it is a TEXT; NULL for a FLAG) into the row's field; of
 * TEXTS, adds it. SNRQ_USAGE names the option, what was expected and what was found. */
snrq_status snrq_option_set(const snrq_option_row *row, const char *value, snrq_options *out);

/* True if the field has a value: a text that is not NULL, a choice that was made, a flag that has
 * the row's value. */
bool snrq_option_has_value(const snrq_option_row *row, const snrq_options *options);

enum { SNRQ_OPTION_VALUE = 64 };
/* The field's value as snrq_option_set() reads it back to the same value. Written to `room`
 * [SNRQ_OPTION_VALUE], or borrowed from the options (TEXT). "" for a FLAG; the
 * first of TEXTS. */
const char *snrq_option_value(const snrq_option_row *row, const snrq_options *options, char *room);

/* "fixed:V", "sampled:B", "chained", "corr" into mode and value. SNRQ_USAGE. */
snrq_status snrq_option_alpha(const char *text, snrq_alpha_mode *mode, double *value);

#endif
