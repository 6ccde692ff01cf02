//! Rule W405, which needs the node's configuration: a WhatsApp `Dial` must use a business number as
//! its caller id. A running call is checked at admission instead.

use std::collections::BTreeSet;

use super::ParseOutcome;
use super::ast::{Element, ElementKind, Finding};
use super::findings::quoted;
use super::rules;
use super::value;

/// Maximum number of business numbers named in a hint.
const MAX_HINT_NUMBERS: usize = 3;

/// Adds W405 for each `Dial` with `callType="whatsapp"` and a `callerId` outside `own_numbers`
/// (E.164 digits), in document order. Does nothing if the document has an error, since it will not
/// run.
pub fn check_caller_ids(outcome: &mut ParseOutcome, own_numbers: &BTreeSet<String>) {
    let Some(document) = outcome.document.clone() else { return };
    for element in &document.elements {
        if let Some(finding) = check_dial(element, own_numbers) {
            outcome.insert(finding);
        }
    }
}

fn check_dial(element: &Element, own_numbers: &BTreeSet<String>) -> Option<Finding> {
    let ElementKind::Dial(dial) = &element.kind else { return None };
    let caller = dial.caller_id.as_deref().filter(|_| dial.whatsapp)?;
    if value::phone(caller).is_ok_and(|digits| own_numbers.contains(&digits)) {
        return None;
    }
    let numbers: Vec<&str> =
        own_numbers.iter().take(MAX_HINT_NUMBERS).map(String::as_str).collect();
    let hint = match numbers.as_slice() {
        [] => "enable calling on a business number first".to_owned(),
        numbers => format!("use one of your business numbers: {}", numbers.join(", ")),
    };
    Some(Finding {
        rule: rules::W405.id.to_owned(),
        severity: rules::W405.severity(),
        at: element.at,
        message: format!(
            "callerId={} is not a business number with calling enabled",
            quoted(caller)
        ),
        hint,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::check_caller_ids;
    use crate::parse;

    /// Rule and line of each finding.
    fn findings(inner: &str, own_numbers: &[&str]) -> Vec<(String, u32)> {
        let mut outcome = parse(format!("<Response>\n{inner}\n</Response>").as_bytes(), None);
        let own_numbers: BTreeSet<_> = own_numbers.iter().map(|n| (*n).to_owned()).collect();
        check_caller_ids(&mut outcome, &own_numbers);
        outcome.findings.into_iter().map(|f| (f.rule, f.at.line)).collect()
    }

    #[test]
    fn compares_caller_ids_by_their_digits() {
        let dial = |caller: &str| {
            format!(
                "<Dial callType=\"whatsapp\" callerId=\"{caller}\"><User>919412341234</User></Dial>"
            )
        };
        let own = ["918035737458"];
        assert_eq!(findings(&dial("+91 80-3573 7458"), &own), []);
        assert_eq!(findings(&dial("918035737459"), &own), [("W405".to_owned(), 2)]);
        assert_eq!(findings(&dial("918035737458"), &[]), [("W405".to_owned(), 2)]);
        // The caller id of a call to a SIP address may be any text.
        let sip = "<Dial callerId=\"Asha\"><User>sip:asha@calls.example.com</User></Dial>";
        assert_eq!(findings(sip, &own), [("W403".to_owned(), 2)]);
        // Findings stay in document order.
        let three = format!("<Speak/>\n{}\n<Speak/>", dial("919412341234"));
        assert_eq!(
            findings(&three, &own),
            [("W306".to_owned(), 2), ("W405".to_owned(), 3), ("W306".to_owned(), 4)]
        );
        // A document with an error is not checked.
        assert_eq!(
            findings(&format!("<Play/>{}", dial("919412341234")), &own),
            [("E205".to_owned(), 2)]
        );
    }
}
