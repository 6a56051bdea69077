/* Help, manual pages, completion; see help.h. */
#include "pipeline/options/help.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/hdf5/start.h"
#include "mpi/algebra/kernels.h"

enum { WIDTH = 80, INDENT = 8, LEFT = 26 };

/* ---- topics ---- */

/* Options by what they are about, as --help and the manual pages show them; the common ones first.
 * Each option is in one of them (tests/unit/test_option_help.c). */
static const struct topic {
    const char *name;
    const char *options; /* names between blanks */
} topics[] = {
    {"input and output",
     " output calibration text reference token-file decode protocol tasks task-dir export "
     "weights embedding-type head zero-points for max-shard-size tokenizer logprobs samples "
     "data "},
    {"what is stored",
     " preset format bits group-size symmetric asymmetric groups scale-type table-format recipe "
     "target-bits target-size assessment widths group-sizes formats no-uniform alone "},
    {"how it is rounded", " method beam grid scale-signs alpha refine regrid order damp shrink "
                          "compensate paper baseline-grid "
                          "sensitivity tune expert-tokens expert-weights "},
    {"texts and windows",
     " sequences length seed windows sampling held-out first-tokens judged-windows "
     "judged-text text-key "
     "limit task-bos beyond-context "},
    {"ranks and time",
     " threads layer-groups factor-grid max-time watchdog keep-activations redo force-unlock "
     "ignore-memory pass-memory "},
    {"plans", " dry-run plan-ranks plan-nodes machine network "},
    {"checks and other forms", " strict ignore-unused-layers full json options print-options "},
};
enum { TOPICS = sizeof topics / sizeof topics[0] };

/* What an option means to a command, where the table speaks of several. */
static const struct meaning {
    const char *option;
    unsigned commands;
    const char *help;
} meanings[] = {
    {"output", SNRQ_COMMAND_QUANTIZE,
     "directory to write; an unfinished run that is there goes on"},
    {"output", SNRQ_COMMAND_ASSESS,
     "directory to write; an unfinished assessment that is there goes on"},
    {"output", SNRQ_COMMAND_ROUND, "safetensors file to write"},
    {"output", SNRQ_COMMAND_TOKENIZE, "file to write: token ids, or with --decode a text"},
    {"output", SNRQ_COMMAND_EXPORT, "directory to write, new or empty"},
    {"output", SNRQ_COMMAND_REPORT, "directory to write; files of an earlier report are replaced"},
    {"output", SNRQ_COMMAND_RUNS, "directory that the runs are laid out in"},
    {"output", SNRQ_COMMAND_BENCH, "file to write, for plan --machine"},
    {"output", SNRQ_COMMAND_SENSITIVITY, "HDF5 file to write"},
    {"text", SNRQ_COMMAND_EVALUATE,
     "held-out text (UTF-8), or JSON lines with {\"text\": \"...\"}; either may be gzip; may be "
     "given "
     "several times"},
    {"text", SNRQ_COMMAND_TOKENIZE,
     "text (UTF-8), or JSON lines with {\"text\": \"...\"}, either may be gzip, to become int32 "
     "little-endian token ids, with the special tokens that the model puts around a text"},
    {"json", SNRQ_COMMAND_QUANTIZE, "the plan as one JSON object on standard output"},
    {"json", ~(unsigned)SNRQ_COMMAND_QUANTIZE, "one JSON object on standard output"},
    {"tokenizer", SNRQ_COMMAND_EXPORT,
     "take the tokenizer, chat templates and generation_config.json from DIR instead"},
    {"tokenizer", SNRQ_COMMAND_VERIFY, "the export was made with --tokenizer DIR"},
};

static const char *help_of(const snrq_option_row *row, const snrq_command_row *command)
{
    for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++)
        if (strcmp(meanings[i].option, row->name) == 0 &&
            (meanings[i].commands & (unsigned)command->command) != 0)
            return meanings[i].help;
    return row->help;
}

static bool belongs(const snrq_option_row *row, const snrq_command_row *command)
{
    return (row->commands & (unsigned)command->command) != 0;
}

static const snrq_option_row *find_row(const snrq_command_row *command, const char *name,
                                       size_t length)
{
    for (int i = 0; i < snrq_option_rows; i++)
        if (belongs(&snrq_option_table[i], command) &&
            strlen(snrq_option_table[i].name) == length &&
            strncmp(snrq_option_table[i].name, name, length) == 0)
            return &snrq_option_table[i];
    return NULL;
}

/* Calls `show` for every option of a command, topic by topic, and `begin` before each topic. */
static void by_topic(FILE *f, const snrq_command_row *command, void (*begin)(FILE *, const char *),
                     void (*show)(FILE *, const snrq_option_row *, const snrq_command_row *))
{
    for (int t = 0; t < TOPICS; t++) {
        bool begun = false;
        for (const char *at = topics[t].options + 1; *at != '\0'; at += strcspn(at, " ") + 1) {
            const snrq_option_row *row = find_row(command, at, strcspn(at, " "));
            if (row == NULL) continue;
            if (!begun) begin(f, topics[t].name);
            begun = true;
            show(f, row, command);
        }
    }
}

/* Help, choices and default of an option, as one text. */
static void describe(const snrq_option_row *row, const snrq_command_row *command, char *out,
                     size_t size)
{
    size_t used;
    snprintf(out, size, "%s", help_of(row, command));
    used = strlen(out);
    if (row->choices != NULL)
        used += (size_t)snprintf(out + used, size - used, " (%s)", row->choices);
    if (row->fallback == NULL) return;
    used += (size_t)snprintf(out + used, size - used, " [%s", row->fallback);
    for (int i = 0; i < SNRQ_OPTION_EXCEPTIONS; i++)
        if (strcmp(snrq_option_exceptions[i].name, row->name) == 0)
            used += (size_t)snprintf(out + used, size - used, "; %s %s",
                                     snrq_option_exceptions[i].otherwise,
                                     snrq_option_exceptions[i].when);
    snprintf(out + used, size - used, "]");
}

/* ---- help ---- */

/* Words of `text` in lines that end before WIDTH; `column` is where the first one begins, the
 * others begin at `indent`. A word that is longer than a line stands alone; choices are cut behind
 * a
 * "|". */
static void put_wrapped(FILE *f, int column, int indent, const char *text)
{
    bool first = true;
    while (*text != '\0') {
        int length = (int)strcspn(text, " "), most = WIDTH - 1 - indent;
        if (length > most && memchr(text, '|', (size_t)most) != NULL)
            for (length = most; text[length - 1] != '|';) length--;
        if (!first && column + 1 + length >= WIDTH) {
            fprintf(f, "\n%*s", indent, "");
            column = indent;
            first = true;
        }
        fprintf(f, "%s%.*s", first ? "" : " ", length, text);
        column += length + !first;
        first = false;
        if (text[length] != ' ' && text[length] != '\0') column = WIDTH; /* the rest of choices */
        text += length;
        while (*text == ' ') text++;
    }
    fputc('\n', f);
}

static void begin_topic(FILE *f, const char *name)
{
    fprintf(f, "\n%s [default]:\n", name);
}

static void show_option(FILE *f, const snrq_option_row *row, const snrq_command_row *command)
{
    char left[64], letter[8] = "    ", text[2048];
    if (row->letter != 0) snprintf(letter, sizeof letter, "-%c, ", row->letter);
    int length = snprintf(left, sizeof left, "  %s--%s%s%s", letter, row->name,
                          row->unit ? " " : "", row->unit ? row->unit : "");
    describe(row, command, text, sizeof text);
    if (length > LEFT) {
        fprintf(f, "%s\n%*s", left, LEFT + 2, "");
    } else
        fprintf(f, "%-*s  ", LEFT, left);
    put_wrapped(f, LEFT + 2, LEFT + 2, text);
}

static const char states[] =
    "\nexit codes by state:\n"
    "   0  complete\n"
    "  69  starting, running: a process is at work\n"
    "  75  not started, stopped, killed: the same quantize command (again) goes on\n"
    "  76  hung: ended by the watchdog; the same command goes on\n"
    "  65  damaged: a committed file or a record is missing or was changed\n"
    "   N  failed: the exit code with which the run ended (64 to 74)\n"
    "  66  without a state: OUT is not there, no output of snrq, or cannot be read\n";

static const char codes[] =
    "exit codes: 0 complete, 64 usage, 65 bad input data, 66 missing input, 69 a run is at work "
    "(status), 70 internal error, 73 cannot write, 74 I/O error, 75 stopped on request (run again "
    "to go on), 76 hung (--watchdog)";

static void put_overview(FILE *f)
{
    fprintf(f,
            "snrq %s - distributed post-training quantization of large language models\n\n"
            "usage: [mpirun -n P] snrq COMMAND ARGUMENT [options]\n\ncommands:\n",
            SNRQ_VERSION);
    for (int i = 0; i < snrq_command_rows; i++) {
        fprintf(f, "  %-9s %-10s ", snrq_command_table[i].name, snrq_command_table[i].argument);
        put_wrapped(f, 23, 23, snrq_command_table[i].help);
    }
    fputc('\n', f);
    put_wrapped(
        f, 0, 0,
        "`snrq COMMAND --help` lists the options of a command, --version tells of what the "
        "program consists, --manual [COMMAND] writes a manual page, --completion bash|zsh a "
        "script for a shell.");
    put_wrapped(f, 0, 2, codes);
}

static void put_command(FILE *f, const snrq_command_row *command)
{
    char text[512];
    fprintf(f, "usage: [mpirun -n P] snrq %s %s [options]\n", command->name, command->argument);
    snprintf(text, sizeof text, "%s.", command->help);
    put_wrapped(f, 0, 0, text);
    by_topic(f, command, begin_topic, show_option);
    if (command->command == SNRQ_COMMAND_STATUS) fputs(states, f);
    fprintf(f, "\nexample:\n  %s\n", command->example);
}

static snrq_status finish(FILE *f, bool open)
{
    if (!open || fclose(f) != 0) return snrq_fail(SNRQ_INTERNAL, "cannot allocate a text");
    return SNRQ_OK;
}

snrq_status snrq_help_make(const snrq_command_row *command, char **out)
{
    size_t bytes = 0;
    FILE *f = open_memstream(out, &bytes);
    if (f != NULL && command == NULL) put_overview(f);
    if (f != NULL && command != NULL) put_command(f, command);
    return finish(f, f != NULL);
}

/* ---- manual pages ---- */

/* A text in man(7): minus signs that can be copied, no line that is taken for a request. */
static void put_roff(FILE *f, const char *text)
{
    bool start = true;
    for (; *text != '\0'; text++) {
        if (start && (*text == '.' || *text == '\'')) fputs("\\&", f);
        start = *text == '\n';
        if (*text == '-')
            fputs("\\-", f);
        else if (*text == '\\')
            fputs("\\e", f);
        else
            fputc(*text, f);
    }
}

static void begin_section(FILE *f, const char *name)
{
    fputs(".SS ", f);
    put_roff(f, name);
    fputc('\n', f);
}

static void show_in_manual(FILE *f, const snrq_option_row *row, const snrq_command_row *command)
{
    char text[2048];
    fputs(".TP\n.B ", f);
    if (row->letter != 0) fprintf(f, "\\-%c, ", row->letter);
    fputs("\\-\\-", f);
    put_roff(f, row->name);
    if (row->unit != NULL) {
        fputs(" \\fI", f);
        put_roff(f, row->unit);
        fputs("\\fR", f);
    }
    fputc('\n', f);
    describe(row, command, text, sizeof text);
    put_roff(f, text);
    fputc('\n', f);
}

static void put_example(FILE *f, const char *example)
{
    fputs(".SH EXAMPLES\n.nf\n", f);
    for (const char *at = example; *at != '\0';) {
        size_t length = strcspn(at, "\n");
        char line[512];
        snprintf(line, sizeof line, "%.*s", (int)length, at);
        put_roff(f, line + strspn(line, " "));
        fputc('\n', f);
        at += length + (at[length] == '\n');
    }
    fputs(".fi\n", f);
}

static void put_manual(FILE *f)
{
    fprintf(f, ".TH SNRQ 1 \"\" \"snrq %s\" \"User Commands\"\n", SNRQ_VERSION);
    fputs(
        ".SH NAME\nsnrq \\- distributed post\\-training quantization of large language models\n"
        ".SH SYNOPSIS\n[\\fBmpirun \\-n\\fR \\fIP\\fR] \\fBsnrq\\fR \\fICOMMAND ARGUMENT\\fR "
        "[\\fIoptions\\fR]\n.SH DESCRIPTION\nsnrq stores the weights of the linear layers of a "
        "large language model in 2 to 8 bits, without retraining. It runs under MPI on any number "
        "of ranks and nodes, and writes the same bytes on any number. A run that was stopped or "
        "killed goes on with the same command.\n.SH COMMANDS\n",
        f);
    for (int i = 0; i < snrq_command_rows; i++) {
        const snrq_command_row *c = &snrq_command_table[i];
        fprintf(f, ".TP\n.B snrq %s \\fI%s\\fR\n", c->name, c->argument);
        put_roff(f, c->help);
        fprintf(f, ". See \\fBsnrq\\-%s\\fR(1).\n", c->name);
    }
    fputs(".SH EXIT STATUS\n", f);
    put_roff(f, codes + strlen("exit codes: "));
    fputs(".\n", f);
}

static void put_manual_of(FILE *f, const snrq_command_row *command)
{
    fputs(".TH SNRQ\\-", f);
    for (const char *c = command->name; *c != '\0'; c++) fputc(toupper((unsigned char)*c), f);
    fprintf(f, " 1 \"\" \"snrq %s\" \"User Commands\"\n.SH NAME\nsnrq\\-%s \\- ", SNRQ_VERSION,
            command->name);
    put_roff(f, command->help);
    fprintf(f,
            "\n.SH SYNOPSIS\n[\\fBmpirun \\-n\\fR \\fIP\\fR] \\fBsnrq %s\\fR \\fI%s\\fR "
            "[\\fIoptions\\fR]\n.SH OPTIONS\nDefaults are in brackets.\n",
            command->name, command->argument);
    by_topic(f, command, begin_section, show_in_manual);
    put_example(f, command->example);
    fputs(".SH EXIT STATUS\n", f);
    put_roff(f, command->command == SNRQ_COMMAND_STATUS
                    ? states + strlen("\nexit codes by state:\n")
                    : codes + strlen("exit codes: "));
    fputs("\n.SH SEE ALSO\n\\fBsnrq\\fR(1)\n", f);
}

snrq_status snrq_manual_make(const snrq_command_row *command, char **out)
{
    size_t bytes = 0;
    FILE *f = open_memstream(out, &bytes);
    if (f != NULL && command == NULL) put_manual(f);
    if (f != NULL && command != NULL) put_manual_of(f, command);
    return finish(f, f != NULL);
}

/* ---- completion ---- */

static void put_names(FILE *f, const snrq_command_row *command)
{
    for (int i = 0; i < snrq_option_rows; i++)
        if (belongs(&snrq_option_table[i], command)) fprintf(f, " --%s", snrq_option_table[i].name);
    fputs(" --help", f);
}

/* The words that an option takes, with blanks between them. */
static void put_choices(FILE *f, const char *choices)
{
    for (; *choices != '\0'; choices++) fputc(*choices == '|' ? ' ' : *choices, f);
}

static void put_bash(FILE *f)
{
    fputs("# Completion of snrq for bash; made by `snrq --completion bash`.\n"
          "_snrq() {\n"
          "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} options=\n"
          "    COMPREPLY=()\n"
          "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
          "        COMPREPLY=($(compgen -W '",
          f);
    for (int i = 0; i < snrq_command_rows; i++) fprintf(f, "%s ", snrq_command_table[i].name);
    fputs("--help --version' -- \"$word\"))\n        return\n    fi\n    case $before in\n", f);
    for (int i = 0; i < snrq_option_rows; i++) {
        if (snrq_option_table[i].choices == NULL) continue;
        fprintf(f, "    --%s) COMPREPLY=($(compgen -W '", snrq_option_table[i].name);
        put_choices(f, snrq_option_table[i].choices);
        fputs("' -- \"$word\")); return ;;\n", f);
    }
    fputs("    esac\n    case ${COMP_WORDS[1]} in\n", f);
    for (int i = 0; i < snrq_command_rows; i++) {
        fprintf(f, "    %s) options='", snrq_command_table[i].name);
        put_names(f, &snrq_command_table[i]);
        fputs("' ;;\n", f);
    }
    fputs("    esac\n"
          "    case $word in\n"
          "    -*) COMPREPLY=($(compgen -W \"$options\" -- \"$word\")) ;;\n"
          "    *) COMPREPLY=($(compgen -f -- \"$word\")) ;;\n"
          "    esac\n"
          "}\n"
          "complete -o filenames -F _snrq snrq\n",
          f);
}

static void put_zsh(FILE *f)
{
    fputs("#compdef snrq\n# Completion of snrq for zsh; made by `snrq --completion zsh`.\n"
          "local -a commands options\ncommands=(\n",
          f);
    for (int i = 0; i < snrq_command_rows; i++)
        fprintf(f, "    \"%s:%s\"\n", snrq_command_table[i].name, snrq_command_table[i].argument);
    fputs(")\nif (( CURRENT == 2 )); then\n    _describe command commands\n    return\nfi\n"
          "case $words[CURRENT-1] in\n",
          f);
    for (int i = 0; i < snrq_option_rows; i++) {
        if (snrq_option_table[i].choices == NULL) continue;
        fprintf(f, "--%s) compadd -- ", snrq_option_table[i].name);
        put_choices(f, snrq_option_table[i].choices);
        fputs("; return ;;\n", f);
    }
    fputs("esac\ncase $words[2] in\n", f);
    for (int i = 0; i < snrq_command_rows; i++) {
        fprintf(f, "%s) options=(", snrq_command_table[i].name);
        put_names(f, &snrq_command_table[i]);
        fputs(" ) ;;\n", f);
    }
    fputs("esac\nif [[ $PREFIX == -* ]]; then\n    compadd -- $options\nelse\n    _files\nfi\n", f);
}

snrq_status snrq_completion_make(const char *shell, char **out)
{
    size_t bytes = 0;
    bool bash = strcmp(shell, "bash") == 0;
    if (!bash && strcmp(shell, "zsh") != 0)
        return snrq_fail(SNRQ_USAGE, "--completion: expected bash or zsh, found '%s'", shell);
    FILE *f = open_memstream(out, &bytes);
    if (f != NULL && bash) put_bash(f);
    if (f != NULL && !bash) put_zsh(f);
    return finish(f, f != NULL);
}

/* ---- version ---- */

snrq_status snrq_version_make(char **out)
{
    char kernels[256], library[256], hdf5[32];
    size_t bytes = 0;
    FILE *f = open_memstream(out, &bytes);
    if (f == NULL) return finish(f, false);
    snrq_kernels_describe(kernels, sizeof kernels);
    snrq_mpi_library(library, sizeof library);
    snrq_hdf5_version(hdf5, sizeof hdf5);
    fprintf(f, "snrq %s\n%s\nMPI: %s\nHDF5: %s\ncompiler: %s\n", SNRQ_VERSION, kernels, library,
            hdf5,
#ifdef __clang__
            "clang " __clang_version__
#else
            "gcc " __VERSION__
#endif
    );
    return finish(f, true);
}
