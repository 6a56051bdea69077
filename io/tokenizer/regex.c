/* Regular expressions of tokenizer.json: checked, spelled for PCRE2, compiled.
 *
 * The file's expressions are Oniguruma's, with Ruby's syntax. What means the same to PCRE2 is
 * passed on; \s is spelled out, because PCRE2 counts U+180E as white space; ^ and $ match at every
 * line, as in Ruby. Everything else (other escapes, named, recursive and conditional groups,
 * classes in classes) is refused by name rather than matched a little differently. The expressions
 * of the known tokenizers are far inside what is left.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer/internal.h"
#include "io/tokenizer/regex.h"

enum { MAX_PATTERN = 4096, MAX_NESTING = 50 };

/* Unicode White_Space, as the inside of a class. */
static const char white_space[] = "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}"
                                  "\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";

typedef struct reading {
    const char *where, *pattern;
    size_t at;
    bool in_class;
    snrq_buffer *out;
} reading;

static snrq_status put(reading *r, const char *text)
{
    return snrq_buffer_append(r->out, text, strlen(text));
}

/* Passes on the next `bytes` bytes. */
static snrq_status pass(reading *r, size_t bytes)
{
    r->at += bytes;
    return snrq_buffer_append(r->out, r->pattern + r->at - bytes, bytes);
}

static snrq_status refuse(const reading *r, const char *what)
{
    char shown[SNRQ_SHOWN];
    return snrq_fail(SNRQ_BAD_DATA, "%s: the regular expression at byte %zu (\"%s\"): %s", r->where,
                     r->at, snrq_shown(r->pattern + r->at, shown), what);
}

/* \p{L}, \P{Lu}, \p{^N}: general categories only, other properties differ between the libraries. */
static snrq_status pass_property(reading *r)
{
    const char *name = r->pattern + r->at + 2;
    size_t letters = 0, skipped = name[0] == '{' && name[1] == '^' ? 2 : 1;
    if (name[0] == '{') letters = strcspn(name + skipped, "}");
    if (letters < 1 || letters > 2 || strchr("LMNPSZC", name[skipped]) == NULL ||
        name[skipped + letters] != '}')
        return refuse(r, "this property is not supported (supported: general categories such as "
                         "\\p{L} and \\p{Lu})");
    return pass(r, 2 + skipped + letters + 1);
}

/* \u1234 is \x{1234}. */
static snrq_status pass_code_point(reading *r)
{
    const char *digits = r->pattern + r->at + 2;
    char spelled[16];
    if (strspn(digits, "0123456789abcdefABCDEF") < 4)
        return refuse(r, "expected four hexadecimal digits after \\u");
    snprintf(spelled, sizeof spelled, "\\x{%.4s}", digits);
    r->at += 6;
    return put(r, spelled);
}

static snrq_status pass_escape(reading *r)
{
    char letter = r->pattern[r->at + 1];
    bool alphanumeric = (letter >= '0' && letter <= '9') || (letter >= 'A' && letter <= 'Z') ||
                        (letter >= 'a' && letter <= 'z');
    if (letter == 's' || (letter == 'S' && !r->in_class)) {
        r->at += 2;
        if (!r->in_class) SNRQ_TRY(put(r, letter == 's' ? "[" : "[^"));
        SNRQ_TRY(put(r, white_space));
        return r->in_class ? SNRQ_OK : put(r, "]");
    }
    if (letter == 'p' || letter == 'P') return pass_property(r);
    if (letter == 'u') return pass_code_point(r);
    if (letter == 'x' && r->pattern[r->at + 2] == '{') return pass(r, 2);
    if (letter != '\0' && strchr("dDnrtf", letter) != NULL) return pass(r, 2);
    if (letter > ' ' && letter < 127 && !alphanumeric) return pass(r, 2);
    return refuse(r, "this escape is not supported here (supported: \\s \\S \\d \\D \\p{..} "
                     "\\P{..} \\n \\r \\t \\f \\uHHHH \\x{..} and punctuation)");
}

static snrq_status pass_group(reading *r)
{
    static const char *const known[] = {"?:", "?=", "?!", "?>", "?<=", "?<!", "?i:", "?i)"};
    const char *group = r->pattern + r->at + 1;
    if (group[0] == '*') return refuse(r, "commands (*...) are not supported");
    if (group[0] != '?') return pass(r, 1);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strncmp(group, known[i], strlen(known[i])) == 0) return pass(r, 2);
    return refuse(r, "this kind of group is not supported (supported: (?: (?= (?! (?> (?<= (?<! "
                     "(?i: (?i))");
}

static snrq_status pass_next(reading *r)
{
    char c = r->pattern[r->at], next = r->pattern[r->at + 1];
    if (c == '\\') return pass_escape(r);
    if (r->in_class) {
        if (c == '[' || (c == '&' && next == '&'))
            return refuse(r, "classes in classes are not supported");
        r->in_class = c != ']';
        return pass(r, 1);
    }
    if (c == '(') return pass_group(r);
    if ((c == '{' && next == ',') || (c == '}' && next == '+'))
        return refuse(r, "{,n} and possessive {n,m}+ are not supported");
    if (c != '[') return pass(r, 1);
    r->in_class = true;
    size_t bytes = next == '^' ? 2 : 1;
    if (r->pattern[r->at + bytes] == ']') return refuse(r, "the class is empty");
    return pass(r, bytes);
}

/* Oniguruma's expression for PCRE2, appended to `out`, which is NUL-terminated then. */
static snrq_status translate(const char *where, const char *pattern, snrq_buffer *out)
{
    reading r = {.where = where, .pattern = pattern, .out = out};
    if (strlen(pattern) > MAX_PATTERN)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: a regular expression of %zu bytes, expected at most %d", where,
                         strlen(pattern), MAX_PATTERN);
    while (pattern[r.at] != '\0') SNRQ_TRY(pass_next(&r));
    return snrq_buffer_append(out, "", 1);
}

static snrq_status compile(const char *where, const char *pattern, size_t bytes, uint32_t options,
                           pcre2_code **out)
{
    int error = 0;
    PCRE2_SIZE at = 0;
    PCRE2_UCHAR message[128];
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (context == NULL) return snrq_fail(SNRQ_INTERNAL, "cannot allocate a regular expression");
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, MAX_NESTING);
    *out = pcre2_compile((PCRE2_SPTR)pattern, bytes, options, &error, &at, context);
    pcre2_compile_context_free(context);
    if (*out == NULL) {
        pcre2_get_error_message(error, message, sizeof message);
        return snrq_fail(SNRQ_BAD_DATA, "%s: the regular expression cannot be used: %s", where,
                         (const char *)message);
    }
    /* Where PCRE2 cannot make machine code, it interprets. */
    pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
    return SNRQ_OK;
}

snrq_status snrq_regex_compile(const char *where, const char *pattern, pcre2_code **out)
{
    snrq_buffer spelled = {0};
    snrq_status status = translate(where, pattern, &spelled);
    *out = NULL;
    if (status == SNRQ_OK)
        status = compile(where, spelled.data, spelled.used - 1,
                         PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_AUTO_CAPTURE |
                             PCRE2_NEVER_BACKSLASH_C,
                         out);
    free(spelled.data);
    return status;
}

snrq_status snrq_regex_literal(const char *where, const char *text, pcre2_code **out)
{
    *out = NULL;
    if (text[0] == '\0') return snrq_fail(SNRQ_BAD_DATA, "%s: the pattern is empty", where);
    if (strlen(text) > MAX_PATTERN)
        return snrq_fail(SNRQ_BAD_DATA, "%s: a pattern of %zu bytes, expected at most %d", where,
                         strlen(text), MAX_PATTERN);
    return compile(where, text, strlen(text), PCRE2_UTF | PCRE2_LITERAL, out);
}
