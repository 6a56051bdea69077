/* Random numbers by counter: number n of stream s is a function of the seed, s and n alone, so that
 * any rank may draw any of them, in any order.
 *
 * Source: Philox4x32-10 of J. Salmon, M. Moraes, R. Dror and D. Shaw, "Parallel random numbers: as
 * easy as 1, 2, 3", SC 2011.
 */
#ifndef SNRQ_PHILOX_H
#define SNRQ_PHILOX_H

#include <stdint.h>

/* counter [4] becomes four random words. */
static inline void snrq_philox(uint32_t counter[4], const uint32_t key[2])
{
    uint32_t first = key[0], second = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)counter[0] * 0xd2511f53u, b = (uint64_t)counter[2] * 0xcd9e8d57u;
        uint32_t x = (uint32_t)(b >> 32) ^ counter[1] ^ first;
        uint32_t y = (uint32_t)(a >> 32) ^ counter[3] ^ second;
        counter[0] = x;
        counter[1] = (uint32_t)b;
        counter[2] = y;
        counter[3] = (uint32_t)a;
        first += 0x9e3779b9u;
        second += 0xbb67ae85u;
    }
}

/* Uniform in [0, 1), of 53 bits: number `index` of stream `stream`. */
static inline double snrq_philox_uniform(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint32_t counter[4] = {(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)stream,
                           (uint32_t)(stream >> 32)};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    snrq_philox(counter, key);
    return (double)((uint64_t)(counter[0] >> 5) << 26 | counter[1] >> 6) * 0x1p-53;
}

#endif
