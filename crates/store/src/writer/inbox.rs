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
        InboxWrite::Entry(entry) => messages::insert_entry(to, seal, entry).await,
        InboxWrite::Status(status) => messages::update_status(to, seal, status).await,
        InboxWrite::Enqueue(messages_out) => {
            messages::enqueue(to, messages_out).await.map(InboxResult::Enqueued)
        }
        InboxWrite::BeginSending { message, at } => {
            messages::begin_sending(to, *message, *at).await
        }
        InboxWrite::SetWamid { message, wamid } => messages::set_wamid(to, *message, wamid).await,
        InboxWrite::Change { scope, conversation, change, events } => {
            let done = conversations::change(to, scope, *conversation, change).await?;
            let mut written = Vec::new();
            for (webhook, draft) in events.iter().filter(|_| done) {
                written.push(
                    outbox::insert(to, seal, draft.event_for(*webhook, *conversation)).await?,
                );
            }
            Ok(InboxResult::Done(done, written))
        }
        InboxWrite::Delete { scope, conversation } => {
            conversations::delete(to, scope, *conversation).await
        }
        InboxWrite::SetRouting(change) => {
            numbers::set_routing(to, change).await.map(|()| InboxResult::Done(true, Vec::new()))
        }
        InboxWrite::Transfer(transfer) => {
            numbers::transfer(to, transfer).await.map(|done| InboxResult::Done(done, Vec::new()))
        }
        InboxWrite::Open { pair, routing, at } => {
            conversations::open(to, pair, *routing, *at).await
        }
        InboxWrite::Webhook(write) => {
            webhooks::write(to, seal, write).await.map(|done| InboxResult::Done(done, Vec::new()))
        }
        InboxWrite::Redeliver { row, owner, now } => {
            deliveries::redeliver(to, *row, owner, *now).await
        }
        InboxWrite::DeleteOlder { before, limit } => {
            messages::delete_older(to, *before, *limit).await
        }
    }
}
