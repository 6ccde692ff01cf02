//! Coverage of the product's checklist (S0 settings of a number, S2 numbers, S3 the inbox, S4
//! message routing): every row has a test with its id in the name (`s4_09_…`, or several:
//! `s0_08_s0_09_…`), or is listed below with a reason.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Rows about a page's appearance, checked by people or by the console's own tests.
const PAGES: &[(&str, &str)] = &[
    ("s0_01", "where the panel opens"),
    ("s0_30", "a page's question about what was not saved"),
    ("s2_04", "a cell of the table"),
    ("s2_16", "a column of the table; what it sets is s2_17 and s2_19"),
    ("s2_23", "texts of help"),
    ("s2_24", "texts of help"),
    ("s2_26", "that a page does not freeze; its state is s2_09's"),
    ("s3_01", "a page's path"),
    ("s3_04", "what an empty page says"),
    ("s3_05", "a page's button; what it does is s3_10 and s3_12"),
    ("s3_14", "how a page edits"),
    ("s3_29", "texts of hints"),
];

/// The number of rows in each part.
const PARTS: &[(u8, u8)] = &[(0, 30), (2, 26), (3, 30), (4, 20)];

/// Collects the ids in the names of test functions: both of `fn s0_08_s0_09_urls()`.
fn named(folder: &Path, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            named(&path, into);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let text = fs::read_to_string(&path).expect("text");
            for rest in text.split("fn ").skip(1) {
                let name = rest.split('(').next().unwrap_or_default();
                let words: Vec<&str> = name.split('_').collect();
                for pair in words.windows(2) {
                    let part = pair[0].strip_prefix('s').filter(|part| part.len() == 1);
                    let is_row = pair[1].len() == 2 && pair[1].bytes().all(|b| b.is_ascii_digit());
                    if is_row && part.is_some_and(|part| part.bytes().all(|b| b.is_ascii_digit())) {
                        into.insert(format!("{}_{}", pair[0], pair[1]));
                    }
                }
            }
        }
    }
}

#[test]
fn every_row_has_a_test_or_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    named(&root.join("src"), &mut found);
    named(&root.join("crates"), &mut found);
    named(&root.join("tests"), &mut found);
    let all: BTreeSet<String> = PARTS
        .iter()
        .flat_map(|(part, rows)| (1..=*rows).map(move |row| format!("s{part}_{row:02}")))
        .collect();
    let excused: BTreeSet<String> = PAGES.iter().map(|(row, _)| (*row).to_owned()).collect();
    let without: Vec<&String> =
        all.iter().filter(|row| !found.contains(*row) && !excused.contains(*row)).collect();
    assert!(without.is_empty(), "no test has {without:?} in its name");
    let unknown: Vec<&String> = found
        .iter()
        .chain(&excused)
        .filter(|row| {
            !all.contains(*row)
                && PARTS.iter().any(|(part, _)| row.starts_with(&format!("s{part}_")))
        })
        .collect();
    assert!(unknown.is_empty(), "there are no rows {unknown:?}");
}
