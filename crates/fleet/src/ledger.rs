//! An in-memory implementation of the fleet's tables and SQL functions, which are defined in the
//! migration of the store. Tests compare the two with random requests, and the simulation uses this
//! one.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::beat::{Answer, Beat, Grant, LimitKey, RunState, TermState, Verdict};

/// The tables of a fleet.
///
/// Every method is one transaction. `mark` identifies the incarnation of the primary server that
/// executes it. `new_term` is the id of the term that begins if the transaction begins one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// The incarnation of the primary server that the current term belongs to. Empty if the fleet
    /// has never had a member.
    pub mark: String,
    pub term: TermState,
    pub runs: BTreeMap<Uuid, RunRow>,
    /// The maximum number of units of each limit.
    pub limits: BTreeMap<LimitKey, u32>,
    pub units: BTreeMap<(LimitKey, Uuid), Units>,
}

/// A row of the table of runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRow {
    pub node_id: String,
    pub state: RunState,
    pub seq: i64,
    /// The term in which the run has stated all units that it holds.
    pub restated: Option<Uuid>,
}

/// The units of a limit that a run holds, and those that it has requested and not received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Units {
    pub held: u32,
    pub requested: u32,
}

impl Ledger {
    /// Creates the tables in the state after the migration.
    pub fn new() -> Self {
        Self {
            mark: String::new(),
            term: TermState { id: Uuid::nil(), open: false, book: 0, members: 0 },
            runs: BTreeMap::new(),
            limits: BTreeMap::new(),
            units: BTreeMap::new(),
        }
    }

    /// Implements `oh1_register`: writes the row of a run, and declares an earlier run of the same
    /// node dead.
    ///
    /// Returns `None` if the row was lost and the term is open. The first run of a new database
    /// opens the first term, because no run can hold units that this database has forgotten.
    pub fn register(
        &mut self,
        mark: &str,
        new_term: Uuid,
        run: Uuid,
        node_id: &str,
        again: bool,
    ) -> Option<TermState> {
        if self.mark != mark {
            let first = self.mark.is_empty();
            mark.clone_into(&mut self.mark);
            self.term = TermState { id: new_term, open: first, ..self.term };
        }
        if self.runs.contains_key(&run) {
            return Some(self.term);
        }
        if again && self.term.open {
            return None;
        }
        for row in self.runs.values_mut() {
            if row.node_id == node_id && row.state.is_member() {
                row.state = RunState::Dead;
            }
        }
        let node_id = node_id.to_owned();
        self.runs.insert(run, RunRow { node_id, state: RunState::Up, seq: 0, restated: None });
        self.term.members += 1;
        Some(self.term)
    }

    /// Implements `oh1_beat`: processes a beat and returns the response.
    pub fn beat(&mut self, mark: &str, new_term: Uuid, beat: &Beat) -> Answer {
        if self.mark != mark || beat.refused == Some(self.term.id) {
            mark.clone_into(&mut self.mark);
            self.term = TermState { id: new_term, open: false, ..self.term };
        } else if beat.may_open
            && !self.term.open
            && beat.term == self.term.id
            && self.runs.values().all(|row| {
                let counts = row.state.is_member() || row.state == RunState::Dead;
                !counts || row.restated == Some(self.term.id)
            })
        {
            self.term.open = true;
        }
        let term = self.term;
        let verdict = |verdict| Answer { verdict, term, grants: Vec::new() };
        let Some(row) = self.runs.get_mut(&beat.run) else {
            return verdict(if term.open { Verdict::Dead } else { Verdict::Unknown });
        };
        if !row.state.is_member() {
            return verdict(Verdict::Dead);
        }
        let current = beat.term == term.id;
        if row.seq < beat.acked && current {
            return verdict(Verdict::Lost);
        }
        if row.seq >= beat.seq {
            return verdict(Verdict::Old);
        }
        row.seq = beat.seq;
        if beat.whole && current {
            row.restated = Some(term.id);
        }
        if !current || row.restated != Some(term.id) {
            return verdict(Verdict::Term);
        }
        if beat.whole {
            self.units.retain(|(_, run), _| *run != beat.run);
        }
        let grants = beat.asks.iter().map(|ask| self.grant(beat, &ask.key, ask.want)).collect();
        Answer { verdict: Verdict::Ok, term, grants }
    }

    fn grant(&mut self, beat: &Beat, key: &LimitKey, want: u32) -> Grant {
        let cap = self.limits.get(key).copied();
        let (mut mine, mut others, mut requested) = (0, 0, 0);
        let range = (key.clone(), Uuid::nil())..=(key.clone(), Uuid::max());
        for ((_, run), units) in self.units.range(range) {
            if *run == beat.run {
                mine = units.held;
            } else {
                others += units.held;
                requested += units.requested;
            }
        }
        let held = if beat.whole || want <= mine {
            want
        } else if self.term.open {
            let free = cap.unwrap_or(0).saturating_sub(others).saturating_sub(mine);
            mine + free.min(want - mine)
        } else {
            mine
        };
        self.units.insert((key.clone(), beat.run), Units { held, requested: want - held });
        Grant { held, cap, others, requested }
    }

    /// Declares a run dead, unless it has sent a beat since its `seq` was read.
    pub fn declare_dead(&mut self, run: Uuid, seq: i64) -> bool {
        match self.runs.get_mut(&run) {
            Some(row) if row.state.is_member() && row.seq == seq => {
                row.state = RunState::Dead;
                self.term.members += 1;
                true
            }
            _ => false,
        }
    }

    /// Implements `oh1_release`: gives back the units of a dead run after its calls have ended.
    pub fn release(&mut self, run: Uuid) -> bool {
        let is_dead = |row: &RunRow| row.state == RunState::Dead;
        self.give_back(run, is_dead, RunState::Reaped)
    }

    /// Implements `oh1_leave`: gives back the units of a run without calls and marks it as ended.
    pub fn leave(&mut self, run: Uuid) -> bool {
        self.give_back(run, |row| row.state.is_member(), RunState::Left)
    }

    fn give_back(&mut self, run: Uuid, from: impl Fn(&RunRow) -> bool, to: RunState) -> bool {
        let Some(row) = self.runs.get_mut(&run).filter(|row| from(row)) else { return false };
        row.state = to;
        self.units.retain(|(_, holder), _| *holder != run);
        self.term.members += 1;
        true
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}
