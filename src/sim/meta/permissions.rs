//! Users' permission to be called, as Meta keeps it (`meta-calling.md` §4.2, §4.3, §6; M14's part of it, M17–M19): requests
//! come as messages, the simulated user accepts, rejects or ignores them, and the answer goes out as a webhook.
//!
//! Built from the page, as the whole stand-in is: it shares no decision with the engine. Times are Unix seconds.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::body;
use super::graph::GraphFault;
use crate::model::{Country, E164, Origin};
use crate::sim::world::SimNumber;
use crate::sim::{World, locked};

const DAY: i64 = 86_400;
const WEEK: i64 = 7 * DAY;
const REQUESTS_A_DAY: usize = 1;
const REQUESTS_A_WEEK: usize = 2;
const CALLS_A_DAY: usize = 5;
const REVOKED_AFTER: u32 = 4;
/// Countries whose business numbers may not call out.
const BARRED: &[&str] = &["US", "CA", "TR", "EG", "NG", "VN", "PR", "VI", "GU", "AS", "MP"];
/// Pairs kept at most.
const PAIRS_MAX: usize = 10_000;
/// M19.
const READS_A_SECOND: usize = 5;

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

    fn may_ask(&self, now: i64) -> bool {
        within(&self.requests, now, DAY) < REQUESTS_A_DAY && within(&self.requests, now, WEEK) < REQUESTS_A_WEEK
    }

    fn open(&self, now: i64) -> Vec<Asked> {
        self.open.iter().filter(|asked| now - asked.sent < WEEK).cloned().collect()
    }

    /// §4.2.
    fn told(&self, now: i64) -> Value {
        let limit = |period: &str, times: &[i64], window: i64, max: usize| {
            let mut limit =
                json!({"time_period": period, "max_allowed": max, "current_usage": within(times, now, window)});
            if let (Some(at), Some(members)) = (room_at(times, now, window, max), limit.as_object_mut()) {
                members.insert("limit_expiration_time".to_owned(), json!(at));
            }
            limit
        };
        let permission = match self.grant(now) {
            Grant::None => json!({"status": "no_permission"}),
            Grant::Until(until) => json!({"status": "temporary", "expiration_time": until}),
            Grant::Permanent => json!({"status": "permanent"}),
        };
        let may_call = self.grant(now) != Grant::None && within(&self.connected, now, DAY) < CALLS_A_DAY;
        json!({
            "messaging_product": "whatsapp",
            "permission": permission,
            "actions": [
                {"action_name": "send_call_permission_request", "can_perform_action": self.may_ask(now), "limits": [
                    limit("PT24H", &self.requests, DAY, REQUESTS_A_DAY),
                    limit("P7D", &self.requests, WEEK, REQUESTS_A_WEEK),
                ]},
                {"action_name": "start_call", "can_perform_action": may_call, "limits": [
                    limit("PT24H", &self.connected, DAY, CALLS_A_DAY),
                ]},
            ],
        })
    }
}

impl Permissions {
    fn with<T>(&self, number: &str, user: &str, act: impl FnOnce(&mut Pair) -> T) -> Result<T, GraphFault> {
        let mut pairs = locked(&self.pairs);
        let key = (number.to_owned(), user.to_owned());
        if pairs.len() >= PAIRS_MAX && !pairs.contains_key(&key) {
            return Err(GraphFault::parameter("the simulated Meta keeps no more users"));
        }
        Ok(act(pairs.entry(key).or_default()))
    }

    /// A request comes as a message.
    pub(super) fn request(&self, number: &str, user: &str, asked: Asked) -> Result<(), GraphFault> {
        self.with(number, user, |pair| {
            let now = asked.sent;
            if !pair.may_ask(now) {
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
    pub(super) fn read(&self, number: &str, user: &str, now: i64, instant: Instant) -> Option<Value> {
        let mut reads = locked(&self.reads);
        let reads = reads.entry(number.to_owned()).or_default();
        while reads.front().is_some_and(|at| instant.saturating_duration_since(*at) >= Duration::from_secs(1)) {
            reads.pop_front();
        }
        if reads.len() >= READS_A_SECOND {
            return None;
        }
        reads.push_back(instant);
        let key = (number.to_owned(), user.to_owned());
        Some(locked(&self.pairs).get(&key).cloned().unwrap_or_default().told(now))
    }

    /// May the business call (M14)? Country, permission and the day's limit, with Meta's codes.
    pub(crate) fn may_call(&self, number: &SimNumber, user: &str, now: i64) -> Result<(), GraphFault> {
        let barred = E164::parse(&number.number).is_ok_and(|digits| match Origin::of(&digits) {
            Origin::Country(country) => BARRED.iter().any(|code| Country::parse(code) == Ok(country)),
            Origin::NorthAmerica => true,
            Origin::Nowhere => false,
        });
        if barred {
            return Err(GraphFault::parameter("Business initiated calling is not available for this phone number"));
        }
        self.with(&number.phone_number_id, user, |pair| {
            if pair.grant(now) == Grant::None {
                let details = "Call permission not found.".to_owned();
                return Err(GraphFault { status: 401, code: 138_006, subcode: None, details });
            }
            match room_at(&pair.connected, now, DAY, CALLS_A_DAY) {
                Some(at) => Err(GraphFault::limit(138_012, &format!("Next call allowed at {at}"))),
                None => Ok(()),
            }
        })?
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
        let revoked = self.with(number, user, |pair| {
            pair.missed += 1;
            let revoked = pair.missed >= REVOKED_AFTER && pair.grant(now) != Grant::None;
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
    fn answer(&self, number: &str, user: &str, answer: Answer, now: i64) -> Option<(Option<String>, Value)> {
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
                "permission": pair.told(now)["permission"],
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
    pub(crate) async fn answer_request(self: &Arc<Self>, order: &AnswerOrder) -> Result<(), String> {
        let id = order.phone_number_id.as_deref().unwrap_or(crate::sim::world::PHONE_NUMBER_ID);
        let user = order.user.as_deref().unwrap_or(crate::sim::world::USER);
        let number = self.number_of_id(id).ok_or_else(|| format!("the simulated Meta has no number {id}"))?;
        let now = self.clock.wall().secs();
        let (asked, mut reply) = self
            .permissions
            .answer(id, user, order.answer, now)
            .ok_or("no request of this number waits for the user's answer")?;
        set(&mut reply, "response_source", "user_action");
        self.send_reply(&number, user, asked.as_deref(), reply, now).await
    }

    /// Meta takes the permission back, in the user's name (M16).
    pub(crate) async fn revoke(self: &Arc<Self>, number: &SimNumber, user: &str) -> Result<(), String> {
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
        let name = crate::sim::world::USER_NAME;
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
        assert!(book.answer("1", "2", Answer::Accept, NOW + WEEK).is_none(), "nothing is open any more");
        assert!(book.answer("1", "3", Answer::Accept, NOW).is_none());
        book.request("1", "4", asked(NOW)).expect("taken");
        book.answer("1", "4", Answer::Reject, NOW + 1).expect("rejected");
        assert!(book.answer("1", "4", Answer::AcceptPermanently, NOW + 2).is_some(), "may be accepted later");
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
        assert_eq!((refused.code, refused.details), (138_012, format!("Next call allowed at {}", NOW + DAY)));
        assert_eq!(call(NOW + DAY), 0);
        assert_eq!([0, 1, 2, 3].map(|_| book.missed(&id, "2", NOW)), [false, false, false, true]);
        assert_eq!(call(NOW + DAY), 138_006);
        for (digits, refused) in [("13175551399", 100), ("905321234567", 100), ("18765550123", 138_006)] {
            let number = SimNumber { number: digits.into(), ..SimNumber::default() };
            assert_eq!(code(book.may_call(&number, "9", NOW)), refused, "{digits}");
        }
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
        let path = format!("{}/fixtures/meta/graph/call_permissions_temporary.json", env!("CARGO_MANIFEST_DIR"));
        let fixture: Value = serde_json::from_slice(&std::fs::read(path).expect("fixture")).expect("JSON");
        assert_eq!(told, fixture["response"]);
    }
}
