//! Adding remarks to the record of a call that has ended.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::seal::Seal;
use crate::sql::{self, Conn};
use crate::tables::calls::Calls;
use crate::write::WriteTask;
use model::CallUuid;

impl Calls<'_> {
    /// Adds a remark to the record of a call that has ended. The write is queued when this returns.
    /// If the queue is full, the remark is dropped.
    pub fn add_remark(self, call: CallUuid, text: String) {
        drop(self.0.queue.try_run(Remark { call, text }));
    }
}

/// Maximum number of remarks of a record.
const REMARKS_MAX: usize = 100;

struct Remark {
    call: CallUuid,
    text: String,
}

impl WriteTask for Remark {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        async move {
            let select = "SELECT remarks FROM calls WHERE call_uuid = $1 AND ended_us IS NOT NULL";
            let select = sql::query_scalar::<sqlx::types::Json<Vec<String>>>(select)
                .bind(self.call.to_string());
            let Some(sqlx::types::Json(mut remarks)) = select.fetch_optional(&mut *to).await?
            else {
                return Ok(0);
            };
            if remarks.len() >= REMARKS_MAX {
                return Ok(0);
            }
            remarks.push(self.text.clone());
            let update = sql::query("UPDATE calls SET remarks = $2 WHERE call_uuid = $1")
                .bind(self.call.to_string());
            Ok(update.bind(sqlx::types::Json(&remarks)).execute(to).await?.rows_affected())
        }
        .boxed()
    }

    /// Returns `false`: losing a remark is harmless.
    fn is_synced(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::call::CallEnd;
    use crate::rows::call::CallStart;
    use crate::sample::setup;
    use crate::scope::Scope;
    use crate::store::Store;
    use model::Direction;
    use model::HangupCause;
    use model::Health;
    use model::Timestamp;

    #[tokio::test]
    async fn remarks_are_added_to_ended_calls_only() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        let [over, open] = [1, 2].map(setup);
        for setup in [&over, &open] {
            assert!(store.calls().begin(
                CallStart::of(setup, "node"),
                setup,
                Timestamp::from_secs(1)
            ));
        }
        let end = CallEnd {
            remarks: vec!["it rang".to_owned()],
            ..CallEnd::unanswered(
                HangupCause::CallerHangup,
                Direction::Inbound,
                Timestamp::from_secs(2),
            )
        };
        assert!(
            store
                .calls()
                .conclude_without_callbacks(CallStart::of(&over, "node"), end)
                .await
                .unwrap()
        );
        for setup in [&over, &open] {
            (0..200).for_each(|n| store.calls().add_remark(setup.call, format!("remark {n}")));
        }
        store.flush().await;
        let scope = Scope::Main(over.account.clone());
        let record = store.calls().get(&scope, over.call).await.unwrap().expect("a record");
        let remarks = record.end.expect("an end").remarks;
        assert_eq!(
            (remarks.len(), &*remarks[0], &*remarks[1]),
            (REMARKS_MAX, "it rang", "remark 0")
        );
        assert!(
            store
                .calls()
                .get(&scope, open.call)
                .await
                .unwrap()
                .is_none_or(|record| record.end.is_none())
        );
    }
}
