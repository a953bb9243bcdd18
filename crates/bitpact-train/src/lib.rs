//! bitpact-train
