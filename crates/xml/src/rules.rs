//! The rules a document is held to (`plivo-xml.md` §2.1), as a table: what a finding's `rule` means in one line.

use super::ast::Severity;

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `E101` … `W407`.
    pub id: &'static str,
    /// What it is about, in one line.
    pub meaning: &'static str,
}

impl Rule {
    /// `E…` refuses a document, `W…` does not.
    pub fn severity(self) -> Severity {
        if self.id.starts_with('E') { Severity::Error } else { Severity::Warning }
    }
}

/// The rule of that id, if there is one.
pub fn rule(id: &str) -> Option<Rule> {
    ALL.iter().copied().find(|rule| rule.id == id)
}

macro_rules! rules {
    ($($id:ident $meaning:literal)*) => {
        $(#[doc = $meaning] pub(super) const $id: Rule = Rule { id: stringify!($id), meaning: $meaning };)*
        /// Every rule, errors first.
        pub const ALL: &[Rule] = &[$($id),*];
    };
}

rules! {
    E101 "body larger than the limit (102,400 bytes)"
    E102 "encoding unsupported or contradictory, or a byte that cannot be decoded"
    E103 "not well-formed XML"
    E104 "DOCTYPE present"
    E105 "too deep, too many elements or attributes"
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
    W302 "value in unusual letter case: accepted"
    W303 "empty attribute value: treated as absent"
    W304 "text where none belongs: ignored"
    W305 "Hangup with schedule and no element after it"
    W306 "Speak with nothing to say"
    W307 "element never reached"
    W308 "Response without elements: hangs up"
    W309 "PreAnswer after the call is answered: no effect"
    W310 "value outside Plivo's documented list: accepted"
    W311 "URL without encryption"
    W312 "attribute has no effect beside the others"
    W313 "SSML with a voice that is not Polly"
    W401 "phone network not reachable"
    W402 "PreAnswer media cannot be heard on WhatsApp"
    W403 "SIP address: reaches only this platform's own endpoints"
    W404 "Message: no SMS"
    W405 "callerId is no business number with calling enabled"
    W406 "SSML without effect on the engine that says it"
    W407 "speech input in a language that nobody understands"
}
