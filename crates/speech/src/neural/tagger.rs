//! The parts of speech of English words: an averaged perceptron with Penn Treebank tags. The
//! lexicon needs them for words such as "read", "live" and "record".

use super::table::Table;

const START: [&str; 2] = ["-START2-", "-START-"];
const END: [&str; 2] = ["-END-", "-END2-"];

/// Returns the tag of each word.
pub(super) fn tag(words: &[&str], table: &Table) -> Vec<String> {
    let known = |word: &str| {
        let normal = normalised(word);
        let key = format!("v:{normal}");
        if table.get(&key).is_some() { normal } else { format!("<{}>", shape(word)) }
    };
    let context: Vec<String> = START
        .iter()
        .map(|s| (*s).to_owned())
        .chain(words.iter().map(|word| known(word)))
        .chain(END.iter().map(|s| (*s).to_owned()))
        .collect();
    let mut tags: Vec<String> = Vec::with_capacity(words.len());
    for (index, word) in words.iter().enumerate() {
        let tag = match table.get(&format!("d:{word}")) {
            Some(tag) => tag.to_owned(),
            None => {
                let before =
                    |n: usize| index.checked_sub(n).and_then(|at| tags.get(at)).map(String::as_str);
                let previous = before(1).unwrap_or("-START-");
                let second = before(2).unwrap_or(if index == 0 { "-START2-" } else { "-START-" });
                predict(&features(index, word, &context, previous, second), table)
            }
        };
        tags.push(tag);
    }
    tags
}

fn predict(features: &[String], table: &Table) -> String {
    let mut scores: Vec<(&str, f64)> = Vec::new();
    for feature in features {
        let Some(weights) = table.get(&format!("f:{feature}")) else { continue };
        let mut fields = weights.split(' ');
        while let (Some(tag), Some(weight)) = (fields.next(), fields.next()) {
            let weight: f64 = weight.parse().unwrap_or_default();
            match scores.iter_mut().find(|(found, _)| *found == tag) {
                Some((_, score)) => *score += weight,
                None => scores.push((tag, weight)),
            }
        }
    }
    scores
        .into_iter()
        .max_by(|(a, x), (b, y)| x.total_cmp(y).then(a.cmp(b)))
        .map_or_else(|| "NN".to_owned(), |(tag, _)| tag.to_owned())
}

fn features(
    index: usize,
    word: &str,
    context: &[String],
    previous: &str,
    second: &str,
) -> Vec<String> {
    let at = |offset: usize| context.get(index + offset).map_or("", String::as_str);
    let first = word.chars().next().map(String::from).unwrap_or_default();
    vec![
        "b".to_owned(),
        format!("s3={}", last_three(word)),
        format!("p1={first}"),
        format!("w={}", at(2)),
        format!("sh={}", shape(word)),
        if index == 0 { "i0" } else { "i+" }.to_owned(),
        format!("t-1={previous}"),
        format!("t-2={second}"),
        format!("t-12={previous},{second}"),
        format!("w-1={}", at(1)),
        format!("s3-1={}", last_three(at(1))),
        format!("w-2={}", at(0)),
        format!("w+1={}", at(3)),
        format!("s3+1={}", last_three(at(3))),
        format!("w+2={}", at(4)),
    ]
}

fn last_three(word: &str) -> &str {
    let start = word.char_indices().rev().nth(2).map_or(0, |(at, _)| at);
    word.get(start..).unwrap_or(word)
}

fn normalised(word: &str) -> String {
    let digits = word.chars().all(|c| c.is_ascii_digit());
    if word.contains('-') && !word.starts_with('-') {
        "!HYPHEN".to_owned()
    } else if digits && word.len() == 4 {
        "!YEAR".to_owned()
    } else if word.starts_with(|c: char| c.is_ascii_digit()) {
        "!DIGITS".to_owned()
    } else {
        word.to_lowercase()
    }
}

fn shape(word: &str) -> String {
    let upper = |c: char| c.is_uppercase();
    if word.chars().all(char::is_alphabetic) {
        let has_upper = word.contains(upper);
        let has_lower = word.contains(char::is_lowercase);
        let rest_is_lower = word.chars().skip(1).all(char::is_lowercase);
        return match (has_upper, has_lower) {
            (false, true) => "x",
            (true, false) if word.chars().count() > 1 => "XX",
            (true, false) => "X1",
            _ if word.starts_with(upper) && rest_is_lower => "Xx",
            _ => "xX",
        }
        .to_owned();
    }
    if word.chars().all(|c| c.is_ascii_digit()) {
        return "d".to_owned();
    }
    word.chars()
        .take(4)
        .map(|c| match c {
            c if c.is_ascii_digit() => 'd',
            c if c.is_alphabetic() => 'x',
            c => c,
        })
        .collect()
}
