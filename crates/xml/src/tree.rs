//! Text to a tree of elements with positions, or the one finding that stops it: well-formedness in full and the
//! bounds of `plivo-xml.md` §1.
//!
//! quick-xml's event reader splits the text; each event is then held to XML 1.0's grammar (`grammar`), which the
//! reader leaves to its users. No entity is ever read, nothing recurses, and the text is walked once.

use std::borrow::Cow;
use std::ops::Range;

use quick_xml::Reader;
use quick_xml::events::Event;

use super::ast::Position;
use super::grammar::{self, Fault, is_space};
use super::place::{Locator, START};
use super::rules::{self, Rule};
use super::{is_same, quoted, shortened};

/// Root is 1.
pub(super) const MAX_DEPTH: usize = 16;
pub(super) const MAX_ELEMENTS: usize = 2_000;
pub(super) const MAX_ATTRIBUTES: usize = 64;

/// A well-formed document: its elements and texts in the order they begin in, so that what is inside an element
/// follows it, and the attributes of all of them in theirs.
#[derive(Debug)]
pub(super) struct Tree<'t> {
    text: &'t str,
    /// At the beginning.
    places: Locator<'t>,
    pieces: Vec<Piece<'t>>,
    attributes: Vec<Attribute<'t>>,
}

#[derive(Debug)]
enum Piece<'t> {
    Text(Text<'t>),
    Element(Element<'t>),
}

#[derive(Debug)]
struct Element<'t> {
    name: &'t str,
    /// Of the `<`.
    offset: usize,
    at: Position,
    attributes: Range<usize>,
    /// Pieces that are in it, at any depth.
    inside: usize,
}

/// An attribute, its value normalised but not trimmed.
#[derive(Debug)]
pub(super) struct Attribute<'t> {
    pub(super) name: &'t str,
    /// Of the name: [`Node::place`] makes a position of it, which hardly any attribute ever needs.
    pub(super) offset: usize,
    pub(super) value: Cow<'t, str>,
}

/// A run of text: adjacent text, CDATA and references are one.
#[derive(Debug)]
pub(super) struct Text<'t> {
    pub(super) value: Cow<'t, str>,
    /// Of the first character that is not white space.
    pub(super) offset: Option<usize>,
}

/// An element as it is written, and what is in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'n> {
    pub(super) name: &'n str,
    pub(super) at: Position,
    pub(super) attributes: &'n [Attribute<'n>],
    offset: usize,
    tree: &'n Tree<'n>,
    inside: &'n [Piece<'n>],
}

/// What stands in an element.
#[derive(Debug)]
pub(super) enum Content<'n> {
    Text(&'n Text<'n>),
    Element(Node<'n>),
}

impl<'t> Piece<'t> {
    fn element(&self) -> Option<&Element<'t>> {
        if let Self::Element(element) = self { Some(element) } else { None }
    }
}

impl<'n> Tree<'n> {
    /// The root element.
    pub(super) fn root(&'n self) -> Option<Node<'n>> {
        match self.pieces.split_first() {
            Some((Piece::Element(root), rest)) => Some(self.node(root, rest)),
            _ => None,
        }
    }

    /// `after` is what follows it.
    fn node(&'n self, element: &'n Element<'n>, after: &'n [Piece<'n>]) -> Node<'n> {
        Node {
            name: element.name,
            at: element.at,
            attributes: self.attributes.get(element.attributes.clone()).unwrap_or_default(),
            offset: element.offset,
            tree: self,
            inside: after.get(..element.inside).unwrap_or_default(),
        }
    }
}

impl<'n> Node<'n> {
    /// Its texts and elements, in order.
    pub(super) fn content(&self) -> impl Iterator<Item = Content<'n>> + use<'n> {
        let (tree, mut rest) = (self.tree, self.inside);
        std::iter::from_fn(move || {
            let (first, after) = rest.split_first()?;
            rest = after;
            Some(match first {
                Piece::Text(text) => Content::Text(text),
                Piece::Element(element) => {
                    rest = after.get(element.inside..).unwrap_or_default();
                    Content::Element(tree.node(element, after))
                }
            })
        })
    }

    pub(super) fn elements(&self) -> impl Iterator<Item = Node<'n>> + use<'n> {
        self.content()
            .filter_map(|c| if let Content::Element(node) = c { Some(node) } else { None })
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = &'n Text<'n>> + use<'n> {
        self.content().filter_map(|c| if let Content::Text(text) = c { Some(text) } else { None })
    }

    /// Where one of its attributes stands.
    pub(super) fn place(&self, attribute: &Attribute<'_>) -> Position {
        self.places().locate(attribute.offset)
    }

    /// Tells places from its own on.
    pub(super) fn places(&self) -> Locator<'n> {
        self.tree.places.from(self.offset, self.at)
    }
}

/// A finding after which nothing more is looked at.
#[derive(Debug)]
pub(super) struct Fatal {
    pub(super) rule: Rule,
    pub(super) at: Position,
    pub(super) message: String,
    pub(super) hint: &'static str,
}

/// Reads a document; one that is well-formed has a root.
pub(super) fn read(text: &str) -> Result<Tree<'_>, Fatal> {
    if text.starts_with('\u{FEFF}') {
        // The reader would swallow it.
        return Err(ill_formed(
            START,
            "a second byte order mark".to_owned(),
            "begin the document with <",
        ));
    }
    // Read up to the first character that XML does not have: what is wrong before it is wrong first.
    let illegal = grammar::first_illegal(text);
    let readable = illegal.and_then(|(at, _)| text.get(..at)).unwrap_or(text);
    let places = Locator::new(text);
    let tree = Tree {
        text,
        places: places.clone(),
        pieces: Vec::with_capacity(64),
        attributes: Vec::with_capacity(64),
    };
    let mut builder = Builder {
        tree,
        places,
        illegal,
        open: Vec::with_capacity(MAX_DEPTH),
        in_text: false,
        elements: 0,
        plain: memchr::memchr2(b'\r', b']', text.as_bytes()).is_none(),
    };
    let mut start = 0;
    loop {
        let rest = readable.get(start..).unwrap_or("");
        if let Some(used) = builder.usual(start, rest)? {
            start += used;
            continue;
        }
        if rest.starts_with("<!DOCTYPE") {
            return Err(Fatal {
                rule: rules::E104,
                at: builder.places.locate(start),
                message: "the document has a DOCTYPE".to_owned(),
                hint: "remove it (an HTML page instead of XML? then the URL answers something else)",
            });
        }
        // One event of quick-xml's.
        let mut reader = Reader::from_str(rest);
        let config = reader.config_mut();
        config.check_end_names = false;
        config.allow_unmatched_ends = true;
        let event = reader.read_event();
        let raw = rest.get(..offset(reader.buffer_position())).unwrap_or("");
        match event {
            Ok(Event::Start(_)) => builder.start_tag(start, raw, false)?,
            Ok(Event::Empty(_)) => builder.start_tag(start, raw, true)?,
            Ok(Event::End(_)) => builder.end_tag(start, raw)?,
            Ok(Event::Text(_)) => {
                builder.text(start, raw, raw.bytes().position(|b| !is_space(b.into())))?
            }
            Ok(Event::CData(_)) => builder.cdata(start, raw)?,
            Ok(Event::GeneralRef(_)) => builder.reference(start, raw)?,
            Ok(Event::Comment(_)) => builder.comment(start, raw)?,
            Ok(Event::Decl(_)) => builder.declaration(start, raw)?,
            Ok(Event::PI(_)) => return Err(builder.instruction(start)),
            Ok(Event::DocType(_)) | Err(_) => return Err(builder.broken(start, raw)),
            Ok(Event::Eof) => return builder.finish(),
        }
        start += raw.len();
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
    tree: Tree<'t>,
    places: Locator<'t>,
    /// The first character that is not one of XML's; nothing is read from there on.
    illegal: Option<(usize, char)>,
    /// Places of the elements that are open, the innermost last.
    open: Vec<usize>,
    /// Whether the last piece is a text that what comes next may still add to.
    in_text: bool,
    elements: usize,
    /// There is neither a CR nor a `]` in all of it: no text needs to be looked at for them.
    plain: bool,
}

impl<'t> Builder<'t> {
    fn fault(&mut self, base: usize, fault: Fault) -> Fatal {
        ill_formed(self.places.locate(base + fault.offset), fault.message, fault.hint)
    }

    fn fail<T>(
        &mut self,
        at: usize,
        message: impl Into<String>,
        hint: &'static str,
    ) -> Result<T, Fatal> {
        Err(ill_formed(self.places.locate(at), message.into(), hint))
    }

    /// Takes what nearly all of a document is made of: text, and tags without a fault. Gives the bytes that it took;
    /// `None`, and nothing has happened, where the next event is of another kind, or wants a closer look.
    fn usual(&mut self, start: usize, rest: &'t str) -> Result<Option<usize>, Fatal> {
        match rest.as_bytes() {
            [] | [b'&', ..] => Ok(None),
            [b'<', b'/', after @ ..] => {
                let Some(name) = self.innermost().map(|element| element.name) else {
                    return Ok(None);
                };
                let closes =
                    after.starts_with(name.as_bytes()) && after.get(name.len()) == Some(&b'>');
                let used = name.len() + 3;
                if closes {
                    self.end_tag(start, rest.get(..used).unwrap_or(rest))?;
                }
                Ok(closes.then_some(used))
            }
            [b'<', ..] => Ok(self.usual_start_tag(start, rest)),
            text => {
                // Between two tags there is mostly nothing else than this.
                let blanks = text.iter().position(|b| !is_space((*b).into())).unwrap_or(text.len());
                let used = match text.get(blanks..).unwrap_or_default() {
                    [] | [b'<' | b'&', ..] => blanks,
                    said => blanks + memchr::memchr2(b'<', b'&', said).unwrap_or(said.len()),
                };
                self.text(
                    start,
                    rest.get(..used).unwrap_or(rest),
                    (blanks < used).then_some(blanks),
                )?;
                Ok(Some(used))
            }
        }
    }

    fn usual_start_tag(&mut self, start: usize, rest: &'t str) -> Option<usize> {
        let room = self.elements < MAX_ELEMENTS && self.open.len() < MAX_DEPTH;
        if !room || (self.open.is_empty() && self.has_root()) {
            return None;
        }
        let first = self.tree.attributes.len();
        let Some((name, empty, used)) = self.usual_attributes(start, rest) else {
            self.tree.attributes.truncate(first);
            return None;
        };
        let (at, attributes) = (self.places.locate(start), first..self.tree.attributes.len());
        self.element(Element { name, offset: start, at, attributes, inside: 0 }, empty);
        Some(used)
    }

    /// The name, the attributes and the end of a start tag, as long as they are as most are; the attributes go into
    /// the tree.
    fn usual_attributes(&mut self, start: usize, rest: &'t str) -> Option<(&'t str, bool, usize)> {
        let first = self.tree.attributes.len();
        let (name, mut left) = grammar::split_ascii_name(rest.get(1..)?)?;
        loop {
            let spaced = left.trim_ascii_start();
            match spaced.as_bytes() {
                [b'>', ..] => return Some((name, false, rest.len() - spaced.len() + 1)),
                [b'/', b'>', ..] => return Some((name, true, rest.len() - spaced.len() + 2)),
                _ if spaced.len() == left.len() => return None,
                _ => {}
            }
            let offset = start + rest.len() - spaced.len();
            let (name, after) = grammar::split_ascii_name(spaced)?;
            let [b'=', quote @ (b'"' | b'\''), value @ ..] = after.as_bytes() else { return None };
            let (length, plain) = grammar::value_end(value, *quote)?;
            let raw = after.get(2..2 + length)?;
            let value = if plain { raw.into() } else { grammar::attribute_value(raw).ok()? };
            let before = self.tree.attributes.get(first..)?;
            if before.len() >= MAX_ATTRIBUTES || before.iter().any(|a| is_same(a.name, name)) {
                return None;
            }
            self.tree.attributes.push(Attribute { name, offset, value });
            left = after.get(2 + length + 1..)?;
        }
    }

    fn start_tag(&mut self, start: usize, raw: &'t str, empty: bool) -> Result<(), Fatal> {
        let at = self.places.locate(start);
        if self.open.is_empty() && self.has_root() {
            return self.after_root(start);
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(bound(at, format!("elements more than {MAX_DEPTH} deep"), "nest less"));
        }
        if self.elements >= MAX_ELEMENTS {
            return Err(bound(
                at,
                format!("more than {MAX_ELEMENTS} elements"),
                "send the rest in a next document (Redirect)",
            ));
        }
        let inner = raw.strip_suffix(if empty { "/>" } else { ">" }).unwrap_or(raw);
        let element = self.tag(start, at, inner)?;
        self.element(element, empty);
        Ok(())
    }

    fn element(&mut self, element: Element<'t>, empty: bool) {
        self.elements += 1;
        if !empty {
            self.open.push(self.tree.pieces.len());
        }
        self.tree.pieces.push(Piece::Element(element));
        self.in_text = false;
    }

    /// What stands between the brackets of a start tag, `<` included.
    fn tag(&mut self, start: usize, at: Position, raw: &'t str) -> Result<Element<'t>, Fatal> {
        let (name, rest) = grammar::split_name(raw.strip_prefix('<').unwrap_or(raw));
        if name.is_empty() {
            return Err(self.no_tag(start));
        }
        let first = self.tree.attributes.len();
        let base = start + 1 + name.len();
        for attribute in grammar::attributes(rest) {
            let attribute = attribute.map_err(|f| self.fault(base, f))?;
            let (name, offset) = (attribute.name, base + attribute.offset);
            let before = self.tree.attributes.get(first..).unwrap_or_default();
            if before.iter().any(|a| a.name == name) {
                return self.fail(
                    offset,
                    format!("the attribute {} stands twice in one tag", quoted(name)),
                    KEEP_ONE,
                );
            }
            if before.len() >= MAX_ATTRIBUTES {
                return Err(bound(
                    at,
                    format!("more than {MAX_ATTRIBUTES} attributes in one tag"),
                    "write fewer",
                ));
            }
            self.tree.attributes.push(Attribute { name, offset, value: attribute.value });
        }
        Ok(Element {
            name,
            offset: start,
            at,
            attributes: first..self.tree.attributes.len(),
            inside: 0,
        })
    }

    /// The innermost element that is open.
    fn innermost(&self) -> Option<&Element<'t>> {
        self.open.last().and_then(|place| self.tree.pieces.get(*place)).and_then(Piece::element)
    }

    fn has_root(&self) -> bool {
        !self.tree.pieces.is_empty()
    }

    fn end_tag(&mut self, start: usize, raw: &'t str) -> Result<(), Fatal> {
        let inner = raw.strip_prefix("</").and_then(|r| r.strip_suffix('>')).unwrap_or("");
        let name = inner.trim_end_matches(is_space);
        self.in_text = false;
        let Some(place) = self.open.pop() else {
            return match self.has_root() {
                true => self.after_root(start),
                false => self.fail(
                    start,
                    format!("the end tag </{}> closes nothing", shortened(name)),
                    BEGIN_WITH_RESPONSE,
                ),
            };
        };
        let inside = self.tree.pieces.len() - place - 1;
        let Some(Piece::Element(element)) = self.tree.pieces.get_mut(place) else { return Ok(()) };
        if element.name != name {
            let (name, open, line) = (shortened(name), shortened(element.name), element.at.line);
            let message = format!("the end tag </{name}> does not match <{open}> of line {line}");
            return self.fail(
                start,
                message,
                "close elements in the opposite order of opening, with the same spelling",
            );
        }
        element.inside = inside;
        Ok(())
    }

    /// `said` is where anything but white space begins in it.
    fn text(&mut self, start: usize, raw: &'t str, said: Option<usize>) -> Result<(), Fatal> {
        if self.open.is_empty() {
            return match said {
                Some(at) => self.outside(start + at),
                None => Ok(()),
            };
        }
        if self.plain {
            self.append(raw.into(), said.map(|at| start + at));
            return Ok(());
        }
        if super::any_byte(raw, |b| b == b']')
            && let Some(at) = raw.find("]]>")
        {
            return self.fail(start + at, "]]> outside a CDATA section", "write ]]&gt;");
        }
        self.append(grammar::line_ends(raw), said.map(|at| start + at));
        Ok(())
    }

    fn cdata(&mut self, start: usize, raw: &'t str) -> Result<(), Fatal> {
        if self.open.is_empty() {
            return self.outside(start);
        }
        const OPENING: &str = "<![CDATA[";
        let inner = raw.strip_prefix(OPENING).and_then(|r| r.strip_suffix("]]>")).unwrap_or("");
        let at = inner.find(|c| !is_space(c)).map(|at| start + OPENING.len() + at);
        self.append(grammar::line_ends(inner), at);
        Ok(())
    }

    fn reference(&mut self, start: usize, raw: &'t str) -> Result<(), Fatal> {
        if self.open.is_empty() {
            return self.outside(start);
        }
        let name = raw.strip_prefix('&').and_then(|r| r.strip_suffix(';')).unwrap_or("");
        let c = grammar::reference(name)
            .ok_or_else(|| self.fault(start, grammar::bad_reference(0, name)))?;
        let at = (!is_space(c)).then_some(start);
        self.append(c.to_string().into(), at);
        Ok(())
    }

    fn append(&mut self, piece: Cow<'t, str>, offset: Option<usize>) {
        match self.tree.pieces.last_mut() {
            Some(Piece::Text(text)) if self.in_text => {
                text.value.to_mut().push_str(&piece);
                text.offset = text.offset.or(offset);
            }
            _ => self.tree.pieces.push(Piece::Text(Text { value: piece, offset })),
        }
        self.in_text = true;
    }

    fn comment(&mut self, start: usize, raw: &str) -> Result<(), Fatal> {
        let inner = raw.strip_prefix(COMMENT).and_then(|r| r.strip_suffix("-->")).unwrap_or("");
        let dashes = inner
            .as_bytes()
            .windows(2)
            .position(|two| two == b"--")
            .or_else(|| inner.ends_with('-').then(|| inner.len() - 1));
        match dashes {
            Some(at) => Err(self.dashes(start + COMMENT.len() + at)),
            None => Ok(()),
        }
    }

    /// `<?xml version="1.0" encoding="…" standalone="…"?>`, which may stand at the very beginning only.
    fn declaration(&mut self, start: usize, raw: &'t str) -> Result<(), Fatal> {
        const DECLARATION: &str =
            "write <?xml version=\"1.0\" encoding=\"UTF-8\"?>, or leave it out";
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
                        && value
                            .chars()
                            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
                }
                "standalone" => matches!(value, "yes" | "no"),
                _ => false,
            };
            // Each at most once, in this order; `version` cannot be left out.
            let in_order = expected.any(|name| name == attribute.name)
                && (versioned || attribute.name == "version");
            if !fits || !in_order {
                let message = format!(
                    "the XML declaration has {}={}",
                    shortened(attribute.name),
                    quoted(value)
                );
                return self.fail(OPENING.len() + attribute.offset, message, DECLARATION);
            }
            versioned = true;
        }
        if versioned {
            Ok(())
        } else {
            self.fail(start, "the XML declaration has no version", DECLARATION)
        }
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
        if self.has_root() {
            return self.after_root(at);
        }
        self.fail(at, "text where the document should begin", BEGIN_WITH_RESPONSE)
    }

    fn after_root<T>(&mut self, at: usize) -> Result<T, Fatal> {
        self.fail(
            at,
            "something after the end of the document",
            "put everything into one <Response>…</Response>",
        )
    }

    /// Markup that the reader could not split off, up to the end of the text.
    fn broken(&mut self, start: usize, raw: &str) -> Fatal {
        // Inside open elements, an input that ends too early is reported at the innermost one's start tag.
        let innermost = self.innermost().map(|element| element.at);
        let at = self.places.locate(start);
        let unclosed =
            |what: &str| format!("the {what} that begins in line {} is never closed", at.line);
        if raw.starts_with('&') {
            return self.fault(start, grammar::bare_ampersand(0));
        }
        if let Some(inner) = raw.strip_prefix(COMMENT) {
            return match inner.find("--") {
                Some(dashes) => self.dashes(start + COMMENT.len() + dashes),
                None => {
                    self.ended(innermost.unwrap_or(at), unclosed("comment"), "close it with -->")
                }
            };
        }
        if raw.starts_with("<![CDATA[") {
            return self.ended(
                innermost.unwrap_or(at),
                unclosed("CDATA section"),
                "close it with ]]>",
            );
        }
        if let Some(inner) = raw.strip_prefix("</") {
            let (name, rest) = grammar::split_name(inner);
            return if rest.trim_start_matches(is_space).is_empty() {
                self.ended(innermost.unwrap_or(at), unclosed("end tag"), "close it with >")
            } else {
                let message =
                    format!("the end tag </{}> has more than a name in it", shortened(name));
                ill_formed(at, message, "write </name>")
            };
        }
        if raw.starts_with("<!") {
            return ill_formed(
                at,
                "a <! that begins no comment or CDATA section".to_owned(),
                BEGIN_WITH_RESPONSE,
            );
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

    fn finish(mut self) -> Result<Tree<'t>, Fatal> {
        if let Some(&Element { name, at, .. }) = self.innermost() {
            let message = format!("<{}> is never closed", shortened(name));
            return Err(self.ended(
                at,
                message,
                "add the missing end tag (was the document cut short?)",
            ));
        }
        if self.has_root() && self.illegal.is_none() {
            return Ok(self.tree);
        }
        let empty = self.tree.text.trim_matches(is_space).is_empty();
        let what = if empty { "the body is empty" } else { "there is no element" };
        Err(self.ended(START, what.to_owned(), BEGIN_WITH_RESPONSE))
    }
}

const COMMENT: &str = "<!--";
const KEEP_ONE: &str = "keep one of them";
const BEGIN_WITH_RESPONSE: &str =
    "send XML that begins with <Response>; what the URL answers now is something else";

fn bound(at: Position, message: String, hint: &'static str) -> Fatal {
    Fatal { rule: rules::E105, at, message, hint }
}
