use crate::rows::message::InboxResult;
use crate::seal::Seal;
use crate::sql::Conn;
use crate::tables::{conversations, deliveries, messages, numbers, outbox, webhooks};
use crate::write::InboxWrite;

pub(crate) async fn write(
    to: &mut Conn,
    seal: &Seal,
    write: &InboxWrite,
) -> Result<InboxResult, sqlx::Error> {
    match write {
        InboxWrite::Entry(came) => messages::came(to, seal, came).await,
        InboxWrite::Status(status) => messages::status(to, seal, status).await,
        InboxWrite::Enqueue(going) => messages::going(to, going).await.map(InboxResult::Enqueued),
        InboxWrite::BeginSending { message, at } => messages::asking(to, *message, *at).await,
        InboxWrite::SetWamid { message, wamid } => messages::posted(to, *message, wamid).await,
        InboxWrite::Change { scope, conversation, change, tell } => {
            let done = conversations::change(to, scope, *conversation, change).await?;
            let mut written = Vec::new();
            for (webhook, draft) in tell.iter().filter(|_| done) {
                written.push(
                    outbox::insert(to, seal, draft.event_for(*webhook, *conversation)).await?,
                );
            }
            Ok(InboxResult::Done(done, written))
        }
        InboxWrite::Delete { scope, conversation } => {
            conversations::delete(to, scope, *conversation).await
        }
        InboxWrite::SetRouting(reroute) => {
            numbers::reroute(to, reroute).await.map(|()| InboxResult::Done(true, Vec::new()))
        }
        InboxWrite::Transfer(claim) => {
            numbers::claim(to, claim).await.map(|done| InboxResult::Done(done, Vec::new()))
        }
        InboxWrite::Open { pair, routing, at } => {
            conversations::open(to, pair, *routing, *at).await
        }
        InboxWrite::Webhook(write) => {
            webhooks::write(to, seal, write).await.map(|done| InboxResult::Done(done, Vec::new()))
        }
        InboxWrite::Redeliver { row, now } => deliveries::redeliver(to, *row, *now).await,
        InboxWrite::DeleteOlder { before, limit } => messages::forget(to, *before, *limit).await,
    }
}
