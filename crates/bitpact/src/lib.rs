//! bitpact
