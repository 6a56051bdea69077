/* Histories of beams against families that are written down in full. */
#include "pipeline/rounding/beam_history.h"

#include <stdlib.h>
#include <string.h>

#include "tests/snrq_test.h"

enum {
    STRIP = SNRQ_STRIP,
    ROWS = SNRQ_LANES,
    WIDTH = 5,
    LAYERS = 80,
    COLUMNS = LAYERS * STRIP,
    UNSET = 255
};

/* All that was ever decided, and where it settled. */
typedef struct family {
    uint8_t parent[LAYERS][ROWS][WIDTH];
    uint8_t code[LAYERS][ROWS][WIDTH][STRIP];
    float errors[COLUMNS][ROWS];
    uint8_t codes[ROWS][COLUMNS];
} family;

static void add_layer(family *f, int layer, bool apart, snrq_beam_history *h)
{
    for (int r = 0; r < ROWS; r++)
        for (int k = 0; k < WIDTH; k++) {
            f->parent[layer][r][k] = (uint8_t)(apart ? k : rand() % WIDTH);
            for (int c = 0; c < STRIP; c++)
                f->code[layer][r][k][c] = (uint8_t)(rand() % (UNSET - 1));
        }
    /* As in a panel: what is far may settle only before the next one. */
    const int decided = COLUMNS - layer * STRIP, near = decided + 4 * STRIP;
    const int limit = layer % 8 < 6 && near < COLUMNS ? near : COLUMNS;
    static uint8_t before[ROWS][COLUMNS];
    memcpy(before, f->codes, sizeof before);
    const snrq_settled settled = {.decided = decided,
                                  .limit = limit,
                                  .columns = COLUMNS,
                                  .errors = f->errors[0],
                                  .codes = f->codes[0]};
    CU_ASSERT_EQUAL(snrq_beam_history_push(h, f->parent[layer][0], WIDTH, &settled), SNRQ_OK);
    for (int r = 0; r < ROWS; r++)
        CU_ASSERT_EQUAL(memcmp(&before[r][limit], &f->codes[r][limit], (size_t)(COLUMNS - limit)),
                        0);
    for (int i = 0; i < ROWS * WIDTH; i++) {
        int32_t node = snrq_beam_history_newest(h) + i;
        memcpy(&h->codes[node], f->code[layer][i / WIDTH][i % WIDTH], STRIP);
        for (int c = 0; c < STRIP; c++) h->errors[node][c] = (float)h->codes[node][c] / 4.0f;
    }
}

static family *live(bool apart, snrq_beam_history *h)
{
    family *f = malloc(sizeof *f);
    memset(f, UNSET, sizeof *f);
    srand(11);
    CU_ASSERT_EQUAL(snrq_beam_history_create(WIDTH, h), SNRQ_OK);
    for (int layer = 0; layer < LAYERS; layer++) add_layer(f, layer, apart, h);
    return f;
}

/* What settled is what all beams descend from; what did not is still in the history. */
static void settled_columns_are_those_of_the_ancestors(void)
{
    snrq_beam_history h;
    family *f = live(false, &h);
    int wrong = 0, settled = 0;
    for (int r = 0; r < ROWS; r++)
        for (int k = 0; k < WIDTH; k++) {
            int slot = k;
            for (int layer = LAYERS - 1; layer >= 0; slot = f->parent[layer--][r][slot]) {
                int begin = COLUMNS - (layer + 1) * STRIP;
                if (f->codes[r][begin] == UNSET) {
                    wrong += layer < LAYERS - h.layers;
                    continue;
                }
                settled++;
                wrong += memcmp(&f->codes[r][begin], f->code[layer][r][slot], STRIP) != 0;
                for (int c = 0; c < STRIP; c++)
                    wrong += f->errors[begin + c][r] != (float)f->codes[r][begin + c] / 4.0f;
            }
        }
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT_TRUE(settled > ROWS * WIDTH * LAYERS / 2);
    snrq_beam_history_free(&h);
    free(f);
}

/* A history is as long as its beams differ, not as the row. */
static void what_all_beams_share_is_given_back(void)
{
    snrq_beam_history h;
    free(live(false, &h));
    CU_ASSERT_TRUE(h.layers < LAYERS / 2);
    CU_ASSERT_TRUE(h.first[h.layers] < 10 * ROWS * WIDTH);
    snrq_beam_history_free(&h);
}

/* Beams that never meet settle nothing and lose nothing. */
static void families_that_stay_apart_are_kept(void)
{
    snrq_beam_history h;
    family *f = live(true, &h);
    int settled = 0;
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < COLUMNS; i++) settled += f->codes[r][i] != UNSET;
    CU_ASSERT_EQUAL(settled, 0);
    CU_ASSERT_EQUAL(h.layers, LAYERS);
    CU_ASSERT_EQUAL(h.first[h.layers], 1 + LAYERS * ROWS * WIDTH);
    snrq_beam_history_free(&h);
    free(f);
}

int main(void)
{
    const snrq_test tests[] = {
        SNRQ_TEST(settled_columns_are_those_of_the_ancestors),
        SNRQ_TEST(what_all_beams_share_is_given_back),
        SNRQ_TEST(families_that_stay_apart_are_kept),
    };
    return snrq_run_tests("beam_history", tests, sizeof tests / sizeof *tests, 1);
}
