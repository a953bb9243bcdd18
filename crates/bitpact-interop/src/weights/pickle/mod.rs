//! A reader of pickles that knows tensors and plain containers, and nothing else.
//!
//! A pickle is a program for a stack machine. The opcodes are those of Python's `pickletools`, protocols 0 to 5. This
//! machine has no way to call anything: a `GLOBAL` is one of [`Global`] or an error that names it, and `REDUCE` makes
//! what these few stand for. Values lie in an arena and refer to each other by number, so that a value that holds
//! itself is no recursion.

mod rebuild;
mod value;

use std::collections::HashMap;

use crate::error::short;

use rebuild::Made;
use value::Global;
pub(crate) use value::{Arena, Object, StridedTensor, Value};

/// Objects of a pickle at the most; a network of 10,000 tensors has a tenth of it.
const MOST_OBJECTS: usize = 1 << 20;
/// Values on the stack, places of the memo, and pairs that OrderedDicts copy, at the most.
const MOST_VALUES: usize = 1 << 20;

/// A pickle that was read.
#[derive(Debug)]
pub(crate) struct Pickle {
    pub(crate) arena: Arena,
    pub(crate) root: Value,
    /// Bytes of it.
    pub(crate) len: usize,
}

impl Pickle {
    /// The pickle that `bytes` begin with.
    ///
    /// # Errors
    /// Place and reason, with the name of what is not admitted.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut machine = Machine {
            bytes,
            at: 0,
            arena: Arena::default(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copied: 0,
        };
        loop {
            let place = machine.at;
            match machine.step() {
                Ok(None) => {}
                Ok(Some(root)) => return Ok(Self { arena: machine.arena, root, len: machine.at }),
                Err(what) => return Err(format!("byte {place} of the pickle: {what}")),
            }
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    arena: Arena,
    stack: Vec<Value>,
    /// Lengths of the stack at the marks.
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
    /// Pairs that OrderedDicts copied.
    copied: usize,
}

type Step = Result<Option<Value>, String>;

impl<'a> Machine<'a> {
    /// Runs one opcode; the value of `STOP` ends the pickle.
    fn step(&mut self) -> Step {
        let opcode = self.take(1)?[0];
        match opcode {
            0x80 => match self.take(1)?[0] {
                0..=5 => {}
                version => return Err(format!("protocol {version}, expected at most 5")),
            },
            // A frame only promises how many bytes follow.
            0x95 => drop(self.take(8)?),
            b'.' => return self.pop().map(Some),
            b'(' => {
                self.has_room(self.marks.len())?;
                self.marks.push(self.stack.len());
            }
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.pop()?;
                self.push(top)?;
                self.push(top)?;
            }
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'I' | b'L' | b'F' => self.number_as_text(opcode)?,
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?;
            }
            b'K' => {
                let value = self.take(1)?[0];
                self.push(Value::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?;
            }
            0x8a | 0x8b => {
                let bytes = self.counted(if opcode == 0x8a { 1 } else { 4 })?;
                self.long(bytes)?;
            }
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(value))?;
            }
            b'S' | b'V' => {
                let line = self.line()?;
                let text = if opcode == b'S' { line.trim_matches(['\'', '"']) } else { line };
                self.make(Object::Text(text.into()))?;
            }
            b'X' | b'T' => self.sized_text(4)?,
            0x8c | b'U' => self.sized_text(1)?,
            0x8d => self.sized_text(8)?,
            b']' => self.make(Object::List(Vec::new()))?,
            b'}' => self.make(Object::Dict(Vec::new()))?,
            b')' => self.make(Object::Tuple([].into()))?,
            0x85..=0x87 => {
                let from =
                    self.stack.len().checked_sub(usize::from(opcode - 0x84)).filter(|&from| from >= self.floor());
                let values = self.stack.split_off(from.ok_or("a tuple of more values than there are")?);
                self.make(Object::Tuple(values.into()))?;
            }
            b't' | b'l' => {
                let values = self.pop_mark()?;
                self.make(if opcode == b't' { Object::Tuple(values.into()) } else { Object::List(values) })?;
            }
            b'd' => {
                let pairs = pairs(self.pop_mark()?)?;
                self.make(Object::Dict(pairs))?;
            }
            b'a' => {
                let value = self.pop()?;
                self.list()?.push(value);
            }
            b'e' => {
                let values = self.pop_mark()?;
                self.list()?.extend(values);
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.dict()?.push((key, value));
            }
            b'u' => {
                let pairs = pairs(self.pop_mark()?)?;
                self.dict()?.extend(pairs);
            }
            b'p' | b'g' => {
                let place = self.line()?.parse().map_err(|_| "a place of the memo that is no number")?;
                if opcode == b'p' { self.put(place)? } else { self.get(place)? }
            }
            b'q' | b'h' => {
                let place = self.take(1)?[0].into();
                if opcode == b'q' { self.put(place)? } else { self.get(place)? }
            }
            b'r' | b'j' => {
                let place = u32::from_le_bytes(self.array()?).into();
                if opcode == b'r' { self.put(place)? } else { self.get(place)? }
            }
            0x94 => self.put(self.memo.len() as u64)?,
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                let global = Global::named(module, name).ok_or_else(|| forbidden(module, name))?;
                self.make(Object::Global(global))?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Some(module), Some(name)) = (self.arena.text(module), self.arena.text(name)) else {
                    return Err("a name of an object that is no text".to_owned());
                };
                let global = Global::named(module, name).ok_or_else(|| forbidden(module, name))?;
                self.make(Object::Global(global))?;
            }
            b'R' => {
                let (args, callee) = (self.pop()?, self.pop()?);
                match rebuild::call(&self.arena, callee, args)? {
                    Made::New(object) => {
                        if let Object::Dict(pairs) = &object {
                            self.copied += pairs.len();
                            self.has_room(self.copied)?;
                        }
                        self.make(object)?;
                    }
                    Made::Old(value) => self.push(value)?,
                }
            }
            // Attributes of an OrderedDict, such as `_metadata` of a state_dict: nothing that tensors need.
            b'b' => {
                let _attributes = self.pop()?;
                self.dict().map_err(|_| "sets attributes of an object that is no dict")?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = rebuild::storage(&self.arena, id)?;
                self.make(Object::Storage(storage))?;
            }
            _ => return Err(unknown(opcode)),
        }
        Ok(None)
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.bytes.len());
        let taken = &self.bytes[self.at..end.ok_or_else(|| self.too_short(n))?];
        self.at += n;
        Ok(taken)
    }

    fn too_short(&self, n: usize) -> String {
        format!("{n} bytes are promised, and {} are left", self.bytes.len() - self.at)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("so many bytes were taken"))
    }

    /// Bytes with their count before them, in `width` bytes.
    fn counted(&mut self, width: usize) -> Result<&'a [u8], String> {
        let mut count = [0; 8];
        count[..width].copy_from_slice(self.take(width)?);
        self.take(usize::try_from(u64::from_le_bytes(count)).unwrap_or(usize::MAX))
    }

    /// The text up to the end of the line.
    fn line(&mut self) -> Result<&'a str, String> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&byte| byte == b'\n').ok_or("a line without an end")?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| "a line that is not UTF-8".to_owned())
    }

    fn has_room(&self, count: usize) -> Result<(), String> {
        if count < MOST_VALUES { Ok(()) } else { Err(format!("more than {MOST_VALUES} values at once")) }
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        self.has_room(self.stack.len())?;
        self.stack.push(value);
        Ok(())
    }

    fn make(&mut self, object: Object) -> Result<(), String> {
        let objects = &mut self.arena.0;
        if objects.len() >= MOST_OBJECTS {
            return Err(format!("more than {MOST_OBJECTS} objects"));
        }
        objects.push(object);
        let value = Value::Object(objects.len() - 1);
        self.push(value)
    }

    /// Length of the stack at the last mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Value, String> {
        match self.stack.len() > self.floor() {
            true => Ok(self.stack.pop().expect("it is not empty")),
            false => Err("a value is needed, and none is there".to_owned()),
        }
    }

    /// Everything above the last mark.
    fn pop_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.marks.pop().ok_or("a mark is needed, and none is there")?;
        Ok(self.stack.split_off(mark))
    }

    /// The object on top of the stack.
    fn top(&mut self) -> Result<&mut Object, String> {
        let value = self.pop()?;
        self.stack.push(value);
        match value {
            Value::Object(at) => Ok(&mut self.arena.0[at]),
            _ => Err("an object is needed, and a number is there".to_owned()),
        }
    }

    fn list(&mut self) -> Result<&mut Vec<Value>, String> {
        match self.top()? {
            Object::List(values) => Ok(values),
            _ => Err("appends to an object that is no list".to_owned()),
        }
    }

    fn dict(&mut self) -> Result<&mut Vec<(Value, Value)>, String> {
        match self.top()? {
            Object::Dict(pairs) => Ok(pairs),
            _ => Err("sets an item of an object that is no dict".to_owned()),
        }
    }

    fn put(&mut self, place: u64) -> Result<(), String> {
        self.has_room(self.memo.len())?;
        let value = self.pop()?;
        self.stack.push(value);
        self.memo.insert(place, value);
        Ok(())
    }

    fn get(&mut self, place: u64) -> Result<(), String> {
        let value = *self.memo.get(&place).ok_or_else(|| format!("place {place} of the memo is empty"))?;
        self.push(value)
    }

    /// Numbers of protocol 0: `I01` and `I00` are true and false.
    fn number_as_text(&mut self, opcode: u8) -> Result<(), String> {
        let line = self.line()?;
        let wrong = || format!("`{}`, expected a number", line.escape_debug().take(40).collect::<String>());
        let value = match (opcode, line) {
            (b'I', "00") => Value::Bool(false),
            (b'I', "01") => Value::Bool(true),
            (b'F', text) => Value::Float(text.parse().map_err(|_| wrong())?),
            (_, text) => Value::Int(text.trim_end_matches('L').parse().map_err(|_| wrong())?),
        };
        self.push(value)
    }

    /// An integer of any length, little-endian in two's complement.
    fn long(&mut self, bytes: &[u8]) -> Result<(), String> {
        if bytes.len() > 8 {
            return self.make(Object::Long(bytes.into()));
        }
        let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let mut all = [if negative { 0xff } else { 0 }; 8];
        all[..bytes.len()].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(all)))
    }

    fn sized_text(&mut self, width: usize) -> Result<(), String> {
        let bytes = self.counted(width)?;
        self.make(Object::Text(String::from_utf8_lossy(bytes).into()))
    }
}

/// The pairs of a list of lists or tuples of two.
fn pairs_of(arena: &Arena, list: Value) -> Option<Vec<(Value, Value)>> {
    let pair = |&item: &Value| match arena.sequence(item)? {
        &[key, value] => Some((key, value)),
        _ => None,
    };
    arena.sequence(list)?.iter().map(pair).collect()
}

fn pairs(values: Vec<Value>) -> Result<Vec<(Value, Value)>, String> {
    match values.as_chunks::<2>() {
        (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => Err("a dict with a key that has no value".to_owned()),
    }
}

/// What to do about a file with more in it than tensors.
const ADVICE: &str = "save the tensors alone: torch.save(model.state_dict(), \"weights.pth\")";

fn forbidden(module: &str, name: &str) -> String {
    let name = format!("{}.{}", short(module), short(name));
    format!("`{name}` is not admitted: only tensors and plain containers are read, and nothing is run; {ADVICE}")
}

/// An opcode of Python's that this machine does not have, or a byte that is none.
fn unknown(opcode: u8) -> String {
    let name = match opcode {
        b'i' => "INST, which calls a function,",
        b'o' => "OBJ, which calls a class,",
        0x81 | 0x92 => "NEWOBJ, which makes an object of a class,",
        0x82..=0x84 => "EXT, which names an object by number,",
        b'P' => "PERSID, an object outside the pickle,",
        b'B' | b'C' | 0x8e | 0x96 => "bytes of Python",
        0x8f..=0x91 => "a set of Python",
        0x97 | 0x98 => "a buffer outside the pickle",
        _ => return format!("0x{opcode:02x} is no opcode of a pickle: the file is damaged or of another kind"),
    };
    format!("{name} is not admitted: only tensors and plain containers are read, and nothing is run; {ADVICE}")
}
