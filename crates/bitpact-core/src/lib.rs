//! bitpact-core
