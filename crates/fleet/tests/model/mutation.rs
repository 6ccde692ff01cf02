//! Deliberate breakages. Each is one rule that a node or the database does not follow.

use std::collections::BTreeMap;

use offhook_fleet::{Answer, Beat, Ledger, LimitKey, LimitKind, RunState, Units, Verdict};
use uuid::Uuid;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// The mark of the primary is not compared.
    MarkIgnored,
    /// The acknowledged beat is not compared.
    AckedIgnored,
    /// Beats are executed in any order, and twice.
    SeqIgnored,
    /// The sum of the units of others is older than the lock.
    StaleSum,
    /// A run tells the database before it lowers its limit.
    TellFirst,
    /// Any answer raises limits, not only the one to the newest beat.
    AnyAnswer,
    /// Units are given out in a closed term.
    GrowthInClosedTerm,
    /// A term is opened before all runs have stated what they hold.
    OpenBeforeAllRestated,
    /// A term is opened without a wait for runs whose rows were lost.
    OpenAtOnce,
    /// A run admits calls without a look at its last beat.
    FreshnessIgnored,
    /// A run that was declared dead is told that it lives.
    GhostBeatsOn,
    /// The row of a dead run is not looked at.
    DeadRowIgnored,
    /// Units are given back before the calls have ended.
    UnitsBeforeCalls,
    /// A run is dead after 3 s, and its units are given back at once.
    QuickDeath,
    /// A run states what it uses, not what it holds.
    UsedRestated,
    /// The process that hands its calls over gives back their units in its next beat.
    NotFrozen,
    /// A process that continues a run holds the units that the previous one held when it stopped,
    /// although another process may have given some back since.
    UnitsKept,
    /// A run returns to a term that it has left, and does not hear the terms of peers.
    TermTakenBack,
}

impl Mutation {
    /// Changes a beat that is sent.
    pub(crate) fn send(self, calls: u32, beat: &mut Beat) {
        match self {
            Self::UsedRestated if beat.whole => {
                for ask in &mut beat.asks {
                    ask.want = if ask.key.kind() == LimitKind::Slots { calls } else { 0 };
                }
            }
            Self::AckedIgnored => beat.acked = 0,
            Self::OpenAtOnce | Self::OpenBeforeAllRestated => beat.may_open = true,
            _ => {}
        }
    }

    /// Executes a beat.
    pub(crate) fn beat(
        self,
        ledger: &mut Ledger,
        stale: Option<&BTreeMap<(LimitKey, Uuid), Units>>,
        mark: &str,
        new_term: Uuid,
        beat: &Beat,
    ) -> Answer {
        let before = ledger.clone();
        let row = ledger.runs.get_mut(&beat.run);
        match (self, row) {
            (Self::SeqIgnored, Some(row)) => row.seq = row.seq.min(beat.seq - 1),
            (Self::DeadRowIgnored, Some(row)) => row.state = RunState::Up,
            (Self::GrowthInClosedTerm, _) if ledger.mark == mark => ledger.term.open = true,
            (Self::OpenBeforeAllRestated, _) => {
                let current = ledger.mark == mark && beat.refused != Some(ledger.term.id);
                ledger.term.open |= current && beat.may_open && beat.term == ledger.term.id;
            }
            (Self::StaleSum, _) => {
                if let Some(stale) = stale {
                    ledger.units.retain(|(_, run), _| *run == beat.run);
                    let others = stale.iter().filter(|((_, run), _)| *run != beat.run);
                    ledger.units.extend(others.map(|(key, units)| (key.clone(), *units)));
                }
            }
            _ => {}
        }
        let answer = ledger.beat(mark, new_term, beat);
        match self {
            Self::SeqIgnored => {
                if let (Some(row), Some(old)) =
                    (ledger.runs.get_mut(&beat.run), before.runs.get(&beat.run))
                {
                    row.seq = row.seq.max(old.seq);
                }
            }
            Self::DeadRowIgnored => {
                if let (Some(row), Some(old)) =
                    (ledger.runs.get_mut(&beat.run), before.runs.get(&beat.run))
                {
                    row.state = old.state;
                }
            }
            Self::GrowthInClosedTerm if ledger.term.id == before.term.id => {
                // The answer says that the term is open, or the run would not ask for more.
                let opened = before.clone().beat(mark, new_term, beat).term.open;
                ledger.term.open = opened;
            }
            Self::StaleSum => {
                ledger.units.retain(|(_, run), _| *run == beat.run);
                let others = before.units.iter().filter(|((_, run), _)| *run != beat.run);
                ledger.units.extend(others.map(|(key, units)| (key.clone(), *units)));
            }
            _ => {}
        }
        answer
    }

    /// Changes an answer that is received.
    pub(crate) fn receive(self, newest: i64, beat: &mut Beat, answer: &mut Answer) {
        match self {
            Self::AnyAnswer => beat.seq = newest,
            Self::GhostBeatsOn if answer.verdict == Verdict::Dead => {
                answer.verdict = Verdict::Term;
                answer.term.id = beat.term;
            }
            _ => {}
        }
    }
}
