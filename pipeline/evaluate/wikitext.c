/* WikiText's pages; see wikitext.h. */
#include "pipeline/evaluate/wikitext.h"

/* In order: texts are replaced, patterns (with $1) substituted. \s of Python has four separators
 * more than PCRE2's. */
#define SPACES "[\\s\\x1c-\\x1f]*"
static const struct {
    bool pattern;
    const char *from, *to;
} rules[] = {
    /* contractions */
    {false, "s '", "s'"},
    {true, "/' [0-9]/", "/'[0-9]/"},
    /* in numbers */
    {false, " @-@ ", "-"},
    {false, " @,@ ", ","},
    {false, " @.@ ", "."},
    /* punctuation */
    {false, " : ", ": "},
    {false, " ; ", "; "},
    {false, " . ", ". "},
    {false, " ! ", "! "},
    {false, " ? ", "? "},
    {false, " , ", ", "},
    /* brackets and quotation marks */
    {true, "\\(" SPACES "([^\\)]*?)" SPACES "\\)", "($1)"},
    {true, "\\[" SPACES "([^\\]]*?)" SPACES "\\]", "[$1]"},
    {true, "\\{" SPACES "([^}]*?)" SPACES "\\}", "{$1}"},
    {true, "\"" SPACES "([^\"]*?)" SPACES "\"", "\"$1\""},
    {true, "'" SPACES "([^']*?)" SPACES "'", "'$1'"},
    /* headings, degrees, lines, and the rest */
    {false, "= = = =", "===="},
    {false, "= = =", "==="},
    {false, "= =", "=="},
    {false, " \xc2\xb0 ", "\xc2\xb0"},
    {false, " \n", "\n"},
    {false, "\n ", "\n"},
    {false, " N ", " 1 "},
    {false, " 's", "'s"},
};

snrq_status snrq_wikitext_detokenize(snrq_string *page)
{
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        SNRQ_TRY(rules[i].pattern ? snrq_python_substitute(page, rules[i].from, rules[i].to)
                                  : snrq_python_replace(page, rules[i].from, rules[i].to));
    return SNRQ_OK;
}
