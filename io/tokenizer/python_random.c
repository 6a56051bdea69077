/* Python's random numbers; see python_random.h. */
#include "io/tokenizer/python_random.h"

/* The names are the paper's: n words, m the distance of those that are combined, r = 31 lower bits.
 */
enum { N = SNRQ_TWISTER_WORDS, M = 397 };

static void start(snrq_python_random *random, uint32_t seed)
{
    uint32_t *x = random->word;
    x[0] = seed;
    for (uint32_t i = 1; i < N; i++)
        x[i] = UINT32_C(1812433253) * (x[i - 1] ^ (x[i - 1] >> 30)) + i;
    random->next = N;
}

void snrq_python_random_seed(snrq_python_random *random, uint64_t seed)
{
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t *x = random->word, words = key[1] != 0 ? 2 : 1, i = 1;
    start(random, UINT32_C(19650218));
    for (uint32_t k = 0; k < N; k++) {
        uint32_t j = k % words;
        x[i] = (x[i] ^ ((x[i - 1] ^ (x[i - 1] >> 30)) * UINT32_C(1664525))) + key[j] + j;
        if (++i < N) continue;
        x[0] = x[N - 1];
        i = 1;
    }
    for (uint32_t k = 1; k < N; k++) {
        x[i] = (x[i] ^ ((x[i - 1] ^ (x[i - 1] >> 30)) * UINT32_C(1566083941))) - i;
        if (++i < N) continue;
        x[0] = x[N - 1];
        i = 1;
    }
    x[0] = UINT32_C(0x80000000);
}

static void twist(snrq_python_random *random)
{
    uint32_t *x = random->word;
    for (int i = 0; i < N; i++) {
        uint32_t y = (x[i] & UINT32_C(0x80000000)) | (x[(i + 1) % N] & UINT32_C(0x7fffffff));
        x[i] = x[(i + M) % N] ^ (y >> 1) ^ ((y & 1u) != 0 ? UINT32_C(0x9908b0df) : 0);
    }
    random->next = 0;
}

uint32_t snrq_python_random_word(snrq_python_random *random)
{
    if (random->next == N) twist(random);
    uint32_t y = random->word[random->next++];
    y ^= y >> 11;
    y ^= (y << 7) & UINT32_C(0x9d2c5680);
    y ^= (y << 15) & UINT32_C(0xefc60000);
    return y ^ (y >> 18);
}

/* random.getrandbits(bits), 1 to 64: the lower word first, the last one's upper bits. */
static uint64_t draw_bits(snrq_python_random *random, int bits)
{
    if (bits <= 32) return snrq_python_random_word(random) >> (32 - bits);
    uint64_t low = snrq_python_random_word(random);
    return low | (uint64_t)(snrq_python_random_word(random) >> (64 - bits)) << 32;
}

int64_t snrq_python_random_up_to(snrq_python_random *random, int64_t last)
{
    uint64_t range = (uint64_t)last + 1, drawn;
    int bits = 0;
    while (bits < 64 && range >> bits != 0) bits++;
    do drawn = draw_bits(random, bits);
    while (drawn >= range);
    return (int64_t)drawn;
}
