//! Explanations of the rules: the requirement, the reason, and an incorrect and a correct example.
//!
//! `offhook xml check --explain RULE` prints them, and SARIF output contains them. A test runs the
//! linter on every example.

mod errors;
mod warnings;

use super::rules::Rule;

/// The explanation of a rule.
#[derive(Clone, Copy, Debug)]
pub struct Explanation {
    pub rule: Rule,
    /// The requirement of the rule, with its limits.
    pub requirement: &'static str,
    /// The consequence of a violation, and its remedy.
    pub reason: &'static str,
    /// A document that violates only this rule.
    pub incorrect: Example,
    /// The corrected document, without any finding.
    pub correct: Example,
}

/// An example document in an explanation.
#[derive(Clone, Copy, Debug)]
pub struct Example {
    /// The document as printed, which may be abridged with `…`.
    pub text: &'static str,
    /// The number of characters that `…` stands for. Zero if the text is complete.
    omitted: usize,
}

impl Example {
    const fn complete(text: &'static str) -> Self {
        Self { text, omitted: 0 }
    }

    const fn abridged(text: &'static str, omitted: usize) -> Self {
        Self { text, omitted }
    }

    /// The complete document, with the omitted characters filled in.
    pub fn document(&self) -> String {
        match self.omitted {
            0 => self.text.to_owned(),
            omitted => self.text.replacen('…', &"a".repeat(omitted), 1),
        }
    }
}

/// Returns the explanation of the rule with this code, or `None` if there is no such rule. Letter
/// case does not matter.
pub fn explanation(id: &str) -> Option<Explanation> {
    all().find(|e| e.rule.id.eq_ignore_ascii_case(id))
}

/// Iterates over all explanations, in the order of [`super::rules::ALL`].
pub fn all() -> impl Iterator<Item = Explanation> {
    errors::ALL.iter().chain(warnings::ALL).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{all, explanation};
    use crate::ast::{Finding, SsmlTag};
    use crate::{EngineCapabilities, check_caller_ids, check_capabilities, parse, rules};

    /// The findings about an example, including those that depend on business numbers and engines.
    fn findings(document: &str) -> Vec<Finding> {
        let mut outcome = parse(document.as_bytes(), None);
        check_caller_ids(&mut outcome, &BTreeSet::from(["918035737458".to_owned()]));
        let capabilities = EngineCapabilities {
            supports_tag: &|_, _, tag| !matches!(tag, SsmlTag::Phoneme | SsmlTag::W),
            recognises: &|language, _| language == "en-US",
        };
        check_capabilities(&mut outcome, &capabilities);
        outcome.findings
    }

    #[test]
    fn every_rule_has_an_explanation_with_accurate_examples() {
        let explained: Vec<_> = all().map(|e| e.rule.id).collect();
        let rules: Vec<_> = rules::ALL.iter().map(|rule| rule.id).collect();
        assert_eq!(explained, rules);
        for e in all() {
            let id = e.rule.id;
            let incorrect = findings(&e.incorrect.document());
            let rules: Vec<_> = incorrect.iter().map(|f| f.rule.as_str()).collect();
            assert_eq!(rules, [id], "{id}: the incorrect example violates only this rule");
            let correct = findings(&e.correct.document());
            assert_eq!(correct, [], "{id}: the correct example has no finding");
            for text in [e.requirement, e.reason] {
                assert!(text.ends_with('.') && text.len() > 20, "{id}: {text}");
            }
        }
    }

    #[test]
    fn finds_explanations_in_any_letter_case() {
        assert_eq!(explanation("e311").map(|e| e.rule.id), Some("E311"));
        assert!(explanation("E999").is_none());
    }
}
