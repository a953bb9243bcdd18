//! Plain values of Python as TOML, and JSON as plain values of Python.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use serde_json::Value;

use crate::error::wrong;

/// The TOML value of a bool, number, text, path, list, tuple or dictionary; `key` is what errors call it.
pub(crate) fn to_toml(object: &Bound<'_, PyAny>, key: &str) -> PyResult<toml::Value> {
    let expected = || {
        let class = object.get_type();
        wrong(format!("`{key}` is a {class}; expected a bool, a number, a text, a list or a dictionary"))
    };
    if object.is_instance_of::<PyBool>() {
        return Ok(toml::Value::Boolean(object.extract()?));
    }
    if object.is_instance_of::<PyInt>() {
        return object.extract().map(toml::Value::Integer).map_err(|_| wrong(format!("`{key}` = {object}: too large")));
    }
    if object.is_instance_of::<PyFloat>() {
        return Ok(toml::Value::Float(object.extract()?));
    }
    if let Ok(text) = object.cast::<PyString>() {
        return Ok(toml::Value::String(text.to_string()));
    }
    if let Ok(dict) = object.cast::<PyDict>() {
        return Ok(toml::Value::Table(to_table(dict, key)?));
    }
    if object.is_instance_of::<PyList>() || object.is_instance_of::<PyTuple>() {
        let items = object.try_iter()?.map(|item| to_toml(&item?, key)).collect::<PyResult<_>>()?;
        return Ok(toml::Value::Array(items));
    }
    // Scalars and arrays of NumPy, and paths.
    for method in ["tolist", "__fspath__"] {
        if object.hasattr(method)? {
            return to_toml(&object.call_method0(method)?, key);
        }
    }
    Err(expected())
}

/// The TOML table of a dictionary whose keys are texts; those with the value `None` are left out.
pub(crate) fn to_table(dict: &Bound<'_, PyDict>, what: &str) -> PyResult<toml::Table> {
    let mut table = toml::Table::new();
    for (key, value) in dict {
        let Ok(key) = key.cast_into::<PyString>() else {
            return Err(wrong(format!("`{what}` has a key that is no text")));
        };
        if !value.is_none() {
            let key = key.to_string();
            let value = to_toml(&value, &key)?;
            table.insert(key, value);
        }
    }
    Ok(table)
}

/// JSON as `None`, bools, numbers, texts, lists and dictionaries.
pub(crate) fn from_json<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Null => py.None().into_bound(py),
        Value::Bool(value) => PyBool::new(py, *value).to_owned().into_any(),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), ..) => value.into_pyobject(py)?.into_any(),
            (_, Some(value), _) => value.into_pyobject(py)?.into_any(),
            (.., value) => value.unwrap_or(f64::NAN).into_pyobject(py)?.into_any(),
        },
        Value::String(text) => PyString::new(py, text).into_any(),
        Value::Array(items) => {
            let items = items.iter().map(|item| from_json(py, item)).collect::<PyResult<Vec<_>>>()?;
            PyList::new(py, items)?.into_any()
        }
        Value::Object(fields) => {
            let dict = PyDict::new(py);
            for (key, value) in fields {
                dict.set_item(key, from_json(py, value)?)?;
            }
            dict.into_any()
        }
    })
}
