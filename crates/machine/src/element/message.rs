//! `Message`: an SMS in Plivo's world, nothing here (`plivo-xml.md` §5.12, W404).

/// Why it is skipped.
pub(super) const WHY: &str = "there is no SMS on this platform";
