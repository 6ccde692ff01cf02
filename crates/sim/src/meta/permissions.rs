//! Users' permission to be called, as Meta keeps it (`meta-calling.md` §4.2, §4.3, §6; M14's part of it, M17–M19): requests
//! come as messages, the simulated user accepts, rejects or ignores them, and the answer goes out as a webhook.
//!
//! Built from the page, as the whole stand-in is: it shares no decision with the engine. Times are Unix seconds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::body;
use super::graph::GraphFault;
use super::messages::user_of;
use crate::world::SimNumber;
use crate::{World, locked};
use model::{Country, E164, Origin};

const DAY: i64 = 86_400;
const WEEK: i64 = 7 * DAY;
/// What Meta counts of a pair (§6.1).
#[derive(Clone, Copy, Debug)]
struct Limits {
    requests_a_day: usize,
    requests_a_week: usize,
    calls_a_day: usize,
    revoked_after: u32,
}

const USUAL: Limits =
    Limits { requests_a_day: 1, requests_a_week: 2, calls_a_day: 5, revoked_after: 4 };
const OF_TEST_NUMBERS: Limits =
    Limits { requests_a_day: 25, requests_a_week: 100, calls_a_day: 100, revoked_after: 10 };
/// Countries whose business numbers may not call out.
const BARRED: &[&str] = &["US", "CA", "TR", "EG", "NG", "VN", "PR", "VI", "GU", "AS", "MP"];
/// Pairs kept at most.
const PAIRS_MAX: usize = 10_000;
/// M19.
const READS_A_SECOND: usize = 5;

/// What simulated users have allowed the business before it asks (§4.3, §6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Allow {
    /// Nothing: they must be asked before they are called, and write or call before they are written to.
    Nothing,
    /// Who is known to this world takes calls for good: its usual user, and those whom rules are about. All others: nothing.
    #[default]
    KnownCalls,
    /// Nothing either, as they tell; but they take calls all the same, however many, and messages at any time.
    Everything,
}

/// What the simulated user does about a request; ignoring it is doing nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// For seven days.
    Accept,
    AcceptPermanently,
    Reject,
}

/// A request as the user sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Asked {
    pub(crate) id: String,
    pub(crate) text: String,
    pub(crate) sent: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Grant {
    #[default]
    None,
    Until(i64),
    Permanent,
}

#[derive(Clone, Debug, Default)]
struct Pair {
    grant: Grant,
    /// Since the last connected call.
    requests: Vec<i64>,
    connected: Vec<i64>,
    missed: u32,
    /// Not answered yet.
    open: Vec<Asked>,
}

/// By phone number id and user.
#[derive(Debug, Default)]
pub(crate) struct Permissions {
    allow: Allow,
    /// Users whom this world knows.
    known: BTreeSet<String>,
    /// Phone number ids of Meta's test numbers, which have limits of their own.
    of_test: Mutex<BTreeSet<String>>,
    pairs: Mutex<BTreeMap<(String, String), Pair>>,
    /// When `call_permissions` was read of late, by phone number id.
    reads: Mutex<BTreeMap<String, VecDeque<Instant>>>,
}

/// How many of these were less than `window` ago.
fn within(times: &[i64], now: i64, window: i64) -> usize {
    times.iter().filter(|at| now - **at < window).count()
}

/// When the oldest that fills the limit leaves the window.
fn room_at(times: &[i64], now: i64, window: i64, limit: usize) -> Option<i64> {
    let recent: Vec<i64> = times.iter().copied().filter(|at| now - at < window).collect();
    recent.len().checked_sub(limit).map(|over| recent[over] + window)
}

impl Pair {
    fn grant(&self, now: i64) -> Grant {
        match self.grant {
            Grant::Until(until) if now >= until => Grant::None,
            grant => grant,
        }
    }

    fn may_ask(&self, now: i64, limits: Limits) -> bool {
        within(&self.requests, now, DAY) < limits.requests_a_day
            && within(&self.requests, now, WEEK) < limits.requests_a_week
    }

    fn open(&self, now: i64) -> Vec<Asked> {
        self.open.iter().filter(|asked| now - asked.sent < WEEK).cloned().collect()
    }

    /// §4.2.
    fn told(&self, now: i64, limits: Limits) -> Value {
        let Limits { requests_a_day, requests_a_week, calls_a_day, .. } = limits;
        let limit = |period: &str, times: &[i64], window: i64, max: usize| {
            let mut limit = json!({"time_period": period, "max_allowed": max, "current_usage": within(times, now, window)});
            if let (Some(at), Some(members)) =
                (room_at(times, now, window, max), limit.as_object_mut())
            {
                members.insert("limit_expiration_time".to_owned(), json!(at));
            }
            limit
        };
        let permission = match self.grant(now) {
            Grant::None => json!({"status": "no_permission"}),
            Grant::Until(until) => json!({"status": "temporary", "expiration_time": until}),
            Grant::Permanent => json!({"status": "permanent"}),
        };
        let may_call =
            self.grant(now) != Grant::None && within(&self.connected, now, DAY) < calls_a_day;
        json!({
            "messaging_product": "whatsapp",
            "permission": permission,
            "actions": [
                {"action_name": "send_call_permission_request", "can_perform_action": self.may_ask(now, limits), "limits": [
                    limit("PT24H", &self.requests, DAY, requests_a_day),
                    limit("P7D", &self.requests, WEEK, requests_a_week),
                ]},
                {"action_name": "start_call", "can_perform_action": may_call, "limits": [
                    limit("PT24H", &self.connected, DAY, calls_a_day),
                ]},
            ],
        })
    }
}

impl Permissions {
    pub(crate) fn new(allow: Allow, known: impl IntoIterator<Item = String>) -> Self {
        Self { allow, known: known.into_iter().collect(), ..Self::default() }
    }

    /// Whether users are written to whenever the business likes.
    pub(crate) fn allows_messages(&self) -> bool {
        self.allow == Allow::Everything
    }

    /// Whether a number is one of Meta's test numbers.
    pub(crate) fn is_of_test(&self, number: &str, of_test: bool) {
        let mut all = locked(&self.of_test);
        if of_test {
            all.insert(number.to_owned())
        } else {
            all.remove(number)
        };
    }

    fn limits(&self, number: &str) -> Limits {
        if locked(&self.of_test).contains(number) { OF_TEST_NUMBERS } else { USUAL }
    }

    /// A pair of which nothing happened yet.
    fn fresh(&self, user: &str) -> Pair {
        let permits = self.allow == Allow::KnownCalls && self.known.contains(user);
        Pair { grant: if permits { Grant::Permanent } else { Grant::None }, ..Pair::default() }
    }

    /// A pair as it stands; looking at it keeps nothing.
    fn look(&self, number: &str, user: &str) -> Pair {
        let kept = locked(&self.pairs).get(&(number.to_owned(), user.to_owned())).cloned();
        kept.unwrap_or_else(|| self.fresh(user))
    }

    fn with<T>(
        &self,
        number: &str,
        user: &str,
        act: impl FnOnce(&mut Pair) -> T,
    ) -> Result<T, GraphFault> {
        let mut pairs = locked(&self.pairs);
        let key = (number.to_owned(), user.to_owned());
        if pairs.len() >= PAIRS_MAX && !pairs.contains_key(&key) {
            return Err(GraphFault::parameter("the simulated Meta keeps no more users"));
        }
        Ok(act(pairs.entry(key).or_insert_with(|| self.fresh(user))))
    }

    /// A request comes as a message.
    pub(super) fn request(&self, number: &str, user: &str, asked: Asked) -> Result<(), GraphFault> {
        let limits = self.limits(number);
        self.with(number, user, |pair| {
            let now = asked.sent;
            if !pair.may_ask(now, limits) {
                return Err(GraphFault::limit(138_009, "Call permission request limit hit."));
            }
            pair.requests.retain(|at| now - at < WEEK);
            pair.requests.push(now);
            pair.open = pair.open(now);
            pair.open.push(asked);
            Ok(())
        })?
    }

    /// `call_permissions` of a user; none where it is read too often.
    pub(super) fn read(
        &self,
        number: &str,
        user: &str,
        now: i64,
        instant: Instant,
    ) -> Option<Value> {
        let mut reads = locked(&self.reads);
        let reads = reads.entry(number.to_owned()).or_default();
        while reads
            .front()
            .is_some_and(|at| instant.saturating_duration_since(*at) >= Duration::from_secs(1))
        {
            reads.pop_front();
        }
        if reads.len() >= READS_A_SECOND {
            return None;
        }
        reads.push_back(instant);
        Some(self.look(number, user).told(now, self.limits(number)))
    }

    /// May the business call (M14)? Country, permission and the day's limit, with Meta's codes.
    pub(crate) fn may_call(
        &self,
        number: &SimNumber,
        user: &str,
        now: i64,
    ) -> Result<(), GraphFault> {
        if self.allow == Allow::Everything {
            return Ok(());
        }
        let barred = E164::parse(&number.number).is_ok_and(|digits| match Origin::of(&digits) {
            Origin::Country(country) => {
                BARRED.iter().any(|code| Country::parse(code) == Ok(country))
            }
            Origin::NorthAmerica => true,
            Origin::Unassigned => false,
        });
        if barred {
            return Err(GraphFault::parameter(
                "Business initiated calling is not available for this phone number",
            ));
        }
        let id = &number.phone_number_id;
        let pair = self.look(id, user);
        if pair.grant(now) == Grant::None {
            let details = "Call permission not found.".to_owned();
            return Err(GraphFault { status: 401, code: 138_006, subcode: None, details });
        }
        match room_at(&pair.connected, now, DAY, self.limits(id).calls_a_day) {
            Some(at) => Err(GraphFault::limit(138_012, &format!("Next call allowed at {at}"))),
            None => Ok(()),
        }
    }

    /// The user took a call of the business.
    pub(crate) fn connected(&self, number: &str, user: &str, now: i64) {
        let _ = self.with(number, user, |pair| {
            pair.connected.retain(|at| now - at < DAY);
            pair.connected.push(now);
            pair.requests.clear();
            pair.missed = 0;
        });
    }

    /// The user did not take it (M16). True: that was one too many, and the permission is gone.
    pub(crate) fn missed(&self, number: &str, user: &str, now: i64) -> bool {
        let limits = self.limits(number);
        let revoked = self.with(number, user, |pair| {
            pair.missed += 1;
            let revoked = pair.missed >= limits.revoked_after && pair.grant(now) != Grant::None;
            if revoked {
                pair.grant = Grant::None;
            }
            revoked
        });
        revoked.unwrap_or(false)
    }

    /// The user called, and was answered or not; with `until`, that allows the business to call back (M17).
    pub(crate) fn user_called(&self, number: &str, user: &str, answered: bool, until: Option<i64>) {
        let _ = self.with(number, user, |pair| {
            if answered {
                pair.requests.clear();
            }
            if let Some(until) = until.filter(|_| pair.grant != Grant::Permanent) {
                (pair.grant, pair.missed) = (Grant::Until(until), 0);
            }
        });
    }

    /// The user answers the newest request that is open, or takes a permission back. Gives the request's id and what
    /// the reply says; none: there is nothing to accept.
    fn answer(
        &self,
        number: &str,
        user: &str,
        answer: Answer,
        now: i64,
    ) -> Option<(Option<String>, Value)> {
        let answered = self.with(number, user, |pair| {
            let asked = pair.open(now).pop();
            let (grant, reply) = match answer {
                // A rejected request can still be accepted later.
                Answer::Reject => (Grant::None, json!({"response": "reject"})),
                _ if asked.is_none() => return None,
                Answer::Accept => {
                    let until = now + WEEK;
                    let reply = json!({"response": "accept", "is_permanent": false, "expiration_timestamp": until});
                    (Grant::Until(until), reply)
                }
                Answer::AcceptPermanently => (Grant::Permanent, json!({"response": "accept", "is_permanent": true})),
            };
            pair.grant = grant;
            if answer != Answer::Reject {
                pair.missed = 0;
                pair.open.clear();
            }
            Some((asked.map(|asked| asked.id), reply))
        });
        answered.ok().flatten()
    }

    /// Everything, for people and tests.
    fn shown(&self, now: i64) -> Value {
        let pairs = locked(&self.pairs);
        let shown = pairs.iter().map(|((number, user), pair)| {
            json!({
                "phone_number_id": number,
                "user": user,
                "permission": pair.told(now, self.limits(number))["permission"],
                "missed": pair.missed,
                "connected_today": within(&pair.connected, now, DAY),
                "requests": pair.open(now),
            })
        });
        json!({ "pairs": shown.collect::<Vec<_>>() })
    }
}

/// What somebody wants the simulated user to do; usually to the number and by the user that are there from the start.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AnswerOrder {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) phone_number_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    pub(crate) answer: Answer,
}

impl World {
    /// `GET /_sim/permissions`.
    pub(crate) fn permissions_shown(&self) -> Value {
        self.permissions.shown(self.clock.wall().secs())
    }

    /// The user answers; the reply goes to the node.
    ///
    /// # Errors
    /// There is nothing to accept, or nobody to tell, in words.
    pub(crate) async fn answer_request(
        self: &Arc<Self>,
        order: &AnswerOrder,
    ) -> Result<(), String> {
        let id = order.phone_number_id.as_deref().unwrap_or(crate::world::PHONE_NUMBER_ID);
        let user = &order.user.as_deref().map_or_else(|| crate::world::USER.to_owned(), user_of);
        let number = self
            .number_of_id(id)
            .ok_or_else(|| format!("the simulated Meta has no number {id}"))?;
        let now = self.clock.wall().secs();
        let (asked, mut reply) = self
            .permissions
            .answer(id, user, order.answer, now)
            .ok_or("no request of this number waits for the user's answer")?;
        set(&mut reply, "response_source", "user_action");
        self.chat.hears(id, user, now);
        self.send_reply(&number, user, asked.as_deref(), reply, now).await
    }

    /// Meta takes the permission back, in the user's name (M16).
    pub(crate) async fn revoke(
        self: &Arc<Self>,
        number: &SimNumber,
        user: &str,
    ) -> Result<(), String> {
        let mut reply = json!({"response": "reject"});
        set(&mut reply, "response_source", "automatic");
        self.send_reply(number, user, None, reply, self.clock.wall().secs()).await
    }

    async fn send_reply(
        self: &Arc<Self>,
        number: &SimNumber,
        user: &str,
        context: Option<&str>,
        reply: Value,
        now: i64,
    ) -> Result<(), String> {
        let door = self.usual_door().ok_or("the simulator was not told where the node is")?;
        self.webhooks.verify(&door).await?;
        let id = format!("wamid.{}", self.dice.text(40));
        let name = crate::world::USER_NAME;
        let said = body::Message { number, user, user_name: name, id: &id, at_secs: now };
        let parcel = self.webhooks.parcel(
            &door,
            "call_permission_reply",
            "",
            &body::permission_reply(&said, context, reply),
            None,
        );
        self.webhooks.deliver(&door, parcel, Duration::ZERO, |_| {});
        Ok(())
    }
}

fn set(reply: &mut Value, name: &str, word: &str) {
    if let Some(members) = reply.as_object_mut() {
        members.insert(name.to_owned(), word.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_790_000_000;

    fn asked(sent: i64) -> Asked {
        Asked { id: format!("wamid.{sent}"), text: "May we call?".into(), sent }
    }

    fn code(outcome: Result<(), GraphFault>) -> i64 {
        outcome.err().map_or(0, |fault| fault.code)
    }

    #[test]
    fn m18_requests_have_limits_and_lives() {
        let book = Permissions::default();
        let request = |at| code(book.request("1", "2", asked(at)));
        assert_eq!([request(NOW), request(NOW + DAY - 1), request(NOW + DAY)], [0, 138_009, 0]);
        assert_eq!([request(NOW + WEEK - 1), request(NOW + WEEK)], [138_009, 0]);
        let (id, reply) = book.answer("1", "2", Answer::Accept, NOW + WEEK).expect("open");
        assert_eq!(id.as_deref(), Some(format!("wamid.{}", NOW + WEEK).as_str()), "the newest");
        assert_eq!(reply["expiration_timestamp"], NOW + 2 * WEEK);
        assert!(
            book.answer("1", "2", Answer::Accept, NOW + WEEK).is_none(),
            "nothing is open any more"
        );
        assert!(book.answer("1", "3", Answer::Accept, NOW).is_none());
        book.request("1", "4", asked(NOW)).expect("taken");
        book.answer("1", "4", Answer::Reject, NOW + 1).expect("rejected");
        assert!(
            book.answer("1", "4", Answer::AcceptPermanently, NOW + 2).is_some(),
            "may be accepted later"
        );
        assert!(book.answer("1", "4", Answer::Reject, NOW + 3).is_some(), "and taken back");
        book.request("1", "5", asked(NOW)).expect("taken");
        assert!(book.answer("1", "5", Answer::Accept, NOW + WEEK).is_none(), "too late");
    }

    #[test]
    fn m14_calls_need_permission_and_room() {
        let book = Permissions::default();
        let number = SimNumber::default();
        let id = number.phone_number_id.clone();
        let call = |at| code(book.may_call(&number, "2", at));
        assert_eq!(call(NOW), 138_006);
        book.user_called(&id, "2", false, Some(NOW + WEEK));
        assert_eq!([call(NOW), call(NOW + WEEK - 1), call(NOW + WEEK)], [0, 0, 138_006]);
        (0..5).for_each(|n| book.connected(&id, "2", NOW + n));
        let refused = book.may_call(&number, "2", NOW + 10).expect_err("five");
        assert_eq!(
            (refused.code, refused.details),
            (138_012, format!("Next call allowed at {}", NOW + DAY))
        );
        assert_eq!(call(NOW + DAY), 0);
        assert_eq!([0, 1, 2, 3].map(|_| book.missed(&id, "2", NOW)), [false, false, false, true]);
        assert_eq!(call(NOW + DAY), 138_006);
        for (digits, refused) in
            [("13175551399", 100), ("905321234567", 100), ("18765550123", 138_006)]
        {
            let number = SimNumber { number: digits.into(), ..SimNumber::default() };
            assert_eq!(code(book.may_call(&number, "9", NOW)), refused, "{digits}");
        }
    }

    #[test]
    fn m14_who_is_known_and_a_test_number_have_terms_of_their_own() {
        let number = SimNumber::default();
        let id = number.phone_number_id.clone();
        let granted = |book: &Permissions, user: &str| {
            let told = book.look(&id, user).told(NOW, book.limits(&id));
            let may = told["actions"][1]["can_perform_action"] == true;
            assert_eq!(
                book.may_call(&number, user, NOW).is_ok(),
                may,
                "what is told is what holds: {told}"
            );
            told["permission"]["status"].as_str().unwrap_or_default().to_owned()
        };
        let known = |allow| Permissions::new(allow, ["1".to_owned()]);
        for (allow, of_known, of_other) in [
            (Allow::Nothing, "no_permission", "no_permission"),
            (Allow::KnownCalls, "permanent", "no_permission"),
        ] {
            let book = known(allow);
            assert_eq!(
                (granted(&book, "1").as_str(), granted(&book, "2").as_str()),
                (of_known, of_other),
                "{allow:?}"
            );
        }
        // There it is left to the node to mind it.
        let book = known(Allow::Everything);
        assert_eq!(
            book.look(&id, "2").told(NOW, book.limits(&id))["permission"]["status"],
            "no_permission"
        );
        assert_eq!(code(book.may_call(&number, "2", NOW)), 0);
        let book = known(Allow::KnownCalls);
        (0..5).for_each(|_| book.connected(&id, "1", NOW));
        assert_eq!(code(book.may_call(&number, "1", NOW)), 138_012);
        granted(&book, "1");
        book.is_of_test(&id, true);
        assert_eq!(code(book.may_call(&number, "1", NOW)), 0, "a hundred a day");
        assert_eq!([0, 1].map(|n| code(book.request(&id, "1", asked(NOW + n)))), [0, 0]);
        assert!((1..10).all(|_| !book.missed(&id, "1", NOW)) && book.missed(&id, "1", NOW));
        assert_eq!(granted(&book, "1"), "no_permission", "ten in a row");
    }

    #[test]
    fn m19_reading_has_a_limit_and_the_shape_of_the_fixture() {
        let book = Permissions::default();
        #[allow(clippy::disallowed_methods, reason = "any instant")]
        let begun = Instant::now();
        let at = |millis| book.read("1", "2", NOW, begun + Duration::from_millis(millis));
        let none = at(0).expect("read");
        assert_eq!(
            (&none["permission"], &none["actions"][0]["can_perform_action"]),
            (&json!({"status": "no_permission"}), &json!(true))
        );
        assert!([1, 2, 3, 4].iter().all(|millis| at(*millis).is_some()));
        assert!(at(999).is_none() && book.read("2", "2", NOW, begun).is_some());
        assert!(at(1_000).is_some());
        book.user_called("1", "2", true, Some(NOW + WEEK));
        (0..5).for_each(|_| book.connected("1", "2", NOW - DAY + 3_600));
        book.request("1", "2", asked(NOW - DAY)).expect("taken");
        let told = at(2_500).expect("read");
        let path = format!(
            "{}/../../fixtures/meta/graph/call_permissions_temporary.json",
            env!("CARGO_MANIFEST_DIR")
        );
        let fixture: Value =
            serde_json::from_slice(&std::fs::read(path).expect("fixture")).expect("JSON");
        assert_eq!(told, fixture["response"]);
    }
}
