//! The wanted files out of a .tar.gz, and nothing else: no path of the archive is ever used.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use bitpact::unstable::model::write_atomically;
use flate2::bufread::GzDecoder;

/// Longest file that is taken out; the longest of any set has 153,700,000 bytes.
const MOST_BYTES: u64 = 1 << 28;

/// Writes the regular files called `wanted`, in whatever folder of the archive they are, into `folder`.
///
/// # Errors
/// A damaged archive, a wanted file that is missing or too long, or a file that cannot be written.
pub(super) fn unpack(archive: &Path, folder: &Path, wanted: &[&str]) -> Result<()> {
    let mut left = wanted.to_vec();
    let mut tar = tar::Archive::new(GzDecoder::new(BufReader::new(File::open(archive)?)));
    for entry in tar.entries().context("cannot be unpacked")? {
        let mut entry = entry.context("cannot be unpacked")?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path_bytes();
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let Some(place) = left.iter().position(|wanted| wanted.as_bytes() == name) else { continue };
        let name = left.swap_remove(place);
        if entry.size() > MOST_BYTES {
            bail!("{name} in it has {} bytes, expected at most {MOST_BYTES}", entry.size());
        }
        let mut bytes = Vec::new();
        entry.by_ref().take(MOST_BYTES).read_to_end(&mut bytes).with_context(|| format!("{name} in it is damaged"))?;
        if bytes.len() as u64 != entry.size() {
            bail!("{name} in it is truncated: {} of {} bytes", bytes.len(), entry.size());
        }
        write_atomically(folder.join(name), &bytes)?;
        if left.is_empty() {
            return Ok(());
        }
    }
    bail!("{} not in it", left.join(", "))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::{EntryType, Header};

    use super::*;

    /// A .tar.gz with the given entries; paths are written as they are, however bad.
    fn archive(path: &Path, entries: &[(&str, EntryType, &[u8])]) {
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for &(name, kind, data) in entries {
            let mut header = Header::new_gnu();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append(&header, data).unwrap();
        }
        let bytes = builder.into_inner().unwrap().finish().unwrap();
        File::create(path).unwrap().write_all(&bytes).unwrap();
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_wanted_regular_files_come_out_wherever_the_archive_puts_them() {
        let home = tempfile::tempdir().unwrap();
        let (packed, folder) = (home.path().join("a.tar.gz"), home.path().join("out"));
        std::fs::create_dir(&folder).unwrap();
        archive(
            &packed,
            &[
                ("../../escaped.bin", EntryType::Regular, b"no"),
                ("/absolute.bin", EntryType::Regular, b"no"),
                ("set/b.bin", EntryType::Symlink, b""),
                ("set/other.txt", EntryType::Regular, b"no"),
                ("../a.bin", EntryType::Regular, b"first"),
                ("set/a.bin", EntryType::Regular, b"second"),
                ("set/b.bin", EntryType::Regular, b"b"),
            ],
        );
        unpack(&packed, &folder, &["a.bin", "b.bin"]).unwrap();
        assert_eq!(names(&folder), ["a.bin", "b.bin"]);
        assert_eq!(names(home.path()), ["a.tar.gz", "out"]);
        assert_eq!(std::fs::read(folder.join("a.bin")).unwrap(), b"first");
        assert_eq!(std::fs::read(folder.join("b.bin")).unwrap(), b"b");
    }

    #[test]
    fn damaged_archives_and_missing_files_are_told() {
        let home = tempfile::tempdir().unwrap();
        let packed = home.path().join("a.tar.gz");
        let message = |wanted: &[&str]| format!("{:#}", unpack(&packed, home.path(), wanted).unwrap_err());
        let data: Vec<u8> = (0..200_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        archive(&packed, &[("set/a.bin", EntryType::Regular, &data)]);
        assert_eq!(message(&["a.bin", "b.bin"]), "b.bin not in it");
        let whole = std::fs::read(&packed).unwrap();
        for cut in [0, 1, whole.len() / 2] {
            std::fs::write(&packed, &whole[..cut]).unwrap();
            std::fs::remove_file(home.path().join("a.bin")).ok();
            let text = message(&["a.bin"]);
            assert!(text.contains("not in it") || text.contains("unpacked") || text.contains("damaged"), "{text}");
            assert_eq!(names(home.path()), ["a.tar.gz"], "cut at {cut}");
        }
    }
}
