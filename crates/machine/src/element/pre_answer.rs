//! `PreAnswer`: what may happen while the phone rings (`plivo-xml.md` §5.12, §6).
//!
//! Meta lets no audio through before `accept`: of its children `Wait`, `Redirect` and `Message` do what they do
//! anywhere, the others are skipped. So there is nothing to start here, only reasons to give.

/// Of a child that nobody could hear or answer.
pub(super) const UNHEARD: &str = "WhatsApp carries no audio before the call is answered";

/// Of a `PreAnswer` on an answered call (W309).
pub(super) const LATE: &str = "the call is answered already";
