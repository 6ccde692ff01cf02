//! The plan of a run: limits, callers, and the frequency of each fault.
//!
//! Each fault is off in most runs and frequent in some, so that a run exercises few of them. Faults
//! that always occur together mask each other.

use machine::MachineLimits;

use crate::rng::Rng;

pub const MS: u64 = 1_000;
pub const SECOND: u64 = 1_000_000;

/// A business number.
#[derive(Clone, Debug)]
pub struct NumberPlan {
    pub limit: u32,
    /// It belongs to the subaccount.
    pub of_sub: bool,
    pub fallback: bool,
    /// It has its own hangup URL.
    pub hangup: bool,
}

/// A user who calls.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub at_us: u64,
    pub number: usize,
    /// Time from the start of the call until the user hangs up, or `None` if the user stays on the
    /// line.
    pub patience_us: Option<u64>,
    /// Reuses the id of the previous call at another number, which makes two calls.
    pub same_id: bool,
    pub bad_offer: bool,
    /// Offset of Meta's clock in seconds.
    pub skew_secs: i64,
}

/// Frequency of each fault, in 1,000.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    // Webhooks
    pub copies: u32,
    pub delay: u32,
    pub loss: u32,
    pub answer_lost: u32,
    pub batch: u32,
    // Graph
    pub graph_refused: u32,
    pub graph_5xx: u32,
    pub graph_rate: u32,
    pub graph_nonsense: u32,
    pub graph_silent: u32,
    pub graph_reset: u32,
    pub graph_reset_after: u32,
    pub graph_unreachable: u32,
    pub graph_slow: u32,
    // The customer's server
    pub app_silent: u32,
    pub app_status: u32,
    pub app_garbage: u32,
    pub app_slow: u32,
    pub app_loop: u32,
    pub app_refuses_callbacks: u32,
    pub abort_late: u32,
    // Media
    pub no_media: u32,
    pub media_never: u32,
    pub media_late: u32,
    pub media_lost: u32,
    pub no_dtls_close: u32,
    pub play_fails: u32,
    // Users and operators
    pub keys: u32,
    pub hang_up_by_api: u32,
    // The node
    pub panic: u32,
    pub store_stuck: u32,
    // Business-initiated calls: Graph and the phones
    pub connect_refused: u32,
    pub connect_done_and_503: u32,
    pub unnamed: u32,
    pub bad_answer: u32,
    pub never_rings: u32,
    pub declines: u32,
    pub ignores: u32,
    pub answered_at_once: u32,
}

/// An order for a business-initiated call.
#[derive(Clone, Debug)]
pub struct Order {
    pub at_us: u64,
    pub number: usize,
    pub user: usize,
    pub ring_timeout_ms: u64,
    pub hangup_on_ring_ms: Option<u64>,
    pub ring_url: bool,
    pub digits: bool,
    /// When the order is cancelled.
    pub cancel_us: Option<u64>,
    /// Time from the answer until the user hangs up, or `None` if the user stays on the line.
    pub patience_us: Option<u64>,
}

/// Users with this number or higher grant no permission.
pub const UNWILLING: usize = 100;

#[derive(Clone, Debug)]
pub struct Plan {
    pub numbers: Vec<NumberPlan>,
    pub cps: u32,
    pub sub_cps: Option<u32>,
    /// The limits of live calls and of rejects per node.
    pub live_max: usize,
    pub rejects_max: usize,
    pub limits: MachineLimits,
    pub arrivals: Vec<Arrival>,
    pub orders: Vec<Order>,
    pub faults: Faults,
    /// Number of effects before each crash.
    pub crashes: Vec<u32>,
    /// Crashes at fixed times.
    pub kills_us: Vec<u64>,
    pub drain_at_us: Option<u64>,
    pub drain_us: u64,
    /// Changes of the wall clock: when, and by how many seconds.
    pub jumps: Vec<(u64, i64)>,
    /// When the limits of the numbers change.
    pub reload_at_us: Option<u64>,
    /// The time after which all faults stop.
    pub healed_at_us: u64,
    /// Meta answers the `accept` of an accepted call with an error.
    pub accept_once: bool,
    /// Keep the event logs and replay them.
    pub replayed: bool,
}

impl Plan {
    /// Draws a plan. With `business` set, the plan includes business-initiated calls.
    pub fn of(rng: &mut Rng, business: bool) -> Self {
        let mut aside = rng.clone().fork();
        let mut plan = Self::drawn(rng);
        // Some plans reach the end of the answer window, which others rarely do: the media path is
        // never established, the wait is as long as allowed, and Graph is silent or busy meanwhile.
        // They are drawn from a separate generator, so that other seeds keep their plans.
        if aside.chance(30) {
            plan.limits.accept_wait_ms = 19_500;
            let rare =
                [&mut plan.faults.app_silent, &mut plan.faults.app_garbage, &mut plan.faults.panic];
            rare.into_iter().for_each(|fault| *fault = 0);
            let often = [
                &mut plan.faults.media_never,
                &mut plan.faults.graph_silent,
                &mut plan.faults.graph_slow,
            ];
            often.into_iter().for_each(|fault| *fault = 700);
        }
        if business {
            plan.place_calls(&mut aside);
        }
        plan
    }

    fn place_calls(&mut self, rng: &mut Rng) {
        // Sometimes a crowd, so that the last calls exceed the maximum wait.
        let crowd = rng.chance(6);
        if crowd {
            (self.cps, self.sub_cps, self.live_max) = (1, Some(1), 1_000);
            self.numbers.iter_mut().for_each(|number| number.limit = 200);
            (self.crashes, self.kills_us, self.drain_at_us, self.reload_at_us) =
                (Vec::new(), Vec::new(), None, None);
        } else if rng.chance(500) {
            // Fewer inbound calls, to leave room.
            self.arrivals.truncate(1);
        }
        self.orders = orders(rng, self.numbers.len(), crowd);
        let last = self.orders.last().map_or(0, |order| order.at_us);
        self.healed_at_us = self.healed_at_us.max(last + if crowd { 200 } else { 60 } * SECOND);
        let sometimes =
            |rng: &mut Rng, levels: &[u32]| if rng.chance(650) { 0 } else { rng.pick(levels) };
        const SOME: &[u32] = &[50, 200, 600];
        self.faults.connect_refused = sometimes(rng, &[50, 300]);
        self.faults.connect_done_and_503 = sometimes(rng, &[50, 300]);
        self.faults.unnamed = sometimes(rng, SOME);
        self.faults.bad_answer = sometimes(rng, &[50, 300]);
        self.faults.never_rings = sometimes(rng, SOME);
        self.faults.declines = sometimes(rng, SOME);
        self.faults.ignores = sometimes(rng, SOME);
        self.faults.answered_at_once = sometimes(rng, SOME);
        self.faults.hang_up_by_api = sometimes(rng, &[100, 400]);
        if !crowd && self.jumps.is_empty() && rng.chance(300) {
            // While the first calls are placed.
            self.crashes.push(u32::try_from(rng.between(1, 40)).expect("few"));
        }
    }

    fn drawn(rng: &mut Rng) -> Self {
        let numbers: Vec<_> = (0..rng.pick(&[1, 1, 2, 3]))
            .map(|_| NumberPlan {
                limit: rng.pick(&[1, 2, 2, 3, 5]),
                of_sub: rng.chance(300),
                fallback: rng.chance(500),
                hangup: rng.chance(600),
            })
            .collect();
        let arrivals = arrivals(rng, numbers.len());
        let last = arrivals.last().map_or(0, |a| a.at_us);
        // After a clock change and a crash a node can't know how long ago a call began, so a plan
        // has one or the other.
        let jumps = (0..rng.pick(&[0, 0, 0, 0, 1, 3]))
            .map(|_| (rng.between(0, last + 30 * SECOND), rng.pick(&[-3_600, -40, 40, 3_600])))
            .collect::<Vec<_>>();
        let crashes: Vec<_> =
            (0..rng.pick(&[0, 0, 0, 0, 1, 1, 2])).map(|_| rng.between(1, 120) as u32).collect();
        let kills_us: Vec<_> = (0..rng.pick(&[0, 0, 0, 0, 0, 1]))
            .map(|_| rng.between(0, last + 30 * SECOND))
            .collect();
        let limits = MachineLimits {
            accept_wait_ms: rng.pick(&[0, 500, 3_000]),
            max_call_ms: rng.pick(&[8_000, 60_000, 200_000]),
            fetch_ms: rng.pick(&[2_000, 10_000]),
            ..MachineLimits::default()
        };
        Self {
            numbers,
            cps: rng.pick(&[1, 2, 2, 3, 10]),
            sub_cps: rng.pick(&[None, Some(1), Some(2)]),
            live_max: rng.pick(&[2, 5, 100, 100, 100]),
            rejects_max: rng.pick(&[1, 100, 100]),
            limits,
            arrivals,
            orders: Vec::new(),
            faults: Faults::of(rng),
            crashes: if jumps.is_empty() { crashes } else { Vec::new() },
            kills_us: if jumps.is_empty() { kills_us } else { Vec::new() },
            jumps,
            drain_at_us: rng.chance(120).then(|| rng.between(0, last + 20 * SECOND)),
            drain_us: rng.pick(&[0, 5, 60]) * SECOND,
            reload_at_us: rng.chance(150).then(|| rng.between(0, last + 5 * SECOND)),
            healed_at_us: last + 60 * SECOND,
            accept_once: rng.chance(300),
            replayed: rng.chance(80),
        }
    }
}

impl Faults {
    fn of(rng: &mut Rng) -> Self {
        // One run in ten has no faults, so that failures there are always bugs of the program.
        let calm = rng.chance(100);
        let often = |rng: &mut Rng, levels: &[u32]| {
            if calm || rng.chance(700) { 0 } else { rng.pick(levels) }
        };
        const SOME: &[u32] = &[30, 150, 500];
        Self {
            copies: often(rng, &[100, 400, 900]),
            delay: often(rng, SOME),
            loss: often(rng, &[30, 200]),
            answer_lost: often(rng, SOME),
            batch: often(rng, SOME),
            graph_refused: often(rng, &[20, 200]),
            graph_5xx: often(rng, SOME),
            graph_rate: often(rng, SOME),
            graph_nonsense: often(rng, SOME),
            graph_silent: often(rng, &[30, 200]),
            graph_reset: often(rng, SOME),
            graph_reset_after: often(rng, SOME),
            graph_unreachable: often(rng, &[30, 300, 900]),
            graph_slow: often(rng, SOME),
            app_silent: often(rng, &[50, 300]),
            app_status: often(rng, SOME),
            app_garbage: often(rng, &[50, 300]),
            app_slow: often(rng, SOME),
            app_loop: often(rng, &[20, 60]),
            app_refuses_callbacks: often(rng, &[100, 300]),
            abort_late: often(rng, &[300, 900]),
            no_media: often(rng, &[50, 300]),
            media_never: often(rng, &[50, 300]),
            media_late: often(rng, SOME),
            media_lost: often(rng, &[50, 300]),
            no_dtls_close: often(rng, SOME),
            play_fails: often(rng, SOME),
            keys: if rng.chance(500) { 700 } else { 0 },
            hang_up_by_api: often(rng, &[100, 400]),
            panic: often(rng, &[3, 15]),
            store_stuck: often(rng, &[20, 100]),
            ..Self::default()
        }
    }
}

fn arrivals(rng: &mut Rng, numbers: usize) -> Vec<Arrival> {
    let calls = if rng.chance(40) { rng.between(12, 24) } else { rng.between(1, 7) };
    let storm = rng.chance(250);
    let mut at_us = 0;
    (0..calls)
        .map(|_| {
            // Around a whole second, where the calls-per-second window ends.
            let gap = match rng.between(0, 9) {
                0 => 0,
                1 => SECOND,
                2 => SECOND - 1,
                3 => rng.pick(&[500 * MS, 333 * MS, 999 * MS, SECOND + 1]),
                4..=6 => rng.between(0, 200) * MS,
                _ if storm => rng.between(0, 400) * MS,
                7 | 8 => rng.between(0, 5 * SECOND),
                _ => rng.between(0, 60 * SECOND),
            };
            at_us += gap;
            let patience_us = match rng.between(0, 9) {
                0 => Some(rng.between(0, 2 * SECOND)),
                1..=3 => Some(rng.between(0, 12 * SECOND)),
                4 | 5 => Some(rng.between(0, 60 * SECOND)),
                _ => None,
            };
            Arrival {
                at_us,
                number: rng.place(numbers),
                patience_us,
                same_id: rng.chance(60),
                bad_offer: rng.chance(30),
                skew_secs: if rng.chance(80) {
                    rng.pick(&[-120, -61, -60, -59, 120, 299, 301])
                } else {
                    0
                },
            }
        })
        .collect()
}

fn orders(rng: &mut Rng, numbers: usize, crowd: bool) -> Vec<Order> {
    let calls = if crowd { rng.between(123, 135) } else { rng.between(1, 9) };
    let users = rng.pick(&[1, 2, 5, 9]);
    let mut at_us = 0;
    (0..usize::try_from(calls).expect("few"))
        .map(|index| {
            at_us += match rng.between(0, 9) {
                _ if crowd => 0,
                0..=3 => 0,
                4 => SECOND,
                5 => SECOND - 1,
                6 | 7 => rng.between(0, 300) * MS,
                8 => rng.between(0, 5 * SECOND),
                _ => rng.between(0, 40 * SECOND),
            };
            let user = if crowd { index % UNWILLING } else { rng.place(users) };
            let unwilling = !crowd && rng.chance(40);
            Order {
                at_us,
                number: if crowd { index / UNWILLING % numbers } else { rng.place(numbers) },
                user: if unwilling { UNWILLING + user } else { user },
                ring_timeout_ms: rng.pick(&[5_000, 30_000, 60_000]),
                hangup_on_ring_ms: rng.chance(150).then(|| rng.between(0, 10_000)),
                ring_url: rng.chance(600),
                digits: rng.chance(200),
                cancel_us: (!crowd && rng.chance(150)).then(|| rng.between(0, 20 * SECOND)),
                patience_us: rng.chance(600).then(|| rng.between(0, 30 * SECOND)),
            }
        })
        .collect()
}
