/* Token windows: from texts or a token file, by a rule. */
#ifndef SNRQ_TEXT_WINDOWS_H
#define SNRQ_TEXT_WINDOWS_H

#include "io/tokenizer/windows.h"
#include "pipeline/model/model.h"
#include "pipeline/texts/texts.h"

/* How windows come from texts. "Joined": the documents become one text, which is tokenized as one.
 * The rules with names are those of published results (sampling.h). */
typedef enum snrq_window_rule {
    SNRQ_WINDOWS_RANDOM,          /* of this program; documents follow each other, tokenized each by
                                     itself; drawn */
    SNRQ_WINDOWS_CONSECUTIVE,     /* likewise; one after the other */
    SNRQ_WINDOWS_WIKITEXT2,       /* joined by empty lines; one after the other */
    SNRQ_WINDOWS_WIKITEXT2_DRAWN, /* likewise; drawn */
    SNRQ_WINDOWS_C4,              /* drawn from documents, as the GPTQ code does */
    SNRQ_WINDOWS_C4_SNRQ,         /* likewise, as the SNRQ code does */
    SNRQ_WINDOWS_C4_NEW /* the first 1100 documents joined by blanks; one after the other */
} snrq_window_rule;

enum { SNRQ_WINDOWS_PER_ADDED = 16 };

/* What windows are wanted. All borrowed. */
typedef struct snrq_window_order {
    snrq_window_rule rule;
    snrq_texts texts;
    const char *token_file; /* instead of texts, or NULL; cut one after the other */
    int64_t count;          /* 0: all of those that follow each other */
    int64_t most;           /* with count 0: at most so many; 0: no limit */
    int64_t length;         /* 0: the model's context, at most 2048 */
    uint64_t seed;
    int64_t held_out; /* at most so many more that share no token with these, and at most one for
                         each SNRQ_WINDOWS_PER_ADDED or part of it; of rules that draw no
                         documents */
    int64_t first_tokens; /* at most so many more of tokens that each stand alone, and at most one
                             for each SNRQ_WINDOWS_PER_ADDED */
    bool beyond_context;  /* windows may be longer than the context that the model names */
} snrq_window_order;

/* Rank 0 reads the files; every rank gets the windows. Collective; agreed. Free with
 * snrq_windows_free(). */
snrq_status snrq_windows_make(const snrq_context *context, const snrq_window_order *order,
                              const snrq_model *model, snrq_windows *out);

#endif
