//! What can go wrong in quantization after training.

/// A layer that cannot be quantized as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PtqError {
    /// Two matrices whose sizes do not belong together.
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// Name of the matrix.
        what: &'static str,
        /// Size that fits.
        expected: String,
        /// Size it has.
        found: String,
    },
    /// A number that is not finite, where the numbers of a layer are expected.
    #[error("{what}: value {index} is {value}, expected a finite number")]
    NotFinite {
        /// Name of the matrix.
        what: &'static str,
        /// Place in the matrix, row by row.
        index: usize,
        /// The number.
        value: f64,
    },
    /// A grid that does not exist.
    #[error("{0}")]
    Grid(String),
    /// A Hessian that stays singular with the damping asked for.
    #[error(
        "the Gram matrix of the inputs is not positive definite with a damping of {damping}; a larger damping or more tokens are needed"
    )]
    Singular {
        /// Share of the mean diagonal that was added.
        damping: f64,
    },
}
