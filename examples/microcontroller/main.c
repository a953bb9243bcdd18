/* Runs the first image of a network's self-test: prints its class, and the instructions that it took under
 * `-icount shift=0`, where an instruction is a nanosecond. */
#include "start.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)

/* The network of the Makefile, with its self-test, whose vectors are used and whose main is not. */
#define main self_test_main
int self_test_main(int argc, char **argv);
#include TEXT(NETWORK_TEST)
#undef main

#define SCORES JOIN(NETWORK, OUTPUT)
#define EXPECTED JOIN(NETWORK, JOIN(expected, OUTPUT))[0]

int main(void)
{
    const uint32_t n = sizeof SCORES / sizeof SCORES[0];
    uint64_t before, ticks;
    uint32_t i, best = 0, different = 0;
    clock_start();
    before = clock_read();
    JOIN(NETWORK, run)(JOIN(NETWORK, images)[0], SCORES);
    ticks = clock_read() - before;
    for (i = 0; i < n; i++) {
        best = SCORES[i] > SCORES[best] ? i : best;
        different += SCORES[i] != EXPECTED[i];
    }
    put_text("class ");
    put_number(best);
    put_text(", ");
    put_number(different);
    put_text(" scores differ from bitpact's, ");
    put_number((uint32_t)(ticks * NANOSECONDS / 1000u));
    put_text(" thousand instructions\n");
    return different == 0 ? 0 : 1;
}
