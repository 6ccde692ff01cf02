//! Links and citations lead somewhere: relative links of all pages with their anchors, pages cited by code, and file
//! names in ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Folders without our own texts.
const SKIPPED: &[&str] = &["target", ".git", "node_modules", "test-venv", "offhook-data"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Collects the files below `folder` whose names end in one of `endings`.
fn files(folder: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !SKIPPED.contains(&name.as_str()) {
                files(&path, endings, found);
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
}

/// The Markdown pages by their path from the root, with the anchors of each.
fn pages() -> BTreeMap<PathBuf, (String, BTreeSet<String>)> {
    let mut paths = Vec::new();
    files(root(), &[".md"], &mut paths);
    let page = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("text");
        let anchors = anchors(&text);
        (path.strip_prefix(root()).expect("below the root").to_owned(), (text, anchors))
    };
    paths.into_iter().map(page).collect()
}

/// A page's lines outside code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The anchors of headings, as GitHub and mdBook make them, and explicit ones.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in prose(text) {
        if line.starts_with('#') {
            let slug: String = line
                .trim_start_matches('#')
                .trim()
                .chars()
                .filter_map(|c| match c {
                    ' ' => Some('-'),
                    '-' | '_' => Some(c),
                    c if c.is_alphanumeric() => Some(c.to_ascii_lowercase()),
                    _ => None,
                })
                .collect();
            anchors.insert(slug);
        }
        for id in line.split("<a id=\"").skip(1) {
            anchors.extend(id.split('"').next().map(str::to_owned));
        }
    }
    anchors
}

/// `a/b/../c` → `a/c`.
fn normalised(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}

/// Describes what is wrong with a link from a page. `None` if its target exists.
fn fault(
    pages: &BTreeMap<PathBuf, (String, BTreeSet<String>)>,
    from: &Path,
    link: &str,
) -> Option<String> {
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = match file {
        "" => from.to_owned(),
        file => normalised(&from.parent().unwrap_or(Path::new("")).join(file)),
    };
    if !root().join(&target).exists() {
        return Some(format!("{} does not exist", target.display()));
    }
    let (_, anchors) = pages.get(&target)?;
    (!anchor.is_empty() && !anchors.contains(anchor))
        .then(|| format!("{} has no anchor #{anchor}", target.display()))
}

#[test]
fn links_of_pages_lead_somewhere() {
    let pages = pages();
    let mut faults = Vec::new();
    for (path, (text, _)) in &pages {
        for line in prose(text) {
            for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let link = link.trim_matches(|c| c == '<' || c == '>');
                if link.contains("://") || link.starts_with("mailto:") {
                    continue;
                }
                faults.extend(
                    fault(&pages, path, link).map(|why| format!("{}: {why}", path.display())),
                );
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn pages_of_the_book_are_in_its_table_of_contents() {
    let summary = fs::read_to_string(root().join("docs/SUMMARY.md")).expect("the table");
    let mut paths = Vec::new();
    files(&root().join("docs"), &[".md"], &mut paths);
    for path in paths {
        let page = path.strip_prefix(root().join("docs")).expect("a page").to_string_lossy();
        let is_listed = summary.contains(&format!("({page})"));
        assert!(page == "SUMMARY.md" || is_listed, "docs/SUMMARY.md does not list {page}");
    }
}

#[test]
fn citations_in_code_lead_somewhere() {
    let pages = pages();
    let mut paths = Vec::new();
    for folder in ["src", "crates", "tests", "benches", "examples", "fuzz", "console", "deploy"] {
        let endings =
            [".rs", ".js", ".html", ".toml", ".service", ".css", ".yml", ".yaml", ".json"];
        files(&root().join(folder), &endings, &mut paths);
    }
    let mut faults = BTreeSet::new();
    for path in paths {
        let text = fs::read_to_string(&path).expect("text");
        let here = path.strip_prefix(root()).expect("below the root");
        if here == Path::new("tests/docs.rs") {
            continue;
        }
        for (at, _) in text.match_indices(".md") {
            let start = text[..at]
                .rfind(|c: char| !(c.is_ascii_alphanumeric() || "/_-.".contains(c)))
                .map_or(0, |found| found + 1);
            let end = text[at..]
                .find(|c: char| !(c.is_ascii_alphanumeric() || "/_-.#".contains(c)))
                .map_or(text.len(), |length| at + length);
            let link = text[start..end].trim_end_matches('.').trim_start_matches('/');
            if link.starts_with(".md") || !link[..link.len()].contains(".md") {
                continue;
            }
            // From the root, from the file's own folder, or in a text of a generated reference page.
            let places = [Path::new("x"), here, Path::new("docs/reference/x")];
            if places.iter().all(|place| fault(&pages, place, link).is_some()) {
                faults.insert(format!("{}: {link}", here.display()));
            }
        }
    }
    assert!(
        faults.is_empty(),
        "cited pages that do not exist:\n{}",
        faults.into_iter().collect::<Vec<_>>().join("\n")
    );
}

#[test]
fn architecture_names_files_that_exist() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the page");
    let mut faults = BTreeSet::new();
    for name in text.split('`').skip(1).step_by(2) {
        let is_path = name.contains('/')
            && (name.starts_with("src/")
                || name.starts_with("crates/")
                || name.starts_with("tests/"));
        if is_path && !root().join(name).exists() {
            faults.insert(name);
        }
    }
    assert!(faults.is_empty(), "ARCHITECTURE.md names {faults:?}");
    assert!(text.lines().count() <= 100, "ARCHITECTURE.md is longer than 100 lines");
}

#[test]
fn anchors_are_those_of_the_code_hosts() {
    let found =
        anchors("# A `call`, without sound!\n```\n# no\n```\n<a id=\"r17\"></a>\n### R17: x_y");
    let expected = ["a-call-without-sound", "r17", "r17-x_y"].map(str::to_owned);
    assert_eq!(found, BTreeSet::from(expected));
}
