/* Bytes and messages of a unit; see traffic.h. */
#include "pipeline/traffic.h"

#include "mpi/algebra/gram.h"
#include "mpi/algebra/matrix.h"
#include "pipeline/rounding/gram_panel.h"
#include "pipeline/rounding/regrid.h"
#include "pipeline/rounding/row_feedback.h"
#include "pipeline/rounding/search.h"

enum {
    /* Columns that are brought below the same row: those of L in a search, and in all else. */
    NARROW = SNRQ_PANEL,
    WIDE = 2 * SNRQ_PANEL,
    /* Agreements of a unit, and sums of few numbers, counted by tests/network/count_messages.c. */
    GRAM_AGREEMENTS = 28,
    FACTOR_AGREEMENTS = 20,
    GRID_AGREEMENTS = 5,
    SEARCH_AGREEMENTS = 8,
    AGREEMENTS_OF_A_SEARCH = 7,
    SUMS_OF_A_MODULE = 6,
    /* And of a block. */
    READ_AGREEMENTS = 26,
    FORWARD_AGREEMENTS = 13,
    WRITE_AGREEMENTS = 40
};

static const double number = sizeof(double);

/* A unit, its rule, and the grid of its matrices. */
typedef struct sender {
    const snrq_rule *rule;
    const snrq_unit_shape *unit;
    double n, m;
    int rows, columns;
} sender;

/* Numbers on and below the diagonal of a matrix of order n, in panels of `width` columns that begin
 * with the panel's first row. */
static double lower(int64_t n, int64_t width)
{
    double numbers = 0.0;
    for (int64_t begin = 0; begin < n; begin += width)
        numbers += (double)((n - begin < width ? n - begin : width) * (n - begin));
    return numbers;
}

/* Panels of `width` columns of `bytes` in all, each from all process rows. */
static void send_panels(const sender *s, int64_t columns, int64_t width, double bytes,
                        snrq_traffic *t)
{
    double panels = (double)((columns + width - 1) / width);
    double straddles = s->columns > 1 && SNRQ_PANEL % width != 0 ? 1.5 : 1.0;
    t->sent += bytes;
    t->broadcasts += panels * s->rows * straddles;
}

static void add_up(double numbers, double calls, snrq_traffic *t)
{
    t->summed += number * numbers;
    t->sums += calls;
}

/* Norms of columns are sums of few numbers. */
static void gram(const sender *s, int64_t hidden, snrq_traffic *t)
{
    const int64_t n = s->unit->columns;
    t->agreements += GRAM_AGREEMENTS;
    add_up((double)snrq_gram_sums(n, n, true) + 2.0 * s->n, 1.0, t);
    if (!snrq_rule_needs_d(s->rule)) return;
    add_up((double)snrq_gram_sums(n, n, false) + 2.0 * s->n, 1.0, t);
    if (snrq_rule_needs_e(s->rule)) add_up((double)snrq_gram_sums(n, n, true), 1.0, t);
    if (hidden > 0) add_up((double)snrq_gram_sums(n, hidden, false) + 2.0 * (double)hidden, 1.0, t);
}

/* Squares of rows with H (and E), the factorization, W D, C, and the solution with L, twice. */
static void factor(const sender *s, int64_t hidden, snrq_traffic *t)
{
    const int64_t n = s->unit->columns;
    const double triangle = number * lower(n, WIDE);
    t->agreements += FACTOR_AGREEMENTS;
    add_up(3.0 * s->n, 0.0, t);
    if (s->rule->alpha_mode == SNRQ_ALPHA_CORR && snrq_rule_needs_d(s->rule))
        add_up(2.0 * (s->unit->end - s->unit->first) * s->m, 0.0, t);
    send_panels(s, n, NARROW, triangle, t);
    if (snrq_rule_needs_e(s->rule)) send_panels(s, n, NARROW, triangle, t);
    send_panels(s, n, WIDE, triangle, t);
    send_panels(s, 2, 1, 2.0 * number * s->n, t);
    if (!snrq_rule_shifts_target(s->rule)) return;
    send_panels(s, n, NARROW, number * s->n * s->n, t);
    send_panels(s, n, NARROW, triangle, t);
    send_panels(s, n, NARROW, triangle, t);
    if (hidden > 0) send_panels(s, hidden, NARROW, number * s->n * (double)hidden, t);
}

/* Do searches after the first have the panels of L still? (pipeline/rounding/rounding.c) */
static bool keeps_panels(const sender *s)
{
    double freed = number * s->n * s->n / (s->rows * s->columns);
    return snrq_rule_needs_d(s->rule) && s->rule->method != SNRQ_GPTAQ && s->rule->regrid > 0 &&
           (double)snrq_kept_panels_bytes(s->unit->columns) <= freed;
}

/* GPTQ reads L twice where it fits grids on the way; GPTAQ also A = D L^-T, which it makes. */
static void search_gptq(const sender *s, snrq_traffic *t)
{
    const int64_t n = s->unit->columns;
    const double triangle = number * lower(n, NARROW);
    bool refits = s->rule->permuted_groups && snrq_rule_groups(s->rule, n) > 1;
    for (int time = 0; time < (refits ? 2 : 1); time++) {
        send_panels(s, n, NARROW, triangle, t);
        if (s->rule->method == SNRQ_GPTAQ) send_panels(s, n, NARROW, triangle, t);
    }
    if (s->rule->method != SNRQ_GPTAQ) return;
    send_panels(s, n, WIDE, number * lower(n, WIDE), t);
    send_panels(s, n, WIDE, number * s->n * s->n, t);
}

static void search(const sender *s, snrq_traffic *t)
{
    const int64_t n = s->unit->columns;
    const snrq_rule *r = s->rule;
    const bool coupled = snrq_rule_couples_rows(r);
    const double groups = (double)snrq_rule_groups(r, n);
    const double rounds = coupled && r->regrid == 0 ? 1.0 : r->regrid;
    const double parts = coupled ? (double)SNRQ_TILE_ROWS / snrq_row_part(r->bits) : 1.0;
    const double searches = (coupled ? SNRQ_ROW_BLOCKS : 1.0) + parts * rounds;
    const double modules = s->unit->end - s->unit->first;
    const double panels = (double)((n + NARROW - 1) / NARROW);
    /* Passes through H, as fp32: refinement after each search, scales before each but the first. */
    double passes = searches * r->refine;
    if (r->refine == 0 && !coupled) passes += r->regrid;
    passes += parts * r->regrid * (double)snrq_regrid_parts(n, (int64_t)groups);
    t->agreements += SEARCH_AGREEMENTS + searches * (AGREEMENTS_OF_A_SEARCH + panels);
    for (double time = 0.0; coupled && time < 1.0 + parts * rounds; time++) /* E H */
        send_panels(s, n, NARROW, number * s->n * s->n, t);
    for (double pass = 0.0; pass < passes; pass++)
        send_panels(s, n, SNRQ_GRAM_PANEL, sizeof(float) * s->n * s->n, t);
    if (r->method == SNRQ_GPTQ || r->method == SNRQ_GPTAQ)
        search_gptq(s, t);
    else
        for (double time = 0.0; time < (keeps_panels(s) ? 1.0 : searches); time++)
            send_panels(s, n, NARROW, number * lower(n, NARROW), t);
    add_up(SUMS_OF_A_MODULE * modules * s->m, SUMS_OF_A_MODULE * modules, t);
}

/* Codes, scales and zeros of a rank's rows go to the other nodes. */
static void publish(const sender *s, snrq_traffic *t)
{
    const double groups = (double)snrq_rule_groups(s->rule, s->unit->columns);
    t->exchanged += s->m * (s->n + groups * (sizeof(float) + 1.0));
    t->exchanges += 3.0;
}

/* The sums of a team's unit go to one rank, which is half of what giving them to all costs, and
 * from it to the team. */
static void gram_of_team(const sender *s, int64_t hidden, snrq_traffic *all, snrq_traffic *team)
{
    snrq_traffic sums = {0};
    gram(s, hidden, &sums);
    team->sent += sums.summed;
    team->broadcasts += sums.sums;
    sums.summed /= 2.0;
    all->summed += sums.summed;
    all->sums += sums.sums;
    all->agreements += sums.agreements;
}

void snrq_traffic_of_unit(const snrq_rule *rule, const snrq_unit_shape *unit, int64_t hidden,
                          int ranks, int teams, snrq_traffic *all, snrq_traffic *team)
{
    sender s = {.rule = rule, .unit = unit, .n = (double)unit->columns, .m = (double)unit->rows};
    snrq_traffic *out = teams > 1 ? team : all;
    snrq_process_grid_shape(unit->columns, ranks / teams, &s.rows, &s.columns);
    if (teams > 1)
        gram_of_team(&s, hidden, &all[SNRQ_PHASE_GRAM], &team[SNRQ_PHASE_GRAM]);
    else
        gram(&s, hidden, &all[SNRQ_PHASE_GRAM]);
    factor(&s, hidden, &out[SNRQ_PHASE_FACTOR]);
    out[SNRQ_PHASE_GRID].agreements += GRID_AGREEMENTS;
    add_up(s.n, 0.0, &out[SNRQ_PHASE_GRID]);
    search(&s, &out[SNRQ_PHASE_SEARCH]);
    publish(&s, &all[SNRQ_PHASE_SEARCH]);
}

void snrq_traffic_of_block(snrq_traffic *out)
{
    out[SNRQ_PHASE_READ].agreements += READ_AGREEMENTS;
    out[SNRQ_PHASE_FORWARD].agreements += FORWARD_AGREEMENTS;
    out[SNRQ_PHASE_WRITE].agreements += WRITE_AGREEMENTS;
}
