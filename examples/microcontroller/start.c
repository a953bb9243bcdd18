/* The least that a Cortex-M program needs: vectors, memory, semihosting. */
#include "start.h"

extern uint32_t stack_top, data_start, data_end, data_load, bss_start, bss_end;

int main(void);
void reset(void);

/* One call of the debugger (Arm, Semihosting for AArch32 and AArch64, section 3). */
static uint32_t semihost(uint32_t operation, const void *argument)
{
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void put_text(const char *text)
{
    (void)semihost(0x04u, text);
}

void put_number(uint32_t number)
{
    char text[11];
    uint32_t i = sizeof text - 1u;
    text[i] = 0;
    do {
        text[--i] = (char)('0' + number % 10u);
        number /= 10u;
    } while (number != 0);
    put_text(text + i);
}

void stop(int is_good)
{
    const uint32_t reason[2] = {0x20026u, is_good ? 0u : 1u};
    (void)semihost(0x20u, reason);
    for (;;) {
    }
}

/* SysTick counts the core clock down from 2^24; the handler counts its turns. */
#define SYST ((volatile uint32_t *)0xe000e010u)
static volatile uint32_t turns;

static void on_tick(void)
{
    turns++;
}

void clock_start(void)
{
    SYST[1] = 0xffffffu;
    SYST[2] = 0;
    SYST[0] = 7u;
    while (SYST[2] == 0) {
    }
}

uint64_t clock_read(void)
{
    uint32_t before, count;
    do {
        before = turns;
        count = SYST[2];
    } while (before != turns);
    return ((uint64_t)before << 24) + (0xffffffu - count);
}

static void on_fault(void)
{
    put_text("fault\n");
    stop(0);
}

void reset(void)
{
    uint32_t *from = &data_load, *to;
    for (to = &data_start; to < &data_end; to++) {
        *to = *from++;
    }
    for (to = &bss_start; to < &bss_end; to++) {
        *to = 0;
    }
    /* Coprocessors 10 and 11: the floating-point and vector registers. */
    *(volatile uint32_t *)0xe000ed88u |= 0xfu << 20;
    __asm__ volatile("dsb\n isb" ::: "memory");
    stop(main() == 0);
}

__attribute__((section(".vectors"), used)) static const struct {
    void *stack;
    void (*handlers[15])(void);
} vectors = {
    &stack_top,
    {reset, on_fault, on_fault, on_fault, on_fault, on_fault, on_fault, 0, 0, 0, on_fault, on_fault, 0, on_fault, on_tick},
};
