/* The random numbers of Python's module `random`, for windows drawn as published programs draw
 * them: with the same seed, the same numbers.
 *
 * Source: the Mersenne Twister MT19937 (Matsumoto and Nishimura, ACM TOMACS 8, 1998) with their
 * init_by_array() of 2002; CPython seeds it with the 32-bit words of an integer, and takes the
 * upper bits of its outputs. Not collective.
 */
#ifndef SNRQ_PYTHON_RANDOM_H
#define SNRQ_PYTHON_RANDOM_H

#include <stdint.h>

enum { SNRQ_TWISTER_WORDS = 624 };

typedef struct snrq_python_random {
    uint32_t word[SNRQ_TWISTER_WORDS];
    int next; /* of the words; SNRQ_TWISTER_WORDS: new ones have to be made */
} snrq_python_random;

/* random.seed(seed) */
void snrq_python_random_seed(snrq_python_random *random, uint64_t seed);

/* random.getrandbits(32) */
uint32_t snrq_python_random_word(snrq_python_random *random);

/* random.randint(0, last): uniform in [0, last], for last >= 0. */
int64_t snrq_python_random_up_to(snrq_python_random *random, int64_t last);

#endif
