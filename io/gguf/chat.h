/* Internal to tokenizer.c: the chat templates of a model as GGUF metadata. */
#ifndef SNRQ_GGUF_CHAT_H
#define SNRQ_GGUF_CHAT_H

#include "io/gguf/writer.h"
#include "io/tokenizer/settings.h"

/* Puts the model's chat templates: the default one as tokenizer.chat_template, another one as
 * tokenizer.chat_template.NAME with its name in the array tokenizer.chat_templates, sorted.
 *
 * They are where transformers looks for them, the first of: chat_template.jinja (the default one)
 * and additional_chat_templates/NAME.jinja; chat_template of tokenizer_config.json, a text or a
 * list of {"name", "template"}; chat_template of chat_template.json, a text or such a list.
 *
 * Not collective. SNRQ_BAD_DATA names the file, what was expected and what was found. */
snrq_status snrq_gguf_put_chat_templates(snrq_gguf_writer *writer, const char *directory,
                                         const snrq_tokenizer_settings *settings);

#endif
