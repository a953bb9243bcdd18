//! A CSV file of pictures and what a network is to give for them.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use super::Task;
use super::layout::{Goal, wrong};
use crate::DataError;

/// Bytes of the largest table that is read.
const LARGEST: u64 = 1 << 28;

/// A table that was read.
#[derive(Debug, PartialEq)]
pub(crate) struct Table {
    /// Names of classes, or of the columns of numbers.
    pub(crate) names: Vec<String>,
    /// Whether the rows give numbers.
    pub(crate) is_numbers: bool,
    /// Whether the rows say of which half they are.
    pub(crate) has_split: bool,
    pub(crate) rows: Vec<Row>,
    /// Columns that are not read.
    pub(crate) unread: Vec<String>,
}

/// A row of a table.
#[derive(Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) path: String,
    pub(crate) goal: Goal,
    pub(crate) is_test: Option<bool>,
}

/// Reads the table at `path`, of classes unless it has no column `label` or the task is to regress.
pub(crate) fn read(path: &Path, task: Option<Task>) -> Result<Table, DataError> {
    let bytes = bitpact_kernels::memory::read_at_most(path, LARGEST)
        .map_err(|source| DataError::Io { path: path.to_path_buf(), source })?;
    parse(&bytes[..], path, task)
}

/// Reads a table; `file` names it in errors.
pub(crate) fn parse(text: impl Read, file: &Path, task: Option<Task>) -> Result<Table, DataError> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text);
    let fault = |error: csv::Error| {
        let line = error.position().map_or(1, csv::Position::line);
        wrong(file, format!("line {line}: {}", reason(&error)))
    };
    let heads: Vec<String> = reader.headers().map_err(fault)?.iter().map(str::to_owned).collect();
    let heads: Vec<&str> = heads.iter().map(|head| head.trim_start_matches('\u{feff}')).collect();
    if let Some(twice) = heads.iter().enumerate().find(|(i, head)| heads[..*i].contains(head)).map(|(_, head)| head) {
        return Err(wrong(file, format!("line 1: two columns are called `{twice}`")));
    }
    let at = |name: &str| heads.iter().position(|head| *head == name);
    let Some(of_path) = at("path") else {
        let what = "line 1: no column `path`: expected a header such as path,label or path,label,split";
        return Err(wrong(file, what));
    };
    let (label, split) = (at("label"), at("split"));
    let is_numbers = label.is_none() || task == Some(Task::Regress);
    let others: Vec<usize> = (0..heads.len()).filter(|&i| i != of_path && Some(i) != split).collect();
    let (read, unread): (Vec<usize>, Vec<usize>) = others.into_iter().partition(|&i| is_numbers || Some(i) == label);
    if read.is_empty() {
        let what = "line 1: expected a column `label`, or columns of numbers, beside `path`";
        return Err(wrong(file, what));
    }
    let (mut texts, mut rows) = (Vec::new(), Vec::new());
    for record in reader.records() {
        let record = record.map_err(fault)?;
        let line = record.position().map_or(0, csv::Position::line);
        let bad = |what: String| Err(wrong(file, format!("line {line}: {what}")));
        let cell = |i: usize| record.get(i).unwrap_or_default();
        let path = cell(of_path).to_owned();
        if path.is_empty() || path.contains('\0') {
            return bad("expected the path of a picture".to_owned());
        }
        let is_test = match split.map(cell) {
            None => None,
            Some("train") => Some(false),
            Some("val" | "valid" | "validation" | "test") => Some(true),
            Some(other) => return bad(format!("the split is `{other}`; expected train, val or test")),
        };
        if is_numbers {
            let mut numbers = Vec::with_capacity(read.len());
            for &i in &read {
                match cell(i).parse::<f32>() {
                    Ok(number) if number.is_finite() => numbers.push(number),
                    _ => return bad(format!("`{}` is `{}`; expected a number", heads[i], cell(i))),
                }
            }
            rows.push(Row { path, goal: Goal::Numbers(numbers), is_test });
        } else {
            let label = cell(read[0]);
            if label.is_empty() || label.chars().any(char::is_control) || label.len() > 4096 {
                return bad("expected the name of a class as label".to_owned());
            }
            texts.push(label.to_owned());
            rows.push(Row { path, goal: Goal::Class(0), is_test });
        }
        if rows.len() > u32::MAX as usize {
            return bad("more than 2^32 rows".to_owned());
        }
    }
    if rows.is_empty() {
        return Err(wrong(file, "has no rows below its header"));
    }
    let names = match is_numbers {
        true => read.iter().map(|&i| heads[i].to_owned()).collect(),
        false => sorted(texts.iter().collect()),
    };
    if !is_numbers {
        if names.len() > usize::from(u16::MAX) {
            return Err(wrong(file, format!("has {} classes; expected at most 65535", names.len())));
        }
        let numbers: std::collections::HashMap<&str, u16> =
            names.iter().enumerate().map(|(i, name)| (name.as_str(), i as u16)).collect();
        rows.iter_mut().zip(&texts).for_each(|(row, text)| row.goal = Goal::Class(numbers[text.as_str()]));
    }
    let unread = unread.into_iter().map(|i| heads[i].to_owned()).collect();
    Ok(Table { names, is_numbers, has_split: split.is_some(), rows, unread })
}

/// Names in their order; numbers, where all are, in theirs.
fn sorted(names: BTreeSet<&String>) -> Vec<String> {
    let mut names: Vec<String> = names.into_iter().cloned().collect();
    if let Ok(numbers) = names.iter().map(|name| name.parse::<u32>()).collect::<Result<Vec<_>, _>>() {
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_by_key(|&i| numbers[i]);
        names = order.into_iter().map(|i| names[i].clone()).collect();
    }
    names
}

fn reason(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("has {len} cells; expected {expected_len} as the header")
        }
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(text: &str) -> Result<Table, String> {
        parse(text.as_bytes(), Path::new("t.csv"), None).map_err(|error| error.to_string())
    }

    #[test]
    fn classes_are_sorted_and_columns_found_by_name() {
        let found = table("\u{feff}split, label,path,note\ntrain,dog,a.png,x\nval,\"cat, big\",b c.png,y\n").unwrap();
        assert_eq!(
            (&found.names[..], found.has_split, &found.unread[..]),
            (&["cat, big".to_owned(), "dog".to_owned()][..], true, &["note".to_owned()][..])
        );
        assert_eq!(found.rows[1], Row { path: "b c.png".to_owned(), goal: Goal::Class(0), is_test: Some(true) });
        assert_eq!(table("path,label\na,10\nb,9\nc,10\n").unwrap().names, ["9", "10"]);
        assert_eq!(table("path,label\na,10\nb,9\nc,x\n").unwrap().names, ["10", "9", "x"]);
    }

    #[test]
    fn columns_of_numbers_are_to_be_regressed() {
        let found = table("path,sbp,dbp\na.png,120,80.5\n").unwrap();
        assert_eq!((&found.names[..], found.is_numbers), (&["sbp".to_owned(), "dbp".to_owned()][..], true));
        assert_eq!(found.rows[0].goal, Goal::Numbers(vec![120.0, 80.5]));
        let asked = parse(&b"path,label\na.png,-2e3\n"[..], Path::new("t.csv"), Some(Task::Regress)).unwrap();
        assert_eq!(asked.rows[0].goal, Goal::Numbers(vec![-2000.0]));
    }

    #[test]
    fn what_a_table_cannot_have_is_told_with_its_line() {
        for (text, part) in [
            ("", "line 1: no column `path`"),
            ("file,label\na,b\n", "no column `path`"),
            ("path\na\n", "expected a column `label`"),
            ("path,split\na,train\n", "expected a column `label`"),
            ("path,label,label\na,b,c\n", "two columns are called `label`"),
            ("path,label\n", "has no rows"),
            ("path,label\na,b\nc\n", "line 3: has 1 cells; expected 2"),
            ("path,label\n,b\n", "line 2: expected the path"),
            ("path,label\na,\n", "line 2: expected the name of a class"),
            ("path,label,split\na,b,training\n", "line 2: the split is `training`"),
            ("path,x\na,1\nb,nan\n", "line 3: `x` is `nan`; expected a number"),
            ("path,x\na,1e99\n", "expected a number"),
        ] {
            let error = table(text).unwrap_err();
            assert!(error.starts_with("t.csv: ") && error.contains(part), "{text:?}: {error}");
        }
        let error = parse(&b"path,label\na,\xff\n"[..], Path::new("t.csv"), None).unwrap_err().to_string();
        assert!(error.contains("line 2: is not UTF-8"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_table_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200), head: bool) {
            let text = if head { [&b"path,label,split\n"[..], &bytes].concat() } else { bytes };
            if let Ok(table) = parse(&text[..], Path::new("t.csv"), None) {
                prop_assert!(!table.rows.is_empty());
            }
        }

        #[test]
        fn what_was_written_is_read(rows in proptest::collection::vec(("[ -~]{1,12}", "[a-c,\" ]{1,4}", any::<bool>()), 1..20)) {
            let rows: Vec<_> = rows.into_iter().map(|(p, l, s)| (p.trim().to_owned(), l.trim().to_owned(), s)).collect();
            prop_assume!(rows.iter().all(|(path, label, _)| !path.is_empty() && !label.is_empty()));
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(["path", "label", "split"]).unwrap();
            for (path, label, is_test) in &rows {
                let split = if *is_test { "test" } else { "train" };
                writer.write_record([path.as_str(), label.as_str(), split]).unwrap();
            }
            let text = writer.into_inner().unwrap();
            let table = parse(&text[..], Path::new("t.csv"), None).unwrap();
            prop_assert_eq!(table.rows.len(), rows.len());
            for (row, (path, label, is_test)) in table.rows.iter().zip(&rows) {
                let Goal::Class(class) = row.goal else { panic!("{:?}", row.goal) };
                prop_assert_eq!((&row.path, &table.names[usize::from(class)], row.is_test), (path, label, Some(*is_test)));
            }
        }
    }
}
