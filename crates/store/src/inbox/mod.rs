//! Messages and conversations as they are written: each message once, with its conversation and with what reports it, in
//! one transaction. Where they go is read from the conversation's own row in that transaction, so that nothing that
//! changes routing can come in between.

mod news;

use uuid::Uuid;

pub use self::news::{
    Came, ConversationChange, Draft, DraftForm, Going, Gone, Insights, NewMessage, Pair, Reroute,
    Standing, StatusCame, UserName, WEBHOOK,
};
use super::Scope;
use super::callbacks::{self, NewCallback, Written};
use super::calls::within;
use super::given;
use super::outgoing;
use super::seal::Seal;
use super::sql::{self, Conn, Query, QueryBuilder, Row};
use super::tenures::{self, Claim, GENERATION, JOIN, STANDING, standing};
use super::turns;
use super::webhooks::{self, WebhookWrite};
use model::{ConversationStatus, E164, Routing, Timestamp};

/// A write about messages and conversations.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum InboxWrite {
    Came(Came),
    Status(StatusCame),
    Going(Going),
    /// Meta is about to be asked: from then on it may have the message.
    Asking {
        message: Uuid,
        at: Timestamp,
    },
    /// Meta has it, under this id.
    Posted {
        message: Uuid,
        wamid: String,
    },
    /// With what a webhook is told of it.
    Change {
        scope: Scope,
        conversation: Uuid,
        change: ConversationChange,
        tell: Vec<(Uuid, Draft)>,
    },
    Delete {
        scope: Scope,
        conversation: Uuid,
    },
    Reroute(Reroute),
    Claim(Claim),
    /// A conversation is there from now on, with this routing.
    Open {
        pair: Pair,
        routing: Routing,
        at: Timestamp,
    },
    Webhook(WebhookWrite),
    /// Once more, at once.
    Redeliver {
        /// The callback's row.
        row: i64,
        now: Timestamp,
    },
    Forget {
        before: Timestamp,
        limit: u32,
    },
}

/// What it found.
#[derive(Clone, Debug, PartialEq)]
pub enum InboxFound {
    /// The conversation, and how many of its messages are unread. `None`: it was there before.
    Came(Option<(Standing, u64)>, Vec<Written>),
    /// The conversation and the message; `None`: no such message, or it is further already.
    Status(Option<(Uuid, Uuid)>, Vec<Written>),
    /// Whether anything has changed.
    Done(bool, Vec<Written>),
    Gone(Gone),
    /// Not written yet: the journal has it.
    Journalled,
}

impl InboxWrite {
    /// What Meta or a customer was told is kept.
    pub(super) fn is_synced(&self) -> bool {
        !matches!(self, Self::Posted { .. } | Self::Forget { .. })
    }
}

pub(super) async fn write(
    to: &mut Conn,
    seal: &Seal,
    write: &InboxWrite,
) -> Result<InboxFound, sqlx::Error> {
    match write {
        InboxWrite::Came(came) => self::came(to, seal, came).await,
        InboxWrite::Status(status) => self::status(to, seal, status).await,
        InboxWrite::Going(going) => outgoing::going(to, going).await.map(InboxFound::Gone),
        InboxWrite::Asking { message, at } => outgoing::asking(to, *message, *at).await,
        InboxWrite::Posted { message, wamid } => outgoing::posted(to, *message, wamid).await,
        InboxWrite::Change { scope, conversation, change, tell } => {
            let done = self::change(to, scope, *conversation, change).await?;
            let mut written = Vec::new();
            for (webhook, draft) in tell.iter().filter(|_| done) {
                written.push(
                    callbacks::insert(to, seal, draft.event_for(*webhook, *conversation)).await?,
                );
            }
            Ok(InboxFound::Done(done, written))
        }
        InboxWrite::Delete { scope, conversation } => delete(to, scope, *conversation).await,
        InboxWrite::Reroute(reroute) => {
            tenures::reroute(to, reroute).await.map(|()| InboxFound::Done(true, Vec::new()))
        }
        InboxWrite::Claim(claim) => {
            tenures::claim(to, claim).await.map(|done| InboxFound::Done(done, Vec::new()))
        }
        InboxWrite::Open { pair, routing, at } => open(to, pair, *routing, *at).await,
        InboxWrite::Webhook(write) => {
            webhooks::write(to, seal, write).await.map(|done| InboxFound::Done(done, Vec::new()))
        }
        InboxWrite::Redeliver { row, now } => redeliver(to, *row, *now).await,
        InboxWrite::Forget { before, limit } => forget(to, *before, *limit).await,
    }
}

async fn came(to: &mut Conn, seal: &Seal, came: &Came) -> Result<InboxFound, sqlx::Error> {
    let Some(Some(arrived)) = arrive(to, &[came]).await?.pop() else {
        return Ok(InboxFound::Came(None, Vec::new()));
    };
    let written = callbacks::insert_all(to, seal, arrived.told).await?;
    Ok(InboxFound::Came(Some(arrived.found), written))
}

/// A message that was not there before.
pub(super) struct Arrived {
    /// The conversation, and how many of its messages are unread.
    pub(super) found: (Standing, u64),
    /// What reports it, still to be put in.
    pub(super) told: Vec<NewCallback>,
}

/// Takes in messages, in order; `None`: it was there before.
pub(super) async fn arrive(
    to: &mut Conn,
    all: &[&Came],
) -> Result<Vec<Option<Arrived>>, sqlx::Error> {
    let inserted =
        sql::each(to, all.iter().map(|came| inserting(&came.pair, &came.message, None))).await?;
    let fresh: Vec<bool> = inserted.iter().map(|done| done.changed > 0).collect();
    let only_fresh =
        all.iter().zip(&fresh).filter(|(_, fresh)| **fresh).map(|(came, _)| conversing(came));
    let mut rows = sql::each(to, only_fresh).await?.into_iter().flat_map(|outcome| outcome.rows);
    let mut arrived = Vec::with_capacity(all.len());
    for (came, fresh) in all.iter().zip(fresh) {
        let row = if fresh { Some(rows.next().ok_or(sqlx::Error::RowNotFound)?) } else { None };
        let Some(row) = row else {
            arrived.push(None);
            continue;
        };
        let found = conversed(to, came, &row).await?;
        turns::owe(to, came, &found.0).await?;
        let told = match (found.0.routing, &came.draft) {
            (Routing::Webhook(webhook), Some(draft)) => {
                tell(draft, webhook, came.pair.conversation)
            }
            _ => Vec::new(),
        };
        arrived.push(Some(Arrived { found, told }));
    }
    Ok(arrived)
}

/// The event for the webhook, and the form for the number's URL.
fn tell(draft: &Draft, webhook: Option<Uuid>, conversation: Uuid) -> Vec<NewCallback> {
    let event = webhook.map(|webhook| draft.event_for(webhook, conversation));
    event.into_iter().chain(draft.form(conversation)).collect()
}

pub(super) async fn insert(
    to: &mut Conn,
    pair: &Pair,
    message: &NewMessage,
    going: Option<&Going>,
) -> Result<bool, sqlx::Error> {
    Ok(inserting(pair, message, going).execute(to).await?.rows_affected() > 0)
}

fn inserting(pair: &Pair, message: &NewMessage, going: Option<&Going>) -> Query<Row> {
    let insert = "INSERT INTO messages (message_id, conversation_id, phone_number_id, wamid, direction, kind, body, \
        content, status, sender, came_us, changed_us, node_id, epoch) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, $12, $13) ON CONFLICT (message_id) DO NOTHING";
    sql::query(insert)
        .bind(message.id.to_string())
        .bind(pair.conversation.to_string())
        .bind(pair.phone_number_id.as_str())
        .bind(&message.wamid)
        .bind(message.direction.as_str())
        .bind(&message.kind)
        .bind(&message.text)
        .bind(message.content.to_string())
        .bind(message.status.as_str())
        .bind(&message.sender)
        .bind(message.at.micros())
        .bind(going.map(|going| going.node_id.clone()))
        .bind(going.and_then(|going| going.epoch).and_then(|epoch| i64::try_from(epoch).ok()))
}

/// What puts a conversation there, with its first eleven values: whose it is, with whom, and who has it.
fn begun(text: &'static str, pair: &Pair, routing: Routing) -> Query<Row> {
    sql::query(text)
        .bind(pair.conversation.to_string())
        .bind(pair.account.as_str())
        .bind(pair.main_account.as_str())
        .bind(pair.number.as_str())
        .bind(pair.phone_number_id.as_str())
        .bind(&pair.user.id)
        .bind(&pair.user.bsuid)
        .bind(&pair.user.name)
        .bind(routing.as_str())
        .bind(routing.webhook().map(|id| id.to_string()))
        .bind(routing.agent().map(|id| id.to_string()))
}

/// Makes the conversation or brings it up to date.
fn conversing(came: &Came) -> Query<Row> {
    // A number's stored routing is read here and now: memory may be a moment behind it. It is its owner's.
    let upsert = "INSERT INTO conversations (conversation_id, auth_id, main_auth_id, number, phone_number_id, user_id, \
        bsuid, name, status, routing, webhook, agent, unread, last_text, last_direction, last_us, heard_us, created_us, \
        generation, name_lower, last_lower) \
        SELECT $1, $2, $3, $4, $5, $6, $7, $8, 'open', coalesce(r.routing, $9), \
        CASE WHEN r.routing IS NULL THEN $10 ELSE r.webhook END, CASE WHEN r.routing IS NULL THEN $11 ELSE r.agent END, \
        $12, $13, $14, $15, $16, $15, coalesce(n.generation, 0), $17, $18 \
        FROM (SELECT 1 AS one) o LEFT JOIN number_tenures n ON n.phone_number_id = $5 \
        LEFT JOIN number_routing r ON r.phone_number_id = $5 AND coalesce(n.owner, $2) = $2 WHERE o.one = 1 \
        ON CONFLICT (conversation_id) DO UPDATE SET \
        name = CASE WHEN excluded.name <> '' THEN excluded.name ELSE conversations.name END, \
        name_lower = CASE WHEN excluded.name <> '' THEN excluded.name_lower ELSE conversations.name_lower END, \
        last_lower = excluded.last_lower, unread = conversations.unread + excluded.unread, \
        last_text = excluded.last_text, last_direction = excluded.last_direction, \
        last_us = CASE WHEN excluded.last_us > conversations.last_us THEN excluded.last_us ELSE conversations.last_us END, \
        heard_us = CASE WHEN excluded.heard_us > conversations.heard_us THEN excluded.heard_us ELSE conversations.heard_us END \
        RETURNING routing, webhook, agent, epoch, ai_enabled, unread, generation, main_auth_id, number, bsuid, status, \
        (SELECT t.owner FROM number_tenures t WHERE t.phone_number_id = conversations.phone_number_id) AS held_owner, \
        (SELECT t.generation FROM number_tenures t WHERE t.phone_number_id = conversations.phone_number_id) AS held_generation, \
        (SELECT t.routing FROM number_tenures t WHERE t.phone_number_id = conversations.phone_number_id) AS held_routing, \
        (SELECT t.webhook FROM number_tenures t WHERE t.phone_number_id = conversations.phone_number_id) AS held_webhook, \
        (SELECT t.agent FROM number_tenures t WHERE t.phone_number_id = conversations.phone_number_id) AS held_agent";
    let Came { pair, message, heard, counts, routing, .. } = came;
    begun(upsert, pair, *routing)
        .bind(i64::from(*counts))
        .bind(&message.text)
        .bind(message.direction.as_str())
        .bind(message.at.micros())
        .bind(heard.map_or(0, Timestamp::micros))
        .bind(pair.user.name.to_lowercase())
        .bind(message.text.to_lowercase())
}

/// What is left to do once the conversation is there; where it stands, and how many of its messages are unread.
async fn conversed(to: &mut Conn, came: &Came, row: &Row) -> Result<(Standing, u64), sqlx::Error> {
    renew(to, came, row).await?;
    let pair = &came.pair;
    let mut standing = standing(row)?;
    match tenures::held(row)? {
        None => tenures::begin(to, pair).await?,
        Some(held) => {
            standing.epoch += u64::try_from(held.generation).unwrap_or_default();
            if held.generation > row.try_get::<i64, _>("generation")? {
                standing.routing = held.routing;
            }
            if !held.owner.is_empty() && held.owner != pair.account.as_str() {
                standing.routing = Routing::None;
            }
        }
    }
    Ok((standing, u64::try_from(row.try_get::<i64, _>("unread")?).unwrap_or_default()))
}

/// What of a conversation is another than it was. Apart from what each message changes, and only where it is so: what an update
/// names, it writes into each index that has it, whether it changes or not.
async fn renew(to: &mut Conn, came: &Came, row: &Row) -> Result<(), sqlx::Error> {
    let Came { pair, counts, .. } = came;
    let text = |column: &str| row.try_get::<String, _>(column);
    let bsuid: Option<String> = row.try_get("bsuid")?;
    if text("main_auth_id")? == pair.main_account.as_str()
        && text("number")? == pair.number.as_str()
        && (pair.user.bsuid.is_none() || pair.user.bsuid == bsuid)
        && (!counts || text("status")? == ConversationStatus::Open.as_str())
    {
        return Ok(());
    }
    let update = "UPDATE conversations SET main_auth_id = $2, number = $3, bsuid = coalesce($4, bsuid), \
        status = CASE WHEN $5 > 0 THEN 'open' ELSE status END WHERE conversation_id = $1";
    let update =
        sql::query(update).bind(pair.conversation.to_string()).bind(pair.main_account.as_str());
    let update = update.bind(pair.number.as_str()).bind(&pair.user.bsuid).bind(i64::from(*counts));
    update.execute(to).await.map(drop)
}

pub(super) fn routing(row: &Row) -> Result<Routing, sqlx::Error> {
    let id = |column: &str| {
        Ok::<_, sqlx::Error>(
            row.try_get::<Option<String>, _>(column)?.and_then(|id| id.parse().ok()),
        )
    };
    Ok(Routing::from_columns(&row.try_get::<String, _>("routing")?, id("webhook")?, id("agent")?))
}

async fn status(to: &mut Conn, seal: &Seal, came: &StatusCame) -> Result<InboxFound, sqlx::Error> {
    let mut update = QueryBuilder::new("UPDATE messages SET status = ");
    update.push_bind(came.status.as_str());
    update.push(", wamid = coalesce(wamid, ").push_bind(came.wamid.clone());
    update.push("), error_code = ").push_bind(came.error.as_ref().map(|(code, _)| *code));
    update.push(", error_text = ").push_bind(came.error.as_ref().map(|(_, text)| text.clone()));
    update.push(", changed_us = ").push_bind(came.at.micros());
    update.push(" WHERE message_id = ");
    match came.named {
        Some(named) => {
            update.push_bind(named.to_string());
        }
        None => {
            update
                .push("(SELECT m.message_id FROM messages m WHERE m.wamid = ")
                .push_bind(came.wamid.clone());
            update.push(" AND m.direction = 'outbound' AND m.phone_number_id = ");
            update.push_bind(came.phone_number_id.as_str()).push(" LIMIT 1)");
        }
    }
    update
        .push(" AND direction = 'outbound' AND phone_number_id = ")
        .push_bind(came.phone_number_id.as_str());
    update.push(" AND (status IN (");
    // That nobody knows what became of it is said here only where Meta has said nothing yet.
    let follows = if came.wamid.is_some() { came.status.predecessors() } else { &["queued"] };
    let mut words = update.list();
    follows.iter().for_each(|word| {
        words.push_bind(*word);
    });
    update.push(")");
    // Given up here for want of an answer: Meta never named it. What it says of it now is the proof (`meta-calling.md` §3.5).
    if came.wamid.is_some() {
        update.push(" OR (status = 'failed' AND wamid IS NULL)");
    }
    update.push(") RETURNING message_id, conversation_id");
    let Some(row) = update.build().fetch_optional(&mut *to).await? else {
        return Ok(InboxFound::Status(None, Vec::new()));
    };
    let (message, conversation): (String, String) =
        (row.try_get("message_id")?, row.try_get("conversation_id")?);
    let ids = conversation.parse::<Uuid>().ok().zip(message.parse::<Uuid>().ok());
    // Its number may be another account's by now: whom that tells is told nothing of this conversation.
    let select = format!(
        "SELECT {STANDING}, c.user_id, c.bsuid, c.name FROM conversations c {JOIN} WHERE c.conversation_id = $1 AND c.auth_id = $2"
    );
    let row = sql::query(select)
        .bind(&conversation)
        .bind(came.draft.account.as_str())
        .fetch_optional(&mut *to)
        .await?;
    let mut written = Vec::new();
    if let (Some(row), Some((id, _))) = (&row, ids)
        && let Routing::Webhook(webhook) = routing(row)?
    {
        let mut draft = came.draft.clone();
        let user = UserName {
            id: row.try_get("user_id")?,
            bsuid: row.try_get("bsuid")?,
            name: row.try_get("name")?,
        };
        draft.fill(&conversation, &message, &user);
        written = callbacks::insert_all(to, seal, tell(&draft, webhook, id)).await?;
    }
    Ok(InboxFound::Status(ids, written))
}

/// Whose conversation a row is.
pub(super) fn pair(conversation: Uuid, row: &Row) -> Result<Pair, sqlx::Error> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let number = E164::parse(&text("number")?).map_err(|why| sqlx::Error::Decode(why.into()))?;
    Ok(Pair {
        conversation,
        account: text("auth_id")?.into(),
        main_account: text("main_auth_id")?.into(),
        number,
        phone_number_id: text("phone_number_id")?.into(),
        user: UserName { id: text("user_id")?, bsuid: row.try_get("bsuid")?, name: text("name")? },
    })
}

async fn change(
    to: &mut Conn,
    scope: &Scope,
    conversation: Uuid,
    change: &ConversationChange,
) -> Result<bool, sqlx::Error> {
    let mut update =
        QueryBuilder::new("UPDATE conversations SET conversation_id = conversation_id");
    if let Some(status) = change.status {
        update.push(", status = ").push_bind(status.as_str());
    }
    if let Some(on) = change.ai_enabled {
        update.push(", ai_enabled = ").push_bind(i64::from(on));
    }
    if change.read {
        update.push(", unread = 0");
    }
    if let Some(routing) = change.routing {
        route(&mut update, routing);
    }
    // An answer under way is not sent any more where people took over, or somebody else answers.
    if change.routing.is_some() || change.ai_enabled == Some(false) {
        update.push(", epoch = epoch + 1");
    }
    if let Some(insights) = &change.insights {
        update
            .push(", sentiment = ")
            .push_bind(&insights.sentiment)
            .push(", score = ")
            .push_bind(insights.score);
        update
            .push(", summary = ")
            .push_bind(&insights.summary)
            .push(", insights_by = ")
            .push_bind(&insights.by);
        update.push(", insights_us = ").push_bind(insights.at.micros());
    }
    update.push(" WHERE ");
    within(&mut update, scope);
    update.push(" AND conversation_id = ").push_bind(conversation.to_string());
    // Two who close it at the same moment: one of them does.
    if let Some(next) = change.status {
        update.push(" AND status IN (");
        let mut words = update.list();
        for from in ConversationStatus::ALL.into_iter().filter(|from| from.can_become(next)) {
            words.push_bind(from.as_str());
        }
        update.push(")");
    }
    Ok(update.build().execute(to).await?.rows_affected() > 0)
}

fn route(update: &mut QueryBuilder, routing: Routing) {
    update.push(", routing = ").push_bind(routing.as_str());
    update.push(", webhook = ").push_bind(routing.webhook().map(|id| id.to_string()));
    update.push(", agent = ").push_bind(routing.agent().map(|id| id.to_string()));
    update.push(", generation = ").push(GENERATION);
}

async fn open(
    to: &mut Conn,
    pair: &Pair,
    routing: Routing,
    at: Timestamp,
) -> Result<InboxFound, sqlx::Error> {
    tenures::begin(to, pair).await?;
    let put = "INSERT INTO conversations (conversation_id, auth_id, main_auth_id, number, phone_number_id, user_id, bsuid, \
        name, status, routing, webhook, agent, last_text, last_direction, last_us, created_us, generation) \
        SELECT $1, $2, $3, $4, $5, $6, $7, $8, 'open', $9, $10, $11, '', 'inbound', $12, $12, generation \
        FROM number_tenures WHERE phone_number_id = $5 \
        ON CONFLICT (conversation_id) DO UPDATE SET routing = excluded.routing, webhook = excluded.webhook, \
        agent = excluded.agent, generation = excluded.generation, epoch = conversations.epoch + 1";
    begun(put, pair, routing).bind(at.micros()).execute(to).await?;
    Ok(InboxFound::Done(true, Vec::new()))
}

async fn delete(
    to: &mut Conn,
    scope: &Scope,
    conversation: Uuid,
) -> Result<InboxFound, sqlx::Error> {
    let mut delete = QueryBuilder::new("DELETE FROM conversations WHERE ");
    within(&mut delete, scope);
    delete.push(" AND conversation_id = ").push_bind(conversation.to_string());
    let done = delete.build().execute(&mut *to).await?.rows_affected() > 0;
    if done {
        let messages = sql::query("DELETE FROM messages WHERE conversation_id = $1")
            .bind(conversation.to_string());
        messages.execute(&mut *to).await?;
        let turns = sql::query("DELETE FROM turns WHERE conversation_id = $1")
            .bind(conversation.to_string());
        turns.execute(&mut *to).await?;
        given::forget_conversation(to, conversation, Timestamp::MAX).await?;
        // What was to be told of it is told no more: it is gone.
        let callbacks =
            sql::query("DELETE FROM callbacks WHERE call_uuid = $1 AND event IS NOT NULL");
        callbacks.bind(conversation.to_string()).execute(to).await?;
    }
    Ok(InboxFound::Done(done, Vec::new()))
}

async fn redeliver(to: &mut Conn, row: i64, now: Timestamp) -> Result<InboxFound, sqlx::Error> {
    let update = "UPDATE callbacks SET next_us = 0, done_us = NULL, delivered = 0, since_us = $2, retries = 0 \
        WHERE id = $1";
    let update = sql::query(update).bind(row).bind(now.micros());
    Ok(InboxFound::Done(update.execute(to).await?.rows_affected() > 0, Vec::new()))
}

/// The oldest messages that came before then, some at a time, and conversations of which nothing is left.
async fn forget(to: &mut Conn, before: Timestamp, limit: u32) -> Result<InboxFound, sqlx::Error> {
    let delete = "DELETE FROM messages WHERE message_id IN \
        (SELECT message_id FROM messages WHERE came_us < $1 ORDER BY came_us LIMIT $2)";
    let gone = sql::query(delete)
        .bind(before.micros())
        .bind(i64::from(limit))
        .execute(&mut *to)
        .await?
        .rows_affected();
    let delete = "DELETE FROM conversations WHERE conversation_id IN (SELECT conversation_id FROM conversations c \
        WHERE c.last_us < $1 AND NOT EXISTS (SELECT 1 FROM messages m WHERE m.conversation_id = c.conversation_id) \
        LIMIT $2)";
    if gone < u64::from(limit) {
        sql::query(delete).bind(before.micros()).bind(i64::from(limit)).execute(&mut *to).await?;
        // What is owed for a message that is gone is owed no more, also of a node that never came back.
        sql::query("DELETE FROM turns WHERE came_us < $1")
            .bind(before.micros())
            .execute(to)
            .await?;
    }
    Ok(InboxFound::Done(gone >= u64::from(limit), Vec::new()))
}
