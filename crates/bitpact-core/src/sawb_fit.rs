//! The derivation of the SAWB coefficients.
