//! Text to a tree of elements with positions, or the one finding that stops it: well-formedness in full and the
//! bounds of `plivo-xml.md` §1.
//!
//! quick-xml's event reader splits the text; each event is then held to XML 1.0's grammar (`grammar`), which the
//! reader leaves to its users. No entity is ever read, nothing recurses, and the text is walked once.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::events::Event;

use super::ast::Position;
use super::grammar::{self, Fault, is_space};
use super::place::{Locator, START};
use super::rules::{self, Rule};
use super::{quoted, shortened};

/// Root is 1.
pub(super) const MAX_DEPTH: usize = 16;
pub(super) const MAX_ELEMENTS: usize = 2_000;
pub(super) const MAX_ATTRIBUTES: usize = 64;

/// An element as it is written.
#[derive(Debug)]
pub(super) struct Node<'t> {
    pub(super) name: &'t str,
    pub(super) at: Position,
    pub(super) attributes: Vec<Attribute<'t>>,
    pub(super) content: Vec<Content<'t>>,
}

/// An attribute, its value normalised but not trimmed.
#[derive(Debug)]
pub(super) struct Attribute<'t> {
    pub(super) name: &'t str,
    /// Of the name.
    pub(super) at: Position,
    pub(super) value: Cow<'t, str>,
}

/// What stands in an element: adjacent text, CDATA and references are one text.
#[derive(Debug)]
pub(super) enum Content<'t> {
    Text(Text<'t>),
    Element(Node<'t>),
}

/// A run of text.
#[derive(Debug)]
pub(super) struct Text<'t> {
    pub(super) value: Cow<'t, str>,
    /// Of the first character that is not white space.
    pub(super) at: Option<Position>,
}

/// A finding after which nothing more is looked at.
#[derive(Debug)]
pub(super) struct Fatal {
    pub(super) rule: Rule,
    pub(super) at: Position,
    pub(super) message: String,
    pub(super) hint: &'static str,
}

/// The root element of a well-formed document.
pub(super) fn read(text: &str) -> Result<Node<'_>, Fatal> {
    if text.starts_with('\u{FEFF}') {
        // The reader would swallow it.
        return Err(ill_formed(START, "a second byte order mark".to_owned(), "begin the document with <"));
    }
    let mut builder = Builder { text, places: Locator::new(text), open: Vec::new(), root: None, elements: 0 };
    let illegal = grammar::first_illegal(text);
    let mut reader = Reader::from_str(text);
    let config = reader.config_mut();
    config.check_end_names = false;
    config.allow_unmatched_ends = true;
    loop {
        let start = offset(reader.buffer_position());
        if text.get(start..).is_some_and(|rest| rest.starts_with("<!DOCTYPE")) {
            return Err(Fatal {
                rule: rules::E104,
                at: builder.places.locate(start),
                message: "the document has a DOCTYPE".to_owned(),
                hint: "remove it (an HTML page instead of XML? then the URL answers something else)",
            });
        }
        let event = reader.read_event();
        let end = offset(reader.buffer_position());
        if let Some((at, c)) = illegal.filter(|&(at, _)| at < end) {
            return Err(ill_formed(
                builder.places.locate(at),
                format!("the character U+{:04X} is not allowed in XML", u32::from(c)),
                "remove it (many of them? the text may be UTF-16 without a byte order mark: send UTF-8)",
            ));
        }
        let raw = text.get(start..end).unwrap_or("");
        match event {
            Ok(Event::Start(_)) => builder.start_tag(start, raw, false)?,
            Ok(Event::Empty(_)) => builder.start_tag(start, raw, true)?,
            Ok(Event::End(_)) => builder.end_tag(start, raw)?,
            Ok(Event::Text(_)) => builder.text(start, raw)?,
            Ok(Event::CData(_)) => builder.cdata(start, raw)?,
            Ok(Event::GeneralRef(_)) => builder.reference(start, raw)?,
            Ok(Event::Comment(_)) => builder.comment(start, raw)?,
            Ok(Event::Decl(_)) => builder.declaration(start, raw)?,
            Ok(Event::PI(_)) => return Err(builder.instruction(start)),
            Ok(Event::DocType(_)) | Err(_) => return Err(builder.broken(start, raw)),
            Ok(Event::Eof) => return builder.finish(),
        }
    }
}

/// quick-xml counts in u64 so that streams may be longer than memory; ours is a `str`.
fn offset(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

fn ill_formed(at: Position, message: String, hint: &'static str) -> Fatal {
    Fatal { rule: rules::E103, at, message, hint }
}

struct Builder<'t> {
    text: &'t str,
    places: Locator<'t>,
    open: Vec<Node<'t>>,
    root: Option<Node<'t>>,
    elements: usize,
}

impl<'t> Builder<'t> {
    fn fault(&mut self, base: usize, fault: Fault) -> Fatal {
        ill_formed(self.places.locate(base + fault.offset), fault.message, fault.hint)
    }

    fn fail<T>(&mut self, at: usize, message: impl Into<String>, hint: &'static str) -> Result<T, Fatal> {
        Err(ill_formed(self.places.locate(at), message.into(), hint))
    }

    fn start_tag(&mut self, start: usize, raw: &'t str, empty: bool) -> Result<(), Fatal> {
        let at = self.places.locate(start);
        if self.open.is_empty() && self.root.is_some() {
            return self.after_root(start);
        }
        self.elements += 1;
        if self.open.len() >= MAX_DEPTH {
            return Err(bound(at, format!("elements more than {MAX_DEPTH} deep"), "nest less"));
        }
        if self.elements > MAX_ELEMENTS {
            return Err(bound(
                at,
                format!("more than {MAX_ELEMENTS} elements"),
                "send the rest in a next document (Redirect)",
            ));
        }
        let inner = raw.strip_prefix('<').unwrap_or(raw);
        let inner = inner.strip_suffix(if empty { "/>" } else { ">" }).unwrap_or(inner);
        let (name, rest) = grammar::split_name(inner);
        if name.is_empty() {
            return self.fail(start, "a < that begins no tag", "write &lt; for a plain <");
        }
        let mut node = Node { name, at, attributes: Vec::new(), content: Vec::new() };
        let base = start + 1 + name.len();
        for attribute in grammar::attributes(rest) {
            let attribute = attribute.map_err(|f| self.fault(base, f))?;
            let place = self.places.locate(base + attribute.offset);
            if node.attributes.iter().any(|a| a.name == attribute.name) {
                let message = format!("the attribute {} stands twice in one tag", quoted(attribute.name));
                return Err(ill_formed(place, message, "keep one of them"));
            }
            if node.attributes.len() >= MAX_ATTRIBUTES {
                return Err(bound(at, format!("more than {MAX_ATTRIBUTES} attributes in one tag"), "write fewer"));
            }
            node.attributes.push(Attribute { name: attribute.name, at: place, value: attribute.value });
        }
        if empty {
            self.close(node);
        } else {
            self.open.push(node);
        }
        Ok(())
    }

    fn end_tag(&mut self, start: usize, raw: &'t str) -> Result<(), Fatal> {
        let inner = raw.strip_prefix("</").and_then(|r| r.strip_suffix('>')).unwrap_or("");
        let name = inner.trim_end_matches(is_space);
        match self.open.pop() {
            Some(node) if node.name == name => {
                self.close(node);
                Ok(())
            }
            Some(node) => {
                let message = format!(
                    "the end tag </{}> does not match <{}> of line {}",
                    shortened(name),
                    shortened(node.name),
                    node.at.line
                );
                self.fail(start, message, "close elements in the opposite order of opening, with the same spelling")
            }
            None if self.root.is_some() => self.after_root(start),
            None => self.fail(start, format!("the end tag </{}> closes nothing", shortened(name)), BEGIN_WITH_RESPONSE),
        }
    }

    fn close(&mut self, node: Node<'t>) {
        match self.open.last_mut() {
            Some(parent) => parent.content.push(Content::Element(node)),
            None => self.root = Some(node),
        }
    }

    fn text(&mut self, start: usize, raw: &'t str) -> Result<(), Fatal> {
        let blank = raw.find(|c| !is_space(c));
        if self.open.is_empty() {
            return match blank {
                Some(at) => self.outside(start + at),
                None => Ok(()),
            };
        }
        if let Some(at) = raw.find("]]>") {
            return self.fail(start + at, "]]> outside a CDATA section", "write ]]&gt;");
        }
        let at = blank.map(|at| self.places.locate(start + at));
        self.append(grammar::line_ends(raw), at);
        Ok(())
    }

    fn cdata(&mut self, start: usize, raw: &'t str) -> Result<(), Fatal> {
        if self.open.is_empty() {
            return self.outside(start);
        }
        const OPENING: &str = "<![CDATA[";
        let inner = raw.strip_prefix(OPENING).and_then(|r| r.strip_suffix("]]>")).unwrap_or("");
        let at = inner.find(|c| !is_space(c)).map(|at| self.places.locate(start + OPENING.len() + at));
        self.append(grammar::line_ends(inner), at);
        Ok(())
    }

    fn reference(&mut self, start: usize, raw: &'t str) -> Result<(), Fatal> {
        if self.open.is_empty() {
            return self.outside(start);
        }
        let name = raw.strip_prefix('&').and_then(|r| r.strip_suffix(';')).unwrap_or("");
        let c = grammar::reference(name).ok_or_else(|| self.fault(start, grammar::bad_reference(0, name)))?;
        let at = (!is_space(c)).then(|| self.places.locate(start));
        self.append(c.to_string().into(), at);
        Ok(())
    }

    fn append(&mut self, piece: Cow<'t, str>, at: Option<Position>) {
        let Some(node) = self.open.last_mut() else { return };
        match node.content.last_mut() {
            Some(Content::Text(text)) => {
                text.value.to_mut().push_str(&piece);
                text.at = text.at.or(at);
            }
            _ => node.content.push(Content::Text(Text { value: piece, at })),
        }
    }

    fn comment(&mut self, start: usize, raw: &str) -> Result<(), Fatal> {
        const OPENING: &str = "<!--";
        let inner = raw.strip_prefix(OPENING).and_then(|r| r.strip_suffix("-->")).unwrap_or("");
        let dashes = inner.find("--").or_else(|| inner.ends_with('-').then(|| inner.len() - 1));
        match dashes {
            Some(at) => self.fail(start + OPENING.len() + at, "-- inside a comment", "write one dash, or other words"),
            None => Ok(()),
        }
    }

    /// `<?xml version="1.0" encoding="…" standalone="…"?>`, which may stand at the very beginning only.
    fn declaration(&mut self, start: usize, raw: &'t str) -> Result<(), Fatal> {
        const DECLARATION: &str = "write <?xml version=\"1.0\" encoding=\"UTF-8\"?>, or leave it out";
        if start != 0 {
            return self.fail(
                start,
                "an XML declaration that is not at the very beginning",
                "remove what stands before <?xml",
            );
        }
        const OPENING: &str = "<?xml";
        let inner = raw.strip_prefix(OPENING).and_then(|r| r.strip_suffix("?>")).unwrap_or("");
        let mut expected = ["version", "encoding", "standalone"].into_iter();
        let mut versioned = false;
        for attribute in grammar::attributes(inner) {
            let attribute = attribute.map_err(|f| self.fault(OPENING.len(), f))?;
            let value = attribute.value.as_ref();
            let fits = match attribute.name {
                "version" => value == "1.0",
                "encoding" => {
                    value.starts_with(|c: char| c.is_ascii_alphabetic())
                        && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
                }
                "standalone" => matches!(value, "yes" | "no"),
                _ => false,
            };
            // Each at most once, in this order; `version` cannot be left out.
            let in_order = expected.any(|name| name == attribute.name) && (versioned || attribute.name == "version");
            if !fits || !in_order {
                let message = format!("the XML declaration has {}={}", shortened(attribute.name), quoted(value));
                return self.fail(OPENING.len() + attribute.offset, message, DECLARATION);
            }
            versioned = true;
        }
        if versioned { Ok(()) } else { self.fail(start, "the XML declaration has no version", DECLARATION) }
    }

    fn instruction(&mut self, start: usize) -> Fatal {
        Fatal {
            rule: rules::E106,
            at: self.places.locate(start),
            message: "a processing instruction".to_owned(),
            hint: "remove it: only <?xml …?> may begin with <?",
        }
    }

    /// Something that does not belong before or after the root element.
    fn outside<T>(&mut self, at: usize) -> Result<T, Fatal> {
        if self.root.is_some() {
            return self.after_root(at);
        }
        self.fail(at, "text where the document should begin", BEGIN_WITH_RESPONSE)
    }

    fn after_root<T>(&mut self, at: usize) -> Result<T, Fatal> {
        self.fail(at, "something after the end of the document", "put everything into one <Response>…</Response>")
    }

    /// Markup that the reader could not split off.
    fn broken(&mut self, start: usize, raw: &str) -> Fatal {
        let unclosed = |what: &str| format!("{what} is never closed");
        let (message, hint) = if raw.starts_with('&') {
            return self.fault(start, grammar::bare_ampersand(0));
        } else if raw.starts_with("<!--") {
            (unclosed("a comment"), "close it with -->")
        } else if raw.starts_with("<![CDATA[") {
            (unclosed("a CDATA section"), "close it with ]]>")
        } else if raw.starts_with("</") {
            (unclosed("an end tag"), "close it with >")
        } else {
            let (message, hint) = if raw.starts_with("<!") {
                ("a <! that begins neither a comment nor a CDATA section", BEGIN_WITH_RESPONSE)
            } else if raw.starts_with("<?") {
                ("a <? that never ends", "remove it: only <?xml …?> may begin with <?")
            } else {
                ("a tag that is never closed", "close it with > (is a quote missing?)")
            };
            return ill_formed(self.places.locate(start), message.to_owned(), hint);
        };
        // The input ended inside open elements: that is reported at the innermost one's start tag.
        let line = self.places.locate(start);
        let at = self.open.last().map_or(line, |node| node.at);
        ill_formed(at, format!("{message} (it begins in line {})", line.line), hint)
    }

    fn finish(mut self) -> Result<Node<'t>, Fatal> {
        if let Some(node) = self.open.pop() {
            let message = format!("<{}> is never closed", shortened(node.name));
            return Err(ill_formed(node.at, message, "add the missing end tag (was the document cut short?)"));
        }
        let what =
            if self.text.trim_matches(is_space).is_empty() { "the body is empty" } else { "there is no element" };
        self.root.ok_or_else(|| ill_formed(START, what.to_owned(), BEGIN_WITH_RESPONSE))
    }
}

const BEGIN_WITH_RESPONSE: &str = "send XML that begins with <Response>; what the URL answers now is something else";

fn bound(at: Position, message: String, hint: &'static str) -> Fatal {
    Fatal { rule: rules::E105, at, message, hint }
}
