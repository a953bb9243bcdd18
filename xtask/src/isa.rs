//! The instruction-set paths that this machine must have, from what Linux says of its processor and not from the
//! detection that is tested.

/// Read by the tests of every crate; see `bitpact_kernels::testing`.
pub(crate) const REQUIRE_ISA: &str = "BITPACT_REQUIRE_ISA";

/// Features, as `/proc/cpuinfo` names them, of each path.
const PATHS: [(&str, &[&str]); 4] = [
    ("avx2", &["avx2", "fma"]),
    ("avxvnni", &["avx2", "fma", "avx_vnni"]),
    ("avx512", &["avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"]),
    (
        "amx",
        &[
            "avx512f",
            "avx512bw",
            "avx512vl",
            "avx512dq",
            "avx512_vnni",
            "avx512_bf16",
            "amx_tile",
            "amx_int8",
            "amx_bf16",
        ],
    ),
];

/// The list for [`REQUIRE_ISA`]: the caller's own, or that of this machine.
pub(crate) fn required() -> String {
    std::env::var(REQUIRE_ISA).unwrap_or_else(|_| of(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()))
}

fn of(cpuinfo: &str) -> String {
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    let has = |feature: &&str| flags.split_whitespace().any(|flag| flag == *feature);
    let paths = PATHS.iter().filter(|(_, features)| features.iter().all(has)).map(|(name, _)| *name);
    std::iter::once("scalar").chain(paths).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_the_flags_of_the_processor() {
        assert_eq!(of(""), "scalar");
        assert_eq!(of("model name : x\nflags\t\t: sse2 fma avx2\n"), "scalar,avx2");
        let flags = "flags : avx2 fma avx_vnni avx512f avx512bw avx512vl avx512dq avx512_vnni";
        assert_eq!(of(flags), "scalar,avx2,avxvnni,avx512");
    }
}
