
/* Kinds of the terms of a sum. */
enum { BP_PRODUCT, BP_DEPTHWISE, BP_WIDE, BP_VIEW, BP_MULTIPLY };

/* A term: its value times the multiplier of the channel. */
typedef struct {
    uint8_t kind;
    uint8_t is_one_pixel; /* b stands for every pixel */
    uint8_t mul_step;     /* 1, or 0 with one multiplier for all channels */
    uint8_t zeros[2];
    const int32_t *mul;
    const bp_product *product;
    const bp_view *a, *b;
} bp_term;

/* A view that is added after the shift. */
typedef struct {
    const bp_view *view;
    int32_t mul;
} bp_added;

/* end(((sum of values * multipliers + constant) >> shift) + sum of views * multipliers). */
enum { BP_CODES, BP_TABLE, BP_VALUES, BP_WORDS, BP_LONG_WORDS };

typedef struct {
    const bp_tensor *to;
    const bp_term *terms;
    const bp_added *added;
    const int32_t *add; /* constant of each channel, or one; of 64 bits, its low and its high word */
    const uint8_t *bounds; /* lo and hi of each channel */
    const uint8_t *tables;
    int32_t lo, hi;
    uint16_t table_step; /* bytes from the table of a channel to the next */
    uint8_t n_terms, n_added;
    uint8_t add_step; /* 1; 2 with 64 bits; 0 of one */
    uint8_t is_long;  /* constants have 64 bits */
    uint8_t shift;
    uint8_t end;
    uint8_t is_far;   /* the quotient may need more than 32 bits before it is clamped */
    uint8_t channels; /* that are computed at once: 2, or 1 where groups have an odd number */
} bp_sum;

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
    if (s->end <= BP_TABLE) {
        int32_t lo = s->lo, hi = s->hi, v;
        if (s->bounds) {
            lo = s->bounds[2 * (size_t)c];
            hi = s->bounds[2 * (size_t)c + 1];
        }
        if (s->is_far) {
            const int64_t quotient = total >> s->shift;
            v = quotient < lo ? lo : quotient > hi ? hi : (int32_t)quotient;
        } else {
            v = bp_shift(total, s->shift);
            v = v < lo ? lo : v > hi ? hi : v;
        }
        if (s->end == BP_TABLE) {
            v = s->tables[(size_t)c * s->table_step + (size_t)(v - s->lo)];
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
        const int is_product = t->kind == BP_PRODUCT && t->product->planes[1] == 0;
        const int is_tensor = t->kind == BP_VIEW && !t->a->source && t->a->from->bits <= 8;
        if (!is_product && !is_tensor && t->kind != BP_DEPTHWISE) {
            return 0;
        }
    }
    return s->end == BP_CODES && !s->bounds && !s->is_far && s->channels == 2 && s->to->c % 2u == 0;
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
            const int32_t *add = s->add + (size_t)c * s->add_step, *next = add + s->add_step;
            int64_t t0 = add[0], t2 = next[0], t1, t3;
            if (s->is_long) {
                t0 = (int64_t)((uint64_t)(uint32_t)add[0] | (uint64_t)(uint32_t)add[1] << 32);
                t2 = (int64_t)((uint64_t)(uint32_t)next[0] | (uint64_t)(uint32_t)next[1] << 32);
            }
            t1 = t0;
            t3 = t2;
            for (i = 0; i < s->n_terms; i++) {
                const bp_term *t = &s->terms[i];
                const int32_t *mul = t->mul + (size_t)c * t->mul_step;
                const int32_t m0 = mul[0], m1 = mul[t->mul_step];
                if (t->kind == BP_DEPTHWISE) {
                    int32_t values[4];
                    if (c == 0) {
                        bp_gather_taps(run, t->product, at);
                    }
                    bp_depthwise_at(run, t->product, c, c + 1, channels, values);
                    t0 += (int64_t)values[0] * m0;
                    t1 += (int64_t)values[1] * m0;
                    t2 += (int64_t)values[2] * m1;
                    t3 += (int64_t)values[3] * m1;
                } else if (t->kind == BP_PRODUCT) {
                    const bp_product *product = t->product;
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
                    const bp_tensor *from = t->a->from;
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

/* Computes a sum, two pixels and up to two channels at a time. */
BP_FUNCTION void bp_run_sum(const bp_run *run, const bp_sum *s, uint8_t *to)
{
    const uint32_t w = s->to->w, pixels = s->to->h * w, channels = s->to->c;
    uint32_t p, c, i, j;
    if (bp_is_usual(s)) {
        bp_run_usual(run, s, to);
        return;
    }
    for (p = 0; p < pixels; p += 2) {
        const uint32_t q = p + 1 < pixels ? p + 1 : p;
        const uint32_t at[4] = {p / w, p % w, q / w, q % w};
        for (i = 0; i < s->n_terms; i++) {
            if (s->terms[i].kind == BP_DEPTHWISE) {
                bp_gather_taps(run, s->terms[i].product, at);
            }
        }
        for (c = 0; c < channels; c += s->channels) {
            const uint32_t d = s->channels == 2 && c + 1 < channels ? c + 1 : c;
            int64_t total[4];
            for (j = 0; j < 4; j++) {
                const int32_t *add = s->add + (size_t)(j < 2 ? c : d) * s->add_step;
                total[j] = s->is_long ? (int64_t)((uint64_t)(uint32_t)add[0] | (uint64_t)(uint32_t)add[1] << 32) : add[0];
            }
            for (i = 0; i < s->n_terms; i++) {
                const bp_term *t = &s->terms[i];
                const int32_t mul[2] = {t->mul[(size_t)c * t->mul_step], t->mul[(size_t)d * t->mul_step]};
                int32_t values[4];
                if (t->kind == BP_PRODUCT) {
                    const bp_product *product = t->product;
                    if (c % product->outputs == 0) {
                        bp_gather_pair(run, product, at, c / product->outputs, run->sums[i]);
                    }
                    bp_product_at(run, product, c, d, run->sums[i], values);
                } else if (t->kind == BP_DEPTHWISE) {
                    bp_depthwise_at(run, t->product, c, d, channels, values);
                } else if (t->kind == BP_WIDE) {
                    for (j = 0; j < 4; j++) {
                        const uint32_t *place = at + 2 * (j & 1u);
                        total[j] += bp_wide_at(run, t->product, j < 2 ? c : d, place[0], place[1]) * mul[j >> 1];
                    }
                    continue;
                } else {
                    for (j = 0; j < 4; j++) {
                        const uint32_t y = at[2 * (j & 1u)], x = at[2 * (j & 1u) + 1], pixel = j & 1u ? q : p;
                        const uint32_t o = j < 2 ? c : d;
                        values[j] = bp_view_at(run, t->a, y, x, pixel, o);
                        if (t->kind == BP_MULTIPLY) {
                            const int32_t b = t->is_one_pixel ? bp_view_at(run, t->b, 0, 0, 0, o)
                                                              : bp_view_at(run, t->b, y, x, pixel, o);
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
