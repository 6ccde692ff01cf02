//! The rules explained: what each asks for, why, a document that breaks it and one that keeps it.
//!
//! For `offhook xml check --explain RULE` and the rule descriptions of SARIF. A test holds every example against the
//! linter, so that no explanation says what the linter does not do.

mod errors;
mod warnings;

use super::rules::Rule;

/// A rule, explained.
#[derive(Clone, Copy, Debug)]
pub struct Explanation {
    pub rule: Rule,
    /// What it asks for, with its figures.
    pub what: &'static str,
    /// What happens otherwise, and what to do.
    pub why: &'static str,
    /// Breaks the rule.
    pub wrong: Example,
    /// The same, as it was meant: the linter has nothing to say about it.
    pub right: Example,
}

/// A document in an explanation.
#[derive(Clone, Copy, Debug)]
pub struct Example {
    /// As it is shown.
    pub text: &'static str,
    /// How many characters a `…` in it stands for; 0: it is whole.
    filled: usize,
}

impl Example {
    const fn whole(text: &'static str) -> Self {
        Self { text, filled: 0 }
    }

    const fn filled(text: &'static str, filled: usize) -> Self {
        Self { text, filled }
    }

    /// The document, what was left out put in.
    pub fn document(&self) -> String {
        match self.filled {
            0 => self.text.to_owned(),
            filled => self.text.replacen('…', &"a".repeat(filled), 1),
        }
    }
}

/// The explanation of a rule, by its id in any letter case.
pub fn explanation(id: &str) -> Option<Explanation> {
    all().find(|e| e.rule.id.eq_ignore_ascii_case(id))
}

/// All of them, in the order of [`super::rules::ALL`].
pub fn all() -> impl Iterator<Item = Explanation> {
    errors::ALL.iter().chain(warnings::ALL).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{all, explanation};
    use crate::ast::{Finding, SsmlTag};
    use crate::{Abilities, beyond, own_callers, parse, rules};

    /// The findings of an example, with those that need to know the business numbers and the engines.
    fn judged(document: &str) -> Vec<Finding> {
        let mut parsed = parse(document.as_bytes(), None);
        own_callers(&mut parsed, &BTreeSet::from(["918035737458".to_owned()]));
        let abilities = Abilities {
            says: &|_, _, tag| !matches!(tag, SsmlTag::Phoneme | SsmlTag::W),
            understands: &|language| language == "en-US",
        };
        beyond(&mut parsed, &abilities);
        parsed.findings
    }

    #[test]
    fn every_rule_is_explained_and_its_examples_are_as_they_say() {
        let explained: Vec<_> = all().map(|e| e.rule.id).collect();
        let rules: Vec<_> = rules::ALL.iter().map(|rule| rule.id).collect();
        assert_eq!(explained, rules);
        for e in all() {
            let id = e.rule.id;
            let wrong = judged(&e.wrong.document());
            let found: Vec<_> = wrong.iter().map(|f| f.rule.as_str()).collect();
            assert_eq!(found, [id], "{id}: the wrong example breaks this rule and no other");
            let right = judged(&e.right.document());
            assert_eq!(right, [], "{id}: the right example is clean");
            for text in [e.what, e.why] {
                assert!(text.ends_with('.') && text.len() > 20, "{id}: {text}");
            }
        }
    }

    #[test]
    fn rules_are_found_in_any_case() {
        assert_eq!(explanation("e311").map(|e| e.rule.id), Some("E311"));
        assert!(explanation("E999").is_none());
    }
}
