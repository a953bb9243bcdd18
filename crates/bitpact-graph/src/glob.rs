//! Layer patterns: `*` stands for any run of characters, everything else for itself.

/// Tells whether `name` matches `pattern` as a whole; `*` in the pattern stands for any run of characters.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (p, n) = (pattern.as_bytes(), name.as_bytes());
    let (mut pi, mut ni) = (0, 0);
    let mut star = None;
    while ni < n.len() {
        if pi < p.len() && p[pi] == b'*' {
            star = Some((pi, ni));
            pi += 1;
        } else if pi < p.len() && p[pi] == n[ni] {
            (pi, ni) = (pi + 1, ni + 1);
        } else if let Some((at, from)) = star {
            (pi, ni) = (at + 1, from + 1);
            star = Some((at, from + 1));
        } else {
            return false;
        }
    }
    p[pi..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_match_any_run() {
        for (pattern, name, expected) in [
            ("layer3.*", "layer3.0.conv1", true),
            ("layer3.*", "layer13.0.conv1", false),
            ("*.conv1", "layer3.0.conv1", true),
            ("*.conv1", "conv1", false),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("a*b*c", "axxbyybzc", true),
            ("a*b*c", "axxbyybz", false),
            ("conv1", "conv1", true),
            ("conv1", "conv10", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} against {name}");
        }
    }
}
