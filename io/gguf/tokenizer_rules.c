/* What stands around the vocabulary in tokenizer.json; see tokenizer_rules.h.
 *
 * llama.cpp does not read patterns from the file: it has a list of them under names. The
 * ones here are those of the supported model families. It does no Unicode normalization,
 * either: NFC is let pass, because it leaves almost all text as it is. */
#include "io/gguf/tokenizer_rules.h"

#include <string.h>

#include "io/json.h"

static const char space_character[] = "\xe2\x96\x81"; /* U+2581 */

/* Everything but the digits is the same in both. */
#define BEFORE_DIGITS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define AFTER_DIGITS "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
static const struct pattern {
    const char *pre, *text;
    bool ignore_merges; /* a word that is a token is not cut */
} patterns[] = {
    {"llama-bpe", BEFORE_DIGITS "\\p{N}{1,3}" AFTER_DIGITS, true},
    {"qwen2", BEFORE_DIGITS "\\p{N}" AFTER_DIGITS, false},
};
enum { PATTERNS = sizeof patterns / sizeof patterns[0] };

static snrq_status refuse(const char *where, const char *part, const char *found,
                          const char *possible)
{
    char shown[SNRQ_SHOWN];
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: %s \"%s\" cannot be expressed in a GGUF file (llama.cpp has: %s)", where,
                     part, snrq_shown(found, shown), possible);
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

static snrq_status read_pattern(const char *where, const json_t *root, const json_t *s,
                                snrq_tokenizer_rules *out)
{
    const char *text = json_string_value(json_object_get(json_object_get(s, "pattern"), "Regex"));
    bool ignore_merges;
    SNRQ_TRY(snrq_json_boolean(where, json_object_get(root, "model"), "ignore_merges", false,
                               &ignore_merges));
    for (int i = 0; i < PATTERNS && text != NULL; i++) {
        if (strcmp(text, patterns[i].text) != 0) continue;
        out->pre = patterns[i].pre;
        if (ignore_merges == patterns[i].ignore_merges) return SNRQ_OK;
        return refuse(where, "ignore_merges", ignore_merges ? "true" : "false",
                      ignore_merges ? "true with the pattern of Llama 3 only"
                                    : "true with the pattern of Llama 3");
    }
    return refuse(where, "pattern", text != NULL ? text : "", "those of Llama 3, Qwen 2 and GPT-2");
}

static snrq_status read_pre_tokenizer(const char *where, const json_t *root,
                                      snrq_tokenizer_rules *out)
{
    const json_t *s, *part = json_object_get(root, "pre_tokenizer");
    bool bytes = false;
    for (size_t i = 0; (s = step(part, "pretokenizers", i)) != NULL; i++) {
        const char *type = type_of(s);
        if (strcmp(type, "Metaspace") == 0) {
            SNRQ_TRY(read_metaspace(where, s, out));
        } else if (strcmp(type, "Split") == 0) {
            SNRQ_TRY(read_pattern(where, root, s, out));
        } else if (strcmp(type, "ByteLevel") == 0) {
            bool own_pattern;
            bytes = true;
            SNRQ_TRY(snrq_json_boolean(where, s, "add_prefix_space", true, &out->space_prefix));
            SNRQ_TRY(snrq_json_boolean(where, s, "use_regex", true, &own_pattern));
            if (own_pattern) out->pre = "gpt-2";
        } else {
            return refuse(where, "pre_tokenizer", type, "Metaspace, Split, ByteLevel");
        }
    }
    if (bytes == out->sentencepiece || (bytes && out->pre == NULL))
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: is neither a SentencePiece tokenizer (U+2581 for spaces) nor a "
                         "byte-level one with a pattern: llama.cpp has no other kinds",
                         where);
    if (!bytes) out->pre = "default";
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
