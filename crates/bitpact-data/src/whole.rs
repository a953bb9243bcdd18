//! Where a PNG, JPEG or WebP stream ends, found by following it from its start.

/// The bytes of the first JPEG picture of `bytes`, up to and with its end marker; whatever follows, such as the film of
/// a motion photo, is no part of it. `None` where the picture has no end: the decoder would fill what is missing with
/// grey.
pub(crate) fn jpeg(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.strip_prefix(&[0xff, 0xd8])?;
    let mut has_scan = false;
    loop {
        // What stands before a marker is filling, or what decoders pass over.
        let at = rest.iter().position(|&byte| byte == 0xff)?;
        let marker = rest[at..].iter().position(|&byte| byte != 0xff)?;
        rest = &rest[at + marker..];
        let (&marker, after) = rest.split_first()?;
        rest = match marker {
            // Stuffing and restarts of a scan, and the marker without a meaning.
            0x00 | 0x01 | 0xd0..=0xd7 => after,
            // Another picture begins before this one ended.
            0xd8 => return None,
            0xd9 => return has_scan.then(|| &bytes[..bytes.len() - after.len()]),
            _ => {
                has_scan |= marker == 0xda;
                let length = usize::from(u16::from_be_bytes([*after.first()?, *after.get(1)?]));
                after.get(length.max(2)..)?
            }
        };
    }
}

/// Type and checksum of a PNG's last chunk.
const PNG_END: &[u8] = b"IEND\xaeB`\x82";

/// The bytes of the PNG picture that `bytes` begins with, up to and with its last chunk; `None` where that is not
/// there.
pub(crate) fn png(bytes: &[u8]) -> Option<&[u8]> {
    let mut at = 8usize;
    loop {
        let head: [u8; 8] = bytes.get(at..at.checked_add(8)?)?.try_into().ok()?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        at = at.checked_add(length)?.checked_add(12)?;
        if at > bytes.len() {
            return None;
        }
        if &head[4..] == b"IEND" {
            return Some(&bytes[..at]).filter(|whole| whole.ends_with(PNG_END));
        }
    }
}

/// The bytes of the RIFF file, such as a WebP picture, that `bytes` begins with, as long as its head says; `None` where
/// they end before.
pub(crate) fn riff(bytes: &[u8]) -> Option<&[u8]> {
    let length = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?) as usize;
    bytes.get(..length.checked_add(8)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jpeg_ends_at_the_end_marker_of_its_own_scan() {
        let segment = |marker: u8, data: &[u8]| [&[0xff, marker, 0, data.len() as u8 + 2], data].concat();
        // A thumbnail within a segment has markers of its own; a scan has stuffing and restarts.
        let head = [&[0xff, 0xd8][..], &segment(0xe1, &[0xff, 0xd8, 0xff, 0xda, 0xff, 0xd9])].concat();
        let scan = [&segment(0xda, &[1, 2])[..], &[5, 0xff, 0, 6, 0xff, 0xd3, 7]].concat();
        let whole = [&head[..], &scan, &scan, &[0xff, 0xff, 0xd9]].concat();
        for after in [&b""[..], b"film", &whole, &[0xff, 0xda], &[0xff, 0xda, 0, 2, 0xff, 0xd9]] {
            assert_eq!(jpeg(&[&whole, after].concat()), Some(&whole[..]), "{after:?}");
        }
        for cut in 0..whole.len() {
            assert_eq!(jpeg(&whole[..cut]), None, "cut at {cut}");
        }
        assert_eq!(jpeg(&[&head[..], &scan, &whole].concat()), None, "another begins before it ends");
        assert_eq!(jpeg(&[&head[..], &[0xff, 0xd9]].concat()), None, "it has no scan");
    }

    #[test]
    fn a_png_ends_at_its_last_chunk() {
        let chunk = |name: &[u8], data: &[u8]| [&(data.len() as u32).to_be_bytes(), name, data].concat();
        let inside = [&chunk(b"IDAT", PNG_END)[..], &[0; 4]].concat();
        let whole = [&b"\x89PNG\r\n\x1a\n"[..], &inside, &chunk(PNG_END, b"")].concat();
        assert_eq!(png(&[&whole[..], b"more"].concat()), Some(&whole[..]));
        for cut in 0..whole.len() {
            assert_eq!(png(&whole[..cut]), None, "cut at {cut}");
        }
        assert_eq!(png(&[&whole[..8], &[0xff; 12]].concat()), None);
    }

    #[test]
    fn a_riff_file_is_as_long_as_it_says() {
        let whole = [&b"RIFF\x06\0\0\0WEBP"[..], &[1, 2]].concat();
        assert_eq!(riff(&[&whole[..], b"more"].concat()), Some(&whole[..]));
        assert!((0..whole.len()).all(|cut| riff(&whole[..cut]).is_none()));
        assert_eq!(riff(b"RIFF\xff\xff\xff\xffWEBP"), None);
    }
}
