//! What goes wrong.

use crate::rng::Rng;
use crate::world::{MS, SECOND, Snapshot, Time, World};

/// The kinds of faults, each with a weight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults(pub(crate) &'static [(Fault, u64)]);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// A process is stopped and goes on later.
    Pause,
    /// A process is killed, and its node starts again.
    Kill,
    /// Another process of a node continues its run.
    Upgrade,
    /// A process starts, and the commits in which it did are lost.
    LostStart,
    /// The state is set back under the running server.
    SetBack,
    /// Another server becomes the primary, possibly without the last commits, while the old one may
    /// live on.
    Failover,
    /// A server with an older state becomes the primary.
    Restore,
    /// The primary restarts.
    Restart,
    /// Two servers are promoted one after the other, and nodes are divided among them.
    TwoPromotions,
    /// The database is down for a while.
    Outage,
    /// A node connects to an old primary that still lives.
    OldPrimary,
    /// A node is cut from the database, from its peers, or from both.
    Cut,
}

/// All faults.
pub(crate) const ALL: Faults = Faults(&[
    (Fault::Pause, 18),
    (Fault::Kill, 14),
    (Fault::Upgrade, 14),
    (Fault::LostStart, 4),
    (Fault::SetBack, 4),
    (Fault::Failover, 12),
    (Fault::Restore, 4),
    (Fault::Restart, 6),
    (Fault::TwoPromotions, 5),
    (Fault::Outage, 13),
    (Fault::OldPrimary, 6),
    (Fault::Cut, 14),
]);

impl Faults {
    fn pick(self, rng: &mut Rng) -> Fault {
        let mut left = rng.between(1, self.0.iter().map(|(_, weight)| weight).sum());
        for (fault, weight) in self.0 {
            if left <= *weight {
                return *fault;
            }
            left -= weight;
        }
        unreachable!("the weights add up")
    }
}

impl World {
    /// The next fault, some seconds after the last one.
    pub(crate) fn next_fault(&mut self) {
        if !self.faulty {
            return;
        }
        let mean = [3, 6, 12, 20][usize::try_from(self.scene.seed / 4 % 4).expect("small")];
        let delay = self.rng.between(0, 2 * mean * SECOND);
        self.after(delay, Self::next_fault);
        let fault = self.scene.faults.pick(&mut self.rng);
        let awake = self.awake();
        if !awake.is_empty() {
            let node = self.rng.pick(&awake);
            self.inject(fault, node);
        }
    }

    fn inject(&mut self, fault: Fault, node: usize) {
        match fault {
            // With `cluster.strict = false`, a node that does not reach the database starts calls that
            // are not in the table of claims. No other node ends them if this one is declared dead.
            Fault::Pause
                if !self.scene.strict
                    && (self.nodes[node].cut_from_database || self.has_unclaimed_calls(node)) => {}
            Fault::Pause => {
                let time = self.rng.pick(&[1_000, 6_000, 8_000, 9_500, 12_000, 20_000]);
                self.nodes[node].paused_until = self.now + time * MS;
            }
            Fault::Kill => {
                let restart = self.rng.pick(&[300, 3_000, 15_000]) * MS;
                self.kill(node, restart);
            }
            Fault::Upgrade => self.upgrade(node),
            Fault::LostStart => {
                // After 15 s, the run before it is reaped and does not keep a new term closed.
                let restart = self.rng.pick(&[0, 15 * SECOND]);
                self.kill(node, restart);
                let started = self.now + restart;
                let delay = restart + self.rng.between(500 * MS, 6 * SECOND);
                let lives = self.rng.chance(500);
                self.after(delay, move |world| {
                    let history = &world.servers[world.primary].history;
                    let lost = history.iter().filter(|(at, _)| *at >= started).count();
                    world.failover(lost, lives);
                });
            }
            Fault::SetBack if self.scene.synchronous => {}
            Fault::SetBack => {
                let before = self.now.saturating_sub(2 * SECOND);
                let history = &self.servers[self.primary].history;
                let states: Vec<_> =
                    history.iter().rev().filter(|(at, _)| *at < before).take(60).collect();
                if !states.is_empty() {
                    let state = states[self.rng.place(states.len())].1.clone();
                    self.set_back(state);
                }
            }
            Fault::Failover => {
                let lost = self.rng.pick(&[0, 1, 3, 8, 20, 60]);
                let lives = self.rng.chance(500);
                self.failover(lost, lives);
            }
            Fault::Restore => {
                let old = self.primary;
                let history = &self.servers[old].history;
                let state = match history.is_empty() || self.scene.synchronous {
                    true => self.servers[old].snapshot(),
                    false => history[self.rng.place(history.len())].1.clone(),
                };
                self.servers[old].up = false;
                self.promote(state, false);
            }
            Fault::Restart => self.failover(0, false),
            Fault::TwoPromotions => {
                let lost = self.rng.pick(&[0, 5, 20]);
                self.failover(lost, false);
                let first = self.primary;
                let more = self.rng.pick(&[0, 4]);
                let state = self.state_without(first, more);
                let second = self.add_server(state);
                self.servers[second].answers = !self.scene.synchronous;
                for node in 0..self.nodes.len() {
                    if self.rng.chance(400) && self.may_stray(node) {
                        self.nodes[node].server = second;
                        self.return_to_primary(node, 12 * SECOND);
                    }
                }
            }
            Fault::Outage => {
                let server = self.primary;
                self.servers[server].up = false;
                let delay = self.rng.pick(&[1, 5, 12, 20]) * SECOND;
                self.after(delay, move |world| {
                    world.servers[server].up = server == world.primary;
                });
            }
            Fault::OldPrimary => {
                let old: Vec<_> = (self.primary.saturating_sub(3)..self.primary)
                    .filter(|server| self.servers[*server].up)
                    .collect();
                if !old.is_empty() && self.may_stray(node) {
                    self.nodes[node].server = self.rng.pick(&old);
                    let delay = self.rng.pick(&[2, 8]) * SECOND;
                    self.after(delay, move |world| world.nodes[node].server = world.primary);
                }
            }
            Fault::Cut => self.cut(node),
        }
    }

    /// Cuts a node off. Not everything at once: a node that is cut from everybody may use the units
    /// that it holds (`cluster.strict = false`), or be kept fresh by an old primary that it alone
    /// reaches. Both are documented as possible.
    fn cut(&mut self, node: usize) {
        let (mut database, mut peers) =
            self.rng.pick(&[(true, false), (true, false), (false, true), (true, true)]);
        let split = !self.scene.synchronous
            && self.awake().into_iter().any(|node| self.nodes[node].server != self.primary);
        if peers && (!self.scene.strict || split) {
            (database, peers) = (true, false);
        }
        self.nodes[node].cut_from_database |= database;
        self.nodes[node].cut_from_peers |= peers;
        let delay = self.rng.pick(&[3, 15]) * SECOND;
        self.after(delay, move |world| {
            world.nodes[node].cut_from_database = false;
            world.nodes[node].cut_from_peers = false;
        });
    }

    /// The state of a server without its last commits.
    fn state_without(&self, server: usize, lost: usize) -> Snapshot {
        let at = &self.servers[server];
        let lost = if self.scene.synchronous { 0 } else { lost };
        match at.history.len().checked_sub(1 + lost).or(at.history.len().checked_sub(1).map(|_| 0))
        {
            Some(index) => at.history[index].1.clone(),
            None => at.snapshot(),
        }
    }

    fn failover(&mut self, lost: usize, old_lives: bool) {
        let old = self.primary;
        let state = self.state_without(old, lost);
        let kept = self.servers[old].history.len().saturating_sub(lost).max(1);
        let history = self.servers[old].history.iter().take(kept).cloned().collect();
        if self.scene.synchronous || !old_lives {
            self.servers[old].answers = false;
        }
        if !old_lives {
            self.servers[old].up = false;
        }
        self.promote(state, old_lives);
        let primary = self.primary;
        self.servers[primary].history = history;
    }

    fn promote(&mut self, state: Snapshot, old_lives: bool) {
        let old = self.primary;
        self.primary = self.add_server(state);
        for node in 0..self.nodes.len() {
            if !old_lives || self.rng.chance(500) || !self.may_stray(node) {
                self.nodes[node].server = self.primary;
                continue;
            }
            self.return_to_primary(node, 14 * SECOND);
            if self.rng.chance(500) {
                // Its address look-up leads to the new primary, then back, then forward again.
                let (there, back) =
                    (self.rng.between(0, 6 * SECOND), self.rng.between(0, 6 * SECOND));
                self.after(there, move |world| {
                    world.nodes[node].server = world.primary;
                    world.after(back, move |world| {
                        if world.may_stray(node) {
                            world.nodes[node].server = old;
                        }
                    });
                });
            }
        }
    }

    /// Whether a node may be connected to another server than the primary. See [`World::cut`].
    fn may_stray(&self, node: usize) -> bool {
        self.scene.synchronous || !self.nodes[node].cut_from_peers
    }

    fn return_to_primary(&mut self, node: usize, within: Time) {
        let delay = self.rng.between(0, within);
        self.after(delay, move |world| world.nodes[node].server = world.primary);
    }
}
