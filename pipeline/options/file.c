/* Files of options; see file.h. */
#include "pipeline/options/file.h"

#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/json.h"

enum { LIMIT_BYTES = 1 << 20 };

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

snrq_status snrq_option_file_read(const char *path, char **text)
{
    size_t bytes = 0;
    int line = 1;
    SNRQ_TRY(snrq_file_read(path, LIMIT_BYTES, text, &bytes));
    const char *nul = memchr(*text, '\0', bytes);
    if (nul == NULL) return SNRQ_OK;
    for (const char *at = *text; at < nul; at++) line += *at == '\n';
    free(*text);
    *text = NULL;
    return snrq_fail(SNRQ_USAGE, "%s: line %d: a NUL byte; expected a text with an option per line",
                     path, line);
}

/* Ends the text before the blanks that it ends with. */
static void cut_blanks(char *text)
{
    size_t length = strlen(text);
    while (length > 0 && (is_blank(text[length - 1]) || text[length - 1] == '\r')) length--;
    text[length] = '\0';
}

/* What stands between double quotes, in place. `text` begins with one. */
static snrq_status unquote(const char *path, int number, char *text)
{
    char *to = text, *from = text + 1;
    for (; *from != '\0' && *from != '"'; from++) {
        if (*from == '\\') {
            const char *known = strchr("\\\"nr", *++from);
            if (*from == '\0' || known == NULL)
                return snrq_fail(SNRQ_USAGE,
                                 "%s: line %d: a backslash between quotes stands before \\, \", n "
                                 "or r",
                                 path, number);
            *from = *from == 'n' ? '\n' : *from == 'r' ? '\r' : *from;
        }
        *to++ = *from;
    }
    if (*from != '"' || from[1] != '\0')
        return snrq_fail(SNRQ_USAGE,
                         "%s: line %d: expected a closing quote (\") at the end of the line", path,
                         number);
    *to = '\0';
    return SNRQ_OK;
}

/* A value without quotes in which something looks like more than a value. */
static snrq_status check_bare(const char *path, int number, const char *value)
{
    char shown[SNRQ_SHOWN];
    const char *hash = strchr(value, '#');
    while (hash != NULL && hash > value && !is_blank(hash[-1])) hash = strchr(hash + 1, '#');
    if (hash != NULL)
        return snrq_fail(SNRQ_USAGE,
                         "%s: line %d: a comment needs a line of its own; if it is part of the "
                         "value, put the value in double quotes: %s",
                         path, number, snrq_shown(value, shown));
    if (value[0] == '\'')
        return snrq_fail(SNRQ_USAGE,
                         "%s: line %d: expected a value, or one in double quotes, found %s", path,
                         number, snrq_shown(value, shown));
    return SNRQ_OK;
}

/* One line without its end: name, then blanks or "=", then the value. */
static snrq_status split_line(const char *path, char *text, snrq_option_line *line)
{
    char shown[SNRQ_SHOWN];
    if (text[0] != '-' || text[1] == '\0' || strcmp(text, "--") == 0)
        return snrq_fail(SNRQ_USAGE,
                         "%s: line %d: expected an option such as --bits 3, found '%s' (MODEL or "
                         "OUT belongs on the command line)",
                         path, line->number, snrq_shown(text, shown));
    line->name = text;
    line->value = NULL;
    bool is_long = text[1] == '-';
    char *end = text + strcspn(text, is_long ? " \t=" : " \t");
    if (*end == '\0') return SNRQ_OK;
    bool blank = *end != '=';
    *end++ = '\0';
    while (blank && is_blank(*end)) end++;
    line->value = end;
    if (*end == '"') return unquote(path, line->number, end);
    return check_bare(path, line->number, end);
}

snrq_status snrq_option_file_next(const char *path, char **at, int *number, snrq_option_line *line,
                                  bool *found)
{
    *found = false;
    if (*number == 0 && strncmp(*at, "\xef\xbb\xbf", 3) == 0) *at += 3; /* byte order mark */
    while (**at != '\0') {
        char *text = *at, *end = strchr(text, '\n');
        *at = end != NULL ? end + 1 : text + strlen(text);
        if (end != NULL) *end = '\0';
        ++*number;
        cut_blanks(text);
        while (is_blank(*text)) text++;
        if (*text == '\0' || *text == '#') continue;
        *found = true;
        line->number = *number;
        return split_line(path, text, line);
    }
    return SNRQ_OK;
}

char *snrq_option_file_quote(const char *value, char *out)
{
    size_t length = strlen(value);
    bool bare = length > 0 && strchr("\"' \t#", value[0]) == NULL && !is_blank(value[length - 1]) &&
                strpbrk(value, "\n\r") == NULL;
    for (size_t i = 1; i < length && bare; i++) bare = value[i] != '#' || !is_blank(value[i - 1]);
    if (bare) return strcpy(out, value);
    char *to = out;
    *to++ = '"';
    for (const char *from = value; *from != '\0'; from++) {
        const char *escaped = strchr("\\\"\n\r", *from);
        if (escaped != NULL) *to++ = '\\';
        *to++ = *from == '\n' ? 'n' : *from == '\r' ? 'r' : *from;
    }
    *to++ = '"';
    *to = '\0';
    return out;
}
