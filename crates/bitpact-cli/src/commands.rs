//! One file per subcommand: its arguments and what it does with them.

pub(crate) mod accel;
pub(crate) mod convert;
pub(crate) mod eval;
pub(crate) mod inspect;
pub(crate) mod train;
