//! Pages of lists, and the `meta` that describes them.

use serde::Serialize;
use utoipa::ToSchema;

use super::error::PlivoError;
use super::query::{self, Pairs};

/// Maximum and default number of objects on a page (`docs/reference/limits.md#l38`).
const LIMIT_MAX: u32 = 20;
/// Maximum number of UUIDs in a list without pages: as many as there are live calls at a node.
const UUIDS_MAX: usize = 20_000;

/// The page that a request selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageRequest {
    pub(super) limit: u32,
    pub(super) offset: u64,
}

impl PageRequest {
    /// Returns the number of UUIDs to list. Without `limit`, all are listed, as by Plivo: the list has
    /// no `meta` that names a next page.
    pub(super) fn limit_of_uuids(self, pairs: &Pairs) -> usize {
        match query::value(pairs, "limit") {
            None => UUIDS_MAX,
            Some(_) => self.limit as usize,
        }
    }

    pub(super) fn parse(pairs: &Pairs) -> Result<Self, PlivoError> {
        let limit = match query::value(pairs, "limit").map(str::parse) {
            None => LIMIT_MAX,
            Some(Ok(limit @ 1..=LIMIT_MAX)) => limit,
            Some(_) => return Err(query::bad("limit", "an integer between 1 and 20")),
        };
        let offset = match query::value(pairs, "offset").map(str::parse) {
            None => 0,
            Some(Ok(offset)) => offset,
            Some(Err(_)) => return Err(query::bad("offset", "an integer of 0 or more")),
        };
        Ok(Self { limit, offset })
    }
}

/// The description of a page. The links to other pages keep the filters of the list.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoPage)]
pub(super) struct PageMeta {
    limit: u32,
    offset: u64,
    next: Option<String>,
    previous: Option<String>,
    total_count: u64,
}

impl PageMeta {
    pub(super) fn new(
        list_uri: &str,
        pairs: &Pairs,
        PageRequest { limit, offset }: PageRequest,
        total_count: u64,
    ) -> Self {
        let at = |offset: u64| {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query
                .append_pair("limit", &limit.to_string())
                .append_pair("offset", &offset.to_string());
            query
                .extend_pairs(pairs.iter().filter(|(name, _)| name != "limit" && name != "offset"));
            format!("{list_uri}?{}", query.finish())
        };
        let after = offset.saturating_add(limit.into());
        Self {
            limit,
            offset,
            next: (after < total_count).then(|| at(after)),
            previous: (offset > 0).then(|| at(offset.saturating_sub(limit.into()))),
            total_count,
        }
    }
}

/// Returns the requested page of a list in memory.
pub(super) fn page_of<T>(
    all: Vec<T>,
    list_uri: &str,
    pairs: &Pairs,
) -> Result<(PageMeta, Vec<T>), PlivoError> {
    let page = PageRequest::parse(pairs)?;
    let total = u64::try_from(all.len()).unwrap_or(u64::MAX);
    let skip = usize::try_from(page.offset).unwrap_or(usize::MAX);
    let objects = all.into_iter().skip(skip).take(page.limit as usize).collect();
    Ok((PageMeta::new(list_uri, pairs, page, total), objects))
}

#[cfg(test)]
mod tests {
    use super::PageRequest;

    #[test]
    fn refuses_pages_out_of_range() {
        let pairs = |query: &str| {
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect::<Vec<_>>()
        };
        let of = |query: &str| PageRequest::parse(&pairs(query)).ok().map(|p| (p.limit, p.offset));
        assert_eq!(of(""), Some((20, 0)));
        assert_eq!(of("limit=1&offset=40"), Some((1, 40)));
        for query in ["limit=0", "limit=21", "limit=x", "limit=", "offset=-1", "offset=1.5"] {
            assert_eq!(of(query), None, "{query}");
        }
    }
}
