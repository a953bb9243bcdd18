/* The kernels of exported bitpact networks: exact integers on every machine.
 *
 * Tensors are [row][column][channel]. Codes of 1, 2, 4 or 8 bits lie in a pixel without gaps, the first channel in the
 * lowest bits; a pixel begins with a byte. Nothing is allocated, nothing is a floating-point number.
 * BITPACT_PORTABLE leaves the instructions of the target unused; the numbers are the same. */
#ifndef BITPACT_KERNELS_H
#define BITPACT_KERNELS_H

#include <stdint.h>
#include <string.h>

#if defined(BITPACT_PORTABLE)
/* Plain C. */
#elif defined(__ARM_FEATURE_MVE) && !defined(__ARM_BIG_ENDIAN)
#include <arm_mve.h>
#define BP_MVE
#elif defined(__aarch64__) && defined(__ARM_NEON) && !defined(__ARM_BIG_ENDIAN)
#include <arm_neon.h>
#define BP_NEON
#elif defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32) && !defined(__ARM_BIG_ENDIAN)
#include <arm_acle.h>
#define BP_DSP
#endif

#if (-1 >> 1) != -1
#error "bitpact needs a compiler that shifts negative numbers arithmetically"
#endif

#if defined(__GNUC__)
#define BP_INLINE static inline __attribute__((always_inline))
#define BP_FUNCTION static __attribute__((noinline, unused))
#else
#define BP_INLINE static inline
#define BP_FUNCTION static inline
#endif

/* Constants go where this says: a section of flash where the target has several memories. */
#ifndef BITPACT_FLASH
#define BITPACT_FLASH
#endif

/* A code of a column. The DSP instructions multiply halves of words; others read bytes. */
#ifdef BP_DSP
typedef int16_t __attribute__((may_alias)) bp_code;
typedef uint32_t __attribute__((may_alias)) bp_pair;
#define BP_COLUMNS(dsp, bytes) (dsp)
#define BP_ALIGNED __attribute__((aligned(8)))
#else
typedef uint8_t bp_code;
#define BP_COLUMNS(dsp, bytes) (bytes)
#define BP_ALIGNED
#endif

/* A tensor of h x w pixels of c channels. */
typedef struct {
    uint32_t at;    /* first byte in the arena, or BP_IMAGE */
    uint32_t pixel; /* bytes of a pixel */
    uint32_t c;
    uint16_t h, w;
    uint8_t bits; /* 1, 2, 4, 8: codes; 16: unsigned; 32: signed */
} bp_tensor;

#define BP_IMAGE UINT32_MAX

/* Where a run reads and writes. */
typedef struct {
    const uint8_t *image;
    const uint16_t *zeros; /* the code that stands for zero in each channel of the image, where padding reads it */
    uint8_t *arena;
    bp_code *columns;      /* windows of products, pixel by pixel */
    const uint8_t **taps;  /* pixels under windows by channel */
    int32_t (*sums)[2];    /* sums of columns, by term */
} bp_run;

BP_INLINE const uint8_t *bp_data(const bp_run *run, const bp_tensor *t)
{
    return t->at == BP_IMAGE ? run->image : run->arena + t->at;
}

/* Channel c of a pixel. */
BP_INLINE int32_t bp_get(const uint8_t *pixel, uint32_t bits, uint32_t c)
{
    if (bits == 8) {
        return pixel[c];
    }
    if (bits < 8) {
        const uint32_t bit = c * bits;
        return (int32_t)(((uint32_t)pixel[bit >> 3] >> (bit & 7u)) & ((1u << bits) - 1u));
    }
    if (bits == 16) {
        uint16_t value;
        memcpy(&value, pixel + 2 * (size_t)c, sizeof value);
        return value;
    }
    {
        int32_t value;
        memcpy(&value, pixel + 4 * (size_t)c, sizeof value);
        return value;
    }
}

/* Writes channel c of a pixel. */
BP_INLINE void bp_put(uint8_t *pixel, uint32_t bits, uint32_t c, int32_t value)
{
    if (bits == 8) {
        pixel[c] = (uint8_t)value;
    } else if (bits < 8) {
        const uint32_t bit = c * bits, mask = ((1u << bits) - 1u) << (bit & 7u);
        const uint32_t others = pixel[bit >> 3] & ~mask;
        pixel[bit >> 3] = (uint8_t)(others | ((uint32_t)value << (bit & 7u)));
    } else if (bits == 16) {
        const uint16_t low = (uint16_t)value;
        memcpy(pixel + 2 * (size_t)c, &low, sizeof low);
    } else {
        memcpy(pixel + 4 * (size_t)c, &value, sizeof value);
    }
}

/* Field i of k bits, 1 to 16, of a stream whose last field two more bytes follow. */
BP_INLINE uint32_t bp_field(const uint8_t *stream, size_t i, uint32_t k)
{
    const size_t bit = i * k;
    const uint8_t *at = stream + (bit >> 3);
    const uint32_t word = (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16;
    return (word >> (bit & 7u)) & ((1u << k) - 1u);
}

/* floor(sum / 2^shift) of a sum whose quotient fits 32 bits. */
BP_INLINE int32_t bp_shift(int64_t sum, uint32_t shift)
{
    if (shift >= 32) {
        return (int32_t)(sum >> 32) >> (shift - 32);
    }
    if (shift == 0) {
        return (int32_t)sum;
    }
    {
        const uint32_t low = (uint32_t)((uint64_t)sum & 0xffffffffu) >> shift;
        const uint32_t high = (uint32_t)((uint64_t)sum >> 32) << (32u - shift);
        return (int32_t)(high | low);
    }
}

BP_INLINE uint32_t bp_min(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* A window over a tensor. */
typedef struct {
    uint16_t rows, columns, stride_y, stride_x, top, left, dilation_y, dilation_x, spread_y, spread_x;
} bp_window;

/* The row or column that position `at` of a window sees at tap k; UINT32_MAX where that is padding. */
BP_INLINE uint32_t bp_source(uint32_t at, uint32_t k, uint32_t stride, uint32_t dilation, uint32_t before,
                             uint32_t spread, uint32_t side)
{
    uint32_t place = at * stride + k * dilation;
    if (place < before) {
        return UINT32_MAX;
    }
    place -= before;
    if (spread > 1) {
        if (place % spread != 0) {
            return UINT32_MAX;
        }
        place /= spread;
    }
    return place < side ? place : UINT32_MAX;
}

/* The pixel under tap (a, b) of a window at (y, x); null where that is padding. */
BP_INLINE const uint8_t *bp_tap(const bp_window *v, const bp_tensor *t, const uint8_t *data, uint32_t y, uint32_t x,
                                uint32_t a, uint32_t b)
{
    const uint32_t row = bp_source(y, a, v->stride_y, v->dilation_y, v->top, v->spread_y, t->h);
    const uint32_t column = bp_source(x, b, v->stride_x, v->dilation_x, v->left, v->spread_x, t->w);
    if (row == UINT32_MAX || column == UINT32_MAX) {
        return NULL;
    }
    return data + ((size_t)row * t->w + column) * t->pixel;
}

/* A tensor with its elements moved: `source` gives the pixel and changes the channel, UINT32_MAX for what is inserted. */
typedef struct {
    const bp_tensor *from;
    uint32_t (*source)(uint32_t y, uint32_t x, uint32_t *c);
    int32_t fill;
} bp_view;

/* Channel c at (y, x), which is pixel p. */
BP_INLINE int32_t bp_view_at(const bp_run *run, const bp_view *v, uint32_t y, uint32_t x, uint32_t p, uint32_t c)
{
    const bp_tensor *t = v->from;
    if (v->source) {
        p = v->source(y, x, &c);
        if (p == UINT32_MAX) {
            return v->fill;
        }
    }
    return bp_get(bp_data(run, t) + (size_t)p * t->pixel, t->bits, c);
}
