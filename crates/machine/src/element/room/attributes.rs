//! The attributes of `MultiPartyCall`, which the parser returns as text.

use model::Method;
use xml::ast::{DocUrl, MemberSound, MultiPartyCall, Target};

/// Attributes that the parser has validated.
pub(super) struct Attributes<'a>(&'a [(String, String)]);

impl<'a> Attributes<'a> {
    pub(super) fn of(call: &'a MultiPartyCall) -> Self {
        Self(&call.attributes)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, text)| text.as_str())
    }

    pub(super) fn flag(&self, name: &str, otherwise: bool) -> bool {
        self.text(name).map_or(otherwise, |text| text.eq_ignore_ascii_case("true"))
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// Returns the URL in the attribute `url` with the method in the attribute `method`, or with
    /// `otherwise` if that is absent. `None` without a URL.
    pub(super) fn target(&self, url: &str, method: &str, otherwise: Method) -> Option<Target> {
        let url = DocUrl(self.text(url)?.into());
        Some(Target { url, method: self.method(method, otherwise) })
    }

    fn method(&self, name: &str, otherwise: Method) -> Method {
        match self.text(name) {
            Some(text) if text.eq_ignore_ascii_case("GET") => Method::Get,
            Some(_) => Method::Post,
            None => otherwise,
        }
    }

    pub(super) fn sound(&self, name: &str, method: &str, beeps: u8) -> MemberSound {
        match self.text(name).map(str::to_ascii_lowercase).as_deref() {
            None => MemberSound::Beep(beeps),
            Some("beep:1") => MemberSound::Beep(1),
            Some("beep:2") => MemberSound::Beep(2),
            Some("none" | "") => MemberSound::None,
            Some(_) => self
                .target(name, method, Method::Get)
                .map_or(MemberSound::None, MemberSound::Document),
        }
    }
}
