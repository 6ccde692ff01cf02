//! Users' permissions to be called, as Meta keeps them: permission requests arrive as messages, the
//! simulated user accepts, rejects or ignores them, and the reply is sent as a webhook.
//!
//! Written from Meta's documentation, without code of the engine. Times are Unix seconds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::body;
use super::error::GraphError;
use crate::world::SimNumber;
use crate::world::user_of;
use crate::{World, locked};
use model::{Country, E164, Origin};

const DAY: i64 = 86_400;
const WEEK: i64 = 7 * DAY;
/// Limits of a pair (business number and user).
#[derive(Clone, Copy, Debug)]
struct Limits {
    requests_per_day: usize,
    requests_per_week: usize,
    calls_per_day: usize,
    revoke_after: u32,
}

const DEFAULT_LIMITS: Limits =
    Limits { requests_per_day: 1, requests_per_week: 2, calls_per_day: 5, revoke_after: 4 };
const TEST_NUMBER_LIMITS: Limits =
    Limits { requests_per_day: 25, requests_per_week: 100, calls_per_day: 100, revoke_after: 10 };
/// Business numbers of these countries may not place calls.
const BARRED_COUNTRIES: &[&str] =
    &["US", "CA", "TR", "EG", "NG", "VN", "PR", "VI", "GU", "AS", "MP"];
/// Maximum number of pairs.
const PAIRS_MAX: usize = 10_000;
/// Maximum number of `call_permissions` requests per second and number.
const QUERIES_PER_SECOND_MAX: usize = 5;

/// Which permissions users have given before they are asked, and whether Graph enforces them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PermissionPolicy {
    /// No permissions: users must be asked before they are called, and must write or call before
    /// they receive messages.
    AskFirst,
    /// Known users (the predefined one, and those named by fault rules) have given a permanent
    /// permission. Others must be asked.
    #[default]
    KnownUsers,
    /// `call_permissions` reports no permission, but Graph accepts all calls and messages. The node
    /// has to enforce the rules itself.
    Unenforced,
}

/// A user's answer to a permission request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UserAnswer {
    /// Permission for seven days.
    Accept,
    AcceptPermanently,
    Reject,
}

/// A permission request as the user sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PermissionRequest {
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
    /// Times of requests since the last connected call.
    requests: Vec<i64>,
    connected: Vec<i64>,
    missed: u32,
    /// Unanswered requests.
    open: Vec<PermissionRequest>,
}

/// The permissions of all pairs, by phone number id and user.
#[derive(Debug, Default)]
pub(crate) struct Permissions {
    policy: PermissionPolicy,
    /// Users with a permanent permission under [`PermissionPolicy::KnownUsers`].
    known: BTreeSet<String>,
    /// Phone number ids of Meta's test numbers, which have higher limits.
    test_numbers: Mutex<BTreeSet<String>>,
    pairs: Mutex<BTreeMap<(String, String), Pair>>,
    /// Times of recent `call_permissions` requests, by phone number id.
    queries: Mutex<BTreeMap<String, VecDeque<Instant>>>,
}

/// Number of `times` less than `window` seconds before `now`.
fn count_within(times: &[i64], now: i64, window: i64) -> usize {
    times.iter().filter(|at| now - **at < window).count()
}

/// Returns when the next event is allowed, if `limit` is reached: the time at which the oldest
/// counted event leaves the window.
fn next_allowed_at(times: &[i64], now: i64, window: i64, limit: usize) -> Option<i64> {
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
        count_within(&self.requests, now, DAY) < limits.requests_per_day
            && count_within(&self.requests, now, WEEK) < limits.requests_per_week
    }

    fn open(&self, now: i64) -> Vec<PermissionRequest> {
        self.open.iter().filter(|request| now - request.sent < WEEK).cloned().collect()
    }

    /// The response of `call_permissions`.
    fn status_json(&self, now: i64, limits: Limits) -> Value {
        let Limits { requests_per_day, requests_per_week, calls_per_day, .. } = limits;
        let limit = |period: &str, times: &[i64], window: i64, max: usize| {
            let mut limit = json!({"time_period": period, "max_allowed": max, "current_usage": count_within(times, now, window)});
            if let (Some(at), Some(members)) =
                (next_allowed_at(times, now, window, max), limit.as_object_mut())
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
        let may_call = self.grant(now) != Grant::None
            && count_within(&self.connected, now, DAY) < calls_per_day;
        json!({
            "messaging_product": "whatsapp",
            "permission": permission,
            "actions": [
                {"action_name": "send_call_permission_request", "can_perform_action": self.may_ask(now, limits), "limits": [
                    limit("PT24H", &self.requests, DAY, requests_per_day),
                    limit("P7D", &self.requests, WEEK, requests_per_week),
                ]},
                {"action_name": "start_call", "can_perform_action": may_call, "limits": [
                    limit("PT24H", &self.connected, DAY, calls_per_day),
                ]},
            ],
        })
    }
}

impl Permissions {
    pub(crate) fn new(policy: PermissionPolicy, known: impl IntoIterator<Item = String>) -> Self {
        Self { policy, known: known.into_iter().collect(), ..Self::default() }
    }

    /// Whether messages may be sent outside of the customer service window.
    pub(crate) fn ignores_message_window(&self) -> bool {
        self.policy == PermissionPolicy::Unenforced
    }

    /// Sets whether a number is one of Meta's test numbers.
    pub(crate) fn set_test_number(&self, number: &str, is_test_number: bool) {
        let mut all = locked(&self.test_numbers);
        if is_test_number {
            all.insert(number.to_owned())
        } else {
            all.remove(number)
        };
    }

    fn limits(&self, number: &str) -> Limits {
        if locked(&self.test_numbers).contains(number) {
            TEST_NUMBER_LIMITS
        } else {
            DEFAULT_LIMITS
        }
    }

    /// The state of a pair before its first event.
    fn new_pair(&self, user: &str) -> Pair {
        let permits = self.policy == PermissionPolicy::KnownUsers && self.known.contains(user);
        Pair { grant: if permits { Grant::Permanent } else { Grant::None }, ..Pair::default() }
    }

    /// The current state of a pair. Does not store a new pair.
    fn pair(&self, number: &str, user: &str) -> Pair {
        let stored = locked(&self.pairs).get(&(number.to_owned(), user.to_owned())).cloned();
        stored.unwrap_or_else(|| self.new_pair(user))
    }

    fn update<T>(
        &self,
        number: &str,
        user: &str,
        change: impl FnOnce(&mut Pair) -> T,
    ) -> Result<T, GraphError> {
        let mut pairs = locked(&self.pairs);
        let key = (number.to_owned(), user.to_owned());
        if pairs.len() >= PAIRS_MAX && !pairs.contains_key(&key) {
            return Err(GraphError::parameter("the simulated Meta cannot store more users"));
        }
        Ok(change(pairs.entry(key).or_insert_with(|| self.new_pair(user))))
    }

    /// Records a permission request.
    pub(super) fn request(
        &self,
        number: &str,
        user: &str,
        request: PermissionRequest,
    ) -> Result<(), GraphError> {
        let limits = self.limits(number);
        self.update(number, user, |pair| {
            let now = request.sent;
            if !pair.may_ask(now, limits) {
                return Err(GraphError::limit(138_009, "Call permission request limit hit."));
            }
            pair.requests.retain(|at| now - at < WEEK);
            pair.requests.push(now);
            pair.open = pair.open(now);
            pair.open.push(request);
            Ok(())
        })?
    }

    /// The response of `call_permissions`. `None` if it is requested too often.
    pub(super) fn query(
        &self,
        number: &str,
        user: &str,
        now: i64,
        instant: Instant,
    ) -> Option<Value> {
        let mut queries = locked(&self.queries);
        let queries = queries.entry(number.to_owned()).or_default();
        while queries
            .front()
            .is_some_and(|at| instant.saturating_duration_since(*at) >= Duration::from_secs(1))
        {
            queries.pop_front();
        }
        if queries.len() >= QUERIES_PER_SECOND_MAX {
            return None;
        }
        queries.push_back(instant);
        Some(self.pair(number, user).status_json(now, self.limits(number)))
    }

    /// Checks country, permission and daily limit of a call. Errors have Meta's codes.
    pub(crate) fn check_call(
        &self,
        number: &SimNumber,
        user: &str,
        now: i64,
    ) -> Result<(), GraphError> {
        if self.policy == PermissionPolicy::Unenforced {
            return Ok(());
        }
        let is_barred = E164::parse(&number.number).is_ok_and(|digits| match Origin::of(&digits) {
            Origin::Country(country) => {
                BARRED_COUNTRIES.iter().any(|code| Country::parse(code) == Ok(country))
            }
            Origin::NorthAmerica => true,
            Origin::Unassigned => false,
        });
        if is_barred {
            return Err(GraphError::parameter(
                "Business initiated calling is not available for this phone number",
            ));
        }
        let id = &number.phone_number_id;
        let pair = self.pair(id, user);
        if pair.grant(now) == Grant::None {
            let details = "Call permission not found.".to_owned();
            return Err(GraphError { status: 401, code: 138_006, subcode: None, details });
        }
        match next_allowed_at(&pair.connected, now, DAY, self.limits(id).calls_per_day) {
            Some(at) => Err(GraphError::limit(138_012, &format!("Next call allowed at {at}"))),
            None => Ok(()),
        }
    }

    /// Records that the user answered a call of the business.
    pub(crate) fn record_connected(&self, number: &str, user: &str, now: i64) {
        let _ = self.update(number, user, |pair| {
            pair.connected.retain(|at| now - at < DAY);
            pair.connected.push(now);
            pair.requests.clear();
            pair.missed = 0;
        });
    }

    /// Records that the user did not answer. Returns true if that ends the permission.
    pub(crate) fn record_missed(&self, number: &str, user: &str, now: i64) -> bool {
        let limits = self.limits(number);
        let revoked = self.update(number, user, |pair| {
            pair.missed += 1;
            let revoked = pair.missed >= limits.revoke_after && pair.grant(now) != Grant::None;
            if revoked {
                pair.grant = Grant::None;
            }
            revoked
        });
        revoked.unwrap_or(false)
    }

    /// Records a call of the user. `until` is the end of the permission to call back that comes
    /// with it.
    pub(crate) fn record_user_call(
        &self,
        number: &str,
        user: &str,
        answered: bool,
        until: Option<i64>,
    ) {
        let _ = self.update(number, user, |pair| {
            if answered {
                pair.requests.clear();
            }
            if let Some(until) = until.filter(|_| pair.grant != Grant::Permanent) {
                (pair.grant, pair.missed) = (Grant::Until(until), 0);
            }
        });
    }

    /// Answers the newest open request, or revokes the permission. Returns the id of the request
    /// and the reply. `None` if there is nothing to answer.
    fn answer_latest(
        &self,
        number: &str,
        user: &str,
        answer: UserAnswer,
        now: i64,
    ) -> Option<(Option<String>, Value)> {
        let answered = self.update(number, user, |pair| {
            let request = pair.open(now).pop();
            let (grant, reply) = match answer {
                // A rejected request stays open and can be accepted later.
                UserAnswer::Reject => (Grant::None, json!({"response": "reject"})),
                _ if request.is_none() => return None,
                UserAnswer::Accept => {
                    let until = now + WEEK;
                    let reply = json!({"response": "accept", "is_permanent": false, "expiration_timestamp": until});
                    (Grant::Until(until), reply)
                }
                UserAnswer::AcceptPermanently => (Grant::Permanent, json!({"response": "accept", "is_permanent": true})),
            };
            pair.grant = grant;
            if answer != UserAnswer::Reject {
                pair.missed = 0;
                pair.open.clear();
            }
            Some((request.map(|request| request.id), reply))
        });
        answered.ok().flatten()
    }

    /// All pairs, for tools and tests.
    fn to_json(&self, now: i64) -> Value {
        let pairs = locked(&self.pairs);
        let entries = pairs.iter().map(|((number, user), pair)| {
            json!({
                "phone_number_id": number,
                "user": user,
                "permission": pair.status_json(now, self.limits(number))["permission"],
                "missed": pair.missed,
                "connected_today": count_within(&pair.connected, now, DAY),
                "requests": pair.open(now),
            })
        });
        json!({ "pairs": entries.collect::<Vec<_>>() })
    }
}

/// Body of `POST /_sim/permissions/answer`. Number and user default to the predefined ones.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AnswerRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) phone_number_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    pub(crate) answer: UserAnswer,
}

impl World {
    /// Response of `GET /_sim/permissions`.
    pub(crate) fn permissions_json(&self) -> Value {
        self.permissions.to_json(self.clock.wall().secs())
    }

    /// Answers a permission request and sends the reply to the node.
    ///
    /// # Errors
    ///
    /// Returns a message if there is nothing to accept or the node cannot be reached.
    pub(crate) async fn answer_request(
        self: &Arc<Self>,
        request: &AnswerRequest,
    ) -> Result<(), String> {
        let id = request.phone_number_id.as_deref().unwrap_or(crate::world::PHONE_NUMBER_ID);
        let user = &request.user.as_deref().map_or_else(|| crate::world::USER.to_owned(), user_of);
        let number =
            self.number_by_id(id).ok_or_else(|| format!("unknown phone_number_id {id}"))?;
        let now = self.clock.wall().secs();
        let (request_id, mut reply) = self
            .permissions
            .answer_latest(id, user, request.answer, now)
            .ok_or("the user has no open permission request of this number")?;
        set(&mut reply, "response_source", "user_action");
        self.chat.open_window(id, user, now);
        self.send_reply(&number, user, request_id.as_deref(), reply, now).await
    }

    /// Sends the automatic reply with which Meta revokes a permission.
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
        let target = self.default_target().ok_or("no node is configured: set the node URL")?;
        self.webhooks.verify(&target).await?;
        let id = format!("wamid.{}", self.rng.text(40));
        let name = crate::world::USER_NAME;
        let info = body::MessageInfo { number, user, user_name: name, id: &id, at_secs: now };
        let webhook = self.webhooks.sign(
            &target,
            "call_permission_reply",
            "",
            &body::permission_reply(&info, context, reply),
            None,
        );
        self.webhooks.deliver(&target, webhook, Duration::ZERO, |_| {});
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

    fn permission_request(sent: i64) -> PermissionRequest {
        PermissionRequest { id: format!("wamid.{sent}"), text: "May we call?".into(), sent }
    }

    fn code(outcome: Result<(), GraphError>) -> i64 {
        outcome.err().map_or(0, |error| error.code)
    }

    #[test]
    fn m18_requests_are_limited_and_expire() {
        let permissions = Permissions::default();
        let request = |at| code(permissions.request("1", "2", permission_request(at)));
        assert_eq!([request(NOW), request(NOW + DAY - 1), request(NOW + DAY)], [0, 138_009, 0]);
        assert_eq!([request(NOW + WEEK - 1), request(NOW + WEEK)], [138_009, 0]);
        let (id, reply) =
            permissions.answer_latest("1", "2", UserAnswer::Accept, NOW + WEEK).expect("open");
        assert_eq!(id.as_deref(), Some(format!("wamid.{}", NOW + WEEK).as_str()), "the newest");
        assert_eq!(reply["expiration_timestamp"], NOW + 2 * WEEK);
        assert!(
            permissions.answer_latest("1", "2", UserAnswer::Accept, NOW + WEEK).is_none(),
            "nothing is open any more"
        );
        assert!(permissions.answer_latest("1", "3", UserAnswer::Accept, NOW).is_none());
        permissions.request("1", "4", permission_request(NOW)).expect("taken");
        permissions.answer_latest("1", "4", UserAnswer::Reject, NOW + 1).expect("rejected");
        assert!(
            permissions.answer_latest("1", "4", UserAnswer::AcceptPermanently, NOW + 2).is_some(),
            "may be accepted later"
        );
        assert!(
            permissions.answer_latest("1", "4", UserAnswer::Reject, NOW + 3).is_some(),
            "and taken back"
        );
        permissions.request("1", "5", permission_request(NOW)).expect("taken");
        assert!(
            permissions.answer_latest("1", "5", UserAnswer::Accept, NOW + WEEK).is_none(),
            "too late"
        );
    }

    #[test]
    fn m14_calls_need_permission_and_stay_within_limits() {
        let permissions = Permissions::default();
        let number = SimNumber::default();
        let id = number.phone_number_id.clone();
        let call = |at| code(permissions.check_call(&number, "2", at));
        assert_eq!(call(NOW), 138_006);
        permissions.record_user_call(&id, "2", false, Some(NOW + WEEK));
        assert_eq!([call(NOW), call(NOW + WEEK - 1), call(NOW + WEEK)], [0, 0, 138_006]);
        (0..5).for_each(|n| permissions.record_connected(&id, "2", NOW + n));
        let refused = permissions.check_call(&number, "2", NOW + 10).expect_err("five");
        assert_eq!(
            (refused.code, refused.details),
            (138_012, format!("Next call allowed at {}", NOW + DAY))
        );
        assert_eq!(call(NOW + DAY), 0);
        assert_eq!(
            [0, 1, 2, 3].map(|_| permissions.record_missed(&id, "2", NOW)),
            [false, false, false, true]
        );
        assert_eq!(call(NOW + DAY), 138_006);
        for (digits, refused) in
            [("13175551399", 100), ("905321234567", 100), ("18765550123", 138_006)]
        {
            let number = SimNumber { number: digits.into(), ..SimNumber::default() };
            assert_eq!(code(permissions.check_call(&number, "9", NOW)), refused, "{digits}");
        }
    }

    #[test]
    fn m14_known_users_and_test_numbers_have_other_rules() {
        let number = SimNumber::default();
        let id = number.phone_number_id.clone();
        let granted = |permissions: &Permissions, user: &str| {
            let json = permissions.pair(&id, user).status_json(NOW, permissions.limits(&id));
            let may = json["actions"][1]["can_perform_action"] == true;
            assert_eq!(
                permissions.check_call(&number, user, NOW).is_ok(),
                may,
                "what is told is what holds: {json}"
            );
            json["permission"]["status"].as_str().unwrap_or_default().to_owned()
        };
        let known = |policy| Permissions::new(policy, ["1".to_owned()]);
        for (policy, of_known, of_other) in [
            (PermissionPolicy::AskFirst, "no_permission", "no_permission"),
            (PermissionPolicy::KnownUsers, "permanent", "no_permission"),
        ] {
            let permissions = known(policy);
            assert_eq!(
                (granted(&permissions, "1").as_str(), granted(&permissions, "2").as_str()),
                (of_known, of_other),
                "{policy:?}"
            );
        }
        // Under this policy the node has to enforce the rules.
        let permissions = known(PermissionPolicy::Unenforced);
        assert_eq!(
            permissions.pair(&id, "2").status_json(NOW, permissions.limits(&id))["permission"]["status"],
            "no_permission"
        );
        assert_eq!(code(permissions.check_call(&number, "2", NOW)), 0);
        let permissions = known(PermissionPolicy::KnownUsers);
        (0..5).for_each(|_| permissions.record_connected(&id, "1", NOW));
        assert_eq!(code(permissions.check_call(&number, "1", NOW)), 138_012);
        granted(&permissions, "1");
        permissions.set_test_number(&id, true);
        assert_eq!(code(permissions.check_call(&number, "1", NOW)), 0, "a hundred a day");
        assert_eq!(
            [0, 1].map(|n| code(permissions.request(&id, "1", permission_request(NOW + n)))),
            [0, 0]
        );
        assert!(
            (1..10).all(|_| !permissions.record_missed(&id, "1", NOW))
                && permissions.record_missed(&id, "1", NOW)
        );
        assert_eq!(granted(&permissions, "1"), "no_permission", "ten in a row");
    }

    #[test]
    fn m19_call_permissions_is_limited_and_matches_the_fixture() {
        let permissions = Permissions::default();
        #[allow(clippy::disallowed_methods, reason = "any instant")]
        let start = Instant::now();
        let at = |millis| permissions.query("1", "2", NOW, start + Duration::from_millis(millis));
        let none = at(0).expect("read");
        assert_eq!(
            (&none["permission"], &none["actions"][0]["can_perform_action"]),
            (&json!({"status": "no_permission"}), &json!(true))
        );
        assert!([1, 2, 3, 4].iter().all(|millis| at(*millis).is_some()));
        assert!(at(999).is_none() && permissions.query("2", "2", NOW, start).is_some());
        assert!(at(1_000).is_some());
        permissions.record_user_call("1", "2", true, Some(NOW + WEEK));
        (0..5).for_each(|_| permissions.record_connected("1", "2", NOW - DAY + 3_600));
        permissions.request("1", "2", permission_request(NOW - DAY)).expect("taken");
        let json = at(2_500).expect("read");
        let path = format!(
            "{}/../../fixtures/meta/graph/call_permissions_temporary.json",
            env!("CARGO_MANIFEST_DIR")
        );
        let fixture: Value =
            serde_json::from_slice(&std::fs::read(path).expect("fixture")).expect("JSON");
        assert_eq!(json, fixture["response"]);
    }
}
