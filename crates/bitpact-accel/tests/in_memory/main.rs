//! The in-memory model against physics that is known otherwise, exact integers and the interpreter.

mod cells;
mod encodings;
mod networks;
mod wires;
