//! The reference of all keys: what `offhook config keys` prints and
//! `docs/reference/configuration.md` holds. It is collected from the declarations that
//! configurations are read by.

use std::fmt::{self, Write as _};

use super::section::Context;
use super::tree::Table;
use super::{Sources, read};

/// What a key has where the file does not set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fallback {
    /// The key must be set.
    Required,
    /// A default, as the file would have it.
    Value(String),
    /// No value. The text says what serves instead; it may be empty.
    Absent(&'static str),
}

/// One key.
#[derive(Clone, Debug)]
pub(super) struct KeyReference {
    pub(super) name: &'static str,
    /// The type of its value.
    pub(super) kind: String,
    pub(super) fallback: Fallback,
    pub(super) doc: &'static str,
    /// Whether only a restart applies a change.
    pub(super) restart: bool,
}

impl KeyReference {
    /// A key whose changes a reload applies.
    pub(super) fn new(
        name: &'static str,
        kind: impl Into<String>,
        fallback: Fallback,
        doc: &'static str,
    ) -> Self {
        Self { name, kind: kind.into(), fallback, doc, restart: false }
    }
}

/// One table of the file.
#[derive(Clone, Debug)]
pub(super) struct SectionReference {
    /// With its brackets: `[listen]`, `[[account]]`.
    pub(super) title: String,
    pub(super) doc: &'static str,
    pub(super) keys: Vec<KeyReference>,
}

impl SectionReference {
    pub(super) fn new(title: String, doc: &'static str) -> Self {
        Self { title, doc, keys: Vec::new() }
    }
}

/// Every key of the configuration.
#[derive(Clone, Debug)]
pub struct Reference(Vec<SectionReference>);

impl Reference {
    /// Collects the reference.
    pub fn collect() -> Self {
        let sources = Sources {
            env: &|_| None,
            file: &|_| Err(std::io::ErrorKind::NotFound.into()),
            speech: &|_| Ok(()),
        };
        let cx = Context::describing(&sources);
        read::config(Table::new(), &cx);
        Self(cx.reference.map(std::cell::RefCell::into_inner).unwrap_or_default())
    }

    /// The keys with their sections, in order.
    #[cfg(test)]
    pub(super) fn keys(&self) -> impl Iterator<Item = (&str, &KeyReference)> {
        self.0
            .iter()
            .flat_map(|section| section.keys.iter().map(move |key| (section.title.as_str(), key)))
    }

    /// The page `docs/reference/configuration.md`.
    pub fn markdown(&self) -> String {
        let mut page = PAGE_HEAD.to_owned();
        for section in self.sections() {
            let _ = write!(
                page,
                "\n## {}\n\n{}\n\n| key | type | default | reload | meaning |\n|---|---|---|---|---|\n",
                section.title, section.doc
            );
            for key in &section.keys {
                let default = match &key.fallback {
                    Fallback::Required => "required".to_owned(),
                    Fallback::Value(value) => format!("`{value}`"),
                    Fallback::Absent("") => "–".to_owned(),
                    Fallback::Absent(meaning) => (*meaning).to_owned(),
                };
                let _ = writeln!(
                    page,
                    "| `{}` | {} | {default} | {} | {} |",
                    key.name,
                    key.kind,
                    if key.restart { "restart" } else { "yes" },
                    key.doc
                );
            }
        }
        page
    }

    /// Sections that have keys.
    fn sections(&self) -> impl Iterator<Item = &SectionReference> {
        self.0.iter().filter(|section| !section.keys.is_empty())
    }
}

/// The reference as text, for a terminal.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, section) in self.sections().enumerate() {
            let space = if nth == 0 { "" } else { "\n" };
            writeln!(f, "{space}{}\n  {}", section.title, section.doc)?;
            for key in &section.keys {
                let default = match &key.fallback {
                    Fallback::Required => "; required".to_owned(),
                    Fallback::Value(value) => format!("; default {value}"),
                    Fallback::Absent("") => String::new(),
                    Fallback::Absent(meaning) => format!("; default: {meaning}"),
                };
                let restart = if key.restart { "; needs a restart" } else { "" };
                writeln!(f, "\n  {}\n      {}{default}{restart}", key.name, key.kind)?;
                writeln!(f, "      {}", key.doc)?;
            }
        }
        Ok(())
    }
}

const PAGE_HEAD: &str = "\
# Configuration

Every key of the configuration file. This page is generated: `offhook config keys --markdown` prints
it, and `offhook config keys` prints the same as text. `offhook config check --config FILE` reports
unknown keys and wrong values with line and column.

- The file is TOML. A table in double brackets, such as `[[account]]`, may be repeated.
- A **secret** is text, `{ env = \"NAME\" }` (an environment variable) or `{ file = \"PATH\" }`. A
  variable or file that does not exist makes an optional secret absent.
- The environment overrides the file: `OFFHOOK_LISTEN__PUBLIC` sets `public` in `[listen]`, and
  `OFFHOOK_ACCOUNT__0__CPS` sets `cps` of the first `[[account]]`, if the file has it. Lists are
  written with commas.
- **reload** says when a change takes effect: `yes` means with a reload (SIGHUP, or
  `POST /api/v1/reload/`), `restart` means when the node starts again. A reload names the changed
  keys that need a restart.
- A key whose default is `–` is absent unless it is set.
";
