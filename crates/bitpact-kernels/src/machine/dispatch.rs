//! One body compiled for every instruction set.

/// Evaluates `$call` compiled for `$isa`; `$fma` says whether multiply-adds round once.
macro_rules! on_isa {
    ($isa:expr, |$fma:ident| $call:expr) => {{
        #[inline(always)]
        fn portable<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn avx2<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
        fn avx512<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        match $isa.prove() {
            $crate::machine::isa::Proof::Scalar => {
                const $fma: bool = false;
                portable(
                    #[inline(always)]
                    || $call,
                )
            }
            #[cfg(target_arch = "x86_64")]
            $crate::machine::isa::Proof::Avx2(_) => {
                const $fma: bool = true;
                // SAFETY: the token proves AVX2 and FMA.
                unsafe {
                    avx2(
                        #[inline(always)]
                        || $call,
                    )
                }
            }
            #[cfg(target_arch = "x86_64")]
            $crate::machine::isa::Proof::Avx512(_) => {
                const $fma: bool = true;
                // SAFETY: the token proves the AVX-512 set.
                unsafe {
                    avx512(
                        #[inline(always)]
                        || $call,
                    )
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => unreachable!("a token of another architecture"),
        }
    }};
}

pub(crate) use on_isa;
