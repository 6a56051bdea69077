/* The beams of one row; see beam.h and search.h. */
#include "pipeline/beam.h"

#include <stdlib.h>
#include <string.h>

/* The cheapest extension of a beam that was not taken yet: its grid values lie in order of distance
 * around y, below from `low` down and above from `high` up. */
typedef struct snrq_candidate {
    double cost; /* HUGE if there is none left */
    int low, high, code;
    float y;
} snrq_candidate;

static const double no_candidate = 1e300 * 1e300;

snrq_status snrq_beam_row_create(int beam, int64_t columns, snrq_beam_row *out)
{
    int64_t capacity = columns < 2 * SNRQ_BLOCK ? columns : 2 * SNRQ_BLOCK;
    *out = (snrq_beam_row){.width = beam,
                           .count = 1,
                           .columns = columns,
                           .position = columns,
                           .settled = columns,
                           .capacity = capacity};
    SNRQ_TRY(snrq_allocate((size_t)beam, sizeof(double), "beam costs", &out->costs));
    SNRQ_TRY(snrq_allocate((size_t)columns, 1, "settled codes", &out->common));
    return snrq_allocate((size_t)beam * (size_t)capacity, 1, "recent codes", &out->recent);
}

void snrq_beam_row_free(snrq_beam_row *b)
{
    free(b->costs);
    free(b->recent);
    free(b->common);
    memset(b, 0, sizeof *b);
}

snrq_status snrq_beam_scratch_create(int beam, snrq_beam_scratch *s)
{
    size_t k = (size_t)beam;
    SNRQ_TRY(snrq_allocate(k * SNRQ_BLOCK, sizeof *s->y, "beam scratch", &s->y));
    SNRQ_TRY(snrq_allocate(k * SNRQ_BLOCK, sizeof *s->y_next, "beam scratch", &s->y_next));
    SNRQ_TRY(snrq_allocate(k, sizeof *s->costs, "beam scratch", &s->costs));
    SNRQ_TRY(snrq_allocate(k, sizeof *s->costs_next, "beam scratch", &s->costs_next));
    SNRQ_TRY(snrq_allocate(k, sizeof *s->next, "beam scratch", &s->next));
    SNRQ_TRY(snrq_allocate(k * SNRQ_BLOCK, sizeof *s->parents, "beam scratch", &s->parents));
    SNRQ_TRY(snrq_allocate(k * SNRQ_BLOCK, 1, "beam scratch", &s->codes));
    SNRQ_TRY(snrq_allocate(k * SNRQ_BLOCK, 1, "beam scratch", &s->traced));
    return snrq_allocate(k, sizeof *s->roots, "beam scratch", &s->roots);
}

void snrq_beam_scratch_free(snrq_beam_scratch *s)
{
    free(s->y);
    free(s->y_next);
    free(s->costs);
    free(s->costs_next);
    free(s->next);
    free(s->parents);
    free(s->codes);
    free(s->traced);
    free(s->roots);
    memset(s, 0, sizeof *s);
}

/* y of every beam at the start of a panel: that of the first beam, and the recent columns in which
 * a beam differs. */
static void start_panel(const snrq_rows *r, int64_t row, const snrq_panel *p, const float *y,
                        const snrq_beam_row *b, snrq_beam_scratch *s)
{
    for (int k = 0; k < b->count; k++) {
        float *mine = s->y + (size_t)k * SNRQ_BLOCK;
        memcpy(mine, y, SNRQ_BLOCK * sizeof *mine);
        s->costs[k] = b->costs[k];
        for (int64_t column = b->position; k > 0 && column < b->settled; column++) {
            int64_t at = column - b->position;
            int first = b->recent[at], code = b->recent[(int64_t)k * b->capacity + at];
            if (code == first) continue;
            int64_t g = row * r->groups->count + r->groups->of_position[column];
            float difference = r->scales[g] * (float)(first - code);
            const float *u = p->u + (column - p->begin) * SNRQ_BLOCK;
            for (int64_t i = 0; i < p->width; i++) mine[i] += difference * u[i];
        }
    }
}

/* Moves to the next cheapest value of a beam; equal distances: the lower code first. */
static void advance(snrq_candidate *c, double cost, double d2, float scale, int zero, int top)
{
    double below = no_candidate, above = no_candidate;
    if (c->low >= 0) {
        double miss = (double)(c->y - scale * (float)(c->low - zero));
        below = cost + d2 * miss * miss;
    }
    if (c->high <= top) {
        double miss = (double)(c->y - scale * (float)(c->high - zero));
        above = cost + d2 * miss * miss;
    }
    if (below <= above) {
        c->cost = below;
        c->code = c->low--;
    } else {
        c->cost = above;
        c->code = c->high++;
    }
}

/* Decides column c of the panel: the cheapest extensions of all beams, each beam's in order of
 * distance. */
static int extend(const snrq_beam_row *b, int count, int64_t c, double d2, float scale, int zero,
                  int top, snrq_beam_scratch *s)
{
    int taken = 0;
    for (int k = 0; k < count; k++) {
        snrq_candidate *next = &s->next[k];
        next->y = s->y[(size_t)k * SNRQ_BLOCK + (size_t)c];
        float below = __builtin_floorf(next->y / scale) + (float)zero;
        next->low = below < 0.0f ? -1 : below > (float)top ? top : (int)below;
        next->high = next->low + 1;
        advance(next, s->costs[k], d2, scale, zero, top);
    }
    for (; taken < b->width; taken++) {
        int best = 0;
        for (int k = 1; k < count; k++)
            if (s->next[k].cost < s->next[best].cost) best = k;
        if (!(s->next[best].cost < no_candidate)) break;
        s->parents[c * b->width + taken] = best;
        s->codes[c * b->width + taken] = (uint8_t)s->next[best].code;
        s->costs_next[taken] = s->next[best].cost;
        advance(&s->next[best], s->costs[best], d2, scale, zero, top);
    }
    return taken;
}

/* y of the survivors for the columns of the panel that are still to come. */
static void feed_back(const snrq_panel *p, int64_t c, int count, int width, float target,
                      float scale, int zero, snrq_beam_scratch *s)
{
    const float *u = p->u + c * SNRQ_BLOCK;
    for (int k = 0; k < count; k++) {
        const float *parent = s->y + (size_t)s->parents[c * width + k] * SNRQ_BLOCK;
        float *mine = s->y_next + (size_t)k * SNRQ_BLOCK;
        float error = target - scale * (float)(s->codes[c * width + k] - zero);
        for (int64_t i = 0; i < c; i++) mine[i] = parent[i] + error * u[i];
    }
    float *y = s->y;
    s->y = s->y_next;
    s->y_next = y;
    double *costs = s->costs;
    s->costs = s->costs_next;
    s->costs_next = costs;
}

/* Codes of every survivor in this panel, and which beam of the panel's start each comes from. */
static void trace_back(const snrq_panel *p, int count, int width, snrq_beam_scratch *s)
{
    for (int k = 0; k < count; k++) {
        int32_t lane = k;
        for (int64_t c = 0; c < p->width; c++) {
            s->traced[(int64_t)k * SNRQ_BLOCK + c] = s->codes[c * width + lane];
            lane = s->parents[c * width + lane];
        }
        s->roots[k] = lane;
    }
}

/* Makes room for `columns` recent columns. */
static snrq_status reserve(snrq_beam_row *b, int64_t columns)
{
    if (columns <= b->capacity) return SNRQ_OK;
    int64_t capacity = 2 * columns < b->columns ? 2 * columns : b->columns;
    uint8_t *recent = NULL;
    SNRQ_TRY(snrq_allocate((size_t)b->width * (size_t)capacity, 1, "recent codes", &recent));
    for (int k = 0; k < b->count; k++)
        memcpy(recent + k * capacity, b->recent + k * b->capacity,
               (size_t)(b->settled - b->position));
    free(b->recent);
    b->recent = recent;
    b->capacity = capacity;
    return SNRQ_OK;
}

/* The survivors' recent codes: this panel's, followed by those of the beam each comes from. */
static snrq_status take_over(const snrq_panel *p, int count, snrq_beam_row *b,
                             const snrq_beam_scratch *s)
{
    size_t recent = (size_t)(b->settled - b->position), width = (size_t)p->width;
    uint8_t *old = NULL;
    SNRQ_TRY(reserve(b, (int64_t)(recent + width)));
    SNRQ_TRY(snrq_allocate((size_t)b->count, recent, "recent codes", &old));
    for (int k = 0; k < b->count; k++)
        memcpy(old + (size_t)k * recent, b->recent + k * b->capacity, recent);
    for (int k = 0; k < count; k++) {
        uint8_t *mine = b->recent + k * b->capacity;
        memcpy(mine, s->traced + (int64_t)k * SNRQ_BLOCK, width);
        memcpy(mine + width, old + (size_t)s->roots[k] * recent, recent);
    }
    free(old);
    b->position = p->begin;
    b->count = count;
    memcpy(b->costs, s->costs, (size_t)count * sizeof *b->costs);
    return SNRQ_OK;
}

/* Moves the columns on which all survivors agree, oldest first, to the common part. */
static void settle(snrq_beam_row *b)
{
    while (b->settled > b->position) {
        int64_t at = b->settled - 1 - b->position;
        for (int k = 1; k < b->count; k++)
            if (b->recent[k * b->capacity + at] != b->recent[at]) return;
        b->common[--b->settled] = b->recent[at];
    }
}

snrq_status snrq_beam_panel(const snrq_rows *r, int64_t row, const snrq_panel *p, const float *y,
                            float *errors, snrq_beam_row *b, snrq_beam_scratch *s)
{
    int top = (1 << r->bits) - 1, count = b->count;
    const float *target = r->target + row * r->columns,
                *scales = r->scales + row * r->groups->count;
    const uint8_t *zeros = r->zeros + row * r->groups->count;
    start_panel(r, row, p, y, b, s);
    for (int64_t c = p->width - 1; c >= 0; c--) {
        int32_t g = r->groups->of_position[p->begin + c];
        count = extend(b, count, c, p->d2[c], scales[g], zeros[g], top, s);
        feed_back(p, c, count, b->width, target[p->begin + c], scales[g], zeros[g], s);
    }
    trace_back(p, count, b->width, s);
    int64_t settled_before = b->settled;
    SNRQ_TRY(take_over(p, count, b, s));
    for (int64_t k = b->position; k < settled_before; k++) {
        int32_t g = r->groups->of_position[k];
        errors[k] = target[k] - scales[g] * (float)(b->recent[k - b->position] - zeros[g]);
    }
    settle(b);
    return SNRQ_OK;
}

void snrq_beam_finish(const snrq_beam_row *b, uint8_t *codes, double *cost)
{
    if (!(b->costs[0] < *cost)) return;
    *cost = b->costs[0];
    memcpy(codes, b->recent, (size_t)b->settled);
    memcpy(codes + b->settled, b->common + b->settled, (size_t)(b->columns - b->settled));
}
