/* Parsing of the command line, and the stored configuration; see options.h. */
#include "pipeline/options/options.h"

#include <getopt.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "mpi/algebra/kernels.h"
#include "pipeline/export/settings.h"
#include "pipeline/options/effects.h"
#include "pipeline/options/file.h"
#include "pipeline/options/help.h"
#include "pipeline/options/preset.h"
#include "pipeline/options/row.h"
#include "pipeline/options/table.h"

static const snrq_option_row *const table = snrq_option_table;
/* What --paper means, but for what is given. */
static const struct {
    const char *name, *value;
} paper[] = {
    {"grid", "minmax"}, {"groups", "permuted"}, {"refine", "0"},       {"regrid", "0"},
    {"shrink", "0"},    {"compensate", "0"},    {"first-tokens", "0"}, {"scale-signs", "positive"}};
enum { PAPER = sizeof paper / sizeof *paper };

enum { NOT_GIVEN = 0, COMMAND_LINE = -1 };
typedef int
    given_rows[SNRQ_MOST_OPTIONS]; /* where a row was given: a line of the file, or one of these */

static snrq_status set_unless_given(const given_rows given, const char *name, const char *value,
                                    snrq_options *o)
{
    for (int row = 0; row < snrq_option_rows; row++)
        if (given[row] == NOT_GIVEN && strcmp(table[row].name, name) == 0)
            return snrq_option_set(&table[row], value, o);
    return SNRQ_OK;
}

/* --baseline-grid: what it stands for, unless something else was given, which is refused. */
static snrq_status apply_baseline(const given_rows given, snrq_options *o)
{
    static const struct {
        const char *name, *value;
    } baseline[] = {{"grid", "minmax"}, {"refine", "0"},     {"regrid", "0"},      {"damp", "0.01"},
                    {"shrink", "0"},    {"compensate", "0"}, {"first-tokens", "0"}};
    char room[SNRQ_OPTION_VALUE];
    for (size_t i = 0; i < sizeof baseline / sizeof *baseline && o->baseline_grid; i++)
        for (int row = 0; row < snrq_option_rows; row++) {
            if (strcmp(table[row].name, baseline[i].name) != 0) continue;
            const char *value = snrq_option_value(&table[row], o, room);
            if (given[row] != NOT_GIVEN && strcmp(value, baseline[i].value) != 0)
                return snrq_fail(SNRQ_USAGE,
                                 "--baseline-grid stands for --%s %s, found also --%s %s: leave "
                                 "one of them out",
                                 baseline[i].name, baseline[i].value, baseline[i].name, value);
            SNRQ_TRY(snrq_option_set(&table[row], baseline[i].value, o));
        }
    return SNRQ_OK;
}

/* The baselines do what their papers do; scales from the range of the weights stay as they are.
 */
static snrq_status apply_exceptions(const given_rows given, snrq_options *o)
{
    bool baseline = o->method != SNRQ_SNRQ && o->method != SNRQ_KSNRQ;
    if (o->baseline_grid) return apply_baseline(given, o);
    for (int i = 0; i < PAPER && o->paper; i++)
        SNRQ_TRY(set_unless_given(given, paper[i].name, paper[i].value, o));
    for (int i = 0; i < SNRQ_OPTION_EXCEPTIONS; i++) {
        bool applies = baseline || (i == SNRQ_EXCEPTION_FIRST_TOKENS && o->bits > 2) ||
                       (i == SNRQ_EXCEPTION_REGRID && o->grid != SNRQ_QUANT_GRID_HESSIAN) ||
                       ((i == SNRQ_EXCEPTION_SHRINK || i == SNRQ_EXCEPTION_SIGNS) &&
                        o->command == SNRQ_COMMAND_ROUND);
        if (applies)
            SNRQ_TRY(set_unless_given(given, snrq_option_exceptions[i].name,
                                      snrq_option_exceptions[i].otherwise, o));
    }
    return SNRQ_OK;
}

static bool is_given(const given_rows given, const char *name)
{
    for (int row = 0; row < snrq_option_rows; row++)
        if (given[row] != NOT_GIVEN && strcmp(table[row].name, name) == 0) return true;
    return false;
}

/* The names of --format behind those of the table of formats are widths: int2 is --bits 2. */
static snrq_status apply_width(const given_rows given, snrq_options *o)
{
    if (o->weight_format < SNRQ_WEIGHT_FORMATS) return SNRQ_OK;
    const int64_t bits = 2 + o->weight_format - SNRQ_WEIGHT_FORMATS;
    const char *other = o->preset >= 0            ? "--preset"
                        : o->target_bits > 0.0    ? "--target-bits"
                        : o->target_bytes > 0     ? "--target-size"
                        : is_given(given, "bits") ? "--bits"
                                                  : NULL;
    if (other != NULL && (strcmp(other, "--bits") != 0 || o->bits != bits))
        return snrq_fail(SNRQ_USAGE,
                         "--format int%lld says --bits %lld, and %s says something else; leave one "
                         "of the two out",
                         (long long)bits, (long long)bits, other);
    o->bits = bits;
    o->weight_format = -1;
    return SNRQ_OK;
}

static snrq_status parse_alpha(snrq_options *o)
{
    bool is_fixed = o->command == SNRQ_COMMAND_ROUND || o->paper || o->baseline_grid;
    if (o->alpha_text == NULL)
        o->alpha_text = o->method == SNRQ_GPTAQ ? "fixed:0.25" : is_fixed ? "fixed:0.5" : "auto";
    SNRQ_TRY(snrq_option_alpha(o->alpha_text, &o->alpha_mode, &o->alpha_value));
    if (o->method != SNRQ_GPTAQ || o->alpha_mode == SNRQ_ALPHA_FIXED ||
        o->alpha_mode == SNRQ_ALPHA_SAMPLED)
        return SNRQ_OK;
    return snrq_fail(SNRQ_USAGE, "--alpha %s: gptaq takes fixed:V or sampled:B", o->alpha_text);
}

static snrq_status parse_factor_grid(snrq_options *o)
{
    char rest;
    if (o->factor_grid_text == NULL) return SNRQ_OK;
    if (sscanf(o->factor_grid_text, "%4dx%4d%c", &o->factor_rows, &o->factor_columns, &rest) != 2 ||
        o->factor_rows < 1 || o->factor_columns < 1)
        return snrq_fail(SNRQ_USAGE, "--factor-grid: expected ROWSxCOLUMNS such as 2x4, found '%s'",
                         o->factor_grid_text);
    return SNRQ_OK;
}

static snrq_status parse_redo(snrq_options *o)
{
    char rest;
    long long block = -1;
    o->redo = -1;
    if (o->redo_text == NULL) return SNRQ_OK;
    if (sscanf(o->redo_text, "%9lld%c", &block, &rest) != 1 || block < 0)
        return snrq_fail(SNRQ_USAGE,
                         "--redo: expected the number of a block, such as 3 for block-00003.h5, "
                         "found '%s'",
                         o->redo_text);
    o->redo = block;
    return SNRQ_OK;
}

/* One option as --options reads it; a comment where it has no value or no effect. */
static snrq_status print_value(FILE *f, const snrq_option_row *row, const snrq_options *o)
{
    char room[SNRQ_OPTION_VALUE], *quoted = NULL;
    const snrq_option_idle *idle = snrq_option_find_idle(o, row->name);
    if (idle != NULL && idle->instead == NULL) {
        fprintf(f, "# --%s: %s\n", row->name, idle->reason);
        return SNRQ_OK;
    }
    if (!snrq_option_has_value(row, o)) {
        fprintf(f, "# --%s%s%s\n", row->name, row->unit ? " " : "", row->unit ? row->unit : "");
        return SNRQ_OK;
    }
    if (row->kind == FLAG) {
        fprintf(f, "--%s\n", row->name);
        return SNRQ_OK;
    }
    for (int i = 0; i < (row->kind == TEXTS ? o->texts.count : 1); i++) {
        const char *value = row->kind == TEXTS ? o->texts.path[i] : snrq_option_value(row, o, room);
        SNRQ_TRY(snrq_allocate(2 * strlen(value) + 4, 1, "option", &quoted));
        fprintf(f, "--%s %s\n", row->name, snrq_option_file_quote(value, quoted));
        free(quoted);
    }
    return SNRQ_OK;
}

static snrq_status print_options(const snrq_command_row *command, const snrq_options *o,
                                 char **text)
{
    size_t bytes = 0;
    FILE *f = open_memstream(text, &bytes);
    if (f == NULL) return snrq_fail(SNRQ_INTERNAL, "cannot allocate the list of options");
    fprintf(f, "# snrq %s %s: options, as --options FILE reads them\n", command->name,
            command->argument);
    snrq_status status = SNRQ_OK;
    for (int i = 0; i < snrq_option_rows && status == SNRQ_OK; i++)
        if ((table[i].commands & (unsigned)command->command) != 0 &&
            table[i].field != offsetof(snrq_options, options_file) &&
            table[i].field != offsetof(snrq_options, print_options))
            status = print_value(f, &table[i], o);
    if (fclose(f) != 0 && status == SNRQ_OK)
        status = snrq_fail(SNRQ_INTERNAL, "cannot allocate the list of options");
    if (status != SNRQ_OK) free(*text);
    if (status != SNRQ_OK) *text = NULL;
    return status;
}

static snrq_status check_evaluation(const snrq_options *o)
{
    if (o->text != NULL && o->token_file != NULL)
        return snrq_fail(SNRQ_USAGE, "evaluate: give either --text TEXT or --token-file FILE");
    if (o->text == NULL && o->token_file == NULL && o->tasks == NULL)
        return snrq_fail(SNRQ_USAGE,
                         "evaluate: give either --text TEXT or --token-file FILE, or --tasks");
    if (o->tasks != NULL && o->task_dir == NULL)
        return snrq_fail(SNRQ_USAGE,
                         "evaluate: --tasks needs --task-dir DIR, where their files are");
    return SNRQ_OK;
}

static snrq_status check_budget(const snrq_options *o)
{
    const bool bits = o->target_bits > 0.0, size = o->target_bytes > 0;
    if (bits && size)
        return snrq_fail(SNRQ_USAGE, "quantize: --target-bits and --target-size contradict each "
                                     "other; leave out one");
    if ((bits || size) && o->recipe != NULL)
        return snrq_fail(SNRQ_USAGE, "quantize: a budget makes a recipe; leave out --recipe or %s",
                         bits ? "--target-bits" : "--target-size");
    if ((bits || size) && o->weight_format >= 0)
        return snrq_fail(SNRQ_USAGE, "quantize: a budget chooses bits, and --format has its own; "
                                     "leave one of the two out; --formats names several to choose "
                                     "among");
    if (o->preset >= 0 &&
        (bits || size || o->recipe != NULL || o->weight_format >= 0 || o->table_format >= 0))
        return snrq_fail(SNRQ_USAGE, "quantize: --preset has a type for every module; leave out %s",
                         bits                    ? "--target-bits"
                         : size                  ? "--target-size"
                         : o->recipe != NULL     ? "--recipe"
                         : o->weight_format >= 0 ? "--format"
                                                 : "--table-format");
    if ((bits || size) && o->assessment == NULL && o->dry_run)
        return snrq_fail(SNRQ_USAGE,
                         "quantize: a plan of %s needs --assessment FILE: assessment.json of `snrq "
                         "assess MODEL --calibration TEXT -o DIR` with the same options; a run "
                         "makes one",
                         bits ? "--target-bits" : "--target-size");
    if (!bits && !size && (o->assessment != NULL || o->formats_text != NULL))
        return snrq_fail(SNRQ_USAGE, "quantize: --%s is for --target-bits and --target-size%s",
                         o->assessment != NULL ? "assessment" : "formats",
                         o->assessment != NULL ? "" : "; one for all modules is --format");
    return SNRQ_OK;
}

/* What the command cannot do without. */
static snrq_status check_required(const snrq_command_row *command, const snrq_options *o)
{
    if (o->path == NULL)
        return snrq_fail(SNRQ_USAGE, "%s: expected %s, found nothing; example: %s", command->name,
                         command->argument, command->example);
    if (o->command == SNRQ_COMMAND_QUANTIZE) {
        if (o->output == NULL && !o->dry_run)
            return snrq_fail(SNRQ_USAGE, "quantize: -o OUT is missing; example: %s",
                             command->example);
        if (o->output == NULL && o->redo >= 0)
            return snrq_fail(SNRQ_USAGE, "quantize: --redo needs -o OUT, the run to mend");
        if (o->plan_nodes > (o->plan_ranks > 0 ? o->plan_ranks : o->plan_nodes))
            return snrq_fail(SNRQ_USAGE,
                             "quantize: --plan-nodes %lld is more than --plan-ranks %lld",
                             (long long)o->plan_nodes, (long long)o->plan_ranks);
        if ((o->calibration == NULL) == (o->token_file == NULL))
            return snrq_fail(SNRQ_USAGE,
                             "quantize: give either --calibration TEXT or --token-file FILE");
        SNRQ_TRY(check_budget(o));
    }
    if (o->command == SNRQ_COMMAND_ASSESS) {
        if (o->output == NULL)
            return snrq_fail(SNRQ_USAGE, "assess: -o DIR is missing; example: %s",
                             command->example);
        if ((o->calibration == NULL) == (o->token_file == NULL))
            return snrq_fail(SNRQ_USAGE,
                             "assess: give either --calibration TEXT or --token-file FILE");
    }
    if (o->command == SNRQ_COMMAND_SENSITIVITY) {
        if (o->output == NULL)
            return snrq_fail(SNRQ_USAGE, "sensitivity: -o FILE is missing; example: %s",
                             command->example);
        if ((o->calibration == NULL) == (o->token_file == NULL))
            return snrq_fail(SNRQ_USAGE,
                             "sensitivity: give either --calibration TEXT or --token-file FILE");
    }
    if (o->command == SNRQ_COMMAND_RUNS && o->output == NULL)
        return snrq_fail(SNRQ_USAGE, "runs: -o ROOT is missing; example: %s", command->example);
    if (o->command == SNRQ_COMMAND_EXPORT && (o->output == NULL || o->format < 0))
        return snrq_fail(SNRQ_USAGE, "export: %s is missing; example: %s",
                         o->output == NULL ? "-o DIR" : "--format F", command->example);
    if (o->command == SNRQ_COMMAND_EVALUATE) SNRQ_TRY(check_evaluation(o));
    if (o->command == SNRQ_COMMAND_TOKENIZE) {
        if ((o->text == NULL) == (o->decode == NULL))
            return snrq_fail(SNRQ_USAGE, "tokenize: give either --text TEXT or --decode IDS");
        if (o->output == NULL)
            return snrq_fail(SNRQ_USAGE, "tokenize: -o OUT is missing; example: %s",
                             command->example);
    }
    return SNRQ_OK;
}

/* ---- parsing ---- */

typedef struct parser {
    const snrq_command_row *command;
    snrq_options *options;
    given_rows given;
    bool help;
} parser;

static const char *place(const parser *p, int line, char *out, size_t size)
{
    if (line == COMMAND_LINE) return "on the command line";
    snprintf(out, size, "in %s, line %d", p->options->options_file, line);
    return out;
}

/* Texts may be given several times, in one place: their order counts. */
static bool is_next_text(const parser *p, int row, int line)
{
    return table[row].kind == TEXTS && (p->given[row] == COMMAND_LINE) == (line == COMMAND_LINE);
}

/* Not twice, and no other option for the same thing. `line` is where the row is given now. */
static snrq_status check_once(const parser *p, int row, int line)
{
    char before[512], now[512];
    for (int i = 0; i < snrq_option_rows; i++) {
        if (p->given[i] == NOT_GIVEN || table[i].field != table[row].field) continue;
        if (i == row && is_next_text(p, row, line)) continue;
        if (i == row && line == COMMAND_LINE)
            return snrq_fail(SNRQ_USAGE,
                             "%s: --%s is given twice; leave out the one that is not meant",
                             p->command->name, table[row].name);
        const char *first = place(p, p->given[i], before, sizeof before);
        const char *second = place(p, line, now, sizeof now);
        if (i == row)
            return snrq_fail(SNRQ_USAGE, "%s: --%s is given twice, %s and %s; %s", p->command->name,
                             table[row].name, first, second,
                             table[row].kind == TEXTS ? "give all of them in one place"
                                                      : "leave out the one that is not meant");
        return snrq_fail(SNRQ_USAGE, "%s: --%s (%s) and --%s (%s) contradict each other",
                         p->command->name, table[i].name, first, table[row].name, second);
    }
    return SNRQ_OK;
}

static bool belongs(const parser *p, int row)
{
    return (table[row].commands & (unsigned)p->command->command) != 0;
}

/* Commands may mean different things by an option: rows of one name, one after the other. */
static bool same_name(int a, int b)
{
    return strcmp(table[a].name, table[b].name) == 0;
}

/* A row of the command, with its value (borrowed; NULL: none). */
static snrq_status take(parser *p, int row, const char *value, int line)
{
    if (!belongs(p, row))
        return snrq_fail(SNRQ_USAGE, "%s: --%s does not belong to this command; `snrq %s --help`",
                         p->command->name, table[row].name, p->command->name);
    SNRQ_TRY(check_once(p, row, line));
    SNRQ_TRY(snrq_option_set(&table[row], value, p->options));
    p->given[row] = line;
    return SNRQ_OK;
}

static snrq_status parse_arguments(parser *p, int argc, char **argv)
{
    const char *command = p->command->name;
    struct option longs[SNRQ_MOST_OPTIONS + 2];
    char shorts[8 + 2 * SNRQ_MOST_OPTIONS] = ":h";
    memset(longs, 0, sizeof longs);
    for (int i = 0; i < snrq_option_rows; i++) {
        int argument = table[i].kind == FLAG ? no_argument : required_argument;
        longs[i] = (struct option){table[i].name, argument, NULL, 1000 + i};
        if (table[i].letter != 0)
            snprintf(shorts + strlen(shorts), 4, "%c%s", table[i].letter, argument ? ":" : "");
    }
    longs[snrq_option_rows] = (struct option){"help", no_argument, NULL, 'h'};
    optind = 1;
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, shorts, longs, NULL)) != -1;) {
        if (c == 'h') {
            p->help = true;
            return SNRQ_OK;
        }
        if (c == ':')
            return snrq_fail(SNRQ_USAGE, "%s: option %s needs a value", command, argv[optind - 1]);
        int row = c - 1000;
        while (row >= 0 && row + 1 < snrq_option_rows && !belongs(p, row) &&
               same_name(row, row + 1))
            row++;
        for (int i = 0; i < snrq_option_rows && row < 0; i++)
            if (table[i].letter == (char)c && c != '?') row = i;
        if (c == '?' || row < 0)
            return snrq_fail(SNRQ_USAGE, "%s: unknown option %s; `snrq %s --help` lists them",
                             command, argv[optind - 1], command);
        SNRQ_TRY(take(p, row, optarg, COMMAND_LINE));
    }
    if (optind < argc) p->options->path = argv[optind++];
    if (optind < argc)
        return snrq_fail(SNRQ_USAGE, "%s: expected one %s, found also '%s'%s", command,
                         p->command->argument, argv[optind],
                         p->options->texts.count > 0
                             ? "; each of several texts needs its own --calibration or --text"
                             : "");
    return SNRQ_OK;
}

/* Row of "--bits" or "-o", or -1. */
static int find_row(const parser *p, const char *name)
{
    for (int i = 0; i < snrq_option_rows; i++) {
        if (i + 1 < snrq_option_rows && !belongs(p, i) && same_name(i, i + 1)) continue;
        bool is_long = strncmp(name, "--", 2) == 0 && strcmp(name + 2, table[i].name) == 0;
        bool is_short = table[i].letter != 0 && name[1] == table[i].letter && name[2] == '\0';
        if (is_long || is_short) return i;
    }
    return -1;
}

static snrq_status take_line(parser *p, const snrq_option_line *line)
{
    char shown[SNRQ_SHOWN];
    int row = find_row(p, line->name);
    if (row < 0)
        return snrq_fail(SNRQ_USAGE, "unknown option %s; `snrq %s --help` lists them",
                         snrq_shown(line->name, shown), p->command->name);
    if (table[row].field == offsetof(snrq_options, options_file) ||
        table[row].field == offsetof(snrq_options, print_options))
        return snrq_fail(SNRQ_USAGE, "--%s belongs on the command line", table[row].name);
    if (table[row].kind == FLAG && line->value != NULL)
        return snrq_fail(SNRQ_USAGE, "--%s takes no value, found '%s'", table[row].name,
                         snrq_shown(line->value, shown));
    if (table[row].kind != FLAG && line->value == NULL)
        return snrq_fail(SNRQ_USAGE, "option %s needs a value", line->name);
    return take(p, row, line->value, line->number);
}

static snrq_status parse_file(parser *p)
{
    snrq_options *o = p->options;
    const char *path = o->options_file;
    snrq_option_line line;
    bool found = true;
    int number = 0;
    if (path == NULL) return SNRQ_OK;
    SNRQ_TRY(snrq_option_file_read(path, &o->file_text));
    for (char *at = o->file_text;;) {
        SNRQ_TRY(snrq_option_file_next(path, &at, &number, &line, &found));
        if (!found) return SNRQ_OK;
        snrq_status status = take_line(p, &line);
        if (status != SNRQ_OK)
            return snrq_fail(status, "%s: line %d: %s", path, number, snrq_error_message());
    }
}

/* ---- what follows from what was given ---- */

/* Refuses what was given in vain, unless it says what is done anyway. */
static snrq_status check_effects(const parser *p)
{
    const snrq_options *o = p->options;
    char room[SNRQ_OPTION_VALUE];
    for (int i = 0; i < snrq_option_rows; i++) {
        if (p->given[i] == NOT_GIVEN) continue;
        const snrq_option_idle *idle = snrq_option_find_idle(o, table[i].name);
        if (idle == NULL) continue;
        const char *value = snrq_option_value(&table[i], o, room);
        if (idle->instead != NULL && strcmp(value, idle->instead) == 0) continue;
        return snrq_fail(SNRQ_USAGE, "%s: --%s %s has no effect here: %s; leave it out",
                         p->command->name, table[i].name, value, idle->reason);
    }
    return SNRQ_OK;
}

/* Options without effect say what is done. */
static snrq_status settle(snrq_options *o)
{
    if (o->preset >= 0)
        o->weight_format = (int64_t)(snrq_preset_format((int)o->preset) - snrq_weight_formats);
    if (o->weight_format >= 0) {
        const snrq_weight_format *f = &snrq_weight_formats[o->weight_format];
        o->bits = f->bits;
        o->group_size = f->group;
        o->asymmetric = !snrq_weight_format_symmetric(f);
        o->scale_type = snrq_weight_format_scale_type(f);
    }
    for (int i = 0; i < snrq_option_rows; i++) {
        const snrq_option_idle *idle = (table[i].commands & (unsigned)o->command) != 0
                                           ? snrq_option_find_idle(o, table[i].name)
                                           : NULL;
        if (idle != NULL && idle->instead != NULL)
            SNRQ_TRY(snrq_option_set(&table[i], idle->instead, o));
    }
    return SNRQ_OK;
}

static snrq_status set_defaults(snrq_options *o)
{
    memset(o, 0, sizeof *o);
    o->format = -1;
    o->weight_format = -1;
    o->table_format = -1;
    o->preset = -1;
    o->engine = -1;
    for (int i = 0; i < snrq_option_rows; i++)
        if (table[i].fallback != NULL) SNRQ_TRY(snrq_option_set(&table[i], table[i].fallback, o));
    return SNRQ_OK;
}

static snrq_status parse_command(parser *p, int argc, char **argv, char **text)
{
    snrq_options *o = p->options;
    SNRQ_TRY(parse_arguments(p, argc - 1, argv + 1));
    if (p->help) return snrq_help_make(p->command, text);
    SNRQ_TRY(parse_file(p));
    if (strcmp(p->command->name, "plan") == 0) o->plan = o->dry_run = true;
    SNRQ_TRY(apply_width(p->given, o));
    SNRQ_TRY(apply_exceptions(p->given, o));
    SNRQ_TRY(parse_alpha(o));
    SNRQ_TRY(parse_factor_grid(o));
    SNRQ_TRY(parse_redo(o));
    if (!o->print_options) SNRQ_TRY(check_required(p->command, o));
    SNRQ_TRY(check_effects(p));
    SNRQ_TRY(settle(o));
    return o->print_options ? print_options(p->command, o, text) : SNRQ_OK;
}

static snrq_status unknown_command(const char *name)
{
    char shown[SNRQ_SHOWN];
    return snrq_fail(
        SNRQ_USAGE,
        "unknown command '%s'; expected quantize, plan, sensitivity, assess, evaluate, inspect, "
        "verify, export, round, tokenize, status, report, runs or bench",
        snrq_shown(name, shown));
}

/* What `make` says of a command, or of all where `name` is NULL. */
static snrq_status
about_command(const char *name, snrq_status (*make)(const snrq_command_row *, char **), char **text)
{
    const snrq_command_row *command = name != NULL ? snrq_command_find(name) : NULL;
    return name != NULL && command == NULL ? unknown_command(name) : make(command, text);
}

snrq_status snrq_options_parse(int argc, char **argv, snrq_options *o, char **text)
{
    *text = NULL;
    SNRQ_TRY(set_defaults(o));
    if (argc < 2) {
        SNRQ_TRY(snrq_help_make(NULL, text));
        return snrq_fail(SNRQ_USAGE, "no command given; `snrq --help` lists them");
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0)
        return about_command(argv[2], snrq_help_make, text);
    if (strcmp(argv[1], "--version") == 0) return snrq_version_make(text);
    if (strcmp(argv[1], "--manual") == 0) return about_command(argv[2], snrq_manual_make, text);
    if (strcmp(argv[1], "--completion") == 0)
        return snrq_completion_make(argc > 2 ? argv[2] : "nothing", text);
    const snrq_command_row *command = snrq_command_find(argv[1]);
    if (command == NULL) return unknown_command(argv[1]);
    o->command = command->command;
    parser p = {.command = command, .options = o};
    return parse_command(&p, argc, argv, text);
}

bool snrq_options_make_sensitivity(const snrq_options *o)
{
    return o->sensitivity != NULL && strcmp(o->sensitivity, SNRQ_SENSITIVITY_AUTO) == 0;
}

int snrq_options_inputs(const snrq_options *o, const char *paths[SNRQ_MOST_INPUTS])
{
    const char *const others[] = {
        o->path,   o->reference,    o->token_file,
        o->decode, o->options_file, o->machine,
        o->recipe, o->assessment,   snrq_options_make_sensitivity(o) ? NULL : o->sensitivity};
    int count = 0;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) paths[count++] = others[i];
    for (int i = 0; i < o->texts.count; i++) paths[count++] = o->texts.path[i];
    return count;
}

void snrq_options_free(snrq_options *o)
{
    free(o->file_text);
    o->file_text = NULL;
}

/* ---- the stored configuration ---- */

static json_t *stored_value(const snrq_option_row *row, const snrq_options *o)
{
    const char *field = (const char *)o + row->field;
    const snrq_option_idle *idle = snrq_option_find_idle(o, row->name);
    char room[SNRQ_OPTION_VALUE];
    if (idle != NULL && idle->instead == NULL) return json_null();
    switch (row->kind) {
    case FLAG:
        return json_boolean(*(const bool *)(const void *)field);
    case SHARE:
        if (*(const double *)(const void *)field == SNRQ_AUTO) return json_string("auto");
        __attribute__((fallthrough));
    case TIME:
    case REAL:
        return json_real(*(const double *)(const void *)field);
    case GROUP:
        if (*(const int64_t *)(const void *)field == 0) return json_string("channel");
        return json_integer(*(const int64_t *)(const void *)field);
    case COUNT:
        if (*(const int64_t *)(const void *)field == 0) return json_string("auto");
        __attribute__((fallthrough));
    case SIZE:
    case INTEGER:
        return json_integer(*(const int64_t *)(const void *)field);
    case TEXT:
    case TEXTS:
    case CHOICE:
        return json_string(snrq_option_value(row, o, room));
    }
    return NULL;
}

json_t *snrq_options_stored(const snrq_options *o)
{
    json_t *object = json_object();
    for (int i = 0; i < snrq_option_rows && object != NULL; i++) {
        if (!table[i].stored || !(table[i].commands & (unsigned)o->command)) continue;
        if (table[i].kind == CHOICE && !snrq_option_has_value(&table[i], o)) continue;
        /* Outputs of older versions, which did not tune, say nothing of it. */
        if (table[i].field == offsetof(snrq_options, tune) && o->tune == 0) continue;
        if (json_object_set_new(object, table[i].name, stored_value(&table[i], o)) == 0) continue;
        json_decref(object);
        return NULL;
    }
    return object;
}

/* The value as it is typed; NULL: there is none, or none that can be typed. */
static const char *typed(const json_t *value, char room[SNRQ_OPTION_VALUE])
{
    if (json_is_string(value)) return json_string_value(value);
    if (json_is_integer(value))
        snprintf(room, SNRQ_OPTION_VALUE, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        snprintf(room, SNRQ_OPTION_VALUE, "%.17g", json_real_value(value));
    else
        return NULL;
    return room;
}

/* What was done before there were these options. */
static const struct {
    const char *name, *value;
} newer[] = {{"shrink", "0"},
             {"compensate", "0"},
             {"held-out", "0"},
             {"first-tokens", "0"},
             {"scale-signs", "positive"}};

snrq_status snrq_options_restore(const json_t *stored, snrq_options *o)
{
    char room[SNRQ_OPTION_VALUE];
    given_rows given = {NOT_GIVEN};
    SNRQ_TRY(set_defaults(o));
    o->command = SNRQ_COMMAND_QUANTIZE;
    for (size_t i = 0; i < sizeof newer / sizeof *newer; i++)
        SNRQ_TRY(set_unless_given(given, newer[i].name, newer[i].value, o));
    for (int i = 0; i < snrq_option_rows; i++) {
        if ((table[i].commands & (unsigned)o->command) == 0) continue;
        const json_t *value = json_object_get(stored, table[i].name);
        const char *text = typed(value, room);
        if (!table[i].stored || (table[i].kind == FLAG ? !json_is_true(value) : text == NULL))
            continue;
        SNRQ_TRY(snrq_option_set(&table[i], text, o));
        given[i] = COMMAND_LINE;
    }
    SNRQ_TRY(apply_width(given, o));
    SNRQ_TRY(apply_exceptions(given, o));
    SNRQ_TRY(parse_alpha(o));
    SNRQ_TRY(parse_redo(o));
    return settle(o);
}
