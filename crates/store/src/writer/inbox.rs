use crate::rows::message::InboxFound;
use crate::seal::Seal;
use crate::sql::Conn;
use crate::tables::{conversations, deliveries, messages, numbers, outbox, webhooks};
use crate::write::InboxWrite;

pub(crate) async fn write(
    to: &mut Conn,
    seal: &Seal,
    write: &InboxWrite,
) -> Result<InboxFound, sqlx::Error> {
    match write {
        InboxWrite::Came(came) => messages::came(to, seal, came).await,
        InboxWrite::Status(status) => messages::status(to, seal, status).await,
        InboxWrite::Going(going) => messages::going(to, going).await.map(InboxFound::Gone),
        InboxWrite::Asking { message, at } => messages::asking(to, *message, *at).await,
        InboxWrite::Posted { message, wamid } => messages::posted(to, *message, wamid).await,
        InboxWrite::Change { scope, conversation, change, tell } => {
            let done = conversations::change(to, scope, *conversation, change).await?;
            let mut written = Vec::new();
            for (webhook, draft) in tell.iter().filter(|_| done) {
                written.push(
                    outbox::insert(to, seal, draft.event_for(*webhook, *conversation)).await?,
                );
            }
            Ok(InboxFound::Done(done, written))
        }
        InboxWrite::Delete { scope, conversation } => {
            conversations::delete(to, scope, *conversation).await
        }
        InboxWrite::Reroute(reroute) => {
            numbers::reroute(to, reroute).await.map(|()| InboxFound::Done(true, Vec::new()))
        }
        InboxWrite::Claim(claim) => {
            numbers::claim(to, claim).await.map(|done| InboxFound::Done(done, Vec::new()))
        }
        InboxWrite::Open { pair, routing, at } => {
            conversations::open(to, pair, *routing, *at).await
        }
        InboxWrite::Webhook(write) => {
            webhooks::write(to, seal, write).await.map(|done| InboxFound::Done(done, Vec::new()))
        }
        InboxWrite::Redeliver { row, now } => deliveries::redeliver(to, *row, *now).await,
        InboxWrite::Forget { before, limit } => messages::forget(to, *before, *limit).await,
    }
}
