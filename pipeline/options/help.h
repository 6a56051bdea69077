/* Texts made from the tables of options and commands: help, manual pages, completion, the version.
 * The caller frees *out. Not collective; fail only without memory, but for what is said. */
#ifndef SNRQ_OPTION_HELP_H
#define SNRQ_OPTION_HELP_H

#include "pipeline/options/table.h"

/* `snrq --help`, or of a command: lines of 80 columns, options by topic, the common ones first. */
snrq_status snrq_help_make(const snrq_command_row *command, char **out);

/* `snrq --manual [COMMAND]`: snrq(1), or the page of a command, in man(7). */
snrq_status snrq_manual_make(const snrq_command_row *command, char **out);

/* `snrq --completion bash|zsh`. SNRQ_USAGE for another shell. */
snrq_status snrq_completion_make(const char *shell, char **out);

/* `snrq --version`: and of what the program consists. */
snrq_status snrq_version_make(char **out);

#endif
