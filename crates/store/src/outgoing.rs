//! Messages on their way out, as they are written: taken, about to be asked for, and what became of it.

use uuid::Uuid;

use super::inbox::{Going, Gone, InboxFound, insert, pair};
use super::sql::{self, Conn};
use super::tenures::{JOIN, STANDING, standing};
use super::turns;
use model::Timestamp;

pub(super) async fn going(to: &mut Conn, going: &Going) -> Result<Gone, sqlx::Error> {
    let select = format!(
        "SELECT c.auth_id, c.main_auth_id, c.number, c.phone_number_id, c.user_id, c.bsuid, c.name, {STANDING} \
         FROM conversations c {JOIN} WHERE c.conversation_id = $1"
    );
    let conversation = going.conversation.to_string();
    let Some(row) = sql::query(select).bind(&conversation).fetch_optional(&mut *to).await? else {
        return Ok(Gone::Refused);
    };
    if let Some(epoch) = going.epoch
        && standing(&row)?.answers(epoch).is_none()
    {
        return Ok(Gone::Refused);
    }
    if let Some(answers) = &going.answers
        && !turns::answered(to, answers).await?
    {
        return Ok(Gone::Refused);
    }
    let pair = pair(going.conversation, &row)?;
    for message in &going.messages {
        if !insert(to, &pair, message, Some(going)).await? {
            return Ok(Gone::Before);
        }
    }
    let Some(last) = going.messages.last() else { return Ok(Gone::Out) };
    let update = "UPDATE conversations SET last_text = $2, last_lower = $4, last_direction = 'outbound', \
        last_us = CASE WHEN $3 > last_us THEN $3 ELSE last_us END WHERE conversation_id = $1";
    sql::query(update)
        .bind(&conversation)
        .bind(&last.text)
        .bind(last.at.micros())
        .bind(last.text.to_lowercase())
        .execute(to)
        .await?;
    Ok(Gone::Out)
}

/// From here on Meta may have it.
pub(super) async fn asking(
    to: &mut Conn,
    message: Uuid,
    at: Timestamp,
) -> Result<InboxFound, sqlx::Error> {
    let update = "UPDATE messages SET asked_us = $2 WHERE message_id = $1 AND status = 'queued' AND asked_us IS NULL";
    let update = sql::query(update).bind(message.to_string()).bind(at.micros());
    Ok(InboxFound::Done(update.execute(to).await?.rows_affected() > 0, Vec::new()))
}

/// Meta has it, under this name.
pub(super) async fn posted(
    to: &mut Conn,
    message: Uuid,
    wamid: &str,
) -> Result<InboxFound, sqlx::Error> {
    let update = sql::query("UPDATE messages SET wamid = $2 WHERE message_id = $1")
        .bind(message.to_string());
    Ok(InboxFound::Done(update.bind(wamid).execute(to).await?.rows_affected() > 0, Vec::new()))
}
