
/* The largest value of every window; padding is left out. */
BP_FUNCTION void bp_max_pool(const bp_run *run, const bp_tensor *from, const bp_window *v, const bp_tensor *to)
{
    const uint8_t *data = bp_data(run, from);
    uint8_t *out = run->arena + to->at;
    uint32_t y, x, c, a, b;
    for (y = 0; y < to->h; y++) {
        for (x = 0; x < to->w; x++, out += to->pixel) {
            int is_first = 1;
            for (a = 0; a < v->rows; a++) {
                for (b = 0; b < v->columns; b++) {
                    const uint8_t *pixel = bp_tap(v, from, data, y, x, a, b);
                    if (!pixel) {
                        continue;
                    }
                    for (c = 0; c < to->c; c++) {
                        const int32_t value = bp_get(pixel, from->bits, c);
                        if (is_first || value > bp_get(out, to->bits, c)) {
                            bp_put(out, to->bits, c, value);
                        }
                    }
                    is_first = 0;
                }
            }
        }
    }
}

/* Sums over windows: (sum - n * padding) * factor + n * padding * largest factor. */
BP_FUNCTION void bp_window_sum(const bp_run *run, const bp_tensor *from, const bp_window *v, const bp_tensor *to,
                               uint32_t padding, const uint32_t *factors, uint32_t largest)
{
    const uint8_t *data = bp_data(run, from);
    const int64_t zero = (int64_t)v->rows * v->columns * padding;
    uint8_t *out = run->arena + to->at;
    uint32_t y, x, c, a, b;
    for (y = 0; y < to->h; y++) {
        for (x = 0; x < to->w; x++, out += to->pixel) {
            const int64_t factor = factors ? factors[(size_t)y * to->w + x] : 1;
            for (c = 0; c < to->c; c++) {
                int64_t sum = 0;
                for (a = 0; a < v->rows; a++) {
                    for (b = 0; b < v->columns; b++) {
                        const uint8_t *pixel = bp_tap(v, from, data, y, x, a, b);
                        sum += pixel ? bp_get(pixel, from->bits, c) : (int32_t)padding;
                    }
                }
                bp_put(out, to->bits, c, (int32_t)((sum - zero) * factor + zero * largest));
            }
        }
    }
}

/* The channels of a tensor as those of another from channel `first` on. */
BP_FUNCTION void bp_copy_channels(const bp_run *run, const bp_tensor *from, const bp_tensor *to, uint32_t first)
{
    const uint8_t *in = bp_data(run, from);
    uint8_t *out = run->arena + to->at;
    uint32_t p, c;
    for (p = 0; p < to->h * to->w; p++, in += from->pixel, out += to->pixel) {
        for (c = 0; c < from->c; c++) {
            bp_put(out, to->bits, first + c, bp_get(in, from->bits, c));
        }
    }
}

/* A tensor with its elements moved. */
BP_FUNCTION void bp_move_elements(const bp_run *run, const bp_view *view, const bp_tensor *to)
{
    uint8_t *out = run->arena + to->at;
    uint32_t y, x, c;
    for (y = 0; y < to->h; y++) {
        for (x = 0; x < to->w; x++, out += to->pixel) {
            for (c = 0; c < to->c; c++) {
                bp_put(out, to->bits, c, bp_view_at(run, view, y, x, y * to->w + x, c));
            }
        }
    }
}

/* Writes the values of a tensor in elements of `bits`: 8, 16 or 32. */
BP_FUNCTION void bp_write(const bp_run *run, const bp_tensor *from, uint8_t *to, uint32_t bits)
{
    const uint8_t *in = bp_data(run, from);
    uint32_t p, c;
    for (p = 0; p < from->h * from->w; p++, in += from->pixel, to += (size_t)from->c * bits / 8) {
        for (c = 0; c < from->c; c++) {
            bp_put(to, bits, c, bp_get(in, from->bits, c));
        }
    }
}

#endif
