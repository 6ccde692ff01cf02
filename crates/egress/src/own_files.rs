//! The node's own files, such as recordings, which documents may play like those of other servers.

use url::Url;

use super::guard::Guard;
use super::url::CustomerUrl;

/// The files below the node's public URL. Requests for them may reach the node's own listeners,
/// which every other request is refused (`docs/reference/reliability.md#r17`).
#[derive(Clone, Debug)]
pub struct OwnFiles {
    /// Each ends in a slash.
    folders: Vec<Url>,
    guard: Guard,
}

impl OwnFiles {
    /// `base` is the node's public URL, without a trailing slash. `folders` are paths below it, such
    /// as `/recordings/`. `guard` decides which addresses requests for files in them may reach.
    ///
    /// # Errors
    ///
    /// Fails if `base` is not a URL.
    pub fn new(base: &str, folders: &[&str], guard: Guard) -> Result<Self, url::ParseError> {
        let folders: Result<_, _> =
            folders.iter().map(|folder| Url::parse(&format!("{base}{folder}"))).collect();
        Ok(Self { folders: folders?, guard })
    }

    pub(super) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Whether a URL names a file in one of the folders.
    pub(super) fn contains(&self, url: &CustomerUrl) -> bool {
        let url = url.parsed();
        self.folders
            .iter()
            .any(|folder| folder.origin() == url.origin() && url.path().starts_with(folder.path()))
    }
}

#[cfg(test)]
mod tests {
    use super::OwnFiles;
    use crate::guard::Guard;
    use crate::url::CustomerUrl;

    #[test]
    fn r17_only_urls_of_files_are_own_files() {
        let open = Guard::new(true, Vec::new());
        let own =
            OwnFiles::new("https://calls.example/base", &["/recordings/"], open.clone()).unwrap();
        let contains = |text| own.contains(&CustomerUrl::parse(text, &open).unwrap());
        for file in [
            "https://calls.example/base/recordings/1.mp3",
            "https://CALLS.example:443/base/recordings/1.mp3?until=1&tag=2#rt=1",
        ] {
            assert!(contains(file), "{file}");
        }
        for other in [
            "http://calls.example/base/recordings/1.mp3",
            "https://calls.example:8443/base/recordings/1.mp3",
            "https://other.example/base/recordings/1.mp3",
            "https://calls.example/recordings/1.mp3",
            "https://calls.example/base/recordings/../v1/Account/",
            "https://calls.example/base/recordings/%2e%2e/v1/Account/",
            "https://calls.example/base/v1/Account/",
            "https://calls.example/base/recordings",
        ] {
            assert!(!contains(other), "{other}");
        }
    }
}
