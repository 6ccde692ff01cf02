//! Decodes webhook bodies to items in order (`docs/reference/meta.md#webhook-bodies`). Pure and
//! tolerant: an error in one item does not affect the others
//! (`docs/reference/meta.md#tolerant-reading`).

mod messages;

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};

use super::items::{Connect, Content, Item, Sdp};
use super::kind::Kind;
use super::read::{self, Value};
use crate::call::binding::CallKey;
use crate::meta::call_named;
use crate::numbers::{self, MetaEvent};
use machine::{PhoneStatus, Termination};
use model::{CallUuid, Direction, PhoneNumberId, digits_of};

/// The body is not JSON (`docs/reference/meta.md#not-json`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the webhook body is not valid JSON, or is nested more than 128 levels deep")]
pub struct BadJson;

/// Decodes a body and passes each item to `take`. Items are not collected, so a large body is held
/// in memory only once.
///
/// # Errors
/// Returns an error if the body is not JSON. `take` was not called then.
pub fn decode(body: &[u8], mut take: impl FnMut(Item)) -> Result<(), BadJson> {
    let document = read::Document::parse(body).ok_or(BadJson)?;
    let Some([object, entries]) = document.value().members(["object", "entry"]) else {
        take(Item::malformed(Kind::OBJECT));
        return Ok(());
    };
    if object.and_then(Value::string).as_deref() != Some("whatsapp_business_account") {
        take(Item::ignored(Kind::OBJECT));
        return Ok(());
    }
    let is_array = entries.is_some_and(|entries| {
        entries.each(|entry| {
            let [waba, changes] = entry.members(["id", "changes"]).unwrap_or_default();
            if !changes.is_some_and(|changes| changes.each(|one| change(one, waba, &mut take))) {
                take(Item::malformed(Kind::OBJECT));
            }
        })
    });
    if !is_array {
        take(Item::malformed(Kind::OBJECT));
    }
    Ok(())
}

/// Decodes one element of `changes`.
fn change(change: Value<'_>, waba: Option<Value<'_>>, take: &mut impl FnMut(Item)) {
    let [field, value] = change.members(["field", "value"]).unwrap_or_default();
    match field.and_then(Value::string) {
        None => take(Item::malformed(Kind::OBJECT)),
        Some(field) if field == "calls" => calls(value, take),
        Some(field) if field == "messages" => messages::messages(value, take),
        Some(field) => {
            let event = value.and_then(|value| account_news(waba, &field, value)).map(Box::new);
            take(Item {
                kind: Kind::of(&field),
                id: None,
                content: Content::Change { digest: change_digest(change), event },
            });
        }
    }
}

/// Extracts account news from a change. Large changes are not parsed.
fn account_news(waba: Option<Value<'_>>, field: &str, value: Value<'_>) -> Option<MetaEvent> {
    let raw = Some(value.raw()).filter(|raw| raw.len() <= SORTED_BYTES_MAX)?;
    let waba = usable_id(waba).unwrap_or_default();
    numbers::parse_change(&waba, field, &serde_json::from_str(raw).ok()?)
}

/// Maximum size of a change that is parsed, because a `serde_json::Value` needs up to eighty times
/// as much memory.
const SORTED_BYTES_MAX: usize = 64 << 10;

/// Returns the SHA-256 of a change with sorted members, or of its bytes if it is too large to sort.
fn change_digest(change: Value<'_>) -> [u8; 32] {
    let raw = change.raw();
    // `serde_json::Value` keeps members in a sorted map.
    let tree = (raw.len() <= SORTED_BYTES_MAX)
        .then(|| serde_json::from_str::<serde_json::Value>(raw).ok())
        .flatten();
    let again = tree.map(|value| value.to_string());
    let hash = digest(&SHA256, again.as_deref().unwrap_or(raw).as_bytes());
    hash.as_ref().try_into().unwrap_or_default()
}

/// Returns an id of 1 to 512 bytes of printable ASCII (`docs/reference/meta.md#bounds`).
fn usable_id(value: Option<Value<'_>>) -> Option<String> {
    value?
        .id()
        .filter(|id| (1..=512).contains(&id.len()) && id.bytes().all(|b| matches!(b, b' '..=b'~')))
}

fn digits(value: Option<Value<'_>>) -> Option<String> {
    value?.id().map(|text| digits_of(&text)).filter(|digits| !digits.is_empty()).map(
        |mut digits| {
            digits.truncate(read::TEXT_MAX);
            digits
        },
    )
}

fn text(value: Option<Value<'_>>) -> Option<String> {
    value?.text()
}

/// The context that all items of a `calls` or `messages` value share.
struct ValueContext {
    phone_number_id: PhoneNumberId,
    /// The digits of `metadata.display_phone_number`.
    display: Option<String>,
    contacts: Vec<Contact>,
    /// Maps each id of a user to an index in `contacts`.
    contact_of: HashMap<String, usize>,
    /// The code of `errors[0]` beside the items.
    error_code: Option<i64>,
}

/// An element of `contacts`.
struct Contact {
    /// The digits of the user's phone number.
    wa_id: Option<String>,
    bsuid: Option<String>,
    /// The profile name without control characters. May be empty.
    name: String,
}

impl ValueContext {
    /// Maximum number of contacts of a body. Meta sends at most 1,000 updates.
    const CONTACTS_MAX: usize = 1_000;

    /// Returns the contact of the user with this number and these user ids. A body can contain several
    /// users with a contact each. The first contact is used for an item without ids. For one with other
    /// ids, it is used if it is the only one and may be the user, since Meta may write the number
    /// differently.
    fn contact(&self, number: Option<&str>, user_ids: [Option<&str>; 2]) -> Option<&Contact> {
        let mut ids = number.into_iter().chain(user_ids.into_iter().flatten()).peekable();
        if ids.peek().is_none() {
            return self.contacts.first();
        }
        if let Some(at) = ids.find_map(|id| self.contact_of.get(id)) {
            return self.contacts.get(*at);
        }
        let has_user_id = user_ids.iter().any(Option::is_some);
        match self.contacts.as_slice() {
            [only] if !(has_user_id && only.bsuid.is_some()) => Some(only),
            _ => None,
        }
    }

    fn add_contact(&mut self, contact: Value<'_>) {
        let at = self.contacts.len();
        let names = ["wa_id", "user_id", "parent_user_id", "profile"];
        if at == Self::CONTACTS_MAX {
            return;
        }
        let Some([wa_id, user_id, parent, profile]) = contact.members(names) else { return };
        let [name] = profile.and_then(|profile| profile.members(["name"])).unwrap_or_default();
        let (wa_id, user_id, parent) = (digits(wa_id), text(user_id), text(parent));
        for id in [&wa_id, &user_id, &parent].into_iter().flatten() {
            self.contact_of.entry(id.clone()).or_insert(at);
        }
        let name = text(name).unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
        self.contacts.push(Contact { wa_id, bsuid: user_id.or(parent), name });
    }
}

fn calls(value: Option<Value<'_>>, take: &mut impl FnMut(Item)) {
    let names = ["metadata", "contacts", "calls", "statuses", "errors"];
    let Some([metadata, contacts, calls, statuses, errors]) =
        value.and_then(|value| value.members(names))
    else {
        return take(Item::malformed(Kind::CALLS));
    };
    // Without a phone number id the items cannot be assigned.
    let context = value_context(metadata, contacts, errors);
    let arrays: Arrays<'_, ValueContext> =
        [(calls, Kind::CALLS, call), (statuses, Kind::CALL_STATUS, call_status)];
    each_item(arrays, context.as_ref(), errors.map(|_| Kind::of("calls.errors")), take);
}

/// The two arrays of a `calls` or `messages` value: each with its kind and the decoder of its
/// elements.
type Arrays<'a, C> = [(Option<Value<'a>>, Kind, fn(Value<'a>, &C) -> Item); 2];

/// Decodes the elements of both arrays. Without `context` they are malformed. `errors` is the kind
/// of an `errors` member, which is an item of its own only if neither array exists
/// (`docs/reference/meta.md#errors`).
fn each_item<C>(
    arrays: Arrays<'_, C>,
    context: Option<&C>,
    errors: Option<Kind>,
    take: &mut impl FnMut(Item),
) {
    let mut any = false;
    let [(_, field, _), _] = &arrays;
    let field = field.clone();
    for (array, kind, read) in arrays {
        let Some(array) = array else { continue };
        any = true;
        let is_array = array.each(|item| {
            take(
                context
                    .map_or_else(|| Item::malformed(kind.clone()), |context| read(item, context)),
            );
        });
        if !is_array {
            take(Item::malformed(kind));
        }
    }
    match errors {
        _ if any => {}
        Some(errors) => take(Item::ignored(errors)),
        None => take(Item::malformed(field)),
    }
}

fn value_context(
    metadata: Option<Value<'_>>,
    contacts: Option<Value<'_>>,
    errors: Option<Value<'_>>,
) -> Option<ValueContext> {
    let [id, display] = metadata?.members(["phone_number_id", "display_phone_number"])?;
    let mut context = ValueContext {
        phone_number_id: usable_id(id)?.into(),
        display: digits(display),
        contacts: Vec::new(),
        contact_of: HashMap::new(),
        error_code: first_code(errors),
    };
    if let Some(contacts) = contacts {
        contacts.each(|contact| context.add_contact(contact));
    }
    Some(context)
}

/// Returns `code` of the first element of `errors`.
fn first_code(errors: Option<Value<'_>>) -> Option<i64> {
    let [code] = errors?.first()?.members(["code"])?;
    code?.integer()
}

/// Returns the text of the first element of `errors`.
fn first_words(errors: Option<Value<'_>>) -> String {
    let texts = errors
        .and_then(Value::first)
        .and_then(|first| first.members(["error_data", "message", "title"]));
    let [data, message, title] = texts.unwrap_or_default();
    let [details] = data.and_then(|data| data.members(["details"])).unwrap_or_default();
    text(details).or_else(|| text(message)).or_else(|| text(title)).unwrap_or_default()
}

/// Decodes one element of `calls`.
fn call(item: Value<'_>, context: &ValueContext) -> Item {
    let Some([event, id]) = item.members(["event", "id"]) else {
        return Item::malformed(Kind::CALLS);
    };
    let id = usable_id(id);
    let Some(event) = event.and_then(Value::string) else {
        return Item { kind: Kind::CALLS, id, content: Content::Malformed };
    };
    let kind = Kind::within("calls", &event);
    let key = id
        .as_deref()
        .map(|id| CallKey { phone_number_id: context.phone_number_id.clone(), wacid: id.into() });
    let content = match (event.to_ascii_lowercase().as_str(), key) {
        ("connect", Some(key)) => connect(item, key, context),
        ("terminate", Some(key)) => terminate(item, key, context),
        ("connect" | "terminate", None) => Content::Malformed,
        _ => Content::Ignored,
    };
    Item { kind, id, content }
}

fn connect(item: Value<'_>, key: CallKey, context: &ValueContext) -> Content {
    let names = [
        "from",
        "to",
        "timestamp",
        "direction",
        "session",
        "connection",
        "biz_opaque_callback_data",
        "cta_payload",
        "deeplink_payload",
    ];
    let Some([from, to, timestamp, direction, session, connection, opaque, cta, deeplink]) =
        item.members(names)
    else {
        return Content::Malformed;
    };
    let (from, to) = (digits(from), digits(to));
    let Some(session) = Session::read(session, connection) else { return Content::Ignored };
    let display = context.display.as_deref();
    let direction = match direction {
        Some(word) => match word.string().unwrap_or_default().to_ascii_uppercase().as_str() {
            "USER_INITIATED" => Direction::Inbound,
            "BUSINESS_INITIATED" => Direction::Outbound,
            // An unknown direction is never guessed (`docs/reference/meta.md#connect-direction`).
            _ => return Content::Ignored,
        },
        None => match session.kind.as_deref() {
            Some("offer") => Direction::Inbound,
            Some("answer") => Direction::Outbound,
            _ if display.is_some() && to.as_deref() == display => Direction::Inbound,
            _ if display.is_some() && from.as_deref() == display => Direction::Outbound,
            // Only calls that a node placed carry its opaque data.
            _ if named(opaque).is_some() => Direction::Outbound,
            _ => return Content::Malformed,
        },
    };
    let names = match direction {
        Direction::Inbound => ["from_user_id", "from_parent_user_id"],
        Direction::Outbound => ["to_user_id", "to_parent_user_id"],
    };
    let [user_id, parent] = item.members(names).unwrap_or_default();
    let (user_id, parent) = (text(user_id), text(parent));
    let (stated, other) = if direction == Direction::Inbound { (&from, &to) } else { (&to, &from) };
    let stated = stated
        .as_deref()
        .filter(|stated| Some(*stated) != display)
        .or(other.as_deref().filter(|other| Some(*other) != display));
    let contact = context.contact(stated, [user_id.as_deref(), parent.as_deref()]);
    let expected = if direction == Direction::Inbound { "offer" } else { "answer" };
    let right_kind = session.kind.as_deref().is_none_or(|kind| kind == expected);
    Content::Connect(Box::new(Connect {
        key,
        direction,
        timestamp: timestamp.and_then(Value::integer),
        contact: contact.and_then(|contact| contact.wa_id.clone()),
        bsuid: user_id.or_else(|| contact.and_then(|contact| contact.bsuid.clone())).or(parent),
        name: contact.map(|contact| contact.name.clone()).unwrap_or_default(),
        from,
        to,
        cta_payload: text(cta),
        deeplink_payload: text(deeplink),
        named: named(opaque),
        sdp: if right_kind { session.sdp } else { Sdp::Bad },
    }))
}

/// Returns the call of this node in `biz_opaque_callback_data`
/// (`docs/reference/meta.md#opaque-data`). `None` if there is none.
fn named(opaque: Option<Value<'_>>) -> Option<CallUuid> {
    call_named(&text(opaque)?)
}

/// The object `session`, or the older `connection.webrtc` if that is absent.
struct Session {
    /// `sdp_type` in lower case. `None` if it is neither "offer" nor "answer".
    kind: Option<String>,
    sdp: Sdp,
}

impl Session {
    /// Maximum size of an SDP in bytes (`docs/reference/meta.md#bounds`).
    const SDP_MAX: usize = 16_384;

    /// Returns `None` without any SDP, as in SIP-signalled calls
    /// (`docs/reference/meta.md#connect-sdp`).
    fn read(session: Option<Value<'_>>, connection: Option<Value<'_>>) -> Option<Self> {
        let Some(session) = session else {
            let [webrtc] = connection?.members(["webrtc"])?;
            let [sdp] = webrtc?.members(["sdp"])?;
            return Some(Self { kind: None, sdp: Self::usable(sdp?) });
        };
        let Some([kind, sdp]) = session.members(["sdp_type", "sdp"]) else {
            return Some(Self { kind: None, sdp: Sdp::Bad });
        };
        let kind = kind.map(|kind| kind.string().unwrap_or_default().to_ascii_lowercase());
        Some(Self { kind, sdp: Self::usable(sdp?) })
    }

    fn usable(sdp: Value<'_>) -> Sdp {
        match sdp.string() {
            Some(text) if !text.is_empty() && text.len() <= Self::SDP_MAX => Sdp::Given(text),
            _ => Sdp::Bad,
        }
    }
}

fn terminate(item: Value<'_>, key: CallKey, context: &ValueContext) -> Content {
    let names =
        ["status", "start_time", "end_time", "duration", "errors", "biz_opaque_callback_data"];
    let [status, start, end, duration, errors, opaque] = item.members(names).unwrap_or_default();
    // Meta's own samples have arrays and mixed case. The first element of an array counts
    // (`docs/reference/meta.md#terminate`).
    let status = status.and_then(|status| text(Some(status)).or_else(|| text(status.first())));
    let status = status.map(|word| match word.to_ascii_lowercase() {
        known if known == "completed" || known == "failed" => known,
        _ => word,
    });
    let termination = Termination {
        status,
        start_time: start.and_then(Value::integer),
        end_time: end.and_then(Value::integer),
        duration_secs: duration.and_then(Value::integer).and_then(|secs| u64::try_from(secs).ok()),
        error_code: first_code(errors).or(context.error_code),
    };
    Content::Terminate { key, named: named(opaque), termination }
}

/// Decodes one element of `statuses` in a `calls` value.
fn call_status(item: Value<'_>, context: &ValueContext) -> Item {
    let [id, status, opaque] =
        item.members(["id", "status", "biz_opaque_callback_data"]).unwrap_or_default();
    let id = usable_id(id);
    let content = match (&id, status.and_then(Value::string)) {
        (Some(id), Some(word)) => {
            let key = CallKey {
                phone_number_id: context.phone_number_id.clone(),
                wacid: id.as_str().into(),
            };
            let all = [PhoneStatus::Ringing, PhoneStatus::Accepted, PhoneStatus::Rejected];
            match all.into_iter().find(|status| word.eq_ignore_ascii_case(status.as_str())) {
                Some(status) => Content::Status { key, named: named(opaque), status },
                None => Content::Ignored,
            }
        }
        _ => Content::Malformed,
    };
    Item { kind: Kind::CALL_STATUS, id, content }
}
