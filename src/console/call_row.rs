//! Rows of lists of calls: one line for each call, and the legs that it dialled below it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use uuid::Uuid;

use super::Console;
use super::auth::Visitor;
use super::i18n::Lang;
use super::view::{self, When};
use crate::api::{LiveCall, LiveStatus};
use model::{CallUuid, Country, Direction, E164, Timestamp};
use store::CallRecord;

/// Maximum number of rows whose names are read from conversations.
const NAMES_MAX: usize = 1_000;

/// A call in a list.
pub(super) struct Row {
    pub(super) id: CallUuid,
    /// CSS class, `in` or `out`, and text key of the direction.
    pub(super) arrow: &'static str,
    pub(super) direction: &'static str,
    pub(super) from: String,
    pub(super) to: String,
    /// The business number of a call to an endpoint, for which the caller is a person. See
    /// [`add_own_numbers`].
    business: Option<String>,
    /// Name of the person at the other end. Empty if unknown.
    pub(super) name: String,
    /// Country of the other party.
    pub(super) country: Option<Country>,
    pub(super) started: When,
    /// Time from the answer to the end. Empty while the call is live.
    pub(super) length: String,
    /// Text of the state, and CSS class of its mark.
    pub(super) state: String,
    pub(super) tone: &'static str,
    /// MOS of the worse direction, and CSS class. Empty if it was not measured.
    pub(super) quality: String,
    pub(super) quality_tone: &'static str,
    /// Duration of the request to the answer URL. Empty without one.
    pub(super) answer: String,
    /// The call that dialled this one.
    pub(super) parent: Option<CallUuid>,
    /// Whether the row is below that of its parent.
    pub(super) is_below: bool,
    /// The conversation with the person, if [`add_names`] has found one.
    pub(super) conversation: Option<Uuid>,
}

impl Row {
    /// Creates a row with the fields shared by live and ended calls.
    fn new(
        call: CallUuid,
        direction: Direction,
        (from, to): (&str, &str),
        caller_name: &str,
        started: Timestamp,
    ) -> Self {
        Self {
            id: call,
            arrow: match direction {
                Direction::Inbound => "in",
                Direction::Outbound => "out",
            },
            direction: view::direction(direction),
            from: view::party(from),
            to: view::party(to),
            business: None,
            name: name(direction, caller_name),
            country: country(direction, from, to),
            started: When::of(started),
            length: String::new(),
            state: String::new(),
            tone: "",
            quality: String::new(),
            quality_tone: "",
            answer: String::new(),
            parent: None,
            is_below: false,
            conversation: None,
        }
    }

    /// Address of the person at the other end.
    pub(super) fn address(&self) -> &str {
        if self.arrow == "out" { &self.to } else { &self.from }
    }

    /// Returns the own side: a business number or an endpoint.
    pub(super) fn own(&self) -> &str {
        if let Some(business) = &self.business {
            return business;
        }
        if self.arrow == "out" { &self.from } else { &self.to }
    }

    /// Returns the person at the other end, by name or number. It is the title of the call.
    pub(super) fn person(&self) -> &str {
        if self.name.is_empty() { self.address() } else { &self.name }
    }
}

/// The row of a live or queued call.
pub(super) fn live_row(lang: Lang, call: &LiveCall) -> Row {
    let (state, tone) = match call.status {
        LiveStatus::Queued => ("state.queued", "waiting"),
        LiveStatus::Ringing => ("state.ringing", "waiting"),
        LiveStatus::InProgress => ("state.live", "live"),
    };
    Row {
        state: lang.t(state).to_owned(),
        tone,
        parent: call.parent_call,
        ..Row::new(
            call.call,
            call.direction,
            (&call.from, &call.to),
            &call.caller_name,
            call.started,
        )
    }
}

/// The row of an ended call.
pub(super) fn ended_row(lang: Lang, record: &CallRecord) -> Row {
    let (start, end) = (&record.start, record.end.as_ref());
    let cause = end.map_or("", |end| end.cause.as_str());
    let answered = end.is_some_and(|end| end.answered.is_some());
    let mos = end.and_then(|end| end.quality.as_ref()?.mos());
    let answer_ms = end.and_then(|end| i64::try_from(end.answer_ms?).ok());
    let mut row = Row {
        length: match end.filter(|_| answered) {
            Some(end) => view::clock(Duration::from_secs(end.bill_secs)),
            None => "–".to_owned(),
        },
        state: view::cause(lang, cause).0,
        tone: view::tone(cause, answered),
        quality: mos.map(|mos| lang.decimals(format!("{mos:.1}"))).unwrap_or_default(),
        quality_tone: mos.map_or("", view::mos_tone),
        answer: match answer_ms {
            // The record has whole milliseconds.
            Some(0) => "< 1 ms".to_owned(),
            Some(ms) => lang.duration(ms.saturating_mul(1_000)),
            None => String::new(),
        },
        parent: start.parent_call,
        ..Row::new(
            start.call,
            start.direction,
            (&start.from, &start.to),
            &start.caller_name,
            start.started,
        )
    };
    // The person's data was deleted.
    if row.person().is_empty() {
        lang.t("calls.deleted_person").clone_into(&mut row.name);
    }
    row
}

/// Returns the caller's name, which identifies the person only in inbound calls. In outbound calls
/// it is the name that the business uses.
pub(super) fn name(direction: Direction, caller_name: &str) -> String {
    match direction {
        Direction::Inbound => caller_name.to_owned(),
        Direction::Outbound => String::new(),
    }
}

/// The country of the other party.
pub(super) fn country(direction: Direction, from: &str, to: &str) -> Option<Country> {
    view::country(match direction {
        Direction::Inbound => from,
        Direction::Outbound => to,
    })
}

/// Finds the business numbers of calls that a `Dial` placed to endpoints. They are those of the
/// calls that dialled them, because such a call shows the person as caller.
pub(super) async fn add_own_numbers(console: &Console, visitor: &Visitor, rows: &mut [Row]) {
    let (api, scope, lang) = (console.apis.api(), visitor.person.scope(), visitor.lang());
    let parents = rows.iter().filter(|row| is_to_endpoint(row)).filter_map(|row| row.parent);
    let parents: BTreeSet<CallUuid> = parents.take(NAMES_MAX).collect();
    let mut numbers: BTreeMap<CallUuid, String> = BTreeMap::new();
    for parent in parents {
        let row = match rows.iter().find(|row| row.id == parent) {
            Some(row) => Some(row.own().to_owned()),
            None => match api.live.get(&scope, parent) {
                Some(live) => Some(live_row(lang, &live).own().to_owned()),
                None => match api.store.calls().get(&scope, parent).await {
                    Ok(record) => record.map(|record| ended_row(lang, &record).own().to_owned()),
                    Err(error) => return tracing::warn!(%error, "parent call not read"),
                },
            },
        };
        numbers.extend(row.map(|own| (parent, own)));
    }
    set_own_numbers(rows, &numbers);
}

/// Whether a call went to an endpoint and not to a phone number.
fn is_to_endpoint(row: &Row) -> bool {
    row.arrow == "out" && E164::parse(row.to.trim_start_matches('+')).is_err()
}

fn set_own_numbers(rows: &mut [Row], of_parents: &BTreeMap<CallUuid, String>) {
    for row in rows.iter_mut().filter(|row| is_to_endpoint(row)) {
        row.business = row.parent.and_then(|parent| of_parents.get(&parent).cloned());
    }
}

/// Adds names that are missing in calls, from the conversations with these people.
pub(super) async fn add_names(console: &Console, visitor: &Visitor, rows: &mut [Row]) {
    let unnamed = rows.iter_mut().filter(|row| row.name.is_empty()).take(NAMES_MAX).collect();
    add_conversations(console, visitor, unnamed).await;
}

/// Finds the conversations of calls, and reads the names of people from them.
pub(super) async fn add_conversations(console: &Console, visitor: &Visitor, rows: Vec<&mut Row>) {
    let (api, scope) = (console.apis.api(), visitor.person.scope());
    let found: Vec<(&mut Row, Uuid)> = {
        let tables = api.gate.directory().tables();
        let of = |row: &Row| {
            let number = E164::parse(row.own().trim_start_matches('+')).ok()?;
            let number = tables.by_number(&number)?;
            let owner = &number.account;
            let user = row.address().trim_start_matches('+');
            scope
                .holds(&owner.auth_id, &owner.main().auth_id)
                .then(|| api.inbox.numbers().conversation_of(number, user))
        };
        rows.into_iter().filter_map(|row| of(row).map(|id| (row, id))).collect()
    };
    let ids: Vec<Uuid> = found.iter().map(|(_, id)| *id).collect();
    let names = api.store.conversations().names(&scope, &ids).await.unwrap_or_default();
    for (row, id) in found {
        let Some(name) = names.get(&id) else { continue };
        row.conversation = Some(id);
        if row.name.is_empty() {
            row.name.clone_from(name);
        }
    }
}

/// Puts each leg below the call that dialled it. Rows without a parent in the list keep their place.
pub(super) fn with_legs(rows: Vec<Row>, legs: Vec<Row>) -> Vec<Row> {
    let listed: BTreeSet<CallUuid> = rows.iter().map(|row| row.id).collect();
    let mut below: BTreeMap<CallUuid, Vec<Row>> = BTreeMap::new();
    let mut top = Vec::new();
    let mut placed = BTreeSet::new();
    for leg in legs.into_iter().filter(|leg| !listed.contains(&leg.id)) {
        let Some(parent) = leg.parent else { continue };
        if placed.insert(leg.id) {
            below.entry(parent).or_default().push(leg);
        }
    }
    for row in rows {
        match row.parent.filter(|parent| *parent != row.id && listed.contains(parent)) {
            Some(parent) => below.entry(parent).or_default().push(row),
            None => top.push(row),
        }
    }
    let mut ordered = Vec::new();
    let mut stack: Vec<Row> = top.into_iter().rev().collect();
    while let Some(row) = stack.pop() {
        let mut legs = below.remove(&row.id).unwrap_or_default();
        legs.sort_by(|a, b| b.started.iso.cmp(&a.started.iso));
        legs.iter_mut().for_each(|leg| leg.is_below = true);
        stack.extend(legs);
        ordered.push(row);
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{AuthId, Timestamp};

    fn call(from: &str, direction: Direction) -> LiveCall {
        LiveCall {
            call: CallUuid(Uuid::nil()),
            account: AuthId::from("MA1"),
            main_account: AuthId::from("MA1"),
            direction,
            call_type: model::CallType::Whatsapp,
            from: from.to_owned(),
            to: "918035737458".to_owned(),
            caller_name: String::new(),
            status: LiveStatus::Ringing,
            started: Timestamp::from_micros(0),
            answered: None,
            parent_call: None,
            b_leg: None,
        }
    }

    #[test]
    fn rows_show_the_country_of_the_other_party() {
        let inbound = call("14165550123", Direction::Inbound);
        let mut outbound = call("918035737458", Direction::Outbound);
        outbound.to = "18765550123".to_owned();
        let endpoint = call("sip:desk@acme", Direction::Inbound);
        let rows = [inbound, outbound, endpoint].map(|call| live_row(Lang::En, &call).country);
        assert_eq!(rows, [Some(Country::CA), Country::parse("JM").ok(), None]);
    }

    #[test]
    fn calls_are_titled_by_the_person_at_the_other_end() {
        let mut inbound = call("14165550123", Direction::Inbound);
        inbound.caller_name = "Asha".to_owned();
        let mut outbound = call("918035737458", Direction::Outbound);
        outbound.to = "18765550123".to_owned();
        outbound.caller_name = "Acme Support".to_owned();
        let [inbound, outbound] = [inbound, outbound].map(|call| live_row(Lang::En, &call));
        assert_eq!([inbound.person(), inbound.own()], ["Asha", "+918035737458"]);
        assert_eq!([outbound.person(), outbound.own()], ["+18765550123", "+918035737458"]);
    }

    #[test]
    fn a_leg_to_an_endpoint_has_the_business_number_of_its_parent() {
        let parent = call("14165550123", Direction::Inbound);
        let mut to_endpoint = call("14165550123", Direction::Outbound);
        to_endpoint.to = "sip:desk@calls.example.com".to_owned();
        let mut to_user = call("918035737458", Direction::Outbound);
        to_user.to = "18765550123".to_owned();
        let mut rows = [to_endpoint, to_user].map(|mut leg| {
            leg.parent_call = Some(parent.call);
            live_row(Lang::En, &leg)
        });
        let own = live_row(Lang::En, &parent).own().to_owned();
        set_own_numbers(&mut rows, &BTreeMap::from([(parent.call, own)]));
        assert_eq!(rows.map(|row| row.own().to_owned()), ["+918035737458", "+918035737458"]);
    }

    #[test]
    fn legs_are_placed_below_their_calls() {
        let row = |id: u128, parent: Option<u128>, at: i64| {
            let uuid = |id| CallUuid(Uuid::from_u128(id));
            let mut call = call("14165550123", Direction::Inbound);
            (call.call, call.parent_call) = (uuid(id), parent.map(uuid));
            call.started = Timestamp::from_secs(at);
            live_row(Lang::En, &call)
        };
        let rows = vec![
            row(6, Some(5), 70),
            row(1, None, 60),
            row(2, Some(9), 50),
            row(5, None, 40),
            row(7, Some(7), 30),
        ];
        let legs = vec![
            row(3, Some(1), 62),
            row(4, Some(1), 61),
            row(6, Some(5), 70),
            row(8, Some(4), 63),
        ];
        let rows = with_legs(rows, legs);
        let order: Vec<_> = rows.iter().map(|row| (row.id.0.as_u128(), row.is_below)).collect();
        let below = |id| (id, true);
        let top = |id| (id, false);
        let expected = [top(1), below(4), below(8), below(3), top(2), top(5), below(6), top(7)];
        assert_eq!(order, expected);
    }
}
