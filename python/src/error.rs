//! Errors as exceptions of Python: the classes of `bitpact._errors`, with the texts that the command shows.

use std::error::Error;
use std::io;

use bitpact::RunError;
use bitpact::unstable::train::ptq::PtqError;
use pyo3::prelude::*;
use pyo3::types::PyType;

/// Class of an exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `BitpactValueError`: something that was given cannot be used.
    Value,
    /// `BitpactOSError`: a file cannot be read or written.
    File,
    /// `BitpactRuntimeError`: everything else.
    Runtime,
}

/// The exception of class `kind` with the text `text`.
pub(crate) fn raise(kind: Kind, text: String) -> PyErr {
    let name = match kind {
        Kind::Value => "BitpactValueError",
        Kind::File => "BitpactOSError",
        Kind::Runtime => "BitpactRuntimeError",
    };
    Python::attach(|py| {
        let class = py.import("bitpact._errors").and_then(|module| module.getattr(name));
        match class.and_then(|class| Ok(class.cast_into::<PyType>()?)) {
            Ok(class) => PyErr::from_type(class, (text,)),
            Err(error) => error,
        }
    })
}

/// A `BitpactValueError`.
pub(crate) fn wrong(text: impl Into<String>) -> PyErr {
    raise(Kind::Value, text.into())
}

/// The exception for `error`: a `BitpactOSError` where an error of files is behind it, else one of the class that suits
/// the error, which is `kind` where nothing else is known.
fn exception(error: &(dyn Error + 'static), kind: Kind) -> PyErr {
    let mut text = error.to_string();
    let mut is_io = error.is::<io::Error>();
    let mut cause = error.source();
    while let Some(inner) = cause {
        is_io |= inner.is::<io::Error>();
        let said = inner.to_string();
        if !text.contains(&said) {
            text += ": ";
            text += &said;
        }
        cause = inner.source();
    }
    raise(if is_io { Kind::File } else { kind_of(error).unwrap_or(kind) }, text)
}

/// The class of errors that come of what happens, not of what was given.
fn kind_of(error: &(dyn Error + 'static)) -> Option<Kind> {
    let is_runtime = match (error.downcast_ref::<RunError>(), error.downcast_ref::<PtqError>()) {
        (Some(error), _) => matches!(
            error,
            RunError::Train(_)
                | RunError::Engine(_)
                | RunError::Differs(_)
                | RunError::HoldsRun { .. }
                | RunError::Busy { .. }
                | RunError::Memory { .. }
        ),
        (_, Some(error)) => matches!(error, PtqError::Memory { .. } | PtqError::Engine(_)),
        _ => return None,
    };
    is_runtime.then_some(Kind::Runtime)
}

/// Results whose errors become exceptions.
pub(crate) trait OrRaise<T> {
    /// The value; an error becomes a `BitpactValueError` where nothing else is known of it.
    fn or_wrong(self) -> PyResult<T>;
    /// The value; an error becomes a `BitpactRuntimeError` where nothing else is known of it.
    fn or_runtime(self) -> PyResult<T>;
}

impl<T, E: Error + 'static> OrRaise<T> for Result<T, E> {
    fn or_wrong(self) -> PyResult<T> {
        self.map_err(|error| exception(&error, Kind::Value))
    }

    fn or_runtime(self) -> PyResult<T> {
        self.map_err(|error| exception(&error, Kind::Runtime))
    }
}
