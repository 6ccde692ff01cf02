//! Cells of CSV files (RFC 4180).

/// Formats a quoted cell.
///
/// Spreadsheets run a text that begins like a formula, so an apostrophe is put before it. One that
/// separates cells otherwise than by commas begins a cell within the text, so the same goes for what
/// follows a semicolon, a tab or a line break.
pub(crate) fn cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len() + 2);
    cell.push('"');
    let mut begins = true;
    for (at, c) in text.char_indices() {
        if begins && is_formula(text.get(at..).unwrap_or_default()) {
            cell.push('\'');
        }
        begins = is_separator(c);
        if c == '"' {
            cell.push('"');
        }
        cell.push(c);
    }
    cell.push('"');
    cell
}

fn is_separator(c: char) -> bool {
    matches!(c, ';' | '\t' | '\r' | '\n')
}

/// Whether a spreadsheet may take the text for a formula. It may skip blanks and quotes before it.
fn is_formula(text: &str) -> bool {
    let is_blank = |c: char| {
        !is_separator(c) && (c.is_whitespace() || matches!(c, '"' | '\u{200b}' | '\u{feff}'))
    };
    let text = text.trim_start_matches(is_blank);
    text.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠'])
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn cells_are_quoted_and_never_formulas() {
        for (text, written) in [
            ("Asha", r#""Asha""#),
            ("", r#""""#),
            ("Verma, Asha \"A\"", r#""Verma, Asha ""A""""#),
            ("two\nlines", "\"two\nlines\""),
            ("1-2", r#""1-2""#),
            ("=1+1", r#""'=1+1""#),
            ("+91", r#""'+91""#),
            ("-1", r#""'-1""#),
            ("@SUM(A1)", r#""'@SUM(A1)""#),
            ("=A1,\"x\"", r#""'=A1,""x""""#),
            (";=HYPERLINK(1)", r#"";'=HYPERLINK(1)""#),
            ("a; =1\t+2\n-3\r@4", "\"a;' =1\t'+2\n'-3\r'@4\""),
            ("a;\"=1", r#""a;'""=1""#),
            ("＝1", r#""'＝1""#),
            ("＋1;－1;＠1", r#""'＋1;'－1;'＠1""#),
            ("\u{a0}=1", "\"'\u{a0}=1\""),
            ("\u{200b}\u{feff}=1", "\"'\u{200b}\u{feff}=1\""),
            ("; ;", r#""; ;""#),
        ] {
            assert_eq!(cell(text), written, "{text:?}");
        }
    }
}
