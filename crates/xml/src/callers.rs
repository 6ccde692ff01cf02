//! The one rule that a document alone can't be held to: whether a WhatsApp `Dial` calls in the name of one of our
//! business numbers. For whoever knows them; a call meets the same at its admission.

use std::collections::BTreeSet;

use super::Parsed;
use super::ast::{Element, ElementKind, Finding};
use super::findings::quoted;
use super::rules;
use super::value;

/// Numbers that a hint names at most.
const NAMED: usize = 3;

/// W405 for each `Dial` with `callType="whatsapp"` whose callerId is none of `own` (E.164 digits), put where it belongs
/// among the findings. A document with an error is not looked at: nothing of it runs.
pub fn own_callers(parsed: &mut Parsed, own: &BTreeSet<String>) {
    let Some(document) = parsed.document.clone() else { return };
    for element in &document.elements {
        if let Some(finding) = not_own(element, own) {
            let place = parsed
                .findings
                .iter()
                .position(|f| f.at > finding.at)
                .unwrap_or(parsed.findings.len());
            parsed.findings.insert(place, finding);
        }
    }
}

fn not_own(element: &Element, own: &BTreeSet<String>) -> Option<Finding> {
    let ElementKind::Dial(dial) = &element.kind else { return None };
    let caller = dial.caller_id.as_deref().filter(|_| dial.whatsapp)?;
    if value::phone(caller).is_ok_and(|digits| own.contains(&digits)) {
        return None;
    }
    let names: Vec<&str> = own.iter().take(NAMED).map(String::as_str).collect();
    let hint = match names.as_slice() {
        [] => "there is no business number with calling enabled yet".to_owned(),
        names => format!("name one of yours: {}", names.join(", ")),
    };
    Some(Finding {
        rule: rules::W405.id.to_owned(),
        severity: rules::W405.severity(),
        at: element.at,
        message: format!("callerId={} is no business number with calling enabled", quoted(caller)),
        hint,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::own_callers;
    use crate::parse;

    fn found(inner: &str, own: &[&str]) -> Vec<(String, u32)> {
        let mut parsed = parse(format!("<Response>\n{inner}\n</Response>").as_bytes(), None);
        own_callers(&mut parsed, &own.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>());
        parsed.findings.into_iter().map(|f| (f.rule, f.at.line)).collect()
    }

    #[test]
    fn callers_are_looked_up_by_their_digits() {
        let dial = |caller: &str| {
            format!(
                "<Dial callType=\"whatsapp\" callerId=\"{caller}\"><User>919412341234</User></Dial>"
            )
        };
        let own = ["918035737458"];
        assert_eq!(found(&dial("+91 80-3573 7458"), &own), []);
        assert_eq!(found(&dial("918035737459"), &own), [("W405".to_owned(), 2)]);
        assert_eq!(found(&dial("918035737458"), &[]), [("W405".to_owned(), 2)]);
        // A SIP address is called in any name.
        let sip = "<Dial callerId=\"Asha\"><User>sip:asha@calls.example.com</User></Dial>";
        assert_eq!(found(sip, &own), [("W403".to_owned(), 2)]);
        // With its place among the others.
        let three = format!("<Speak/>\n{}\n<Speak/>", dial("919412341234"));
        let rules = found(&three, &own);
        assert_eq!(rules, [("W306".to_owned(), 2), ("W405".to_owned(), 3), ("W306".to_owned(), 4)]);
        // Nothing of it runs.
        assert_eq!(
            found(&format!("<Play/>{}", dial("919412341234")), &own),
            [("E205".to_owned(), 2)]
        );
    }
}
