/* Cutting a text at the matches of a pattern: each match is a piece, and what lies between two.
 *
 * The pattern comes from a file, so its work is bounded. A match sees a window of the text that is
 * doubled while the match asks for more (PCRE2's hard partial matching), and a number of steps that
 * is raised while it asks for more. All but the smallest windows and numbers are counted; patterns
 * of real tokenizers stay below a few times the text's length, also in one run of white space as
 * long as the text, and the one that does not is stopped with a message.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer/internal.h"
#include "io/tokenizer/regex.h"

enum {
    WINDOW = 256,           /* bytes at least */
    STEPS = 4096,           /* PCRE2's match limit at first */
    WORK_PER_BYTE = 64,     /* windows and steps together */
    SPARE_WORK = 1 << 24,   /* for short texts; about a tenth of a second */
    MAX_HEAP_KIB = 64 << 10 /* memory of one match, with and without machine code */
};

struct snrq_split {
    pcre2_code *code;
};

struct snrq_split_work {
    pcre2_match_data *found;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    int64_t left; /* work that may still be done */
};

snrq_status snrq_split_create(const char *where, const char *pattern, bool literal,
                              snrq_split **out)
{
    SNRQ_TRY(snrq_allocate(1, sizeof **out, "pattern", out));
    snrq_status status = literal ? snrq_regex_literal(where, pattern, &(*out)->code)
                                 : snrq_regex_compile(where, pattern, &(*out)->code);
    if (status != SNRQ_OK) snrq_split_destroy(out);
    return status;
}

void snrq_split_destroy(snrq_split **split)
{
    if (*split == NULL) return;
    pcre2_code_free((*split)->code);
    free(*split);
    *split = NULL;
}

snrq_status snrq_split_work_create(snrq_split_work **out)
{
    SNRQ_TRY(snrq_allocate(1, sizeof **out, "pattern matching", out));
    snrq_split_work *work = *out;
    work->found = pcre2_match_data_create(1, NULL);
    work->context = pcre2_match_context_create(NULL);
    work->stack = pcre2_jit_stack_create((size_t)32 << 10, (size_t)MAX_HEAP_KIB << 10, NULL);
    if (work->found == NULL || work->context == NULL) {
        snrq_split_work_destroy(out);
        return snrq_fail(SNRQ_INTERNAL, "cannot allocate memory for pattern matching");
    }
    /* Without a stack (no machine code on this processor) nothing asks for it. */
    if (work->stack != NULL) pcre2_jit_stack_assign(work->context, NULL, work->stack);
    pcre2_set_heap_limit(work->context, MAX_HEAP_KIB);
    pcre2_set_match_limit(work->context, STEPS);
    work->left = SPARE_WORK;
    return SNRQ_OK;
}

void snrq_split_work_add(snrq_split_work *work, size_t bytes)
{
    work->left += (int64_t)bytes * WORK_PER_BYTE;
}

void snrq_split_work_destroy(snrq_split_work **work)
{
    if (*work == NULL) return;
    pcre2_match_data_free((*work)->found);
    pcre2_match_context_free((*work)->context);
    pcre2_jit_stack_free((*work)->stack);
    free(*work);
    *work = NULL;
}

/* The end of a window of about `width` bytes behind `from`: between two characters. */
static size_t window_end(const char *text, size_t bytes, size_t from, size_t width)
{
    if (width >= bytes - from) return bytes;
    size_t end = from + width;
    while (end < bytes && ((unsigned char)text[end] & 0xc0u) == 0x80u) end++;
    return end;
}

static snrq_status match_failed(int code, size_t at)
{
    PCRE2_UCHAR message[128];
    pcre2_get_error_message(code, message, sizeof message);
    return snrq_fail(SNRQ_BAD_DATA,
                     "the tokenizer's pattern cannot be matched at byte %zu of a stretch of text: "
                     "%s",
                     at, (const char *)message);
}

/* The first match at or after `from`: [*begin, *end), or both `bytes`. */
static snrq_status find(const snrq_split *split, snrq_split_work *work, const char *text,
                        size_t bytes, size_t from, size_t *begin, size_t *end)
{
    const PCRE2_SIZE *places = pcre2_get_ovector_pointer(work->found);
    size_t width = WINDOW;
    uint32_t steps = STEPS;
    int code;
    for (;;) {
        size_t until = window_end(text, bytes, from, width);
        uint32_t partial = until < bytes ? PCRE2_PARTIAL_HARD : 0;
        code = pcre2_match(split->code, (PCRE2_SPTR)text, until, from, PCRE2_NO_UTF_CHECK | partial,
                           work->found, work->context);
        if (width > WINDOW) work->left -= (int64_t)(until - from);
        if (code >= 0 || (code == PCRE2_ERROR_NOMATCH && until == bytes)) break;
        if (code == PCRE2_ERROR_NOMATCH) {
            from = until; /* no match begins inside the window */
            width = WINDOW;
        } else if (code == PCRE2_ERROR_PARTIAL) {
            from = places[0]; /* none begins before */
            width *= 2;
        } else if (code == PCRE2_ERROR_MATCHLIMIT && steps < UINT32_MAX / 16) {
            work->left -= steps;
            steps *= 16;
            pcre2_set_match_limit(work->context, steps);
        } else {
            break;
        }
        if (work->left < (steps > STEPS ? steps : 0))
            return snrq_fail(SNRQ_BAD_DATA,
                             "the tokenizer's pattern needs too much work at byte %zu of a stretch "
                             "of text: it backtracks",
                             from);
    }
    if (steps != STEPS) pcre2_set_match_limit(work->context, STEPS);
    if (code < 0 && code != PCRE2_ERROR_NOMATCH) return match_failed(code, from);
    *begin = code >= 0 ? places[0] : bytes;
    *end = code >= 0 ? places[1] : bytes;
    return SNRQ_OK;
}

snrq_status snrq_split_next(snrq_cutting *c, snrq_split_work *work, size_t *begin, size_t *end)
{
    *begin = c->done;
    while (c->match_end <= c->done && c->done < c->bytes) {
        size_t match = 0, match_end = 0;
        SNRQ_TRY(find(c->split, work, c->text, c->bytes, c->search, &match, &match_end));
        c->search = match_end;
        /* An empty match cuts as well; the search goes on behind the next character. */
        if (match == match_end && match < c->bytes) snrq_utf8_next(c->text, &c->search);
        c->match_end = match_end;
        if (match > c->done) {
            c->done = match;
            c->is_match = false;
            *end = match;
            return SNRQ_OK;
        }
    }
    c->done = c->match_end > c->done ? c->match_end : c->done;
    c->is_match = true;
    *end = c->done;
    return SNRQ_OK;
}
