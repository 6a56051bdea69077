/* Long work below a run: signs of life are counted, and a signal to one rank stops all of them. */
#include "mpi/watch.h"

#include <signal.h>
#include <string.h>

#include "tests/ranks/rank_test.h"

static void nobody_looks(void)
{
    snrq_watch_enter(NULL, 3);
    snrq_watch_go_on(NULL);
    CU_ASSERT_EQUAL(snrq_watch_check(rank_test_world, NULL), SNRQ_OK);
}

static void the_same_phase_again_is_a_sign_of_life(void)
{
    snrq_stop stop;
    snrq_timers timers;
    const snrq_watch watch = {&stop, &timers};
    snrq_stop_begin(NULL, 0.0, &stop);
    snrq_timers_reset(&timers, 4);
    for (int i = 1; i <= 3; i++) {
        snrq_watch_enter(&watch, 2);
        CU_ASSERT_EQUAL((int)timers.entered, i);
        CU_ASSERT_EQUAL((int)timers.running, 2);
    }
    snrq_watch_go_on(&watch);
    CU_ASSERT_EQUAL((int)timers.entered, 4);
    CU_ASSERT_EQUAL(snrq_watch_check(rank_test_world, &watch), SNRQ_OK);
    CU_ASSERT_EQUAL((int)timers.entered, 5);
    CU_ASSERT_EQUAL((int)timers.running, 2);
}

static void a_signal_to_one_rank_stops_all(void)
{
    snrq_stop stop;
    snrq_timers timers;
    const snrq_watch watch = {&stop, &timers};
    snrq_stop_listen();
    snrq_stop_begin(NULL, 0.0, &stop);
    snrq_timers_reset(&timers, 1);
    if (rank_test_world->rank == rank_test_world->size - 1) raise(SIGUSR1);
    CU_ASSERT_EQUAL(snrq_watch_check(rank_test_world, &watch), SNRQ_STOPPED);
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), "signal"));
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {SNRQ_TEST(nobody_looks),
                               SNRQ_TEST(the_same_phase_again_is_a_sign_of_life),
                               SNRQ_TEST(a_signal_to_one_rank_stops_all)};
    return rank_test_main(argc, argv, "watch", tests, sizeof tests / sizeof *tests);
}
