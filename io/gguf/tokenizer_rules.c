/* What stands around the vocabulary in tokenizer.json; see tokenizer_rules.h.
 *
 * llama.cpp does not read patterns from the file: it has a list of them under names. It does no
 * Unicode normalization, either: NFC is let pass, because it leaves almost all text as it is. */
#include "io/gguf/tokenizer_rules.h"

#include <string.h>

#include "io/json.h"

static const char space_character[] = "\xe2\x96\x81"; /* U+2581 */

/* The patterns, as tokenizer.json spells them. */
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define BEFORE_DIGITS CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define AFTER_DIGITS "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" WHITE_SPACE
#define WHITE_SPACE "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define DIGIT "\\p{N}"
#define GPT_2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define LLAMA_3 BEFORE_DIGITS "\\p{N}{1,3}" AFTER_DIGITS
#define QWEN_2 BEFORE_DIGITS DIGIT AFTER_DIGITS
#define QWEN_35                                                                                    \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+"       \
                 "[\\r\\n]*|" WHITE_SPACE
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(end)                                                                                 \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" end "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER     \
    "*" end "|"
#define AFTER_CASED "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" WHITE_SPACE
#define TEKKEN CASED("") DIGIT AFTER_CASED
#define GPT_4O CASED(CONTRACTIONS "?") "\\p{N}{1,3}" AFTER_CASED
#define DEEPSEEK_V3                                                                                \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?"           \
    "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" WHITE_SPACE
#define HAN_AND_KANA "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
#define HAN_AND_OTHERS "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
#define SPARK                                                                                      \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?"           \
    "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+|[\\r\\n]|\\s+(?!\\S)|\\s+"
#define JAIS_2                                                                                     \
    BEFORE_DIGITS "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s{512}(?!\\S)|"      \
                  "\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)|\\s{16}(?!\\S)|"  \
                  "\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}"
#define SEED_CODER BEFORE_DIGITS "\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" WHITE_SPACE
#define BAILING                                                                                    \
    "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|" \
    "\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"
#define EXAONE_MOE                                                                                 \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}|"            \
                 " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"
#define K2_HORIZON                                                                                 \
    CONTRACTIONS                                                                                   \
    "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}|\\p{M}|\\u200C|\\u200D)+|\\p{N}{1,3}" AFTER_DIGITS
#define UFAKZEKA "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" DIGIT AFTER_DIGITS
#define BLOOM " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"
#define YOUTU                                                                                      \
    "[\uac00-\ud7a3\u3131-\u318e]+|["                                                              \
    "\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-"                          \
    "\u303f\ufe30-\ufe4f]+|[\u3105-\u312f]+|" HAN_AND_KANA
#define CASES "at combining marks and between letters of other cases"
enum { MAX_CUTS = 6 };

/* What llama.cpp cuts at under a name: one pattern inside the other, in this order. A row without a
 * difference is here only because llama.cpp and the tokenizer's own library gave equal ids for
 * thousands of random texts in many scripts, with a vocabulary that has a token for every pair of
 * bytes and so shows every cut. */
static const struct known {
    const char *pre;
    bool ignore_merges;     /* a word that is a token is not cut */
    const char *difference; /* where llama.cpp cuts otherwise under this name; NULL: nowhere */
    const char *cuts[MAX_CUTS + 1];
} known[] = {
    {"gpt-2", false, NULL, {GPT_2}},
    {"smollm", false, NULL, {DIGIT, GPT_2}},
    {"llama-bpe", true, NULL, {LLAMA_3}},
    {"dbrx", false, NULL, {LLAMA_3}},
    {"qwen2", false, NULL, {QWEN_2}},
    {"qwen35", false, NULL, {QWEN_35}},
    {"deepseek-v3", false, NULL, {"\\p{N}{1,3}", HAN_AND_KANA, DEEPSEEK_V3}},
    {"spark2_5", false, NULL, {"\\p{N}{1,3}", HAN_AND_KANA, SPARK, DIGIT}},
    {"jais-2", false, NULL, {JAIS_2}},
    {"minicpm5", true, NULL, {"\\p{N}{1,3}", BEFORE_DIGITS "\\p{N}+" AFTER_DIGITS}},
    {"seed-coder", false, NULL, {SEED_CODER}},
    {"bailingmoe", false, NULL, {BAILING}},
    {"exaone-moe", false, NULL, {EXAONE_MOE}},
    {"k2-horizon", false, NULL, {K2_HORIZON}},
    {"ufakzeka", false, NULL, {UFAKZEKA}},
    {"bloom", false, NULL, {BLOOM}},
    {"viking", false, NULL, {BLOOM, DIGIT}},
    {"deepseek-coder",
     false,
     "at spaces that are not ASCII ones",
     {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", HAN_AND_OTHERS, DIGIT}},
    {"superbpe", false, "in numbers that are not ASCII ones", {"\\p{N}+", "(?=(\\d{3})+(?!\\d))"}},
    {"tekken", true, CASES, {TEKKEN}},
    {"gpt-4o", false, CASES, {GPT_4O}},
    {"tiny_aya", false, CASES, {"\\d{1,3}(?=(?:\\d{3})*\\b)", GPT_4O}},
    {"youtu", true, CASES, {YOUTU, CASED(CONTRACTIONS "?") DIGIT AFTER_CASED}},
};
enum { KNOWN = sizeof known / sizeof known[0] };

static snrq_status refuse(const char *where, const char *part, const char *found,
                          const char *possible)
{
    char shown[SNRQ_SHOWN];
    return snrq_fail(
        SNRQ_BAD_DATA,
        "%s: %s \"%s\" cannot be expressed in a GGUF file (llama.cpp has: %s); --format "
        "safetensors keeps the tokenizer as it is",
        where, part, snrq_shown(found, shown), possible);
}

static const char *type_of(const json_t *object)
{
    const char *type = json_string_value(json_object_get(object, "type"));
    return type != NULL ? type : "";
}

/* The i-th step of a part that is a Sequence with its steps under `key`, or one step, or
 * null; NULL after the last one. */
static const json_t *step(const json_t *part, const char *key, size_t i)
{
    if (strcmp(type_of(part), "Sequence") == 0)
        return json_array_get(json_object_get(part, key), i);
    return i == 0 && json_is_object(part) ? part : NULL;
}

static snrq_status read_normalizer(const char *where, const json_t *part, snrq_tokenizer_rules *out)
{
    const json_t *s;
    for (size_t i = 0; (s = step(part, "normalizers", i)) != NULL; i++) {
        const char *type = type_of(s), *text;
        if (strcmp(type, "NFC") == 0) continue;
        if (strcmp(type, "Prepend") == 0) {
            SNRQ_TRY(snrq_json_string(where, s, "prepend", NULL, &text));
            if (strcmp(text, space_character) != 0) return refuse(where, "prefix", text, "a space");
            out->space_prefix = out->sentencepiece = true;
        } else if (strcmp(type, "Replace") == 0) {
            SNRQ_TRY(snrq_json_string(where, s, "content", NULL, &text));
            if (strcmp(text, space_character) != 0)
                return refuse(where, "replacement", text, "U+2581 for a space");
            out->sentencepiece = true;
        } else {
            return refuse(where, "normalizer", type, "Prepend, Replace");
        }
    }
    return SNRQ_OK;
}

static snrq_status read_metaspace(const char *where, const json_t *s, snrq_tokenizer_rules *out)
{
    const char *scheme;
    bool older;
    SNRQ_TRY(snrq_json_boolean(where, s, "add_prefix_space", true, &older));
    SNRQ_TRY(snrq_json_string(where, s, "prepend_scheme", older ? "always" : "never", &scheme));
    out->sentencepiece = true;
    out->space_prefix = strcmp(scheme, "never") != 0;
    return SNRQ_OK;
}

/* The cuts of a tokenizer, in the order in which they are made. */
typedef struct cuts {
    const char *text[MAX_CUTS]; /* borrowed */
    int count;
    bool byte_level;
} cuts;

static snrq_status cut_add(const char *where, const char *text, cuts *out)
{
    if (out->count == MAX_CUTS) return refuse(where, "pre_tokenizer", "more cuts", "up to six");
    out->text[out->count++] = text;
    return SNRQ_OK;
}

static snrq_status read_split(const char *where, const json_t *s, cuts *out)
{
    const char *behavior, *text;
    bool invert;
    text = json_string_value(json_object_get(json_object_get(s, "pattern"), "Regex"));
    SNRQ_TRY(snrq_json_string(where, s, "behavior", "Isolated", &behavior));
    SNRQ_TRY(snrq_json_boolean(where, s, "invert", false, &invert));
    if (text == NULL)
        return refuse(where, "pre_tokenizer", "Split at a text", "regular expressions");
    /* The known patterns leave nothing between their matches that could be removed. */
    if (strcmp(behavior, "Isolated") != 0 && !(invert && strcmp(behavior, "Removed") == 0))
        return refuse(where, "behavior of Split", behavior, "Isolated");
    return cut_add(where, text, out);
}

static snrq_status read_cut(const char *where, const json_t *s, cuts *out,
                            snrq_tokenizer_rules *rules)
{
    const char *type = type_of(s);
    bool flag;
    if (strcmp(type, "Split") == 0) return read_split(where, s, out);
    if (strcmp(type, "Digits") == 0) {
        SNRQ_TRY(snrq_json_boolean(where, s, "individual_digits", false, &flag));
        return cut_add(where, flag ? "\\p{N}" : "\\p{N}+", out);
    }
    if (strcmp(type, "ByteLevel") != 0)
        return refuse(where, "pre_tokenizer", type, "Metaspace, Split, Digits, ByteLevel");
    out->byte_level = true;
    SNRQ_TRY(snrq_json_boolean(where, s, "add_prefix_space", true, &rules->space_prefix));
    SNRQ_TRY(snrq_json_boolean(where, s, "use_regex", true, &flag));
    return flag ? cut_add(where, GPT_2, out) : SNRQ_OK;
}

/* Equal but for how carriage return and line feed are spelled: as themselves or escaped. */
static bool same_pattern(const char *a, const char *b)
{
    for (; *a != '\0' && *b != '\0'; a++, b++) {
        char x = *a, y = *b;
        if (x == '\\' && (a[1] == 'r' || a[1] == 'n')) x = *++a == 'r' ? '\r' : '\n';
        if (y == '\\' && (b[1] == 'r' || b[1] == 'n')) y = *++b == 'r' ? '\r' : '\n';
        if (x != y) return false;
        if (x == '\\' && a[1] == b[1] && a[1] != '\0') a++, b++;
    }
    return *a == *b;
}

static bool same_cuts(const struct known *k, const cuts *c)
{
    int i = 0;
    while (i < c->count && k->cuts[i] != NULL && same_pattern(k->cuts[i], c->text[i])) i++;
    return i == c->count && k->cuts[i] == NULL;
}

static snrq_status find_name(const char *where, const json_t *root, const cuts *c,
                             snrq_tokenizer_rules *out)
{
    const char *other = NULL;
    bool ignore_merges;
    SNRQ_TRY(snrq_json_boolean(where, json_object_get(root, "model"), "ignore_merges", false,
                               &ignore_merges));
    for (int i = 0; i < KNOWN && out->pre == NULL; i++) {
        if (!same_cuts(&known[i], c)) continue;
        if (known[i].difference != NULL)
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: pre_tokenizer: llama.cpp has this pattern under the name %s, but "
                             "cuts otherwise %s, which gives other tokens; --format safetensors "
                             "keeps the tokenizer as it is",
                             where, known[i].pre, known[i].difference);
        if (known[i].ignore_merges == ignore_merges) out->pre = known[i].pre;
        other = known[i].pre;
    }
    if (out->pre != NULL) return SNRQ_OK;
    if (other != NULL)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: ignore_merges is %s: llama.cpp cuts at these patterns under the name "
                         "%s, where it is %s",
                         where, ignore_merges ? "true" : "false", other,
                         ignore_merges ? "false" : "true");
    return refuse(where, "pre_tokenizer with the pattern", c->count > 0 ? c->text[0] : "",
                  "those of GPT-2, SmolLM, Llama 3, Qwen 2, Qwen 3.5, DeepSeek V3 and others in "
                  "docs/gguf.md");
}

static snrq_status read_pre_tokenizer(const char *where, const json_t *root,
                                      snrq_tokenizer_rules *out)
{
    const json_t *s, *part = json_object_get(root, "pre_tokenizer");
    cuts c = {.count = 0};
    for (size_t i = 0; (s = step(part, "pretokenizers", i)) != NULL; i++) {
        if (strcmp(type_of(s), "Metaspace") == 0)
            SNRQ_TRY(read_metaspace(where, s, out));
        else
            SNRQ_TRY(read_cut(where, s, &c, out));
    }
    if (c.byte_level && !out->sentencepiece) return find_name(where, root, &c, out);
    if (c.byte_level || c.count > 0 || !out->sentencepiece)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: is neither a SentencePiece tokenizer (U+2581 for spaces) nor a "
                         "byte-level one: llama.cpp has no other kinds of BPE",
                         where);
    out->pre = "default";
    return SNRQ_OK;
}

/* The id that a TemplateProcessing names, which llama.cpp puts before or after the text. */
static snrq_status read_special(const char *where, const json_t *post, const json_t *item,
                                int64_t *out)
{
    const char *name;
    if (*out >= 0) return refuse(where, "post_processor", "several tokens", "one on each side");
    SNRQ_TRY(snrq_json_string(where, item, "id", NULL, &name));
    const json_t *special = json_object_get(json_object_get(post, "special_tokens"), name);
    const json_t *id = json_array_get(json_object_get(special, "ids"), 0);
    if (!json_is_integer(id) || json_integer_value(id) < 0)
        return snrq_fail(SNRQ_BAD_DATA, "%s: post_processor: special token \"%s\" has no id", where,
                         name);
    *out = json_integer_value(id);
    return SNRQ_OK;
}

static snrq_status read_template(const char *where, const json_t *post, snrq_tokenizer_rules *out)
{
    json_t *items, *item;
    size_t index;
    bool text_seen = false;
    SNRQ_TRY(snrq_json_array(where, post, "single", &items));
    json_array_foreach(items, index, item)
    {
        const json_t *special = json_object_get(item, "SpecialToken");
        if (special == NULL)
            text_seen = true;
        else
            SNRQ_TRY(read_special(where, post, special, text_seen ? &out->after : &out->before));
    }
    return SNRQ_OK;
}

snrq_status snrq_tokenizer_rules_read(const char *where, const json_t *root,
                                      snrq_tokenizer_rules *out)
{
    json_t *model;
    const char *type;
    const json_t *s, *post = json_object_get(root, "post_processor");
    *out = (snrq_tokenizer_rules){.before = -1, .after = -1};
    SNRQ_TRY(snrq_json_object(where, root, "model", &model));
    SNRQ_TRY(snrq_json_string(where, model, "type", "BPE", &type));
    if (strcmp(type, "BPE") != 0) return refuse(where, "model", type, "BPE");
    out->unknown = json_string_value(json_object_get(model, "unk_token"));
    SNRQ_TRY(read_normalizer(where, json_object_get(root, "normalizer"), out));
    SNRQ_TRY(read_pre_tokenizer(where, root, out));
    for (size_t i = 0; (s = step(post, "processors", i)) != NULL; i++) {
        if (strcmp(type_of(s), "TemplateProcessing") == 0)
            SNRQ_TRY(read_template(where, s, out));
        else if (strcmp(type_of(s), "ByteLevel") != 0)
            return refuse(where, "post_processor", type_of(s), "TemplateProcessing, ByteLevel");
    }
    return SNRQ_OK;
}
