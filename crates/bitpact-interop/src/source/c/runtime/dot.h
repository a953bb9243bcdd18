
/* Products of two rows of weights and two columns of codes: sums[0] is row u with column a, [1] u with b, [2] v with a,
 * [3] v with b. Weights are unsigned fields of 1, 2 or 4 bits, or signed bytes. Columns hold zeros up to BP_PAD codes,
 * so what a row reads beyond its end adds nothing. */

#if defined(BP_DSP)

#define BP_PAD(k, bits) (((k) + 32u / (bits) - 1u) & ~(32u / (bits) - 1u))

/* The codes of two columns stand in pairs, one of the first and one of the second, in the order in which shifts and
 * masks take fields from a word of weights: of 32 / bits fields the first and the middle one, then the next of each. Of
 * bytes, 0 2 1 3. */
BP_INLINE uint32_t bp_place(uint32_t k, uint32_t bits)
{
    const uint32_t group = 32u / bits, j = k & (group - 1u);
    const uint32_t at = (k - j) + (2u * j < group ? 2u * j : 2u * j - group + 1u);
    return 2u * at - (at & 1u);
}

BP_INLINE uint32_t bp_word(const void *at)
{
    uint32_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

/* Bytes 0 and 2, or 1 and 3, as two signed numbers of 16 bits. */
BP_INLINE uint32_t bp_even_bytes(uint32_t word)
{
    return (uint32_t)__sxtb16((int8x4_t)word);
}

BP_INLINE uint32_t bp_odd_bytes(uint32_t word)
{
    uint32_t pair;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(word));
    return pair;
}

/* Bytes 0 and 2, or 1 and 3, as two unsigned numbers of 16 bits. */
BP_INLINE uint32_t bp_even_codes(uint32_t word)
{
    return (uint32_t)__uxtb16((uint8x4_t)word);
}

BP_INLINE uint32_t bp_odd_codes(uint32_t word)
{
    uint32_t pair;
    __asm__("uxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(word));
    return pair;
}

/* Four fields of 4 bits, the first and third in the low bits of the halves of a word, the others 4 bits above. */
BP_INLINE uint32_t bp_four_fields(const uint8_t *at)
{
    uint16_t fields;
    memcpy(&fields, at, sizeof fields);
    return (uint32_t)fields | (uint32_t)fields << 8;
}

#define BP_STEP(pu, pv)                                  \
    do {                                                 \
        const uint32_t x = at[0], y = at[1];             \
        uint32_t w = (pu);                               \
        at += 2;                                         \
        s0 = __smlad((int16x2_t)x, (int16x2_t)w, s0);    \
        s1 = __smlad((int16x2_t)y, (int16x2_t)w, s1);    \
        w = (pv);                                        \
        s2 = __smlad((int16x2_t)x, (int16x2_t)w, s2);    \
        s3 = __smlad((int16x2_t)y, (int16x2_t)w, s3);    \
    } while (0)

BP_INLINE void bp_dot(const uint8_t *u, const uint8_t *v, const bp_code *a, const bp_code *b, uint32_t k, uint32_t bits,
                      int32_t sums[4])
{
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    const bp_pair *at = (const bp_pair *)a, *end = at + BP_PAD(k, bits);
    (void)b;
    while (at < end) {
        uint32_t wu = bp_word(u), wv = bp_word(v), i;
        u += 4;
        v += 4;
        if (bits == 8) {
            BP_STEP(bp_even_bytes(wu), bp_even_bytes(wv));
            BP_STEP(bp_odd_bytes(wu), bp_odd_bytes(wv));
        } else if (bits == 4) {
            BP_STEP(wu & 0x000f000fu, wv & 0x000f000fu);
            BP_STEP(wu >> 4 & 0x000f000fu, wv >> 4 & 0x000f000fu);
            BP_STEP(wu >> 8 & 0x000f000fu, wv >> 8 & 0x000f000fu);
            BP_STEP(wu >> 12 & 0x000f000fu, wv >> 12 & 0x000f000fu);
        } else if (bits == 2) {
            for (i = 0; i < 4; i++) {
                BP_STEP(wu & 0x00030003u, wv & 0x00030003u);
                BP_STEP(wu >> 2 & 0x00030003u, wv >> 2 & 0x00030003u);
                wu >>= 4;
                wv >>= 4;
            }
        } else {
            for (i = 0; i < 4; i++) {
                BP_STEP(wu & 0x00010001u, wv & 0x00010001u);
                BP_STEP(wu >> 1 & 0x00010001u, wv >> 1 & 0x00010001u);
                BP_STEP(wu >> 2 & 0x00010001u, wv >> 2 & 0x00010001u);
                BP_STEP(wu >> 3 & 0x00010001u, wv >> 3 & 0x00010001u);
                wu >>= 4;
                wv >>= 4;
            }
        }
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}

#undef BP_STEP

/* The sum of a column of k codes. */
BP_INLINE int32_t bp_column_sum(const bp_code *column, uint32_t k)
{
    int32_t sum = 0;
    uint32_t i;
    const bp_pair *at = (const bp_pair *)column;
    for (i = 0; i < k; i += 2) {
        sum = __smlad((int16x2_t)at[i], (int16x2_t)0x00010001u, sum);
    }
    return sum;
}

#elif defined(BP_MVE)

#define BP_PAD(k, bits) (((k) + 63u) & ~63u)

BP_INLINE uint32_t bp_place(uint32_t k, uint32_t bits)
{
    (void)bits;
    return k;
}

#define BP_STEP(wu, wv, x, y)                \
    do {                                     \
        s0 = vmladavaq_u8(s0, (wu), (x));    \
        s1 = vmladavaq_u8(s1, (wu), (y));    \
        s2 = vmladavaq_u8(s2, (wv), (x));    \
        s3 = vmladavaq_u8(s3, (wv), (y));    \
    } while (0)

/* Signed bytes are taken plus 128, which `bp_correct` takes back. */
BP_INLINE void bp_dot(const uint8_t *u, const uint8_t *v, const bp_code *a, const bp_code *b, uint32_t k, uint32_t bits,
                      int32_t sums[4])
{
    uint32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0, i;
    if (bits == 1) {
        for (i = 0; i < k; i += 16, u += 2, v += 2) {
            const mve_pred16_t pu = (mve_pred16_t)(u[0] | u[1] << 8), pv = (mve_pred16_t)(v[0] | v[1] << 8);
            const uint8x16_t x = vldrbq_u8(a + i), y = vldrbq_u8(b + i);
            s0 = vaddvaq_p_u8(s0, x, pu);
            s1 = vaddvaq_p_u8(s1, y, pu);
            s2 = vaddvaq_p_u8(s2, x, pv);
            s3 = vaddvaq_p_u8(s3, y, pv);
        }
    } else if (bits == 2) {
        const uint8x16_t mask = vdupq_n_u8(3);
        for (i = 0; i < k; i += 64, u += 16, v += 16) {
            const uint8x16_t wu = vldrbq_u8(u), wv = vldrbq_u8(v);
            const uint8x16x4_t x = vld4q_u8(a + i), y = vld4q_u8(b + i);
            BP_STEP(vandq_u8(wu, mask), vandq_u8(wv, mask), x.val[0], y.val[0]);
            BP_STEP(vandq_u8(vshrq_n_u8(wu, 2), mask), vandq_u8(vshrq_n_u8(wv, 2), mask), x.val[1], y.val[1]);
            BP_STEP(vandq_u8(vshrq_n_u8(wu, 4), mask), vandq_u8(vshrq_n_u8(wv, 4), mask), x.val[2], y.val[2]);
            BP_STEP(vshrq_n_u8(wu, 6), vshrq_n_u8(wv, 6), x.val[3], y.val[3]);
        }
    } else if (bits == 4) {
        const uint8x16_t mask = vdupq_n_u8(15);
        for (i = 0; i < k; i += 32, u += 16, v += 16) {
            const uint8x16_t wu = vldrbq_u8(u), wv = vldrbq_u8(v);
            const uint8x16x2_t x = vld2q_u8(a + i), y = vld2q_u8(b + i);
            BP_STEP(vandq_u8(wu, mask), vandq_u8(wv, mask), x.val[0], y.val[0]);
            BP_STEP(vshrq_n_u8(wu, 4), vshrq_n_u8(wv, 4), x.val[1], y.val[1]);
        }
    } else {
        const uint8x16_t sign = vdupq_n_u8(128);
        for (i = 0; i < k; i += 16, u += 16, v += 16) {
            const uint8x16_t x = vldrbq_u8(a + i), y = vldrbq_u8(b + i);
            BP_STEP(veorq_u8(vldrbq_u8(u), sign), veorq_u8(vldrbq_u8(v), sign), x, y);
        }
    }
    sums[0] = (int32_t)s0;
    sums[1] = (int32_t)s1;
    sums[2] = (int32_t)s2;
    sums[3] = (int32_t)s3;
}

#undef BP_STEP

BP_INLINE int32_t bp_column_sum(const bp_code *column, uint32_t k)
{
    uint32_t sum = 0, i;
    for (i = 0; i < k; i += 16) {
        sum = vaddvaq_u8(sum, vldrbq_u8(column + i));
    }
    return (int32_t)sum;
}

#elif defined(BP_NEON)

#define BP_PAD(k, bits) (((k) + 15u) & ~15u)

BP_INLINE uint32_t bp_place(uint32_t k, uint32_t bits)
{
    (void)bits;
    return k;
}

/* The next 16 weights, one a byte; signed bytes plus 128, which `bp_correct` takes back. */
BP_INLINE uint8x16_t bp_unpack(const uint8_t *w, uint32_t bits)
{
    if (bits == 8) {
        return veorq_u8(vld1q_u8(w), vdupq_n_u8(128));
    }
    if (bits == 4) {
        const uint8x8_t fields = vld1_u8(w);
        const uint8x8_t low = vand_u8(fields, vdup_n_u8(15)), high = vshr_n_u8(fields, 4);
        return vcombine_u8(vzip1_u8(low, high), vzip2_u8(low, high));
    }
    if (bits == 2) {
        static const uint8_t from[16] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
        static const int8_t by[16] = {0, -2, -4, -6, 0, -2, -4, -6, 0, -2, -4, -6, 0, -2, -4, -6};
        uint32_t word;
        memcpy(&word, w, sizeof word);
        return vandq_u8(vshlq_u8(vqtbl1q_u8(vreinterpretq_u8_u32(vdupq_n_u32(word)), vld1q_u8(from)), vld1q_s8(by)),
                        vdupq_n_u8(3));
    }
    {
        static const uint8_t one[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
        const uint8x16_t bytes = vcombine_u8(vdup_n_u8(w[0]), vdup_n_u8(w[1]));
        return vandq_u8(vtstq_u8(bytes, vld1q_u8(one)), vdupq_n_u8(1));
    }
}

#if !defined(__ARM_FEATURE_MATMUL_INT8)
BP_INLINE uint32x4_t bp_multiply_add(uint32x4_t sum, uint8x16_t w, uint8x16_t x)
{
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_u32(sum, w, x);
#else
    sum = vpadalq_u16(sum, vmull_u8(vget_low_u8(w), vget_low_u8(x)));
    return vpadalq_u16(sum, vmull_high_u8(w, x));
#endif
}
#endif

BP_INLINE void bp_dot(const uint8_t *u, const uint8_t *v, const bp_code *a, const bp_code *b, uint32_t k, uint32_t bits,
                      int32_t sums[4])
{
    const uint32_t bytes = 2u * bits;
    uint32_t i;
#if defined(__ARM_FEATURE_MATMUL_INT8)
    /* A 2x2 tile in one register. */
    uint32x4_t s = vdupq_n_u32(0);
    for (i = 0; i < k; i += 16, u += bytes, v += bytes) {
        const uint64x2_t wu = vreinterpretq_u64_u8(bp_unpack(u, bits)), wv = vreinterpretq_u64_u8(bp_unpack(v, bits));
        const uint64x2_t x = vreinterpretq_u64_u8(vld1q_u8(a + i)), y = vreinterpretq_u64_u8(vld1q_u8(b + i));
        s = vmmlaq_u32(s, vreinterpretq_u8_u64(vzip1q_u64(wu, wv)), vreinterpretq_u8_u64(vzip1q_u64(x, y)));
        s = vmmlaq_u32(s, vreinterpretq_u8_u64(vzip2q_u64(wu, wv)), vreinterpretq_u8_u64(vzip2q_u64(x, y)));
    }
    vst1q_s32(sums, vreinterpretq_s32_u32(s));
#else
    uint32x4_t s0 = vdupq_n_u32(0), s1 = s0, s2 = s0, s3 = s0;
    for (i = 0; i < k; i += 16, u += bytes, v += bytes) {
        const uint8x16_t wu = bp_unpack(u, bits), wv = bp_unpack(v, bits);
        const uint8x16_t x = vld1q_u8(a + i), y = vld1q_u8(b + i);
        s0 = bp_multiply_add(s0, wu, x);
        s1 = bp_multiply_add(s1, wu, y);
        s2 = bp_multiply_add(s2, wv, x);
        s3 = bp_multiply_add(s3, wv, y);
    }
    sums[0] = (int32_t)vaddvq_u32(s0);
    sums[1] = (int32_t)vaddvq_u32(s1);
    sums[2] = (int32_t)vaddvq_u32(s2);
    sums[3] = (int32_t)vaddvq_u32(s3);
#endif
}

BP_INLINE int32_t bp_column_sum(const bp_code *column, uint32_t k)
{
    uint32_t sum = 0, i;
    for (i = 0; i < k; i += 16) {
        sum += vaddlvq_u8(vld1q_u8(column + i));
    }
    return (int32_t)sum;
}

#else

#define BP_PAD(k, bits) (((k) + 7u) & ~7u)

BP_INLINE uint32_t bp_place(uint32_t k, uint32_t bits)
{
    (void)bits;
    return k;
}

BP_INLINE void bp_dot(const uint8_t *u, const uint8_t *v, const bp_code *a, const bp_code *b, uint32_t k, uint32_t bits,
                      int32_t sums[4])
{
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    uint32_t i;
    if (bits == 8) {
        for (i = 0; i < k; i++) {
            const int32_t x = a[i], y = b[i], wu = (int8_t)u[i], wv = (int8_t)v[i];
            s0 += wu * x;
            s1 += wu * y;
            s2 += wv * x;
            s3 += wv * y;
        }
    } else {
        const uint32_t fields = 8u / bits, mask = (1u << bits) - 1u;
        for (i = 0; i < k; i += fields) {
            uint32_t wu = *u++, wv = *v++, j;
            for (j = 0; j < fields; j++) {
                const int32_t x = a[i + j], y = b[i + j];
                s0 += (int32_t)(wu & mask) * x;
                s1 += (int32_t)(wu & mask) * y;
                s2 += (int32_t)(wv & mask) * x;
                s3 += (int32_t)(wv & mask) * y;
                wu >>= bits;
                wv >>= bits;
            }
        }
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}

BP_INLINE int32_t bp_column_sum(const bp_code *column, uint32_t k)
{
    uint32_t sum = 0, i;
    for (i = 0; i < k; i++) {
        sum += column[i];
    }
    return (int32_t)sum;
}

#endif

/* What `bp_dot` of signed bytes lacks for a column with this sum. */
BP_INLINE int32_t bp_correct(int32_t sum)
{
#if defined(BP_MVE) || defined(BP_NEON)
    return -128 * sum;
#else
    (void)sum;
    return 0;
#endif
}

#if defined(BP_MVE) || defined(BP_NEON)
#define BP_SUMS_OF_BYTES 1
#else
#define BP_SUMS_OF_BYTES 0
#endif
