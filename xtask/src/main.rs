//! Project chores. `cargo xtask check` runs what CI runs, cheapest first.
fn main() {}
