//! Pages of lists and their `meta`, as SDKs walk them (1.10).

use serde::Serialize;
use utoipa::ToSchema;

use super::No;
use super::query::{self, Pairs};

/// Longest list (L38).
const LIMIT_MAX: u32 = 20;

/// Which part of a list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) limit: u32,
    pub(super) offset: u64,
}

pub(super) fn page(pairs: &Pairs) -> Result<Page, No> {
    let limit = match query::value(pairs, "limit").map(str::parse) {
        None => LIMIT_MAX,
        Some(Ok(limit @ 1..=LIMIT_MAX)) => limit,
        Some(_) => return Err(No::Bad("limit must be an integer between 1 and 20".to_owned())),
    };
    let offset = match query::value(pairs, "offset").map(str::parse) {
        None => 0,
        Some(Ok(offset)) => offset,
        Some(Err(_)) => return Err(No::Bad("offset must be an integer of 0 or more".to_owned())),
    };
    Ok(Page { limit, offset })
}

/// What a page says of itself and the others; a list's own filters are kept in the ways to them.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoPage)]
pub(super) struct Meta {
    limit: u32,
    offset: u64,
    next: Option<String>,
    previous: Option<String>,
    total_count: u64,
}

impl Meta {
    pub(super) fn of(
        list_uri: &str,
        pairs: &Pairs,
        Page { limit, offset }: Page,
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

/// A page of what is in memory whole.
pub(super) fn paged<T>(all: Vec<T>, list_uri: &str, pairs: &Pairs) -> Result<(Meta, Vec<T>), No> {
    let page = page(pairs)?;
    let total = u64::try_from(all.len()).unwrap_or(u64::MAX);
    let skipped = usize::try_from(page.offset).unwrap_or(usize::MAX);
    let objects = all.into_iter().skip(skipped).take(page.limit as usize).collect();
    Ok((Meta::of(list_uri, pairs, page, total), objects))
}

#[cfg(test)]
mod tests {
    use super::page;

    #[test]
    fn pages_have_bounds() {
        let pairs = |query: &str| {
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect::<Vec<_>>()
        };
        let of = |query: &str| page(&pairs(query)).ok().map(|p| (p.limit, p.offset));
        assert_eq!(of(""), Some((20, 0)));
        assert_eq!(of("limit=1&offset=40"), Some((1, 40)));
        for query in ["limit=0", "limit=21", "limit=x", "limit=", "offset=-1", "offset=1.5"] {
            assert_eq!(of(query), None, "{query}");
        }
    }
}
