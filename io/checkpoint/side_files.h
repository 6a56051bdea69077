/* What a model directory holds besides weights, as far as it is carried along. */
#ifndef SNRQ_SIDE_FILES_H
#define SNRQ_SIDE_FILES_H

#include "mpi/status.h"

#define SNRQ_CHAT_TEMPLATES "additional_chat_templates"

/* Names, relative to `directory`, of the files there that are carried along: config.json first,
 * generation_config.json, the tokenizer's files, chat templates, at last
 * additional_chat_templates/NAME.jinja in order of name. *names [*count] is allocated, every name
 * too; release with snrq_names_free(). Not collective. */
snrq_status snrq_side_files(const char *directory, char ***names, int *count);

#endif
