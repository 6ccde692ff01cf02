//! A read-only map from text to text in one block of memory, which may be a mapped file: lines of
//! key, tab and value, sorted by key. Processes that map the same file share its memory, and the
//! file is not parsed at start.

use std::collections::BTreeMap;

use super::mapped::Mapped;

/// A table, which is searched by bisection.
pub(crate) struct Table(Mapped);

impl Table {
    pub(super) fn new(bytes: Mapped) -> Self {
        Self(bytes)
    }

    /// Returns the value of a key, or `None` if the key is absent.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let bytes: &[u8] = &self.0;
        let (mut low, mut high) = (0, bytes.len());
        while low < high {
            let middle = low + (high - low) / 2;
            // The line that contains `middle`.
            let start = bytes
                .get(low..middle)?
                .iter()
                .rposition(|&b| b == b'\n')
                .map_or(low, |at| low + at + 1);
            let length = bytes.get(start..high)?.iter().position(|&b| b == b'\n')?;
            let line = bytes.get(start..start + length)?;
            let tab = line.iter().position(|&b| b == b'\t')?;
            let (found, value) = line.split_at_checked(tab)?;
            match found.cmp(key.as_bytes()) {
                std::cmp::Ordering::Equal => return std::str::from_utf8(value.get(1..)?).ok(),
                std::cmp::Ordering::Less => low = start + length + 1,
                std::cmp::Ordering::Greater => high = start,
            }
        }
        None
    }

    /// Encodes a table. Entries with a tab in the key or a line feed are omitted.
    pub(crate) fn encode(entries: &BTreeMap<String, String>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (key, value) in entries {
            if !key.contains(['\t', '\n']) && !value.contains('\n') {
                for part in [key, "\t", value, "\n"] {
                    bytes.extend_from_slice(part.as_bytes());
                }
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::{Mapped, Table};

    proptest! {
        #[test]
        fn every_entry_is_found(
            entries in proptest::collection::btree_map("[a-zé' ]{0,8}", "[a-zˈ]{0,8}", 0..60),
            other in "[a-zé' ]{0,8}",
        ) {
            let table = Table::new(Mapped::from(Table::encode(&entries)));
            for (key, value) in &entries {
                prop_assert_eq!(table.get(key), Some(value.as_str()));
            }
            prop_assert_eq!(table.get(&other), entries.get(&other).map(String::as_str));
        }

        #[test]
        fn any_bytes_are_searched(bytes in proptest::collection::vec(0u8..20, 0..80)) {
            let _ = Table::new(Mapped::from(bytes)).get("a");
        }
    }

    #[test]
    fn an_empty_table_has_no_entries() {
        let table = Table::new(Mapped::from(Table::encode(&BTreeMap::new())));
        assert_eq!(table.get(""), None);
    }
}
