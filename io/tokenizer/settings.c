/* tokenizer_config.json; see settings.h. */
#include "io/tokenizer/settings.h"

#include <limits.h>

#include "io/file.h"
#include "io/json.h"

enum { MAX_SETTINGS = 1 << 26 };

/* A token is its text, or an object with the text as "content". */
static const char *token_text(const json_t *root, const char *key)
{
    const json_t *token = json_object_get(root, key);
    return json_string_value(json_is_object(token) ? json_object_get(token, "content") : token);
}

static snrq_status read_flag(const char *where, const json_t *root, const char *key, snrq_flag *out)
{
    const json_t *value = json_object_get(root, key);
    bool on = false;
    *out = SNRQ_UNSAID;
    if (value == NULL || json_is_null(value)) return SNRQ_OK;
    SNRQ_TRY(snrq_json_boolean(where, root, key, false, &on));
    *out = on ? SNRQ_ON : SNRQ_OFF;
    return SNRQ_OK;
}

snrq_status snrq_tokenizer_settings_read(const char *directory, snrq_tokenizer_settings *out)
{
    char path[PATH_MAX];
    *out = (snrq_tokenizer_settings){.add_bos = SNRQ_UNSAID, .add_eos = SNRQ_UNSAID};
    SNRQ_TRY(snrq_path_join(directory, "tokenizer_config.json", path, sizeof path));
    snrq_status status = snrq_json_read(path, MAX_SETTINGS, &out->root);
    if (status == SNRQ_NO_INPUT) return SNRQ_OK;
    SNRQ_TRY(status);
    out->bos = token_text(out->root, "bos_token");
    out->eos = token_text(out->root, "eos_token");
    status = read_flag(path, out->root, "add_bos_token", &out->add_bos);
    if (status == SNRQ_OK) status = read_flag(path, out->root, "add_eos_token", &out->add_eos);
    if (status != SNRQ_OK) snrq_tokenizer_settings_free(out);
    return status;
}

void snrq_tokenizer_settings_free(snrq_tokenizer_settings *settings)
{
    json_decref(settings->root);
    *settings = (snrq_tokenizer_settings){.add_bos = SNRQ_UNSAID, .add_eos = SNRQ_UNSAID};
}
