
/* Kinds of the terms of a sum. */
enum { BP_PRODUCT, BP_DEPTHWISE, BP_WIDE, BP_VIEW, BP_MULTIPLY };

/* A term: its value times the multiplier of the channel. */
typedef struct {
    uint32_t kind;
    const bp_product *product;
    const bp_view *a, *b;
    int32_t zeros[2];
    uint32_t is_one_pixel; /* b stands for every pixel */
    const int32_t *mul;    /* of each channel, or one */
    uint32_t mul_step;     /* 1, or 0 */
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
    uint32_t n_terms;
    const bp_added *added;
    uint32_t n_added;
    const int32_t *add; /* constant of each channel, or one; of 64 bits, its low and its high word */
    uint32_t add_step;  /* 1; 2 with 64 bits; 0 of one */
    uint32_t is_long;   /* constants have 64 bits */
    uint32_t shift;
    uint32_t end;
    uint32_t is_far; /* the quotient may need more than 32 bits before it is clamped */
    int32_t lo, hi;
    const uint8_t *bounds; /* lo and hi of each channel */
    const uint8_t *tables;
    uint32_t table_step; /* bytes from the table of a channel to the next */
    uint32_t channels;   /* that are computed at once: 2, or 1 where groups have an odd number */
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

/* Computes a sum, two pixels and up to two channels at a time. */
BP_FUNCTION void bp_run_sum(const bp_run *run, const bp_sum *s, uint8_t *to)
{
    const uint32_t w = s->to->w, pixels = s->to->h * w, channels = s->to->c;
    uint32_t p, c, i, j;
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
