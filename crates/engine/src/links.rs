//! Signs links to files, so that anyone with a link may read its file until the link expires.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;

use model::Timestamp;

/// Length of a link's HMAC-SHA256 tag in bytes.
const TAG_BYTES: usize = 20;

/// Signs and verifies links. Tags are valid on every node with the same key.
#[derive(Clone, Debug)]
pub struct LinkSigner(hmac::Key);

impl LinkSigner {
    pub fn new(key: hmac::Key) -> Self {
        Self(key)
    }

    /// The query of a link to `file` that is valid up to and including the second `until`, like
    /// `until=1790003600&tag=…`. `file` must not contain spaces, because they would make the signed
    /// text ambiguous.
    pub fn query(&self, file: &str, until: Timestamp) -> String {
        format!("until={}&tag={}", until.secs(), self.tag(file, until.secs()))
    }

    /// Whether the tag is that of this file and time, in Unix seconds, and the time has not passed.
    pub fn is_valid(&self, file: &str, until: i64, tag: &str, now: Timestamp) -> bool {
        let expected = self.tag(file, until);
        now.secs() <= until && verify_slices_are_equal(expected.as_bytes(), tag.as_bytes()).is_ok()
    }

    fn tag(&self, file: &str, until: i64) -> String {
        let tag = hmac::sign(&self.0, format!("{file} {until}").as_bytes());
        hex::encode(tag.as_ref().get(..TAG_BYTES).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_valid_for_one_file_until_its_time() {
        let links = LinkSigner::new(hmac::Key::new(hmac::HMAC_SHA256, b"key"));
        let (at, until) = (Timestamp::from_secs, 1_790_003_600);
        let query = links.query("media 7", at(until));
        let tag = query.strip_prefix("until=1790003600&tag=").unwrap();
        let is_valid =
            |file: &str, until: i64, tag: &str, now: i64| links.is_valid(file, until, tag, at(now));
        assert!(is_valid("media 7", until, tag, 1_790_000_000));
        assert!(is_valid("media 7", until, tag, until));
        assert!(!is_valid("media 7", until, tag, until + 1), "expired");
        assert!(!is_valid("media 7", until + 1, tag, 1_790_000_000), "the time is signed, too");
        assert!(!is_valid("media 8", until, tag, 1_790_000_000), "another file");
        assert!(!is_valid("media 7", until, "", 1_790_000_000), "no tag");
    }
}
