//! Parses text to a tree of elements with positions. Checks well-formedness and the limits on the
//! shape of a document (docs/reference/xml.md#document-rules), and stops at the first error.
//!
//! quick-xml's event reader splits the text into events. Each event is then checked against the
//! grammar of XML 1.0 (`grammar`), because the reader does not check it. No external entity is
//! read, nothing recurses, and the text is walked once.

use std::borrow::Cow;
use std::ops::Range;

use quick_xml::Reader;
use quick_xml::events::Event;

use super::ast::Position;
use super::grammar::{self, Fault, is_space};
use super::names::{Attr, Tag};
use super::position::{Locator, START};
use super::rules::{self, Rule};
use super::{quoted, shortened};

/// Maximum nesting depth of elements; the root has depth 1.
pub(super) const MAX_DEPTH: usize = 16;
pub(super) const MAX_ELEMENTS: usize = 2_000;
pub(super) const MAX_ATTRIBUTES: usize = 64;

/// A well-formed document. Elements and texts are stored in document order, so that the descendants
/// of an element directly follow it. The attributes of all elements are stored in a second list.
#[derive(Debug)]
pub(super) struct Tree<'t> {
    text: &'t str,
    /// A locator at the beginning of the text.
    locator: Locator<'t>,
    pieces: Vec<Piece<'t>>,
    attributes: Vec<Attribute<'t>>,
}

#[derive(Debug)]
enum Piece<'t> {
    Text(Text<'t>),
    Element(Element<'t>),
}

#[derive(Debug)]
pub(super) struct Element<'t> {
    pub(super) name: &'t str,
    /// `None` if the name is unknown.
    pub(super) tag: Option<Tag>,
    pub(super) at: Position,
    /// The byte offset of the `<`.
    offset: usize,
    /// Indices into the list of attributes.
    attributes: Range<usize>,
    /// The number of pieces inside this element, at any depth.
    descendants: usize,
}

/// An attribute, with its value normalised but not trimmed.
#[derive(Debug)]
pub(super) struct Attribute<'t> {
    pub(super) name: &'t str,
    /// `None` if the name is unknown.
    pub(super) known: Option<Attr>,
    /// Byte offset of the name. [`Node::position_of`] converts it, which few attributes need.
    pub(super) offset: usize,
    pub(super) value: Cow<'t, str>,
}

/// A piece of text. Adjacent text, CDATA sections and references are merged into one.
#[derive(Debug)]
pub(super) struct Text<'t> {
    pub(super) value: Cow<'t, str>,
    /// Byte offset of the first character that is not white space.
    pub(super) offset: Option<usize>,
}

/// A view of an element and its content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'n> {
    element: &'n Element<'n>,
    tree: &'n Tree<'n>,
    descendants: &'n [Piece<'n>],
}

impl<'n> std::ops::Deref for Node<'n> {
    type Target = Element<'n>;

    fn deref(&self) -> &Element<'n> {
        self.element
    }
}

/// A child of an element.
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
    /// Returns the root element. `None` while it has not been parsed.
    pub(super) fn root(&'n self) -> Option<Node<'n>> {
        match self.pieces.split_first() {
            Some((Piece::Element(root), rest)) => Some(self.node(root, rest)),
            _ => None,
        }
    }

    /// Creates the view of an element. `following` contains the pieces after the element.
    fn node(&'n self, element: &'n Element<'n>, following: &'n [Piece<'n>]) -> Node<'n> {
        let descendants = following.get(..element.descendants).unwrap_or_default();
        Node { element, tree: self, descendants }
    }
}

impl<'n> Node<'n> {
    pub(super) fn attributes(&self) -> &'n [Attribute<'n>] {
        self.tree.attributes.get(self.element.attributes.clone()).unwrap_or_default()
    }

    /// Whether this is one of these elements.
    pub(super) fn is_one_of(&self, tags: &[Tag]) -> bool {
        self.tag.is_some_and(|tag| tags.contains(&tag))
    }

    /// Iterates over the child texts and elements, in document order.
    pub(super) fn content(&self) -> impl Iterator<Item = Content<'n>> + use<'n> {
        let (tree, mut rest) = (self.tree, self.descendants);
        std::iter::from_fn(move || {
            let (first, following) = rest.split_first()?;
            rest = following;
            Some(match first {
                Piece::Text(text) => Content::Text(text),
                Piece::Element(element) => {
                    rest = following.get(element.descendants..).unwrap_or_default();
                    Content::Element(tree.node(element, following))
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

    /// Returns the position of one of the element's attributes.
    pub(super) fn position_of(&self, attribute: &Attribute<'_>) -> Position {
        self.locator().locate(attribute.offset)
    }

    /// Returns a locator that starts at this element.
    pub(super) fn locator(&self) -> Locator<'n> {
        self.tree.locator.from(self.offset, self.at)
    }
}

/// An error that stops the validation.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) rule: Rule,
    pub(super) at: Position,
    pub(super) message: String,
    pub(super) hint: &'static str,
}

/// Parses a document. The tree has a root element.
pub(super) fn parse(text: &str) -> Result<Tree<'_>, SyntaxError> {
    if text.starts_with('\u{FEFF}') {
        // quick-xml would skip it.
        return Err(ill_formed(
            START,
            "the document starts with a second byte order mark".to_owned(),
            "start the document with <",
        ));
    }
    // Parse up to the first character that XML does not allow, so that an error before it is
    // reported first.
    let plain = grammar::is_plain(text);
    let illegal = if plain { None } else { grammar::first_illegal(text) };
    let readable = illegal.and_then(|(at, _)| text.get(..at)).unwrap_or(text);
    let locator = Locator::new(text, plain);
    let tree = Tree {
        text,
        locator: locator.clone(),
        pieces: Vec::with_capacity(64),
        attributes: Vec::with_capacity(64),
    };
    let mut builder = Builder {
        tree,
        locator,
        illegal,
        open: Vec::with_capacity(MAX_DEPTH),
        in_text: false,
        elements: 0,
        simple_text: plain || memchr::memchr2(b'\r', b']', text.as_bytes()).is_none(),
    };
    let mut start = if text.starts_with(DECLARATION) { DECLARATION.len() } else { 0 };
    loop {
        let rest = readable.get(start..).unwrap_or("");
        if let Some(used) = builder.fast_path(start, rest)? {
            start += used;
            continue;
        }
        if rest.starts_with("<!DOCTYPE") {
            return Err(SyntaxError {
                rule: rules::E104,
                at: builder.locator.locate(start),
                message: "the document has a DOCTYPE".to_owned(),
                hint: "remove it; if the response is an HTML page, check the URL",
            });
        }
        // Let quick-xml read one event.
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
            Ok(Event::PI(_)) => return Err(builder.processing_instruction(start)),
            Ok(Event::DocType(_)) | Err(_) => return Err(builder.unreadable_markup(start, raw)),
            Ok(Event::Eof) => return builder.finish(),
        }
        start += raw.len();
    }
}

/// Converts quick-xml's position, a `u64` because its streams may exceed the memory. Here the input
/// is a `str`.
fn offset(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

fn ill_formed(at: Position, message: String, hint: &'static str) -> SyntaxError {
    SyntaxError { rule: rules::E103, at, message, hint }
}

struct Builder<'t> {
    tree: Tree<'t>,
    locator: Locator<'t>,
    /// The first character that XML does not allow. The text before it is parsed.
    illegal: Option<(usize, char)>,
    /// Indices of the open elements in the list of pieces, the innermost last.
    open: Vec<usize>,
    /// Whether the last piece is a text to which the next event may append.
    in_text: bool,
    elements: usize,
    /// Whether the document contains neither CR nor `]`, so that text need not be searched for
    /// them.
    simple_text: bool,
}

impl<'t> Builder<'t> {
    fn fault(&mut self, base: usize, fault: Fault) -> SyntaxError {
        ill_formed(self.locator.locate(base + fault.offset), fault.message, fault.hint)
    }

    fn fail<T>(
        &mut self,
        at: usize,
        message: impl Into<String>,
        hint: &'static str,
    ) -> Result<T, SyntaxError> {
        Err(ill_formed(self.locator.locate(at), message.into(), hint))
    }

    /// Parses text or a simple, valid tag, which make up most of a document. Returns the number of
    /// bytes consumed. Returns `None` without any effect if the next event needs the full parser.
    fn fast_path(&mut self, start: usize, rest: &'t str) -> Result<Option<usize>, SyntaxError> {
        match rest.as_bytes() {
            [] | [b'&', ..] => Ok(None),
            [b'<', b'/', after @ ..] => {
                let Some(name) = self.innermost().map(|element| element.name) else {
                    return Ok(None);
                };
                let closes =
                    after.starts_with(name.as_bytes()) && after.get(name.len()) == Some(&b'>');
                if closes {
                    self.close();
                }
                Ok(closes.then_some(name.len() + 3))
            }
            [b'<', b'!', b'-', b'-', inner @ ..] => {
                Ok(grammar::comment_end(inner).map(|end| COMMENT.len() + end))
            }
            [b'<', ..] => Ok(self.fast_start_tag(start, rest)),
            text => {
                // Most text between two tags is white space only.
                let blanks = text.iter().position(|b| !is_space((*b).into())).unwrap_or(text.len());
                let used = match text.get(blanks..).unwrap_or_default() {
                    [] | [b'<' | b'&', ..] => blanks,
                    text => blanks + memchr::memchr2(b'<', b'&', text).unwrap_or(text.len()),
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

    fn fast_start_tag(&mut self, start: usize, rest: &'t str) -> Option<usize> {
        let room = self.elements < MAX_ELEMENTS && self.open.len() < MAX_DEPTH;
        if !room || (self.open.is_empty() && self.has_root()) {
            return None;
        }
        let first = self.tree.attributes.len();
        let Some((name, empty, used)) = self.fast_attributes(start, rest) else {
            self.tree.attributes.truncate(first);
            return None;
        };
        let (at, attributes) = (self.locator.locate(start), first..self.tree.attributes.len());
        let tag = Tag::from_name(name);
        self.element(Element { name, tag, at, offset: start, attributes, descendants: 0 }, empty);
        Some(used)
    }

    /// Parses a start tag in the most common form and appends its attributes to the tree. Returns
    /// the name, whether the element is empty, and the length of the tag. Returns `None` if the tag
    /// needs the full parser.
    fn fast_attributes(&mut self, start: usize, rest: &'t str) -> Option<(&'t str, bool, usize)> {
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
            let (name, known, after) = match grammar::split_known_name(spaced) {
                Some((name, known, after)) => (name, Some(known), after),
                None => {
                    let (name, after) = grammar::split_ascii_name(spaced)?;
                    (name, Attr::from_name(name), after)
                }
            };
            let [b'=', quote @ (b'"' | b'\''), value @ ..] = after.as_bytes() else { return None };
            let (length, plain) = grammar::value_end(value, *quote)?;
            let raw = after.get(2..2 + length)?;
            let value = if plain { raw.into() } else { grammar::attribute_value(raw).ok()? };
            let before = self.tree.attributes.get(first..)?;
            let is_same =
                |a: &Attribute<'_>| a.known == known && (known.is_some() || a.name == name);
            if before.len() >= MAX_ATTRIBUTES || before.iter().any(is_same) {
                return None;
            }
            self.tree.attributes.push(Attribute { name, known, offset, value });
            left = after.get(2 + length + 1..)?;
        }
    }

    fn start_tag(&mut self, start: usize, raw: &'t str, empty: bool) -> Result<(), SyntaxError> {
        let at = self.locator.locate(start);
        if self.open.is_empty() && self.has_root() {
            return self.after_root(start);
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(limit_exceeded(
                at,
                format!("elements nest more than {MAX_DEPTH} deep"),
                "nest fewer elements",
            ));
        }
        if self.elements >= MAX_ELEMENTS {
            return Err(limit_exceeded(
                at,
                format!("more than {MAX_ELEMENTS} elements"),
                "continue in another document with Redirect",
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

    /// Parses a start tag, given with `<` but without `>` or `/>`.
    fn tag(
        &mut self,
        start: usize,
        at: Position,
        raw: &'t str,
    ) -> Result<Element<'t>, SyntaxError> {
        let (name, rest) = grammar::split_name(raw.strip_prefix('<').unwrap_or(raw));
        if name.is_empty() {
            return Err(self.stray_less_than(start));
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
                    format!("the attribute {} occurs twice in one tag", quoted(name)),
                    "remove one of them",
                );
            }
            if before.len() >= MAX_ATTRIBUTES {
                return Err(limit_exceeded(
                    at,
                    format!("more than {MAX_ATTRIBUTES} attributes in one tag"),
                    "use fewer attributes",
                ));
            }
            let known = Attr::from_name(name);
            self.tree.attributes.push(Attribute { name, known, offset, value: attribute.value });
        }
        Ok(Element {
            name,
            tag: Tag::from_name(name),
            at,
            offset: start,
            attributes: first..self.tree.attributes.len(),
            descendants: 0,
        })
    }

    /// Returns the innermost open element, or `None` if none is open.
    fn innermost(&self) -> Option<&Element<'t>> {
        self.open.last().and_then(|index| self.tree.pieces.get(*index)).and_then(Piece::element)
    }

    fn has_root(&self) -> bool {
        !self.tree.pieces.is_empty()
    }

    fn end_tag(&mut self, start: usize, raw: &'t str) -> Result<(), SyntaxError> {
        let inner = raw.strip_prefix("</").and_then(|r| r.strip_suffix('>')).unwrap_or("");
        let name = inner.trim_end_matches(is_space);
        let Some(element) = self.innermost() else {
            return match self.has_root() {
                true => self.after_root(start),
                false => self.fail(
                    start,
                    format!("the end tag </{}> has no start tag", shortened(name)),
                    START_WITH_RESPONSE,
                ),
            };
        };
        if element.name != name {
            let (name, open, line) = (shortened(name), shortened(element.name), element.at.line);
            let message = format!("the end tag </{name}> does not match <{open}> in line {line}");
            return self.fail(
                start,
                message,
                "close elements in the reverse order of opening, with the same spelling",
            );
        }
        self.close();
        Ok(())
    }

    /// Closes the innermost element.
    fn close(&mut self) {
        self.in_text = false;
        let Some(index) = self.open.pop() else { return };
        let descendants = self.tree.pieces.len() - index - 1;
        if let Some(Piece::Element(element)) = self.tree.pieces.get_mut(index) {
            element.descendants = descendants;
        }
    }

    /// Adds a text. `content` is the offset in `raw` of the first character that is not white
    /// space.
    fn text(
        &mut self,
        start: usize,
        raw: &'t str,
        content: Option<usize>,
    ) -> Result<(), SyntaxError> {
        if self.open.is_empty() {
            return match content {
                Some(at) => self.outside_root(start + at),
                None => Ok(()),
            };
        }
        // White space between the children of such an element has no meaning.
        let has_text = |element: &Element<'_>| !element.tag.is_some_and(Tag::is_container);
        if content.is_none() && !self.in_text && !self.innermost().is_some_and(has_text) {
            return Ok(());
        }
        if self.simple_text {
            self.append(raw.into(), content.map(|at| start + at));
            return Ok(());
        }
        if super::any_byte(raw, |b| b == b']')
            && let Some(at) = raw.find("]]>")
        {
            return self.fail(start + at, "]]> outside a CDATA section", "write ]]&gt;");
        }
        self.append(grammar::normalise_line_ends(raw), content.map(|at| start + at));
        Ok(())
    }

    fn cdata(&mut self, start: usize, raw: &'t str) -> Result<(), SyntaxError> {
        if self.open.is_empty() {
            return self.outside_root(start);
        }
        const OPENING: &str = "<![CDATA[";
        let inner = raw.strip_prefix(OPENING).and_then(|r| r.strip_suffix("]]>")).unwrap_or("");
        let at = inner.find(|c| !is_space(c)).map(|at| start + OPENING.len() + at);
        self.append(grammar::normalise_line_ends(inner), at);
        Ok(())
    }

    fn reference(&mut self, start: usize, raw: &'t str) -> Result<(), SyntaxError> {
        if self.open.is_empty() {
            return self.outside_root(start);
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

    fn comment(&mut self, start: usize, raw: &str) -> Result<(), SyntaxError> {
        let inner = raw.strip_prefix(COMMENT).and_then(|r| r.strip_suffix("-->")).unwrap_or("");
        let dashes = inner
            .as_bytes()
            .windows(2)
            .position(|two| two == b"--")
            .or_else(|| inner.ends_with('-').then(|| inner.len() - 1));
        match dashes {
            Some(at) => Err(self.double_dash(start + COMMENT.len() + at)),
            None => Ok(()),
        }
    }

    /// Checks the XML declaration, which is only allowed at the very beginning.
    fn declaration(&mut self, start: usize, raw: &'t str) -> Result<(), SyntaxError> {
        const HINT: &str = "write <?xml version=\"1.0\" encoding=\"UTF-8\"?>, or remove it";
        if start != 0 {
            return self.fail(
                start,
                "the XML declaration is not at the very beginning",
                "remove everything before <?xml",
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
            // Each at most once and in this order; `version` is required.
            let in_order = expected.any(|name| name == attribute.name)
                && (versioned || attribute.name == "version");
            if !fits || !in_order {
                let message = format!(
                    "the XML declaration has {}={}",
                    shortened(attribute.name),
                    quoted(value)
                );
                return self.fail(OPENING.len() + attribute.offset, message, HINT);
            }
            versioned = true;
        }
        if versioned {
            Ok(())
        } else {
            self.fail(start, "the XML declaration has no version", HINT)
        }
    }

    fn processing_instruction(&mut self, start: usize) -> SyntaxError {
        SyntaxError {
            rule: rules::E106,
            at: self.locator.locate(start),
            message: "the document has a processing instruction".to_owned(),
            hint: "remove it: only the XML declaration may start with <?",
        }
    }

    /// Creates the error for content outside the root element.
    fn outside_root<T>(&mut self, at: usize) -> Result<T, SyntaxError> {
        if self.has_root() {
            return self.after_root(at);
        }
        self.fail(at, "text before the root element", START_WITH_RESPONSE)
    }

    fn after_root<T>(&mut self, at: usize) -> Result<T, SyntaxError> {
        self.fail(
            at,
            "content after the root element",
            "put everything into one <Response>…</Response>",
        )
    }

    /// Creates the error for markup that quick-xml could not read. `raw` extends to the end of the
    /// text.
    fn unreadable_markup(&mut self, start: usize, raw: &str) -> SyntaxError {
        // Inside an element, input that ends too early is reported at the start tag of the
        // innermost one.
        let innermost = self.innermost().map(|element| element.at);
        let at = self.locator.locate(start);
        let unclosed =
            |what: &str| format!("the {what} that starts in line {} is not closed", at.line);
        if raw.starts_with('&') {
            return self.fault(start, grammar::bare_ampersand(0));
        }
        if let Some(inner) = raw.strip_prefix(COMMENT) {
            return match inner.find("--") {
                Some(dashes) => self.double_dash(start + COMMENT.len() + dashes),
                None => self.premature_end(
                    innermost.unwrap_or(at),
                    unclosed("comment"),
                    "close it with -->",
                ),
            };
        }
        if raw.starts_with("<![CDATA[") {
            return self.premature_end(
                innermost.unwrap_or(at),
                unclosed("CDATA section"),
                "close it with ]]>",
            );
        }
        if let Some(inner) = raw.strip_prefix("</") {
            let (name, rest) = grammar::split_name(inner);
            return if rest.trim_start_matches(is_space).is_empty() {
                self.premature_end(innermost.unwrap_or(at), unclosed("end tag"), "close it with >")
            } else {
                let message =
                    format!("the end tag </{}> contains more than a name", shortened(name));
                ill_formed(at, message, "write </name>")
            };
        }
        if raw.starts_with("<!") {
            return ill_formed(
                at,
                "<! does not start a comment or CDATA section".to_owned(),
                START_WITH_RESPONSE,
            );
        }
        if raw.starts_with("<?") {
            return self.premature_end(
                at,
                unclosed("<?"),
                "remove it: only the XML declaration may start with <?",
            );
        }
        let (name, rest) = grammar::split_name(raw.strip_prefix('<').unwrap_or(raw));
        if name.is_empty() && !rest.is_empty() {
            return self.stray_less_than(start);
        }
        match grammar::attributes(rest).find_map(Result::err).filter(|fault| !fault.truncated) {
            Some(fault) => self.fault(start + 1 + name.len(), fault),
            None => {
                self.premature_end(at, unclosed("tag"), "close it with > (or add a missing quote)")
            }
        }
    }

    /// Creates the error for text that ends too early: the given one, or the one for the character
    /// that XML does not allow, if parsing stopped there.
    fn premature_end(&mut self, at: Position, message: String, hint: &'static str) -> SyntaxError {
        match self.illegal {
            Some((offset, c)) => ill_formed(
                self.locator.locate(offset),
                format!("the character U+{:04X} is not allowed in XML", u32::from(c)),
                "remove it; if there are many, the text may be UTF-16 without a byte order mark: send UTF-8",
            ),
            None => ill_formed(at, message, hint),
        }
    }

    fn stray_less_than(&mut self, start: usize) -> SyntaxError {
        let at = self.locator.locate(start);
        ill_formed(at, "< does not start a tag".to_owned(), "write &lt; for a plain <")
    }

    fn double_dash(&mut self, start: usize) -> SyntaxError {
        let at = self.locator.locate(start);
        ill_formed(at, "-- inside a comment".to_owned(), "write a single dash")
    }

    fn finish(mut self) -> Result<Tree<'t>, SyntaxError> {
        if let Some(&Element { name, at, .. }) = self.innermost() {
            let message = format!("<{}> is not closed", shortened(name));
            return Err(self.premature_end(
                at,
                message,
                "add the end tag, or check whether the document was cut off",
            ));
        }
        if self.has_root() && self.illegal.is_none() {
            return Ok(self.tree);
        }
        let empty = self.tree.text.trim_matches(is_space).is_empty();
        let message = if empty { "the body is empty" } else { "the document has no element" };
        Err(self.premature_end(START, message.to_owned(), START_WITH_RESPONSE))
    }
}

/// The most common declaration, which needs no check.
pub(super) const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";
const COMMENT: &str = "<!--";
const START_WITH_RESPONSE: &str =
    "send a document that starts with <Response>; check what the URL returns";

fn limit_exceeded(at: Position, message: String, hint: &'static str) -> SyntaxError {
    SyntaxError { rule: rules::E105, at, message, hint }
}
