
/* Kinds of the terms of a sum. */
enum { BP_PRODUCT, BP_DEPTHWISE, BP_WIDE, BP_VIEW, BP_MULTIPLY };

/* A term: its value times the multiplier of the channel. */
typedef struct {
    uint8_t kind;
    uint8_t is_one_pixel; /* b stands for every pixel */
    uint8_t mul_step;     /* 1, or 0 with one multiplier for all channels */
    uint8_t zeros[2];
    const int32_t *mul;
    const void *what; /* a bp_product, or a bp_view; of a product of views, two */
} bp_term;

/* A view that is added after the shift. */
typedef struct {
    const bp_view *view;
    int32_t mul;
} bp_added;

/* end(((sum of values * multipliers + constant) >> shift) + sum of views * multipliers). */
enum { BP_CODES, BP_TABLE, BP_TABLES, BP_VALUES, BP_WORDS, BP_LONG_WORDS };

/* Constants: one for all channels, or one a channel; of 32 bits, or of 64. */
enum { BP_ONE, BP_MANY, BP_LONG };

typedef struct {
    const bp_tensor *to;
    const bp_term *terms;
    const bp_added *added;
    const int32_t *add; /* constant of each channel, or one; of 64 bits, its low and its high word */
    const uint8_t *list;   /* lo and hi of each channel, or, of BP_TABLE and BP_TABLES, tables */
    int32_t lo, hi;
    uint8_t n_terms, n_added;
    uint8_t constants; /* BP_ONE or BP_MANY, plus BP_LONG with 64 bits */
    uint8_t shift;
    uint8_t end;
    uint8_t is_far;   /* the quotient may need more than 32 bits before it is clamped */
    uint8_t channels; /* that are computed at once: 2, or 1 where groups have an odd number */
} bp_sum;

/* The constant of channel c. */
BP_INLINE int64_t bp_constant(const bp_sum *s, uint32_t c)
{
    const uint32_t i = s->constants & BP_MANY ? c : 0u;
    if (s->constants & BP_LONG) {
        const int32_t *add = s->add + 2 * (size_t)i;
        return (int64_t)((uint64_t)(uint32_t)add[0] | (uint64_t)(uint32_t)add[1] << 32);
    }
    return s->add[i];
}

/* What is added after the shift, for channel c of pixel p. */
BP_FUNCTION uint64_t bp_added_at(const bp_run *run, const bp_sum *s, uint32_t y, uint32_t x, uint32_t p, uint32_t c)
{
    uint64_t sum = 0;
    uint32_t i;
    for (i = 0; i < s->n_added; i++) {
        sum += (uint64_t)((int64_t)bp_view_at(run, s->added[i].view, y, x, p, c) * s->added[i].mul);
    }
    return sum;
}

/* Ends channel c of pixel p, whose sum is `total`. */
BP_INLINE void bp_end(const bp_run *run, const bp_sum *s, uint8_t *to, uint32_t y, uint32_t x, uint32_t p, uint32_t c,
                      int64_t total)
{
    uint8_t *pixel = to + (size_t)p * s->to->pixel;
    if (s->end <= BP_TABLES) {
        int32_t lo = s->lo, hi = s->hi, v;
        if (s->end == BP_CODES && s->list) {
            lo = s->list[2 * (size_t)c];
            hi = s->list[2 * (size_t)c + 1];
        }
        if (s->is_far) {
            const int64_t quotient = total >> s->shift;
            v = quotient < lo ? lo : quotient > hi ? hi : (int32_t)quotient;
        } else {
            v = bp_shift(total, s->shift);
            v = v < lo ? lo : v > hi ? hi : v;
        }
        if (s->end != BP_CODES) {
            const size_t entries = (size_t)(s->hi - s->lo) + 1u;
            v = s->list[(s->end == BP_TABLES ? c * entries : 0u) + (size_t)(v - s->lo)];
        }
        bp_put(pixel, s->to->bits, c, v);
    } else if (s->end == BP_VALUES) {
        int64_t v = total >> s->shift;
        if (s->n_added > 0) {
            v = (int64_t)((uint64_t)v + bp_added_at(run, s, y, x, p, c));
        }
        bp_put(pixel, 32, c, (int32_t)v);
    } else if (s->end == BP_WORDS) {
        const int32_t word = (int32_t)total;
        memcpy(to + ((size_t)p * s->to->c + c) * sizeof word, &word, sizeof word);
    } else {
        memcpy(to + ((size_t)p * s->to->c + c) * sizeof total, &total, sizeof total);
    }
}

/* Channels c and c + 1, the first one even, of a pixel of codes; or c alone. */
BP_INLINE void bp_get_two(const uint8_t *pixel, uint32_t bits, uint32_t c, int32_t values[2])
{
    if (bits == 4) {
        const uint32_t both = pixel[c >> 1];
        values[0] = (int32_t)(both & 15u);
        values[1] = (int32_t)(both >> 4);
    } else {
        values[0] = bp_get(pixel, bits, c);
        values[1] = bp_get(pixel, bits, c + 1);
    }
}

BP_INLINE void bp_put_two(uint8_t *pixel, uint32_t bits, uint32_t c, int32_t first, int32_t second)
{
    if (bits == 4) {
        pixel[c >> 1] = (uint8_t)((uint32_t)first | (uint32_t)second << 4);
    } else {
        bp_put(pixel, bits, c, first);
        bp_put(pixel, bits, c + 1, second);
    }
}

BP_INLINE int32_t bp_code_of(int64_t total, uint32_t shift, int32_t lo, int32_t hi)
{
    const int32_t v = bp_shift(total, shift);
    return v < lo ? lo : v > hi ? hi : v;
}

/* Whether `bp_run_usual` computes a sum: products of one plane and tensors of codes, in pairs of channels to codes. */
BP_INLINE int bp_is_usual(const bp_sum *s)
{
    uint32_t i;
    for (i = 0; i < s->n_terms; i++) {
        const bp_term *t = &s->terms[i];
        if (t->kind == BP_PRODUCT) {
            const bp_product *product = t->what;
            if (bp_plane(product->bits) != product->bits) {
                return 0;
            }
        } else if (t->kind == BP_VIEW) {
            const bp_view *view = t->what;
            if (view->source || view->from->bits > 8) {
                return 0;
            }
        } else if (t->kind != BP_DEPTHWISE) {
            return 0;
        }
    }
    return s->end == BP_CODES && !s->list && !s->is_far && s->channels == 2 && s->to->c % 2u == 0;
}

/* Computes a usual sum, as `bp_run_sum` does. */
BP_FUNCTION void bp_run_usual(const bp_run *run, const bp_sum *s, uint8_t *to)
{
    const uint32_t w = s->to->w, pixels = s->to->h * w, channels = s->to->c, shift = s->shift, bits = s->to->bits;
    const int32_t lo = s->lo, hi = s->hi;
    uint32_t p, c, i;
    for (p = 0; p < pixels; p += 2) {
        const uint32_t q = p + 1 < pixels ? p + 1 : p;
        const uint32_t at[4] = {p / w, p % w, q / w, q % w};
        uint8_t *first = to + (size_t)p * s->to->pixel, *second = to + (size_t)q * s->to->pixel;
        for (c = 0; c < channels; c += 2) {
            int64_t t0 = bp_constant(s, c), t2 = bp_constant(s, c + 1), t1 = t0, t3 = t2;
            for (i = 0; i < s->n_terms; i++) {
                const bp_term *t = &s->terms[i];
                const int32_t *mul = t->mul + (size_t)c * t->mul_step;
                const int32_t m0 = mul[0], m1 = mul[t->mul_step];
                if (t->kind == BP_DEPTHWISE) {
                    const bp_product *product = t->what;
                    int32_t values[4];
                    if (c == 0) {
                        bp_gather_taps(run, product, at);
                    }
                    bp_depthwise_at(run, product, c, c + 1, channels, values);
                    t0 += (int64_t)values[0] * m0;
                    t1 += (int64_t)values[1] * m0;
                    t2 += (int64_t)values[2] * m1;
                    t3 += (int64_t)values[3] * m1;
                } else if (t->kind == BP_PRODUCT) {
                    const bp_product *product = t->what;
                    int32_t values[4];
                    if (c == 0 || (product->outputs != channels && c % product->outputs == 0)) {
                        bp_gather_pair(run, product, at, c / product->outputs, run->sums[i]);
                    }
                    bp_plane_at(run, product, c, c + 1, run->sums[i], values);
                    t0 += (int64_t)values[0] * m0;
                    t1 += (int64_t)values[1] * m0;
                    t2 += (int64_t)values[2] * m1;
                    t3 += (int64_t)values[3] * m1;
                } else {
                    const bp_view *view = t->what;
                    const bp_tensor *from = view->from;
                    const uint8_t *data = bp_data(run, from);
                    int32_t x[2], y[2];
                    bp_get_two(data + (size_t)p * from->pixel, from->bits, c, x);
                    bp_get_two(data + (size_t)q * from->pixel, from->bits, c, y);
                    t0 += (int64_t)x[0] * m0;
                    t1 += (int64_t)y[0] * m0;
                    t2 += (int64_t)x[1] * m1;
                    t3 += (int64_t)y[1] * m1;
                }
            }
            bp_put_two(first, bits, c, bp_code_of(t0, shift, lo, hi), bp_code_of(t2, shift, lo, hi));
            if (q != p) {
                bp_put_two(second, bits, c, bp_code_of(t1, shift, lo, hi), bp_code_of(t3, shift, lo, hi));
            }
        }
    }
}

/* A code of a single value, where the shift is 1 to 31 and the quotient fits 32 bits. */
BP_INLINE int32_t bp_narrow(int32_t value, int32_t mul, int32_t add, uint32_t shift, int32_t lo, int32_t hi)
{
    const uint64_t total = (uint64_t)((int64_t)value * mul + add);
    const int32_t v = (int32_t)((uint32_t)(total >> 32) << (32u - shift) | (uint32_t)total >> shift);
    return v < lo ? lo : v > hi ? hi : v;
}

/* Whether a usual sum is one product that `bp_narrow` ends. */
BP_INLINE int bp_is_single(const bp_sum *s)
{
    return s->n_terms == 1 && s->terms->kind != BP_VIEW && !(s->constants & BP_LONG) && s->shift > 0 && s->shift < 32;
}

/* Computes such a sum of a product of one group. */
BP_FUNCTION void bp_run_product(const bp_run *run, const bp_sum *s, uint8_t *to)
{
    const bp_product *product = s->terms->what;
    const uint32_t w = s->to->w, pixels = s->to->h * w, channels = s->to->c, shift = s->shift, bits = s->to->bits;
    const uint32_t add_step = s->constants, mul_step = s->terms->mul_step;
    const int32_t lo = s->lo, hi = s->hi;
    uint32_t p, c;
    for (p = 0; p < pixels; p += 2) {
        const uint32_t q = p + 1 < pixels ? p + 1 : p;
        const uint32_t at[4] = {p / w, p % w, q / w, q % w};
        const int32_t *add = s->add, *mul = s->terms->mul;
        uint8_t *first = to + (size_t)p * s->to->pixel, *second = to + (size_t)q * s->to->pixel;
        bp_gather_pair(run, product, at, 0, run->sums[0]);
        for (c = 0; c < channels; c += 2) {
            const int32_t a0 = add[0], a1 = add[add_step], m0 = mul[0], m1 = mul[mul_step];
            int32_t values[4];
            add += 2u * add_step;
            mul += 2u * mul_step;
            bp_plane_at(run, product, c, c + 1, run->sums[0], values);
            bp_put_two(first, bits, c, bp_narrow(values[0], m0, a0, shift, lo, hi),
                       bp_narrow(values[2], m1, a1, shift, lo, hi));
            bp_put_two(second, bits, c, bp_narrow(values[1], m0, a0, shift, lo, hi),
                       bp_narrow(values[3], m1, a1, shift, lo, hi));
        }
    }
}

#ifdef BP_DSP
/* Four channels of a product by channel for one pixel, from the pixels under its taps: codes and weights of `bits`, whose
 * scale is 1 or 2 and whose offset is in both halves of a word. */
BP_INLINE void bp_quad_at(const uint8_t *const *taps, uint32_t n, uint32_t at, const uint8_t *w, uint32_t step,
                          uint32_t bits, uint32_t scale, uint32_t offset, int32_t values[4])
{
    const uint32_t mask = scale == 1 ? 0x000f000fu : 0x001e001eu;
    const uint8_t *const *end = taps + n;
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (; taps < end; w += step) {
        const uint8_t *x = *taps++ + at;
        uint32_t even, odd, u, v;
        if (bits == 8) {
            const uint32_t codes = bp_word(x), weights = bp_word(w);
            even = bp_even_codes(codes);
            odd = bp_odd_codes(codes);
            u = bp_even_bytes(weights);
            v = bp_odd_bytes(weights);
        } else {
            const uint32_t codes = bp_four_fields(x), weights = scale == 1 ? bp_four_fields(w) : bp_four_fields(w) << 1;
            even = codes & 0x000f000fu;
            odd = codes >> 4 & 0x000f000fu;
            u = (uint32_t)__sadd16((int16x2_t)(weights & mask), (int16x2_t)offset);
            v = (uint32_t)__sadd16((int16x2_t)(weights >> 4 & mask), (int16x2_t)offset);
        }
        s0 = __smlabb((int32_t)even, (int32_t)u, s0);
        s1 = __smlabb((int32_t)odd, (int32_t)v, s1);
        s2 = __smlatt((int32_t)even, (int32_t)u, s2);
        s3 = __smlatt((int32_t)odd, (int32_t)v, s3);
    }
    values[0] = s0;
    values[1] = s1;
    values[2] = s2;
    values[3] = s3;
}

/* Whether `bp_run_quads` computes a single product: by channel, of as many bits as its codes. */
BP_INLINE int bp_is_quads(const bp_sum *s)
{
    const bp_product *p = s->terms->what;
    return s->terms->kind == BP_DEPTHWISE && s->to->c % 4u == 0 && p->outputs == 1 &&
           p->from->at != BP_IMAGE && p->from->bits == p->bits && (p->bits == 4 || (p->bits == 8 && p->scale == 1));
}

/* Computes such a sum, four channels of a pixel at a time. Padding is a pixel of its code, in the place of columns. */
BP_INLINE void bp_run_quads(const bp_run *run, const bp_sum *s, uint8_t *to, uint32_t bits, uint32_t scale)
{
    const bp_product *product = s->terms->what;
    const uint32_t w = s->to->w, pixels = s->to->h * w, channels = s->to->c, shift = s->shift;
    const uint32_t n = product->k, step = channels * bits / 8u, add_step = s->constants, mul_step = s->terms->mul_step;
    const uint32_t offset = (uint32_t)(uint16_t)product->offset * 0x00010001u;
    const int32_t lo = s->lo, hi = s->hi;
    const uint8_t **taps = run->taps + product->column;
    uint32_t p, c, i;
    memset(run->columns, product->padding * (bits == 8 ? 1 : 17), step);
    for (p = 0; p < pixels; p++) {
        const int32_t *add = s->add, *mul = s->terms->mul;
        uint8_t *pixel = to + (size_t)p * s->to->pixel;
        bp_gather_pixel(run, product, p / w, p % w, taps);
        for (i = 0; i < n; i++) {
            if (!taps[i]) {
                taps[i] = (const uint8_t *)run->columns;
            }
        }
        for (c = 0; c < channels; c += 4) {
            const uint32_t at = c * bits / 8u;
            int32_t values[4];
            bp_quad_at(taps, n, at, product->weights + at, step, bits, scale, offset, values);
            for (i = 0; i < 4; i++) {
                values[i] = bp_narrow(values[i], *mul, *add, shift, lo, hi);
                mul += mul_step;
                add += add_step;
            }
            bp_put_two(pixel, s->to->bits, c, values[0], values[1]);
            bp_put_two(pixel, s->to->bits, c + 2, values[2], values[3]);
        }
    }
}

BP_FUNCTION void bp_run_depthwise(const bp_run *run, const bp_sum *s, uint8_t *to)
{
    const bp_product *product = s->terms->what;
    if (product->bits == 8) {
        bp_run_quads(run, s, to, 8, 1);
    } else if (product->scale == 1) {
        bp_run_quads(run, s, to, 4, 1);
    } else {
        bp_run_quads(run, s, to, 4, 2);
    }
}
#endif

/* Computes a sum, two pixels and up to two channels at a time. */
BP_FUNCTION void bp_run_sum(const bp_run *run, const bp_sum *s, uint8_t *to)
{
    const uint32_t w = s->to->w, pixels = s->to->h * w, channels = s->to->c;
    uint32_t p, c, i, j;
    if (bp_is_usual(s)) {
        if (bp_is_single(s)) {
            const bp_product *product = s->terms->what;
            if (s->terms->kind == BP_PRODUCT && product->outputs == channels) {
                bp_run_product(run, s, to);
                return;
            }
#ifdef BP_DSP
            if (bp_is_quads(s)) {
                bp_run_depthwise(run, s, to);
                return;
            }
#endif
        }
        bp_run_usual(run, s, to);
        return;
    }
    for (p = 0; p < pixels; p += 2) {
        const uint32_t q = p + 1 < pixels ? p + 1 : p;
        const uint32_t at[4] = {p / w, p % w, q / w, q % w};
        for (i = 0; i < s->n_terms; i++) {
            if (s->terms[i].kind == BP_DEPTHWISE) {
                bp_gather_taps(run, s->terms[i].what, at);
            }
        }
        for (c = 0; c < channels; c += s->channels) {
            const uint32_t d = s->channels == 2 && c + 1 < channels ? c + 1 : c;
            int64_t total[4];
            for (j = 0; j < 4; j++) {
                total[j] = bp_constant(s, j < 2 ? c : d);
            }
            for (i = 0; i < s->n_terms; i++) {
                const bp_term *t = &s->terms[i];
                const int32_t mul[2] = {t->mul[(size_t)c * t->mul_step], t->mul[(size_t)d * t->mul_step]};
                int32_t values[4];
                if (t->kind == BP_PRODUCT) {
                    const bp_product *product = t->what;
                    if (c % product->outputs == 0) {
                        bp_gather_pair(run, product, at, c / product->outputs, run->sums[i]);
                    }
                    bp_product_at(run, product, c, d, run->sums[i], values);
                } else if (t->kind == BP_DEPTHWISE) {
                    bp_depthwise_at(run, t->what, c, d, channels, values);
                } else if (t->kind == BP_WIDE) {
                    for (j = 0; j < 4; j++) {
                        const uint32_t *place = at + 2 * (j & 1u);
                        total[j] += bp_wide_at(run, t->what, j < 2 ? c : d, place[0], place[1]) * mul[j >> 1];
                    }
                    continue;
                } else {
                    const bp_view *views = t->what;
                    for (j = 0; j < 4; j++) {
                        const uint32_t y = at[2 * (j & 1u)], x = at[2 * (j & 1u) + 1], pixel = j & 1u ? q : p;
                        const uint32_t o = j < 2 ? c : d;
                        values[j] = bp_view_at(run, &views[0], y, x, pixel, o);
                        if (t->kind == BP_MULTIPLY) {
                            const int32_t b = t->is_one_pixel ? bp_view_at(run, &views[1], 0, 0, 0, o)
                                                              : bp_view_at(run, &views[1], y, x, pixel, o);
                            values[j] = (values[j] - t->zeros[0]) * (b - t->zeros[1]);
                        }
                    }
                }
                for (j = 0; j < 4; j++) {
                    total[j] += (int64_t)values[j] * mul[j >> 1];
                }
            }
            bp_end(run, s, to, at[0], at[1], p, c, total[0]);
            if (q != p) {
                bp_end(run, s, to, at[2], at[3], q, c, total[1]);
            }
            if (d != c) {
                bp_end(run, s, to, at[0], at[1], p, d, total[2]);
                if (q != p) {
                    bp_end(run, s, to, at[2], at[3], q, d, total[3]);
                }
            }
        }
    }
}
