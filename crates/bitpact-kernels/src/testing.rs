//! What the tests of every crate ask about the machine that they run on.

use crate::machine::isa::Isa;

/// The environment variable that lists the paths a machine must have, by commas.
pub const REQUIRE_ISA: &str = "BITPACT_REQUIRE_ISA";

/// The instruction-set paths to test: those of this machine. The others are printed, so that a test that passes says
/// what it has not run.
///
/// # Panics
/// If [`REQUIRE_ISA`] lists a path that this machine lacks, or a name that is none: then a green run would claim more
/// than it has tested.
pub fn paths() -> Vec<Isa> {
    let available = Isa::available();
    if let Err(missing) = check(&std::env::var(REQUIRE_ISA).unwrap_or_default(), &available) {
        panic!("{REQUIRE_ISA}: {missing}");
    }
    for isa in Isa::ALL.into_iter().filter(|isa| !available.contains(isa)) {
        println!("not tested: this machine has no {isa}");
    }
    available
}

/// The environment variable that proptest reads its number of cases from.
pub const CASES: &str = "PROPTEST_CASES";

/// The number of random cases of a property that has `usual` ones: at most those of [`CASES`], where it is set, for
/// runs under sanitizers and emulation.
pub fn cases(usual: u32) -> u32 {
    std::env::var(CASES).ok().and_then(|cases| cases.parse().ok()).map_or(usual, |most: u32| usual.min(most))
}

/// Tells whether all paths of a list by commas are available.
fn check(required: &str, available: &[Isa]) -> Result<(), String> {
    for name in required.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let isa: Isa = name.parse().map_err(|unknown: crate::UnknownIsa| unknown.to_string())?;
        if !available.contains(&isa) {
            return Err(format!("this machine has no {isa}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_required_and_lacking_is_an_error() {
        let available = [Isa::Scalar, Isa::Avx2];
        assert_eq!(check("", &available), Ok(()));
        assert_eq!(check("scalar, avx2,", &available), Ok(()));
        assert!(check("avx2,amx", &available).unwrap_err().contains("no amx"));
        assert!(check("sse9", &available).unwrap_err().contains("sse9"));
        assert_eq!(paths(), Isa::available());
    }
}
