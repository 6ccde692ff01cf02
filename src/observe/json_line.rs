//! Formats an event as one line of JSON: time, level, its fields, its target, its span.
//!
//! The JSON format of `tracing_subscriber` parses a span's fields again for each event. This module
//! keeps the fields of spans as JSON and copies them into the line without intermediate values,
//! because a call writes a dozen lines at INFO. The output has the same members in the same order.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::logs::TEXT_BYTES_MAX;

/// The format. It requires that spans format their fields with [`JsonFields`].
pub(super) struct JsonLine;

/// The field that contains the target of events from the `log` crate.
const LOG_TARGET: &str = "log.target";

impl<S> FormatEvent<S, JsonFields> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        of: &FmtContext<'_, S, JsonFields>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let about = event.metadata();
        to.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut to)?;
        write!(to, "\",\"level\":\"{}\"", about.level())?;
        let mut fields = Fields { to: &mut to, written: Ok(()), target: None };
        event.record(&mut fields);
        let Fields { written, target, .. } = fields;
        written?;
        to.write_str(",\"target\":")?;
        string(&mut to, target.as_deref().unwrap_or(about.target()))?;
        if let Some(span) =
            event.parent().and_then(|id| of.span(id)).or_else(|| of.lookup_current())
        {
            let extensions = span.extensions();
            let kept = extensions
                .get::<FormattedFields<JsonFields>>()
                .map_or("", |kept| kept.fields.as_str());
            let kept =
                kept.strip_prefix('{').and_then(|kept| kept.strip_suffix('}')).unwrap_or_default();
            to.write_str(",\"span\":{")?;
            to.write_str(kept)?;
            to.write_str(if kept.is_empty() { "\"name\":" } else { ",\"name\":" })?;
            string(&mut to, span.name())?;
            to.write_char('}')?;
        }
        to.write_str("}\n")
    }
}

/// Writes each field as a further member.
struct Fields<'a, 'w> {
    to: &'a mut Writer<'w>,
    written: fmt::Result,
    target: Option<String>,
}

impl Fields<'_, '_> {
    fn member(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if self.written.is_ok() {
            self.written = (|| {
                self.to.write_char(',')?;
                string(self.to, field.name())?;
                self.to.write_char(':')?;
                value(self.to)
            })();
        }
    }
}

impl Visit for Fields<'_, '_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.member(field, |to| {
            if value.is_finite() { write!(to, "{value:?}") } else { to.write_str("null") }
        });
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, |to| write!(to, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, |to| write!(to, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, |to| write!(to, "{value}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == LOG_TARGET {
            self.target = Some(value.to_owned());
        }
        self.member(field, |to| string(to, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.member(field, |to| {
            to.write_char('"')?;
            write!(Inside::new(to), "{value:?}")?;
            to.write_char('"')
        });
    }
}

/// Writes a JSON string.
fn string(to: &mut Writer<'_>, text: &str) -> fmt::Result {
    to.write_char('"')?;
    Inside::new(to).write_str(text)?;
    to.write_char('"')
}

/// Writes the content of a JSON string, escaped as in RFC 8259 §7, up to [`TEXT_BYTES_MAX`].
struct Inside<'a, 'w> {
    to: &'a mut Writer<'w>,
    /// The number of bytes that may still be written. `None` once the value has been cut.
    left: Option<usize>,
}

impl<'a, 'w> Inside<'a, 'w> {
    fn new(to: &'a mut Writer<'w>) -> Self {
        Self { to, left: Some(TEXT_BYTES_MAX) }
    }
}

impl fmt::Write for Inside<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let Some(left) = self.left else { return Ok(()) };
        self.left = left.checked_sub(text.len());
        let mut rest = text.split_at(text.floor_char_boundary(left)).0;
        while let Some(at) = rest.find(|c: char| matches!(c, '"' | '\\') || c < ' ') {
            let (plain, from) = rest.split_at(at);
            self.to.write_str(plain)?;
            let mut chars = from.chars();
            match chars.next() {
                Some('"') => self.to.write_str("\\\"")?,
                Some('\\') => self.to.write_str("\\\\")?,
                Some('\n') => self.to.write_str("\\n")?,
                Some('\r') => self.to.write_str("\\r")?,
                Some('\t') => self.to.write_str("\\t")?,
                Some(control) => write!(self.to, "\\u{:04x}", u32::from(control))?,
                None => {}
            }
            rest = chars.as_str();
        }
        self.to.write_str(rest)?;
        if self.left.is_none() { self.to.write_char('…') } else { Ok(()) }
    }
}
