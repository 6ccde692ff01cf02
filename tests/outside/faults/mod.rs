//! Faults of Meta and of the customer: the real binary, a simulated Meta that fails by rules as in
//! `docs/faults.toml`, and the test's application. The tests assert what is visible outside:
//! requests to Graph, records, callbacks, metrics, and that the next call succeeds.
//!
//! Each rule applies to one user, so that many calls can share a node. Except where that is the
//! subject, no node makes more than ten retries in ten seconds, since the retry budget would
//! interfere.

mod customer;
mod graph;
mod media;
mod storms;
mod webhooks;

use std::time::Duration;

use sim::log::LogEvent;
use sim::{
    CallEvent, CallEventKind, CallOutcome, CallScript, Faults, HangupRule, PhoneKind, Sim,
    SimOptions, SimTimes, WebhookTimes,
};

use crate::support::app::{App, ReceivedRequest};
use crate::support::node::{Node, NodeConfig, sim_options};

/// A document that answers and speaks.
const HELLO: &str = "<Response><Speak>Hello</Speak></Response>";

/// A node, a Meta that fails by rules, and an application. `/answer` says hello.
struct World {
    node: Node,
    sim: Sim,
    app: App,
}

/// The outcome of a call.
struct Call {
    wacid: String,
    events: Vec<CallEvent>,
}

/// Returns the seed of random faults. `OFFHOOK_FAULTS_SEED` sets another.
fn seed() -> u64 {
    std::env::var("OFFHOOK_FAULTS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7)
}

/// Returns the caller for a number, to which rules can refer.
fn user(nr: u32) -> String {
    format!("91940000{nr:04}")
}

/// Returns rules that apply to one user each.
fn rules(user_rules: &[(u32, &str)]) -> String {
    let rule = |(nr, what): &(u32, &str)| format!("[[fault]]\nuser = \"{}\"\n{what}\n", user(*nr));
    format!("seed = {}\n{}", seed(), user_rules.iter().map(rule).collect::<String>())
}

/// A user without media who hangs up after the answer, once the node is certain to know of it: a call
/// whose end arrives before the response to `accept` counts as not answered.
fn without_media(nr: u32) -> CallScript {
    let hangup = HangupRule::AfterAnswer(Duration::from_secs(1));
    CallScript { from: user(nr), phone: PhoneKind::SignallingOnly, hangup, ..CallScript::default() }
}

/// A user with media who stays until the business hangs up.
fn with_media(nr: u32) -> CallScript {
    CallScript { from: user(nr), hangup: HangupRule::Never, ..CallScript::default() }
}

impl World {
    async fn start(rules: &str, change: impl FnOnce(&mut NodeConfig, &App)) -> Self {
        Self::start_with(rules, SimTimes::default(), change).await
    }

    async fn start_with(
        rules: &str,
        times: SimTimes,
        change: impl FnOnce(&mut NodeConfig, &App),
    ) -> Self {
        let app = App::start().await;
        app.xml("/hangup", "").xml("/answer", HELLO);
        let options = SimOptions {
            faults: Faults::parse(rules).expect("rules"),
            seed: Some(seed()),
            times,
            ..sim_options()
        };
        let sim = Sim::start(options).await.expect("the simulated Meta");
        let mut node_config = NodeConfig::new(&sim.graph_url(), &app.url("/answer"));
        node_config.hangup_url = app.url("/hangup");
        node_config.accept_wait_ms = 0;
        node_config.cps = 10_000;
        change(&mut node_config, &app);
        let node = Node::start(&node_config).await;
        sim.set_node_url(node.public.clone());
        Self { node, sim, app }
    }

    /// Runs a call to its end.
    async fn call(&self, script: CallScript) -> Call {
        Call::of(self.sim.place_call(script).all().await)
    }

    /// Runs calls concurrently until the last one ends.
    async fn calls(&self, scripts: impl IntoIterator<Item = CallScript>) -> Vec<Call> {
        futures_util::future::join_all(scripts.into_iter().map(|script| self.call(script))).await
    }

    /// Returns the Graph requests of a call with their status, such as `accept 503`.
    fn graph_requests(&self, wacid: &str) -> Vec<String> {
        let of_call = |line: &LogEvent| match line {
            LogEvent::Graph { action, call_id, status, .. } if call_id == wacid => {
                Some(format!("{action} {status}"))
            }
            _ => None,
        };
        self.sim.log().iter().filter_map(|line| of_call(&line.event)).collect()
    }

    /// Returns how often an action was requested, regardless of the response.
    fn attempts(&self, wacid: &str, action: &str) -> usize {
        self.graph_requests(wacid)
            .iter()
            .filter(|asked| asked.split(' ').next() == Some(action))
            .count()
    }

    /// Returns the hangup callback of a call.
    async fn hangup(&self, wacid: &str) -> ReceivedRequest {
        self.app.wait_where("/hangup", |seen| seen.param("WhatsAppCallID") == wacid).await
    }

    /// Waits until the count of webhook items reaches `count`.
    async fn until_webhooks(&self, kind: &str, result: &str, count: u32) {
        let labels = [("kind", kind), ("result", result)];
        self.node.until_metric("offhook_webhook_events_total", &labels, f64::from(count)).await;
    }

    /// Waits until the items of a kind with one of these results reach `count`.
    async fn until_webhook_sum(&self, kind: &str, results: &[&str], count: u32) {
        let mut every = tokio::time::interval(Duration::from_millis(50));
        for _ in 0..600 {
            every.tick().await;
            let mut sum = 0.0;
            for result in results {
                let labels = [("kind", kind), ("result", result)];
                sum += self.node.metric("offhook_webhook_events_total", &labels).await;
            }
            if sum >= f64::from(count) {
                assert_eq!(sum, f64::from(count), "{kind} {results:?}");
                return;
            }
        }
        panic!("not {count} of {kind} {results:?}:\n{}", self.node.metrics().await);
    }

    async fn admission(&self, result: &str) -> f64 {
        self.node.metric("offhook_admission_total", &[("result", result)]).await
    }

    /// Checks the state after all calls: each admitted call has one record and one hangup callback,
    /// no call was both rejected and accepted, and the next call succeeds.
    async fn assert_clean(&self) {
        self.app.xml("/answer", HELLO);
        let clean = self.call(with_media(9_999)).await;
        assert!(clean.end().ok, "the node is none the worse: {:#?}", clean.events);
        assert_eq!(
            self.graph_requests(&clean.wacid),
            ["pre_accept 200", "accept 200", "terminate 200"]
        );
        for gauge in ["offhook_number_slots_in_use", "offhook_calls_active"] {
            self.node.until_metric(gauge, &[], 0.0).await;
        }
        let admitted = self.admission("admitted").await;
        let delivered = [("kind", "hangup"), ("outcome", "delivered")];
        self.node.until_metric("offhook_callback_total", &delivered, admitted).await;
        let mut calls: Vec<String> =
            self.hangups().iter().map(|s| s.param("CallUUID").to_owned()).collect();
        calls.sort();
        calls.dedup();
        assert_eq!(calls.len() as f64, admitted, "one hangup callback a call");
        let records = self.node.api("Call/?limit=1").await.json();
        assert_eq!(
            records["meta"]["total_count"].as_f64(),
            Some(admitted),
            "one record a call: {records}"
        );
        for line in self.sim.log() {
            if let LogEvent::Graph { action, call_id, .. } = line.event
                && action == "reject"
            {
                assert_eq!(
                    self.attempts(&call_id, "accept"),
                    0,
                    "{call_id}: {:?}",
                    self.graph_requests(&call_id)
                );
            }
        }
    }

    fn hangups(&self) -> Vec<ReceivedRequest> {
        self.app.requests().into_iter().filter(|s| s.path == "/hangup").collect()
    }
}

impl Call {
    fn of(events: Vec<CallEvent>) -> Self {
        let placed = |e: &CallEvent| match &e.kind {
            CallEventKind::Placed { call_id, .. } => Some(call_id.clone()),
            _ => None,
        };
        let wacid =
            events.iter().find_map(placed).unwrap_or_else(|| panic!("not placed: {events:#?}"));
        Self { wacid, events }
    }

    fn end(&self) -> &CallOutcome {
        match self.events.last().map(|e| &e.kind) {
            Some(CallEventKind::Ended(ended)) => ended,
            _ => panic!("no end: {:#?}", self.events),
        }
    }

    /// Returns how often an event occurred.
    fn count(&self, what: &CallEventKind) -> usize {
        self.events.iter().filter(|e| e.kind == *what).count()
    }

    fn was_answered(&self) -> bool {
        self.count(&CallEventKind::Answered) > 0
    }
}

/// A simulator with short timeouts.
fn short_timeouts(accept_window: Duration) -> SimTimes {
    let webhook =
        WebhookTimes { first_retry: Duration::from_millis(100), ..WebhookTimes::default() };
    SimTimes { accept_window, webhook, ..SimTimes::default() }
}
