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
    // Read up to the first character that XML does not have: what is wrong before it is wrong first.
    let illegal = grammar::first_illegal(text);
    let readable = illegal.and_then(|(at, _)| text.get(..at)).unwrap_or(text);
    let mut builder = Builder { text, places: Locator::new(text), illegal, open: Vec::new(), root: None, elements: 0 };
    let mut reader = Reader::from_str(readable);
    let config = reader.config_mut();
    config.check_end_names = false;
    config.allow_unmatched_ends = true;
    loop {
        let start = offset(reader.buffer_position());
        if readable.get(start..).is_some_and(|rest| rest.starts_with("<!DOCTYPE")) {
            return Err(Fatal {
                rule: rules::E104,
                at: builder.places.locate(start),
                message: "the document has a DOCTYPE".to_owned(),
                hint: "remove it (an HTML page instead of XML? then the URL answers something else)",
            });
        }
        let event = reader.read_event();
        let end = offset(reader.buffer_position());
        let raw = readable.get(start..end).unwrap_or("");
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
    /// The first character that is not one of XML's; nothing is read from there on.
    illegal: Option<(usize, char)>,
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
        let inner = raw.strip_suffix(if empty { "/>" } else { ">" }).unwrap_or(raw);
        let node = self.tag(start, at, inner)?;
        if empty {
            self.close(node);
        } else {
            self.open.push(node);
        }
        Ok(())
    }

    /// What stands between the brackets of a start tag, `<` included.
    fn tag(&mut self, start: usize, at: Position, raw: &'t str) -> Result<Node<'t>, Fatal> {
        let (name, rest) = grammar::split_name(raw.strip_prefix('<').unwrap_or(raw));
        if name.is_empty() {
            return Err(self.no_tag(start));
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
        Ok(node)
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
        let inner = raw.strip_prefix(COMMENT).and_then(|r| r.strip_suffix("-->")).unwrap_or("");
        let dashes = inner.find("--").or_else(|| inner.ends_with('-').then(|| inner.len() - 1));
        match dashes {
            Some(at) => Err(self.dashes(start + COMMENT.len() + at)),
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

    /// Markup that the reader could not split off, up to the end of the text.
    fn broken(&mut self, start: usize, raw: &str) -> Fatal {
        // Inside open elements, an input that ends too early is reported at the innermost one's start tag.
        let innermost = self.open.last().map(|node| node.at);
        let at = self.places.locate(start);
        let unclosed = |what: &str| format!("the {what} that begins in line {} is never closed", at.line);
        if raw.starts_with('&') {
            return self.fault(start, grammar::bare_ampersand(0));
        }
        if let Some(inner) = raw.strip_prefix(COMMENT) {
            return match inner.find("--") {
                Some(dashes) => self.dashes(start + COMMENT.len() + dashes),
                None => self.ended(innermost.unwrap_or(at), unclosed("comment"), "close it with -->"),
            };
        }
        if raw.starts_with("<![CDATA[") {
            return self.ended(innermost.unwrap_or(at), unclosed("CDATA section"), "close it with ]]>");
        }
        if let Some(inner) = raw.strip_prefix("</") {
            let (name, rest) = grammar::split_name(inner);
            return if rest.trim_start_matches(is_space).is_empty() {
                self.ended(innermost.unwrap_or(at), unclosed("end tag"), "close it with >")
            } else {
                let message = format!("the end tag </{}> has more than a name in it", shortened(name));
                ill_formed(at, message, "write </name>")
            };
        }
        if raw.starts_with("<!") {
            return ill_formed(at, "a <! that begins no comment or CDATA section".to_owned(), BEGIN_WITH_RESPONSE);
        }
        if raw.starts_with("<?") {
            return self.ended(at, unclosed("<?"), "remove it: only <?xml …?> may begin with <?");
        }
        let (name, rest) = grammar::split_name(raw.strip_prefix('<').unwrap_or(raw));
        if name.is_empty() && !rest.is_empty() {
            return self.no_tag(start);
        }
        match grammar::attributes(rest).find_map(Result::err).filter(|fault| !fault.cut) {
            Some(fault) => self.fault(start + 1 + name.len(), fault),
            None => self.ended(at, unclosed("tag"), "close it with > (is a quote missing?)"),
        }
    }

    /// The text ends, or a character follows that ends it for us.
    fn ended(&mut self, at: Position, message: String, hint: &'static str) -> Fatal {
        match self.illegal {
            Some((offset, c)) => ill_formed(
                self.places.locate(offset),
                format!("the character U+{:04X} is not allowed in XML", u32::from(c)),
                "remove it (many of them? the text may be UTF-16 without a byte order mark: send UTF-8)",
            ),
            None => ill_formed(at, message, hint),
        }
    }

    fn no_tag(&mut self, start: usize) -> Fatal {
        let at = self.places.locate(start);
        ill_formed(at, "a < that begins no tag".to_owned(), "write &lt; for a plain <")
    }

    fn dashes(&mut self, start: usize) -> Fatal {
        let at = self.places.locate(start);
        ill_formed(at, "-- inside a comment".to_owned(), "write one dash, or other words")
    }

    fn finish(mut self) -> Result<Node<'t>, Fatal> {
        if let Some(node) = self.open.pop() {
            let message = format!("<{}> is never closed", shortened(node.name));
            return Err(self.ended(node.at, message, "add the missing end tag (was the document cut short?)"));
        }
        match self.root.take() {
            Some(root) if self.illegal.is_none() => Ok(root),
            _ => {
                let empty = self.text.trim_matches(is_space).is_empty();
                let what = if empty { "the body is empty" } else { "there is no element" };
                Err(self.ended(START, what.to_owned(), BEGIN_WITH_RESPONSE))
            }
        }
    }
}

const COMMENT: &str = "<!--";
const BEGIN_WITH_RESPONSE: &str = "send XML that begins with <Response>; what the URL answers now is something else";

fn bound(at: Position, message: String, hint: &'static str) -> Fatal {
    Fatal { rule: rules::E105, at, message, hint }
}
