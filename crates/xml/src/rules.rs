//! The rules of the validator, each with its code and a one-line summary.

use super::ast::Severity;

/// A rule of the validator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The rule's code, `E101` to `W407`.
    pub id: &'static str,
    /// A description of the violation, in one line.
    pub meaning: &'static str,
}

impl Rule {
    /// Returns the severity of findings of this rule. Codes in `E` are errors, codes in `W`
    /// warnings.
    pub fn severity(self) -> Severity {
        if self.id.starts_with('E') { Severity::Error } else { Severity::Warning }
    }
}

/// Returns the rule with this code, or `None` if there is none.
pub fn rule(id: &str) -> Option<Rule> {
    ALL.iter().copied().find(|rule| rule.id == id)
}

macro_rules! rules {
    ($($id:ident $meaning:literal)*) => {
        $(#[doc = $meaning] pub(super) const $id: Rule = Rule { id: stringify!($id), meaning: $meaning };)*
        /// All rules, errors first.
        pub const ALL: &[Rule] = &[$($id),*];
    };
}

rules! {
    E101 "body larger than the limit (102,400 bytes)"
    E102 "encoding unsupported or contradictory, or a byte that cannot be decoded"
    E103 "not well-formed XML"
    E104 "DOCTYPE present"
    E105 "elements nested too deep, too many elements, or too many attributes"
    E106 "processing instruction"
    E201 "root is not Response"
    E202 "unknown element"
    E203 "known element in the wrong parent"
    E205 "required body missing"
    E206 "Dial with no Number or User, or with more than 20"
    E301 "value of the wrong type, form or range"
    E302 "required attribute missing"
    E303 "attributes contradict each other"
    E304 "Speak text longer than 3,000 characters"
    E311 "URL not absolute http or https (ws or wss for Stream)"
    E312 "method neither GET nor POST"
    E401 "callType whatsapp without callerId"
    E402 "dial target empty or of the wrong form"
    W301 "unknown attribute: ignored"
    W302 "value in unusual letter case or order: accepted"
    W303 "empty attribute value: treated as absent"
    W304 "text where no text is allowed: ignored"
    W305 "Hangup with schedule and no element after it"
    W306 "Speak with nothing to say"
    W307 "element never reached"
    W308 "Response without elements: hangs up"
    W309 "PreAnswer after the call is answered: no effect"
    W310 "value outside Plivo's documented list: accepted"
    W311 "URL without encryption"
    W312 "attribute has no effect in this combination"
    W313 "SSML with a voice that is not Polly"
    W401 "phone network not reachable"
    W402 "PreAnswer media cannot be heard on WhatsApp"
    W403 "SIP address: only endpoints of this platform are reachable"
    W404 "Message is skipped: Offhook sends no SMS"
    W405 "callerId is not a business number with calling enabled"
    W406 "SSML that the speech engine does not support"
    W407 "speech input in a language that no recogniser understands"
}
