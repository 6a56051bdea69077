/* The tables of a report on a table of runs; see table_report.h. */
#include "pipeline/results/table_report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_VALUES = 16, WORDS = 600 };

/* ---- rows ---- */

static bool is_shown(const snrq_axis *axis)
{
    return axis->varies || strcmp(axis->name, "model") == 0 || strcmp(axis->name, "method") == 0;
}

static void add_row_columns(const snrq_outcome *o, snrq_sheet *s)
{
    for (int a = 0; a < o->axes; a++)
        if (is_shown(&o->axis[a])) snrq_sheet_column_add(s, o->axis[a].name, SNRQ_SHEET_TEXT);
}

static void add_row_cells(const snrq_outcome *o, const snrq_row_outcome *row, snrq_sheet *s)
{
    char text[SNRQ_OPTION_TEXT];
    for (int a = 0; a < o->axes; a++)
        if (is_shown(&o->axis[a])) snrq_sheet_text(s, snrq_row_option(row, o->axis[a].name, text));
}

/* "In all rows: bits 3, group-size 128." */
static void note_common(const snrq_outcome *o, snrq_sheet *s)
{
    char words[WORDS] = "", text[SNRQ_OPTION_TEXT];
    size_t used = 0;
    const snrq_row_outcome *row = NULL;
    for (int r = 0; r < o->rows && row == NULL; r++)
        if (!o->experiment->run[o->row[r].first].full) row = &o->row[r];
    for (int a = 0; a < o->axes && row != NULL && used < sizeof words; a++)
        if (!is_shown(&o->axis[a]))
            used +=
                (size_t)snprintf(words + used, sizeof words - used, "%s%s %s", used > 0 ? ", " : "",
                                 o->axis[a].name, snrq_row_option(row, o->axis[a].name, text));
    if (used > 0) snrq_sheet_note(s, "In all rows: %s.", words);
}

/* ---- which options differ ---- */

/* A value of an option, and who has it. */
typedef struct value_use {
    char value[SNRQ_OPTION_TEXT];
    char users[WORDS / 2];
} value_use;

static void add_user(value_use *use, const char *user)
{
    size_t used = strlen(use->users), length = strlen(user);
    const char *at = use->users;
    while ((at = strstr(at, user)) != NULL) {
        bool begins = at == use->users || at[-1] == ' ';
        if (begins && (at[length] == ',' || at[length] == '\0')) return;
        at++;
    }
    snprintf(use->users + used, sizeof use->users - used, "%s%s", used > 0 ? ", " : "", user);
}

/* Values of an option over all runs that were started, each with the methods that have it. */
static int collect_values(const snrq_outcome *o, const char *option, value_use uses[MOST_VALUES])
{
    char text[SNRQ_OPTION_TEXT], method[SNRQ_OPTION_TEXT];
    int count = 0;
    for (int r = 0; r < o->experiment->runs; r++) {
        const json_t *options = json_object_get(o->run[r].results.output.configuration, "options");
        const json_t *value = json_object_get(options, option);
        int at = 0;
        if (!o->run[r].there || value == NULL || json_is_null(value)) continue;
        snrq_option_text(value, text);
        while (at < count && strcmp(uses[at].value, text) != 0) at++;
        if (at == MOST_VALUES) continue;
        if (at == count) {
            uses[count] = (value_use){.users = ""};
            snprintf(uses[count++].value, sizeof uses->value, "%s", text);
        }
        add_user(&uses[at], snrq_option_text(json_object_get(options, "method"), method));
    }
    return count;
}

static bool is_axis(const snrq_outcome *o, const char *name)
{
    for (int a = 0; a < o->axes; a++)
        if (strcmp(o->axis[a].name, name) == 0) return true;
    return strcmp(name, "seed") == 0 || strcmp(name, "method") == 0;
}

/* The options of the first run that was started; all runs have the same names. */
static json_t *options_of_any(const snrq_outcome *o)
{
    for (int r = 0; r < o->experiment->runs; r++)
        if (o->run[r].there)
            return json_object_get(o->run[r].results.output.configuration, "options");
    return NULL;
}

static void note_differences(const snrq_outcome *o, snrq_sheet *s)
{
    char words[4 * WORDS] = "";
    size_t used = 0;
    const char *name;
    json_t *value;
    value_use *uses = calloc(MOST_VALUES, sizeof *uses);
    if (uses == NULL) s->failed = true;
    json_object_foreach(options_of_any(o), name, value)
    {
        int count = uses != NULL && !is_axis(o, name) ? collect_values(o, name, uses) : 0;
        for (int v = 0; v < count && count > 1 && used < sizeof words; v++)
            used += (size_t)snprintf(words + used, sizeof words - used, "%s%s%s%s (%s)",
                                     v == 0 && used > 0 ? "; " : "", v == 0 ? name : ", ",
                                     v == 0 ? " " : "", uses[v].value, uses[v].users);
    }
    free(uses);
    if (used > 0)
        snrq_sheet_note(s, "Options that differ between rows beyond the columns: %s.", words);
    else if (options_of_any(o) != NULL)
        snrq_sheet_note(s, "Beyond the columns, the options of all rows are the same.");
}

/* ---- quality ---- */

/* Ours is outside of what was published: further from its mean than its deviation, with what
 * rounding to these digits can hide. Without a deviation nothing can be said. */
static bool is_outside(const snrq_spread *ours, const snrq_spread *theirs, int digits)
{
    if (ours->count == 0 || theirs->count == 0 || isnan(theirs->sd)) return false;
    return fabs(ours->mean - theirs->mean) > theirs->sd + 0.5 * pow(10.0, -digits);
}

static bool has_published(const snrq_outcome *o, const char *name)
{
    for (int r = 0; r < o->rows; r++)
        if (snrq_row_published(&o->row[r], name).count > 0) return true;
    return false;
}

static int finished(const snrq_outcome *o, const snrq_row_outcome *row)
{
    int count = 0;
    for (int i = 0; i < row->runs; i++) count += o->run[row->run[i]].missing[0] == '\0';
    return count;
}

static void add_figure_columns(const snrq_outcome *o, snrq_sheet *s)
{
    char name[SNRQ_OPTION_TEXT + 16];
    for (int f = 0; f < o->experiment->figures; f++) {
        const char *figure = o->experiment->figure[f].name;
        snrq_sheet_column_add(s, figure, SNRQ_SHEET_SPREAD);
        snprintf(name, sizeof name, "%s published", figure);
        if (has_published(o, figure)) snrq_sheet_column_add(s, name, SNRQ_SHEET_SPREAD);
    }
}

static bool add_figure_cells(const snrq_outcome *o, const snrq_row_outcome *row, snrq_sheet *s)
{
    bool marked = false;
    for (int f = 0; f < o->experiment->figures; f++) {
        const snrq_table_figure *figure = &o->experiment->figure[f];
        const snrq_spread theirs = snrq_row_published(row, figure->name);
        bool outside = is_outside(&row->figure[f], &theirs, figure->digits);
        snrq_sheet_spread(s, &row->figure[f], figure->digits, outside);
        if (has_published(o, figure->name)) snrq_sheet_spread(s, &theirs, figure->digits, false);
        marked |= outside;
    }
    return marked;
}

/* What was published of rows that the table does not have: a slip in one of the two. */
static void note_unmatched(const snrq_outcome *o, snrq_sheet *s)
{
    const json_t *published;
    size_t i;
    int unmatched = 0;
    json_array_foreach((json_t *)(uintptr_t)o->experiment->published, i, published)
    {
        bool matched = false;
        for (int r = 0; r < o->rows; r++) matched |= o->row[r].published == published;
        unmatched += !matched;
    }
    if (unmatched > 0)
        snrq_sheet_note(s, "%d published rows belong to no row of this table.", unmatched);
}

static void report_quality(const snrq_outcome *o, snrq_document *d)
{
    snrq_sheet *s = snrq_document_sheet(d, "quality", "Quality: mean and standard deviation");
    char runs[32];
    bool marked = false;
    if (s == NULL) return;
    add_row_columns(o, s);
    snrq_sheet_column_add(s, "runs", SNRQ_SHEET_TEXT);
    add_figure_columns(o, s);
    for (int r = 0; r < o->rows; r++) {
        add_row_cells(o, &o->row[r], s);
        snprintf(runs, sizeof runs, "%d of %d", finished(o, &o->row[r]), o->row[r].runs);
        snrq_sheet_text(s, runs);
        marked |= add_figure_cells(o, &o->row[r], s);
    }
    note_common(o, s);
    note_differences(o, s);
    if (o->experiment->source[0] != '\0')
        snrq_sheet_note(s, "Published: %s", o->experiment->source);
    if (marked)
        snrq_sheet_note(s, "*: further from the published mean than the published deviation.");
    note_unmatched(o, s);
}

/* ---- cost ---- */

static void report_cost(const snrq_outcome *o, snrq_document *d)
{
    snrq_sheet *s = snrq_document_sheet(d, "cost", "Cost of the quantization");
    bool published = has_published(o, "seconds");
    if (s == NULL) return;
    add_row_columns(o, s);
    snrq_sheet_column_add(s, "seconds", SNRQ_SHEET_SPREAD);
    if (published) snrq_sheet_column_add(s, "seconds published", SNRQ_SHEET_SPREAD);
    snrq_sheet_column_add(s, "peak MB per rank", SNRQ_SHEET_SPREAD);
    snrq_sheet_column_add(s, "output MB", SNRQ_SHEET_SPREAD);
    for (int r = 0; r < o->rows; r++) {
        const snrq_row_outcome *row = &o->row[r];
        const snrq_spread theirs = snrq_row_published(row, "seconds");
        if (o->experiment->run[row->first].full) continue;
        add_row_cells(o, row, s);
        snrq_sheet_spread(s, &row->seconds, 1, false);
        if (published) snrq_sheet_spread(s, &theirs, 1, false);
        snrq_sheet_spread(s, &row->memory, 1, false);
        snrq_sheet_spread(s, &row->bytes, 2, false);
    }
    snrq_sheet_note(s, "Of complete runs. Seconds are those of the steps, without starts and "
                       "replays.");
    if (published)
        snrq_sheet_note(s, "Published seconds are of other machines: nothing is marked.");
}

/* Kinds of units of all runs, in order; borrowed. */
static int unit_kinds(const snrq_outcome *o, const char *kinds[MOST_VALUES])
{
    int count = 0;
    for (int r = 0; r < o->experiment->runs; r++)
        for (int64_t u = 0; u < o->run[r].results.units; u++) {
            const char *kind = o->run[r].results.unit[u].kind;
            int at = 0;
            while (at < count && strcmp(kinds[at], kind) != 0) at++;
            if (at == count && count < MOST_VALUES) kinds[count++] = kind;
        }
    return count;
}

static snrq_spread rounding_of(const snrq_outcome *o, const snrq_row_outcome *row, const char *kind)
{
    snrq_spread spread = {0};
    for (int i = 0; i < row->runs; i++) {
        const snrq_run *run = &o->run[row->run[i]].results;
        for (int64_t u = 0; u < run->units; u++)
            if (strcmp(run->unit[u].kind, kind) == 0 && !isnan(run->unit[u].rounding))
                snrq_spread_add(&spread, run->unit[u].rounding);
    }
    snrq_spread_close(&spread);
    return spread;
}

static void report_rounding(const snrq_outcome *o, snrq_document *d)
{
    const char *kinds[MOST_VALUES];
    int count = unit_kinds(o, kinds);
    snrq_sheet *s = count > 0 ? snrq_document_sheet(d, "rounding",
                                                    "Milliseconds to round the modules that share "
                                                    "an input, over layers and runs")
                              : NULL;
    if (s == NULL) return;
    snrq_document_detail(d);
    add_row_columns(o, s);
    for (int k = 0; k < count; k++) snrq_sheet_column_add(s, kinds[k], SNRQ_SHEET_SPREAD);
    snrq_sheet_column_add(s, "peak MB per rank", SNRQ_SHEET_SPREAD);
    for (int r = 0; r < o->rows; r++) {
        if (o->experiment->run[o->row[r].first].full) continue;
        add_row_cells(o, &o->row[r], s);
        for (int k = 0; k < count; k++) {
            const snrq_spread spread = rounding_of(o, &o->row[r], kinds[k]);
            snrq_sheet_spread(s, &spread, 1, false);
        }
        snrq_sheet_spread(s, &o->row[r].memory, 1, false);
    }
    snrq_sheet_note(s, "Factor, grid and search, on rank 0.");
}

/* ---- runs ---- */

static void report_missing(const snrq_outcome *o, snrq_document *d)
{
    int missing = 0;
    for (int r = 0; r < o->experiment->runs; r++) missing += o->run[r].missing[0] != '\0';
    if (missing == 0) {
        snrq_document_say(d, "All %d runs are there.", o->experiment->runs);
        return;
    }
    snrq_document_say(d, "%d of %d runs are there; see \"Missing\".", o->experiment->runs - missing,
                      o->experiment->runs);
    snrq_sheet *s = snrq_document_sheet(d, "missing", "Missing");
    if (s == NULL) return;
    snrq_sheet_column_add(s, "run", SNRQ_SHEET_TEXT);
    snrq_sheet_column_add(s, "what is missing", SNRQ_SHEET_TEXT);
    for (int r = 0; r < o->experiment->runs; r++) {
        if (o->run[r].missing[0] == '\0') continue;
        snrq_sheet_text(s, o->run[r].run->name);
        snrq_sheet_text(s, o->run[r].missing);
    }
}

static void report_runs(const snrq_outcome *o, snrq_document *d)
{
    snrq_sheet *s = snrq_document_sheet(d, "runs", "All runs");
    if (s == NULL) return;
    snrq_document_detail(d);
    snrq_sheet_column_add(s, "run", SNRQ_SHEET_TEXT);
    for (int f = 0; f < o->experiment->figures; f++)
        snrq_sheet_column_add(s, o->experiment->figure[f].name, SNRQ_SHEET_NUMBER);
    for (int r = 0; r < o->experiment->runs; r++) {
        snrq_sheet_text(s, o->run[r].run->name);
        for (int f = 0; f < o->experiment->figures; f++)
            snrq_sheet_number(s, o->run[r].figure[f], o->experiment->figure[f].digits + 2);
    }
}

snrq_status snrq_table_report(const snrq_outcome *o, snrq_document *d)
{
    const json_t *note;
    size_t i;
    snrq_document_create(o->experiment->title, d);
    json_array_foreach((json_t *)(uintptr_t)o->experiment->notes, i, note)
        snrq_document_say(d, "%s", json_string_value(note));
    report_quality(o, d);
    report_missing(o, d);
    report_cost(o, d);
    report_rounding(o, d);
    snrq_table_pictures(o, d);
    report_runs(o, d);
    snrq_document_close(d);
    return d->failed ? snrq_fail(SNRQ_INTERNAL, "no memory for the report") : SNRQ_OK;
}
