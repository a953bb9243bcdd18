/* Vectors for the programs of `cargo xtask cross-c`, which newlib's semihosting starts. */
#include <stdint.h>

extern void _start(void);
extern uint32_t __stack;

void boot(void)
{
    /* Coprocessors 10 and 11: the floating-point and vector registers. */
    *(volatile uint32_t *)0xe000ed88u |= 0xfu << 20;
    __asm__ volatile("dsb\n isb\n b _start");
}

/* Tells the debugger that the program broke (Arm, Semihosting, SYS_EXIT). */
static void fault(void)
{
    __asm__ volatile("mov r0, #0x18\n ldr r1, =0x20023\n bkpt 0xab");
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) static void *const vectors[16] = {
    &__stack, (void *)boot, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault,
};
