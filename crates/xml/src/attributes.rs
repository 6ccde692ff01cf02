//! Checks the attributes of an element against its table, in document order, and provides their
//! values by name.

use std::time::Duration;

use model::{Digit, Method};

use super::ast::{DocUrl, Target};
use super::findings::{Findings, FirstFault, Problem, quoted, shortened};
use super::grammar::trim;
use super::names::{Attr, Tag, nearest};
use super::rules;
use super::tree::{Attribute, Node};
use super::value::{self, Kind, Value};

/// Names and types of the attributes of an element.
pub(super) type Table = &'static [(Attr, Kind)];

/// Maximum length of an attribute value, in bytes of UTF-8.
pub(super) const MAX_VALUE: usize = 8_192;

/// Attributes for which an empty value is valid.
const MAY_BE_EMPTY: [Attr; 3] = [Attr::FinishOnKey, Attr::EnterSound, Attr::ExitSound];

/// The checked attributes of an element, in document order.
#[derive(Debug)]
pub(super) struct Attributes<'n> {
    node: Node<'n>,
    entries: Vec<Entry<'n>>,
}

#[derive(Debug)]
struct Entry<'n> {
    attribute: &'n Attribute<'n>,
    /// The trimmed value. `None` if the attribute is unknown or empty, which is the same as absent.
    text: Option<&'n str>,
    /// `None` if the value is invalid.
    value: Option<Value<'n>>,
}

impl Attribute<'_> {
    /// The trimmed value. `None` if it is empty.
    pub(super) fn text(&self) -> Option<&str> {
        Some(trim(&self.value)).filter(|value| !value.is_empty())
    }
}

impl<'n> Node<'n> {
    /// Returns the trimmed, unchecked value of an attribute. `None` if it is absent or empty.
    pub(super) fn raw(&self, name: Attr) -> Option<&'n str> {
        self.attributes().iter().find(|a| a.known == Some(name))?.text()
    }

    /// Whether the unchecked value of an attribute is `true`, in any letter case.
    pub(super) fn is_true(&self, name: Attr) -> bool {
        self.raw(name).is_some_and(|v| v.eq_ignore_ascii_case("true"))
    }
}

/// Checks the attributes of a node. Types in `overrides` replace those in `table`, where the type
/// depends on another attribute.
pub(super) fn check<'n>(
    node: &Node<'n>,
    table: Table,
    overrides: Table,
    findings: &mut Findings,
) -> Attributes<'n> {
    let entry = |attribute| Entry { attribute, text: None, value: None };
    let mut entries: Vec<_> = node.attributes().iter().map(entry).collect();
    for Entry { attribute, text: kept, value } in &mut entries {
        if attribute.value.len() > MAX_VALUE {
            let (name, length) = (shortened(attribute.name), attribute.value.len());
            let message = format!("the value of {name} has {length} bytes");
            findings.add(
                rules::E301,
                node.position_of(attribute),
                message,
                format!("write at most {MAX_VALUE} bytes"),
            );
            *kept = Some("");
            continue;
        }
        let find = |name, table: Table| table.iter().find(|row| row.0 == name);
        let row =
            attribute.known.and_then(|name| find(name, overrides).or_else(|| find(name, table)));
        let Some((name, kind)) = row else {
            if !is_reserved(attribute.name) {
                report_unknown(node, attribute, table, findings);
            }
            continue;
        };
        let text = trim(&attribute.value);
        if text.is_empty() && !MAY_BE_EMPTY.contains(name) {
            findings.add(
                rules::W303,
                node.position_of(attribute),
                format!("{name} is empty: treated as absent"),
                "write a value, or remove the attribute",
            );
            continue;
        }
        *kept = Some(text);
        if let Some(problem) = value::check(kind, text, value) {
            let Problem { rule, predicate, hint } = *problem;
            let shown = match kind {
                Kind::Secret(..) => name.to_string(),
                // Text before an @ may contain a password.
                Kind::Url | Kind::WsUrl | Kind::UrlOr(_) if text.contains('@') => name.to_string(),
                _ => format!("{name}={}", quoted(text)),
            };
            let fault = match (rule.id, name) {
                ("E311", Attr::Action) => FirstFault::ActionUrl,
                ("E312", Attr::Method) if node.tag == Some(Tag::Redirect) => {
                    FirstFault::RedirectMethod
                }
                ("E312", Attr::Method) if node.raw(Attr::Action).is_some() => {
                    FirstFault::ActionMethod
                }
                _ => FirstFault::Other,
            };
            let message = format!("{shown} {predicate}");
            findings.add_fault(rule, node.position_of(attribute), message, hint, fault);
        }
    }
    Attributes { node: *node, entries }
}

/// Whether this attribute belongs to XML itself, so that every element accepts it.
fn is_reserved(name: &str) -> bool {
    matches!(name, "xmlns" | "xml:lang" | "xml:space") || name.starts_with("xmlns:")
}

fn report_unknown(
    node: &Node<'_>,
    attribute: &Attribute<'_>,
    table: Table,
    findings: &mut Findings,
) {
    let (name, at) = (attribute.name, node.position_of(attribute));
    if findings.is_full() {
        findings.add(rules::W301, at, "", "");
        return;
    }
    let message = format!(
        "{} is not an attribute of {}: it is ignored",
        shortened(name),
        shortened(node.name)
    );
    let hint = match table.iter().find(|(known, _)| known.as_str().eq_ignore_ascii_case(name)) {
        Some((known, _)) => format!("write {known}: names are case-sensitive"),
        None if table.is_empty() => {
            format!("remove it: {} has no attributes", shortened(node.name))
        }
        None => {
            let names: Vec<&str> = table.iter().map(|(known, _)| known.as_str()).collect();
            match nearest(name, names.iter().copied()) {
                Some(known) => format!("did you mean {known}?"),
                None => format!("remove it, or write one of: {}", names.join(", ")),
            }
        }
    };
    findings.add(rules::W301, at, message, hint);
}

impl<'n> Attributes<'n> {
    fn find(&self, name: Attr) -> Option<&Entry<'n>> {
        let is_it = |entry: &&Entry<'_>| entry.attribute.known == Some(name);
        self.entries.iter().find(is_it).filter(|entry| entry.text.is_some())
    }

    fn value(&self, name: Attr) -> Option<&Value<'n>> {
        self.find(name)?.value.as_ref()
    }

    /// Whether the attribute is present and not empty, even if its value is invalid.
    pub(super) fn has(&self, name: Attr) -> bool {
        self.find(name).is_some()
    }

    /// Iterates over the names and trimmed values of all attributes, in document order.
    pub(super) fn texts(&self) -> impl Iterator<Item = (Attr, &str)> {
        self.entries.iter().filter_map(|entry| Some((entry.attribute.known?, entry.text?)))
    }

    pub(super) fn flag(&self, name: Attr, default: bool) -> bool {
        if let Some(Value::Flag(flag)) = self.value(name) { *flag } else { default }
    }

    pub(super) fn number(&self, name: Attr) -> Option<u32> {
        if let Some(Value::Number(number)) = self.value(name) { Some(*number) } else { None }
    }

    /// Returns an integer with a maximum below 256.
    pub(super) fn small(&self, name: Attr, default: u8) -> u8 {
        self.number(name).and_then(|n| u8::try_from(n).ok()).unwrap_or(default)
    }

    pub(super) fn maybe_seconds(&self, name: Attr) -> Option<Duration> {
        self.number(name).map(|n| Duration::from_secs(n.into()))
    }

    pub(super) fn seconds(&self, name: Attr, default: u64) -> Duration {
        self.maybe_seconds(name).unwrap_or(Duration::from_secs(default))
    }

    /// Returns the word of an enumeration, in the letter case of its table. `None` if the attribute
    /// is absent or invalid.
    pub(super) fn word(&self, name: Attr) -> Option<&'static str> {
        if let Some(Value::Word(word)) = self.value(name) { Some(word) } else { None }
    }

    pub(super) fn text(&self, name: Attr) -> Option<&str> {
        if let Some(Value::Text(text)) = self.value(name) { Some(text) } else { None }
    }

    pub(super) fn owned(&self, name: Attr) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    pub(super) fn list(&self, name: Attr) -> Vec<String> {
        if let Some(Value::List(list)) = self.value(name) {
            list.iter().map(|item| item.clone().into_owned()).collect()
        } else {
            Vec::new()
        }
    }

    pub(super) fn pairs(&self, name: Attr) -> Vec<(String, String)> {
        if let Some(Value::Pairs(pairs)) = self.value(name) {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        } else {
            Vec::new()
        }
    }

    /// Returns the keys of an attribute. `None` if it is absent or invalid. Empty if its value is
    /// `none`.
    pub(super) fn keys(&self, name: Attr) -> Option<impl Iterator<Item = Digit> + use<'n>> {
        if let Some(Value::Keys(keys)) = self.value(name) {
            Some(keys.chars().filter_map(value::key))
        } else {
            None
        }
    }

    pub(super) fn url(&self, name: Attr) -> Option<DocUrl> {
        self.text(name).map(|text| DocUrl(text.into()))
    }

    pub(super) fn method(&self, name: Attr) -> Method {
        if let Some(Value::Method(method)) = self.value(name) { *method } else { Method::Post }
    }

    /// Returns the URL in attribute `url` with the method in attribute `method`, or with POST if
    /// that is absent. `None` without a URL.
    pub(super) fn target(&self, url: Attr, method: Attr) -> Option<Target> {
        self.url(url).map(|url| Target { url, method: self.method(method) })
    }

    /// Reports E302 if the attribute is absent.
    pub(super) fn require(&self, name: Attr, findings: &mut Findings) {
        if !self.has(name) {
            let message = format!("{} needs {name}", self.node.name);
            findings.add(rules::E302, self.node.at, message, format!("add {name}=\"…\""));
        }
    }

    /// Reports W312 if the attribute is present. `because` completes "NAME has no effect …".
    pub(super) fn report_no_effect(&self, name: Attr, because: &str, findings: &mut Findings) {
        if let Some(entry) = self.find(name) {
            findings.add(
                rules::W312,
                self.node.position_of(entry.attribute),
                format!("{name} has no effect {because}"),
                format!("remove {name}"),
            );
        }
    }

    /// Reports E303 at the attribute, if it is present.
    pub(super) fn report_contradiction(
        &self,
        name: Attr,
        message: &str,
        hint: &'static str,
        findings: &mut Findings,
    ) {
        if let Some(entry) = self.find(name) {
            findings.add(rules::E303, self.node.position_of(entry.attribute), message, hint);
        }
    }
}
