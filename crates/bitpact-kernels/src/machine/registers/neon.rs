//! Registers of 16 bytes: NEON, which every aarch64 processor has. Compiled by `cargo xtask neon`; no kernel picks it
//! yet, for a path is offered only once its tests have run on its machine.

use std::arch::aarch64::*;

use super::{Registers, arithmetic, memory};

/// Exists on aarch64, whose every processor has NEON.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neon(());

impl Registers for Neon {
    type Ints = int32x4_t;
    type Floats = float32x4_t;
    const BYTES: usize = 16;
    const COUNT: usize = 32;

    arithmetic! {
        zeros() -> int32x4_t = vdupq_n_s32(0);
        splat16(value: i16) -> int32x4_t = vreinterpretq_s32_s16(vdupq_n_s16(value));
        splat32(value: i32) -> int32x4_t = vdupq_n_s32(value);
        and(a: int32x4_t, b: int32x4_t) -> int32x4_t = vandq_s32(a, b);
        add8(a: int32x4_t, b: int32x4_t) -> int32x4_t =
            vreinterpretq_s32_s8(vaddq_s8(vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b)));
        add16(a: int32x4_t, b: int32x4_t) -> int32x4_t = of16(vaddq_s16(to16(a), to16(b)));
        sub16(a: int32x4_t, b: int32x4_t) -> int32x4_t = of16(vsubq_s16(to16(a), to16(b)));
        twice16(a: int32x4_t) -> int32x4_t = of16(vshlq_n_s16::<1>(to16(a)));
        four_times16(a: int32x4_t) -> int32x4_t = of16(vshlq_n_s16::<2>(to16(a)));
        upper_bytes(a: int32x4_t) -> int32x4_t =
            vreinterpretq_s32_u16(vshrq_n_u16::<8>(vreinterpretq_u16_s32(a)));
        raised_bytes(a: int32x4_t) -> int32x4_t = of16(vshlq_n_s16::<8>(to16(a)));
        add32(a: int32x4_t, b: int32x4_t) -> int32x4_t = vaddq_s32(a, b);
        sub32(a: int32x4_t, b: int32x4_t) -> int32x4_t = vsubq_s32(a, b);
        multiply32(a: int32x4_t, b: int32x4_t) -> int32x4_t = vmulq_s32(a, b);
        twice32(a: int32x4_t) -> int32x4_t = vshlq_n_s32::<1>(a);
        four_times32(a: int32x4_t) -> int32x4_t = vshlq_n_s32::<2>(a);
        fourth32(a: int32x4_t) -> int32x4_t = vshrq_n_s32::<2>(a);
        shift_right32(a: int32x4_t, shift: i32) -> int32x4_t = vshlq_s32(a, vdupq_n_s32(-shift));
        multiply_bytes(x: int32x4_t, w: int32x4_t) -> int32x4_t = products(x, w);
        multiply_words(x: int32x4_t, w: int32x4_t) -> int32x4_t = vpaddq_s32(
            vmull_s16(vget_low_s16(to16(x)), vget_low_s16(to16(w))),
            vmull_high_s16(to16(x), to16(w))
        );
        add_words(sums: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t =
            vaddq_s32(sums, Neon(()).multiply_words(x, w));
        look_up(table: int32x4_t, index: int32x4_t) -> int32x4_t =
            vreinterpretq_s32_u8(vqtbl1q_u8(vreinterpretq_u8_s32(table), vreinterpretq_u8_s32(index)));
        first_words(a: int32x4_t) -> int32x4_t =
            vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vreinterpretq_u16_s32(a))));
        last_words(a: int32x4_t) -> int32x4_t = vreinterpretq_s32_u32(vmovl_high_u16(vreinterpretq_u16_s32(a)));
        zeros_f32() -> float32x4_t = vdupq_n_f32(0.0);
        splat_f32(value: f32) -> float32x4_t = vdupq_n_f32(value);
        add_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t = vaddq_f32(a, b);
        multiply_add_f32(sums: float32x4_t, x: float32x4_t, w: float32x4_t) -> float32x4_t = vfmaq_f32(sums, x, w);
    }

    memory! {
        load<T>(at: *const T) -> int32x4_t = vreinterpretq_s32_u8(vld1q_u8(at.cast()));
        store<T>(at: *mut T, value: int32x4_t) = vst1q_u8(at.cast(), vreinterpretq_u8_s32(value));
        splat_sixteen(at: *const u8) -> int32x4_t = vreinterpretq_s32_u8(vld1q_u8(at));
        load_codes(at: *const u8) -> int32x4_t = vreinterpretq_s32_u16(vmovl_u8(vld1_u8(at)));
        load_weights(at: *const i8) -> int32x4_t = of16(vmovl_s8(vld1_s8(at)));
        load_f32(at: *const f32) -> float32x4_t = vld1q_f32(at);
        store_f32(at: *mut f32, value: float32x4_t) = vst1q_f32(at, value);
    }
}

#[target_feature(enable = "neon")]
#[inline]
fn to16(a: int32x4_t) -> int16x8_t {
    vreinterpretq_s16_s32(a)
}

#[target_feature(enable = "neon")]
#[inline]
fn of16(a: int16x8_t) -> int32x4_t {
    vreinterpretq_s32_s16(a)
}

/// The products of u8 and s8, two neighbours added up in 16 bits.
#[target_feature(enable = "neon")]
#[inline]
fn products(x: int32x4_t, w: int32x4_t) -> int32x4_t {
    let (x, w) = (vreinterpretq_u8_s32(x), vreinterpretq_s8_s32(w));
    let low = vmulq_s16(vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(x))), vmovl_s8(vget_low_s8(w)));
    let high = vmulq_s16(vreinterpretq_s16_u16(vmovl_high_u8(x)), vmovl_high_s8(w));
    of16(vpaddq_s16(low, high))
}
