//! The binary batches of CIFAR-10 and CIFAR-100, which differ in their files and in the bytes before an image.

use std::io::Read;
use std::path::Path;

use crate::dataset::limited_len;
use crate::files::{self, Opened};
use crate::{DataError, ImageShape, InMemory, Split};

pub(crate) const SHAPE: ImageShape = ImageShape { h: 32, w: 32, c: 3 };

const PLANE_BYTES: usize = 32 * 32;
const IMAGE_BYTES: usize = 3 * PLANE_BYTES;
const CHUNK_RECORDS: usize = 100;

/// What tells one set from the other.
pub(crate) struct Batches {
    pub(crate) title: &'static str,
    pub(crate) train_what: &'static str,
    pub(crate) test_what: &'static str,
    pub(crate) folder: &'static str,
    pub(crate) folder_expected: &'static str,
    pub(crate) file_expected: &'static str,
    pub(crate) train_files: &'static [&'static str],
    pub(crate) test_files: &'static [&'static str],
    /// Records of a file of each half.
    pub(crate) train_records: usize,
    pub(crate) test_records: usize,
    /// Bytes before the pixels of a record; the last of them is the label.
    pub(crate) label_bytes: usize,
    pub(crate) class_names: &'static [&'static str],
}

impl Batches {
    fn record_bytes(&self) -> usize {
        self.label_bytes + IMAGE_BYTES
    }

    pub(crate) fn load(
        &self,
        dir: &Path,
        limit_train: Option<usize>,
        limit_test: Option<usize>,
    ) -> Result<Split, DataError> {
        let (train_all, test_all) =
            (self.train_files.len() * self.train_records, self.test_files.len() * self.test_records);
        let train_len = limited_len(self.train_what, train_all, limit_train)?;
        let test_len = limited_len(self.test_what, test_all, limit_test)?;
        let names = self.train_files.iter().chain(self.test_files);
        let root = files::find_root(dir, &[self.folder], names, self.folder_expected)?;
        let open_all = |names: &[&str], records: usize| -> Result<Vec<Opened>, DataError> {
            names.iter().map(|name| self.open(dir, &root, name, records)).collect()
        };
        let train_files = open_all(self.train_files, self.train_records)?;
        let test_files = open_all(self.test_files, self.test_records)?;
        Ok(Split {
            train: Box::new(self.read(train_files, self.train_records, train_len)?),
            test: Box::new(self.read(test_files, self.test_records, test_len)?),
        })
    }

    fn open(&self, dir: &Path, root: &Path, name: &str, records: usize) -> Result<Opened, DataError> {
        let opened = files::open(self.title, dir, root, &[self.folder], &[name], self.file_expected)?;
        let expected = (records * self.record_bytes()) as u64;
        if opened.bytes != expected {
            return Err(DataError::WrongSize { path: opened.path, found: opened.bytes, expected });
        }
        Ok(opened)
    }

    fn read(&self, files: Vec<Opened>, file_records: usize, len: usize) -> Result<InMemory, DataError> {
        let (label_bytes, record_bytes) = (self.label_bytes, self.record_bytes());
        let mut images = vec![0; len * IMAGE_BYTES];
        let mut labels = Vec::with_capacity(len);
        let mut buffer = vec![0; CHUNK_RECORDS * record_bytes];
        for mut opened in files {
            let file_end = len.min(labels.len() + file_records);
            let file_start = labels.len();
            while labels.len() < file_end {
                let chunk = &mut buffer[..(file_end - labels.len()).min(CHUNK_RECORDS) * record_bytes];
                opened.file.read_exact(chunk).map_err(|source| opened.io(source))?;
                for record in chunk.chunks_exact(record_bytes) {
                    let (header, planes) = record.split_at(label_bytes);
                    let label = header[label_bytes - 1];
                    if usize::from(label) >= self.class_names.len() {
                        let record = labels.len() - file_start;
                        let offset = (record * record_bytes + label_bytes - 1) as u64;
                        let largest = (self.class_names.len() - 1) as u8;
                        return Err(DataError::BadFileLabel {
                            path: opened.path,
                            record,
                            offset,
                            label,
                            smallest: 0,
                            largest,
                        });
                    }
                    planes_to_hwc(planes, &mut images[labels.len() * IMAGE_BYTES..][..IMAGE_BYTES]);
                    labels.push(u16::from(label));
                }
            }
        }
        InMemory::new(images, labels, SHAPE, self.class_names.iter().map(|name| name.to_string()).collect())
    }
}

fn planes_to_hwc(planes: &[u8], hwc: &mut [u8]) {
    let (red, rest) = planes.split_at(PLANE_BYTES);
    let (green, blue) = rest.split_at(PLANE_BYTES);
    for (pixel, ((&r, &g), &b)) in hwc.chunks_exact_mut(3).zip(red.iter().zip(green).zip(blue)) {
        pixel.copy_from_slice(&[r, g, b]);
    }
}
