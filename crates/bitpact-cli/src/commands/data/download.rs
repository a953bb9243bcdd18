//! One file over HTTP, into a partial file that a later call goes on with.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bitpact::unstable::data::check::md5_of;

/// Where a file comes from and how to know it.
pub(super) struct Source<'a> {
    pub(super) url: &'a str,
    /// Its published size. A server may send up to twice as much before it is cut off.
    pub(super) bytes: u64,
    /// Its published MD5.
    pub(super) md5: &'a str,
}

/// The HTTP client. Without `https_only` a mirror in one's own network may be used.
/// A server that is silent for `patience` is gone.
pub(super) fn agent(https_only: bool, patience: Duration) -> ureq::Agent {
    let patience = Some(patience);
    ureq::Agent::config_builder()
        .https_only(https_only)
        .http_status_as_error(false)
        .timeout_resolve(patience)
        .timeout_connect(patience)
        .timeout_send_request(patience)
        .timeout_recv_response(patience)
        .timeout_per_read(patience)
        .user_agent(concat!("bitpact/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

/// Downloads `source` into `part`, from where `part` ends, and compares its checksum. A connection that breaks is taken
/// up again as long as each one brings something. `told` hears how many bytes of how many are there. While the returned
/// file is open no other process downloads into `part`.
///
/// # Errors
/// A server that cannot be reached or answers otherwise than with the file: `part` keeps what has come, for the next
/// call. Another checksum: `part` is removed.
pub(super) fn download(
    agent: &ureq::Agent,
    source: &Source,
    part: &Path,
    told: &mut dyn FnMut(u64, u64),
) -> Result<File> {
    let mut file = own(part)?;
    loop {
        let had = file.metadata()?.len();
        match attempt(agent, source, &mut file, had, told).with_context(|| source.url.to_owned()) {
            Ok(()) => break,
            Err(error) => {
                let has = file.metadata()?.len();
                if has == 0 {
                    // Nothing to go on with.
                    drop(file);
                    let _ = fs::remove_file(part);
                    return Err(error);
                }
                if has <= had || !error.is::<Broken>() {
                    return Err(
                        error.context(format!("stopped after {has} bytes; the same command goes on from there"))
                    );
                }
            }
        }
    }
    file.sync_all().with_context(|| format!("{}: cannot write", part.display()))?;
    let md5 = md5_of(part)?;
    if md5 != source.md5 {
        fs::remove_file(part).with_context(|| format!("{}: cannot remove", part.display()))?;
        bail!("{}: what came has the MD5 {md5}, published is {}; it was removed", source.url, source.md5);
    }
    Ok(file)
}

/// Opens `part` to append to it, with a lock that only one process can have.
fn own(part: &Path) -> Result<File> {
    let wrong = || format!("{}: cannot write", part.display());
    loop {
        let file = OpenOptions::new().create(true).append(true).open(part).with_context(wrong)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => bail!("{}: another process is fetching this file", part.display()),
            Err(TryLockError::Error(error)) if error.kind() != io::ErrorKind::Unsupported => {
                return Err(error).with_context(wrong);
            }
            _ => {}
        }
        // Its last owner may have come to the end and taken it away between the two.
        if part.exists() {
            return Ok(file);
        }
    }
}

/// The connection ended before the file did.
#[derive(Debug)]
struct Broken(io::Error);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the connection broke: {}", self.0)
    }
}

impl std::error::Error for Broken {}

/// One connection: asks for what follows the first `had` bytes and appends it.
fn attempt(
    agent: &ureq::Agent,
    source: &Source,
    file: &mut File,
    mut had: u64,
    told: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let mut request = agent.get(source.url);
    if had > 0 {
        request = request.header("Range", format!("bytes={had}-"));
    }
    let mut response = request.call()?;
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    match response.status().as_u16() {
        200 => {
            // The whole file, asked for or not.
            file.set_len(0)?;
            had = 0;
        }
        206 => {
            let range = header("content-range").unwrap_or_default();
            if !range.starts_with(&format!("bytes {had}-")) {
                bail!("asked for the bytes from {had} on, the server sends `{range}`");
            }
        }
        // There is nothing after what we have: the checksum will tell whether that is the file.
        416 => return Ok(()),
        status => bail!("the server answers with HTTP status {status}"),
    }
    let length = header("content-length").and_then(|length| length.parse::<u64>().ok());
    let total = length.map_or(source.bytes, |length| had.saturating_add(length));
    let most = source.bytes.saturating_mul(2);
    let too_long = || anyhow!("more than {most} bytes, twice what is published");
    if total > most {
        return Err(too_long());
    }
    let mut body = response.body_mut().as_reader();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = body.read(&mut buffer).map_err(Broken)?;
        if n == 0 {
            break;
        }
        had += n as u64;
        if had > most {
            return Err(too_long());
        }
        file.write_all(&buffer[..n])?;
        told(had, total.max(had));
    }
    match length {
        Some(_) if had < total => {
            Err(Broken(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{had} of {total} bytes"))).into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "download_tests.rs"]
mod tests;
