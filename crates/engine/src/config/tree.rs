//! A configuration as a tree in which every key and value has its place in the file, and the
//! overlay of the environment. This module does not know which keys exist.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::fault::{Fault, Place};

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    List(Vec<Node>),
    Table(Table),
    /// A date, or a number that is out of range.
    Other,
}

/// Keys in order, each with its place.
pub(super) type Table = BTreeMap<String, (Place, Node)>;

impl Value {
    /// Returns the kind of value, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Int(_) => "a number",
            Self::Float(_) => "a fraction",
            Self::Bool(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other => "a date or an impossible number",
        }
    }
}

/// Parses TOML. The rest of the file is parsed even if there are faults.
pub(super) fn parse(text: &str) -> (Table, Vec<Fault>) {
    let (table, mut errors) = DeTable::parse_recoverable(text);
    // The first error of a line causes the others.
    let line_ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    let line_of = |span: Range<usize>| line_ends.partition_point(|end| *end < span.start);
    errors.dedup_by_key(|e| e.span().map(line_of));
    let faults = errors
        .into_iter()
        .map(|e| Fault::unparsed(e.span().map_or(Place::File, Place::Span), e.message()))
        .collect();
    (table_of(table.into_inner(), &Place::Span), faults)
}

/// Converts a table. `place` gives the place of a range of bytes.
fn table_of(table: DeTable<'_>, place: &dyn Fn(Range<usize>) -> Place) -> Table {
    table
        .into_iter()
        .map(|(key, value)| {
            let at = place(key.span());
            (key.into_inner().into_owned(), (at, node_of(value.span(), value.into_inner(), place)))
        })
        .collect()
}

fn node_of(span: Range<usize>, value: DeValue<'_>, place: &dyn Fn(Range<usize>) -> Place) -> Node {
    let value = match value {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(n) => {
            i64::from_str_radix(n.as_str(), n.radix()).map_or(Value::Other, Value::Int)
        }
        DeValue::Float(f) => f.as_str().parse().map_or(Value::Other, Value::Float),
        DeValue::Boolean(b) => Value::Bool(b),
        DeValue::Datetime(_) => Value::Other,
        DeValue::Array(items) => Value::List(
            items
                .into_iter()
                .map(|item| {
                    let span = item.span();
                    node_of(span, item.into_inner(), place)
                })
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(table_of(table, place)),
    };
    Node { at: place(span), value }
}

/// Overlays the tree with `OFFHOOK_A__B=text`. Two underscores separate a table from its key, and
/// names are lower-cased. Variables without two underscores are ignored, so that `{ env =
/// "OFFHOOK_API_KEY" }` can use such names. An entry of a list such as `[[account]]` is reached by
/// its index, `OFFHOOK_ACCOUNT__0__CPS`, if the file has it.
pub(super) fn overlay(root: &mut Table, env: &BTreeMap<String, String>, faults: &mut Vec<Fault>) {
    for (name, text) in env {
        let Some(path) = name.strip_prefix("OFFHOOK_").filter(|p| p.contains("__")) else {
            continue;
        };
        let path: Vec<String> = path.split("__").map(str::to_lowercase).collect();
        let at = Place::Env(name.clone());
        if path.iter().any(String::is_empty) {
            faults.push(Fault::new(
                at,
                "does not name a key",
                "OFFHOOK_META__APP_SECRET sets app_secret in [meta]",
            ));
        } else if let Err(fault) = set(root, &path, &at, text) {
            faults.push(fault);
        }
    }
}

fn set(table: &mut Table, path: &[String], at: &Place, text: &str) -> Result<(), Fault> {
    let Some((key, rest)) = path.split_first() else { return Ok(()) };
    let value = inline(text, at).unwrap_or_else(|| Value::Text(text.to_owned()));
    let leaf = Node { at: at.clone(), value };
    if rest.is_empty() {
        table.insert(key.clone(), (at.clone(), leaf));
        return Ok(());
    }
    // In a section that only the environment has, missing keys are reported for the file.
    let empty = || (at.clone(), Node { at: Place::File, value: Value::Table(Table::new()) });
    let (_, node) = table.entry(key.clone()).or_insert_with(empty);
    if let (Value::List(items), Some((index, rest))) = (&mut node.value, rest.split_first()) {
        let count = items.len();
        let item = index.parse::<usize>().ok().and_then(|i| items.get_mut(i));
        return match item.map(|n| &mut n.value) {
            Some(Value::Table(entry)) if !rest.is_empty() => set(entry, rest, at, text),
            _ => Err(Fault::new(
                at.clone(),
                format!(
                    "does not reach an entry of [[{key}]]: the file has {count}, counted from 0"
                ),
                format!("put it into the file, or use OFFHOOK_{}__0__KEY", key.to_uppercase()),
            )),
        };
    }
    // A table replaces a plain value of the file: OFFHOOK_META__APP_SECRET__FILE overrides
    // `app_secret = "…"`.
    if !matches!(node.value, Value::Table(_)) {
        *node = empty().1;
    }
    match &mut node.value {
        Value::Table(inner) => set(inner, rest, at, text),
        _ => Ok(()),
    }
}

/// Parses the value of a variable that is written in TOML: a table such as `{ env = "NAME" }`, or a
/// list with tables. Other lists stay text, which the key's reader splits.
fn inline(text: &str, at: &Place) -> Option<Value> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let line = format!("v = {text}");
    let parsed = DeTable::parse(&line).ok()?.into_inner();
    let mut parsed = table_of(parsed, &|_| at.clone());
    let (_, Node { value, .. }) = parsed.remove("v").filter(|_| parsed.is_empty())?;
    let is_table = |value: &Value| matches!(value, Value::Table(_));
    let holds_table =
        matches!(&value, Value::List(items) if items.iter().any(|item| is_table(&item.value)));
    (is_table(&value) || holds_table).then_some(value)
}

/// Converts the tree to a TOML value, for a section that another crate reads. Text from the
/// environment becomes a number, boolean or list if it has that form: `7`, `true`, `["a"]`.
pub(super) fn to_toml(node: &Node) -> toml::Value {
    match &node.value {
        Value::Text(text) if matches!(node.at, Place::Env(_)) => format!("v = {text}")
            .parse::<toml::Table>()
            .ok()
            .and_then(|mut t| t.remove("v"))
            .unwrap_or_else(|| text.clone().into()),
        Value::Text(text) => text.clone().into(),
        Value::Int(n) => (*n).into(),
        Value::Float(f) => (*f).into(),
        Value::Bool(b) => (*b).into(),
        Value::List(items) => toml::Value::Array(items.iter().map(to_toml).collect()),
        Value::Table(table) => toml::Value::Table(
            table.iter().map(|(key, (_, node))| (key.clone(), to_toml(node))).collect(),
        ),
        Value::Other => toml::Value::String(String::new()),
    }
}
