//! Typed reading of a tree: each value once, each fault with its place. What no key asked for is unknown.

use std::cell::RefCell;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::Sources;
use super::fault::{Fault, Place};
use super::tree::{Node, Table, Value};
use model::E164;
use model::Secret;

/// What reading needs beside the tree, and the faults it finds.
pub(super) struct Context<'a> {
    pub(super) sources: &'a Sources<'a>,
    pub(super) faults: RefCell<Vec<Fault>>,
}

impl Context<'_> {
    pub(super) fn fault(&self, at: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.faults.borrow_mut().push(Fault::new(at, message, hint));
    }
}

/// A table being read.
pub(super) struct Section<'a> {
    /// `meta`, `[account]`: for messages.
    name: String,
    pub(super) at: Place,
    table: Table,
    known: Vec<&'static str>,
    cx: &'a Context<'a>,
}

impl<'a> Section<'a> {
    pub(super) fn root(table: Table, cx: &'a Context<'a>) -> Self {
        Self { name: String::new(), at: Place::File, table, known: Vec::new(), cx }
    }

    fn new(name: String, node: Node, cx: &'a Context<'a>) -> Option<Self> {
        match node.value {
            Value::Table(table) => Some(Self { name, at: node.at, table, known: Vec::new(), cx }),
            other => {
                cx.fault(
                    node.at,
                    format!("`{name}` is {}, not a table", other.kind()),
                    format!("write [{name}]"),
                );
                None
            }
        }
    }

    fn take(&mut self, key: &'static str) -> Option<(Place, Node)> {
        self.known.push(key);
        self.table.remove(key)
    }

    /// A table that is a value: `{ … }` in a list.
    pub(super) fn inner(name: &str, node: &Node, cx: &'a Context<'a>) -> Option<Self> {
        Self::new(name.to_owned(), node.clone(), cx)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The key's value without a look at it.
    pub(super) fn raw(&mut self, key: &'static str) -> Option<Node> {
        self.take(key).map(|(_, node)| node)
    }

    /// An inner table; an empty one where there is none.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        let cx = self.cx;
        // What stands in a list's table is named by itself.
        let inside = !self.name.is_empty() && !self.name.starts_with('[');
        let name = if inside { format!("{}.{key}", self.name) } else { key.to_owned() };
        self.raw(key)
            .and_then(|node| Self::new(name.clone(), node, cx))
            .unwrap_or_else(|| Section { name, ..Section::root(Table::new(), cx) })
    }

    /// The tables of `[[key]]`.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let cx = self.cx;
        match self.raw(key) {
            None => Vec::new(),
            Some(Node { value: Value::List(items), .. }) => items
                .into_iter()
                .filter_map(|item| Self::new(format!("[{key}]"), item, cx))
                .collect(),
            Some(node) => {
                let message = format!("`{key}` is {}, not a list of tables", node.value.kind());
                cx.fault(node.at, message, format!("write [[{key}]]"));
                Vec::new()
            }
        }
    }

    /// The key's value, read; with its place.
    pub(super) fn placed<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Node) -> Result<T, Complaint>,
    ) -> Option<(T, Place)> {
        let node = self.raw(key)?;
        match read(&node) {
            Ok(value) => Some((value, node.at)),
            Err(Complaint { message, hint, at }) => {
                self.cx.fault(at.unwrap_or(node.at), format!("`{key}` {message}"), hint);
                None
            }
        }
    }

    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Node) -> Result<T, Complaint>,
    ) -> Option<T> {
        self.placed(key, read).map(|(value, _)| value)
    }

    /// As [`Section::get`], and a fault where the key is missing.
    pub(super) fn need<T>(
        &mut self,
        key: &'static str,
        hint: &str,
        read: impl Fn(&Node) -> Result<T, Complaint>,
    ) -> Option<(T, Place)> {
        if !self.has(key) {
            self.missing(key, hint);
        }
        self.placed(key, read)
    }

    fn missing(&mut self, key: &'static str, hint: &str) {
        self.known.push(key);
        self.cx.fault(self.at.clone(), format!("`{key}` is missing in [{}]", self.name), hint);
    }

    /// Text; empty is absent.
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        self.get(key, text).filter(|t| !t.is_empty())
    }

    /// A secret that may be absent: so is an empty one, and one whose variable or file isn't there.
    pub(super) fn secret(&mut self, key: &'static str) -> Option<Secret> {
        let node = self.raw(key)?;
        self.cx.secret(key, &node).ok()?
    }

    /// A secret that must be there.
    pub(super) fn need_secret(&mut self, key: &'static str, hint: &str) -> Option<Secret> {
        match self.raw(key) {
            None => self.missing(key, hint),
            Some(node) => match self.cx.secret(key, &node) {
                Ok(Some(secret)) => return Some(secret),
                Ok(None) => {
                    let message = format!("`{key}` {}", self.cx.why_absent(&node));
                    self.cx.fault(node.at, message, hint);
                }
                Err(()) => {}
            },
        }
        None
    }

    /// A value that may stand where secrets do, since it may hold one; where it is named it must be there.
    pub(super) fn hidden<T>(
        &mut self,
        key: &'static str,
        hint: &str,
        read: impl Fn(&str) -> Result<T, Complaint>,
    ) -> Option<T> {
        let Some(at) = self.table.get(key).map(|(_, node)| node.at.clone()) else {
            self.known.push(key);
            return None;
        };
        let found = self.need_secret(key, hint)?;
        match read(found.reveal()) {
            Ok(value) => Some(value),
            Err(Complaint { message, hint, .. }) => {
                self.cx.fault(at, format!("`{key}` {message}"), hint);
                None
            }
        }
    }

    /// Whatever was not asked for is an error.
    pub(super) fn finish(self) {
        let place = if self.name.is_empty() {
            "at the top level".to_owned()
        } else {
            format!("in [{}]", self.name)
        };
        for (key, (at, _)) in &self.table {
            let known = self.known.iter().copied();
            self.cx.fault(
                at.clone(),
                format!("unknown key `{key}` {place}"),
                suggestion(key, known),
            );
        }
    }
}

impl Context<'_> {
    /// A secret as text, `{ env = "NAME" }` or `{ file = "PATH" }`; `Err` after a fault.
    pub(super) fn secret(&self, key: &str, node: &Node) -> Result<Option<Secret>, ()> {
        let wrong = |at: &Place, what: &str| {
            let hint = "write text, { env = \"NAME\" } or { file = \"PATH\" }";
            self.fault(at.clone(), format!("`{key}` {what}"), hint);
        };
        let text = match &node.value {
            Value::Text(text) => Some(text.clone()),
            Value::Table(table) => match table.iter().next() {
                Some((form, (_, Node { value: Value::Text(name), .. }))) if table.len() == 1 => {
                    match form.as_str() {
                        "env" => (self.sources.env)(name),
                        "file" => match (self.sources.file)(name) {
                            Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
                            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
                            Err(e) => {
                                self.fault(
                                    node.at.clone(),
                                    format!("`{key}`: could not read {name}: {e}"),
                                    "",
                                );
                                return Err(());
                            }
                        },
                        _ => {
                            wrong(&node.at, &format!("has an unknown form `{form}`"));
                            return Err(());
                        }
                    }
                }
                _ => {
                    wrong(&node.at, "is not one of the forms of a secret");
                    return Err(());
                }
            },
            other => {
                wrong(&node.at, &format!("is {}, not a secret", other.kind()));
                return Err(());
            }
        };
        // Blanks alone are a variable that somebody forgot to fill.
        Ok(text.filter(|t| !t.trim().is_empty()).map(Secret::new))
    }

    fn why_absent(&self, node: &Node) -> String {
        let Value::Table(table) = &node.value else { return "is empty".to_owned() };
        match table.iter().next() {
            Some((form, (_, Node { value: Value::Text(name), .. }))) => match form.as_str() {
                "env" => {
                    format!("needs the environment variable {name}, which is not set or empty")
                }
                _ => format!("needs the file {name}, which is not there or empty"),
            },
            _ => "is empty".to_owned(),
        }
    }
}

/// What a reader has to say about a value: reads on after the key's name.
#[derive(Debug)]
pub(super) struct Complaint {
    pub(super) message: String,
    pub(super) hint: String,
    /// Where in the value, if not the whole of it.
    pub(super) at: Option<Place>,
}

impl Complaint {
    pub(super) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), at: None }
    }
}

fn is_not(node: &Node, wanted: impl Display) -> Complaint {
    Complaint::new(format!("is {}", node.value.kind()), format!("must be {wanted}"))
}

pub(super) fn text(node: &Node) -> Result<String, Complaint> {
    match &node.value {
        Value::Text(text) => Ok(text.clone()),
        Value::Int(n) => Err(Complaint::new("is a number", format!("put it in quotes: \"{n}\""))),
        _ => Err(is_not(node, "text in quotes")),
    }
}

pub(super) fn flag(node: &Node) -> Result<bool, Complaint> {
    match &node.value {
        Value::Bool(b) => Ok(*b),
        Value::Text(t) if matches!(node.at, Place::Env(_)) && (t == "true" || t == "false") => {
            Ok(t == "true")
        }
        _ => Err(is_not(node, "true or false")),
    }
}

/// A whole number in a range.
pub(super) fn whole<T: TryFrom<i64>>(
    range: RangeInclusive<i64>,
) -> impl Fn(&Node) -> Result<T, Complaint> {
    move |node| {
        let n = match &node.value {
            Value::Int(n) => Some(*n),
            Value::Text(t) if matches!(node.at, Place::Env(_)) => t.trim().parse().ok(),
            _ => None,
        };
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let n = n.ok_or_else(|| is_not(node, &wanted))?;
        let fits = if range.contains(&n) { T::try_from(n).ok() } else { None };
        fits.ok_or_else(|| Complaint::new(format!("is {n}"), format!("must be {wanted}")))
    }
}

/// Anything with a parser.
pub(super) fn parsed<T: std::str::FromStr>(
    wanted: &'static str,
) -> impl Fn(&Node) -> Result<T, Complaint> {
    move |node| {
        text(node)?
            .trim()
            .parse()
            .map_err(|_| Complaint::new("can't be read", format!("must be {wanted}")))
    }
}

pub(super) fn address(node: &Node) -> Result<SocketAddr, Complaint> {
    parsed("an address and a port, like \"0.0.0.0:8080\" or \"[::]:8080\"")(node)
}

/// An address, or a prefix of them.
pub(super) fn prefix(node: &Node) -> Result<ipnet::IpNet, Complaint> {
    let wanted = "an address or a prefix, like \"10.0.0.0/8\"";
    parsed::<IpAddr>(wanted)(node).map(ipnet::IpNet::from).or_else(|_| parsed(wanted)(node))
}

/// A list; from the environment, one with commas or in TOML's brackets.
pub(super) fn list<T>(
    read: impl Fn(&Node) -> Result<T, Complaint>,
) -> impl Fn(&Node) -> Result<Vec<T>, Complaint> {
    move |node| {
        let from_env;
        let items = match &node.value {
            Value::List(items) => items,
            Value::Text(t) if matches!(node.at, Place::Env(_)) => {
                let bare = t.trim().trim_start_matches('[').trim_end_matches(']');
                from_env = bare
                    .split(',')
                    .map(|item| item.trim().trim_matches('"'))
                    .filter(|item| !item.is_empty())
                    .map(|item| Node { at: node.at.clone(), value: Value::Text(item.to_owned()) })
                    .collect();
                &from_env
            }
            _ => return Err(is_not(node, "a list in brackets")),
        };
        items
            .iter()
            .map(|item| {
                read(item).map_err(|c| Complaint { at: c.at.or(Some(item.at.clone())), ..c })
            })
            .collect()
    }
}

/// One of some words.
pub(super) fn one_of<T: Copy>(
    words: &'static [(&'static str, T)],
) -> impl Fn(&Node) -> Result<T, Complaint> {
    move |node| {
        let said = text(node)?;
        words.iter().find(|(word, _)| *word == said).map(|(_, value)| *value).ok_or_else(|| {
            let all =
                words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
            Complaint::new(format!("is \"{said}\""), format!("must be one of {all}"))
        })
    }
}

/// A phone number.
pub(super) fn number(node: &Node) -> Result<E164, Complaint> {
    let said = text(node)?;
    let digits = said.starts_with(|c: char| c.is_ascii_digit() && c != '0');
    match E164::parse(&said) {
        Ok(number) if digits && number.as_str() == said => Ok(number),
        Ok(number) if !number.as_str().starts_with('0') => {
            Err(Complaint::new("is not in E.164 digits", format!("write \"{number}\"")))
        }
        Ok(_) | Err(_) => Err(Complaint::new(
            "is not a phone number",
            "E.164: country code first, 5 to 15 digits, no plus",
        )),
    }
}

/// What to write instead of an unknown key.
pub(super) fn suggestion<'k>(key: &str, known: impl Iterator<Item = &'k str> + Clone) -> String {
    let near = known
        .clone()
        .map(|k| (strsim::osa_distance(&key.to_lowercase().replace('-', "_"), k), k))
        .filter(|(distance, k)| *distance <= 1 + k.len() / 3)
        .min();
    match near {
        Some((_, k)) => format!("did you mean `{k}`?"),
        None if known.clone().next().is_none() => "there is none in this file".to_owned(),
        None => {
            format!("known are {}", known.map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", "))
        }
    }
}
