//! What the machine is made of, as far as the system tells.

use std::fs;
use std::path::Path;

/// One cache of the processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// Level of the cache, of which 1 is the nearest.
    pub level: u32,
    /// `Data`, `Instruction` or `Unified`, as Linux names them.
    pub kind: String,
    /// Size of the cache in bytes.
    pub bytes: u64,
    /// The CPUs that share it, such as `0-1`.
    pub shared_by: String,
}

/// The processor of this machine, as the system tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpu {
    /// Name of the processor's model, empty where the system does not tell.
    pub model: String,
    /// Threads that can run at once.
    pub cores: usize,
    /// Features of the processor that kernels use or could use.
    pub features: Vec<&'static str>,
    /// The caches of the first core; empty where the system does not tell.
    pub caches: Vec<Cache>,
}

impl Cpu {
    /// Reads what the system tells of this machine's processor.
    pub fn detect() -> Self {
        Self {
            model: model(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
            features: features(),
            caches: caches(Path::new("/sys/devices/system/cpu/cpu0/cache")),
        }
    }

    /// Size of the largest cache, 0 where unknown.
    pub fn last_cache_bytes(&self) -> u64 {
        self.caches.iter().map(|cache| cache.bytes).max().unwrap_or(0)
    }
}

fn model(cpuinfo: &str) -> String {
    let line = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    line.map_or(String::new(), |line| line.trim_start_matches([' ', '\t', ':']).trim().to_owned())
}

fn features() -> Vec<&'static str> {
    #[allow(unused_mut)] // Other architectures have none of these.
    let mut features = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! detect {
            ($($name:tt)*) => { $(if is_x86_feature_detected!($name) { features.push($name); })* };
        }
        detect!("sse4.1" "popcnt" "avx" "f16c" "avx2" "fma" "gfni" "avxvnni" "avx512f" "avx512bw" "avx512vl" "avx512dq"
                "avx512vnni" "avx512vbmi" "avx512vpopcntdq" "avx512bitalg" "avx512bf16");
    }
    features
}

fn caches(folder: &Path) -> Vec<Cache> {
    let cache = |index: usize| {
        let read = |name: &str| fs::read_to_string(folder.join(format!("index{index}/{name}"))).ok();
        Some(Cache {
            level: read("level")?.trim().parse().ok()?,
            kind: read("type")?.trim().to_owned(),
            bytes: bytes(read("size")?.trim())?,
            shared_by: read("shared_cpu_list").unwrap_or_default().trim().to_owned(),
        })
    };
    (0..8).map_while(cache).collect()
}

/// A size such as `32K`.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let unit = match &text[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sizes_as_linux_writes_them() {
        assert_eq!(model("processor\t: 0\nmodel name\t: AMD EPYC 9B45\nstepping: 1\n"), "AMD EPYC 9B45");
        assert_eq!(model(""), "");
        assert_eq!(
            [bytes("32K"), bytes("1024K"), bytes("3M"), bytes("17")].map(Option::unwrap),
            [32 << 10, 1 << 20, 3 << 20, 17]
        );
        assert_eq!([bytes("KM"), bytes("x"), bytes("99999999999999999999K")], [None; 3]);
    }

    #[test]
    fn this_machine_has_a_core() {
        let cpu = Cpu::detect();
        assert!(cpu.cores >= 1);
        assert!(cpu.caches.iter().all(|cache| cache.level >= 1 && cache.bytes > 0));
    }
}
