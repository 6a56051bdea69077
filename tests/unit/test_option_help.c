/* Help, manual pages and completion say of every option what the table has, and fit their forms. */
#include "pipeline/options/help.h"

#include <stdlib.h>
#include <string.h>

#include "tests/snrq_test.h"

static int count_of(const char *text, const char *word)
{
    int count = 0;
    for (const char *at = strstr(text, word); at != NULL; at = strstr(at + 1, word)) count++;
    return count;
}

/* How often an option begins a line of its own: behind six blanks, or its first letter. */
static int shown(const char *help, const char *name)
{
    char letter[64], alone[64];
    snprintf(letter, sizeof letter, "\n  -%c, --%s ", name[0], name);
    int count = count_of(help, letter);
    for (const char *end = " \n"; *end != '\0'; end++) {
        snprintf(alone, sizeof alone, "\n      --%s%c", name, *end);
        count += count_of(help, alone);
    }
    return count;
}

static void help_has_every_option_once_in_80_columns(void)
{
    for (int c = 0; c < snrq_command_rows; c++) {
        const snrq_command_row *command = &snrq_command_table[c];
        char *help = NULL;
        CU_ASSERT_EQUAL_FATAL(snrq_help_make(command, &help), SNRQ_OK);
        for (int i = 0; i < snrq_option_rows; i++) {
            const snrq_option_row *row = &snrq_option_table[i];
            int expected = (row->commands & (unsigned)command->command) != 0;
            for (int k = 0; k < snrq_option_rows; k++) /* of another command, under the same name */
                if (strcmp(snrq_option_table[k].name, row->name) == 0)
                    expected |= (snrq_option_table[k].commands & (unsigned)command->command) != 0;
            if (shown(help, row->name) != expected)
                fprintf(stderr, "%s: --%s\n", command->name, row->name);
            CU_ASSERT_EQUAL(shown(help, row->name), expected);
        }
        for (const char *line = help; *line != '\0'; line += strcspn(line, "\n") + 1) {
            size_t length = strcspn(line, "\n");
            bool example = strstr(line, "mpirun") == line + 2 || strstr(line, "snrq ") == line + 2;
            if (length > 80 && !example) fprintf(stderr, "%.*s\n", (int)length, line);
            CU_ASSERT_TRUE(length <= 80 || example);
        }
        free(help);
    }
}

static void manuals_have_every_option(void)
{
    for (int c = 0; c < snrq_command_rows; c++) {
        const snrq_command_row *command = &snrq_command_table[c];
        char *manual = NULL;
        int options = 0;
        CU_ASSERT_EQUAL_FATAL(snrq_manual_make(command, &manual), SNRQ_OK);
        for (int i = 0; i < snrq_option_rows; i++)
            options += (snrq_option_table[i].commands & (unsigned)command->command) != 0;
        CU_ASSERT_EQUAL(count_of(manual, "\n.TP\n.B "), options);
        CU_ASSERT_EQUAL(count_of(manual, "\n.SH NAME\n"), 1);
        CU_ASSERT_EQUAL(strncmp(manual, ".TH SNRQ", 8), 0);
        free(manual);
    }
}

static void the_overview_names_every_command(void)
{
    char *manual = NULL, *help = NULL, word[40];
    CU_ASSERT_EQUAL_FATAL(snrq_manual_make(NULL, &manual), SNRQ_OK);
    CU_ASSERT_EQUAL_FATAL(snrq_help_make(NULL, &help), SNRQ_OK);
    for (int c = 0; c < snrq_command_rows; c++) {
        snprintf(word, sizeof word, ".B snrq %s ", snrq_command_table[c].name);
        CU_ASSERT_EQUAL(count_of(manual, word), 1);
        snprintf(word, sizeof word, "\n  %s ", snrq_command_table[c].name);
        CU_ASSERT_EQUAL(count_of(help, word), 1);
    }
    free(manual);
    free(help);
}

static void completion_is_for_two_shells(void)
{
    char *text = NULL;
    CU_ASSERT_EQUAL(snrq_completion_make("bash", &text), SNRQ_OK);
    CU_ASSERT_PTR_NOT_NULL_FATAL(text);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "--method) COMPREPLY=($(compgen -W 'rtn ldlq gptq"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "quantize) options=' --output"));
    free(text);
    text = NULL;
    CU_ASSERT_EQUAL(snrq_completion_make("zsh", &text), SNRQ_OK);
    CU_ASSERT_PTR_NOT_NULL_FATAL(text);
    CU_ASSERT_EQUAL(strncmp(text, "#compdef snrq\n", 14), 0);
    free(text);
    text = NULL;
    CU_ASSERT_EQUAL(snrq_completion_make("fish", &text), SNRQ_USAGE);
}

int main(void)
{
    static const snrq_test tests[] = {
        SNRQ_TEST(help_has_every_option_once_in_80_columns),
        SNRQ_TEST(manuals_have_every_option),
        SNRQ_TEST(the_overview_names_every_command),
        SNRQ_TEST(completion_is_for_two_shells),
    };
    return snrq_run_tests("option help", tests, sizeof tests / sizeof *tests, 1);
}
