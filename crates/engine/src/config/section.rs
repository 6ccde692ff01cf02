//! Reads tables of the configuration by declarations of their keys.
//!
//! A declaration names a key, its type, its meaning, its default and whether a reload applies it.
//! The reference of all keys ([`reference`](super::reference)) is therefore collected by reading an
//! empty file, and reading a real one also records the values that a reload has to compare. Keys
//! without a declaration are errors.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::Sources;
use super::declared::{Fallback, KeyReference, SectionReference};
use super::fault::{Fault, Place};
use super::forms::{Form, Invalid};
use super::tree::{Node, Table, Value};
use model::Secret;

/// The sources of the values, and everything that reading collects.
pub(super) struct Context<'a> {
    pub(super) sources: &'a Sources<'a>,
    pub(super) faults: RefCell<Vec<Fault>>,
    /// Digests of the values that only a restart applies, by key or section.
    pub(super) fixed: RefCell<BTreeMap<String, u64>>,
    /// Optional secrets that the configuration names but that have no value, and placeholders.
    pub(super) doubtful: RefCell<Vec<DoubtfulSecret>>,
    /// Whether a secret that is easy to guess is a fault.
    pub(super) checks_length: bool,
    /// The sections read so far. `None` unless the reference is being collected.
    pub(super) reference: Option<RefCell<Vec<SectionReference>>>,
}

impl<'a> Context<'a> {
    /// Reads a configuration.
    pub(super) fn new(sources: &'a Sources<'a>, faults: Vec<Fault>, checks_length: bool) -> Self {
        let (faults, fixed) = (RefCell::new(faults), RefCell::default());
        let doubtful = RefCell::default();
        Self { sources, faults, fixed, doubtful, checks_length, reference: None }
    }

    /// Returns why the first of these secrets that the configuration names has no value, as an
    /// addition to a message: `: `meta.access_token` needs …`. It is empty if none is named.
    pub(super) fn why_absent(&self, paths: &[&str]) -> String {
        let doubtful = self.doubtful.borrow();
        let found =
            paths.iter().find_map(|path| doubtful.iter().find(|secret| secret.path == *path));
        found.map(|secret| format!(": `{}` {}", secret.path, secret.why)).unwrap_or_default()
    }

    /// Collects the reference. The values that are read are meaningless.
    pub(super) fn describing(sources: &'a Sources<'a>) -> Self {
        Self { reference: Some(RefCell::default()), ..Self::new(sources, Vec::new(), false) }
    }

    pub(super) fn fault(&self, at: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.faults.borrow_mut().push(Fault::new(at, message, hint));
    }

    fn is_describing(&self) -> bool {
        self.reference.is_some()
    }

    /// Adds sections to the reference that other code reads.
    pub(super) fn describe(&self, sections: Vec<SectionReference>) {
        if let Some(reference) = &self.reference {
            reference.borrow_mut().extend(sections);
        }
    }

    /// Adds a value that only a restart applies to the digest of its key or section.
    pub(super) fn note_fixed(&self, name: String, key: &str, value: Option<&str>) {
        let mut fixed = self.fixed.borrow_mut();
        let digest = fixed.entry(name).or_default();
        let mut hasher = DefaultHasher::new();
        (*digest, key, value).hash(&mut hasher);
        *digest = hasher.finish();
    }
}

/// An optional secret that the configuration names but that has no value, for example because its
/// file does not exist, or a secret that looks like a placeholder.
pub(super) struct DoubtfulSecret {
    /// The place in the configuration, like `account[0].api_keys[1]`.
    path: String,
    why: String,
    consequence: &'static str,
}

impl fmt::Display for DoubtfulSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}: {}", self.path, self.why, self.consequence)
    }
}

/// When a changed value takes effect.
#[derive(Clone, Copy)]
enum Effect {
    /// The value takes effect after a reload.
    Reload,
    /// The value takes effect after a restart. A reload reports the key.
    Restart,
    /// The value takes effect after a restart. A reload reports this name, which represents the
    /// whole section.
    RestartAs(&'static str),
}

/// A table that is being read.
pub(super) struct Section<'a> {
    /// The name: `meta`, or `[account]` for an entry of a list.
    name: String,
    /// The path from the root: `meta`, or `account[0]` for an entry of a list.
    path: String,
    pub(super) at: Place,
    table: Table,
    known: Vec<&'static str>,
    effect: Effect,
    /// The section's place in the reference. `None` if the section is not described.
    described: Option<usize>,
    cx: &'a Context<'a>,
}

impl<'a> Section<'a> {
    pub(super) fn root(table: Table, cx: &'a Context<'a>) -> Self {
        Self {
            name: String::new(),
            path: String::new(),
            at: Place::File,
            table,
            known: Vec::new(),
            effect: Effect::Reload,
            described: None,
            cx,
        }
    }

    fn empty(name: String, path: String, cx: &'a Context<'a>) -> Self {
        Self { name, path, ..Self::root(Table::new(), cx) }
    }

    fn new(name: String, path: String, node: Node, cx: &'a Context<'a>) -> Option<Self> {
        match node.value {
            Value::Table(table) => Some(Self { at: node.at, name, path, ..Self::root(table, cx) }),
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

    /// Starts a section of the reference for the keys that are read next.
    fn described(mut self, doc: &'static str) -> Self {
        if let Some(reference) = &self.cx.reference {
            let mut sections = reference.borrow_mut();
            self.described = Some(sections.len());
            sections.push(SectionReference::new(format!("[{}]", self.name), doc));
        }
        self
    }

    /// Marks this section: only a restart applies changes of its keys.
    pub(super) fn restart(mut self) -> Self {
        self.effect = Effect::Restart;
        self
    }

    /// Marks this section: only a restart applies changes of its keys, and a reload reports them
    /// together under one name.
    pub(super) fn restart_as(mut self, name: &'static str) -> Self {
        self.effect = Effect::RestartAs(name);
        self
    }

    fn take(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        self.table.remove(key).map(|(_, node)| node)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Reads a table that is a value: `{ … }` in a list.
    pub(super) fn inline(name: &str, path: &str, node: &Node, cx: &'a Context<'a>) -> Option<Self> {
        Self::new(name.to_owned(), path.to_owned(), node.clone(), cx)
    }

    /// Returns the path of a key of this section.
    pub(super) fn path_of(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }

    /// Reads an inner table. It is empty if it is missing in the file.
    pub(super) fn section(&mut self, key: &'static str, doc: &'static str) -> Section<'a> {
        self.inner(key).described(doc)
    }

    /// Reads an inner table if it is in the file.
    pub(super) fn optional_section(
        &mut self,
        key: &'static str,
        doc: &'static str,
    ) -> Option<Section<'a>> {
        if self.has(key) || self.cx.is_describing() {
            return Some(self.section(key, doc));
        }
        self.known.push(key);
        None
    }

    /// Reads an inner table that the reference describes as one key. It takes effect like the keys
    /// of this section.
    pub(super) fn table(
        &mut self,
        key: &'static str,
        kind: &'static str,
        doc: &'static str,
    ) -> Section<'a> {
        let (effect, restart) = (self.effect, !matches!(self.effect, Effect::Reload));
        self.describe(KeyReference {
            restart,
            ..KeyReference::new(key, kind, Fallback::Absent(""), doc)
        });
        Section { effect, ..self.inner(key) }
    }

    fn inner(&mut self, key: &'static str) -> Section<'a> {
        let cx = self.cx;
        // Within an entry of a list, the inner name alone is clear.
        let is_nested = !self.name.is_empty() && !self.name.starts_with('[');
        let name = if is_nested { format!("{}.{key}", self.name) } else { key.to_owned() };
        let path = self.path_of(key);
        self.take(key)
            .and_then(|node| Self::new(name.clone(), path.clone(), node, cx))
            .unwrap_or_else(|| Self::empty(name, path, cx))
    }

    /// The tables of `[[key]]`.
    pub(super) fn sections(&mut self, key: &'static str, doc: &'static str) -> Vec<Section<'a>> {
        let cx = self.cx;
        let name = match self.name.as_str() {
            "" => format!("[{key}]"),
            outer => format!("[{outer}.{key}]"),
        };
        let path = self.path_of(key);
        if cx.is_describing() {
            return vec![Self::empty(name, path, cx).described(doc)];
        }
        match self.take(key) {
            None => Vec::new(),
            Some(Node { value: Value::List(items), .. }) => {
                let entry =
                    |(nth, item)| Self::new(name.clone(), format!("{path}[{nth}]"), item, cx);
                items.into_iter().enumerate().filter_map(entry).collect()
            }
            Some(node) => {
                let message = format!("`{key}` is {}, not a list of tables", node.value.kind());
                cx.fault(node.at, message, format!("write [{name}]"));
                Vec::new()
            }
        }
    }

    /// Declares a key.
    pub(super) fn key<'s, T>(
        &'s mut self,
        name: &'static str,
        form: Form<'s, T>,
        doc: &'static str,
    ) -> Key<'s, 'a, T> {
        let effect = self.effect;
        Key { section: self, name, form, doc, effect, fallback: Fallback::Absent("") }
    }

    /// Declares a key that holds a secret.
    pub(super) fn secret<'s>(
        &'s mut self,
        name: &'static str,
        doc: &'static str,
    ) -> SecretKey<'s, 'a> {
        let effect = self.effect;
        let fallback = Fallback::Absent("");
        SecretKey { section: self, name, doc, effect, fallback, strength: None }
    }

    /// Takes the value of a key that other code reads.
    pub(super) fn raw(&mut self, key: KeyReference) -> Option<Node> {
        let name = key.name;
        self.describe(key);
        self.take(name)
    }

    /// Takes the value of a key that the reference describes elsewhere.
    pub(super) fn undescribed(&mut self, name: &'static str) -> Option<Node> {
        self.take(name)
    }

    /// Reports every key in the file that was not declared.
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

    fn missing(&self, key: &'static str, hint: &str) {
        self.cx.fault(self.at.clone(), format!("`{key}` is missing in [{}]", self.name), hint);
    }

    fn describe(&self, key: KeyReference) {
        if let (Some(reference), Some(section)) = (&self.cx.reference, self.described)
            && let Some(section) = reference.borrow_mut().get_mut(section)
        {
            section.keys.push(key);
        }
    }

    fn note(&self, effect: Effect, key: &str, value: Option<&str>) {
        match effect {
            Effect::Reload => {}
            Effect::Restart => self.cx.note_fixed(format!("{}.{key}", self.name), key, value),
            Effect::RestartAs(name) => self.cx.note_fixed(name.to_owned(), key, value),
        }
    }
}

/// A key that is being declared. The last call of the chain reads it.
#[must_use = "a key that is not read is unknown"]
pub(super) struct Key<'s, 'a, T> {
    section: &'s mut Section<'a>,
    name: &'static str,
    form: Form<'s, T>,
    doc: &'static str,
    effect: Effect,
    fallback: Fallback,
}

impl<T> Key<'_, '_, T> {
    /// Marks this key: only a restart applies a change of it.
    pub(super) fn restart(mut self) -> Self {
        self.effect = Effect::Restart;
        self
    }

    /// Describes the behaviour without the key.
    pub(super) fn absent(mut self, meaning: &'static str) -> Self {
        self.fallback = Fallback::Absent(meaning);
        self
    }

    /// Documents a default that the caller fills in.
    pub(super) fn default(mut self, value: &T) -> Self {
        self.fallback = Fallback::Value(self.form.show(value));
        self
    }

    /// Returns the value, or this default.
    pub(super) fn or(self, default: T) -> T {
        self.default(&default).get().unwrap_or(default)
    }

    /// Returns the value if the key is present and valid.
    pub(super) fn get(self) -> Option<T> {
        self.placed().map(|(value, _)| value)
    }

    /// Returns the value with its place. An absent key is a fault.
    pub(super) fn required(mut self, hint: &str) -> Option<(T, Place)> {
        if !self.section.has(self.name) {
            self.section.missing(self.name, hint);
        }
        self.fallback = Fallback::Required;
        self.placed()
    }

    /// Returns the value with its place if the key is present and valid.
    pub(super) fn placed(self) -> Option<(T, Place)> {
        let Self { section, name, form, doc, effect, fallback } = self;
        let read = section.take(name).and_then(|node| match form.read(&node) {
            Ok(value) => Some((value, node.at)),
            Err(Invalid { message, hint, at }) => {
                section.cx.fault(at.unwrap_or(node.at), format!("`{name}` {message}"), hint);
                None
            }
        });
        let shown = read.as_ref().map(|(value, _)| form.show(value));
        let default = if let Fallback::Value(shown) = &fallback { Some(shown) } else { None };
        section.note(effect, name, shown.as_ref().or(default).map(String::as_str));
        let restart = !matches!(effect, Effect::Reload);
        section.describe(KeyReference {
            restart,
            ..KeyReference::new(name, form.kind, fallback, doc)
        });
        read
    }
}

impl Key<'_, '_, String> {
    /// Returns the text unless it is empty.
    pub(super) fn non_empty(self) -> Option<String> {
        self.get().filter(|text| !text.is_empty())
    }
}

/// A key with a secret that is being declared. The last call of the chain reads it.
#[must_use = "a key that is not read is unknown"]
pub(super) struct SecretKey<'s, 'a> {
    section: &'s mut Section<'a>,
    name: &'static str,
    doc: &'static str,
    effect: Effect,
    fallback: Fallback,
    strength: Option<Strength>,
}

/// The minimum length of a secret in characters, and advice for a shorter one.
#[derive(Clone, Copy)]
pub(super) struct Strength {
    least: usize,
    hint: &'static str,
}

impl Strength {
    /// The strength of a secret that programs use.
    pub(super) const KEY: Self =
        Self { least: 20, hint: "use random text: `openssl rand -hex 16` prints some" };
    /// The strength of the app's secret, which Meta creates.
    pub(super) const APP_SECRET: Self =
        Self { least: 20, hint: "copy the whole app secret from Meta's dashboard" };
    /// The strength of a password that a person types.
    pub(super) const PASSWORD: Self = Self {
        least: crate::people::PASSWORD_MIN,
        hint: "choose a longer password, for example four random words",
    };
}

impl SecretKey<'_, '_> {
    /// Requires a minimum length. See [`Context::checks_length`].
    pub(super) fn strength(mut self, strength: Strength) -> Self {
        self.strength = Some(strength);
        self
    }

    /// Describes the behaviour without the key.
    pub(super) fn absent(mut self, meaning: &'static str) -> Self {
        self.fallback = Fallback::Absent(meaning);
        self
    }

    /// Returns the secret. `None` if the key is missing or empty, or if the environment variable or
    /// file that it refers to does not exist. If the key is present nevertheless, a warning says
    /// this consequence.
    pub(super) fn optional(mut self, consequence: &'static str) -> Option<Secret> {
        let node = self.take();
        let secret = node.and_then(|node| {
            let path = self.section.path_of(self.name);
            self.section.cx.optional_secret(path, self.name, &node, self.strength, consequence)
        });
        self.note(secret.as_ref());
        secret
    }

    /// Returns the secret. An absent one is a fault.
    pub(super) fn required(mut self, hint: &str) -> Option<Secret> {
        self.fallback = Fallback::Required;
        let Some(node) = self.take() else {
            self.section.missing(self.name, hint);
            return None;
        };
        self.present(&node, hint)
    }

    /// Parses a value that may be written like a secret, because it may contain one. It must not be
    /// empty if the key is present.
    pub(super) fn parsed<T>(
        mut self,
        hint: &str,
        read: impl Fn(&str) -> Result<T, Invalid>,
    ) -> Option<T> {
        let Some(node) = self.take() else {
            self.note(None);
            return None;
        };
        let text = self.present(&node, hint)?;
        match read(text.reveal()) {
            Ok(value) => Some(value),
            Err(Invalid { message, hint, .. }) => {
                self.section.cx.fault(node.at, format!("`{}` {message}", self.name), hint);
                None
            }
        }
    }

    fn take(&mut self) -> Option<Node> {
        let fallback = std::mem::replace(&mut self.fallback, Fallback::Required);
        let restart = !matches!(self.effect, Effect::Reload);
        self.section.describe(KeyReference {
            restart,
            ..KeyReference::new(self.name, "secret", fallback, self.doc)
        });
        self.section.take(self.name)
    }

    /// Returns the secret of a key that is present. An empty one is a fault.
    fn present(&self, node: &Node, hint: &str) -> Option<Secret> {
        let cx = self.section.cx;
        let secret = cx.secret(self.name, node).ok()?;
        if secret.is_none() {
            let message = format!("`{}` {}", self.name, why_absent(node));
            cx.fault(node.at.clone(), message, hint);
        }
        if let Some(secret) = &secret {
            cx.check_strength(self.name, node, secret, self.strength);
            cx.check_placeholder(self.section.path_of(self.name), secret);
        }
        self.note(secret.as_ref());
        secret
    }

    fn note(&self, secret: Option<&Secret>) {
        self.section.note(self.effect, self.name, secret.map(Secret::reveal));
    }
}

impl Context<'_> {
    /// Reads a secret as [`SecretKey::optional`] does.
    pub(super) fn optional_secret(
        &self,
        path: String,
        key: &str,
        node: &Node,
        strength: Option<Strength>,
        consequence: &'static str,
    ) -> Option<Secret> {
        let secret = self.secret(key, node).ok()?;
        match &secret {
            Some(secret) => {
                self.check_strength(key, node, secret, strength);
                self.check_placeholder(path, secret);
            }
            None => {
                let absent = DoubtfulSecret { path, why: why_absent(node), consequence };
                self.doubtful.borrow_mut().push(absent);
            }
        }
        secret
    }

    /// Reports a secret that is too short.
    fn check_strength(&self, key: &str, node: &Node, secret: &Secret, strength: Option<Strength>) {
        let Some(Strength { least, hint }) = strength else { return };
        if self.checks_length && secret.reveal().chars().count() < least {
            let message = format!("`{key}` has fewer than {least} characters and can be guessed");
            self.fault(node.at.clone(), message, hint);
        }
    }

    /// Warns of a secret like `${NAME}`: nothing has replaced it.
    fn check_placeholder(&self, path: String, secret: &Secret) {
        let has_placeholder = secret
            .reveal()
            .split("${")
            .skip(1)
            .any(|rest| rest.split_once('}').is_some_and(|(name, _)| !name.is_empty()));
        if has_placeholder {
            self.doubtful.borrow_mut().push(DoubtfulSecret {
                path,
                why: "looks like a placeholder that nothing has replaced".to_owned(),
                consequence: "to use an environment variable, write { env = \"NAME\" }",
            });
        }
    }

    /// Reads a secret: text, `{ env = "NAME" }` or `{ file = "PATH" }`.
    ///
    /// # Errors
    ///
    /// Returns an error if the value has none of these forms or its file can't be read. The fault
    /// has been reported.
    fn secret(&self, key: &str, node: &Node) -> Result<Option<Secret>, ()> {
        let wrong = |what: fmt::Arguments<'_>| {
            let hint = "write text, { env = \"NAME\" } or { file = \"PATH\" }";
            self.fault(node.at.clone(), format!("`{key}` {what}"), hint);
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
                                let message = format!("`{key}`: could not read {name}: {e}");
                                let hint = match e.kind() {
                                    std::io::ErrorKind::PermissionDenied => {
                                        "let the user of this process read the file, or run the command as another user"
                                    }
                                    _ => "name a readable file",
                                };
                                self.fault(node.at.clone(), message, hint);
                                return Err(());
                            }
                        },
                        _ => {
                            wrong(format_args!("has an unknown form `{form}`"));
                            return Err(());
                        }
                    }
                }
                _ => {
                    wrong(format_args!("is not one of the forms of a secret"));
                    return Err(());
                }
            },
            other => {
                wrong(format_args!("is {}, not a secret", other.kind()));
                return Err(());
            }
        };
        // A variable that is only blanks was most likely forgotten.
        Ok(text.filter(|t| !t.trim().is_empty()).map(Secret::new))
    }
}

fn why_absent(node: &Node) -> String {
    let Value::Table(table) = &node.value else { return "is empty".to_owned() };
    match table.iter().next() {
        Some((form, (_, Node { value: Value::Text(name), .. }))) => match form.as_str() {
            "env" => format!("needs the environment variable {name}, which is unset or empty"),
            _ => format!("needs the file {name}, which does not exist or is empty"),
        },
        _ => "is empty".to_owned(),
    }
}

/// Returns a hint for an unknown key or name.
pub fn suggestion<'k>(key: &str, known: impl Iterator<Item = &'k str> + Clone) -> String {
    let near = known
        .clone()
        .map(|k| (strsim::osa_distance(&key.to_lowercase().replace('-', "_"), k), k))
        .filter(|(distance, k)| *distance <= (k.len() / 3).max(1))
        .min();
    match near {
        Some((_, k)) => format!("did you mean `{k}`?"),
        None if known.clone().next().is_none() => "this file has none".to_owned(),
        None => {
            format!("known are {}", known.map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", "))
        }
    }
}
