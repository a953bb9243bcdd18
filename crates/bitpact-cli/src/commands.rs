//! One file per subcommand: its arguments and what it does with them. `test_set` is what some of them share.

pub(crate) mod accel;
pub(crate) mod bench;
#[cfg(feature = "manual")]
pub(crate) mod completions;
pub(crate) mod convert;
pub(crate) mod data;
pub(crate) mod eval;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod kernels;
pub(crate) mod lm;
#[cfg(feature = "manual")]
pub(crate) mod man;
#[cfg(all(test, feature = "fetch", feature = "manual", feature = "tokenizers", feature = "tui"))]
mod page;
pub(crate) mod ptq;
pub(crate) mod report;
pub(crate) mod reproduce;
pub(crate) mod run;
pub(crate) mod search;
pub(crate) mod sensitivity;
pub(crate) mod sweep;
mod test_set;
pub(crate) mod train;
pub(crate) mod verify;
#[cfg(feature = "tui")]
pub(crate) mod watch;
