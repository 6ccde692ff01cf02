//! Counts of the values that can and can't be opened with a key.

use crate::error::{StoreError, failed};
use crate::seal::Seal;
use crate::sql::{self, Pool};
use crate::tables::{agents, certificates, settings, webhooks};

/// The sealed values of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedValues {
    /// The kind, in plural.
    pub what: &'static str,
    /// Number of values that the key opens, and of those that were sealed with another one.
    pub readable: u64,
    pub unreadable: u64,
}

type Purpose = fn(&str, &str) -> Vec<u8>;

/// Each kind with its rows (kind, id, value) and the purpose that they are sealed for.
const KINDS: [(&str, &str, Purpose); 4] = [
    (
        "tokens of accounts, numbers and WABAs",
        "SELECT kind, id, sealed FROM settings WHERE sealed IS NOT NULL",
        settings::purpose,
    ),
    ("secrets of webhooks", "SELECT '', webhook_id, sealed FROM webhooks", |_, id| {
        webhooks::purpose(id)
    }),
    (
        "secrets of AI agents",
        "SELECT '', agent_id, sealed FROM agents WHERE sealed IS NOT NULL",
        |_, id| agents::purpose(id),
    ),
    (
        "keys of certificates",
        "SELECT kind, id, sealed FROM certificates WHERE sealed IS NOT NULL",
        certificates::purpose,
    ),
];

/// Counts the sealed values of each kind. Kinds without values are left out.
pub(crate) async fn count(pool: &Pool, seal: &Seal) -> Result<Vec<SealedValues>, StoreError> {
    let mut found = Vec::new();
    for (what, select, purpose) in KINDS {
        let rows: Vec<(String, String, Vec<u8>)> =
            sql::query_as(select).fetch_all(pool).await.map_err(failed("read sealed values"))?;
        let (mut readable, mut unreadable) = (0, 0);
        for (kind, id, sealed) in rows {
            match seal.open(&purpose(&kind, &id), &sealed) {
                Some(_) => readable += 1,
                None => unreadable += 1,
            }
        }
        if readable + unreadable > 0 {
            found.push(SealedValues { what, readable, unreadable });
        }
    }
    Ok(found)
}
