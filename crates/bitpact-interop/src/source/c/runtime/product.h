
/* A convolution or linear layer: value = scale * sum of field * code + offset * sum of codes. */
typedef struct {
    const bp_tensor *from;
    const uint8_t *weights;
    const bp_window *window;
    uint32_t k;       /* weights of an output channel */
    uint32_t inputs;  /* input channels of a group */
    uint32_t outputs; /* output channels of a group */
    int32_t padding;  /* code of the padding, where it is not that of the image */
    uint32_t column;  /* first code of its columns */
    uint8_t bits;     /* of a weight: 1 to 8, or 16 */
    uint8_t scale;
    int16_t offset;
} bp_product;

/* Bits of the next plane of weights of which so many bits are left: 7 are planes of 4, 2 and 1. */
BP_INLINE uint32_t bp_plane(uint32_t left)
{
    return left >= 8 ? 8u : left >= 4 ? 4u : left >= 2 ? 2u : left;
}

/* Bytes of a plane of an output channel: whole words. */
BP_INLINE uint32_t bp_plane_bytes(const bp_product *p, uint32_t plane)
{
    return ((p->k * plane + 31u) >> 5) << 2;
}

/* The code of padding in channel c. */
BP_INLINE int32_t bp_padding(const bp_run *run, const bp_product *p, uint32_t c)
{
    return p->from->at == BP_IMAGE && run->zeros ? run->zeros[c] : p->padding;
}

/* Writes n codes of padding to a column, from code k on. */
BP_INLINE void bp_pad_column(const bp_run *run, bp_code *column, uint32_t k, uint32_t n, const bp_product *p,
                             uint32_t first, uint32_t bits)
{
    uint32_t i;
    for (i = 0; i < n; i++) {
        column[bp_place(k + i, bits)] = (bp_code)bp_padding(run, p, first + i);
    }
}

#ifdef BP_DSP
/* Takes the fields of whole words apart: their order is that of the column. */
BP_INLINE void bp_spread_words(bp_code *column, const uint8_t *from, uint32_t words, uint32_t bits, uint32_t mask)
{
    bp_pair *at = (bp_pair *)column;
    uint32_t i;
    for (; words > 0; words--) {
        uint32_t word = bp_word(from);
        from += 4;
        for (i = 0; i < 32; i += 2 * bits) {
            *at = word & mask;
            word >>= bits;
            at += 2;
        }
    }
}
#endif

/* Writes n codes of a pixel, from channel `first` on, to a column, from code k on. */
BP_INLINE void bp_spread(bp_code *column, uint32_t k, const uint8_t *pixel, uint32_t first, uint32_t n, uint32_t from,
                         uint32_t bits)
{
    uint32_t i = 0;
#ifdef BP_DSP
    const uint32_t group = 32u / bits;
    if (from == bits && ((k | n | first) & (group - 1u)) == 0) {
        column += 2u * k;
        pixel += first * bits / 8u;
        if (bits == 8) {
            bp_spread_words(column, pixel, n / 4u, 8, 0x00ff00ffu);
        } else if (bits == 4) {
            bp_spread_words(column, pixel, n / 8u, 4, 0x000f000fu);
        } else if (bits == 2) {
            bp_spread_words(column, pixel, n / 16u, 2, 0x00030003u);
        } else {
            bp_spread_words(column, pixel, n / 32u, 1, 0x00010001u);
        }
        return;
    }
    if (bits == 8 && from == 4 && ((k | first) & 3u) == 0) {
        const uint8_t *codes = pixel + first / 2u;
        for (; i + 4 <= n; i += 4, codes += 2) {
            const uint32_t word = (uint32_t)codes[0] | (uint32_t)codes[1] << 8;
            const uint32_t even = (word & 0x0fu) | (word & 0xf00u) << 8;
            const uint32_t odd = (word >> 4 & 0x0fu) | (word >> 4 & 0xf00u) << 8;
            bp_pair *at = (bp_pair *)(column + 2u * (k + i));
            at[0] = even;
            at[2] = odd;
        }
    }
#else
    if (from == 8) {
        memcpy(column + k, pixel + first, n);
        return;
    }
    if (from == 4 && (first & 1u) == 0) {
        const uint8_t *codes = pixel + first / 2u;
        for (; i + 2 <= n; i += 2, codes++) {
            column[k + i] = (bp_code)(*codes & 15u);
            column[k + i + 1] = (bp_code)(*codes >> 4);
        }
    }
#endif
    for (; i < n; i++) {
        column[bp_place(k + i, bits)] = (bp_code)bp_get(pixel, from, first + i);
    }
}

/* Writes what output (y, x) sees of a group to a column in the order of planes of `bits`, and zeros behind it. */
BP_FUNCTION void bp_gather(const bp_run *run, const bp_product *p, bp_code *column, uint32_t y, uint32_t x,
                           uint32_t group, uint32_t bits)
{
    const bp_tensor *t = p->from;
    const bp_window *v = p->window;
    const uint8_t *data = bp_data(run, t);
    const uint32_t n = p->inputs, first = group * n;
    uint32_t a, b, k = 0;
    /* Pixels of a row that follow each other without gaps are one run of codes. */
    const int is_run = n == t->c && t->pixel * 8u == t->c * t->bits && v->dilation_x == 1 && v->spread_x == 1;
    const uint32_t from = x * v->stride_x;
    const int is_inside = is_run && from >= v->left && from - v->left + v->columns <= t->w;
    for (a = 0; a < v->rows; a++) {
        if (is_inside) {
            const uint32_t row = bp_source(y, a, v->stride_y, v->dilation_y, v->top, v->spread_y, t->h);
            if (row != UINT32_MAX) {
                const uint8_t *pixel = data + ((size_t)row * t->w + (from - v->left)) * t->pixel;
                bp_spread(column, k, pixel, 0, n * v->columns, t->bits, bits);
                k += n * v->columns;
                continue;
            }
        }
        for (b = 0; b < v->columns; b++) {
            const uint8_t *pixel = bp_tap(v, t, data, y, x, a, b);
            if (pixel) {
                bp_spread(column, k, pixel, first, n, t->bits, bits);
            } else {
                bp_pad_column(run, column, k, n, p, first, bits);
            }
            k += n;
        }
    }
    for (; k < BP_PAD(p->k, bits); k++) {
        column[bp_place(k, bits)] = 0;
    }
}

/* The column of a pixel for the last `bits` bits of weights: where the order of a column is that of its plane, planes
 * have their own. */
BP_INLINE bp_code *bp_column(const bp_run *run, const bp_product *p, uint32_t bits, uint32_t which)
{
#ifdef BP_DSP
    bp_code *column = run->columns + p->column;
    uint32_t left;
    for (left = p->bits; left > bits; left -= bp_plane(left)) {
        column += 2u * BP_PAD(p->k, bp_plane(left));
    }
    return column + 2u * which;
#else
    (void)bits;
    return run->columns + p->column + which * BP_PAD(p->k, 1u);
#endif
}

/* Gathers the columns of a group for pixels (y0, x0) and (y1, x1), and their sums. */
BP_FUNCTION void bp_gather_pair(const bp_run *run, const bp_product *p, const uint32_t at[4], uint32_t group,
                                int32_t sums[2])
{
    uint32_t left, which;
    for (left = p->bits; left > 0; left -= bp_plane(left)) {
        for (which = 0; which < 2; which++) {
#ifdef BP_DSP
            bp_gather(run, p, bp_column(run, p, left, which), at[2 * which], at[2 * which + 1], group, bp_plane(left));
#else
            if (left == p->bits) {
                bp_gather(run, p, bp_column(run, p, left, which), at[2 * which], at[2 * which + 1], group, 1);
            }
#endif
        }
    }
    sums[0] = 0;
    sums[1] = 0;
    if (p->offset != 0 || (BP_SUMS_OF_BYTES && p->bits == 8)) {
        sums[0] = bp_column_sum(bp_column(run, p, p->bits, 0), BP_PAD(p->k, bp_plane(p->bits)));
        sums[1] = bp_column_sum(bp_column(run, p, p->bits, 1), BP_PAD(p->k, bp_plane(p->bits)));
    }
}

/* Values of output channels c and d for two pixels: [c][pixel 0], [c][pixel 1], [d][pixel 0], [d][pixel 1]. */
BP_INLINE void bp_product_at(const bp_run *run, const bp_product *p, uint32_t c, uint32_t d, const int32_t sums[2],
                             int32_t values[4])
{
    const uint8_t *u = p->weights, *v = u;
    uint32_t left, shift = 0, i;
    for (left = p->bits; left > 0; left -= bp_plane(left)) {
        u += (size_t)c * bp_plane_bytes(p, bp_plane(left));
        v += (size_t)d * bp_plane_bytes(p, bp_plane(left));
    }
    for (i = 0; i < 4; i++) {
        values[i] = 0;
    }
    for (left = p->bits; left > 0; left -= bp_plane(left)) {
        const uint32_t bits = bp_plane(left);
        const bp_code *a = bp_column(run, p, left, 0), *b = bp_column(run, p, left, 1);
        int32_t dots[4];
        if (bits == 4) {
            bp_dot(u, v, a, b, p->k, 4, dots);
        } else if (bits == 2) {
            bp_dot(u, v, a, b, p->k, 2, dots);
        } else if (bits == 8) {
            bp_dot(u, v, a, b, p->k, 8, dots);
            for (i = 0; i < 4; i++) {
                dots[i] += bp_correct(sums[i & 1u]);
            }
        } else {
            bp_dot(u, v, a, b, p->k, 1, dots);
        }
        for (i = 0; i < 4; i++) {
            values[i] += dots[i] * (int32_t)(1u << shift);
        }
        shift += bits;
        u += bp_plane_bytes(p, bits);
        v += bp_plane_bytes(p, bits);
    }
    for (i = 0; i < 4; i++) {
        values[i] = values[i] * p->scale + p->offset * sums[i & 1u];
    }
}

/* The same of a product whose weights are one plane: scale * values + offset * sums. */
BP_FUNCTION void bp_plane_at(const bp_run *run, const bp_product *p, uint32_t c, uint32_t d, const int32_t sums[2],
                             int32_t values[4])
{
    const uint32_t bits = p->bits, row = bp_plane_bytes(p, bits);
    const uint8_t *u = p->weights + (size_t)c * row, *v = p->weights + (size_t)d * row;
    const bp_code *a = bp_column(run, p, bits, 0), *b = bp_column(run, p, bits, 1);
    if (bits == 4) {
        bp_dot(u, v, a, b, p->k, 4, values);
    } else if (bits == 2) {
        bp_dot(u, v, a, b, p->k, 2, values);
    } else if (bits == 8) {
        const int32_t s0 = bp_correct(sums[0]), s1 = bp_correct(sums[1]);
        bp_dot(u, v, a, b, p->k, 8, values);
        values[0] += s0;
        values[1] += s1;
        values[2] += s0;
        values[3] += s1;
    } else {
        bp_dot(u, v, a, b, p->k, 1, values);
    }
    if (p->offset != 0) {
        const int32_t s0 = p->offset * sums[0], s1 = p->offset * sums[1], scale = p->scale;
        values[0] = values[0] * scale + s0;
        values[1] = values[1] * scale + s1;
        values[2] = values[2] * scale + s0;
        values[3] = values[3] * scale + s1;
    }
}

/* Pixels under the window of a product by channel at (y, x); null where that is padding. */
BP_INLINE void bp_gather_pixel(const bp_run *run, const bp_product *p, uint32_t y, uint32_t x, const uint8_t **taps)
{
    const bp_window *v = p->window;
    const uint8_t *data = bp_data(run, p->from);
    uint32_t a, b;
    for (a = 0; a < v->rows; a++) {
        for (b = 0; b < v->columns; b++) {
            *taps++ = bp_tap(v, p->from, data, y, x, a, b);
        }
    }
}

/* The same of two pixels, one after the other. */
BP_FUNCTION void bp_gather_taps(const bp_run *run, const bp_product *p, const uint32_t at[4])
{
    const uint8_t **taps = run->taps + p->column;
    bp_gather_pixel(run, p, at[0], at[1], taps);
    bp_gather_pixel(run, p, at[2], at[3], taps + p->k);
}

/* Weight `field` of a product by channel. */
BP_INLINE int32_t bp_tap_weight(const bp_product *p, size_t field, uint32_t bits)
{
    if (bits == 8) {
        return (int8_t)p->weights[field];
    }
    if (bits == 4) {
        return (int32_t)((uint32_t)p->weights[field >> 1] >> (field & 1u) * 4u & 15u);
    }
    return (int32_t)bp_field(p->weights, field, bits);
}

/* Values of output channels c and d of a product by channel for two pixels, as `bp_product_at`; the weights of a channel
 * are fields tap * channels + channel. Codes have `from` bits and weights `bits`. */
BP_INLINE void bp_taps_at(const bp_run *run, const bp_product *p, uint32_t c, uint32_t d, uint32_t channels,
                          uint32_t from, uint32_t bits, int32_t values[4])
{
    const uint8_t **taps = run->taps + p->column;
    const uint32_t i = p->outputs == 1 ? c : c / p->outputs, j = p->outputs == 1 ? d : d / p->outputs;
    const int32_t pad_i = bp_padding(run, p, i), pad_j = bp_padding(run, p, j);
    const int32_t scale = p->scale, offset = p->offset;
    const uint32_t n = p->k;
    size_t field = c;
    uint32_t k;
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (k = 0; k < n; k++, field += channels) {
        const uint8_t *x = taps[k], *y = taps[n + k];
        const int32_t u = bp_tap_weight(p, field, bits) * scale + offset;
        const int32_t v = bp_tap_weight(p, field + (d - c), bits) * scale + offset;
        s0 += u * (x ? bp_get(x, from, i) : pad_i);
        s1 += u * (y ? bp_get(y, from, i) : pad_i);
        s2 += v * (x ? bp_get(x, from, j) : pad_j);
        s3 += v * (y ? bp_get(y, from, j) : pad_j);
    }
    values[0] = s0;
    values[1] = s1;
    values[2] = s2;
    values[3] = s3;
}

/* The same of codes of 4 or 8 bits and weights of so many, where d = c + 1, c is even and each output has its input. */
BP_INLINE void bp_pairs_at(const bp_run *run, const bp_product *p, uint32_t c, uint32_t channels, uint32_t bits,
                           int32_t values[4])
{
    const uint8_t **taps = run->taps + p->column, *w = p->weights + c * bits / 8u;
    const int32_t scale = p->scale, offset = p->offset;
    const uint32_t n = p->k, step = channels * bits / 8u, at = c * bits / 8u;
    const uint32_t pad = (uint32_t)p->padding;
    uint32_t k;
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (k = 0; k < n; k++, w += step) {
        const uint8_t *x = taps[k], *y = taps[n + k];
        int32_t u, v;
        if (bits == 8) {
            u = (int8_t)w[0] * scale + offset;
            v = (int8_t)w[1] * scale + offset;
        } else {
            u = (w[0] & 15) * scale + offset;
            v = (w[0] >> 4) * scale + offset;
        }
        if (x) {
            const uint32_t first = bits == 8 ? x[at] : x[at] & 15u, second = bits == 8 ? x[at + 1] : x[at] >> 4;
            s0 += u * (int32_t)first;
            s2 += v * (int32_t)second;
        } else {
            s0 += u * (int32_t)pad;
            s2 += v * (int32_t)pad;
        }
        if (y) {
            const uint32_t first = bits == 8 ? y[at] : y[at] & 15u, second = bits == 8 ? y[at + 1] : y[at] >> 4;
            s1 += u * (int32_t)first;
            s3 += v * (int32_t)second;
        } else {
            s1 += u * (int32_t)pad;
            s3 += v * (int32_t)pad;
        }
    }
    values[0] = s0;
    values[1] = s1;
    values[2] = s2;
    values[3] = s3;
}

BP_INLINE void bp_depthwise_at(const bp_run *run, const bp_product *p, uint32_t c, uint32_t d, uint32_t channels,
                               int32_t values[4])
{
    const uint32_t from = p->from->bits;
    const int is_pair = d == c + 1 && ((c | channels) & 1u) == 0 && p->outputs == 1 &&
                        p->from->at != BP_IMAGE && from == p->bits;
    if (is_pair && from == 8) {
        bp_pairs_at(run, p, c, channels, 8, values);
    } else if (is_pair && from == 4) {
        bp_pairs_at(run, p, c, channels, 4, values);
    } else {
        bp_taps_at(run, p, c, d, channels, from, p->bits, values);
    }
}

/* A product of wide codes, wide weights or long rows: weight by weight, in 64 bits. */
BP_FUNCTION int64_t bp_wide_at(const bp_run *run, const bp_product *p, uint32_t c, uint32_t y, uint32_t x)
{
    const bp_tensor *t = p->from;
    const bp_window *v = p->window;
    const uint8_t *data = bp_data(run, t), *row = p->weights + (size_t)c * ((p->k * p->bits + 7u) / 8u);
    const uint32_t first = c / p->outputs * p->inputs;
    int64_t sum = 0;
    uint32_t a, b, i, k = 0;
    for (a = 0; a < v->rows; a++) {
        for (b = 0; b < v->columns; b++) {
            const uint8_t *pixel = bp_tap(v, t, data, y, x, a, b);
            for (i = 0; i < p->inputs; i++, k++) {
                const int64_t code = pixel ? bp_get(pixel, t->bits, first + i)
                                           : bp_padding(run, p, first + i);
                int32_t w;
                if (p->bits == 16) {
                    w = (int16_t)bp_field(row, k, 16);
                } else if (p->bits == 8) {
                    w = (int8_t)row[k];
                } else {
                    w = (int32_t)bp_field(row, k, p->bits);
                }
                sum += code * (w * p->scale + p->offset);
            }
        }
    }
    return sum;
}
