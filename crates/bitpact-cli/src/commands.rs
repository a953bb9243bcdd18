//! One file per subcommand: its arguments and what it does with them. `test_set` is what three of them share.

pub(crate) mod accel;
pub(crate) mod bench;
pub(crate) mod convert;
pub(crate) mod data;
pub(crate) mod eval;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod kernels;
pub(crate) mod lm;
pub(crate) mod reproduce;
pub(crate) mod run;
mod test_set;
pub(crate) mod train;
pub(crate) mod verify;
