//! Identifiers made of names of any kind, which C, C++ and Rust all admit.

use std::collections::BTreeSet;

/// Words that no identifier can be: those of C99 to C23, C++20 and Rust, and names of the standard headers and crates.
const RESERVED: &str = "alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl concept \
    const consteval constexpr constinit const_cast continue co_await co_return co_yield decltype default delete do double \
    dynamic_cast else enum explicit export extern false float for friend goto if inline int long mutable namespace new \
    noexcept not not_eq nullptr operator or or_eq private protected public register reinterpret_cast requires restrict \
    return short signed sizeof static static_assert static_cast struct switch template this thread_local throw true try \
    typedef typeid typename typeof typeof_unqual union unsigned using virtual void volatile wchar_t while xor xor_eq \
    as async await crate dyn fn gen impl in let loop match mod move mut pub ref self super trait type unsafe use where \
    abstract become box do final macro override priv unsized yield main memcpy memset strlen stdin stdout stderr errno \
    assert bitpact bitpact_kernels Self core std alloc proc_macro test lib";

/// Tells whether `name` may be the prefix of everything that is exported.
pub(super) fn is_usable(name: &str) -> bool {
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
    let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    // Compilers need not tell longer names apart (C99 5.2.4.1: 63 characters, with what is put behind).
    first && rest && name.len() <= 40 && !is_reserved(name) && !name.starts_with("bp_") && !name.starts_with("BP_")
}

/// Tells whether a usable name is one of a crate and module of Rust, which compilers warn of otherwise.
pub(super) fn is_snake_case(name: &str) -> bool {
    !name.contains("__") && !name.chars().any(|c| c.is_ascii_uppercase())
}

fn is_reserved(name: &str) -> bool {
    RESERVED.split_whitespace().any(|word| word == name)
}

/// An identifier as close to `name` as can be: `base` where nothing of it is left.
pub(super) fn identifier(name: &str, base: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        match c.is_ascii_alphanumeric() {
            true => out.push(c.to_ascii_lowercase()),
            false if out.ends_with('_') || out.is_empty() => {}
            false => out.push('_'),
        }
    }
    out.truncate(32);
    let out = out.trim_end_matches('_');
    match out.chars().next() {
        None => base.to_owned(),
        Some(c) if c.is_ascii_digit() => format!("{base}_{out}"),
        Some(_) if is_usable(out) => out.to_owned(),
        Some(_) => format!("{base}_{}", out.trim_start_matches("bp_")),
    }
}

/// Names that are all different.
#[derive(Default)]
pub(super) struct Names {
    taken: BTreeSet<String>,
}

impl Names {
    /// `name`, or the first of `name_2`, `name_3` and so on that is free.
    pub(super) fn take(&mut self, name: String) -> String {
        let mut free = name.clone();
        let mut n = 1;
        while !self.taken.insert(free.clone()) {
            n += 1;
            free = format!("{name}_{n}");
        }
        free
    }
}

/// A name as it may stand in a comment.
pub(super) fn plain(name: &str) -> String {
    let safe = |c: char| if (c.is_ascii_graphic() || c == ' ') && !"*/\\?".contains(c) { c } else { '_' };
    name.chars().take(120).map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_kind_become_identifiers() {
        for (name, expected) in [
            ("layer1.0.act2", "layer1_0_act2"),
            ("int", "net_int"),
            ("3x3", "net_3x3"),
            ("", "net"),
            ("*/ evil \\", "evil"),
            ("été", "t"),
            ("bp_get", "net_get"),
            ("__x__", "x"),
            ("match", "net_match"),
        ] {
            assert_eq!(identifier(name, "net"), expected);
            assert!(is_usable(&identifier(name, "net")), "{name}");
        }
        assert!(["while", "2a", "a-b", "", "a b", "_x", "bp_run", "é"].iter().all(|name| !is_usable(name)));
        assert!(["Net", "a__b"].iter().all(|name| is_usable(name) && !is_snake_case(name)));
        assert!(["net", "a_b_2"].iter().all(|name| is_snake_case(name)));
        let mut names = Names::default();
        assert_eq!(["a", "a", "a_2", "a"].map(|name| names.take(name.to_owned())), ["a", "a_2", "a_2_2", "a_3"]);
        assert_eq!(plain("a*/b\n"), "a__b_");
    }
}
