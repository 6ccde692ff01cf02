//! Computes the difference between two renderings of a page, which `/console/events` sends instead
//! of whole pages.
//!
//! A part is an outermost element of `<main>` with an id; the unread counts of the navigation are
//! parts too. Rows of a `<tbody data-rows>` are compared individually, so that a single changed call
//! of a thousand is sent alone. The parser handles only the console's own templates, which close
//! all elements and escape user data. `console/assets/live.js` applies the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::{Value, json};

/// Digests of a rendering.
#[derive(Debug, Default)]
pub(super) struct Snapshot(BTreeMap<String, Part>);

#[derive(Debug, Default)]
struct Part {
    /// Digest of everything but the rows.
    digest: u64,
    rows: Vec<(String, u64)>,
}

/// Kinds of events in `<body data-live>` that concern the page.
pub(super) fn live(html: &str) -> Vec<String> {
    let body =
        html.split_once("<body").and_then(|(_, rest)| rest.split('>').next()).unwrap_or_default();
    attribute(body, "data-live")
        .unwrap_or_default()
        .split(' ')
        .filter(|k| !k.is_empty())
        .map(str::to_owned)
        .collect()
}

impl Snapshot {
    /// Digests of a new rendering, and the difference from this one. `None` if nothing changed.
    pub(super) fn next(&self, html: &str) -> (Self, Option<Value>) {
        let (mut parts, mut rows, mut now) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (id, text) in elements(html) {
            let (before, body, after) = split_rows(text);
            let list: Vec<_> = each_row(body).collect();
            let part = Part {
                digest: digest(&[before, after]),
                rows: list.iter().map(|(id, text)| ((*id).to_owned(), digest(&[text]))).collect(),
            };
            match self.0.get(id) {
                Some(old) if old.digest == part.digest => {
                    rows.extend(moves(id, &old.rows, &part.rows, &list))
                }
                _ => parts.push(text),
            }
            now.insert(id.to_owned(), part);
        }
        let changed = !(parts.is_empty() && rows.is_empty());
        (Self(now), changed.then(|| json!({"parts": parts, "rows": rows})))
    }
}

/// The difference of two lists: removed rows, and rows to insert after others.
fn moves(
    id: &str,
    old: &[(String, u64)],
    now: &[(String, u64)],
    list: &[(&str, &str)],
) -> Option<Value> {
    let here: BTreeSet<&str> = now.iter().map(|(id, _)| id.as_str()).collect();
    let gone: Vec<&str> =
        old.iter().map(|(id, _)| id.as_str()).filter(|id| !here.contains(id)).collect();
    let was: BTreeMap<&str, u64> = old.iter().map(|(id, digest)| (id.as_str(), *digest)).collect();
    let mut staying =
        old.iter().map(|(id, _)| id.as_str()).filter(|id| here.contains(id)).peekable();
    // Rows that were inserted elsewhere before their old position was reached.
    let mut moved = BTreeSet::new();
    let mut put = Vec::new();
    let mut after = "";
    for ((row, digest), (_, text)) in now.iter().zip(list) {
        while staying.next_if(|id| moved.contains(id)).is_some() {}
        let in_place = staying.next_if(|id| id == row).is_some();
        if !in_place {
            moved.insert(row.as_str());
        }
        if !in_place || was.get(row.as_str()) != Some(digest) {
            put.push(json!([after, text]));
        }
        after = row;
    }
    (!gone.is_empty() || !put.is_empty()).then(|| json!({"in": id, "gone": gone, "put": put}))
}

fn digest(texts: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    texts.hash(&mut hasher);
    hasher.finish()
}

/// Splits an element into the text before its rows, the rows, and the text after them. Without
/// rows, all text comes first.
fn split_rows(text: &str) -> (&str, &str, &str) {
    let begin = text.find("<tbody data-rows>").map(|at| at + "<tbody data-rows>".len());
    let Some(begin) = begin else { return (text, "", "") };
    let end = text
        .get(begin..)
        .and_then(|rest| rest.find("</tbody>"))
        .map_or(text.len(), |at| begin + at);
    (
        text.get(..begin).unwrap_or_default(),
        text.get(begin..end).unwrap_or_default(),
        text.get(end..).unwrap_or_default(),
    )
}

fn each_row(body: &str) -> impl Iterator<Item = (&str, &str)> {
    body.split_inclusive("</tr>").filter_map(|text| {
        let text = text.get(text.find("<tr")?..)?;
        Some((attribute(text.split('>').next()?, "id")?, text))
    })
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
    rest.split('"').next()
}

/// HTML elements without an end tag.
const VOID: &[&str] =
    &["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"];

/// Ids and texts of the parts of a page, in order.
fn elements(html: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for id in ["unread-inbox", "unread"] {
        let at = html.find(&format!("<span class=\"count\" id=\"{id}\""));
        let rest = at.and_then(|at| html.get(at..));
        let text = rest.and_then(|rest| rest.split_inclusive("</span>").next());
        found.extend(text.map(|text| (id, text)));
    }
    let begin = html.find("<main").unwrap_or(html.len());
    let inside = html.get(begin..).unwrap_or_default();
    // Nesting depth in the current part.
    let (mut depth, mut part) = (0_usize, None);
    for (at, _) in inside.match_indices('<').skip(1) {
        let Some(rest) = inside.get(at..) else { break };
        let Some(tag) = tag(rest) else { continue };
        let name = tag
            .trim_start_matches(['<', '/'])
            .split([' ', '>', '/', '\n'])
            .next()
            .unwrap_or_default();
        let (closes, single) = (tag.starts_with("</"), tag.ends_with("/>") || VOID.contains(&name));
        if closes && name == "main" {
            break;
        }
        match &mut part {
            None if !closes && !single => {
                if let Some(id) = attribute(tag, "id") {
                    (part, depth) = (Some((id, at)), 1);
                }
            }
            Some((id, begun)) if closes => {
                depth -= 1;
                if depth == 0 {
                    found.extend(inside.get(*begun..at + tag.len()).map(|text| (*id, text)));
                    part = None;
                }
            }
            Some(_) if !single => depth += 1,
            _ => {}
        }
    }
    found
}

/// The tag at the start of a text, up to its `>`. A `>` in an attribute value does not end it.
fn tag(text: &str) -> Option<&str> {
    if text.starts_with("<!") {
        return None;
    }
    let mut quoted = false;
    let end = text.bytes().position(|byte| {
        quoted ^= byte == b'"';
        byte == b'>' && !quoted
    })?;
    text.get(..=end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(rows: &[(&str, &str)], count: usize) -> String {
        let rows: String = rows
            .iter()
            .map(|(id, text)| format!("\n<tr id=\"{id}\"><td>{text}<br></td></tr>"))
            .collect();
        format!(
            "<body data-csrf=\"x\" data-live=\"call number\"><span class=\"count\" id=\"unread-inbox\">2</span><span class=\"count\" id=\"unread\" hidden>0</span><main id=\"main\">\
             <header><h1>Calls</h1></header><!-- a <b> --><section><div id=\"head\"><input value=\"a > b\">{count}</div>\
             <div id=\"list\"><svg><path d=\"\"/></svg><table><tbody data-rows>{rows}</tbody></table></div></section></main>"
        )
    }

    /// Applies a difference as a browser does.
    fn apply(list: &[(&str, &str)], diff: &Value) -> Vec<(String, String)> {
        let mut list: Vec<_> =
            list.iter().map(|(id, text)| ((*id).to_owned(), (*text).to_owned())).collect();
        for part in diff["rows"].as_array().into_iter().flatten() {
            list.retain(|(id, _)| !part["gone"].as_array().unwrap().iter().any(|gone| gone == id));
            for put in part["put"].as_array().unwrap() {
                let (id, text) = each_row(put[1].as_str().unwrap()).next().unwrap();
                let text =
                    text.split("<td>").nth(1).and_then(|rest| rest.split('<').next()).unwrap();
                list.retain(|(other, _)| other != id);
                let after = put[0].as_str().unwrap();
                let at = list.iter().position(|(other, _)| other == after).map_or(0, |at| at + 1);
                list.insert(at, (id.to_owned(), text.to_owned()));
            }
        }
        list
    }

    #[test]
    fn splits_a_page_into_parts() {
        let html = page(&[("a", "1")], 3);
        let ids: Vec<_> = elements(&html).iter().map(|(id, _)| *id).collect();
        assert_eq!(
            (ids, live(&html)),
            (
                vec!["unread-inbox", "unread", "head", "list"],
                vec!["call".to_owned(), "number".to_owned()]
            )
        );
        assert!(elements("").is_empty() && live("<p>").is_empty());
        assert_eq!(elements("<main><p id=\"x\">open").len(), 0, "an unclosed element is no part");
    }

    #[test]
    fn sends_only_changes() {
        let rows: Vec<_> = (0..1_000).map(|n| format!("r{n}")).collect();
        let rows: Vec<_> = rows.iter().map(|id| (id.as_str(), "1")).collect();
        let (shown, first) = Snapshot::default().next(&page(&rows, 3));
        assert_eq!(first.unwrap()["parts"].as_array().unwrap().len(), 4, "at first all of it");
        let (shown, same) = shown.next(&page(&rows, 3));
        assert_eq!(same, None);
        let mut other = rows.clone();
        other[500].1 = "2";
        let (_, diff) = shown.next(&page(&other, 4));
        let diff = diff.unwrap();
        assert_eq!(diff["parts"].as_array().unwrap().len(), 1, "the count");
        assert_eq!(
            diff["rows"][0]["put"],
            json!([["r499", "<tr id=\"r500\"><td>2<br></td></tr>"]])
        );
        let (_, diff) = shown.next(&page(&[], 3));
        assert_eq!(diff.unwrap()["rows"][0]["gone"].as_array().unwrap().len(), 1_000);
    }

    #[test]
    fn any_list_becomes_any_other() {
        let lists: &[&[(&str, &str)]] = &[
            &[],
            &[("a", "1")],
            &[("a", "1"), ("b", "1"), ("c", "1")],
            &[("c", "1"), ("a", "1"), ("b", "1")],
            &[("b", "1"), ("c", "2"), ("a", "1")],
            &[("x", "1"), ("c", "1"), ("y", "1"), ("a", "3")],
            &[("c", "1"), ("b", "1"), ("a", "1")],
        ];
        for old in lists {
            for new in lists {
                let (shown, _) = Snapshot::default().next(&page(old, 1));
                let diff = shown.next(&page(new, 1)).1.unwrap_or_default();
                let wanted: Vec<_> =
                    new.iter().map(|(id, text)| ((*id).to_owned(), (*text).to_owned())).collect();
                assert_eq!(apply(old, &diff), wanted, "{old:?} to {new:?}: {diff}");
            }
        }
    }
}
