//! The attributes of one element: checked in document order against its table, then asked for by name.

use std::time::Duration;

use model::{Digit, Method};

use super::ast::{DocUrl, Target};
use super::findings::{Findings, FirstFault, Note, quoted, shortened};
use super::grammar::trim;
use super::is_same;
use super::rules;
use super::tree::{Attribute, Node};
use super::value::{self, Kind, Value};

/// Name and type of an element's attributes.
pub(super) type Table = &'static [(&'static str, Kind)];

/// Longest attribute value, in bytes of UTF-8 (`plivo-xml.md` §1 rule 6).
pub(super) const MAX_VALUE: usize = 8_192;

/// Attributes for which an empty value means something (§3).
const MAY_BE_EMPTY: [&str; 3] = ["finishOnKey", "enterSound", "exitSound"];

/// An element's attributes that are known and not empty.
#[derive(Debug)]
pub(super) struct Attributes<'n> {
    node: Node<'n>,
    given: Vec<Given<'n>>,
}

#[derive(Debug)]
struct Given<'n> {
    attribute: &'n Attribute<'n>,
    /// Trimmed.
    text: &'n str,
    /// `None`: the value is an error.
    value: Option<Value<'n>>,
}

impl<'n> Node<'n> {
    /// An attribute's trimmed value, unchecked; `None` where it is absent or empty.
    pub(super) fn raw(&self, name: &str) -> Option<&'n str> {
        let attribute = self.attributes.iter().find(|a| is_same(a.name, name))?;
        Some(trim(&attribute.value)).filter(|v| !v.is_empty())
    }

    /// Whether a boolean attribute says true, unchecked.
    pub(super) fn says_true(&self, name: &str) -> bool {
        self.raw(name).is_some_and(|v| v.eq_ignore_ascii_case("true"))
    }
}

/// Checks a node's attributes. `instead` changes the type of single ones, where another attribute decides.
pub(super) fn check<'n>(
    node: &Node<'n>,
    table: Table,
    instead: &[(&str, Kind)],
    findings: &mut Findings,
) -> Attributes<'n> {
    let mut given = Vec::with_capacity(node.attributes.len());
    for attribute in node.attributes {
        let name = attribute.name;
        if attribute.value.len() > MAX_VALUE {
            let message =
                format!("the value of {} has {} bytes", shortened(name), attribute.value.len());
            findings.add(
                rules::E301,
                node.place(attribute),
                message,
                format!("at most {MAX_VALUE} bytes"),
            );
            given.push(Given { attribute, text: "", value: None });
            continue;
        }
        let known = |table: &[(&str, Kind)]| {
            table.iter().find(|(known, _)| is_same(known, name)).map(|(_, kind)| *kind)
        };
        let Some(kind) = known(instead).or_else(|| known(table)) else {
            if !is_xml_own(name) {
                unknown(node, attribute, table, findings);
            }
            continue;
        };
        let text = trim(&attribute.value);
        if text.is_empty() && !MAY_BE_EMPTY.contains(&name) {
            findings.add(
                rules::W303,
                node.place(attribute),
                format!("{name} is empty: treated as absent"),
                "give it a value or leave it out",
            );
            continue;
        }
        let (value, note) = match value::check(kind, text) {
            Ok((value, note)) => (Some(value), note),
            Err(note) => (None, Some(note)),
        };
        if let Some(note) = note {
            let Note { rule, what, hint } = *note;
            let shown = match kind {
                Kind::Secret(..) => name.to_owned(),
                // A user name in a URL comes with a password.
                Kind::Url | Kind::WsUrl | Kind::UrlOr(_) if text.contains('@') => name.to_owned(),
                _ => format!("{name}={}", quoted(text)),
            };
            let fault = match (rule.id, name) {
                ("E311", "action") => FirstFault::ActionUrl,
                ("E312", "method") if node.name == "Redirect" => FirstFault::RedirectMethod,
                ("E312", "method") if node.raw("action").is_some() => FirstFault::ActionMethod,
                _ => FirstFault::Other,
            };
            findings.add_fault(rule, node.place(attribute), format!("{shown} {what}"), hint, fault);
        }
        given.push(Given { attribute, text, value });
    }
    Attributes { node: *node, given }
}

/// Names every element accepts (§1 rule 7).
fn is_xml_own(name: &str) -> bool {
    matches!(name, "xmlns" | "xml:lang" | "xml:space") || name.starts_with("xmlns:")
}

fn unknown(node: &Node<'_>, attribute: &Attribute<'_>, table: Table, findings: &mut Findings) {
    let (name, at) = (attribute.name, node.place(attribute));
    if findings.full() {
        findings.add(rules::W301, at, "", "");
        return;
    }
    let message = format!(
        "{} is not an attribute of {}: it is ignored",
        shortened(name),
        shortened(node.name)
    );
    let hint = match table.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
        Some((known, _)) => format!("write {known}: letter case counts"),
        None if table.is_empty() => {
            format!("remove it: {} has no attributes", shortened(node.name))
        }
        None => {
            let names: Vec<&str> = table.iter().map(|(known, _)| *known).collect();
            format!("remove it, or write one of: {}", names.join(", "))
        }
    };
    findings.add(rules::W301, at, message, hint);
}

impl<'n> Attributes<'n> {
    fn find(&self, name: &str) -> Option<&Given<'n>> {
        self.given.iter().find(|g| is_same(g.attribute.name, name))
    }

    fn value(&self, name: &str) -> Option<&Value<'n>> {
        self.find(name)?.value.as_ref()
    }

    /// Whether it is there and not empty (be it wrong).
    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Name and trimmed text of all that are there, in document order.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.given.iter().map(|g| (g.attribute.name, g.text))
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> bool {
        if let Some(Value::Flag(flag)) = self.value(name) { *flag } else { default }
    }

    pub(super) fn number(&self, name: &str) -> Option<u32> {
        if let Some(Value::Number(number)) = self.value(name) { Some(*number) } else { None }
    }

    /// A number that its type keeps below 256.
    pub(super) fn small(&self, name: &str, default: u8) -> u8 {
        self.number(name).and_then(|n| u8::try_from(n).ok()).unwrap_or(default)
    }

    pub(super) fn maybe_seconds(&self, name: &str) -> Option<Duration> {
        self.number(name).map(|n| Duration::from_secs(n.into()))
    }

    pub(super) fn seconds(&self, name: &str, default: u64) -> Duration {
        self.maybe_seconds(name).unwrap_or(Duration::from_secs(default))
    }

    /// The word as its table writes it.
    pub(super) fn word(&self, name: &str) -> Option<&'static str> {
        if let Some(Value::Word(word)) = self.value(name) { Some(word) } else { None }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        if let Some(Value::Text(text)) = self.value(name) { Some(text) } else { None }
    }

    pub(super) fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        if let Some(Value::List(list)) = self.value(name) {
            list.iter().map(|item| item.clone().into_owned()).collect()
        } else {
            Vec::new()
        }
    }

    pub(super) fn pairs(&self, name: &str) -> Vec<(String, String)> {
        if let Some(Value::Pairs(pairs)) = self.value(name) {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        } else {
            Vec::new()
        }
    }

    /// `None` where the attribute is absent; keys it does not name are none.
    pub(super) fn keys(&self, name: &str) -> Option<impl Iterator<Item = Digit> + use<'n>> {
        if let Some(Value::Keys(keys)) = self.value(name) {
            Some(keys.chars().filter_map(value::key))
        } else {
            None
        }
    }

    pub(super) fn url(&self, name: &str) -> Option<DocUrl> {
        self.text(name).map(|text| DocUrl(text.into()))
    }

    pub(super) fn method(&self, name: &str) -> Method {
        if let Some(Value::Method(method)) = self.value(name) { *method } else { Method::Post }
    }

    /// A URL and the method of the attribute that goes with it (POST where it is absent).
    pub(super) fn target(&self, url: &str, method: &str) -> Option<Target> {
        self.url(url).map(|url| Target { url, method: self.method(method) })
    }

    /// E302 unless it is there.
    pub(super) fn require(&self, name: &str, findings: &mut Findings) {
        if !self.has(name) {
            let message = format!("{} needs {name}", self.node.name);
            findings.add(rules::E302, self.node.at, message, format!("add {name}=\"…\""));
        }
    }

    /// W312 where it is there: it does nothing `because`.
    pub(super) fn without_effect(&self, name: &str, because: &str, findings: &mut Findings) {
        if let Some(given) = self.find(name) {
            findings.add(
                rules::W312,
                self.node.place(given.attribute),
                format!("{name} has no effect {because}"),
                format!("remove {name}"),
            );
        }
    }

    /// E303 at an attribute.
    pub(super) fn contradiction(
        &self,
        name: &str,
        message: &str,
        hint: &'static str,
        findings: &mut Findings,
    ) {
        if let Some(given) = self.find(name) {
            findings.add(rules::E303, self.node.place(given.attribute), message, hint);
        }
    }
}
