//! A fair scheduler for agents' turns. The number of concurrent turns is limited in total, per
//! account and per agent, so that a slow server delays only its own users. Waiting turns are queued
//! per agent, and the agents are served round-robin. Pure.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

use model::AuthId;

/// The largest numbers of concurrent turns: in total, per main account, and per agent.
const TURNS_MAX: usize = 256;
const ACCOUNT_TURNS_MAX: usize = 128;
const AGENT_TURNS_MAX: usize = 32;

/// The running turns and the queues.
#[derive(Debug)]
pub(super) struct Scheduler<T> {
    queues: HashMap<Uuid, AgentQueue<T>>,
    /// Agents with waiting turns, each once, in the order in which they are served.
    round: VecDeque<Uuid>,
    accounts: HashMap<AuthId, usize>,
    taken: usize,
}

#[derive(Debug)]
struct AgentQueue<T> {
    account: AuthId,
    taken: usize,
    waiting: VecDeque<T>,
}

impl<T> Default for Scheduler<T> {
    fn default() -> Self {
        Self { queues: HashMap::new(), round: VecDeque::new(), accounts: HashMap::new(), taken: 0 }
    }
}

impl<T> Scheduler<T> {
    /// Queues a turn for an agent of this account.
    pub(super) fn push(&mut self, agent: Uuid, account: AuthId, one: T) {
        let queue = self.queues.entry(agent).or_insert_with(|| AgentQueue {
            account,
            taken: 0,
            waiting: VecDeque::new(),
        });
        if queue.waiting.is_empty() {
            self.round.push_back(agent);
        }
        queue.waiting.push_back(one);
    }

    /// Takes the next turn that may start. Its place is occupied until [`Scheduler::free`].
    pub(super) fn next(&mut self) -> Option<T> {
        if self.taken >= TURNS_MAX {
            return None;
        }
        for _ in 0..self.round.len() {
            let agent = self.round.pop_front()?;
            let Some(queue) = self.queues.get_mut(&agent) else { continue };
            let of_account = self.accounts.entry(queue.account.clone()).or_default();
            let one = if queue.taken < AGENT_TURNS_MAX && *of_account < ACCOUNT_TURNS_MAX {
                queue.waiting.pop_front()
            } else {
                None
            };
            if !queue.waiting.is_empty() {
                self.round.push_back(agent);
            }
            if one.is_some() {
                queue.taken += 1;
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
        if let Some(queue) = self.queues.get_mut(agent) {
            queue.taken = queue.taken.saturating_sub(1);
            if queue.taken == 0 && queue.waiting.is_empty() {
                self.queues.remove(agent);
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
        let mut scheduler = Scheduler::default();
        let agent = |n: u128| Uuid::from_u128(n);
        let main = AuthId::from("MA1");
        for n in 0..1_000_u128 {
            scheduler.push(agent(1), main.clone(), (1, n));
        }
        let first: Vec<_> = std::iter::from_fn(|| scheduler.next()).collect();
        assert_eq!((first.len(), first[31]), (AGENT_TURNS_MAX, (1, 31)), "in order");
        for of in 2..10 {
            (0..1_000).for_each(|n| scheduler.push(agent(of), main.clone(), (of, n)));
        }
        let more: Vec<_> = std::iter::from_fn(|| scheduler.next()).collect();
        assert_eq!(more.len(), ACCOUNT_TURNS_MAX - AGENT_TURNS_MAX);
        assert_eq!(
            more.iter().filter(|(of, _)| *of == 2).count(),
            12,
            "agents take turns: {more:?}"
        );
        scheduler.push(agent(77), "MA2".into(), (77, 0));
        assert_eq!(scheduler.next(), Some((77, 0)), "another account waiting for none of them");
        assert_eq!(scheduler.next(), None);
        scheduler.free(&agent(1), &main);
        assert!(scheduler.next().is_some());
        assert_eq!(scheduler.next(), None, "a place is one");
        scheduler.free(&agent(77), &"MA2".into());
        assert!(!scheduler.queues.contains_key(&agent(77)), "nothing is left of it");
    }
}
