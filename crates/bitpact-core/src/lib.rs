//! The one arithmetic of bitpact: every rounding, code, quantizer and requantization is defined here once, as a
//! function of one element or of one plain slice.
//!
//! Letters: `x` real, `q` code, `s` scale (`x = s * q`), `alpha` the PACT clip value, `q_max = 2^bits - 1`.
//! Everything that decides a code uses only `+ - * /`, square roots, comparisons and exact roundings of IEEE 754, in a
//! fixed order, so that it has the same bits on every machine and on every kernel path.

mod act;
mod bits;
mod error;
mod function;
pub mod pack;
pub mod reduce;
pub mod requant;
pub mod rng;
mod round;
pub mod sawb_fit;
mod tanh;
mod weights;

pub use act::{
    ALPHA_MIN, ActGrad, ActQuant, ChannelActGrad, act_backward, act_backward_channel, act_backward_channel_lanes,
    act_backward_lanes, act_code, act_inverse_scale, act_scale, channel_q_max, largest_clip, lsq_alpha_scale,
    quantize_act, quantize_act_sign, quantize_act_signed,
};
pub use bits::Bits;
pub use error::{NameError, PackError, RequantizationError, SpecError};
pub use function::Function;
pub use requant::{Derived, Ranges, RealRequantization, Requantization};
pub use round::round_half_even;
pub use tanh::tanh;
pub use weights::{
    CODE_LIMIT_16BIT, Granularity, Grid, WEIGHT_STEP_MIN, WeightQuant, WeightSpec, lsq_gradient_scale, lsq_start,
    quantize_weights, quantize_weights_16bit, quantize_weights_given, sawb_alpha, sawb_coefficients, weights_backward,
    weights_backward_given,
};
