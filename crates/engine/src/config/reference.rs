//! The reference of all configuration keys, collected from the declarations that read them.
//! `offhook config keys` prints it as a table, as JSON, or as the page
//! `docs/reference/configuration.md`.

use std::fmt::{self, Write as _};

use serde::Serialize;

use super::declared::{Fallback, KeyReference, SectionReference};
use super::section::Context;
use super::tree::Table;
use super::{Sources, read};

/// A key in the output of `offhook config keys --json`.
#[derive(Clone, Debug, Serialize)]
pub struct KeyDescription<'r> {
    /// The table of the key with its brackets, such as `[listen]` or `[[account]]`.
    pub section: &'r str,
    pub key: &'static str,
    /// The type of the value.
    #[serde(rename = "type")]
    pub kind: &'r str,
    pub required: bool,
    /// The default in TOML, or `None` if there is none.
    pub default: Option<&'r str>,
    /// The behaviour without a value, for keys without a default.
    pub absent: Option<&'static str>,
    /// Whether a reload applies a change. Otherwise it needs a restart.
    pub reloadable: bool,
    pub meaning: &'static str,
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

    /// The keys with the titles of their sections, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&str, &KeyReference)> {
        self.0
            .iter()
            .flat_map(|section| section.keys.iter().map(move |key| (section.title.as_str(), key)))
    }

    /// The meaning of a key in plain text. `None` if there is no such key.
    pub fn meaning(&self, section: &str, key: &str) -> Option<String> {
        let found = self.keys().find(|(title, found)| *title == section && found.name == key)?;
        Some(without_markdown(found.1.doc))
    }

    /// The keys for machines, in order.
    pub fn descriptions(&self) -> impl Iterator<Item = KeyDescription<'_>> {
        self.keys().map(|(section, key)| {
            let (default, absent) = match &key.fallback {
                Fallback::Required | Fallback::Absent("") => (None, None),
                Fallback::Value(value) => (Some(value.as_str()), None),
                Fallback::Absent(meaning) => (None, Some(*meaning)),
            };
            KeyDescription {
                section,
                key: key.name,
                kind: &key.kind,
                required: key.fallback == Fallback::Required,
                default,
                absent,
                reloadable: !key.restart,
                meaning: key.doc,
            }
        })
    }

    /// The page `docs/reference/configuration.md`.
    pub fn markdown(&self) -> String {
        let mut page = PAGE_HEAD.to_owned();
        for section in self.sections() {
            let _ = write!(
                page,
                "\n## `{}`\n\n{}\n\n| key | type | default | reload | meaning |\n|---|---|---|---|---|\n",
                section.title, section.doc
            );
            for key in &section.keys {
                let default = match &key.fallback {
                    Fallback::Required => "required".to_owned(),
                    Fallback::Value(value) => format!("`{value}`"),
                    Fallback::Absent("") => "–".to_owned(),
                    Fallback::Absent(meaning) => (*meaning).to_owned(),
                };
                let (name, kind, reload, doc) = (key.name, &key.kind, key.reload(), key.doc);
                let _ = writeln!(page, "| `{name}` | {kind} | {default} | {reload} | {doc} |");
            }
        }
        page
    }

    /// Sections that have keys.
    fn sections(&self) -> impl Iterator<Item = &SectionReference> {
        self.0.iter().filter(|section| !section.keys.is_empty())
    }
}

/// The widest column of the table. Longer cells push the rest of their line to the right.
const COLUMN_MAX: usize = 32;

/// The reference as one table per section, for a terminal.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, section) in self.sections().enumerate() {
            let space = if nth == 0 { "" } else { "\n" };
            writeln!(f, "{space}{}  {}", section.title, without_markdown(section.doc))?;
            let head = ["key", "type", "default", "reload", "meaning"].map(str::to_owned);
            let rows: Vec<_> =
                std::iter::once(head).chain(section.keys.iter().map(table_row)).collect();
            let mut widths = [0; 5];
            for row in &rows {
                for (width, cell) in widths.iter_mut().zip(row) {
                    *width = cell.chars().count().min(COLUMN_MAX).max(*width);
                }
            }
            let [w0, w1, w2, w3, _] = widths;
            for [key, kind, default, reload, meaning] in &rows {
                writeln!(f, "  {key:w0$}  {kind:w1$}  {default:w2$}  {reload:w3$}  {meaning}")?;
            }
        }
        Ok(())
    }
}

fn table_row(key: &KeyReference) -> [String; 5] {
    let default = match &key.fallback {
        Fallback::Required => "required".to_owned(),
        Fallback::Value(value) => value.clone(),
        Fallback::Absent("") => "-".to_owned(),
        Fallback::Absent(meaning) => without_markdown(meaning),
    };
    let (kind, meaning) = (without_markdown(&key.kind), without_markdown(key.doc));
    [key.name.to_owned(), kind, default, key.reload().to_owned(), meaning]
}

/// Removes backticks, and replaces `[text](target)` by its text.
fn without_markdown(text: &str) -> String {
    let (mut plain, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("](") {
        let Some((_, behind)) = after.split_once(')') else { break };
        let (start, label) = before.rsplit_once('[').unwrap_or((before, ""));
        plain.push_str(start);
        plain.push_str(label);
        rest = behind;
    }
    plain.push_str(rest);
    plain.replace('`', "")
}

const PAGE_HEAD: &str = "\
# Configuration

Every key of the configuration file. This page is generated by `offhook config keys --markdown`.
`offhook config keys` prints the same as a table and, with `--json`, as one object per line.
`offhook config check --config FILE` reports unknown keys and wrong values with line and column.

- The file is TOML. A table in double brackets, such as `[[account]]`, may be repeated.
- A **secret** is text, `{ env = \"NAME\" }` (an environment variable) or `{ file = \"PATH\" }`. A
  variable or file that is missing or empty makes an optional secret absent; `offhook config
  check`, `offhook doctor`, the start and a reload warn of it.
- The environment overrides the file: `OFFHOOK_LISTEN__PUBLIC` sets `public` in `[listen]`, and
  `OFFHOOK_ACCOUNT__0__CPS` sets `cps` of the first `[[account]]`, if the file has it. Lists are
  written with commas.
- **reload** says when a change takes effect: `yes` means with a reload (SIGHUP, or
  `POST /api/v1/reload/`), `restart` means when the node starts again. A reload names the changed
  keys that need a restart.
- A key whose default is `–` is absent unless it is set.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_aligns_short_cells_and_has_no_markdown() {
        let mut section =
            SectionReference::new("[a]".to_owned(), "See [Limits](limits.md#whatsapp-rules).");
        let fallback = || Fallback::Absent("`b.c`");
        section.keys = vec![
            KeyReference::new("one", "boolean", Fallback::Value("false".to_owned()), "`x` or y."),
            KeyReference { restart: true, ..KeyReference::new("seven", "URL", fallback(), "Z.") },
        ];
        assert_eq!(
            Reference(vec![section]).to_string(),
            "[a]  See Limits.\n  \
               key    type     default  reload   meaning\n  \
               one    boolean  false    yes      x or y.\n  \
               seven  URL      b.c      restart  Z.\n"
        );
        assert_eq!(without_markdown("a](b"), "a](b");
    }

    #[test]
    fn descriptions_tell_defaults_from_absent_and_required_keys() {
        let reference = Reference::collect();
        let find = |section: &str, key: &str| {
            let found = reference.descriptions().find(|d| d.section == section && d.key == key);
            serde_json::to_value(found.unwrap()).unwrap()
        };
        let public = find("[listen]", "public");
        assert_eq!(public["default"], "\"0.0.0.0:8080\"");
        assert_eq!((&public["required"], &public["reloadable"]), (&false.into(), &false.into()));
        let secret = find("[meta]", "app_secret");
        assert_eq!((&secret["type"], &secret["required"]), (&"secret".into(), &true.into()));
        assert!(secret["default"].is_null() && secret["absent"].is_null());
        assert_eq!(find("[[waba]]", "access_token")["absent"], "`meta.access_token`");
        let meaning = reference.meaning("[public]", "stun_servers").unwrap();
        assert!(meaning.contains("that media_ips = \"auto\" asks"), "{meaning}");
        assert_eq!(reference.meaning("[public]", "no_such_key"), None);
    }
}
