//! The command as people and scripts meet it: a process with arguments, files, two streams and an exit status.

mod accel;
mod bench_train;
mod data;
mod docs;
mod engine;
mod export;
mod files;
mod folders;
mod import;
mod lm;
mod meaning;
mod networks;
mod owners;
mod ptq;
mod report;
mod reproduce;
mod results;
mod search;
mod sizes;
mod stops;
mod usage;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// A network that a debug build trains in a blink.
const TINY: &str = r#"
name = "tiny"
nodes = [
  { name = "input", op = "input", height = 32, width = 32, channels = 3 },
  { name = "conv1", op = "conv", out_channels = 4, kernel = 3, stride = 2, padding = 1 },
  { name = "bn1", op = "batch_norm" },
  { name = "act1", op = "act" },
  { name = "conv2", op = "conv", out_channels = 8, kernel = 3, stride = 2, padding = 1 },
  { name = "bn2", op = "batch_norm" },
  { name = "act2", op = "act" },
  { name = "pool", op = "global_avg_pool" },
  { name = "linear", op = "linear", out_features = 10 },
]
"#;

/// The command with every signal as a shell gives it: whoever runs the tests may have SIGHUP ignored, as `nohup` has.
fn program() -> Command {
    let bitpact = env!("CARGO_BIN_EXE_bitpact");
    if !cfg!(target_os = "linux") {
        return Command::new(bitpact);
    }
    // By its path, as tests may empty PATH.
    let mut command = Command::new("/usr/bin/env");
    command.args(["--default-signal=HUP", bitpact]);
    command
}

/// A folder to work in, with the tiny network in it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        std::fs::write(place.path("tiny.toml"), TINY).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = program();
        command.current_dir(self.0.path()).args(args).stdin(Stdio::null());
        command
    }

    /// Runs `bitpact` with the words of `line` as its arguments.
    fn run(&self, line: &str) -> Ended {
        Ended::new(self.command(line.split_whitespace()).output().unwrap(), line)
    }
}

/// The words that train the tiny network on a few images: 4 steps an epoch.
const TRAIN: &str = "train --arch tiny.toml --limit-train 70 --limit-test 30 --batch-size 16 --compare-float false";

/// How a process ended.
struct Ended {
    line: String,
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn new(output: Output, line: &str) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let ended = Self {
            line: line.to_owned(),
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        };
        assert!(!ended.stderr.contains("panicked"), "{line}: {}", ended.stderr);
        ended
    }

    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}: {}", self.line, self.stderr);
        self
    }

    /// Ended with `code`, said `parts` on stderr and nothing on stdout.
    #[track_caller]
    fn failed(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}: {}", self.line, self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "{}: no {part:?} in {}", self.line, self.stderr);
        }
        assert_eq!(self.stdout, "", "{}", self.line);
        self
    }

    /// The one JSON object that stdout is.
    #[track_caller]
    fn json(&self) -> serde_json::Map<String, serde_json::Value> {
        let line = self.stdout.strip_suffix('\n').expect("ends with a line end");
        assert!(!line.contains('\n'), "{}", self.stdout);
        serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }
}

/// A finished run that tests read from and never change.
fn trained() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(|| {
        let place = Place::new();
        place.run(&format!("{TRAIN} --epochs 2 --output run")).ok();
        place.run(&format!("{TRAIN} --epochs 1 --bits float --output float")).ok();
        place
    })
}

/// The files that must not depend on threads or on how often a run was stopped.
fn results(run: &Path) -> Vec<Vec<u8>> {
    let names = ["config.toml", "last.safetensors", "best.safetensors", "model.bitpact"];
    names.iter().map(|name| std::fs::read(run.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))).collect()
}
