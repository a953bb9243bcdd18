//! The `bitpact` command.
fn main() {}
