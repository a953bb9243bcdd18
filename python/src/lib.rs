//! bitpact for Python: the extension module `bitpact._bitpact` behind the package `bitpact`.
//!
//! Everything here converts: arrays to bytes and back, errors to exceptions, dictionaries to recipes. What is computed
//! is the crate `bitpact`'s, and gives the bytes that the command gives. The package's own files in Python hold what
//! needs no Rust: torch's modules, the estimator, the results of a run.

mod array;
mod error;
mod integer;
mod model;
mod train;
mod value;
mod watch;

/// Low-bit neural networks in integers: the compiled part of the package `bitpact`.
#[pyo3::pymodule]
mod _bitpact {
    #[pymodule_export]
    use crate::integer::IntegerModel;
    #[pymodule_export]
    use crate::model::Model;
    #[pymodule_export]
    use crate::train::{recipe_keys, run_training};

    /// Version of the package.
    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
