//! A fair scheduler for agents' turns. The number of concurrent turns is limited in total, per
//! account and per agent, so that a slow server delays only its own users. Waiting turns are queued
//! per agent, and the agents are served round-robin. Pure.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

use model::AuthId;

/// The largest numbers of concurrent turns: in total, per main account, and per agent.
const AT_ONCE: usize = 256;
const OF_ACCOUNT: usize = 128;
const OF_AGENT: usize = 32;

/// The running turns and the queues.
#[derive(Debug)]
pub(super) struct Places<T> {
    lines: HashMap<Uuid, Line<T>>,
    /// Agents with waiting turns, each once, in the order in which they are served.
    round: VecDeque<Uuid>,
    accounts: HashMap<AuthId, usize>,
    taken: usize,
}

#[derive(Debug)]
struct Line<T> {
    account: AuthId,
    taken: usize,
    waits: VecDeque<T>,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self { lines: HashMap::new(), round: VecDeque::new(), accounts: HashMap::new(), taken: 0 }
    }
}

impl<T> Places<T> {
    /// Queues a turn for an agent of this account.
    pub(super) fn line_up(&mut self, agent: Uuid, account: AuthId, one: T) {
        let line = self.lines.entry(agent).or_insert_with(|| Line {
            account,
            taken: 0,
            waits: VecDeque::new(),
        });
        if line.waits.is_empty() {
            self.round.push_back(agent);
        }
        line.waits.push_back(one);
    }

    /// Takes the next turn that may start. Its place is occupied until [`Places::free`].
    pub(super) fn next(&mut self) -> Option<T> {
        if self.taken >= AT_ONCE {
            return None;
        }
        for _ in 0..self.round.len() {
            let agent = self.round.pop_front()?;
            let Some(line) = self.lines.get_mut(&agent) else { continue };
            let of_account = self.accounts.entry(line.account.clone()).or_default();
            let one = if line.taken < OF_AGENT && *of_account < OF_ACCOUNT {
                line.waits.pop_front()
            } else {
                None
            };
            if !line.waits.is_empty() {
                self.round.push_back(agent);
            }
            if one.is_some() {
                line.taken += 1;
                *of_account += 1;
                self.taken += 1;
                return one;
            }
        }
        None
    }

    /// Frees the place of a finished turn.
    pub(super) fn free(&mut self, agent: &Uuid, account: &AuthId) {
        self.taken = self.taken.saturating_sub(1);
        if let Some(line) = self.lines.get_mut(agent) {
            line.taken = line.taken.saturating_sub(1);
            if line.taken == 0 && line.waits.is_empty() {
                self.lines.remove(agent);
            }
        }
        if let Some(taken) = self.accounts.get_mut(account) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                self.accounts.remove(account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r10_one_agent_and_one_account_leave_places_to_others() {
        let mut places = Places::default();
        let agent = |n: u128| Uuid::from_u128(n);
        let main = AuthId::from("MA1");
        for n in 0..1_000_u128 {
            places.line_up(agent(1), main.clone(), (1, n));
        }
        let first: Vec<_> = std::iter::from_fn(|| places.next()).collect();
        assert_eq!((first.len(), first[31]), (OF_AGENT, (1, 31)), "in order");
        for of in 2..10 {
            (0..1_000).for_each(|n| places.line_up(agent(of), main.clone(), (of, n)));
        }
        let more: Vec<_> = std::iter::from_fn(|| places.next()).collect();
        assert_eq!(more.len(), OF_ACCOUNT - OF_AGENT);
        assert_eq!(
            more.iter().filter(|(of, _)| *of == 2).count(),
            12,
            "agents take turns: {more:?}"
        );
        places.line_up(agent(77), "MA2".into(), (77, 0));
        assert_eq!(places.next(), Some((77, 0)), "another account waits for none of them");
        assert_eq!(places.next(), None);
        places.free(&agent(1), &main);
        assert!(places.next().is_some());
        assert_eq!(places.next(), None, "a place is one");
        places.free(&agent(77), &"MA2".into());
        assert!(!places.lines.contains_key(&agent(77)), "nothing is left of it");
    }
}
