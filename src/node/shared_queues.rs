//! Tells the other nodes of a fleet about the queues of callbacks in which they have some, too. Without
//! it, an event that follows one of another node would wait until its node reads the store again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

use engine::call::{Outbox, QueueNews};
use engine::cluster::{Cluster, post};

/// Path at which a node receives news of queues.
pub(super) const QUEUES: &str = "/queues";

/// Time during which news are collected.
const BATCH_WINDOW: Duration = Duration::from_millis(5);

/// Timeout for sending a batch to a node. The next batch waits for it.
const SEND_TIME: Duration = Duration::from_millis(100);

/// Maximum number of news in a batch.
const NEWS_MAX: usize = 512;

/// Takes the news of another node. Returns `false` if they can't be read.
pub(super) fn receive(outbox: &Outbox, body: &[u8]) -> bool {
    let Ok(news) = serde_json::from_slice::<Vec<QueueNews>>(body) else { return false };
    news.into_iter().take(NEWS_MAX).for_each(|news| outbox.receive(news));
    true
}

/// Sends the news of this node to the other nodes until `stop`. Lost ones are not repeated, because
/// each node also reads what is due at intervals.
pub(super) async fn share(cluster: Arc<Cluster>, outbox: Outbox, stop: CancellationToken) {
    let mut news = outbox.news();
    while let Some(Some(batch)) = stop.run_until_cancelled(collect(&mut news)).await {
        let body = Bytes::from(serde_json::to_vec(&batch).unwrap_or_default());
        let sent = cluster.peers().sees().into_iter().map(|run| {
            let request = post(QUEUES, body.clone());
            tokio::time::timeout(SEND_TIME, cluster.peers().send(run, request))
        });
        let _ = stop.run_until_cancelled(join_all(sent)).await;
        if batch.iter().any(|news| matches!(news, QueueNews::Waiting(..))) {
            // The other node may have stored its result before it could know that one waits.
            outbox.read_again();
        }
    }
}

/// Waits for news, and collects those that follow. `None` if there will be no more.
async fn collect(news: &mut Receiver<QueueNews>) -> Option<HashSet<QueueNews>> {
    let mut batch = HashSet::from([news.recv().await?]);
    tokio::time::sleep(BATCH_WINDOW).await;
    while batch.len() < NEWS_MAX
        && let Ok(next) = news.try_recv()
    {
        batch.insert(next);
    }
    Some(batch)
}
