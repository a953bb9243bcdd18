//! Text cut into blocks that stand alone.

/// Blocks of `size` characters of `text` at offsets 0, size, .. that are ASCII throughout, `count` of them after the
/// first `from`. A last block that is not full is left out.
pub fn ascii_blocks(text: &str, size: usize, from: usize, count: usize) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let whole = characters.chunks_exact(size.max(1)).filter(|block| block.iter().all(char::is_ascii));
    whole.skip(from).take(count).map(|block| block.iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_with_other_letters_are_left_out() {
        let text = "abcdef\u{e9}ghijklmn";
        assert_eq!(ascii_blocks(text, 3, 0, 9), ["abc", "def", "ijk", "lmn"]);
        assert_eq!(ascii_blocks(text, 3, 1, 2), ["def", "ijk"]);
    }
}
