//! Which instruction set a kernel runs on, and the tokens that prove the CPU has it.

use std::fmt;
use std::str::FromStr;

/// An instruction-set path. Kernels of one path give the same bits on every machine that has it, but for those over
/// bfloat16 on AVX-512, which depend on whether its BF16 pays
/// ([`Format::pays`](crate::train::conv::rounded::Format::pays)); integer kernels give the same integers on every path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust, the reference; runs everywhere.
    Scalar,
    /// AVX2 and FMA.
    Avx2,
    /// AVX2, FMA and AVX-VNNI: integer products have instructions of their own, everything else is that of AVX2.
    AvxVnni,
    /// AVX-512 F, BW, VL, DQ and VNNI.
    Avx512,
    /// AVX-512 as above with BF16, and AMX: products of matrix tiles (TILE, INT8, BF16); everything else is that of
    /// AVX-512.
    Amx,
}

impl Isa {
    /// Every path, slowest first.
    pub const ALL: [Isa; 5] = [Isa::Scalar, Isa::Avx2, Isa::AvxVnni, Isa::Avx512, Isa::Amx];

    /// The fastest path of this machine.
    pub fn detect() -> Isa {
        Isa::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Isa::Scalar)
    }

    /// The paths of this machine, slowest first.
    pub fn available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// Tells whether this machine has the path.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Scalar => true,
            Isa::Avx2 => Avx2::detect().is_some(),
            Isa::AvxVnni => AvxVnni::detect().is_some(),
            Isa::Avx512 => Avx512::detect().is_some(),
            Isa::Amx => Amx::detect().is_some(),
        }
    }

    /// The proof that the machine has this path; that of AVX2 for AVX-VNNI, of AVX-512 for AMX.
    ///
    /// # Panics
    /// Where the machine lacks it.
    pub(crate) fn prove(self) -> Proof {
        let proof = match self {
            Isa::Scalar => Some(Proof::Scalar),
            Isa::Avx2 => Avx2::detect().map(Proof::Avx2),
            Isa::AvxVnni => AvxVnni::detect().map(|token| Proof::Avx2(token.avx2())),
            Isa::Avx512 => Avx512::detect().map(Proof::Avx512),
            Isa::Amx => Amx::detect().map(|token| Proof::Avx512(token.avx512())),
        };
        proof.unwrap_or_else(|| panic!("this machine has no {self}"))
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avxvnni",
            Isa::Avx512 => "avx512",
            Isa::Amx => "amx",
        })
    }
}

/// A name that is no instruction-set path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownIsa(String);

impl fmt::Display for UnknownIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown instruction set \"{}\": expected scalar, avx2, avxvnni, avx512 or amx", self.0)
    }
}

impl std::error::Error for UnknownIsa {}

impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(name: &str) -> Result<Isa, UnknownIsa> {
        Isa::ALL.into_iter().find(|isa| isa.to_string() == name).ok_or_else(|| UnknownIsa(name.to_owned()))
    }
}

/// Exists only where the CPU has AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The token, where the CPU has the features.
    pub(crate) fn detect() -> Option<Avx2> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Some(Avx2(()));
        }
        None
    }
}

/// Exists only where the CPU has AVX-VNNI, AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AvxVnni(());

impl AvxVnni {
    /// The token, where the CPU has the features.
    pub(crate) fn detect() -> Option<AvxVnni> {
        #[cfg(target_arch = "x86_64")]
        if Avx2::detect().is_some() && is_x86_feature_detected!("avxvnni") {
            return Some(AvxVnni(()));
        }
        None
    }

    /// AVX2 comes with it.
    pub(crate) fn avx2(self) -> Avx2 {
        Avx2(())
    }
}

/// Exists only where the CPU has AVX-512 F, BW, VL, DQ and VNNI, AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// AVX2 comes with it.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub(crate) fn avx2(self) -> Avx2 {
        Avx2(())
    }

    /// The token, where the CPU has the features.
    pub(crate) fn detect() -> Option<Avx512> {
        #[cfg(target_arch = "x86_64")]
        if Avx2::detect().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vnni")
        {
            return Some(Avx512(()));
        }
        None
    }
}

/// Exists only where the CPU has AVX-512 as [`Avx512`] and its BF16.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bf16(());

impl Bf16 {
    /// The token, where the CPU has the features.
    pub(crate) fn detect() -> Option<Bf16> {
        #[cfg(target_arch = "x86_64")]
        if Avx512::detect().is_some() && is_x86_feature_detected!("avx512bf16") {
            return Some(Bf16(()));
        }
        None
    }
}

impl Bf16 {
    /// AVX-512 comes with it.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub(crate) fn avx512(self) -> Avx512 {
        Avx512(())
    }

    /// Whether `vdpbf16ps` outruns float32's multiply-add. Measured: 1.9 times its rate on AMD's Zen 5, half of it on
    /// Intel's Sapphire Rapids, where bfloat16 belongs on AMX.
    pub(crate) fn is_fast(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let id = std::arch::x86_64::__cpuid(0);
            // "GenuineIntel", in the order ebx, edx, ecx.
            (id.ebx, id.edx, id.ecx) != (0x756e_6547, 0x4965_6e69, 0x6c65_746e)
        }
        #[cfg(not(target_arch = "x86_64"))]
        false
    }
}

/// Exists only where the CPU has AVX-512 as [`Avx512`] with BF16 and AMX TILE, INT8 and BF16, and the system lets this
/// process use the tiles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amx(());

impl Amx {
    /// The token, where the CPU has the features; asks the system for the tiles' state the first time.
    pub(crate) fn detect() -> Option<Amx> {
        #[cfg(target_arch = "x86_64")]
        if Bf16::detect().is_some() && crate::machine::amx::is_usable() {
            return Some(Amx(()));
        }
        None
    }

    /// AVX-512 comes with it.
    pub(crate) fn avx512(self) -> Avx512 {
        Avx512(())
    }
}

/// A path together with the proof that this machine has it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Proof {
    /// No proof needed.
    Scalar,
    /// AVX2 and FMA.
    Avx2(Avx2),
    /// The AVX-512 set.
    Avx512(Avx512),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_unknown_ones_are_errors() {
        for isa in Isa::ALL {
            assert_eq!(isa.to_string().parse(), Ok(isa));
        }
        let error = "sse9".parse::<Isa>().unwrap_err();
        assert!(error.to_string().contains("sse9"));
    }

    #[test]
    fn detection_is_consistent() {
        assert!(Isa::available().contains(&Isa::Scalar));
        assert_eq!(Isa::available().last(), Some(&Isa::detect()));
        for isa in Isa::available() {
            isa.prove();
        }
    }
}
