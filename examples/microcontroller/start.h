/* What the examples need of the board. */
#ifndef START_H
#define START_H

#include <stdint.h>

void put_text(const char *text);
void put_number(uint32_t number);

/* Ends the program, and QEMU. */
void stop(int is_good);

/* A clock of the core's frequency: 25 MHz on mps2-an386, 32 MHz on mps3-an547 under QEMU. */
void clock_start(void);
uint64_t clock_read(void);

#endif
