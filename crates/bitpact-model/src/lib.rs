//! bitpact-model
