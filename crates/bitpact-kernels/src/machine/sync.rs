//! The threads and locks that the pool is made of: those of the standard library, or of shuttle, which runs a test in
//! many orders of its threads (`cargo xtask orders`).

#[cfg(shuttle)]
pub(crate) use shuttle::{hint, sync, thread, thread_local};
#[cfg(not(shuttle))]
pub(crate) use std::{hint, sync, thread, thread_local};
